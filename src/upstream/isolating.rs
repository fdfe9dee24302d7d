//! By which connection of an upstream a caller goes: the one that all share, a session of its own
//! behind it, or a process of its own (design decision 8).

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    CallError,
    exchange::SessionKey,
    link::{Caller, Link},
    port::{Facts, Port},
};

impl Port {
    /// The connection for a call of this caller, waited for while there is hope.
    ///
    /// Who has a process of its own needs nothing else: it goes on while the upstream's own process is
    /// started anew, and after that has crashed.
    pub(super) async fn way(
        &self,
        facts: &Facts,
        caller: &Caller<'_>,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<Arc<Link>, CallError> {
        let key = caller.key(facts.isolation);
        if let Some(pipe) = self.processes.ready(&key) {
            return Ok(Arc::new(Link::Pipe(pipe)));
        }
        let link = self.link(facts, deadline, cancel).await?;
        if !is_of_its_own(&link, &key) {
            return Ok(link);
        }
        let declared = caller.declared(facts.isolation);
        let pipe = self.processes.process(&facts.name, &key, declared, deadline).await?;
        Ok(Arc::new(Link::Pipe(pipe)))
    }

    /// The connection to the session of this key, if there is one just now.
    pub(super) fn current_link(&self, key: &SessionKey) -> Option<Arc<Link>> {
        if let Some(pipe) = self.processes.ready(key) {
            return Some(Arc::new(Link::Pipe(pipe)));
        }
        self.link.load_full().filter(|link| !is_of_its_own(link, key))
    }
}

/// Whether who has this key has a process of its own. A remote upstream has sessions instead.
fn is_of_its_own(link: &Link, key: &SessionKey) -> bool {
    match (link, key) {
        (Link::Remote(_), _) | (Link::Pipe(_), SessionKey::Shared) => false,
        (Link::Pipe(_), SessionKey::Client(_) | SessionKey::User(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{access::Principal, upstream::Isolation, wire::capabilities::ClientCapabilities};

    /// A key of this number, owned by this user.
    fn key(number: u128, user: Option<&str>) -> Principal {
        Principal::Key { uuid: Uuid::from_u128(number), user_id: user.map(str::to_owned) }
    }

    #[test]
    fn a_process_is_one_sessions_or_one_users_as_the_upstream_is_shared() {
        let mary = |number| key(number, Some("mary"));
        for (isolation, one, other, is_same) in [
            (Isolation::Shared, ("s", mary(1)), ("t", key(2, None)), true),
            (Isolation::Session, ("s", mary(1)), ("s", mary(1)), true),
            (Isolation::Session, ("s", mary(1)), ("t", mary(1)), false),
            // Two keys of one user, two sessions of one key, and what looks like another's name.
            (Isolation::User, ("s", mary(1)), ("t", mary(2)), true),
            (Isolation::User, ("s", key(1, None)), ("t", key(1, None)), true),
            (Isolation::User, ("s", key(1, None)), ("t", key(2, None)), false),
            (Isolation::User, ("s", mary(1)), ("t", key(2, Some("ann"))), false),
            (Isolation::User, ("s", mary(1)), ("t", key(1, None)), false),
            (Isolation::User, ("s", key(1, None)), ("t", Principal::Anonymous), false),
        ] {
            let key = |session: &str, principal: &Principal| {
                let session = Arc::from(session);
                let capabilities = ClientCapabilities::ALL;
                let caller = Caller { session: &session, principal, capabilities, log_level: None };
                caller.key(isolation)
            };
            let (one, other) = (key(one.0, &one.1), key(other.0, &other.1));
            assert_eq!(one == other, is_same, "{isolation:?} {one:?} {other:?}");
        }
    }
}
