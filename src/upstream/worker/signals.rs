//! What calls to a remote upstream tell its worker, and the worker them.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::listing::Announcements;
use crate::{catalogue::kind::PerKind, wire::challenge::Challenge};

/// How long calls that its breaker would hold back wait for it to be known whether it is there at all.
const DOUBT_MAX: Duration = Duration::from_secs(1);

/// What calls notice on their way, for the worker to act on.
#[derive(Default)]
pub struct Signals {
    /// The upstream says that a list of it has changed.
    pub changed: Announcements,
    /// A session with it was begun anew, and not for the sake of a list, so that it may have other lists.
    pub reopened: Notify,
    /// The gateway's own session was begun anew, and it says something else of itself.
    pub reintroduced: Notify,
    /// It could not be reached, or broke off.
    pub suspect: Notify,
    /// Since when it is being found out whether it can be reached at all.
    doubted: Mutex<Option<Instant>>,
    /// It refused our credential.
    pub unauthorized: Notify,
    /// What it said of the credential that it wants instead.
    challenge: Mutex<Option<Challenge>>,
    /// Whether it would say that a list has changed, and we would hear it.
    pub announces: PerKind<AtomicBool>,
    /// Whether it was seen to offer no standing streams.
    pub has_no_streams: AtomicBool,
    /// Whether it was seen to open one only when it has something to say.
    pub has_slow_streams: AtomicBool,
}

impl Signals {
    /// Whether there is a list that is looked at only when it says so.
    pub fn relies_on_announcements(&self) -> bool {
        self.announces.iter().any(|(_, announces)| announces.load(Ordering::Relaxed))
    }

    /// It refused our credential, and said this of it.
    pub fn note_challenge(&self, challenge: Option<Challenge>) {
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = challenge;
    }

    /// What it said last of the credential that it wants.
    pub fn challenge(&self) -> Option<Challenge> {
        self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No connection came about.
    pub fn doubt(&self) {
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.get_or_insert_with(Instant::now);
    }

    /// It has just said something.
    pub fn trust(&self) {
        *self.doubted.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether it will be known in a moment if this connection has ended.
    pub fn is_doubted(&self) -> bool {
        let doubted = *self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.is_some_and(|since| since.elapsed() < DOUBT_MAX)
    }
}
