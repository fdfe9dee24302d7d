//! How an upstream behaves besides what it answers. What may happen now and then is counted, and only
//! too much of it within a while has consequences.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::{sync::Notify, time::Instant};

use super::{Exit, Reason, degradation::Degradation};

/// The limits of `calls.strikes` in the settings. Zero: never.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrikeOptions {
    /// How long it is counted together.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// So many calls without an answer in time make it slow, and it is asked whether it lives.
    pub timeouts: usize,
    /// So many lines on stdout that are no messages make it noisy.
    pub noise: usize,
    /// More than so many, and it is started anew.
    pub noise_max: usize,
    /// So many messages over `wire.message_max`, and it is started anew.
    pub oversized: usize,
    /// So many answers to what was never asked, and it is started anew.
    pub unasked: usize,
}

/// What a server does that the protocol does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// A line that is no message.
    Noise,
    /// A message that is too long.
    Oversized,
    /// An answer with an id that we never gave.
    Unasked,
}

/// The conduct of one upstream.
pub struct Conduct {
    options: StrikeOptions,
    tallies: Mutex<Tallies>,
    suspect: Notify,
}

#[derive(Default)]
struct Tallies {
    timeouts: Tally,
    noise: Tally,
    oversized: Tally,
    unasked: Tally,
    flapping_until: Option<Instant>,
}

/// Counts within a window that begins with the first.
#[derive(Default)]
struct Tally {
    began: Option<Instant>,
    count: usize,
}

impl Tally {
    fn add(&mut self, now: Instant, window: Duration) -> usize {
        self.count = self.count(now, window).saturating_add(1);
        if self.count == 1 {
            self.began = Some(now);
        }
        self.count
    }

    fn count(&self, now: Instant, window: Duration) -> usize {
        let is_over = self.began.is_none_or(|began| now.duration_since(began) > window);
        if is_over { 0 } else { self.count }
    }
}

impl Conduct {
    pub fn new(options: StrikeOptions) -> Self {
        Self { options, tallies: Mutex::default(), suspect: Notify::new() }
    }

    /// A fresh process has done nothing yet.
    pub fn begin(&self) {
        let mut tallies = self.lock();
        *tallies = Tallies { flapping_until: tallies.flapping_until, ..Tallies::default() };
    }

    /// A call had no answer in time.
    pub fn timed_out(&self) {
        let StrikeOptions { window, timeouts, .. } = self.options;
        let count = self.lock().timeouts.add(Instant::now(), window);
        if timeouts > 0 && count >= timeouts {
            self.suspect.notify_one();
        }
    }

    /// Waits until so many calls had no answer that it should be asked whether it lives.
    pub async fn suspected(&self) {
        self.suspect.notified().await;
    }

    /// The server has done what it must not. Why it has to be started anew, if that is too much.
    pub fn offends(&self, offence: Offence) -> Option<Exit> {
        let StrikeOptions { window, noise_max, oversized, unasked, .. } = self.options;
        let mut tallies = self.lock();
        let (tally, max, what) = match offence {
            Offence::Noise => (
                &mut tallies.noise,
                noise_max.saturating_add(1),
                "lines on stdout that are no messages",
            ),
            Offence::Oversized => {
                (&mut tallies.oversized, oversized, "messages over `wire.message_max`")
            }
            Offence::Unasked => (&mut tallies.unasked, unasked, "answers to what was never asked"),
        };
        let count = tally.add(Instant::now(), window);
        let is_unlimited = max == 0 || (offence == Offence::Noise && noise_max == 0);
        (!is_unlimited && count >= max).then(|| {
            let detail = format!("{count} {what} within {} s", window.as_secs_f32());
            Exit::new(Reason::ProtocolError, detail)
        })
    }

    /// It has failed so often that it counts as flapping until then.
    pub fn set_flapping_until(&self, until: Option<Instant>) {
        self.lock().flapping_until = until;
    }

    pub fn degradations(&self) -> Vec<Degradation> {
        let StrikeOptions { window, timeouts, noise, .. } = self.options;
        let (tallies, now) = (self.lock(), Instant::now());
        let is_reached = |tally: &Tally, max| max > 0 && tally.count(now, window) >= max;
        let known = [
            (tallies.flapping_until.is_some_and(|until| until > now), Degradation::Flapping),
            (is_reached(&tallies.timeouts, timeouts), Degradation::Slow),
            (is_reached(&tallies.noise, noise), Degradation::StdoutNoise),
        ];
        known.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Tallies> {
        // Whole between any two statements.
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const OPTIONS: StrikeOptions = StrikeOptions {
        window: Duration::from_secs(60),
        timeouts: 2,
        noise: 2,
        noise_max: 3,
        oversized: 2,
        unasked: 2,
    };

    #[tokio::test(start_paused = true)]
    async fn only_too_much_within_a_while_is_too_much() {
        let conduct = Conduct::new(OPTIONS);
        for _ in 0..3 {
            assert_eq!(conduct.offends(Offence::Noise), None);
        }
        assert_eq!(conduct.degradations(), [Degradation::StdoutNoise]);
        let exit = conduct.offends(Offence::Noise);
        assert_eq!(exit.map(|exit| exit.reason), Some(Reason::ProtocolError));

        for offence in [Offence::Oversized, Offence::Unasked] {
            assert_eq!(conduct.offends(offence), None);
            tokio::time::advance(Duration::from_secs(61)).await;
            assert_eq!(conduct.offends(offence), None, "the first is forgotten");
            assert!(conduct.offends(offence).is_some());
        }
        assert_eq!(conduct.degradations(), []);
        conduct.begin();
        assert_eq!(conduct.offends(Offence::Oversized), None, "it is another process");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_without_an_answer_make_it_slow_and_suspect() {
        let conduct = Conduct::new(OPTIONS);
        conduct.timed_out();
        assert!(conduct.suspected().now_or_never().is_none());
        conduct.timed_out();
        assert!(conduct.suspected().now_or_never().is_some());
        assert_eq!(conduct.degradations(), [Degradation::Slow]);
    }

    #[tokio::test(start_paused = true)]
    async fn zero_means_never() {
        let options = StrikeOptions {
            timeouts: 0,
            noise: 0,
            noise_max: 0,
            oversized: 0,
            unasked: 0,
            ..OPTIONS
        };
        let conduct = Conduct::new(options);
        for _ in 0..100 {
            conduct.timed_out();
            for offence in [Offence::Noise, Offence::Oversized, Offence::Unasked] {
                assert_eq!(conduct.offends(offence), None);
            }
        }
        assert!(conduct.suspected().now_or_never().is_none());
        assert_eq!(conduct.degradations(), []);
    }
}
