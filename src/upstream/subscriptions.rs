//! Who wants to hear of changes of which resource (server features, "Resources", subscriptions).
//!
//! A session of an upstream is subscribed once for all its clients: from the first that wants a URI
//! until the last does not. What is kept here is also what a session that is made anew is told again.

use std::collections::{HashMap, HashSet};

use super::{attribution::Client, exchange::SessionKey};

/// The subscriptions of one upstream, over all its sessions.
#[derive(Default)]
pub struct Subscriptions {
    sessions: HashMap<SessionKey, Subscribers>,
}

/// Who wants to hear of each URI.
type Subscribers = HashMap<Box<str>, HashSet<Client>>;

impl Subscriptions {
    /// Whether the upstream's session is to be subscribed now.
    pub fn subscribe(&mut self, key: &SessionKey, uri: &str, client: &Client) -> bool {
        let uris = self.sessions.entry(key.clone()).or_default();
        let subscribers = uris.entry(uri.into()).or_default();
        subscribers.insert(client.clone()) && subscribers.len() == 1
    }

    /// Whether the upstream's session is to be unsubscribed now.
    pub fn unsubscribe(&mut self, key: &SessionKey, uri: &str, client: &Client) -> bool {
        let Some(uris) = self.sessions.get_mut(key) else { return false };
        let Some(subscribers) = uris.get_mut(uri) else { return false };
        let was_last = subscribers.remove(client) && subscribers.is_empty();
        if was_last {
            uris.remove(uri);
        }
        if uris.is_empty() {
            self.sessions.remove(key);
        }
        was_last
    }

    /// A client has gone. What the upstream's sessions are to be unsubscribed from.
    pub fn forget(&mut self, client: &Client) -> Vec<(SessionKey, Box<str>)> {
        let mut over = Vec::new();
        self.sessions.retain(|key, uris| {
            uris.retain(|uri, subscribers| {
                subscribers.remove(client);
                if subscribers.is_empty() {
                    over.push((key.clone(), uri.clone()));
                }
                !subscribers.is_empty()
            });
            !uris.is_empty()
        });
        over
    }

    /// Who is to be told that a resource has changed, as the session of `key` says.
    pub fn subscribers(&self, key: &SessionKey, uri: &str) -> impl Iterator<Item = &Client> {
        let uris = self.sessions.get(key);
        uris.and_then(|uris| uris.get(uri)).into_iter().flatten()
    }

    /// What a session that is made anew is to be subscribed to, in a fixed order.
    pub fn of(&self, key: &SessionKey) -> Vec<&str> {
        let mut uris: Vec<&str> =
            self.sessions.get(key).into_iter().flat_map(HashMap::keys).map(|uri| &**uri).collect();
        uris.sort_unstable();
        uris
    }

    /// Whether a client wants to hear of anything, so that its session's stream is to be held.
    pub fn has(&self, key: &SessionKey) -> bool {
        self.sessions.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: SessionKey = SessionKey::Shared;

    fn client(name: &str) -> Client {
        name.into()
    }

    #[test]
    fn an_upstream_is_subscribed_at_the_first_and_unsubscribed_after_the_last() {
        let mut table = Subscriptions::default();
        let (a, b) = (client("a"), client("b"));
        assert!(table.subscribe(&SHARED, "x:1", &a));
        assert!(!table.subscribe(&SHARED, "x:1", &a), "it is subscribed already");
        assert!(!table.subscribe(&SHARED, "x:1", &b));
        assert!(table.subscribe(&SHARED, "x:2", &b));
        assert!(!table.unsubscribe(&SHARED, "x:1", &b));
        assert!(!table.unsubscribe(&SHARED, "x:1", &b), "once is enough");
        assert!(table.unsubscribe(&SHARED, "x:1", &a));
        assert!(!table.unsubscribe(&SHARED, "x:1", &a));
        assert!(table.has(&SHARED));
        assert!(table.unsubscribe(&SHARED, "x:2", &b));
        assert!(!table.has(&SHARED), "nothing is left of it");
    }

    #[test]
    fn a_change_is_told_to_those_who_asked_for_it_in_that_session() {
        let mut table = Subscriptions::default();
        let (a, b) = (client("a"), client("b"));
        let own = SessionKey::Client(a.clone());
        table.subscribe(&SHARED, "x:1", &b);
        table.subscribe(&own, "x:1", &a);
        let told = |key: &SessionKey, uri: &str| -> Vec<Client> {
            table.subscribers(key, uri).cloned().collect()
        };
        assert_eq!(told(&SHARED, "x:1"), [b]);
        assert_eq!(told(&own, "x:1"), [a]);
        assert!(told(&own, "x:2").is_empty() && told(&SHARED, "x:").is_empty());
    }

    #[test]
    fn a_session_that_is_made_anew_is_told_all_that_is_still_wanted_of_it() {
        let mut table = Subscriptions::default();
        let (a, b) = (client("a"), client("b"));
        for (uri, who) in [("x:2", &a), ("x:1", &a), ("x:1", &b), ("x:3", &b)] {
            table.subscribe(&SHARED, uri, who);
        }
        table.unsubscribe(&SHARED, "x:3", &b);
        assert_eq!(table.of(&SHARED), ["x:1", "x:2"]);
        assert!(table.of(&SessionKey::User(a)).is_empty());
    }

    #[test]
    fn a_client_that_goes_takes_only_its_own_wishes_with_it() {
        let mut table = Subscriptions::default();
        let (a, b) = (client("a"), client("b"));
        let own = SessionKey::Client(a.clone());
        table.subscribe(&SHARED, "x:1", &a);
        table.subscribe(&SHARED, "x:1", &b);
        table.subscribe(&SHARED, "x:2", &a);
        table.subscribe(&own, "x:1", &a);
        let mut over = table.forget(&a);
        over.sort_by(|one, other| one.1.cmp(&other.1));
        assert_eq!(over, [(own, "x:1".into()), (SHARED, "x:2".into())]);
        assert_eq!(table.of(&SHARED), ["x:1"]);
        assert!(table.forget(&a).is_empty());
    }
}
