//! What happened to every call of a run, and what must never have.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use tokio::time::Instant;

use crate::upstream::CallError;

/// A call's own number, which its server echoes.
pub type Nonce = u64;

/// How many calls one client may have in a run.
const CALLS_MAX: u64 = 1_000_000;

/// The client that a call is of.
pub fn owner(nonce: Nonce) -> u64 {
    nonce / CALLS_MAX
}

pub fn nonce_of(client: u64, call: u64) -> Nonce {
    client * CALLS_MAX + call
}

/// How a call ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    /// An error that says that its server did not get it.
    NotReached,
    /// An error after which nobody knows whether it was carried out.
    Unknown(&'static str),
    /// Its client took it back.
    TakenBack,
    SessionEnded,
    /// Its client went away and did not want to know.
    Unheard,
}

impl Outcome {
    /// What an error says to a client whose session has ended or not.
    pub fn of(error: &CallError, session_ended: bool) -> Self {
        match error {
            CallError::Cancelled if session_ended => Self::SessionEnded,
            CallError::Cancelled => Self::TakenBack,
            CallError::Unavailable { .. } | CallError::Busy { .. } | CallError::NotSent { .. } => {
                Self::NotReached
            }
            CallError::Inactive { .. } => Self::Unknown("inactive"),
            CallError::TooLong { .. } => Self::Unknown("too long"),
            CallError::Ended { .. } => Self::Unknown("ended"),
            CallError::BadAnswer { .. } => Self::Unknown("bad answer"),
            _ => Self::Unknown("other"),
        }
    }
}

#[derive(Debug)]
struct Call {
    began: Instant,
    outcome: Option<Outcome>,
    executed: u32,
    taken_back: bool,
    session_ended: bool,
}

/// Everything that was seen of a run. Whatever breaks a promise is kept as a violation.
pub struct History {
    began: Instant,
    /// The longest time that a call may be under way.
    patience: Duration,
    /// How long a server may be silent before it is told that nobody waits.
    silence: Duration,
    calls: RefCell<BTreeMap<Nonce, Call>>,
    lines: RefCell<Vec<String>>,
    violations: RefCell<Vec<String>>,
    answered: Cell<usize>,
}

impl History {
    pub fn new(patience: Duration, silence: Duration) -> Self {
        Self {
            began: Instant::now(),
            patience,
            silence,
            calls: RefCell::default(),
            lines: RefCell::default(),
            violations: RefCell::default(),
            answered: Cell::new(0),
        }
    }

    /// Notes a line, with the virtual time.
    pub fn say(&self, line: impl AsRef<str>) {
        let at = self.began.elapsed();
        self.lines.borrow_mut().push(format!("{:>10.3} {}", at.as_secs_f64(), line.as_ref()));
    }

    pub fn violated(&self, what: impl AsRef<str>) {
        self.say(format!("VIOLATION: {}", what.as_ref()));
        self.violations.borrow_mut().push(what.as_ref().to_owned());
    }

    pub fn begins(&self, nonce: Nonce) {
        self.say(format!("call {nonce} begins"));
        let call = Call {
            began: Instant::now(),
            outcome: None,
            executed: 0,
            taken_back: false,
            session_ended: false,
        };
        if self.calls.borrow_mut().insert(nonce, call).is_some() {
            self.violated(format!("the run used {nonce} twice"));
        }
    }

    pub fn is_taken_back(&self, nonce: Nonce) {
        self.say(format!("call {nonce} is taken back"));
        self.with(nonce, |call| call.taken_back = true);
    }

    /// The session of every call of this client that has no outcome yet has ended.
    pub fn session_ended(&self, client: u64) {
        for (nonce, call) in self.calls.borrow_mut().iter_mut() {
            if owner(*nonce) == client && call.outcome.is_none() {
                call.session_ended = true;
            }
        }
    }

    /// A server carries it out.
    pub fn is_executed(&self, nonce: Nonce, server: u128) {
        self.say(format!("call {nonce} is carried out by u{server}"));
        let executed = self.with(nonce, |call| {
            call.executed += 1;
            call.executed
        });
        if executed != Some(1) {
            self.violated(format!("call {nonce} reached a server {executed:?} times"));
        }
    }

    /// A server is told that it need not go on with it.
    pub fn is_cancelled_upstream(&self, nonce: Nonce) {
        self.say(format!("call {nonce} is cancelled at its server"));
        let silence = self.silence;
        let is_wanted = self.with(nonce, |call| {
            let gave_up = matches!(call.outcome, Some(Outcome::Unknown(_) | Outcome::Unheard));
            call.taken_back || call.session_ended || gave_up || call.began.elapsed() >= silence
        });
        if is_wanted != Some(true) {
            self.violated(format!("call {nonce} was cancelled, and nobody had wanted that"));
        }
    }

    /// The gateway has done with it.
    pub fn is_over(&self, nonce: Nonce) {
        let took = self.with(nonce, |call| call.began.elapsed()).unwrap_or_default();
        if took > self.patience {
            self.violated(format!("call {nonce} was under way for {took:?}"));
        }
    }

    /// Its client has its outcome.
    pub fn ends(&self, nonce: Nonce, outcome: Outcome) {
        self.say(format!("call {nonce} ends: {outcome:?}"));
        let wrong = self.with(nonce, |call| match call.outcome.replace(outcome) {
            Some(before) => Some(format!("had the outcome {before:?} and then {outcome:?}")),
            None => match outcome {
                Outcome::Answered if call.executed == 0 => {
                    Some("was answered though no server carried it out".to_owned())
                }
                Outcome::NotReached if call.executed > 0 => {
                    Some("is said not to have been reached, and was carried out".to_owned())
                }
                Outcome::TakenBack if !call.taken_back => {
                    Some("was taken back by nobody".to_owned())
                }
                Outcome::SessionEnded if !call.session_ended => {
                    Some("ended with a session that had not ended".to_owned())
                }
                _ => None,
            },
        });
        if let Some(Some(wrong)) = wrong {
            self.violated(format!("call {nonce} {wrong}"));
        }
        if outcome == Outcome::Answered {
            self.answered.set(self.answered.get() + 1);
        }
    }

    /// Something about the call `nonce` reached this client.
    pub fn reaches(&self, client: u64, nonce: Nonce, what: &str) {
        if owner(nonce) != client {
            self.violated(format!("the client {client} was given the {what} of call {nonce}"));
        }
    }

    pub fn has_ended(&self, nonce: Nonce) -> bool {
        self.with(nonce, |call| call.outcome.is_some()).unwrap_or(true)
    }

    pub fn is_without_session(&self, nonce: Nonce) -> bool {
        self.with(nonce, |call| call.session_ended).unwrap_or(true)
    }

    /// When everything should be over: the calls that still have no outcome.
    pub fn close(&self) {
        let open: Vec<Nonce> = {
            let calls = self.calls.borrow();
            calls.iter().filter(|(_, call)| call.outcome.is_none()).map(|(n, _)| *n).collect()
        };
        for nonce in open {
            self.violated(format!("call {nonce} has no outcome"));
        }
    }

    pub fn answered(&self) -> usize {
        self.answered.get()
    }

    pub fn calls(&self) -> usize {
        self.calls.borrow().len()
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.borrow().clone()
    }

    /// What was seen, in an order that does not depend on who was woken first.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.lines.borrow().clone();
        lines.sort();
        lines
    }

    fn with<R>(&self, nonce: Nonce, what: impl FnOnce(&mut Call) -> R) -> Option<R> {
        let mut calls = self.calls.borrow_mut();
        let found = calls.get_mut(&nonce).map(what);
        drop(calls);
        if found.is_none() {
            self.violated(format!("nobody ever called {nonce}"));
        }
        found
    }
}
