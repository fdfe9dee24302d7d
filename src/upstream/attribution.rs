//! Who an upstream means by what it says outside of any answer.
//!
//! It does not say so itself, so it is concluded from whose calls are with it, and never guessed: a
//! question or a log message of one client's must not reach another (design decision 8).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

/// The id of a client's session.
pub type Client = Arc<str>;

/// Whose calls are with one session of an upstream.
#[derive(Default)]
pub struct Attribution {
    calls: BTreeMap<u64, Client>,
    /// Who took a call back, or whose call was given up, and until when the upstream may still be
    /// at work on it: it is told so, and need not listen.
    doubts: HashMap<Client, Instant>,
}

/// Who may be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No client's call is with it.
    Nobody,
    /// Every call that may be is of this client. `call` is the newest that it waits for.
    One { client: Client, call: Option<u64> },
    /// Calls of several clients are.
    Several,
}

impl Attribution {
    pub fn begin(&mut self, call: u64, client: Client) {
        self.calls.insert(call, client);
    }

    pub fn client_of(&self, call: u64) -> Option<Client> {
        self.calls.get(&call).cloned()
    }

    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// The call was answered.
    pub fn end(&mut self, call: u64) {
        self.calls.remove(&call);
    }

    /// The call was given up without an answer; until `until` the upstream may be at work on it.
    pub fn give_up(&mut self, call: u64, until: Instant) {
        if let Some(client) = self.calls.remove(&call) {
            self.doubts.insert(client, until);
        }
    }

    pub fn cause(&mut self, now: Instant) -> Cause {
        self.doubts.retain(|_, until| *until > now);
        let newest_first = self.calls.iter().rev().map(|(call, client)| (client, Some(*call)));
        let doubted = self.doubts.keys().map(|client| (client, None));
        let mut all = newest_first.chain(doubted);
        let Some((client, call)) = all.next() else { return Cause::Nobody };
        match all.all(|(other, _)| other == client) {
            true => Cause::One { client: client.clone(), call },
            false => Cause::Several,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What happens to calls: `b1a` begins the call 1 of `a`, `e1` ends it, `g1` gives it up.
    fn cause(events: &[&str], later: u64) -> Cause {
        let now = Instant::now();
        let mut attribution = Attribution::default();
        for event in events {
            let (what, call) = event.split_at(1);
            let number = |digits: &str| digits.parse().unwrap_or_default();
            match what {
                "b" => attribution.begin(number(&call[..1]), call[1..].into()),
                "e" => attribution.end(number(call)),
                _ => attribution.give_up(number(call), now + Duration::from_secs(30)),
            }
        }
        attribution.cause(now + Duration::from_secs(later))
    }

    fn one(client: &str, call: Option<u64>) -> Cause {
        Cause::One { client: client.into(), call }
    }

    #[test]
    fn one_client_is_meant_only_while_nobody_elses_call_may_be_with_the_upstream() {
        let cases: &[(&[&str], Cause)] = &[
            (&[], Cause::Nobody),
            (&["b1a"], one("a", Some(1))),
            (&["b1a", "b2a"], one("a", Some(2))),
            (&["b1a", "b2b"], Cause::Several),
            (&["b1a", "b2b", "e1"], one("b", Some(2))),
            (&["b1a", "b2b", "e1", "e2"], Cause::Nobody),
            (&["b1a", "e1", "e1", "e7"], Cause::Nobody),
        ];
        for (events, expected) in cases {
            assert_eq!(cause(events, 0), *expected, "{events:?}");
        }
    }

    #[test]
    fn who_took_a_call_back_may_be_meant_for_a_while() {
        let cases: &[(&[&str], u64, Cause)] = &[
            (&["b1a", "g1"], 29, one("a", None)),
            (&["b1a", "g1", "b2a"], 29, one("a", Some(2))),
            (&["b1a", "g1", "b2b"], 29, Cause::Several),
            (&["b1a", "g1", "b2b"], 30, one("b", Some(2))),
            (&["b1a", "g1"], 30, Cause::Nobody),
            (&["b1a", "e1", "g1"], 0, Cause::Nobody),
        ];
        for (events, later, expected) in cases {
            assert_eq!(cause(events, *later), *expected, "{events:?} after {later} s");
        }
    }
}
