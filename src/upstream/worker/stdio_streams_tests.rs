//! Tests of what is read from a child, without a child.

use std::{
    cell::Cell,
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::ReadBuf;

use super::*;
use crate::upstream::{
    board::{Board, Remembered},
    testing::{Deaf, brakes, calls, spec},
};

/// A stream that has always more to read, until it was read so often.
struct Flood {
    reads: usize,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        const LINE: &[u8] = b"and more of it\n";
        if let Some(left) = self.reads.checked_sub(1) {
            self.reads = left;
            while into.remaining() >= LINE.len() {
                into.put_slice(LINE);
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_server_that_never_stops_writing_lets_others_have_their_turns() {
    const READS: usize = 100;
    let board = Board::new(spec(1), Remembered::default(), calls(), &brakes(), Arc::new(Deaf));
    let turns = Cell::new(0);
    let others = async {
        loop {
            turns.set(turns.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    let others: &mut (dyn Future<Output = Infallible> + Unpin) = &mut Box::pin(others);
    tokio::select! {
        biased;
        () = read_stderr(Flood { reads: READS }, Scribe::of_all(Arc::new(board))) => {}
        never = others => match never {},
    }
    assert!(turns.get() >= READS, "{} turns in {READS} reads", turns.get());
}

#[test]
fn the_call_that_a_spoilt_answer_was_for_is_found_and_no_other() {
    let deep = "[".repeat(600);
    for (line, id) in [
        (format!(r#"{{"jsonrpc":"2.0","id":7,"result":{deep}}}"#), Some(7)),
        (format!("\u{feff}{{\"id\":7,\"jsonrpc\":\"2.0\",\"result\":{deep}}}"), Some(7)),
        (r#"{"jsonrpc":"2.0","id":7,"result":{"a":NaN}}"#.to_owned(), Some(7)),
        (r#"{"result":{"a":NaN},"jsonrpc":"2.0","id":7}"#.to_owned(), Some(7)),
        (r#"DEBUG {"jsonrpc":"2.0","id":7,"result":{"a":NaN}}"#.to_owned(), None),
        (r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":NaN}}"#.to_owned(), None),
        (r#"{"result":{"id":7,"a":NaN}}"#.to_owned(), None),
        ("listening on 7".to_owned(), None),
    ] {
        assert_eq!(spoilt_answer(&line.clone().into()), id, "{line}");
    }
}
