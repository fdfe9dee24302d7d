//! Who wants to hear of changes of which resource (server features, "Resources", subscriptions).
//!
//! A session of an upstream is subscribed once for all its clients: from the first that wants a URI
//! until the last does not. What is kept here is also what a session that is made anew is told again.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{attribution::Client, exchange::SessionKey};
use crate::wire::capabilities::ClientCapabilities;

/// The subscriptions of one upstream, over all its sessions.
#[derive(Default)]
pub struct Subscriptions {
    table: Mutex<Table>,
    turns: Mutex<Turns>,
}

type Turns = HashMap<(SessionKey, Box<str>), Weak<Turn>>;

/// Whoever holds it speaks with one session about one URI.
pub type Turn = tokio::sync::Mutex<()>;

#[derive(Default)]
struct Table {
    sessions: HashMap<SessionKey, Wanted>,
    /// How many each client has.
    held: HashMap<Client, usize>,
}

/// What is wanted of one session.
struct Wanted {
    /// What the upstream is told that can be asked for, where the session is opened for this.
    declared: ClientCapabilities,
    uris: HashMap<Box<str>, Wish>,
}

/// Who wants to hear of one URI.
#[derive(Default)]
struct Wish {
    clients: HashSet<Client>,
    /// Whether the upstream has agreed to it.
    is_agreed: bool,
}

impl Subscriptions {
    /// Notes what a client wants. Whether the upstream's session is to be asked for it now. It counts
    /// from here on, so that what the upstream says together with its answer finds its client.
    pub fn subscribe(
        &self,
        key: &SessionKey,
        declared: ClientCapabilities,
        uri: &str,
        client: &Client,
    ) -> bool {
        let Table { sessions, held } = &mut *self.lock();
        let uris = HashMap::new();
        let wanted = sessions.entry(key.clone()).or_insert_with(|| Wanted { declared, uris });
        let wish = wanted.uris.entry(uri.into()).or_default();
        if wish.clients.insert(client.clone()) {
            *held.entry(client.clone()).or_default() += 1;
        }
        !wish.is_agreed
    }

    /// The upstream's session has agreed.
    pub fn agreed(&self, key: &SessionKey, uri: &str) {
        let mut table = self.lock();
        let wish = table.sessions.get_mut(key).and_then(|wanted| wanted.uris.get_mut(uri));
        if let Some(wish) = wish {
            wish.is_agreed = true;
        }
    }

    /// A client does not want to hear of this any more. The upstream's sessions to be unsubscribed.
    pub fn unsubscribe(&self, uri: &str, client: &Client) -> Vec<SessionKey> {
        let over = self.lock().drop_of(client, |wanted| wanted == uri);
        over.into_iter().map(|(key, _)| key).collect()
    }

    /// A client has gone. What the upstream's sessions are to be unsubscribed from.
    pub fn forget(&self, client: &Client) -> Vec<(SessionKey, Box<str>)> {
        self.lock().drop_of(client, |_| true)
    }

    /// Who is to be told that a resource has changed, as the session of `key` says.
    pub fn subscribers(&self, key: &SessionKey, uri: &str) -> Vec<Client> {
        let table = self.lock();
        let wish = table.sessions.get(key).and_then(|wanted| wanted.uris.get(uri));
        wish.map(|wish| wish.clients.iter().cloned().collect()).unwrap_or_default()
    }

    /// What a session that is made anew is to be subscribed to, in a fixed order.
    pub fn of(&self, key: &SessionKey) -> Vec<Box<str>> {
        let table = self.lock();
        let uris = table.sessions.get(key).into_iter().flat_map(|wanted| &wanted.uris);
        let agreed = uris.filter(|(_, wish)| wish.is_agreed);
        let mut uris: Vec<_> = agreed.map(|(uri, _)| uri.clone()).collect();
        uris.sort_unstable();
        uris
    }

    /// Whether anybody wants to hear of this.
    pub fn is_wanted(&self, key: &SessionKey, uri: &str) -> bool {
        self.lock().sessions.get(key).is_some_and(|wanted| wanted.uris.contains_key(uri))
    }

    /// Whether a client wants to hear of anything, so that its session's stream is to be held.
    pub fn has(&self, key: &SessionKey) -> bool {
        self.lock().sessions.contains_key(key)
    }

    /// Whether nobody wants to hear of anything.
    pub fn is_empty(&self) -> bool {
        self.lock().sessions.is_empty()
    }

    /// The sessions of which anything is wanted, and what each is told when it is opened.
    pub fn sessions(&self) -> Vec<(SessionKey, ClientCapabilities)> {
        let table = self.lock();
        table.sessions.iter().map(|(key, wanted)| (key.clone(), wanted.declared)).collect()
    }

    /// How much a client has subscribed to.
    pub fn held_by(&self, client: &Client) -> usize {
        self.lock().held.get(client).copied().unwrap_or_default()
    }

    /// Who holds this is the only one who speaks with the session of this URI: what the upstream is
    /// told last has to be what is wanted last.
    pub fn turn(&self, key: &SessionKey, uri: &str) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let place = turns.entry((key.clone(), uri.into())).or_default();
        place.upgrade().unwrap_or_else(|| {
            let turn = Arc::default();
            *place = Arc::downgrade(&turn);
            turn
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // What it holds is whole whenever the lock is free, even after a panic elsewhere.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Takes out what a client wants of these URIs; what nobody wants any more.
    fn drop_of(
        &mut self,
        client: &Client,
        is_meant: impl Fn(&str) -> bool,
    ) -> Vec<(SessionKey, Box<str>)> {
        let Some(held) = self.held.get_mut(client) else { return Vec::new() };
        let mut over = Vec::new();
        self.sessions.retain(|key, wanted| {
            wanted.uris.retain(|uri, wish| {
                if !is_meant(uri) || !wish.clients.remove(client) {
                    return true;
                }
                *held -= 1;
                if wish.clients.is_empty() {
                    over.push((key.clone(), uri.clone()));
                }
                !wish.clients.is_empty()
            });
            !wanted.uris.is_empty()
        });
        if *held == 0 {
            self.held.remove(client);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: SessionKey = SessionKey::Shared;

    fn client(name: &str) -> Client {
        name.into()
    }

    /// Subscribes, and has the upstream agree where it is asked. Whether it was.
    fn subscribe(table: &Subscriptions, key: &SessionKey, uri: &str, client: &Client) -> bool {
        let is_asked = table.subscribe(key, ClientCapabilities::default(), uri, client);
        table.agreed(key, uri);
        is_asked
    }

    #[test]
    fn an_upstream_is_subscribed_at_the_first_and_unsubscribed_after_the_last() {
        let table = Subscriptions::default();
        let (a, b) = (client("a"), client("b"));
        assert!(subscribe(&table, &SHARED, "x:1", &a));
        assert!(!subscribe(&table, &SHARED, "x:1", &a), "it is subscribed already");
        assert!(!subscribe(&table, &SHARED, "x:1", &b));
        assert!(subscribe(&table, &SHARED, "x:2", &b));
        assert_eq!((table.held_by(&a), table.held_by(&b)), (1, 2));
        assert_eq!(table.unsubscribe("x:1", &b), []);
        assert_eq!(table.unsubscribe("x:1", &b), [], "once is enough");
        assert_eq!(table.unsubscribe("x:1", &a), [SHARED]);
        assert_eq!(table.unsubscribe("x:1", &a), []);
        assert!(table.has(&SHARED) && !table.is_wanted(&SHARED, "x:1"));
        assert_eq!(table.unsubscribe("x:2", &b), [SHARED]);
        assert!(!table.has(&SHARED), "nothing is left of it");
        assert_eq!((table.held_by(&a), table.held_by(&b)), (0, 0));
    }

    #[test]
    fn a_change_is_told_to_those_who_asked_for_it_in_that_session() {
        let table = Subscriptions::default();
        let (a, b) = (client("a"), client("b"));
        let own = SessionKey::Client(a.clone());
        subscribe(&table, &SHARED, "x:1", &b);
        subscribe(&table, &own, "x:1", &a);
        assert_eq!(table.subscribers(&SHARED, "x:1"), [b]);
        assert_eq!(table.subscribers(&own, "x:1"), [a]);
        for (key, uri) in [(&own, "x:2"), (&SHARED, "x:")] {
            assert!(table.subscribers(key, uri).is_empty());
        }
    }

    #[test]
    fn what_the_upstream_has_not_agreed_to_is_heard_of_and_asked_for_again_but_not_made_again() {
        let table = Subscriptions::default();
        let a = client("a");
        let ask = || table.subscribe(&SHARED, ClientCapabilities::default(), "x:1", &a);
        assert!(ask() && ask());
        assert_eq!(table.subscribers(&SHARED, "x:1"), std::slice::from_ref(&a));
        assert!(table.of(&SHARED).is_empty());
        assert_eq!(table.held_by(&a), 1);
        table.unsubscribe("x:1", &a);
        table.agreed(&SHARED, "x:1");
        assert!(!table.has(&SHARED), "it came too late");
    }

    #[test]
    fn a_session_that_is_made_anew_is_told_all_that_is_still_wanted_of_it() {
        let table = Subscriptions::default();
        let (a, b) = (client("a"), client("b"));
        for (uri, who) in [("x:2", &a), ("x:1", &a), ("x:1", &b), ("x:3", &b)] {
            subscribe(&table, &SHARED, uri, who);
        }
        table.unsubscribe("x:3", &b);
        assert_eq!(table.of(&SHARED), ["x:1".into(), "x:2".into()]);
        assert!(table.of(&SessionKey::User(a)).is_empty());
        assert_eq!(table.sessions(), [(SHARED, ClientCapabilities::default())]);
    }

    #[test]
    fn a_client_that_goes_takes_only_its_own_wishes_with_it() {
        let table = Subscriptions::default();
        let (a, b) = (client("a"), client("b"));
        let own = SessionKey::Client(a.clone());
        subscribe(&table, &SHARED, "x:1", &a);
        subscribe(&table, &SHARED, "x:1", &b);
        subscribe(&table, &SHARED, "x:2", &a);
        subscribe(&table, &own, "x:1", &a);
        let mut over = table.forget(&a);
        over.sort_by(|one, other| one.1.cmp(&other.1));
        assert_eq!(over, [(own, "x:1".into()), (SHARED, "x:2".into())]);
        assert_eq!(table.of(&SHARED), ["x:1".into()]);
        assert!(table.forget(&a).is_empty());
    }

    #[test]
    fn one_at_a_time_speaks_with_a_session_of_a_uri() {
        let table = Subscriptions::default();
        let turn = table.turn(&SHARED, "x:1");
        let held = turn.try_lock();
        assert!(held.is_ok() && table.turn(&SHARED, "x:1").try_lock().is_err());
        assert!(table.turn(&SHARED, "x:2").try_lock().is_ok());
    }
}
