//! Whose turn it is on a connection: what is left open by the server's own clocks, which begin with a
//! connection and with an answer, and not with each head.

use std::{cell::Cell, rc::Rc, time::Duration};

/// How long a client has to read its answer, while what it still sends is of no interest.
pub const LINGER: Duration = Duration::from_secs(1);

/// Shared by a connection and by the requests on it.
#[derive(Clone, Default)]
pub struct Turn(Rc<Cell<Whose>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    /// The client's, from the beginning of the connection. The server has a clock for that.
    #[default]
    Newcomers,
    /// Ours: a head has come, and its answer has not begun.
    Ours,
    /// The client's again.
    Clients,
    /// Nobody's: the client did not send what it began, and has its answer.
    Over,
}

impl Turn {
    pub fn whose(&self) -> Whose {
        self.0.get()
    }

    pub fn is_now(&self, whose: Whose) {
        self.0.set(whose);
    }
}

/// Looks for the empty line that ends a head, in pieces as they come.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEnd {
    /// How far the last bytes are like `\r\n\r\n`.
    matched: usize,
}

impl HeadEnd {
    /// Whether the piece leaves nothing that was begun: it ends a head, or what follows one.
    pub fn ends(&mut self, piece: &[u8]) -> bool {
        let mut ends = false;
        for byte in piece {
            self.matched = match (self.matched, byte) {
                (1 | 3, b'\n') => self.matched + 1,
                (2, b'\r') => 3,
                (_, b'\r') => 1,
                // Some end lines by a line feed only.
                (2, b'\n') => 4,
                (0, b'\n') => 2,
                (_, _) => 0,
            };
            if self.matched == 4 {
                ends = true;
                self.matched = 0;
            }
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_torn() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for at in 0..head.len() {
            let mut end = HeadEnd::default();
            let (first, second) = head.split_at(at);
            assert!(!end.ends(first), "{at}");
            assert!(end.ends(second), "{at}");
        }
        for (text, ends) in [
            ("GET / HTTP/1.1\n\n", true),
            ("GET / HTTP/1.1\r\n\n", true),
            ("GET / HTTP/1.1\r\nX: ", false),
            ("\r\r\n\r\r\n", false),
            ("", false),
            ("x\r\n\r\n{}", true),
        ] {
            assert_eq!(HeadEnd::default().ends(text.as_bytes()), ends, "{text:?}");
        }
    }
}
