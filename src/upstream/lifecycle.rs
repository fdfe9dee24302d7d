//! Decides what an upstream does next: every rule of supervision, and nothing else.
//!
//! `step` maps a state and an event to the next state and what it calls for. It reads no clock,
//! rolls no dice and starts nothing: the time and the dice come with the event.

use std::{collections::VecDeque, time::Duration};

use serde::Deserialize;

use super::reason::Reason;

/// Time since the daemon began, which no change of the wall clock moves.
pub type Uptime = Duration;

/// What an upstream is doing. Each variant carries only what is true in that state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The operator has switched it off.
    Disabled,
    /// It is on, and told not to run: the daemon is stopping.
    Stopped,
    /// It is on, and nobody needs it: the first call wakes it.
    Idle,
    /// A worker is connecting. `after` is what went wrong before, if anything did.
    Starting {
        after: After,
    },
    Ready {
        after: After,
    },
    /// Resting after a failure until `until`.
    Backoff {
        until: Uptime,
    },
    /// Refused for want of a credential; tried again at a slow pace, and when the row changes.
    NeedsAuth {
        until: Uptime,
    },
    /// Failed too often. Probed for ever; `probes` have failed so far.
    Crashed {
        since: Uptime,
        until: Uptime,
        probes: u32,
    },
    /// The worker has been told to end; nothing starts before it has.
    Ending {
        then: Next,
    },
}

/// What an upstream that is starting, or has just become ready, has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Nothing,
    Failure,
    /// It was CRASHED since then, and one more failure makes it so again.
    Crash {
        since: Uptime,
        probes: u32,
    },
}

/// Where an upstream goes when its worker has ended as it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Start,
    Rest,
    Stop,
    Disable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    StartRequested,
    StopRequested,
    DisableRequested,
    /// An operator's restart, or a changed row: what was counted is forgiven.
    RestartRequested,
    /// Nobody needs it now.
    RestRequested,
    /// Somebody needs it.
    Wanted,
    WorkerReady,
    WorkerEnded(Reason),
    /// The upstream asked to be left alone for so long, which is no failure.
    WorkerThrottled(Duration),
    /// The reminder that the state asked for has come due.
    TimeCame,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    StartWorker,
    EndWorker,
    RemindMe { after: Duration },
}

/// How patient we are with an upstream that keeps failing (`supervision` in the settings).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patience {
    /// The longest first rest; each further failure doubles it. The rest itself is random below.
    #[serde(with = "humantime_serde")]
    pub backoff_min: Duration,
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    /// More failures than this within `burst_window` make it CRASHED.
    pub failures_burst: usize,
    #[serde(with = "humantime_serde")]
    pub burst_window: Duration,
    /// More failures than this within `slow_window` make it CRASHED.
    pub failures_slow: usize,
    #[serde(with = "humantime_serde")]
    pub slow_window: Duration,
    /// More panics of our own code than this within `burst_window` make it CRASHED.
    pub panics_burst: usize,
    /// So many failures within `slow_window`, however well it was between them, make it flapping.
    pub failures_flapping: usize,
    /// The pace of probing what is CRASHED, and of retrying what only a person can mend.
    #[serde(with = "humantime_serde")]
    pub probe_every: Duration,
    /// The pace of probing after `slow_window`, to which it doubles.
    #[serde(with = "humantime_serde")]
    pub probe_every_max: Duration,
    /// Ready for so long, it is forgiven: the next failure rests as little as a first one.
    #[serde(with = "humantime_serde")]
    pub steady_after: Duration,
}

/// The whole of what supervision knows about one upstream.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    pub state: State,
    /// When it failed within the longest window, oldest first.
    failures: VecDeque<Uptime>,
    /// Failures since it was last steady.
    streak: u32,
    /// When it failed within the slow window, whatever was forgiven since.
    flaps: VecDeque<Uptime>,
    /// Those of the failures that were panics of our own code.
    panics: VecDeque<Uptime>,
}

impl Lifecycle {
    pub fn new(enabled: bool) -> Self {
        let state = if enabled { State::Stopped } else { State::Disabled };
        let (failures, flaps, panics) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { state, failures, streak: 0, flaps, panics }
    }

    /// What was under way, whatever it was, is to count as a start: its supervisor has panicked, and the
    /// end of the worker is all that is left to be told. False where nothing was: what is CRASHED waits for
    /// its probe, and is no more so for that.
    pub fn interrupt(&mut self) -> bool {
        let after = match self.state {
            State::Starting { after } | State::Ready { after } => after,
            State::Crashed { .. } => return false,
            State::Backoff { .. } | State::NeedsAuth { .. } => After::Failure,
            State::Disabled | State::Stopped | State::Idle | State::Ending { .. } => After::Nothing,
        };
        self.state = State::Starting { after };
        true
    }

    /// Moves on. `dice` is random in `0.0..1.0`.
    pub fn step(
        &mut self,
        event: Event,
        now: Uptime,
        dice: f64,
        patience: &Patience,
    ) -> Vec<Action> {
        use Event::*;
        use State::*;

        let (state, actions) = match (self.state.clone(), event) {
            (Stopped | Disabled | Idle, StartRequested)
            | (Stopped | Idle, RestartRequested)
            | (Idle, Wanted) => (Starting { after: After::Nothing }, vec![Action::StartWorker]),

            (Stopped | Disabled, RestRequested) => (Idle, vec![]),
            (Ready { .. }, RestRequested) => (Ending { then: Next::Rest }, vec![Action::EndWorker]),

            (Starting { after }, WorkerReady) => {
                let after_steady = patience.steady_after;
                (Ready { after }, vec![Action::RemindMe { after: after_steady }])
            }
            (Ready { .. }, TimeCame) => {
                self.forgive();
                (Ready { after: After::Nothing }, vec![])
            }

            (Starting { after } | Ready { after }, WorkerEnded(reason)) => {
                self.fail(after, reason, now, dice, patience)
            }

            (Starting { after } | Ready { after }, WorkerThrottled(rest)) => {
                // Later than it asked for, and never all at once.
                let rest = rest.max(patience.backoff_min).mul_f64(1.0 + 0.2 * dice);
                let until = now.saturating_add(rest);
                let state = match after {
                    After::Crash { since, probes } => Crashed { since, until, probes },
                    After::Nothing | After::Failure => Backoff { until },
                };
                (state, vec![Action::RemindMe { after: rest }])
            }

            (Backoff { .. } | NeedsAuth { .. }, TimeCame) => {
                (Starting { after: After::Failure }, vec![Action::StartWorker])
            }
            (Crashed { since, probes, .. }, TimeCame) => {
                (Starting { after: After::Crash { since, probes } }, vec![Action::StartWorker])
            }

            // A person who asks for a restart, or mends the row, starts the count anew.
            (Backoff { .. } | NeedsAuth { .. } | Crashed { .. }, RestartRequested) => {
                self.forgive();
                self.flaps.clear();
                (Starting { after: After::Failure }, vec![Action::StartWorker])
            }
            (Starting { .. } | Ready { .. }, RestartRequested) => {
                self.forgive();
                self.flaps.clear();
                (Ending { then: Next::Start }, vec![Action::EndWorker])
            }

            (Starting { .. } | Ready { .. }, StopRequested) => {
                (Ending { then: Next::Stop }, vec![Action::EndWorker])
            }
            (Starting { .. } | Ready { .. }, DisableRequested) => {
                (Ending { then: Next::Disable }, vec![Action::EndWorker])
            }
            (Idle | Backoff { .. } | NeedsAuth { .. } | Crashed { .. }, StopRequested) => {
                (Stopped, vec![])
            }
            (
                Idle | Backoff { .. } | NeedsAuth { .. } | Crashed { .. } | Stopped,
                DisableRequested,
            ) => {
                self.forgive();
                (Disabled, vec![])
            }

            (Ending { then: Next::Start }, WorkerEnded(_) | WorkerThrottled(_)) => {
                (Starting { after: After::Nothing }, vec![Action::StartWorker])
            }
            (Ending { then: Next::Rest }, WorkerEnded(_) | WorkerThrottled(_)) => (Idle, vec![]),
            (Ending { then: Next::Stop }, WorkerEnded(_) | WorkerThrottled(_)) => (Stopped, vec![]),
            (Ending { then: Next::Disable }, WorkerEnded(_) | WorkerThrottled(_)) => {
                self.forgive();
                (Disabled, vec![])
            }
            (Ending { .. }, StartRequested | RestartRequested)
            | (Ending { then: Next::Rest }, Wanted) => (Ending { then: Next::Start }, vec![]),
            (Ending { then: Next::Disable }, RestRequested) => {
                (Ending { then: Next::Rest }, vec![])
            }
            (Ending { .. }, StopRequested) => (Ending { then: Next::Stop }, vec![]),
            (Ending { .. }, DisableRequested) => (Ending { then: Next::Disable }, vec![]),

            // Spelt out, so that a new event must be given its place here by hand.
            (
                unmoved,
                StartRequested | StopRequested | DisableRequested | RestartRequested
                | RestRequested | Wanted | WorkerReady | WorkerEnded(_) | WorkerThrottled(_)
                | TimeCame,
            ) => (unmoved, vec![]),
        };
        self.state = state;
        actions
    }

    /// When it will be tried again, if it is waiting for that.
    pub fn next_attempt(&self) -> Option<Uptime> {
        match self.state {
            State::Backoff { until }
            | State::NeedsAuth { until }
            | State::Crashed { until, .. } => Some(until),
            State::Disabled
            | State::Stopped
            | State::Idle
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Ending { .. } => None,
        }
    }

    /// Until when it counts as flapping, if it does: a crash that comes every two minutes for ever is
    /// forgiven each time, and is still no health.
    pub fn flapping_until(&self, patience: &Patience) -> Option<Uptime> {
        let last_of_them = patience.failures_flapping.checked_sub(1)?;
        let from_the_end = self.flaps.len().checked_sub(last_of_them + 1)?;
        self.flaps.get(from_the_end).map(|at| *at + patience.slow_window)
    }

    fn forgive(&mut self) {
        self.failures.clear();
        self.panics.clear();
        self.streak = 0;
    }

    fn fail(
        &mut self,
        after: After,
        reason: Reason,
        now: Uptime,
        dice: f64,
        patience: &Patience,
    ) -> (State, Vec<Action>) {
        let rest = |duration: Duration| {
            (now.saturating_add(duration), vec![Action::RemindMe { after: duration }])
        };
        self.flaps.push_back(now);
        while self.flaps.len() > patience.failures_flapping.max(1) {
            self.flaps.pop_front();
        }
        if let After::Crash { since, probes } = after {
            let probes = probes.saturating_add(1);
            let (until, actions) = rest(patience.until_probe(now - since, probes, dice));
            return (State::Crashed { since, until, probes }, actions);
        }
        if matches!(reason, Reason::Unauthorized | Reason::InsufficientScope) {
            let (until, actions) = rest(spread(patience.probe_every, dice));
            return (State::NeedsAuth { until }, actions);
        }
        self.remember(now, patience);
        if reason == Reason::Panicked {
            self.panics.push_back(now);
            while self.panics.len() > patience.panics_burst.saturating_add(1) {
                self.panics.pop_front();
            }
        }
        if self.is_too_much(now, patience) {
            let (until, actions) = rest(spread(patience.probe_every, dice));
            return (State::Crashed { since: now, until, probes: 0 }, actions);
        }
        let duration = if reason.needs_a_person() {
            spread(patience.probe_every, dice)
        } else {
            patience.backoff(self.streak, dice)
        };
        let (until, actions) = rest(duration);
        (State::Backoff { until }, actions)
    }

    fn remember(&mut self, now: Uptime, patience: &Patience) {
        self.streak = self.streak.saturating_add(1);
        self.failures.push_back(now);
        while self.failures.len() > patience.failures_burst.max(patience.failures_slow) + 1 {
            self.failures.pop_front();
        }
    }

    fn is_too_much(&self, now: Uptime, patience: &Patience) -> bool {
        let within = |failures: &VecDeque<Uptime>, window| {
            failures.iter().filter(|at| now - **at <= window).count()
        };
        within(&self.failures, patience.burst_window) > patience.failures_burst
            || within(&self.failures, patience.slow_window) > patience.failures_slow
            || within(&self.panics, patience.burst_window) > patience.panics_burst
    }
}

impl Patience {
    /// The failures within `burst_window` that make an upstream CRASHED.
    pub fn attempts(&self) -> u64 {
        u64::try_from(self.failures_burst).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The same, with another number of them.
    pub fn with_attempts(&self, attempts: u64) -> Patience {
        let allowed = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        Patience { failures_burst: allowed, ..self.clone() }
    }

    /// Full jitter under a limit that doubles. The first failure after a steady time hardly rests.
    pub fn backoff(&self, streak: u32, dice: f64) -> Duration {
        let doublings = streak.saturating_sub(1).min(16);
        self.backoff_min.saturating_mul(1 << doublings).min(self.backoff_max).mul_f64(dice)
    }

    /// Steady for the first `slow_window` of being CRASHED, then doubling to the maximum.
    fn until_probe(&self, crashed_for: Duration, probes: u32, dice: f64) -> Duration {
        let early =
            (self.slow_window.as_secs_f64() / self.probe_every.as_secs_f64().max(0.001)) as u32;
        let doublings = match crashed_for < self.slow_window {
            true => 0,
            false => probes.saturating_sub(early).clamp(1, 16),
        };
        let pace = self.probe_every.saturating_mul(1 << doublings);
        spread(pace.min(self.probe_every_max.max(self.probe_every)), dice)
    }
}

/// A fifth more or less, so that upstreams which failed together do not return together.
pub(super) fn spread(pace: Duration, dice: f64) -> Duration {
    pace.mul_f64(0.8 + 0.4 * dice)
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
