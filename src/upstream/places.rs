//! How many calls an upstream is given at once, how many wait for that, and whether anybody uses it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// The places of one upstream.
pub struct Places {
    /// Replaced when another number is allowed: who has a place or waits for one keeps to what it was.
    slots: ArcSwap<Slots>,
    waiting: AtomicUsize,
    waiting_max: usize,
    usage: Arc<Usage>,
}

struct Slots {
    semaphore: Arc<Semaphore>,
    max: usize,
}

struct Usage {
    in_flight: AtomicUsize,
    /// When a place was last taken or given back.
    last: Mutex<Instant>,
}

/// A call's place among those in flight, for as long as the server may work on it.
pub struct Place {
    _slot: OwnedSemaphorePermit,
    usage: Arc<Usage>,
}

/// Which limit was in the way, by the name of its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// None became free in time.
    TooLong,
    /// Too many wait already.
    TooMany,
}

impl Refused {
    pub fn limit(self) -> &'static str {
        match self {
            Self::TooLong => "calls.in_flight_max",
            Self::TooMany => "calls.waiting_max",
        }
    }
}

impl Places {
    pub fn new(max: usize, waiting_max: usize) -> Self {
        let usage = Usage { in_flight: AtomicUsize::new(0), last: Mutex::new(Instant::now()) };
        Self {
            slots: ArcSwap::from_pointee(Slots::new(max)),
            waiting: AtomicUsize::new(0),
            waiting_max,
            usage: Arc::new(usage),
        }
    }

    /// Allows another number from now on.
    pub fn set_max(&self, max: usize) {
        if self.slots.load().max != max {
            self.slots.store(Arc::new(Slots::new(max)));
        }
    }

    /// Takes a place, waiting for one as long as `patience` says, in the order of asking.
    pub async fn take(&self, patience: Duration) -> Result<Place, Refused> {
        let semaphore = self.slots.load().semaphore.clone();
        if let Ok(slot) = semaphore.clone().try_acquire_owned() {
            return Ok(Place::new(slot, &self.usage));
        }
        let _waiter = Waiter::new(&self.waiting, self.waiting_max).ok_or(Refused::TooMany)?;
        match timeout(patience, semaphore.acquire_owned()).await {
            Ok(Ok(slot)) => Ok(Place::new(slot, &self.usage)),
            Ok(Err(_)) | Err(_) => Err(Refused::TooLong),
        }
    }

    pub fn is_used(&self) -> bool {
        self.usage.in_flight.load(Ordering::SeqCst) > 0
    }

    /// For how long no place has been taken. `None` while one is.
    pub fn idle_for(&self) -> Option<Duration> {
        (!self.is_used()).then(|| self.usage.last().elapsed())
    }
}

impl Slots {
    fn new(max: usize) -> Self {
        let places = max.clamp(1, Semaphore::MAX_PERMITS);
        Self { semaphore: Arc::new(Semaphore::new(places)), max }
    }
}

impl Usage {
    fn last(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn new(slot: OwnedSemaphorePermit, usage: &Arc<Usage>) -> Self {
        usage.in_flight.fetch_add(1, Ordering::SeqCst);
        Self { _slot: slot, usage: usage.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before it counts no more, or it would seem to have been idle since the call before.
        *self.usage.last() = Instant::now();
        self.usage.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn new(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        let waiter = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < max).then_some(waiter)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn so_many_wait_for_a_place_and_more_are_refused_at_once() {
        let places = Places::new(1, 1);
        let first = places.take(SECOND).await.unwrap();
        let mut second = Box::pin(places.take(SECOND));
        assert!(second.as_mut().now_or_never().is_none());
        let third = places.take(SECOND).now_or_never();
        assert_eq!(third.unwrap().err(), Some(Refused::TooMany));
        drop(first);
        assert!(second.await.is_ok());
        assert!(places.take(SECOND).await.is_ok(), "nobody waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_hears_so() {
        let places = Places::new(1, 1);
        let _first = places.take(SECOND).await.unwrap();
        assert_eq!(places.take(SECOND).await.err(), Some(Refused::TooLong));
    }

    #[tokio::test(start_paused = true)]
    async fn another_limit_holds_for_who_comes_after_it() {
        let places = Places::new(1, 1);
        let _first = places.take(SECOND).await.unwrap();
        places.set_max(2);
        let _second = places.take(SECOND).await.unwrap();
        let _third = places.take(SECOND).await.unwrap();
        assert!(places.take(SECOND).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_idle_from_the_last_call_that_ended() {
        let places = Places::new(2, 1);
        tokio::time::advance(SECOND).await;
        assert_eq!(places.idle_for(), Some(SECOND));
        let (first, second) = (places.take(SECOND).await, places.take(SECOND).await);
        tokio::time::advance(SECOND).await;
        drop(first);
        assert_eq!(places.idle_for(), None);
        drop(second);
        assert_eq!(places.idle_for(), Some(Duration::ZERO));
        tokio::time::advance(SECOND).await;
        assert_eq!(places.idle_for(), Some(SECOND));
    }
}
