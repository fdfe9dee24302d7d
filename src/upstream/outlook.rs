//! Whether a call may hope for a connection, and how long it is worth waiting for.

use super::{
    CallError,
    lifecycle::{After, Next, State},
    port::Facts,
    reason::Reason,
    status::{Runtime, StateWord},
};

/// What a call that finds no connection can expect.
#[derive(Clone, Debug)]
pub enum Outlook {
    Up,
    /// It is starting, or will be before long.
    Coming(Absence),
    /// It rests, and the first call wakes it.
    Resting(Absence),
    /// Waiting is pointless.
    Down(Absence),
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub struct Absence {
    pub state: StateWord,
    pub reason: Reason,
    pub detail: Option<String>,
    /// By what it failed last, and the scope that it asked for then.
    pub failed_by: Option<(Reason, Option<String>)>,
}

impl Absence {
    pub(super) fn error(self, facts: &Facts) -> CallError {
        let Self { state, reason, detail, failed_by } = self;
        let server = facts.name.clone();
        match (state, failed_by) {
            (StateWord::NeedsAuth, Some((Reason::InsufficientScope, scope))) => {
                CallError::InsufficientScope { server, scope }
            }
            (StateWord::NeedsAuth, _) => CallError::unauthorized(server).of(facts),
            _ => CallError::Unavailable { server, state, reason, detail },
        }
    }

    /// Whether it is being started because somebody calls, or has to be fetched first: that takes
    /// longer than what is usually waited for.
    pub(super) fn is_waking(&self) -> bool {
        matches!(self.reason, Reason::Idle | Reason::Wanted | Reason::Prefetching)
    }
}

/// Whether a call should wait for it.
pub(super) fn outlook(state: &State, runtime: &Runtime) -> Outlook {
    let absence = Absence {
        state: runtime.state,
        reason: runtime.reason,
        detail: runtime.last_error.clone(),
        failed_by: runtime.failed_by.clone(),
    };
    match state {
        State::Ready { .. } => Outlook::Up,
        State::Idle | State::Ending { then: Next::Rest } => Outlook::Resting(absence),
        State::Backoff { .. } if absence.reason.needs_a_person() => Outlook::Down(absence),
        State::Starting { after: After::Crash { .. } } => Outlook::Down(absence),
        State::Starting { .. } | State::Backoff { .. } | State::Ending { .. } => {
            Outlook::Coming(absence)
        }
        State::Disabled | State::Stopped | State::NeedsAuth { .. } | State::Crashed { .. } => {
            Outlook::Down(absence)
        }
    }
}
