//! What clients know tasks by: ids that say to us whose a task is and where, so that it can be gone on
//! with after a restart; and to nobody else anything.
//!
//! They are sealed as the ids of sessions are. An id is good only for the principal that made the task,
//! on the endpoint where it was made; for everybody else there is no such task.

use std::sync::Arc;

use uuid::Uuid;

use super::sealed::PrincipalDigest;
use crate::{access::Principal, identity::sealer::Sealer};

/// What the ids are sealed for.
pub const TASKS_PURPOSE: &str = "task ids";

/// The first byte: what it is, in which form.
const TASK: u8 = 1;
const CURSOR: u8 = 2;

/// Makes ids, and reads its own. Cheap to clone.
#[derive(Clone)]
pub struct TaskIds(Sealer);

/// What an id says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskClaims {
    pub server: Uuid,
    /// Of the process that it ends with; nil where it may outlive us.
    pub life: Uuid,
    /// What its upstream knows it by.
    pub theirs: Box<str>,
}

impl TaskIds {
    pub fn new(sealer: Sealer) -> Self {
        Self(sealer)
    }

    /// The id of a task. `None` where the upstream's own is too long.
    pub fn seal(
        &self,
        principal: &Principal,
        endpoint: Uuid,
        claims: &TaskClaims,
    ) -> Option<Arc<str>> {
        let mut bytes = Self::head(TASK, principal, endpoint);
        bytes.extend_from_slice(claims.server.as_bytes());
        bytes.extend_from_slice(claims.life.as_bytes());
        bytes.extend_from_slice(claims.theirs.as_bytes());
        self.sealed(&bytes)
    }

    /// What an id says, to whom and where it was given, and to nobody else.
    pub fn open(&self, text: &str, principal: &Principal, endpoint: Uuid) -> Option<TaskClaims> {
        let rest = self.opened(TASK, text, principal, endpoint)?;
        let (server, rest) = rest.split_first_chunk::<16>()?;
        let (life, theirs) = rest.split_first_chunk::<16>()?;
        let theirs = std::str::from_utf8(theirs).ok()?;
        let (server, life) = (Uuid::from_bytes(*server), Uuid::from_bytes(*life));
        Some(TaskClaims { server, life, theirs: theirs.into() })
    }

    /// Where a list goes on: after the task of this number.
    pub fn cursor(&self, principal: &Principal, endpoint: Uuid, after: Uuid) -> Option<Arc<str>> {
        let mut bytes = Self::head(CURSOR, principal, endpoint);
        bytes.extend_from_slice(after.as_bytes());
        self.sealed(&bytes)
    }

    pub fn open_cursor(&self, text: &str, principal: &Principal, endpoint: Uuid) -> Option<Uuid> {
        let rest = self.opened(CURSOR, text, principal, endpoint)?;
        Uuid::from_slice(&rest).ok()
    }

    fn head(form: u8, principal: &Principal, endpoint: Uuid) -> Vec<u8> {
        let mut bytes = vec![form];
        bytes.extend_from_slice(PrincipalDigest::of(principal).as_bytes());
        bytes.extend_from_slice(endpoint.as_bytes());
        bytes
    }

    fn sealed(&self, bytes: &[u8]) -> Option<Arc<str>> {
        let text = self.0.seal(bytes).ok()?.text;
        // One that could not be read again would be of no use.
        self.0.takes(&text).then(|| text.into())
    }

    fn opened(
        &self,
        form: u8,
        text: &str,
        principal: &Principal,
        endpoint: Uuid,
    ) -> Option<Vec<u8>> {
        let mut plain = self.0.open(text)?.plain;
        let head = Self::head(form, principal, endpoint);
        plain.starts_with(&head).then(|| plain.split_off(head.len()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::identity::vault::Vault;

    fn ids(dir: &tempfile::TempDir) -> TaskIds {
        TaskIds::new(Vault::open(dir.path()).unwrap().sealer(TASKS_PURPOSE).unwrap())
    }

    fn key(number: u128) -> Principal {
        Principal::Key { uuid: Uuid::from_u128(number), user_id: None }
    }

    fn claims(theirs: &str) -> TaskClaims {
        TaskClaims { server: Uuid::from_u128(7), life: Uuid::from_u128(9), theirs: theirs.into() }
    }

    #[test]
    fn an_id_is_good_after_a_restart_for_its_owner_at_its_endpoint_and_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let (owner, endpoint) = (key(1), Uuid::from_u128(3));
        let id = ids(&dir).seal(&owner, endpoint, &claims("t\"1")).unwrap();
        let ids = ids(&dir);
        assert_eq!(ids.open(&id, &owner, endpoint), Some(claims("t\"1")));
        for (principal, endpoint) in
            [(key(2), endpoint), (Principal::Anonymous, endpoint), (key(1), Uuid::from_u128(4))]
        {
            assert_eq!(ids.open(&id, &principal, endpoint), None, "{principal:?}");
        }
        assert_eq!(ids.open("t\"1", &owner, endpoint), None);
        assert_eq!(ids.open_cursor(&id, &owner, endpoint), None);
    }

    #[test]
    fn a_cursor_is_no_id_and_is_one_list_s_own() {
        let dir = tempfile::tempdir().unwrap();
        let (ids, owner, endpoint) = (ids(&dir), key(1), Uuid::from_u128(3));
        let after = Uuid::from_u128(5);
        let cursor = ids.cursor(&owner, endpoint, after).unwrap();
        assert_eq!(ids.open_cursor(&cursor, &owner, endpoint), Some(after));
        assert_eq!(ids.open_cursor(&cursor, &key(2), endpoint), None);
        assert_eq!(ids.open(&cursor, &owner, endpoint), None);
    }

    #[test]
    fn gateways_behind_gateways_have_ids_of_ids_and_an_endless_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (ids, owner, endpoint) = (ids(&dir), key(1), Uuid::from_u128(3));
        let mut id: Arc<str> = "786512e2-9e0d-44bd-8f29-789f320fe840".into();
        for _ in 0..5 {
            let next = ids.seal(&owner, endpoint, &claims(&id)).unwrap();
            assert_eq!(ids.open(&next, &owner, endpoint), Some(claims(&id)));
            id = next;
        }
        assert_eq!(ids.seal(&owner, endpoint, &claims(&"x".repeat(4_000))), None);
    }
}
