//! The way of a call from a handler to an upstream and back, without a hop through its actor.
//!
//! The actor puts a connection in and takes it out; the port finds it, bounds what is in flight,
//! keeps the times, and gives the client its own id and token back.

use std::{
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering, fence},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use super::call_options::CallOptions;
use super::{
    CallError,
    again::{Again, Trip},
    brakes::Brakes,
    breaker::Breaker,
    concern::{Concern, Concerned},
    conduct::Conduct,
    degradation::Degradation,
    exchange::SessionKey,
    link::{Caller, Leg, Link, Sending},
    log_levels::LogLevels,
    outlook::{Absence, Outlook},
    places::{Place, Places},
    processes::Processes,
    reason::Reason,
    retries::Retries,
    spec::{CallLimits, Isolation},
    status::StateWord,
    subscriptions::Subscriptions,
    tasks::Tasks,
};
use crate::wire::{Frame, Span, level::Level};

pub use super::conversation::{Conversation, Step};

/// What may change while the port is in use.
#[derive(Clone, Debug)]
pub struct Facts {
    pub name: Arc<str>,
    pub isolation: Isolation,
    pub limits: CallLimits,
    /// Calls that it may have in flight, where the settings do not say that.
    pub concurrency_max: Option<usize>,
    /// What the URLs of the admin API begin with. The port knows it from the options.
    pub admin: Arc<str>,
}

/// The call path of one upstream, for as long as its row exists.
pub struct Port {
    /// For what goes on with it after who called has gone on.
    me: Weak<Port>,
    pub id: Uuid,
    pub(super) options: CallOptions,
    pub(super) facts: ArcSwap<Facts>,
    pub(super) link: ArcSwapOption<Link>,
    outlook: watch::Sender<Outlook>,
    places: Places,
    /// What the calls of a remote upstream pass.
    pub breaker: Arc<Breaker>,
    pub retries: Arc<Retries>,
    pub conduct: Arc<Conduct>,
    /// Told by a call that finds the upstream resting.
    wanted: Notify,
    /// What log messages its clients want.
    pub levels: Arc<LogLevels>,
    /// Which resources its clients want to hear of.
    pub subscriptions: Arc<Subscriptions>,
    /// The processes that its clients have to themselves.
    pub processes: Processes,
    has_subscriptions: AtomicBool,
    /// What its clients have it work on behind.
    pub tasks: Arc<Tasks>,
    has_tasks: AtomicBool,
    /// Turns to wait for the result of a task, which takes none of those of calls.
    waits: Places,
}

/// What is special about a call.
#[derive(Clone, Default)]
pub struct Manner {
    /// What it has to do with tasks.
    pub concern: Option<Concern>,
    /// The session of the upstream that it is for, if that is not the caller's own.
    pub key: Option<SessionKey>,
    /// The process that alone can answer it; nil where any connection can.
    pub life: Uuid,
    /// How long it may be silent, and take, where that is not what other calls may.
    pub patience: Option<Duration>,
}

/// What is the same of one call however often it sets out.
pub(super) struct Errand<'a> {
    pub caller: &'a Caller<'a>,
    pub key: SessionKey,
    pub began: Instant,
    pub cancel: &'a CancellationToken,
    pub facts: &'a Arc<Facts>,
}

impl Port {
    pub fn new(id: Uuid, facts: Facts, options: CallOptions, brakes: &Brakes) -> Arc<Self> {
        let in_flight_max = facts.concurrency_max.unwrap_or(options.in_flight_max);
        let places = Places::new(in_flight_max, options.waiting_max);
        let absence = Absence {
            state: StateWord::Stopped,
            reason: Reason::Started,
            detail: None,
            failed_by: None,
        };
        let (outlook, _) = watch::channel(Outlook::Coming(absence));
        let admin = options.admin_url.clone();
        let facts = ArcSwap::from_pointee(Facts { admin, ..facts });
        let tasks = Arc::new(Tasks::new(&options.tasks));
        let waits = Places::new(options.tasks.results_max, options.tasks.results_max);
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            id,
            breaker: Breaker::new(id, options.breaker, brakes.ejections.clone()),
            retries: brakes.retries.clone(),
            conduct: Arc::new(Conduct::new(options.strikes)),
            options,
            facts,
            link: ArcSwapOption::empty(),
            outlook,
            places,
            wanted: Notify::new(),
            levels: Arc::default(),
            subscriptions: Arc::default(),
            processes: Processes::default(),
            has_subscriptions: AtomicBool::new(false),
            tasks,
            has_tasks: AtomicBool::new(false),
            waits,
        })
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
        self.places.set_max(facts.concurrency_max.unwrap_or(self.options.in_flight_max));
        let admin = self.options.admin_url.clone();
        self.facts.store(Arc::new(Facts { admin, ..facts }));
    }

    /// Opens the port to a connection.
    pub fn open(&self, link: Link) {
        let link = Arc::new(link);
        if let Link::Remote(_) = &*link {
            self.breaker.joins();
        }
        self.link.store(Some(link.clone()));
        self.outlook.send_replace(Outlook::Up);
        link.catch_up(&SessionKey::Shared, &self.levels);
    }

    /// Closes it. Calls that are in flight are ended by their connection.
    pub fn close(&self, outlook: Outlook) {
        self.breaker.leaves();
        self.link.store(None);
        self.outlook.send_replace(outlook);
    }

    /// Closes it for a rest, unless somebody uses the upstream: a call is on its way through here, it is
    /// at work on a task, or a client waits to hear of a resource. Whether it is closed.
    ///
    /// A call takes its place first and then looks whether its connection is still the present one;
    /// here the connection goes first and then the places are looked at. So one of the two sees the other.
    pub fn rest(&self, resting: Outlook) -> bool {
        let is_used = || {
            self.places.is_used()
                || self.waits.is_used()
                || !self.subscriptions.is_empty()
                || self.tasks.has_work(&SessionKey::Shared)
        };
        // Who asks after a task does not wait for a connection, and is not to miss it for a moment.
        if is_used() {
            return false;
        }
        let link = self.link.swap(None);
        fence(Ordering::SeqCst);
        if is_used() {
            self.link.store(link);
            self.outlook.send_replace(Outlook::Up);
            return false;
        }
        self.outlook.send_replace(resting);
        true
    }

    /// In what ways the upstream is not as it should be, as its calls tell.
    pub fn degradations(&self) -> Vec<Degradation> {
        let is_throttled = self.breaker.throttled_for().is_some();
        let throttled = is_throttled.then_some(Degradation::Throttled);
        let open = self.breaker.is_open().then_some(Degradation::CircuitOpen);
        let own = [throttled, open].into_iter().flatten();
        own.chain(self.conduct.degradations()).collect()
    }

    /// For how long no call has been with the upstream. `None` while one is.
    pub fn idle_for(&self) -> Option<Duration> {
        self.places.idle_for()
    }

    /// Wakes the upstream, should it rest.
    pub fn want(&self) {
        self.wanted.notify_one();
    }

    /// Waits until somebody needs the upstream, which rests.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
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
        let own = SessionKey::Client(session.clone());
        self.processes.forget(&own);
        if let Some(link) = self.link.load_full() {
            link.forget(&own);
        }
        for (key, level) in quieter.into_iter().filter(|(changed, _)| *changed != own) {
            if let Some(link) = self.current_link(&key) {
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
            && let Some(link) = self.current_link(&key)
        {
            let told = link.set_level(&key, wanted);
            // It goes on being told when nobody waits for that any more.
            drop(tokio::time::timeout(self.options.queue_wait, told).await);
        }
    }

    /// The roots of a client have changed. Told to what was told of them.
    pub fn roots_changed(&self, caller: &Caller<'_>) {
        let key = caller.key(self.facts.load().isolation);
        if let Some(own) = self.processes.known(&key) {
            own.roots_changed();
        } else if let Some(link) = self.link.load_full() {
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
        edits: Vec<(Span, Bytes)>,
        caller: &Caller<'_>,
        cancel: CancellationToken,
    ) -> Result<Conversation, CallError> {
        self.call_as(frame, edits, caller, cancel, Manner::default()).await
    }

    /// The same of a call that is somehow special.
    pub async fn call_as(
        &self,
        frame: Frame,
        edits: Vec<(Span, Bytes)>,
        caller: &Caller<'_>,
        cancel: CancellationToken,
        manner: Manner,
    ) -> Result<Conversation, CallError> {
        let Manner { concern, key, life, patience } = manner;
        let mut facts = self.facts.load_full();
        if let Some(patience) = patience {
            let limits = &mut Arc::make_mut(&mut facts).limits;
            (limits.inactivity, limits.total) = (patience, patience);
        }
        let key = key.unwrap_or_else(|| caller.key(facts.isolation));
        if let Some(level) = caller.log_level {
            self.set_level(caller, level).await;
        }
        let began = Instant::now();
        let deadline = began + self.options.ready_wait.max(self.options.wake_wait);
        let errand = Errand { caller, key, began, cancel: &cancel, facts: &facts };
        loop {
            let mut concerned = None;
            let write = |id| {
                concerned = concern.clone().map(|concern| {
                    let token = frame.meta_token_span().map(|span| frame.slice(span));
                    Concerned::begin(&self.tasks, &errand.key, id, caller.session, concern, token)
                });
                outgoing(&frame, id, &edits)
            };
            match self.set_out(&errand, concern.as_ref(), life, write).await {
                Ok(leg) => {
                    let conduct = self.conduct.clone();
                    let mut trip = Trip::new(leg);
                    if trip.is_far() {
                        self.retries.note_call();
                        // What has to do with tasks is known by the id that it was sent under.
                        let again = self.me.upgrade().filter(|_| concern.is_none());
                        trip = trip.repeatable(
                            again.map(|port| Again::new(port, &errand, frame.clone(), edits)),
                        );
                    }
                    return Ok(Conversation::new(trip, frame, facts, conduct, cancel, concerned));
                }
                Err(CallError::NotSent { .. }) if Instant::now() < deadline => {
                    // The connection has ended, and its actor is about to say so.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error.of(&facts)),
            }
        }
    }

    /// Finds the connection and a place among those in flight, and sends the request that `write`
    /// makes.
    pub(super) async fn set_out(
        &self,
        errand: &Errand<'_>,
        concern: Option<&Concern>,
        life: Uuid,
        write: impl FnOnce(u64) -> Bytes,
    ) -> Result<Leg, CallError> {
        let Errand { caller, key, began, cancel, facts } = errand;
        let begin = pin!(async {
            let link = match life.is_nil() {
                true => self.way(facts, caller, key, *began, cancel).await?,
                false => self.living(life, facts, key)?,
            };
            let place = self.place(concern, facts).await?;
            fence(Ordering::SeqCst);
            if !self.is_present(&link, key) {
                return Err(CallError::NotSent { server: facts.name.clone(), detail: None });
            }
            let sending = Sending {
                key: key.clone(),
                client: Some(caller.session.clone()),
                declared: caller.declared(facts.isolation),
                place: Some(place),
                queue_wait: self.options.queue_wait,
                lifetime: facts.limits.total,
            };
            link.begin(write, sending).await
        });
        tokio::select! {
            // A request that was taken back while it waited for its turn is never sent.
            biased;
            () = cancel.cancelled() => Err(CallError::Cancelled),
            begun = begin => begun,
        }
    }

    /// The connection, waited for while there is hope, by who has waited since `began`.
    pub(super) async fn link(
        &self,
        facts: &Facts,
        began: Instant,
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
                Outlook::Resting(absence) => {
                    self.want();
                    Some(absence)
                }
                Outlook::Coming(absence) => Some(absence),
                Outlook::Up => None,
            };
            let patience = match &absence {
                Some(absence) if absence.is_waking() => self.options.wake_wait,
                Some(_) | None => self.options.ready_wait,
            };
            let deadline = began + patience;
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

    async fn place(&self, concern: Option<&Concern>, facts: &Facts) -> Result<Place, CallError> {
        let places = match concern {
            Some(Concern::Awaits(_)) => &self.waits,
            Some(_) | None => &self.places,
        };
        places.take(self.options.queue_wait).await.map_err(|refused| {
            let limit = match concern {
                Some(Concern::Awaits(_)) => "calls.tasks.results_max",
                Some(_) | None => refused.limit(),
            };
            metrics::counter!("metamcpd_limit_hit_total", "limit" => limit).increment(1);
            CallError::Busy { server: facts.name.clone() }
        })
    }
}

/// The client's request with our id, the upstream's own names, and our token.
pub(super) fn outgoing(frame: &Frame, id: u64, edits: &[(Span, Bytes)]) -> Bytes {
    let id = id.to_string();
    // Our id is unique on the connection, so it serves as the token too.
    let ours = [frame.id_span(), frame.meta_token_span()].into_iter().flatten();
    let ours = ours.map(|span| (span, id.as_bytes()));
    let edits = edits.iter().map(|(span, bytes)| (*span, &**bytes));
    let mut edits: Vec<_> = ours.chain(edits).collect();
    frame.splice(&mut edits)
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
