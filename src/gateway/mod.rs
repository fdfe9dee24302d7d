//! Builds everything in order, runs it, and drains it in the reverse of that order.
//!
//! The only place that knows every room. It decides nothing: what is wanted comes from the
//! settings and the rows, and each room is given its own part.

mod bodies;
mod connection;
mod containing;
mod door;
mod drain;
mod edge;
mod files;
mod leftovers;
mod overload;
mod remembrance;
mod serving;
#[cfg(test)]
mod simulation;
mod tending;
mod turn;
mod unbuilt;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::Actor;
use actix_web::dev::ServerHandle;
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use metrics_exporter_prometheus::PrometheusHandle;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    conductor::{Conductor, Defaults, Logbook, Parts, Safekeeping, Witness},
    data_dir::DataDir,
    egress::{Egress, EgressError},
    endpoint::paging::{self, Paging},
    failpoint,
    fleet::{Fleet, Roster},
    identity::{
        keys::KeyText,
        sealer::Sealer,
        vault::{Vault, VaultError},
    },
    import::Imported,
    namespace::NamespaceOptions,
    operator::{self, Imports, KeyError, Wanted},
    session::{self, Mark, Session, Sessions, TaskIds, Via},
    settings::Settings,
    store::{Journal, KeyKind, Record, Spill, Store, StoreError},
    telemetry::TelemetryError,
    upstream::{
        actor::{Launch, Post},
        port::CallOptions,
        worker::{
            self, Assignment, Workshop,
            lifeline::{Lifeline, OrphanReaper, become_subreaper, sweep},
        },
    },
};

/// How often sessions whose time is over are looked for.
const SESSION_SWEEP_EVERY: Duration = Duration::from_secs(5);

/// How long a start waits until what an earlier run has left unwritten is written.
const LEFT_UNWRITTEN_WAIT: Duration = Duration::from_secs(30);

/// How often stray processes, left by a guard that was killed, are looked for.
const STRAYS_EVERY: Duration = Duration::from_secs(1);

use files::Files;
use serving::{Served, bind, listen, public_url};
use tending::tend;

/// What a gateway is built from.
pub struct Plan {
    pub settings: Settings,
    pub data_dir: DataDir,
    pub admin_key: Option<KeyText>,
    pub imported: Option<Imported>,
    pub prometheus: PrometheusHandle,
}

/// Why a gateway could not be built.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("outbound connections cannot be made ready")]
    Egress(#[from] EgressError),
    #[error("the address {address} cannot be listened on (`server.bind`)")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("the file of what waits for the database cannot be opened (`journal.spill`)")]
    Spill(#[source] io::Error),
    #[error("the operator's socket cannot be opened")]
    Socket(#[source] io::Error),
    #[error("the operating system does not let us look after our children")]
    Subreaper(#[source] io::Error),
}

/// What there is to tell about a start. Keys are in it only when this start has made them.
pub struct Started {
    /// What the URLs that we publish begin with.
    pub url: String,
    /// By name.
    pub endpoints: Vec<String>,
    pub api_key: Option<KeyText>,
    pub admin_key: Option<KeyText>,
    pub imports: Imports,
}

/// A gateway that is listening.
pub struct Gateway {
    conductor: Arc<Conductor>,
    fleet: actix::Addr<Fleet>,
    /// What ends whatever the fleet has left.
    strays: Rc<OrphanReaper>,
    server: ServerHandle,
    tokens: Tokens,
    drain_grace: Duration,
    /// Given back last, when nothing of ours uses the directory any more.
    _data_dir: DataDir,
}

/// How the parts of a gateway are told that it stops.
#[derive(Clone, Default)]
struct Tokens {
    /// Nothing new begins.
    draining: CancellationToken,
    /// What is still under way ends now.
    ending: CancellationToken,
    /// The port is served no more, though nobody asked for that.
    deserted: CancellationToken,
}

impl Gateway {
    /// Opens what is remembered, makes it run, and listens. Needs an actix system.
    pub async fn build(plan: Plan) -> Result<(Self, Started), StartError> {
        let Plan { settings, data_dir, admin_key, imported, prometheus } = plan;
        let began = OffsetDateTime::now_utc();
        let files = Files::take_all();
        become_subreaper().map_err(StartError::Subreaper)?;
        if !settings.server.core_dumps
            && let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable)
        {
            tracing::warn!(%error, "other processes of this user can read the daemon's memory");
        }
        let swept = sweep(&data_dir.instance);
        if swept > 0 {
            tracing::warn!(swept, "processes of an earlier run were still there and were killed");
        }

        let vault = Vault::open(data_dir.path())?;
        let store = Store::open(&settings.database, data_dir.path(), vault.clone()).await?;
        let (imports, wants_key) = match imported {
            Some(imported) => {
                let namespace = Some(operator::DEFAULT.to_owned());
                let wanted = Wanted { namespace, dry_run: false };
                (operator::apply(&store, imported, &wanted).await?, true)
            }
            None => (Imports::default(), false),
        };
        let listener = bind(&settings)?;
        let socket = operator::socket::bind(data_dir.path()).map_err(StartError::Socket)?;

        let tokens = Tokens::default();
        let has_admin_key = admin_key.is_some();
        let journal = journal(&settings, &store, data_dir.path()).await?;
        let logbook = logbook(&settings, &store, &journal).await?;
        logbook.gateway(format!("metamcpd {} has started", env!("CARGO_PKG_VERSION")));
        let sealer = vault.sealer(session::PURPOSE)?;
        let task_ids = TaskIds::new(vault.sealer(session::TASKS_PURPOSE)?);
        let ended = remembrance::ended_sessions(&store, &settings.sessions).await?;
        let admin_url = public_url(&listener, &settings)?.into();
        let kept = Kept { store, journal, logbook, sealer, ended, task_ids, admin_url };
        let Rooms { conductor, fleet, strays } =
            rooms(&settings, &data_dir, &files, kept, admin_key, began)?;
        // Only now that little can go wrong: a key is shown once, by the start that made it.
        let store = &conductor.store;
        let api_key = match wants_key {
            true => first_key(store, operator::DEFAULT, KeyKind::Client).await?,
            false => None,
        };
        let made_admin_key = match has_admin_key {
            true => None,
            false => first_key(store, "admin", KeyKind::Admin).await?,
        };
        leftovers::end_containers(&conductor.store, &data_dir.instance).await?;
        conductor.reconcile().await?;
        let kept_up = conductor.clone();
        tend("configuration", move || kept_up.clone().keep_up());

        let paging = Paging::new(vault.sealer(paging::PURPOSE)?, settings.lists.page_size);
        let served = Served {
            conductor: conductor.clone(),
            prometheus,
            paging,
            tokens: tokens.clone(),
            files_max: files.max,
        };
        let (server, url) = listen(listener, &settings, served)?;
        serve_operator(socket, conductor.clone(), url.clone());
        let mut endpoints: Vec<String> = conductor.endpoints.load().keys().cloned().collect();
        endpoints.sort_unstable();
        let started = Started { url, endpoints, api_key, admin_key: made_admin_key, imports };
        let gateway = Self {
            conductor,
            fleet,
            strays,
            server,
            tokens,
            drain_grace: settings.server.drain_grace,
            _data_dir: data_dir,
        };
        Ok((gateway, started))
    }
}

/// The operator's own door.
fn serve_operator(socket: tokio::net::UnixListener, conductor: Arc<Conductor>, url: String) {
    let socket = Rc::new(socket);
    tend("operator", move || {
        operator::socket::serve(socket.clone(), conductor.clone(), url.clone())
    });
}

/// A key, if there is none of its kind yet.
async fn first_key(
    store: &Store,
    name: &str,
    kind: KeyKind,
) -> Result<Option<KeyText>, StartError> {
    match operator::has_key(store, kind).await? {
        true => Ok(None),
        false => Ok(Some(operator::make_key(store, name, kind).await?)),
    }
}

/// What outlives the rooms.
struct Kept {
    store: Store,
    journal: Journal,
    logbook: Arc<Logbook>,
    /// What the ids of sessions are sealed with, and those that must not be revived.
    sealer: Sealer,
    ended: Vec<Mark>,
    task_ids: TaskIds,
    /// What the URLs of the admin API begin with.
    admin_url: Arc<str>,
}

/// The journal. What an earlier run has left unwritten is written before anything of it is read.
async fn journal(
    settings: &Settings,
    store: &Store,
    data_dir: &Path,
) -> Result<Journal, StartError> {
    let options = settings.journal.clone();
    let spill = match options.spill_max {
        0 => None,
        max => Some(Spill::open(data_dir, max).map_err(StartError::Spill)?),
    };
    let journal = Journal::start(store.clone(), options, spill);
    if !journal.flush(LEFT_UNWRITTEN_WAIT).await {
        tracing::warn!("what an earlier run has left unwritten is written later");
    }
    Ok(journal)
}

/// The log, with what earlier runs have left of it.
async fn logbook(
    settings: &Settings,
    store: &Store,
    journal: &Journal,
) -> Result<Arc<Logbook>, StartError> {
    let options = settings.logs.clone();
    let kept = match options.persist {
        true => store.kept_logs(options.entries_max).await?,
        // What was kept before this was set is to be gone, too.
        false => store.kept_logs(0).await?,
    };
    let logbook = Logbook::new(options, journal.clone(), kept);
    let kept_up = logbook.clone();
    tend("log", move || kept_up.clone().keep_up());
    Ok(logbook)
}

/// The rooms between the store and the doors.
struct Rooms {
    conductor: Arc<Conductor>,
    fleet: actix::Addr<Fleet>,
    strays: Rc<OrphanReaper>,
}

fn rooms(
    settings: &Settings,
    data_dir: &DataDir,
    files: &Files,
    kept: Kept,
    admin_key: Option<KeyText>,
    began: OffsetDateTime,
) -> Result<Rooms, StartError> {
    let Kept { store, journal, logbook, sealer, ended, task_ids, admin_url } = kept;
    let witness = Witness::new(journal.clone(), settings.events.buffer, logbook);
    let roster = Roster::default();
    let (exe, instance) = (PathBuf::from("/proc/self/exe"), data_dir.instance.clone());
    let lifeline = Lifeline::new(exe, instance, settings.upstream.spawns)
        .treating(settings.upstream.children)
        .with_files(files.before);
    let strays = Rc::new(lifeline.orphan_reaper());
    let looked_for = strays.clone();
    tend("strays", move || {
        let strays = looked_for.clone();
        async move {
            loop {
                tokio::time::sleep(STRAYS_EVERY).await;
                failpoint::pass("strays");
                strays.reap_strays().await;
            }
        }
    });
    let patience = Arc::new(ArcSwap::from_pointee(settings.supervision.clone()));
    let workshop = Arc::new(Workshop {
        lifeline,
        egress: Egress::new(&settings.egress)?,
        options: settings.upstream.clone(),
        lists: settings.lists.clone(),
        frames: settings.wire,
        queue_max: settings.calls.queue_max,
        dialogue: settings.calls.dialogue(),
        clients: witness.clone(),
        data_dir: data_dir.path().to_owned(),
        oauth: settings.oauth.clone(),
        tokens: Arc::new(Safekeeping::new(
            store.clone(),
            journal.clone(),
            settings.oauth.persist_wait,
        )),
        patience: patience.clone(),
        own_exe: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("metamcpd")),
    });
    let launch: Launch = Rc::new(move |post: Post| {
        let Post { board, generation, tell, stop } = post;
        let workshop = workshop.clone();
        let own = None;
        let work = worker::work(Assignment { board, generation, workshop, tell, stop, own });
        async move {
            failpoint::pass("worker");
            work.await
        }
        .boxed_local()
    });
    let fleet = Fleet::new(
        patience.clone(),
        CallOptions { admin_url, ..settings.calls.clone() },
        launch,
        witness.clone(),
        roster.clone(),
    )
    .start();

    let boards = roster.clone();
    let told = journal.clone();
    let on_end = Box::new(move |session: &Session| {
        for board in boards.load().values() {
            board.port.forget(&session.id);
        }
        // One over SSE is never revived, so nothing has to prevent it.
        if session.via == Via::StreamableHttp {
            told.record(Record::SessionEnded(remembrance::remembered(session.mark)));
        }
    });
    let sessions = Arc::new(Sessions::new(settings.sessions.clone(), sealer, ended, on_end));
    let (remembering, remembered) = (store.clone(), sessions.clone());
    tend("tombstones", move || remembrance::forget_old(remembering.clone(), remembered.clone()));
    let swept = sessions.clone();
    tend("sessions", move || {
        let swept = swept.clone();
        async move {
            loop {
                tokio::time::sleep(SESSION_SWEEP_EVERY).await;
                failpoint::pass("sessions");
                swept.sweep(tokio::time::Instant::now());
            }
        }
    });

    let (counted, max) = (sessions.clone(), settings.server.memory_soft_max);
    tend("memory", move || {
        let counted = counted.clone();
        async move { overload::watch(&counted, max).await }
    });

    let conductor = Conductor::new(Parts {
        store,
        journal,
        roster,
        fleet: fleet.clone(),
        patience,
        sessions,
        task_ids,
        witness: witness.clone(),
        settings_key: admin_key,
        defaults: Defaults {
            connect_timeout: settings.upstream.connect_timeout,
            prefetch_timeout: settings.upstream.prefetch_timeout,
            patience: settings.supervision.clone(),
            values: settings.runtime(),
        },
        began,
        namespace_options: NamespaceOptions {
            names_max: settings.names.max,
            first_wait: settings.lists.first_wait,
            debounce: settings.lists.debounce,
            unknown_rest: settings.lists.unknown_rest,
            instructions_max: settings.lists.instructions_max,
            links_max: settings.lists.links_max,
            schema_max: settings.lists.schema_max,
        },
    });
    witness.meet(&conductor);
    Ok(Rooms { conductor, fleet, strays })
}
