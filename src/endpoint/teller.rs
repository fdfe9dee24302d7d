//! Who tells of a client that takes nothing of what is sent to it.
//!
//! Over SSE whoever ends its session does, and otherwise its connection, which the kernel cuts.

use std::{cell::RefCell, rc::Rc};

use tokio_util::sync::CancellationToken;

/// Shared by a connection and by what is served on it.
#[derive(Clone, Default)]
pub struct Teller(Rc<RefCell<Option<CancellationToken>>>);

/// A session that a connection carries, for as long as it does.
pub struct Carried(Teller);

impl Teller {
    /// From now on the connection carries a session whose end is told of by whoever ends it.
    pub fn carry(&self, ended: CancellationToken) -> Carried {
        self.0.replace(Some(ended));
        Carried(self.clone())
    }

    /// Another request has come on the connection.
    pub fn begin(&self) {
        self.0.take();
    }

    /// The kernel has cut the connection, since its client took nothing for `server.write_timeout`.
    pub fn cut(&self) {
        if !self.is_told() {
            metrics::counter!("metamcpd_slow_clients_closed_total").increment(1);
            tracing::warn!(
                "a client did not read what was sent to it (`server.write_timeout`); it was closed"
            );
        }
    }

    fn is_told(&self) -> bool {
        self.0.borrow().as_ref().is_some_and(CancellationToken::is_cancelled)
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        // Of a session that was ended before it, the rest may still stand in the connection.
        if !self.0.is_told() {
            self.0.0.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_was_ended_before_its_connection_is_told_of_once() {
        let teller = Teller::default();
        assert!(!teller.is_told());
        let ended = CancellationToken::new();
        let carried = teller.carry(ended.clone());
        assert!(!teller.is_told(), "it goes on");
        ended.cancel();
        assert!(teller.is_told());
        drop(carried);
        assert!(teller.is_told(), "what is left of it is cut as well");
        teller.begin();
        assert!(!teller.is_told(), "what comes next on the connection is another matter");
    }
}
