//! When what an upstream offers of one kind is listed again, and what came of it, for those who ask
//! for it.
//!
//! However many ask, one listing at a time is under way: who asks during one waits for the next,
//! since the one before may have been answered already.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::{Notify, watch};

use super::status::CatalogueChange;

/// What came of a listing: what differs from the one before, or why there is none.
pub type Outcome = Result<Arc<CatalogueChange>, Arc<str>>;

/// The listings of one kind of one upstream.
pub struct Refresh {
    wanted: Notify,
    /// Counts listings as they begin.
    begun: AtomicU64,
    /// The number of the last listing that has ended, and what came of it.
    ended: watch::Sender<(u64, Option<Outcome>)>,
    /// Whether the server says that it offers this kind at all.
    is_offered: AtomicBool,
    /// Whether the last one failed.
    has_failed: AtomicBool,
}

/// That a listing was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ticket(u64);

impl Default for Refresh {
    fn default() -> Self {
        Self {
            wanted: Notify::new(),
            begun: AtomicU64::new(0),
            ended: watch::channel((0, None)).0,
            is_offered: AtomicBool::new(true),
            has_failed: AtomicBool::new(false),
        }
    }
}

impl Refresh {
    /// Has the worker list it as soon as it can. Never waits.
    pub fn ask(&self) -> Ticket {
        let ticket = Ticket(self.begun.load(Ordering::SeqCst) + 1);
        self.wanted.notify_one();
        ticket
    }

    /// Waits for the outcome of a listing that began after it was asked for. How long is left to the
    /// caller: an upstream that is down lists nothing.
    pub async fn outcome(&self, Ticket(number): Ticket) -> Outcome {
        let mut ended = self.ended.subscribe();
        let found = ended.wait_for(|(last, outcome)| *last >= number && outcome.is_some()).await;
        match found.as_deref() {
            Ok((_, Some(outcome))) => outcome.clone(),
            // The sender lives in this very value, so the wait ends only by an outcome.
            Ok((_, None)) | Err(_) => Err(Arc::from("nobody is left to list it")),
        }
    }

    /// Waits until somebody asks.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A listing begins.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// The listing that began last has ended.
    pub fn end(&self, outcome: Outcome) {
        self.ended.send_replace((self.begun.load(Ordering::SeqCst), Some(outcome)));
    }

    pub fn set_has_failed(&self, has_failed: bool) {
        self.has_failed.store(has_failed, Ordering::Relaxed);
    }

    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    pub fn set_is_offered(&self, is_offered: bool) {
        self.is_offered.store(is_offered, Ordering::Relaxed);
    }

    pub fn is_offered(&self) -> bool {
        self.is_offered.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn failed(why: &str) -> Outcome {
        Err(Arc::from(why))
    }

    #[test]
    fn who_asks_during_a_listing_waits_for_the_next() {
        let refresh = Refresh::default();
        let first = refresh.ask();
        assert!(refresh.wanted().now_or_never().is_some());
        refresh.begin();
        let second = refresh.ask();
        let third = refresh.ask();
        refresh.end(failed("one"));
        assert_eq!(refresh.outcome(first).now_or_never(), Some(failed("one")));
        assert_eq!(refresh.outcome(second).now_or_never(), None);

        assert!(refresh.wanted().now_or_never().is_some());
        assert!(refresh.wanted().now_or_never().is_none(), "two who ask are served by one listing");
        refresh.begin();
        refresh.end(failed("two"));
        assert_eq!(refresh.outcome(second).now_or_never(), Some(failed("two")));
        assert_eq!(refresh.outcome(third).now_or_never(), Some(failed("two")));
    }
}
