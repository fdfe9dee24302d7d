//! What everyone may read of an upstream at any time: what it is to be, how it runs, what it offers.
//!
//! It lives as long as the row does, so it outlives its actor, should that panic.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use time::OffsetDateTime;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use uuid::Uuid;

use super::{
    Listener, Reason, UpstreamSpec,
    brakes::Brakes,
    lifecycle::Lifecycle,
    nesting::Nested,
    oauth::{Grant, credential::Credential},
    port::{CallOptions, Facts, Port},
    refresh::Refresh,
    status::{ErrorStatus, ListingReport, Output, Runtime, StateWord},
    tail::StderrTail,
};
use crate::catalogue::{
    item::Item,
    kind::{Kind, PerKind},
};

/// The shared face of one upstream.
pub struct Board {
    pub id: Uuid,
    pub port: Arc<Port>,
    spec: ArcSwap<UpstreamSpec>,
    runtime: ArcSwap<Runtime>,
    /// Whether a worker has it, from its start to its very end.
    working: watch::Sender<bool>,
    lists: PerKind<ArcSwapOption<Vec<Item>>>,
    /// What it said of its use.
    instructions: ArcSwapOption<String>,
    /// Whether a first list need wait for it no more: its own is known, or it has failed.
    settled: PerKind<watch::Sender<bool>>,
    /// When its first start began; a first list's wait is counted from then.
    pub born: Instant,
    pub stderr: StderrTail,
    listener: Arc<dyn Listener>,
    /// The tokens of its OAuth session as they stand now, which outlive its connections.
    credential: ArcSwapOption<Credential>,
    pub refresh: PerKind<Refresh>,
    pub nested: Nested,
    /// Whether what it is started by is certainly there: it was ready before, or had its time to be fetched.
    is_fetched: AtomicBool,
    /// Held by whoever has a process of this upstream; the next one starts when it is given back.
    pub lease: Arc<Semaphore>,
    /// What its supervisor knew when it took its last step.
    supervised: Mutex<Option<Supervised>>,
    /// Whether an operator has ordered a restart that was not begun yet.
    is_restart_asked: AtomicBool,
}

/// What is to outlive a supervisor that panics, so that one which does so again and again is given up like
/// any upstream that fails.
#[derive(Clone, Debug)]
pub(super) struct Supervised {
    pub lifecycle: Lifecycle,
    /// What the clock of the lifecycle counts from.
    pub epoch: Instant,
    /// How many workers there were.
    pub generation: u64,
}

/// What is remembered of an upstream from earlier runs.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The last good list of each kind that was ever listed.
    pub lists: PerKind<Option<Arc<Vec<Item>>>>,
    /// What it said of its use.
    pub instructions: Option<String>,
}

impl Board {
    pub fn new(
        spec: UpstreamSpec,
        remembered: Remembered,
        calls: CallOptions,
        brakes: &Brakes,
        listener: Arc<dyn Listener>,
    ) -> Self {
        let Remembered { mut lists, instructions } = remembered;
        let facts = Facts::from(&spec);
        let runtime = Runtime {
            state: if spec.enabled { StateWord::Stopped } else { StateWord::Disabled },
            reason: if spec.enabled { Reason::Started } else { Reason::Disabled },
            since: OffsetDateTime::now_utc(),
            last_error: None,
            last_exit: None,
            restarts: 0,
            next_attempt_at: None,
            degraded: Vec::new(),
            pid: None,
            protocol_version: None,
            listings: PerKind::of(|kind| ListingReport::of(lists[kind].as_deref())),
            listed_at: None,
            stderr_tail: Vec::new(),
            session_processes: Vec::new(),
            error_status: ErrorStatus::None,
            failed_by: None,
        };
        let settled = PerKind::of(|kind| watch::channel(lists[kind].is_some() || !spec.enabled).0);
        Self {
            id: spec.id,
            port: Port::new(spec.id, facts, calls, brakes),
            stderr: StderrTail::new(&spec),
            credential: ArcSwapOption::new(spec.grant().cloned().map(Credential::new)),
            listener,
            refresh: PerKind::default(),
            nested: Nested::default(),
            spec: ArcSwap::from_pointee(spec),
            runtime: ArcSwap::from_pointee(runtime),
            working: watch::channel(false).0,
            lists: PerKind::of(|kind| ArcSwapOption::new(lists[kind].take())),
            instructions: ArcSwapOption::new(instructions.map(Arc::new)),
            settled,
            born: Instant::now(),
            is_fetched: AtomicBool::new(false),
            lease: Arc::new(Semaphore::new(1)),
            supervised: Mutex::default(),
            is_restart_asked: AtomicBool::new(false),
        }
    }

    pub fn spec(&self) -> Arc<UpstreamSpec> {
        self.spec.load_full()
    }

    pub fn set_spec(&self, spec: UpstreamSpec) {
        self.port.set_facts(Facts::from(&spec));
        self.stderr.hide(&spec);
        self.set_grant(spec.grant());
        if self.spec.load().transport != spec.transport {
            self.set_is_fetched(false);
        }
        self.spec.store(Arc::new(spec));
    }

    /// One that is known stays as it stands: what was renewed since the row was read is not in that.
    fn set_grant(&self, grant: Option<&Arc<Grant>>) {
        let known = self.credential();
        if known.as_ref().map(|known| known.grant.id) != grant.map(|grant| grant.id) {
            self.credential.store(grant.cloned().map(Credential::new));
            if let Some(known) = known {
                known.retire();
            }
        }
    }

    /// The tokens of its OAuth session, if there is one.
    pub fn credential(&self) -> Option<Arc<Credential>> {
        self.credential.load_full()
    }

    pub fn runtime(&self) -> Runtime {
        let mut runtime = Runtime::clone(&self.runtime.load());
        runtime.stderr_tail = self.stderr.lines();
        runtime.degraded = self.port.degradations();
        runtime.session_processes = self.port.processes.report();
        runtime
    }

    pub fn set_runtime(&self, runtime: Runtime) {
        self.runtime.store(Arc::new(runtime));
    }

    /// How long its next start, and its handshake, may each take.
    pub fn start_patience(&self) -> Duration {
        let spec = self.spec.load();
        let prefetch = spec.upkeep.prefetch.filter(|_| self.may_have_to_be_fetched());
        prefetch.unwrap_or_default().max(spec.connect_timeout)
    }

    /// Whether its next start may have to fetch a program first.
    pub fn may_have_to_be_fetched(&self) -> bool {
        let prefetches = self.spec.load().upkeep.prefetch.is_some();
        prefetches && !self.is_fetched.load(Ordering::Relaxed)
    }

    pub fn set_is_fetched(&self, is_fetched: bool) {
        self.is_fetched.store(is_fetched, Ordering::Relaxed);
    }

    /// Whether it rests until somebody needs it.
    pub fn is_resting(&self) -> bool {
        let runtime = self.runtime.load();
        (runtime.state, runtime.reason) == (StateWord::Stopped, Reason::Idle)
    }

    pub fn is_ready(&self) -> bool {
        self.runtime.load().state == StateWord::Ready
    }

    /// Its process has written a line that is no message of the protocol. Floods come this way, so what
    /// is secret in a line is looked for when somebody is to read it.
    pub fn wrote(&self, output: Output, line: &str) {
        self.stderr.push(output, line);
        let readable = || self.stderr.readable(output, line);
        self.listener.wrote(self.id, &self.spec.load().name, output, &readable);
    }

    /// The last good list of one kind.
    pub fn list(&self, kind: Kind) -> Option<Arc<Vec<Item>>> {
        self.lists[kind].load_full()
    }

    pub fn set_list(&self, kind: Kind, items: Arc<Vec<Item>>) {
        self.lists[kind].store(Some(items));
        self.settle(kind);
    }

    /// What it said of its use, when it was last spoken to.
    pub fn instructions(&self) -> Option<Arc<String>> {
        self.instructions.load_full()
    }

    pub fn set_instructions(&self, instructions: Option<Arc<String>>) {
        self.instructions.store(instructions);
    }

    /// Whether it has resources, as far as is known: it says so, or was seen to list some.
    pub fn has_resources(&self) -> bool {
        let lists_some = |kind| self.list(kind).is_some_and(|items| !items.is_empty());
        let says_so = || self.is_ready() && self.refresh[Kind::Resource].is_offered();
        lists_some(Kind::Resource) || lists_some(Kind::Template) || says_so()
    }

    pub fn set_working(&self, working: bool) {
        self.working.send_replace(working);
    }

    /// Waits until no worker has it, nor any client a process of it.
    pub async fn at_rest(&self) {
        let mut working = self.working.subscribe();
        drop(working.wait_for(|working| !working).await);
        self.port.processes.at_rest().await;
    }

    pub(super) fn set_supervised(&self, supervised: Supervised) {
        *self.supervised.lock().unwrap_or_else(PoisonError::into_inner) = Some(supervised);
    }

    pub(super) fn supervised(&self) -> Option<Supervised> {
        self.supervised.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that an operator wants it started anew. It outlives the supervisor that is to do it.
    pub fn ask_restart(&self) {
        self.is_restart_asked.store(true, Ordering::SeqCst);
    }

    /// Whether that is wanted, and is nobody else's to do.
    pub(super) fn take_restart(&self) -> bool {
        self.is_restart_asked.swap(false, Ordering::SeqCst)
    }

    /// A process that a client has to itself has failed. The upstream goes on.
    pub fn lost_process(&self, reason: Reason, what: &str) {
        let what = self.stderr.hidden(what);
        self.listener.lost_process(self.id, &self.spec.load().name, reason, &what);
    }

    /// No first list of this kind waits for it any more.
    pub fn settle(&self, kind: Kind) {
        self.settled[kind].send_replace(true);
    }

    /// No first list waits for it any more, whatever it is of.
    pub fn settle_all(&self) {
        Kind::ALL.into_iter().for_each(|kind| self.settle(kind));
    }

    pub fn is_settled(&self, kind: Kind) -> bool {
        *self.settled[kind].borrow()
    }

    /// Waits until a first list of this kind need wait no more.
    pub async fn settled(&self, kind: Kind) {
        let mut settled = self.settled[kind].subscribe();
        // The sender lives in this very board, so the wait ends only by being settled.
        drop(settled.wait_for(|settled| *settled).await);
    }
}

impl From<&UpstreamSpec> for Facts {
    fn from(spec: &UpstreamSpec) -> Self {
        Self {
            name: Arc::from(&*spec.name),
            isolation: spec.isolation,
            limits: spec.limits,
            concurrency_max: spec.upkeep.concurrency_max,
            admin: Arc::default(),
        }
    }
}
