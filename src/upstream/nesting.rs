//! Endpoints of a gateway as upstreams of one, and the circles that they can be put into.
//!
//! An endpoint that offers its own tools once more would offer more and more of them, each longer by
//! a prefix. So before each list a gateway asks an upstream that is one which upstreams are behind
//! it, with all that are behind those; who finds itself there stands in a circle, and is ended. It
//! works over every transport, since it is one more request, which no other server is sent.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Exit, Reason, board::Board, link::Link};
use crate::wire::Frame;

/// Asks an endpoint which upstreams are behind it. A method of our own.
pub const METHOD: &str = "metamcpd/upstreams";

/// What a gateway is called in the answer to `initialize`.
pub const GATEWAY: &str = "metamcpd";

/// Upstreams that are remembered to be behind one.
const BEHIND_MAX: usize = 10_000;

/// What is behind an upstream, as far as it is a gateway.
#[derive(Default)]
pub struct Nested {
    is_gateway: AtomicBool,
    behind: ArcSwap<BTreeSet<Uuid>>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    upstreams: BTreeSet<Uuid>,
}

impl Nested {
    pub fn set_is_gateway(&self, is_gateway: bool) {
        self.is_gateway.store(is_gateway, Ordering::Relaxed);
    }

    /// Asks what is behind `board`.
    ///
    /// # Errors
    /// When that is the very same upstream. What cannot be asked is no circle: versions of a gateway
    /// that do not know the question are as other servers.
    pub async fn look(board: &Board, link: &Link, patience: Duration) -> Result<(), Exit> {
        let nested = &board.nested;
        if !nested.is_gateway.load(Ordering::Relaxed) {
            nested.behind.store(Arc::default());
            return Ok(());
        }
        let server: Arc<str> = Arc::from(&*board.spec().name);
        let Ok(answer) = link.ask(&server, METHOD, b"{}", patience).await else { return Ok(()) };
        let Some(upstreams) = read(&answer) else { return Ok(()) };
        let is_circle = upstreams.contains(&board.id);
        nested.behind.store(Arc::new(upstreams));
        match is_circle {
            false => Ok(()),
            true => Err(Exit::new(
                Reason::NestingCycle,
                "the endpoint behind it offers this very server, directly or by other gateways; \
                 take it out of one of the namespaces on the way",
            )),
        }
    }
}

fn read(answer: &Frame) -> Option<BTreeSet<Uuid>> {
    let answer: Answer = serde_json::from_slice(&answer.result()?).ok()?;
    Some(answer.upstreams.into_iter().take(BEHIND_MAX).collect())
}

/// The answer of an endpoint that offers the tools of `boards`, as the `result`.
pub fn answer(boards: &[Arc<Board>]) -> Bytes {
    let mut upstreams: BTreeSet<Uuid> = boards.iter().map(|board| board.id).collect();
    for board in boards {
        upstreams.extend(board.nested.behind.load().iter());
    }
    // A list of strings cannot fail to be written.
    serde_json::to_vec(&Answer { upstreams }).unwrap_or_default().into()
}
