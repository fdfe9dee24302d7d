//! Calls whose client leaves before it has a stream of theirs to come back to.
//!
//! To disconnect is not to cancel in this era, so the server may go on. Then so does the call: by the same
//! clocks, among those in flight, and to be ended by whatever else ends one. Only that nobody hears what
//! comes of it.

use std::{future::pending, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::conversation::{Heard, Underway};

/// What a server is told of a call that our own code has failed at.
const FAILED: &str = "the gateway has failed at it";

/// A call that ends by its outcome only. Dropped before that it is seen out by a task of its own.
pub struct Call(Option<Box<Underway>>);

impl Call {
    pub fn new(underway: Underway) -> Self {
        Self(Some(Box::new(underway)))
    }

    /// The client's own id of it, until it has ended.
    pub fn id(&self) -> Option<&[u8]> {
        self.0.as_deref().map(Underway::id)
    }

    /// When it has ended at the latest, unless it has.
    pub fn ends_by(&self) -> Option<Instant> {
        self.0.as_deref().map(Underway::ends_by)
    }

    /// The client takes one answer and nothing else, so nothing can be asked of it.
    pub fn hears_only_the_answer(&mut self) {
        if let Some(underway) = &mut self.0 {
            underway.asks_nothing("the client takes no stream of events, so it cannot be asked");
        }
    }

    /// The client has been away for too long to be waited for with what it is asked just now; our ids of
    /// that.
    pub fn gives_up_asking(&mut self) -> Vec<u64> {
        self.0.as_deref_mut().map(Underway::gives_up_asking).unwrap_or_default()
    }

    /// What comes next; nothing any more after its outcome. Safe to be dropped while it waits.
    pub async fn next(&mut self) -> Heard {
        let Some(underway) = &mut self.0 else { return pending().await };
        let heard = underway.next().await;
        if !matches!(heard, Heard::Event(_)) {
            self.0 = None;
        }
        heard
    }

    /// Our own code has failed at it. Its server is told, and nothing more is heard.
    pub fn fail(&mut self) {
        if let Some(mut underway) = self.0.take() {
            underway.give_up(FAILED);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail();
        }
        if let Some(underway) = self.0.take() {
            actix_web::rt::spawn(see_out(underway));
        }
    }
}

/// Waits for the outcome of a call that nobody hears.
async fn see_out(mut underway: Box<Underway>) {
    underway.asks_nothing("the client has gone, so it cannot be asked");
    let seen = AssertUnwindSafe(async {
        loop {
            match underway.next().await {
                Heard::Event(_) => {}
                Heard::Answer(_) => {
                    metrics::counter!("metamcpd_answers_dropped_total").increment(1);
                    return;
                }
                Heard::Cancelled => return,
            }
        }
    });
    if seen.catch_unwind().await.is_err() {
        underway.give_up(FAILED);
    }
}
