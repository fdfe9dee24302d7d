//! Who tells of a client that takes nothing of what is sent to it.
//!
//! Over SSE whoever ends its session does, and otherwise its connection, which the kernel cuts. A client is
//! told of once for that, whatever else it has asked for on the same connection meanwhile.

use std::{cell::RefCell, rc::Rc};

use tokio_util::sync::CancellationToken;

/// Bytes that were written after an answer before none of it can be left: more than a kernel keeps of what its
/// peer has not confirmed.
const KEPT_MAX: usize = 8 << 20;

/// Shared by a connection and by what is served on it.
#[derive(Clone, Default)]
pub struct Teller(Rc<RefCell<Told>>);

#[derive(Default)]
struct Told {
    /// Whose answer is being sent.
    now: Option<Whose>,
    /// Whose answer was sent before it, and may still stand in the connection.
    before: Option<Whose>,
    /// Whether what is sent now is no more of that.
    is_anew: bool,
    /// Bytes that were written since then.
    since: usize,
}

struct Whose {
    /// The session, by a name for logs.
    session: Box<str>,
    /// Where the end of the session is told of by whoever ends it.
    ended: Option<CancellationToken>,
}

/// A session that a connection carries, for as long as it does.
pub struct Carried(Teller);

impl Whose {
    fn is_told(&self) -> bool {
        self.ended.as_ref().is_some_and(CancellationToken::is_cancelled)
    }
}

impl Teller {
    /// From now on the connection carries a session whose end is told of by whoever ends it.
    pub fn carry(&self, session: &str, ended: CancellationToken) -> Carried {
        self.0.borrow_mut().now = Some(Whose { session: session.into(), ended: Some(ended) });
        Carried(self.clone())
    }

    /// The request is one of this session.
    pub fn is_of(&self, session: &str) {
        self.0.borrow_mut().now = Some(Whose { session: session.into(), ended: None });
    }

    /// Another request has come on the connection. What was answered before may not have left it yet.
    pub fn begin(&self) {
        let mut told = self.0.borrow_mut();
        told.is_over();
        told.is_anew = true;
    }

    /// All that was said has left for the kernel. It may keep some of an answer that was not read for long
    /// after that, for which its client has been told of already.
    pub fn flushed(&self) {
        let mut told = self.0.borrow_mut();
        if told.is_anew && told.before.as_ref().is_some_and(|before| !before.is_told()) {
            told.before = None;
        }
    }

    /// So many bytes have left for the kernel.
    pub fn took(&self, bytes: usize) {
        let mut told = self.0.borrow_mut();
        if told.is_anew && told.before.is_some() {
            told.since += bytes;
            if told.since > KEPT_MAX {
                told.before = None;
            }
        }
    }

    /// The kernel has cut the connection, since its client took nothing for `server.write_timeout`.
    pub fn cut(&self) {
        if let Some(session) = self.untold() {
            metrics::counter!("metamcpd_slow_clients_closed_total").increment(1);
            tracing::warn!(
                session,
                "a client did not read what was sent to it (`server.write_timeout`); it was closed"
            );
        }
    }

    /// Whose client is to be told of, if nobody has: empty where it is no session's.
    fn untold(&self) -> Option<String> {
        let told = self.0.borrow();
        let mut all = [&told.before, &told.now].into_iter().flatten();
        if all.clone().any(Whose::is_told) {
            return None;
        }
        Some(all.next().map(|whose| whose.session.to_string()).unwrap_or_default())
    }
}

impl Told {
    /// What is sent now has come to its end. The first that may not have left it counts.
    fn is_over(&mut self) {
        if let Some(whose) = self.now.take()
            && self.before.is_none()
        {
            (self.before, self.since) = (Some(whose), 0);
        }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        let mut told = self.0.0.borrow_mut();
        told.is_over();
        told.is_anew = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn untold(teller: &Teller) -> Option<String> {
        teller.untold()
    }

    #[test]
    fn a_session_that_was_ended_before_its_connection_is_told_of_once() {
        let teller = Teller::default();
        assert_eq!(untold(&teller).as_deref(), Some(""));
        let ended = CancellationToken::new();
        let carried = teller.carry("s", ended.clone());
        assert_eq!(untold(&teller).as_deref(), Some("s"), "it goes on");
        ended.cancel();
        assert_eq!(untold(&teller), None);
        drop(carried);
        teller.flushed();
        assert_eq!(untold(&teller), None, "what is left of it is cut as well");
        teller.begin();
        teller.is_of("another");
        assert_eq!(untold(&teller), None, "what waits behind it is not what was not read");
        teller.flushed();
        assert_eq!(untold(&teller), None, "the kernel may still have some of it");
        teller.took(KEPT_MAX + 1);
        assert_eq!(
            untold(&teller).as_deref(),
            Some("another"),
            "what comes next is another matter"
        );
    }

    #[test]
    fn what_waits_behind_an_answer_that_is_not_read_is_not_to_blame() {
        let teller = Teller::default();
        teller.begin();
        teller.is_of("first");
        teller.begin();
        assert_eq!(untold(&teller).as_deref(), Some("first"));
        teller.is_of("second");
        let ended = CancellationToken::new();
        teller.begin();
        let _carried = teller.carry("third", ended.clone());
        assert_eq!(untold(&teller).as_deref(), Some("first"));
        ended.cancel();
        assert_eq!(untold(&teller), None, "one cut is told of once");
        let teller = Teller::default();
        teller.is_of("first");
        teller.begin();
        teller.flushed();
        assert_eq!(untold(&teller).as_deref(), Some(""), "it is no session's");
    }
}
