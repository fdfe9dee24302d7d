//! When a remote upstream is given a rest from calls: where it asks for one, and where call after call
//! fails in a way that is its own doing.
//!
//! [`Circuit`] decides, told the time and given the dice; [`Breaker`] is what calls pass. Connections that
//! fail as a whole are the supervisor's affair: a new one begins with a closed circuit.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    dice::random,
    ejections::Ejections,
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
    /// The share of the remote upstreams that are connected of which the calls may be held back at
    /// once, in percent. Those of one always may.
    pub ejected_percent_max: usize,
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

/// What the end of a call made of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Unmoved,
    /// Calls are held back from now on.
    Opened,
    /// They should be, and may not: too many others are already. Said once.
    MayNotOpen,
    /// It is well again.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// Until then; after that one call probes.
    Open(Uptime),
    /// The word of that call is waited for until then; after that the next one probes too, since some calls
    /// take long, and may be well.
    Probing(Uptime),
}

/// The rules. It reads no clock and rolls no dice of its own.
#[derive(Clone, Debug)]
pub struct Circuit {
    state: State,
    /// Failures in a row.
    streak: usize,
    recent: Recent,
    /// How often it was opened since it was last well.
    opened: u32,
    throttled_until: Option<Uptime>,
    /// Whether it was said that it may not open.
    is_refused: bool,
}

/// The calls that ended within the window. Each call is noted, so that none may cost what all do.
#[derive(Clone, Debug, Default)]
struct Recent {
    /// When each ended, and whether it failed, oldest first.
    ended: VecDeque<(Uptime, bool)>,
    failed: usize,
}

/// Enough to tell a share by.
const RECENT_MAX: usize = 1_000;

impl Recent {
    fn note(&mut self, has_failed: bool, now: Uptime, window: Duration) {
        while let Some((at, _)) = self.ended.front()
            && (now.saturating_sub(*at) > window || self.ended.len() >= RECENT_MAX)
        {
            self.forget_oldest();
        }
        self.ended.push_back((now, has_failed));
        self.failed += usize::from(has_failed);
    }

    fn forget_oldest(&mut self) {
        if let Some((_, true)) = self.ended.pop_front() {
            self.failed -= 1;
        }
    }
}

impl Circuit {
    pub fn new() -> Self {
        let (state, recent) = (State::Closed, Recent::default());
        Self { state, streak: 0, recent, opened: 0, throttled_until: None, is_refused: false }
    }

    pub fn admit(&mut self, now: Uptime, options: &BreakerOptions) -> Admission {
        if let Some(rest) = self.throttled_for(now) {
            return Admission::Throttled(rest);
        }
        match self.state {
            State::Closed => Admission::Pass,
            State::Open(until) | State::Probing(until) if until <= now => {
                self.state = State::Probing(now + options.open);
                Admission::Probe
            }
            State::Open(until) => Admission::Open(until - now),
            // Most of the time it is known very soon.
            State::Probing(until) => Admission::Open(Duration::from_secs(1).min(until - now)),
        }
    }

    /// Takes note of how a call ended. Only a probe moves what is open. Whether a circuit that is
    /// closed may open is asked when it should, and the dice are rolled when it does.
    pub fn settle(
        &mut self,
        is_probe: bool,
        outcome: Outcome,
        now: Uptime,
        roll: impl FnOnce() -> f64,
        options: &BreakerOptions,
        may_open: impl FnOnce() -> bool,
    ) -> Settled {
        match (self.state, is_probe, outcome) {
            (State::Probing(_), true, Outcome::Success) => {
                self.forgive();
                Settled::Closed
            }
            (State::Probing(_), true, Outcome::Failure) => self.open(now, roll(), options),
            (State::Probing(_), true, Outcome::Neither) => {
                self.state = State::Open(now);
                Settled::Unmoved
            }
            (State::Closed, _, Outcome::Success | Outcome::Failure) => {
                self.remember(outcome == Outcome::Failure, now, options);
                if !self.is_too_much(options) {
                    self.is_refused = false;
                    return Settled::Unmoved;
                }
                if may_open() {
                    return self.open(now, roll(), options);
                }
                match std::mem::replace(&mut self.is_refused, true) {
                    true => Settled::Unmoved,
                    false => Settled::MayNotOpen,
                }
            }
            (State::Closed, _, Outcome::Neither) | (State::Open(_) | State::Probing(_), ..) => {
                Settled::Unmoved
            }
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

    fn remember(&mut self, has_failed: bool, now: Uptime, options: &BreakerOptions) {
        self.streak = if has_failed { self.streak + 1 } else { 0 };
        self.recent.note(has_failed, now, options.window);
    }

    fn is_too_much(&self, options: &BreakerOptions) -> bool {
        if options.failures == 0 {
            return false;
        }
        let (ended, failed) = (self.recent.ended.len(), self.recent.failed);
        let is_share = ended >= options.window_calls.max(1)
            && failed * 100 >= ended * options.failures_percent;
        self.streak >= options.failures || is_share
    }

    fn open(&mut self, now: Uptime, dice: f64, options: &BreakerOptions) -> Settled {
        let pace = options.open.saturating_mul(1 << self.opened.min(16)).min(options.open_max);
        self.state = State::Open(now + spread(pace, dice));
        self.opened = self.opened.saturating_add(1);
        self.streak = 0;
        self.recent = Recent::default();
        Settled::Opened
    }
}

impl Default for Circuit {
    fn default() -> Self {
        Self::new()
    }
}

/// The circuit of one upstream, for whoever calls it.
pub struct Breaker {
    id: Uuid,
    options: BreakerOptions,
    epoch: Instant,
    circuit: Mutex<Circuit>,
    /// Those of the other upstreams.
    ejections: Arc<Ejections>,
}

/// A call that was let through. What became of it is told, or it says nothing.
pub struct Pass {
    breaker: Arc<Breaker>,
    is_probe: bool,
    outcome: Outcome,
}

impl Breaker {
    /// Of the upstream of this id, beside those of the others.
    pub fn new(id: Uuid, options: BreakerOptions, ejections: Arc<Ejections>) -> Arc<Self> {
        let (epoch, circuit) = (Instant::now(), Mutex::default());
        Arc::new(Self { id, options, epoch, circuit, ejections })
    }

    /// The upstream is connected: calls can go to it.
    pub fn joins(&self) {
        self.ejections.join(self.id);
    }

    /// Its connection has ended, or will.
    pub fn leaves(&self) {
        self.ejections.leave(self.id);
    }

    /// Lets a call through, or says for how long none is.
    pub fn admit(self: &Arc<Self>) -> Result<Pass, Admission> {
        let admission = self.lock().admit(self.now(), &self.options);
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
        self.ejections.readmit(self.id);
    }

    fn settle(&self, is_probe: bool, outcome: Outcome) {
        let now = self.now();
        let may_open = || self.ejections.eject(self.id);
        // Under one lock, so that what the others are told is what it is.
        let mut circuit = self.lock();
        match circuit.settle(is_probe, outcome, now, random, &self.options, may_open) {
            Settled::Unmoved => {}
            Settled::Opened => metrics::counter!("metamcpd_circuits_opened_total").increment(1),
            Settled::Closed => self.ejections.readmit(self.id),
            Settled::MayNotOpen => {
                metrics::counter!("metamcpd_limit_hit_total", "limit" => "calls.breaker.ejected_percent_max")
                    .increment(1);
                tracing::warn!(
                    id = %self.id, "call after call to a remote upstream fails, and they are not held back: those to too many others are, which makes our own network suspect"
                );
            }
        }
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
        self.breaker.settle(self.is_probe, self.outcome);
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        self.ejections.leave(self.id);
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
