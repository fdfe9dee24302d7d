//! Makes what the rows say into what runs: after a start, after every change, and again until it
//! has worked.
//!
//! It reads everything at once and tells each room what it is to be; each of them touches only what
//! has changed. Nothing else carries configuration from the database into the running daemon.

mod graves;
mod logbook;
mod profiles;
pub mod relay;
pub mod runtime;
mod safekeeping;
pub mod snapshot;
mod witness;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;
use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use logbook::{Logbook, Watch};
pub use runtime::RuntimeSettings;
pub use safekeeping::Safekeeping;
pub use snapshot::{Defaults, EndpointEntry};
pub use witness::Witness;

use graves::Graves;
use runtime::Values;

use crate::{
    catalogue::profiles::Choice,
    failpoint,
    fleet::{Fleet, Reconcile, RestartOne, Roster},
    identity::keys::{KeyRing, KeyText},
    namespace::{self, Namespace, NamespaceHandle, NamespaceOptions, UpstreamChanged},
    session::{Session, Sessions, TaskIds},
    store::{ConfigValue, Journal, Running, Server, Store, StoreError},
    upstream::{actor::SharedPatience, board::Board, question::Question},
};

/// How long until the rows are read again when that has failed.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How long the database may take to give all rows, before that counts as a failure. One that was stopped
/// would else hold up every later reading too.
const READ_PATIENCE: Duration = Duration::from_secs(15);

/// How long the database has to answer whether it is there.
const PING_PATIENCE: Duration = Duration::from_secs(3);

/// How long whoever ends a session waits for it to be written down.
const TOMBSTONE_PATIENCE: Duration = Duration::from_secs(1);

/// The endpoints by name. A change publishes a new map.
pub type Directory = ArcSwap<HashMap<String, Arc<EndpointEntry>>>;

/// What the rooms above share.
pub struct Conductor {
    /// Made anew at each start, so that the daemon can be recognised from outside.
    pub run: Uuid,
    pub store: Store,
    pub journal: Journal,
    pub roster: Roster,
    pub endpoints: Directory,
    pub keys: ArcSwap<KeyRing>,
    /// The servers as they were last read, oldest first, for those who watch them while the database
    /// is away.
    pub servers: ArcSwap<Vec<Server>>,
    pub sessions: Arc<Sessions>,
    /// What clients know tasks by.
    pub task_ids: TaskIds,
    /// What the settings and the table `config` come to, as they were last read.
    pub runtime: ArcSwap<RuntimeSettings>,
    pub witness: Arc<Witness>,
    /// Whether the rows have been read since the start.
    pub is_ready: AtomicBool,
    fleet: Addr<Fleet>,
    patience: SharedPatience,
    settings_key: Option<KeyText>,
    defaults: Defaults,
    began: OffsetDateTime,
    namespace_options: NamespaceOptions,
    namespaces: Arc<Mutex<HashMap<Uuid, NamespaceHandle>>>,
    graves: Graves,
    /// Held while the rows are read and handed on, so that an older reading never wins.
    turn: tokio::sync::Mutex<()>,
    /// How often the rows came to say what is not known here, and how many of these times they were read
    /// since.
    debts: AtomicU64,
    debts_paid: AtomicU64,
    /// Whether the database did not answer when it was last asked.
    is_database_away: AtomicBool,
    /// Where namespaces live: the one that runs as long as the daemon does.
    arbiter: ArbiterHandle,
}

/// That the rows are to be read.
pub struct Owed<'a> {
    conductor: Option<&'a Conductor>,
}

impl Owed<'_> {
    pub fn paid(mut self) {
        self.conductor = None;
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if let Some(conductor) = self.conductor {
            conductor.debts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a conductor is made of.
pub struct Parts {
    pub store: Store,
    pub journal: Journal,
    pub roster: Roster,
    pub fleet: Addr<Fleet>,
    /// The same that the fleet was given.
    pub patience: SharedPatience,
    pub sessions: Arc<Sessions>,
    pub task_ids: TaskIds,
    pub witness: Arc<Witness>,
    pub settings_key: Option<KeyText>,
    pub defaults: Defaults,
    /// When this run of the daemon began: what is older was there in an earlier one.
    pub began: OffsetDateTime,
    pub namespace_options: NamespaceOptions,
}

impl Conductor {
    /// To be made on the thread that is to keep the namespaces.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            store,
            journal,
            roster,
            fleet,
            patience,
            sessions,
            task_ids,
            witness,
            settings_key,
            defaults,
            began,
            namespace_options,
        } = parts;
        Arc::new(Self {
            run: Uuid::new_v4(),
            store,
            journal,
            roster,
            endpoints: ArcSwap::default(),
            keys: ArcSwap::from_pointee(KeyRing::new([])),
            servers: ArcSwap::default(),
            sessions,
            task_ids,
            runtime: ArcSwap::from_pointee(RuntimeSettings::new(defaults.values, [])),
            witness,
            is_ready: AtomicBool::new(false),
            fleet,
            patience,
            settings_key,
            defaults,
            began,
            namespace_options,
            namespaces: Arc::default(),
            graves: Graves::default(),
            turn: tokio::sync::Mutex::new(()),
            debts: AtomicU64::new(0),
            debts_paid: AtomicU64::new(0),
            is_database_away: AtomicBool::new(false),
            arbiter: Arbiter::current(),
        })
    }

    /// Reads every row and makes the daemon so. Returns when every room has been told.
    ///
    /// When the database cannot be read, what runs goes on as it was, and the reading is repeated
    /// until it works.
    pub async fn reconcile(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let owed = self.owe();
        // What is owed from here on may be for a row that this reading does not see.
        let debts = self.debts.load(Ordering::Relaxed);
        let running = self.running();
        let read = tokio::time::timeout(READ_PATIENCE, self.store.everything(&running));
        let wanted = read.await.unwrap_or_else(|elapsed| Err(StoreError::late(elapsed)))?;
        self.debts_paid.fetch_max(debts, Ordering::Relaxed);

        let mut ring = KeyRing::new(snapshot::keys(&wanted.keys));
        if let Some(key) = &self.settings_key {
            ring = ring.with_settings_key(key);
        }
        self.keys.store(Arc::new(ring));

        let values = self.apply_runtime(&wanted.config);
        let specs = wanted.servers.iter().map(|server| {
            let session = wanted.oauth_sessions.get(&server.uuid);
            self.defaults.spec(server, session.and_then(snapshot::grant), &values)
        });
        let specs = specs.collect();
        let remembered = snapshot::remembered(&wanted);
        let tried_before = snapshot::tried_before(&wanted, self.began);
        let reconcile = Reconcile { wanted: specs, remembered, tried_before };
        match self.fleet.send(reconcile).await {
            Ok(true) => {}
            Ok(false) => drop(self.owe()),
            Err(_) => {
                tracing::error!("the fleet is gone; only a restart of the daemon brings it back");
            }
        }
        self.apply_namespaces(snapshot::namespaces(&wanted)).await;
        let reshaped = self.apply_endpoints(&wanted.endpoints);
        self.tell_of_profiles(reshaped).await;
        self.servers.store(Arc::new(wanted.servers));
        self.is_ready.store(true, Ordering::Relaxed);
        owed.paid();
        Ok(())
    }

    /// Has the rows read again later, unless it is paid before it is dropped: what interrupts whoever
    /// changes a row must not leave the daemon behind it for good.
    pub fn owe(&self) -> Owed<'_> {
        Owed { conductor: Some(self) }
    }

    fn has_debts(&self) -> bool {
        self.debts.load(Ordering::Relaxed) > self.debts_paid.load(Ordering::Relaxed)
    }

    /// Whether the rows may say something that is not known here yet.
    pub fn is_behind(&self) -> bool {
        self.has_debts() || self.is_database_away.load(Ordering::Relaxed)
    }

    /// What is known better here than in the rows, which are as old as the journal is behind.
    fn running(&self) -> Running {
        let namespaces = self.handles().into_iter().filter(|handle| handle.actor.connected());
        Running {
            servers: self.roster.load().keys().copied().collect(),
            namespaces: namespaces
                .map(|NamespaceHandle { id, naming, uri_naming, .. }| {
                    (id, [naming, uri_naming].map(snapshot::stored_naming))
                })
                .collect(),
        }
    }

    /// What `reconcile` owes after a failure, paid as soon as the database is back, and namespaces
    /// that panicked made anew. Runs as long as the daemon.
    pub async fn keep_up(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RETRY_EVERY).await;
            failpoint::pass("configuration");
            let answered = tokio::time::timeout(PING_PATIENCE, self.store.ping()).await;
            let is_away = !matches!(answered, Ok(Ok(())));
            self.is_database_away.store(is_away, Ordering::Relaxed);
            let mut dead = self.handles();
            dead.retain(|handle| !handle.actor.connected());
            let dead = dead.iter().map(|handle| handle.id);
            let are_due = self.graves.are_due(dead, &self.patience.load());
            if (are_due || self.has_debts())
                && let Err(error) = self.reconcile().await
            {
                tracing::warn!(%error, "the configuration could not be read; what runs goes on");
            }
        }
    }

    /// The operator's restart of an upstream.
    pub async fn restart(&self, server: Uuid) -> bool {
        self.fleet.send(RestartOne(server)).await.unwrap_or(false)
    }

    /// Ends a session for good. Returns when that would outlive a kill, or after a while without a
    /// database.
    pub async fn end_session(&self, session: &Session) {
        self.sessions.end(session);
        if !self.journal.flush(TOMBSTONE_PATIENCE).await {
            tracing::warn!("the end of a session is not written down yet");
        }
    }

    pub fn board(&self, server: Uuid) -> Option<Arc<Board>> {
        self.roster.load().get(&server).cloned()
    }

    pub fn namespace(&self, id: Uuid) -> Option<NamespaceHandle> {
        self.lock_namespaces().get(&id).cloned()
    }

    /// The endpoints that an upstream is served by.
    fn endpoints_of(&self, server: Uuid) -> HashSet<Uuid> {
        let endpoints = self.endpoints.load();
        let serves = |entry: &&Arc<EndpointEntry>| {
            entry.namespace.published.load().boards.iter().any(|board| board.id == server)
        };
        endpoints.values().filter(serves).map(|entry| entry.id).collect()
    }

    /// Asks the client of a session what belongs to none of its calls.
    fn put(&self, session: &Arc<Session>, question: Question) {
        let patience = self.sessions.options.question_timeout;
        let asking = relay::ask(session, question, patience, CancellationToken::new());
        let Some(asking) = asking else { return };
        // Dropped where there is no way to the client, which gives the question up.
        if session.push(asking.request.clone()) {
            let outcome = relay::while_there_is_a_stream(session.clone(), asking);
            relay::see_through_later(session.clone(), [outcome]);
        }
    }

    fn handles(&self) -> Vec<NamespaceHandle> {
        self.lock_namespaces().values().cloned().collect()
    }

    fn lock_namespaces(&self) -> MutexGuard<'_, HashMap<Uuid, NamespaceHandle>> {
        lock(&self.namespaces)
    }

    /// Tells the namespaces that something about an upstream has changed.
    pub fn upstream_changed(&self, server: Uuid) {
        for handle in self.handles() {
            // Facts of our own: one for each list that changed, and none may be lost.
            handle.actor.do_send(UpstreamChanged(server));
        }
    }

    /// Publishes what holds at run time and tells those who are not told by a spec.
    fn apply_runtime(&self, rows: &BTreeMap<String, ConfigValue>) -> Values {
        let rows = rows.iter().map(|(key, row)| (&**key, &*row.value));
        let runtime = RuntimeSettings::new(self.defaults.values, rows);
        let before = self.runtime.load();
        for runtime::Ignored { key, value, reason } in &runtime.ignored {
            if before.ignored(key).is_none_or(|known| known.value != *value) {
                tracing::warn!(%key, %value, %reason, "a row of the table `config` is ignored");
            }
        }
        let values = runtime.values;
        self.patience.store(Arc::new(self.defaults.patience.with_attempts(values.max_attempts)));
        self.sessions.set_lifetime(values.session_lifetime);
        self.runtime.store(Arc::new(runtime));
        values
    }

    async fn apply_namespaces(&self, wanted: Vec<namespace::NamespaceSpec>) {
        let ids: HashSet<Uuid> = wanted.iter().map(|spec| spec.id).collect();
        for spec in wanted {
            let known = self.namespace(spec.id);
            let is_dead = known.as_ref().is_some_and(|handle| !handle.actor.connected());
            if is_dead && !self.graves.take(&spec, &self.patience.load()) {
                // Its clients are served from what it has published last; its turn will come.
                continue;
            }
            let known = known.filter(|_| !is_dead);
            let (id, naming, uri_naming) = (spec.id, spec.naming, spec.uri_naming);
            let told = match known {
                Some(handle) => {
                    let told = handle.actor.send(namespace::Reconfigure(spec)).await.is_ok();
                    self.lock_namespaces().entry(id).and_modify(|handle| {
                        handle.naming = naming;
                        handle.uri_naming = uri_naming;
                    });
                    told
                }
                None => self.start_namespace(spec).await,
            };
            if !told {
                drop(self.owe());
            }
        }
        self.lock_namespaces().retain(|id, _| ids.contains(id));
        self.graves.retain(&ids);
    }

    async fn start_namespace(&self, spec: namespace::NamespaceSpec) -> bool {
        let id = spec.id;
        let (options, roster) = (self.namespace_options.clone(), self.roster.clone());
        let keeper = self.witness.clone();
        let before = self.namespace(id);
        let (told, started) = tokio::sync::oneshot::channel();
        let namespaces = self.namespaces.clone();
        // Whichever server thread asks for it, an actor lives on the daemon's own.
        self.arbiter.spawn_fn(move || {
            let handle = Namespace::start(spec, options, roster, keeper, before.as_ref());
            // Before it publishes for the first time, or what is listed just then would be told to nobody.
            lock(&namespaces).insert(id, handle);
            // Who asked may have given up.
            told.send(()).unwrap_or(());
        });
        started.await.is_ok()
    }

    /// Publishes the endpoints, and returns those whose schema profile is another now, with the one before.
    fn apply_endpoints(
        &self,
        wanted: &[crate::store::Endpoint],
    ) -> Vec<(Choice, Arc<EndpointEntry>)> {
        let entries = wanted.iter().filter_map(|row| {
            let namespace = self.namespace(row.namespace_uuid)?;
            Some((row.name.clone(), Arc::new(EndpointEntry::new(row, namespace))))
        });
        let entries: HashMap<_, _> = entries.collect();
        let namespace_of = |entries: &HashMap<String, Arc<EndpointEntry>>| -> HashMap<Uuid, Uuid> {
            entries.values().map(|entry| (entry.id, entry.namespace.id)).collect()
        };
        let now = namespace_of(&entries);
        let entries = Arc::new(entries);
        let before = self.endpoints.swap(entries.clone());
        let profiles: HashMap<Uuid, Choice> =
            before.values().map(|entry| (entry.id, entry.schema_profile)).collect();
        let before = namespace_of(&before);
        // What a client may no longer reach, it does not keep. Nor does one that was told of
        // another namespace's tools, whose streams would go on to tell of those.
        self.sessions.end_where(|session| {
            let (now, before) = (now.get(&session.endpoint), before.get(&session.endpoint));
            let is_gone = now.is_none();
            let is_elsewhere = before.is_some() && before != now;
            is_gone || is_elsewhere || !self.may_keep(session)
        });
        let reshaped = entries.values().filter_map(|entry| {
            let before = *profiles.get(&entry.id)?;
            (before != entry.schema_profile).then(|| (before, entry.clone()))
        });
        reshaped.collect()
    }

    /// Whether the principal of a session would still be let in.
    fn may_keep(&self, session: &Session) -> bool {
        use crate::access::{Principal, Verdict, admit};
        let endpoints = self.endpoints.load();
        let Some(entry) = endpoints.values().find(|entry| entry.id == session.endpoint) else {
            return false;
        };
        let keys = self.keys.load();
        let facts = match &session.principal {
            Principal::Anonymous => None,
            Principal::Key { uuid, .. } => keys.by_uuid(*uuid).map(|record| record.facts()),
        };
        matches!(admit(&entry.facts, facts.as_ref()), Verdict::Allowed(admitted) if admitted == session.principal)
    }
}

fn lock(
    namespaces: &Mutex<HashMap<Uuid, NamespaceHandle>>,
) -> MutexGuard<'_, HashMap<Uuid, NamespaceHandle>> {
    namespaces.lock().unwrap_or_else(PoisonError::into_inner)
}
