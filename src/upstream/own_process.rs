//! The process of one client session, or of one user: the place for it, and what is known of the one
//! that is there now.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use time::OffsetDateTime;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Exit,
    berth::{Berth, Phase},
    exchange::SessionKey,
    pipe::Pipe,
};
use crate::wire::{
    capabilities::{Capability, ClientCapabilities},
    message,
};

/// The place for such a process.
pub struct OwnProcess {
    pub key: SessionKey,
    /// What it is told that can be asked for.
    pub declared: ClientCapabilities,
    /// Held by whoever has a process of this key.
    pub lease: Arc<Semaphore>,
    pub(super) berth: watch::Sender<Berth<Arc<Pipe>>>,
    present: Mutex<Present>,
}

/// The process that there is now.
#[derive(Default)]
struct Present {
    number: u64,
    stop: CancellationToken,
    pid: Option<u32>,
    since: Option<OffsetDateTime>,
    /// The public name of the client's session.
    session: Option<Uuid>,
    last_words: Option<String>,
}

/// A process that is a client's own, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProcessReport {
    pub pid: Option<u32>,
    pub state: Phase,
    /// The client session that it is for, under `SESSION`.
    pub session: Option<Uuid>,
    /// Whom it is for, under `USER`: `user:…`, `key:…` or `anonymous`.
    pub user: Option<String>,
    /// When it was started.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<OffsetDateTime>,
}

impl OwnProcess {
    /// A place for a process; there is none yet.
    pub fn new(key: SessionKey, declared: ClientCapabilities) -> Self {
        Self {
            key,
            declared,
            lease: Arc::new(Semaphore::new(1)),
            berth: watch::channel(Berth::new(Instant::now())).0,
            present: Mutex::default(),
        }
    }

    /// The process of this number is being started.
    pub(super) fn begin(&self, number: u64) {
        *self.present() = Present { number, ..Present::default() };
    }

    /// It can be called by what is given.
    pub fn ready(&self, pipe: Arc<Pipe>) {
        self.berth.send_if_modified(|berth| berth.ready(pipe, Instant::now()));
    }

    /// The roots of its client have changed.
    pub fn roots_changed(&self) {
        let process = self.berth.borrow().process();
        if let Some(pipe) = process.filter(|_| self.declared.has(Capability::RootsListChanged)) {
            pipe.say(message::notification("notifications/roots/list_changed", b""));
        }
    }

    /// It has failed: no more calls may have it.
    pub fn lose(&self, why: &Exit, steady_after: Duration) {
        self.berth.send_modify(|berth| berth.lose(why, Instant::now(), steady_after));
    }

    /// It is being used outside of calls.
    pub fn touch(&self) {
        self.berth.send_if_modified(|berth| {
            berth.touch(Instant::now());
            false
        });
    }

    /// Whether it is to end since nobody has called it for so long.
    pub fn end_if_idle(&self, idle: Duration) -> bool {
        self.berth.send_if_modified(|berth| berth.end_if_idle(Instant::now(), idle))
    }

    /// Which of all processes of clients it is.
    pub fn number(&self) -> u64 {
        self.present().number
    }

    /// Cancelled when it is to end.
    pub fn stop(&self) -> CancellationToken {
        self.present().stop.clone()
    }

    /// It runs, for the client session with this public name.
    pub fn runs(&self, pid: u32, session: Option<Uuid>) {
        let mut present = self.present();
        (present.pid, present.session) = (Some(pid), session);
        present.since = Some(OffsetDateTime::now_utc());
    }

    pub fn pid(&self) -> Option<u32> {
        self.present().pid
    }

    /// It wrote a line on stderr. What is secret in it is still to be seen: most lines nobody reads.
    pub fn wrote(&self, line: String) {
        self.present().last_words = Some(line);
    }

    /// The last such line, as it came.
    pub fn last_words(&self) -> Option<String> {
        self.present().last_words.clone()
    }

    /// For whom it is, in words.
    pub fn whose(&self) -> String {
        match (&self.key, self.present().session) {
            (SessionKey::User(user), _) => format!("of `{user}`"),
            (_, Some(session)) => format!("of the session {session}"),
            (_, None) => "of a session".to_owned(),
        }
    }

    /// Tells it to end. Whether there is one, or something left of it.
    pub(super) fn end(&self) -> bool {
        let mut is_there = false;
        self.berth.send_modify(|berth| is_there = !berth.retire() && berth.end());
        if is_there {
            self.stop().cancel();
        }
        is_there
    }

    /// Whether it had no process, and may be taken out of the table.
    pub(super) fn retire(&self) -> bool {
        self.berth.send_if_modified(Berth::retire)
    }

    pub(super) fn report(&self) -> Option<ProcessReport> {
        let state = self.berth.borrow().phase()?;
        let user = match &self.key {
            SessionKey::User(user) => Some(user.to_string()),
            SessionKey::Shared | SessionKey::Client(_) => None,
        };
        let present = self.present();
        let Present { pid, session, since, .. } = &*present;
        Some(ProcessReport { pid: *pid, state, session: *session, user, since: *since })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
