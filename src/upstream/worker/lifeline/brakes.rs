//! Keeps a daemon with many servers from starting all of them in one breath.
//!
//! Every process passes here before it is started: so many starts are under way at once, and so many
//! begin in a second, each in the order of asking. How long a start is under way is told by whoever
//! holds its [`Turn`]; a start that hangs gives its turn up by itself, so that it stops nobody else.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The limits of `upstream.spawns` in the settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpawnOptions {
    /// Starts that are under way at once.
    pub at_once: usize,
    /// Starts that begin in a second, for long.
    pub per_second: u32,
    /// Starts that may begin together after a rest.
    pub burst: u32,
    /// After so long a start that is still under way counts no more.
    #[serde(with = "humantime_serde")]
    pub turn_max: Duration,
}

impl SpawnOptions {
    /// No brakes at all, for those who start a few things and know it.
    pub const FREE: Self = Self {
        at_once: Semaphore::MAX_PERMITS,
        per_second: u32::MAX,
        burst: u32::MAX,
        turn_max: Duration::ZERO,
    };
}

/// What every start of this daemon passes.
#[derive(Debug)]
pub struct Brakes {
    options: SpawnOptions,
    places: Arc<Semaphore>,
    pace: Mutex<Pace>,
}

/// A start that is under way, until this is dropped or `turn_max` is over.
#[derive(Debug)]
pub struct Turn {
    _over: DropGuard,
}

impl Brakes {
    pub fn new(options: SpawnOptions) -> Self {
        let places = options.at_once.clamp(1, Semaphore::MAX_PERMITS);
        let pace = Pace::new(options.per_second, options.burst);
        Self { options, places: Arc::new(Semaphore::new(places)), pace: Mutex::new(pace) }
    }

    /// Waits for the turn of one start. Whoever gives up waiting takes nobody's place.
    pub async fn turn(&self) -> Turn {
        let waits = Waits::begin();
        // The semaphore is fair, and is never closed.
        let place = self.places.clone().acquire_owned().await;
        let rest = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.reserve(Instant::now())
        };
        if rest > Instant::now() {
            tokio::time::sleep_until(rest).await;
        }
        drop(waits);
        let over = CancellationToken::new();
        let (ended, turn_max) = (over.clone(), self.options.turn_max);
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = tokio::time::sleep(turn_max) => {}
            }
            drop(place);
        });
        Turn { _over: over.drop_guard() }
    }
}

/// Counts a start among those that wait.
struct Waits;

const WAITING: &str = "metamcpd_spawns_waiting";

impl Waits {
    fn begin() -> Self {
        metrics::gauge!(WAITING).increment(1);
        Self
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        metrics::gauge!(WAITING).decrement(1);
    }
}

/// A token bucket that is told the time: when the next start may begin.
#[derive(Debug)]
struct Pace {
    every: Duration,
    burst: Duration,
    /// When the bucket will be full again.
    full_at: Option<Instant>,
}

impl Pace {
    fn new(per_second: u32, burst: u32) -> Self {
        let every = Duration::from_secs(1) / per_second.max(1);
        Self { every, burst: every.saturating_mul(burst.max(1)), full_at: None }
    }

    /// Takes one token, and says from when on it may be used.
    fn reserve(&mut self, now: Instant) -> Instant {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + self.every;
        self.full_at = Some(full_at);
        full_at.checked_sub(self.burst).map_or(now, |from| from.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn options() -> SpawnOptions {
        SpawnOptions { at_once: 2, per_second: 1_000, burst: 1_000, turn_max: 5 * SECOND }
    }

    #[test]
    fn a_burst_begins_at_once_and_what_follows_keeps_the_pace() {
        let mut pace = Pace::new(10, 3);
        let now = Instant::now();
        let rests: Vec<u128> = (0..6).map(|_| (pace.reserve(now) - now).as_millis()).collect();
        assert_eq!(rests, [0, 0, 0, 100, 200, 300]);
        // Everything that was reserved is used, and a third of the bucket is there again.
        let later = now + SECOND / 10 * 4;
        assert_eq!((pace.reserve(later) - later).as_millis(), 0);
        assert_eq!((pace.reserve(later) - later).as_millis(), 100);
        let rested = later + 10 * SECOND;
        let rests: Vec<u128> =
            (0..4).map(|_| (pace.reserve(rested) - rested).as_millis()).collect();
        assert_eq!(rests, [0, 0, 0, 100], "a long rest saves up one burst and no more");
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_starts_are_under_way_at_once_in_the_order_of_asking() {
        let brakes = Arc::new(Brakes::new(options()));
        let first = brakes.turn().await;
        let _second = brakes.turn().await;
        let began = Instant::now();
        let third = brakes.clone();
        let third = tokio::spawn(async move { (third.turn().await, Instant::now()) });
        tokio::task::yield_now().await;
        let fourth = brakes.clone();
        let fourth = tokio::spawn(async move { (fourth.turn().await, Instant::now()) });
        tokio::time::sleep(SECOND).await;
        assert!(!third.is_finished());
        drop(first);
        let (third, at) = third.await.expect("its turn");
        assert_eq!(at - began, SECOND);
        assert!(!fourth.is_finished());
        drop(third);
        assert!(fourth.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_hangs_stops_nobody_for_longer_than_a_turn() {
        let brakes = Brakes::new(options());
        let _hanging = (brakes.turn().await, brakes.turn().await);
        let began = Instant::now();
        let _next = brakes.turn().await;
        assert_eq!(began.elapsed(), 5 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_takes_nobodys_place() {
        let brakes = Brakes::new(options());
        let (first, _second) = (brakes.turn().await, brakes.turn().await);
        assert!(tokio::time::timeout(SECOND, brakes.turn()).await.is_err());
        drop(first);
        assert!(tokio::time::timeout(SECOND, brakes.turn()).await.is_ok());
    }
}
