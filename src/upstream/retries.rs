//! How many calls may be sent to their upstreams once more, of all that are made: a share of them, so
//! that those who are in trouble are not given more to do by it.
//!
//! [`Budget`] decides, told the time; [`Retries`] is what all upstreams share. Not in it is the call
//! that is sent again since its upstream forgot the session: that proves that nothing was executed, one
//! call begins the new session for all, and each is sent again at most once. To refuse those would make
//! errors of a server's restart for nearly all who were calling it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::time::Instant;

use super::lifecycle::Uptime;

/// The limits of `calls.retries` in the settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryOptions {
    /// The share of the calls within `window` that may be sent once more, in percent.
    pub percent_max: u64,
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// So many may be in any window, however few calls there are.
    pub window_min: u64,
    /// How often one call that did not reach its upstream is sent again. Zero: never.
    pub attempts_max: u32,
    /// The longest rest before the first of them; each further one doubles it, and the rest itself is
    /// a random part of it.
    #[serde(with = "humantime_serde")]
    pub backoff_min: Duration,
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
}

/// A window is forgotten piece by piece, so many of them.
const PIECES: usize = 10;

/// The rule. It reads no clock.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    pieces: [Piece; PIECES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    /// Which piece of all time it is.
    number: u128,
    calls: u64,
    retries: u64,
}

impl Budget {
    pub fn note_call(&mut self, now: Uptime, options: &RetryOptions) {
        self.piece(now, options).calls += 1;
    }

    /// Takes one, if one is left.
    pub fn take(&mut self, now: Uptime, options: &RetryOptions) -> bool {
        let current = number_of(now, options);
        let window = || {
            let pieces = self.pieces.iter();
            pieces.filter(|piece| piece.number + PIECES as u128 > current)
        };
        let calls: u64 = window().map(|piece| piece.calls).sum();
        let retries: u64 = window().map(|piece| piece.retries).sum();
        let max = (calls.saturating_mul(options.percent_max) / 100).max(options.window_min);
        if retries >= max {
            return false;
        }
        self.piece(now, options).retries += 1;
        true
    }

    fn piece(&mut self, now: Uptime, options: &RetryOptions) -> &mut Piece {
        let number = number_of(now, options);
        let piece = &mut self.pieces[(number % PIECES as u128) as usize];
        if piece.number != number {
            *piece = Piece { number, ..Piece::default() };
        }
        piece
    }
}

/// Counted from the length of a window on, so that what was never written to is of no window.
fn number_of(now: Uptime, options: &RetryOptions) -> u128 {
    let length = (options.window.as_nanos() / PIECES as u128).max(1);
    now.as_nanos() / length + PIECES as u128
}

/// The budget of the whole daemon.
pub struct Retries {
    pub options: RetryOptions,
    epoch: Instant,
    budget: Mutex<Budget>,
}

impl Retries {
    pub fn new(options: RetryOptions) -> Self {
        Self { options, epoch: Instant::now(), budget: Mutex::default() }
    }

    /// A client calls something that is far away.
    pub fn note_call(&self) {
        self.with(|budget, now| budget.note_call(now, &self.options));
    }

    /// Whether a call may be sent once more, for this reason.
    pub fn take(&self, why: &'static str) -> bool {
        let may = self.with(|budget, now| budget.take(now, &self.options));
        match may {
            true => metrics::counter!("metamcpd_retries_total", "why" => why).increment(1),
            false => {
                metrics::counter!("metamcpd_limit_hit_total", "limit" => "calls.retries.percent_max")
                    .increment(1);
            }
        }
        may
    }

    /// The rest before the attempt of this number, counted from one. `dice` is random in `0.0..1.0`.
    pub fn rest(&self, attempt: u32, dice: f64) -> Duration {
        let RetryOptions { backoff_min, backoff_max, .. } = self.options;
        let doublings = attempt.saturating_sub(1).min(16);
        backoff_min.saturating_mul(1 << doublings).min(backoff_max).mul_f64(dice)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Budget, Uptime) -> T) -> T {
        // Whole between any two statements.
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut budget, self.epoch.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: RetryOptions = RetryOptions {
        percent_max: 10,
        window: Duration::from_secs(10),
        window_min: 3,
        attempts_max: 8,
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_secs(1),
    };

    fn left(budget: &Budget, now: Uptime) -> usize {
        let mut budget = budget.clone();
        (0..1_000).take_while(|_| budget.take(now, &OPTIONS)).count()
    }

    fn calls(budget: &mut Budget, now: Uptime, count: usize) {
        (0..count).for_each(|_| budget.note_call(now, &OPTIONS));
    }

    #[test]
    fn a_tenth_of_the_calls_may_be_sent_once_more_and_a_few_always() {
        for (made, expected) in [(0, 3), (1, 3), (30, 3), (40, 4), (1_000, 100)] {
            let mut budget = Budget::default();
            calls(&mut budget, Duration::ZERO, made);
            assert_eq!(left(&budget, Duration::ZERO), expected, "of {made} calls");
        }
    }

    #[test]
    fn what_is_longer_ago_than_the_window_neither_gives_nor_takes() {
        let mut budget = Budget::default();
        let at = Duration::from_secs;
        calls(&mut budget, at(0), 50);
        for _ in 0..5 {
            assert!(budget.take(at(4), &OPTIONS));
        }
        assert_eq!(left(&budget, at(9)), 0);
        assert_eq!(left(&budget, at(10)), 0, "the calls are forgotten, and three were taken since");
        assert_eq!(left(&budget, at(14)), 3);
        calls(&mut budget, at(1_000), 70);
        assert_eq!(left(&budget, at(1_000)), 7);
        assert_eq!(left(&budget, at(100_000)), 3);
    }

    #[test]
    fn rests_double_up_to_a_limit_and_are_a_random_part_of_that() {
        let retries = Retries::new(OPTIONS);
        let millis = Duration::from_millis;
        for (attempt, longest) in [(1, 50), (2, 100), (3, 200), (5, 800), (6, 1_000), (60, 1_000)] {
            assert_eq!(retries.rest(attempt, 0.5), millis(longest) / 2, "{attempt}");
            assert_eq!(retries.rest(attempt, 0.0), Duration::ZERO);
        }
    }
}
