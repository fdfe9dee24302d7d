//! Which log messages the clients of an upstream want (server utilities, "Logging").
//!
//! An upstream has one level for each of its sessions, so it is told the most verbose that anybody of
//! the session wants, and what the others do not want is kept from them on the way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::exchange::SessionKey;
use crate::wire::level::Level;

/// What each client wants of the session that it uses. Who has not said is not in it.
#[derive(Default)]
pub struct LogLevels {
    wanted: Mutex<HashMap<SessionKey, HashMap<Arc<str>, Level>>>,
}

impl LogLevels {
    /// Notes what a client wants. What the upstream is to be told, if that is new.
    pub fn want(&self, key: &SessionKey, client: &Arc<str>, level: Level) -> Option<Level> {
        let mut wanted = self.lock();
        if let Some(clients) = wanted.get(key)
            && clients.get(client) == Some(&level)
        {
            return None;
        }
        let clients = wanted.entry(key.clone()).or_default();
        let before = clients.values().min().copied();
        clients.insert(client.clone(), level);
        let after = clients.values().min().copied();
        after.filter(|_| after != before)
    }

    /// The most verbose that anybody wants of a session.
    pub fn of(&self, key: &SessionKey) -> Option<Level> {
        self.lock().get(key)?.values().min().copied()
    }

    /// A client has gone. What upstream sessions are to be told, which may say less now. Where nobody
    /// wants anything any more there is nothing to tell: there is no word for it.
    pub fn forget(&self, client: &Arc<str>) -> Vec<(SessionKey, Level)> {
        let mut wanted = self.lock();
        let mut quieter = Vec::new();
        wanted.retain(|key, clients| {
            let before = clients.values().min().copied();
            if clients.remove(client).is_some()
                && let Some(after) = clients.values().min().copied()
                && Some(after) != before
            {
                quieter.push((key.clone(), after));
            }
            !clients.is_empty()
        });
        quieter
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, HashMap<Arc<str>, Level>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Level::*, SessionKey::Shared, *};

    fn client(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn an_upstream_is_told_the_most_verbose_level_and_only_when_that_changes() {
        let levels = LogLevels::default();
        let (a, b) = (client("a"), client("b"));
        assert_eq!(levels.of(&Shared), None);
        assert_eq!(levels.want(&Shared, &a, Warning), Some(Warning));
        assert_eq!(levels.want(&Shared, &a, Warning), None);
        assert_eq!(levels.want(&Shared, &b, Error), None);
        assert_eq!(levels.want(&Shared, &b, Debug), Some(Debug));
        assert_eq!(levels.want(&Shared, &b, Info), Some(Info));
        assert_eq!(levels.of(&Shared), Some(Info));
        assert_eq!(levels.forget(&b), [(Shared, Warning)]);
        assert_eq!(levels.forget(&b), []);
        assert_eq!(levels.forget(&a), []);
        assert_eq!(levels.of(&Shared), None);
    }

    #[test]
    fn what_one_session_is_told_is_nothing_to_another() {
        let levels = LogLevels::default();
        let (a, b) = (client("a"), client("b"));
        let key = |client: &Arc<str>| SessionKey::Client(client.clone());
        assert_eq!(levels.want(&key(&a), &a, Debug), Some(Debug));
        assert_eq!(levels.want(&key(&b), &b, Error), Some(Error));
        assert_eq!(levels.of(&key(&b)), Some(Error));
    }
}
