//! Builds everything in order, runs it, and drains it in the reverse of that order.
//!
//! The only place that knows every room. It decides nothing: what is wanted comes from the
//! settings and the rows, and each room is given its own part.

mod drain;
mod edge;
mod leftovers;
mod remembrance;
#[cfg(test)]
mod simulation;
mod unbuilt;

use std::{any::Any, io, net::SocketAddr, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use actix::Actor;
use actix_web::{App, HttpServer, dev::ServerHandle, middleware::from_fn, web::Data};
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use metrics_exporter_prometheus::PrometheusHandle;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, AdminState},
    conductor::{Conductor, Defaults, Logbook, Parts, Witness},
    data_dir::DataDir,
    egress::{Egress, EgressError},
    endpoint::{
        self, EndpointState,
        edge::Edge,
        paging::{self, Paging},
    },
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
    store::{Journal, KeyKind, Record, Store, StoreError},
    telemetry::TelemetryError,
    upstream::{
        actor::{Launch, Post},
        worker::{
            self, Assignment, Workshop,
            lifeline::{Lifeline, become_subreaper, sweep},
        },
    },
};

/// How often sessions whose time is over are looked for.
const SESSION_SWEEP_EVERY: Duration = Duration::from_secs(5);

/// How often stray processes, left by a guard that was killed, are looked for.
const STRAYS_EVERY: Duration = Duration::from_secs(1);

/// How often what was recorded for the metrics is put together, so that it does not pile up.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);

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
}

impl Gateway {
    /// Opens what is remembered, makes it run, and listens. Needs an actix system.
    pub async fn build(plan: Plan) -> Result<(Self, Started), StartError> {
        let Plan { settings, data_dir, admin_key, imported, prometheus } = plan;
        let began = OffsetDateTime::now_utc();
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
        let listener = std::net::TcpListener::bind(settings.server.bind)
            .map_err(|source| StartError::Bind { address: settings.server.bind, source })?;
        let socket = operator::socket::bind(data_dir.path()).map_err(StartError::Socket)?;

        let tokens = Tokens::default();
        let has_admin_key = admin_key.is_some();
        let journal = Journal::start(store.clone(), settings.journal.clone());
        let logbook = logbook(&settings, &store, &journal).await?;
        logbook.gateway(format!("metamcpd {} has started", env!("CARGO_PKG_VERSION")));
        let sealer = vault.sealer(session::PURPOSE)?;
        let task_ids = TaskIds::new(vault.sealer(session::TASKS_PURPOSE)?);
        let ended = remembrance::ended_sessions(&store, &settings.sessions).await?;
        let kept = Kept { store, journal, logbook, sealer, ended, task_ids };
        let (conductor, fleet) = rooms(&settings, &data_dir, kept, admin_key, began)?;
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
        actix::spawn(conductor.clone().keep_up());

        let paging = Paging::new(vault.sealer(paging::PURPOSE)?, settings.lists.page_size);
        let (server, url) = listen(listener, &settings, &conductor, paging, prometheus, &tokens)?;
        actix::spawn(operator::socket::serve(socket, conductor.clone(), url.clone()));
        let mut endpoints: Vec<String> = conductor.endpoints.load().keys().cloned().collect();
        endpoints.sort_unstable();
        let started = Started { url, endpoints, api_key, admin_key: made_admin_key, imports };
        let gateway = Self {
            conductor,
            fleet,
            server,
            tokens,
            drain_grace: settings.server.drain_grace,
            _data_dir: data_dir,
        };
        Ok((gateway, started))
    }
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
    actix::spawn(logbook.clone().keep_up());
    Ok(logbook)
}

/// The rooms between the store and the doors.
fn rooms(
    settings: &Settings,
    data_dir: &DataDir,
    kept: Kept,
    admin_key: Option<KeyText>,
    began: OffsetDateTime,
) -> Result<(Arc<Conductor>, actix::Addr<Fleet>), StartError> {
    let Kept { store, journal, logbook, sealer, ended, task_ids } = kept;
    let witness = Witness::new(journal.clone(), settings.events.buffer, logbook);
    let roster = Roster::default();
    let (exe, instance) = (PathBuf::from("/proc/self/exe"), data_dir.instance.clone());
    let lifeline =
        Lifeline::new(exe, instance, settings.upstream.spawns).treating(settings.upstream.children);
    let strays = lifeline.orphan_reaper();
    actix::spawn(async move {
        loop {
            tokio::time::sleep(STRAYS_EVERY).await;
            strays.reap_strays().await;
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
        patience: patience.clone(),
        own_exe: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("metamcpd")),
    });
    let launch: Launch = Rc::new(move |post: Post| {
        let Post { board, generation, tell, stop } = post;
        let workshop = workshop.clone();
        worker::work(Assignment { board, generation, workshop, tell, stop, own: None })
            .boxed_local()
    });
    let fleet = Fleet::new(
        patience.clone(),
        settings.calls.clone(),
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
    actix::spawn(remembrance::forget_old(store.clone(), sessions.clone()));
    let swept = sessions.clone();
    actix::spawn(async move {
        loop {
            tokio::time::sleep(SESSION_SWEEP_EVERY).await;
            swept.sweep(tokio::time::Instant::now());
        }
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
    Ok((conductor, fleet))
}

/// Serves the port, and answers what the URLs that we publish begin with.
fn listen(
    listener: std::net::TcpListener,
    settings: &Settings,
    conductor: &Arc<Conductor>,
    paging: Paging,
    prometheus: PrometheusHandle,
    tokens: &Tokens,
) -> Result<(ServerHandle, String), StartError> {
    let server = &settings.server;
    let failed = |source| StartError::Bind { address: server.bind, source };
    let address = listener.local_addr().map_err(failed)?;
    let url = match server.public_url.is_empty() {
        true => format!("http://{address}"),
        false => server.public_url.clone(),
    };
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "listening beyond this host: everyone who reaches it can try keys");
    }
    let path_prefix = url::Url::parse(&url).map(|url| url.path().trim_end_matches('/').to_owned());
    let edge =
        Edge::new(address.ip(), &server.public_url, &server.allowed_hosts, &server.allowed_origins);
    let endpoints = Data::new(EndpointState {
        conductor: conductor.clone(),
        frames: settings.wire,
        body_max: server.body_max,
        body_timeout: server.body_timeout,
        debounce: settings.lists.debounce,
        paging,
        path_prefix: path_prefix.unwrap_or_default(),
        draining: tokens.draining.clone(),
        ending: tokens.ending.clone(),
    });
    let admin = Data::new(AdminState {
        conductor: conductor.clone(),
        prometheus,
        metrics_open: settings.metrics.open,
        public_url: url.clone(),
        heartbeat: settings.sessions.heartbeat,
        refresh_wait: settings.lists.refresh_wait,
        stopping: tokens.draining.clone(),
    });
    let upkeep = admin.prometheus.clone();
    actix::spawn(async move {
        loop {
            tokio::time::sleep(METRICS_UPKEEP_EVERY).await;
            upkeep.run_upkeep();
        }
    });
    let edge = Arc::new(edge);
    let http = HttpServer::new(move || {
        let edge = edge.clone();
        App::new()
            .app_data(endpoints.clone())
            .configure(endpoint::configure)
            .configure(unbuilt::configure)
            .configure(|config| admin::configure(config, admin.clone()))
            .wrap(from_fn(move |request, next| edge::judge(edge.clone(), request, next)))
    });
    let http = match server.workers {
        0 => http,
        workers => http.workers(workers),
    };
    let write_timeout = u32::try_from(server.write_timeout.as_millis()).unwrap_or(u32::MAX);
    let running = http
        .on_connect(move |connection, _| limit_writes(connection, write_timeout))
        // A client that closes its side has left; what it held is free at once, not a heartbeat later.
        .h1_allow_half_closed(false)
        .disable_signals()
        .max_connections(server.connections_max)
        // By then everything has been answered or ended; this is for the last bytes to go out.
        .shutdown_timeout(2)
        .listen(listener)
        .map_err(failed)?
        .run();
    let handle = running.handle();
    actix::spawn(async move {
        if let Err(error) = running.await {
            tracing::error!(%error, "the HTTP server has failed");
        }
    });
    Ok((handle, url))
}

/// Has the kernel cut a connection whose client takes nothing for so long: the server itself waits
/// for a slow reader without limit, and hears of it only by the connection's end.
fn limit_writes(connection: &dyn Any, milliseconds: u32) {
    let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() else { return };
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, milliseconds) {
        tracing::debug!(%error, "a connection is served without a limit for slow readers");
    }
}
