//! Whose turn it is on a connection, where the server itself would wait for ever.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use actix_web::dev::Payload;
use memchr::memchr2;

/// Shared by a connection and by the requests on it.
#[derive(Clone, Default)]
pub struct Turn(Rc<Shared>);

#[derive(Default)]
struct Shared {
    whose: Cell<Whose>,
    heads: Cell<u64>,
    unread: RefCell<Option<Payload>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    /// The client's, from the beginning of the connection. The server has a clock for that head, and for no
    /// other.
    #[default]
    Newcomers,
    /// Ours: a head has come, and its answer has not begun.
    Ours,
    /// The client's again.
    Clients,
}

impl Turn {
    pub fn whose(&self) -> Whose {
        self.0.whose.get()
    }

    /// How many heads have come.
    pub fn heads(&self) -> u64 {
        self.0.heads.get()
    }

    /// A head has come.
    pub fn begin(&self) {
        self.0.unread.take();
        self.0.heads.set(self.heads() + 1);
        self.0.whose.set(Whose::Ours);
    }

    /// Its answer begins.
    pub fn end(&self) {
        self.0.whose.set(Whose::Clients);
    }

    /// Keeps what is left of a body that nobody reads any more. The server closes a connection with such a
    /// one after its answer; where it was let go and came in chunks, the server would read it for ever.
    pub fn leave(&self, unread: Payload) {
        self.0.unread.replace(Some(unread));
    }

    /// Whether there is such a one, so that what still comes is no head.
    pub fn is_left(&self) -> bool {
        self.0.unread.borrow().is_some()
    }
}

/// Looks for the empty line that ends a head, in pieces as they come.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEnd {
    /// How far the last bytes are like `\r\n\r\n`.
    matched: usize,
    /// Whether anything of it has come. Empty lines before it are no part of it (RFC 9112, section 2.2).
    has_begun: bool,
}

impl HeadEnd {
    /// Whether something of a head has come.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether the head ends in this piece.
    pub fn ends(&mut self, piece: &[u8]) -> bool {
        let mut ends = false;
        let mut rest = piece;
        while let Some((mut byte, mut after)) = rest.split_first() {
            // Within a line only its end is of interest.
            if self.has_begun && self.matched == 0 {
                let Some(at) = memchr2(b'\r', b'\n', rest) else { break };
                (byte, after) = (&rest[at], &rest[at + 1..]);
            }
            rest = after;
            if !self.has_begun && matches!(byte, b'\r' | b'\n') {
                continue;
            }
            self.has_begun = true;
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
            ("x\r\r\n\r\r\n", false),
            ("\r\n\r\n", false),
            ("\r\n\r\nGET", false),
            ("\r\nGET / HTTP/1.1\r\n\r\n", true),
            ("", false),
            ("x\r\n\r\n{}", true),
        ] {
            assert_eq!(HeadEnd::default().ends(text.as_bytes()), ends, "{text:?}");
        }
    }
}
