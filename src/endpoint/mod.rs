//! MCP as it is served: two transports of the legacy era over one conversation.
//!
//! What a request means is decided in `conversation`; the transports only carry it. It knows no
//! database: who may come in and what is offered is read from snapshots.

mod answers;
mod asking;
mod call_stream;
mod containing;
mod conversation;
pub mod edge;
mod fitting;
mod guard;
mod introduction;
mod leaving;
mod older;
pub mod paging;
mod paths;
mod rewriting;
mod routing;
mod sse;
mod standing;
mod streamable;
mod subscribing;
mod tasks;
mod teller;

use std::{sync::Arc, time::Duration};

use actix_web::web;
use tokio_util::sync::CancellationToken;

pub use containing::panicked;
pub use teller::Teller;

use crate::{conductor::Conductor, upstream::worker::FrameLimits};

/// What every endpoint needs.
#[derive(Clone)]
pub struct EndpointState {
    pub conductor: Arc<Conductor>,
    pub frames: FrameLimits,
    pub body_max: usize,
    /// How long changes of a list are gathered into one announcement.
    pub debounce: Duration,
    pub paging: Arc<paging::Paging>,
    /// The path before `/metamcp` in the URLs that clients are given.
    pub path_prefix: String,
    /// Cancelled when no new conversation may begin.
    pub draining: CancellationToken,
    /// Cancelled when what is under way is to end.
    pub ending: CancellationToken,
}

impl EndpointState {
    /// The same for one thread of the server. Each call waits for the end by a list that is locked for that,
    /// and is not to wait for the other threads there.
    pub fn of_thread(&self) -> Self {
        let (draining, ending) = (self.draining.child_token(), self.ending.child_token());
        Self { draining, ending, ..self.clone() }
    }
}

/// The routes below `/metamcp`.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(web::scope("/metamcp").default_service(web::to(paths::serve)));
}
