//! When a remote upstream is given a rest from calls: where it asks for one, and where call after call
//! fails in a way that is its own doing.
//!
//! [`Circuit`] decides, told the time and the dice; [`Breaker`] is what calls pass. Connections that
//! fail as a whole are the supervisor's affair: a new one begins with a closed circuit.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::time::Instant;

use super::{
    dice::random,
    lifecycle::{Uptime, spread},
};

/// The limits of `calls.breaker` in the settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerOptions {
    /// So many failures in a row open it. Zero: nothing does.
    pub failures: usize,
    /// So does this share of the calls within `window`, in percent.
    pub failures_percent: usize,
    /// Unless they are fewer than this.
    pub window_calls: usize,
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long it is open at first; each further time doubles that.
    #[serde(with = "humantime_serde")]
    pub open: Duration,
    #[serde(with = "humantime_serde")]
    pub open_max: Duration,
    /// The longest `Retry-After` that is kept to.
    #[serde(with = "humantime_serde")]
    pub retry_after_max: Duration,
    /// A call that is refused with a `Retry-After` no longer than this is sent again, once.
    #[serde(with = "humantime_serde")]
    pub retry_wait: Duration,
}

/// How a call that was let through ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The upstream was not reached, broke off, or answered with a 5xx.
    Failure,
    /// It says nothing of the upstream: it was taken back, or told to come later.
    Neither,
}

/// Whether a call may go to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Pass,
    /// The one call that finds out whether it is well again.
    Probe,
    /// It has asked to be left alone for so long.
    Throttled(Duration),
    /// Call after call has failed; it is tried again after so long.
    Open(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// Until then; after that one call probes.
    Open(Uptime),
    Probing,
}

/// The rules. It reads no clock and rolls no dice.
#[derive(Clone, Debug)]
pub struct Circuit {
    state: State,
    /// Failures in a row.
    streak: usize,
    /// When calls of the window ended, and whether they failed, oldest first.
    recent: VecDeque<(Uptime, bool)>,
    /// How often it was opened since it was last well.
    opened: u32,
    throttled_until: Option<Uptime>,
}

/// Enough to tell a share by.
const RECENT_MAX: usize = 1_000;

impl Circuit {
    pub fn new() -> Self {
        let (recent, throttled_until) = (VecDeque::new(), None);
        Self { state: State::Closed, streak: 0, recent, opened: 0, throttled_until }
    }

    pub fn admit(&mut self, now: Uptime) -> Admission {
        if let Some(rest) = self.throttled_for(now) {
            return Admission::Throttled(rest);
        }
        match self.state {
            State::Closed => Admission::Pass,
            State::Open(until) if until <= now => {
                self.state = State::Probing;
                Admission::Probe
            }
            State::Open(until) => Admission::Open(until - now),
            // It will be known very soon.
            State::Probing => Admission::Open(Duration::from_secs(1)),
        }
    }

    /// Takes note of how a call ended. Only a probe moves what is open. Whether it has opened by that.
    pub fn settle(
        &mut self,
        is_probe: bool,
        outcome: Outcome,
        now: Uptime,
        dice: f64,
        options: &BreakerOptions,
    ) -> bool {
        match (self.state, is_probe, outcome) {
            (State::Probing, true, Outcome::Success) => {
                *self = Self { throttled_until: self.throttled_until, ..Self::new() };
                false
            }
            (State::Probing, true, Outcome::Failure) => self.open(now, dice, options),
            (State::Probing, true, Outcome::Neither) => {
                self.state = State::Open(now);
                false
            }
            (State::Closed, _, Outcome::Success | Outcome::Failure) => {
                let has_failed = outcome == Outcome::Failure;
                self.streak = if has_failed { self.streak + 1 } else { 0 };
                if self.recent.len() == RECENT_MAX {
                    self.recent.pop_front();
                }
                self.recent.push_back((now, has_failed));
                self.recent.retain(|(at, _)| now.saturating_sub(*at) <= options.window);
                self.is_too_much(options) && self.open(now, dice, options)
            }
            (State::Closed, _, Outcome::Neither) | (State::Open(_) | State::Probing, ..) => false,
        }
    }

    /// The upstream asks to be left alone.
    pub fn throttle(&mut self, rest: Duration, now: Uptime, options: &BreakerOptions) {
        let until = now + rest.min(options.retry_after_max);
        self.throttled_until = self.throttled_until.max(Some(until));
    }

    /// For how long it still has to be left alone.
    pub fn throttled_for(&self, now: Uptime) -> Option<Duration> {
        self.throttled_until.filter(|until| *until > now).map(|until| until - now)
    }

    /// Whether calls are held back, since too many have failed.
    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// A new connection has just proved that it works.
    pub fn forgive(&mut self) {
        *self = Self { throttled_until: self.throttled_until, ..Self::new() };
    }

    fn is_too_much(&self, options: &BreakerOptions) -> bool {
        if options.failures == 0 {
            return false;
        }
        let failed = self.recent.iter().filter(|(_, has_failed)| *has_failed).count();
        let is_share = self.recent.len() >= options.window_calls.max(1)
            && failed * 100 >= self.recent.len() * options.failures_percent;
        self.streak >= options.failures || is_share
    }

    fn open(&mut self, now: Uptime, dice: f64, options: &BreakerOptions) -> bool {
        let pace = options.open.saturating_mul(1 << self.opened.min(16)).min(options.open_max);
        self.state = State::Open(now + spread(pace, dice));
        self.opened = self.opened.saturating_add(1);
        self.streak = 0;
        self.recent.clear();
        true
    }
}

impl Default for Circuit {
    fn default() -> Self {
        Self::new()
    }
}

/// The circuit of one upstream, for whoever calls it.
pub struct Breaker {
    options: BreakerOptions,
    epoch: Instant,
    circuit: Mutex<Circuit>,
}

/// A call that was let through. What became of it is told, or it says nothing.
pub struct Pass {
    breaker: Arc<Breaker>,
    is_probe: bool,
    outcome: Outcome,
}

impl Breaker {
    pub fn new(options: BreakerOptions) -> Arc<Self> {
        Arc::new(Self { options, epoch: Instant::now(), circuit: Mutex::default() })
    }

    /// Lets a call through, or says for how long none is.
    pub fn admit(self: &Arc<Self>) -> Result<Pass, Admission> {
        let admission = self.lock().admit(self.now());
        let is_probe = admission == Admission::Probe;
        match admission {
            Admission::Pass | Admission::Probe => {
                Ok(Pass { breaker: self.clone(), is_probe, outcome: Outcome::Neither })
            }
            Admission::Throttled(_) | Admission::Open(_) => Err(admission),
        }
    }

    /// The upstream asks to be left alone for so long. How long it is, and whether a call that was
    /// refused by that may wait for its end and be sent again.
    pub fn throttle(&self, rest: Duration) -> (Duration, bool) {
        self.lock().throttle(rest, self.now(), &self.options);
        (rest.min(self.options.retry_after_max), rest <= self.options.retry_wait)
    }

    pub fn throttled_for(&self) -> Option<Duration> {
        self.lock().throttled_for(self.now())
    }

    pub fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    pub fn forgive(&self) {
        self.lock().forgive();
    }

    fn now(&self) -> Uptime {
        self.epoch.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        // Whole between any two statements.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Says how the call ended. The last word counts.
    pub fn ends(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Self { breaker, is_probe, outcome } = self;
        let now = breaker.now();
        if breaker.lock().settle(*is_probe, *outcome, now, random(), &breaker.options) {
            metrics::counter!("metamcpd_circuits_opened_total").increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome::*, *};

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    const OPTIONS: BreakerOptions = BreakerOptions {
        failures: 3,
        failures_percent: 50,
        window_calls: 8,
        window: secs(30),
        open: secs(5),
        open_max: secs(20),
        retry_after_max: secs(300),
        retry_wait: secs(1),
    };

    /// A circuit whose dice spread nothing.
    struct Story {
        circuit: Circuit,
        now: Uptime,
    }

    impl Story {
        fn begins() -> Self {
            Self { circuit: Circuit::new(), now: secs(1_000) }
        }

        fn admits(&mut self) -> Admission {
            self.circuit.admit(self.now)
        }

        fn ends(&mut self, is_probe: bool, outcome: Outcome) -> bool {
            self.circuit.settle(is_probe, outcome, self.now, 0.5, &OPTIONS)
        }

        fn opens(&mut self) {
            for _ in 0..3 {
                self.ends(false, Failure);
            }
            assert!(self.circuit.is_open());
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_success_between_them_does_not() {
        let mut story = Story::begins();
        for outcome in [Failure, Failure, Success, Failure, Failure, Neither] {
            assert_eq!(story.admits(), Admission::Pass);
            assert!(!story.ends(false, outcome));
        }
        assert!(story.ends(false, Failure));
        assert_eq!(story.admits(), Admission::Open(secs(5)));
    }

    #[test]
    fn half_of_many_calls_open_it_though_none_fail_in_a_row() {
        let mut story = Story::begins();
        for _ in 0..3 {
            assert!(!story.ends(false, Failure) && !story.ends(false, Success));
        }
        assert!(!story.ends(false, Failure), "seven are too few to tell by");
        // What is longer ago than the window is forgotten.
        story.now += secs(31);
        assert!(!story.ends(false, Success) && !story.ends(false, Failure));
        for _ in 0..2 {
            assert!(!story.ends(false, Success) && !story.ends(false, Failure));
        }
        assert!(!story.ends(false, Success));
        assert!(story.ends(false, Failure));
    }

    #[test]
    fn one_call_probes_it_while_the_others_wait_and_its_outcome_decides() {
        let mut story = Story::begins();
        story.opens();
        story.now += secs(5);
        assert_eq!(story.admits(), Admission::Probe);
        assert!(matches!(story.admits(), Admission::Open(_)));
        // Calls that began before it was opened say nothing of how it is now.
        assert!(!story.ends(false, Failure) && !story.ends(false, Success));
        assert!(matches!(story.admits(), Admission::Open(_)));
        assert!(!story.ends(true, Success));
        assert_eq!(story.admits(), Admission::Pass);
    }

    #[test]
    fn each_probe_that_fails_doubles_the_rest_up_to_a_limit_and_a_success_begins_anew() {
        let mut story = Story::begins();
        story.opens();
        for rest in [5, 10, 20, 20] {
            assert_eq!(story.admits(), Admission::Open(secs(rest)));
            story.now += secs(rest);
            assert_eq!(story.admits(), Admission::Probe);
            assert!(story.ends(true, Failure));
        }
        story.now += secs(20);
        story.admits();
        story.ends(true, Success);
        story.opens();
        assert_eq!(story.admits(), Admission::Open(secs(5)));
    }

    #[test]
    fn a_probe_that_is_taken_back_leaves_its_place_to_the_next_call() {
        let mut story = Story::begins();
        story.opens();
        story.now += secs(5);
        assert_eq!(story.admits(), Admission::Probe);
        assert!(!story.ends(true, Neither));
        assert_eq!(story.admits(), Admission::Probe);
    }

    #[test]
    fn what_asks_to_be_left_alone_is_for_so_long_and_is_not_taken_for_ill() {
        let mut story = Story::begins();
        story.circuit.throttle(secs(10), story.now, &OPTIONS);
        story.circuit.throttle(secs(4), story.now, &OPTIONS);
        assert_eq!(story.admits(), Admission::Throttled(secs(10)));
        assert!(!story.circuit.is_open());
        story.now += secs(10);
        assert_eq!(story.admits(), Admission::Pass);
        story.circuit.throttle(secs(100_000), story.now, &OPTIONS);
        assert_eq!(story.admits(), Admission::Throttled(secs(300)), "no longer than we say");
        story.circuit.forgive();
        assert!(matches!(story.admits(), Admission::Throttled(_)), "a new connection is no excuse");
    }

    #[test]
    fn it_can_be_switched_off() {
        let options = BreakerOptions { failures: 0, ..OPTIONS };
        let mut circuit = Circuit::new();
        for _ in 0..100 {
            assert!(!circuit.settle(false, Failure, secs(1), 0.5, &options));
        }
        assert_eq!(circuit.admit(secs(1)), Admission::Pass);
    }
}
