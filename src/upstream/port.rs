//! The way of a call from a handler to an upstream and back, without a hop through its actor.
//!
//! The actor puts a connection in and takes it out; the port finds it, bounds what is in flight,
//! keeps the times, and gives the client its own id and token back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    CallError,
    concern::{Concern, Concerned},
    dialogue::DialogueOptions,
    exchange::SessionKey,
    link::{Caller, Link, Sending},
    log_levels::LogLevels,
    reason::Reason,
    spec::{CallLimits, Isolation},
    status::StateWord,
    subscriptions::Subscriptions,
    tasks::{TaskOptions, Tasks},
};
use crate::wire::{Frame, Span, level::Level};

pub use super::conversation::{Conversation, Step};

/// The limits of `calls` in the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallOptions {
    /// Longest time without a sign of life, unless the server's row says otherwise.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Longest time in all, unless the server's row says otherwise.
    #[serde(with = "humantime_serde")]
    pub total: Duration,
    /// Whether progress begins `timeout` anew.
    pub reset_on_progress: bool,
    /// Calls that one upstream may have in flight.
    pub in_flight_max: usize,
    /// How long a call waits for its turn when that many are.
    #[serde(with = "humantime_serde")]
    pub queue_wait: Duration,
    /// How long a call waits for an upstream that is starting.
    #[serde(with = "humantime_serde")]
    pub ready_wait: Duration,
    /// Notifications and questions of one call that wait for a slow client before some are dropped.
    pub events_max: usize,
    /// Messages that wait for an upstream to read them.
    pub queue_max: usize,
    /// How long an upstream may still be at work on a call that was taken back.
    #[serde(with = "humantime_serde")]
    pub doubt: Duration,
    /// Elicitations by URL of one upstream session whose completion may still be announced.
    pub elicitations_max: usize,
    pub tasks: TaskOptions,
}

impl CallOptions {
    /// The limits of what passes beside calls.
    pub fn dialogue(&self) -> DialogueOptions {
        let Self { doubt, events_max, elicitations_max, .. } = *self;
        DialogueOptions { doubt, events_max, elicitations_max }
    }
}

/// What may change while the port is in use.
#[derive(Clone, Debug)]
pub struct Facts {
    pub name: Arc<str>,
    pub isolation: Isolation,
    pub limits: CallLimits,
}

/// Whether a call may hope for a connection.
#[derive(Clone, Debug)]
pub enum Outlook {
    Up,
    /// It is starting, or will be before long.
    Coming(Absence),
    /// Waiting is pointless.
    Down(Absence),
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub struct Absence {
    pub state: StateWord,
    pub reason: Reason,
    pub detail: Option<String>,
}

impl Absence {
    fn error(self, facts: &Facts) -> CallError {
        let Self { state, reason, detail } = self;
        CallError::Unavailable { server: facts.name.clone(), state, reason, detail }
    }
}

/// The call path of one upstream, for as long as its row exists.
pub struct Port {
    pub id: Uuid,
    pub(super) options: CallOptions,
    pub(super) facts: ArcSwap<Facts>,
    link: ArcSwapOption<Link>,
    outlook: watch::Sender<Outlook>,
    permits: Arc<Semaphore>,
    /// What log messages its clients want.
    pub levels: Arc<LogLevels>,
    /// Which resources its clients want to hear of.
    pub subscriptions: Arc<Subscriptions>,
    has_subscriptions: AtomicBool,
    /// What its clients have it work on behind.
    pub tasks: Arc<Tasks>,
    has_tasks: AtomicBool,
    /// Turns to wait for the result of a task, which takes none of those of calls.
    waits: Arc<Semaphore>,
}

/// What is special about a call.
#[derive(Clone, Default)]
pub struct Manner {
    /// What it has to do with tasks.
    pub concern: Option<Concern>,
    /// The session of the upstream that it is for, if that is not the caller's own.
    pub key: Option<SessionKey>,
    /// How long it may be silent, and take, where that is not what other calls may.
    pub patience: Option<Duration>,
}

impl Port {
    pub fn new(id: Uuid, facts: Facts, options: CallOptions) -> Self {
        let permits = Arc::new(Semaphore::new(options.in_flight_max));
        let absence = Absence { state: StateWord::Stopped, reason: Reason::Started, detail: None };
        let (outlook, _) = watch::channel(Outlook::Coming(absence));
        let facts = ArcSwap::from_pointee(facts);
        let tasks = Arc::new(Tasks::new(&options.tasks));
        let waits = Arc::new(Semaphore::new(options.tasks.results_max));
        Self {
            id,
            options,
            facts,
            link: ArcSwapOption::empty(),
            outlook,
            permits,
            levels: Arc::default(),
            subscriptions: Arc::default(),
            has_subscriptions: AtomicBool::new(false),
            tasks,
            has_tasks: AtomicBool::new(false),
            waits,
        }
    }

    /// The connection, if there is one just now.
    pub(super) fn current_link(&self) -> Option<Arc<Link>> {
        self.link.load_full()
    }

    pub(super) fn has_subscriptions(&self) -> bool {
        self.has_subscriptions.load(Ordering::Relaxed)
    }

    /// Whether the upstream says that it can be subscribed to resources.
    pub fn set_has_subscriptions(&self, has_subscriptions: bool) {
        self.has_subscriptions.store(has_subscriptions, Ordering::Relaxed);
    }

    pub fn has_tasks(&self) -> bool {
        self.has_tasks.load(Ordering::Relaxed)
    }

    /// Whether the upstream says that its tools can be called as tasks.
    pub fn set_has_tasks(&self, has_tasks: bool) {
        self.has_tasks.store(has_tasks, Ordering::Relaxed);
    }

    pub fn options(&self) -> &CallOptions {
        &self.options
    }

    /// The limits of its calls just now.
    pub fn limits(&self) -> CallLimits {
        self.facts.load().limits
    }

    pub fn set_facts(&self, facts: Facts) {
        self.facts.store(Arc::new(facts));
    }

    /// Opens the port to a connection.
    pub fn open(&self, link: Link) {
        self.link.store(Some(Arc::new(link)));
        self.outlook.send_replace(Outlook::Up);
    }

    /// Closes it. Calls that are in flight are ended by their connection.
    pub fn close(&self, outlook: Outlook) {
        self.link.store(None);
        self.outlook.send_replace(outlook);
    }

    /// Whether a call may hope for a connection just now.
    #[cfg(test)]
    pub fn outlook(&self) -> Outlook {
        self.outlook.borrow().clone()
    }

    /// Ends what the upstream holds for a client session that has ended.
    pub fn forget(&self, session: &Arc<str>) {
        let quieter = self.levels.forget(session);
        for (key, uri) in self.subscriptions.forget(session) {
            // A session of its own ends with it.
            if key != SessionKey::Client(session.clone()) {
                self.unsubscribe_session(key, uri);
            }
        }
        if let Some(link) = self.link.load_full() {
            let key = SessionKey::Client(session.clone());
            link.forget(&key);
            for (key, level) in quieter.into_iter().filter(|(changed, _)| *changed != key) {
                link.set_level(&key, level);
            }
        }
    }

    /// A client says which log messages it wants. The upstream is told where that makes a
    /// difference: where nobody else of its session wants more.
    ///
    /// Returns when the upstream has heard of it, so that the calls that follow find it in force; or
    /// when it took longer than a call waits for its turn.
    pub async fn set_level(&self, caller: &Caller<'_>, level: Level) {
        let key = caller.key(self.facts.load().isolation);
        if let Some(wanted) = self.levels.want(&key, caller.session, level)
            && let Some(link) = self.link.load_full()
        {
            let told = link.set_level(&key, wanted);
            // It goes on being told when nobody waits for that any more.
            drop(tokio::time::timeout(self.options.queue_wait, told).await);
        }
    }

    /// The roots of a client have changed. Told to what was told of them.
    pub fn roots_changed(&self, caller: &Caller<'_>) {
        let key = caller.key(self.facts.load().isolation);
        if let Some(link) = self.link.load_full() {
            link.roots_changed(&key);
        }
    }

    /// Sends `frame`, a request, with other bytes in the place of some spans: what the upstream calls
    /// what the client calls by our names.
    ///
    /// Until the upstream may have received it, it is tried again on a new connection; after that
    /// never, since a tool may not be called twice for one request.
    pub async fn call(
        &self,
        frame: Frame,
        edits: &[(Span, &[u8])],
        caller: &Caller<'_>,
        cancel: CancellationToken,
    ) -> Result<Conversation, CallError> {
        self.call_as(frame, edits, caller, cancel, Manner::default()).await
    }

    /// The same of a call that is somehow special.
    pub async fn call_as(
        &self,
        frame: Frame,
        edits: &[(Span, &[u8])],
        caller: &Caller<'_>,
        cancel: CancellationToken,
        manner: Manner,
    ) -> Result<Conversation, CallError> {
        let Manner { concern, key, patience } = manner;
        let mut facts = self.facts.load_full();
        if let Some(patience) = patience {
            let limits = &mut Arc::make_mut(&mut facts).limits;
            (limits.inactivity, limits.total) = (patience, patience);
        }
        let key = key.unwrap_or_else(|| caller.key(facts.isolation));
        if let Some(level) = caller.log_level {
            self.set_level(caller, level).await;
        }
        let deadline = Instant::now() + self.options.ready_wait;
        loop {
            let link = self.link(&facts, deadline, &cancel).await?;
            let mut concerned = None;
            let begin = async {
                let sending = Sending {
                    key: key.clone(),
                    client: Some(caller.session.clone()),
                    declared: caller.declared(facts.isolation),
                    permit: Some(self.permit(&facts, concern.as_ref()).await?),
                    queue_wait: self.options.queue_wait,
                    lifetime: facts.limits.total,
                };
                let write = |id| {
                    concerned = concern.clone().map(|concern| {
                        let token = frame.meta_token_span().map(|span| frame.slice(span));
                        Concerned::begin(&self.tasks, &key, id, caller.session, concern, token)
                    });
                    outgoing(&frame, id, edits)
                };
                link.begin(write, sending).await
            };
            let begun = tokio::select! {
                // A request that was taken back while it waited for its turn is never sent.
                biased;
                () = cancel.cancelled() => return Err(CallError::Cancelled),
                begun = begin => begun,
            };
            match begun {
                Ok(leg) => return Ok(Conversation::new(leg, frame, facts, cancel, concerned)),
                Err(CallError::NotSent { .. }) if Instant::now() < deadline => {
                    // The connection has ended, and its actor is about to say so.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error.of(&facts.name)),
            }
        }
    }

    /// The connection, waited for while there is hope.
    pub(super) async fn link(
        &self,
        facts: &Facts,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<Arc<Link>, CallError> {
        if let Some(link) = self.link.load_full() {
            return Ok(link);
        }
        let mut outlook = self.outlook.subscribe();
        loop {
            let seen = outlook.borrow_and_update().clone();
            if let Some(link) = self.link.load_full() {
                return Ok(link);
            }
            let absence = match seen {
                Outlook::Down(absence) => return Err(absence.error(facts)),
                Outlook::Coming(absence) => Some(absence),
                Outlook::Up => None,
            };
            tokio::select! {
                biased;
                changed = outlook.changed() => if changed.is_err() {
                    return Err(CallError::NotSent { server: facts.name.clone(), detail: None });
                },
                () = tokio::time::sleep_until(deadline) => return Err(match absence {
                    Some(absence) => absence.error(facts),
                    None => CallError::NotSent { server: facts.name.clone(), detail: None },
                }),
                () = cancel.cancelled() => return Err(CallError::Cancelled),
            }
        }
    }

    async fn permit(
        &self,
        facts: &Facts,
        concern: Option<&Concern>,
    ) -> Result<OwnedSemaphorePermit, CallError> {
        let (permits, limit) = match concern {
            Some(Concern::Awaits(_)) => (&self.waits, "calls.tasks.results_max"),
            Some(_) | None => (&self.permits, "calls.in_flight_max"),
        };
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let turn = permits.clone().acquire_owned();
        match tokio::time::timeout(self.options.queue_wait, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                metrics::counter!("metamcpd_limit_hit_total", "limit" => limit).increment(1);
                Err(CallError::Busy { server: facts.name.clone() })
            }
        }
    }
}

/// The client's request with our id, the upstream's own names, and our token.
fn outgoing(frame: &Frame, id: u64, edits: &[(Span, &[u8])]) -> Bytes {
    let id = id.to_string();
    // Our id is unique on the connection, so it serves as the token too.
    let ours = [frame.id_span(), frame.meta_token_span()].into_iter().flatten();
    let ours = ours.map(|span| (span, id.as_bytes()));
    let mut edits: Vec<_> = ours.chain(edits.iter().copied()).collect();
    frame.splice(&mut edits)
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
