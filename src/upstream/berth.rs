//! The place for one client's own process: whether there is one, whether a call may have it, and when
//! another may be started.
//!
//! It decides, and neither starts nor waits: the clock and the dice come with the question. A process
//! is started by the call that needs it, and one that fails is not started again before it has rested,
//! however often it is called.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{Exit, lifecycle::Patience};

/// `P` is what a call takes from a process that is ready.
#[derive(Debug)]
pub struct Berth<P> {
    state: State<P>,
    /// Processes that were started here, so that whoever waits for one knows whether it was that.
    starts: u64,
    /// Failures since one was steady.
    streak: u32,
    /// The last failure, and which process it was.
    lost: Option<(u64, Exit)>,
    /// When it was last called.
    used: Instant,
    /// Whether it has left its table, so that another is to be asked for.
    is_over: bool,
}

/// What there is. Each variant carries only what is true in that state.
#[derive(Debug)]
enum State<P> {
    /// No process, and none before `rest` is over.
    Vacant {
        rest: Option<Instant>,
    },
    Starting,
    Ready {
        process: P,
        since: Instant,
    },
    /// It is being ended, or what is left of it is. `is_told`: it was to end, so it has not failed.
    Ending {
        is_told: bool,
    },
}

/// What a call is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<P> {
    Take(P),
    /// There is none, and one may be started: see [`Berth::begin`].
    Start,
    /// Wait until something changes. `start` is the process that is coming, if one is.
    Wait {
        start: Option<u64>,
    },
    /// Wait until then, or give up.
    Rest {
        until: Instant,
        why: Exit,
    },
    /// The process that was waited for has failed.
    Failed(Exit),
    Over,
}

/// What a process is doing, as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    Starting,
    Ready,
    Ending,
}

impl<P: Clone> Berth<P> {
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Vacant { rest: None },
            starts: 0,
            streak: 0,
            lost: None,
            used: now,
            is_over: false,
        }
    }

    /// A call wants the process. `awaited` is the one that it has waited for.
    pub fn ask(&mut self, now: Instant, awaited: Option<u64>) -> Answer<P> {
        self.used = now;
        if let (Some((start, why)), Some(awaited)) = (&self.lost, awaited)
            && *start >= awaited
        {
            return Answer::Failed(why.clone());
        }
        match &self.state {
            _ if self.is_over => Answer::Over,
            State::Ready { process, .. } => Answer::Take(process.clone()),
            State::Starting => Answer::Wait { start: Some(self.starts) },
            State::Ending { .. } => Answer::Wait { start: None },
            State::Vacant { rest: Some(until) } if *until > now => {
                let why = self.lost.as_ref().map(|(_, why)| why.clone());
                let why = why.unwrap_or_else(|| Exit::of(super::Reason::Retry));
                Answer::Rest { until: *until, why }
            }
            State::Vacant { .. } => Answer::Start,
        }
    }

    /// One is being started; which one it is.
    pub fn begin(&mut self) -> u64 {
        self.state = State::Starting;
        self.starts += 1;
        self.starts
    }

    /// It can be called. Whether it still may: it can have been told to end meanwhile.
    pub fn ready(&mut self, process: P, now: Instant) -> bool {
        let is_awaited = matches!(self.state, State::Starting);
        if is_awaited {
            self.used = now;
            self.state = State::Ready { process, since: now };
        }
        is_awaited
    }

    /// It is to end. Whether there is one that has to be told.
    pub fn end(&mut self) -> bool {
        match self.state {
            State::Vacant { .. } => false,
            State::Starting | State::Ready { .. } | State::Ending { .. } => {
                self.state = State::Ending { is_told: true };
                true
            }
        }
    }

    /// It is to end if nobody has called it for so long. Whether it is to.
    pub fn end_if_idle(&mut self, now: Instant, idle: Duration) -> bool {
        let is_idle = now.saturating_duration_since(self.used) >= idle;
        matches!(self.state, State::Ready { .. }) && is_idle && self.end()
    }

    /// It has failed, though there may be something left of it. `steady_after`: who was ready for so
    /// long is forgiven what was before.
    pub fn lose(&mut self, why: &Exit, now: Instant, steady_after: Duration) {
        let was_steady = match self.state {
            State::Vacant { .. } | State::Ending { .. } => return,
            State::Starting => false,
            State::Ready { since, .. } => now.saturating_duration_since(since) >= steady_after,
        };
        self.streak = if was_steady { 1 } else { self.streak.saturating_add(1) };
        self.lost = Some((self.starts, why.clone()));
        self.state = State::Ending { is_told: false };
    }

    /// Nothing is left of it. When another may be started, if it has failed.
    pub fn ended(
        &mut self,
        exit: &Exit,
        now: Instant,
        dice: f64,
        patience: &Patience,
    ) -> Option<Instant> {
        self.lose(exit, now, patience.steady_after);
        if !matches!(self.state, State::Ending { is_told: false }) {
            self.clear();
            return None;
        }
        let rest = now + patience.backoff(self.streak, dice);
        self.state = State::Vacant { rest: Some(rest) };
        Some(rest)
    }

    /// Nothing is left of one that was to end, nor of what was counted.
    pub fn clear(&mut self) {
        self.streak = 0;
        self.state = State::Vacant { rest: None };
    }

    /// Takes it out of use, if there is no process. Whether it is.
    pub fn retire(&mut self) -> bool {
        let is_vacant = matches!(self.state, State::Vacant { .. });
        self.is_over |= is_vacant;
        is_vacant
    }

    /// Whether there is nothing worth remembering: no process, and neither a call nor a failure after
    /// `since`.
    pub fn is_forgotten(&self, since: Instant) -> bool {
        match self.state {
            State::Vacant { rest } => rest.unwrap_or(self.used).max(self.used) < since,
            State::Starting | State::Ready { .. } | State::Ending { .. } => false,
        }
    }

    /// The process, where it is ready.
    pub fn process(&self) -> Option<P> {
        match &self.state {
            State::Ready { process, .. } => Some(process.clone()),
            State::Vacant { .. } | State::Starting | State::Ending { .. } => None,
        }
    }

    /// It is in use, though by no new call.
    pub fn touch(&mut self, now: Instant) {
        self.used = now;
    }

    /// What the process is doing, if there is one.
    pub fn phase(&self) -> Option<Phase> {
        match self.state {
            State::Vacant { .. } => None,
            State::Starting => Some(Phase::Starting),
            State::Ready { .. } => Some(Phase::Ready),
            State::Ending { .. } => Some(Phase::Ending),
        }
    }
}

#[cfg(test)]
#[path = "berth_tests.rs"]
mod tests;
