//! The port, and everything that is served there.

use std::{net::TcpListener, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use actix_http::{HttpService, error::DispatchError};
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::{
    App, Error,
    dev::{AppConfig, Server, ServerHandle},
    middleware::from_fn,
    rt::net::TcpStream,
    web::Data,
};
use futures_util::FutureExt;
use metrics_exporter_prometheus::PrometheusHandle;

use super::{
    StartError, Tokens,
    bodies::Pace,
    connection::Connection,
    door::Door,
    edge::{self, Reception},
    files,
    tending::tend,
    unbuilt,
};
use crate::{
    admin::{self, AdminState},
    conductor::Conductor,
    endpoint::{self, EndpointState, edge::Edge, paging::Paging},
    failpoint,
    settings::Settings,
};

/// How often what was recorded for the metrics is put together, so that it does not pile up.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// How long a connection that is closed is still read, so that a client that is sending has the answer that
/// it was refused by, and not the end of its connection.
const LINGER: Duration = Duration::from_secs(1);

/// What serves the port.
pub(super) struct Served {
    pub conductor: Arc<Conductor>,
    pub prometheus: PrometheusHandle,
    pub paging: Paging,
    pub tokens: Tokens,
    /// How many files this process may have open.
    pub files_max: usize,
}

/// Takes the address, and has the kernel keep those who come while we are busy.
pub(super) fn bind(settings: &Settings) -> Result<TcpListener, StartError> {
    let address = settings.server.bind;
    let failed = |source| StartError::Bind { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    rustix::net::listen(&listener, settings.server.backlog)
        .map_err(|error| failed(error.into()))?;
    Ok(listener)
}

/// What the URLs that we publish begin with.
pub(super) fn public_url(
    listener: &TcpListener,
    settings: &Settings,
) -> Result<String, StartError> {
    let server = &settings.server;
    if !server.public_url.is_empty() {
        return Ok(server.public_url.clone());
    }
    let failed = |source| StartError::Bind { address: server.bind, source };
    Ok(format!("http://{}", listener.local_addr().map_err(failed)?))
}

/// Serves the port, and answers what the URLs that we publish begin with.
pub(super) fn listen(
    listener: TcpListener,
    settings: &Settings,
    served: Served,
) -> Result<(ServerHandle, String), StartError> {
    let Served { conductor, prometheus, paging, tokens, files_max } = served;
    let server = &settings.server;
    let failed = |source| StartError::Bind { address: server.bind, source };
    let address = listener.local_addr().map_err(failed)?;
    let url = public_url(&listener, settings)?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "listening beyond this host: everyone who reaches it can try keys");
    }
    let path_prefix = url::Url::parse(&url).map(|url| url.path().trim_end_matches('/').to_owned());
    let edge =
        Edge::new(address.ip(), &server.public_url, &server.allowed_hosts, &server.allowed_origins);
    let endpoints = EndpointState {
        conductor: conductor.clone(),
        frames: settings.wire,
        body_max: server.body_max,
        debounce: settings.lists.debounce,
        paging: Arc::new(paging),
        path_prefix: path_prefix.unwrap_or_default(),
        draining: tokens.draining.clone(),
        ending: tokens.ending.clone(),
    };
    let admin = Data::new(AdminState {
        conductor,
        prometheus,
        metrics_open: settings.metrics.open,
        public_url: url.clone(),
        answer_timeout: settings.database.answer_timeout,
        heartbeat: settings.sessions.heartbeat,
        refresh_wait: settings.lists.refresh_wait,
        stopping: tokens.draining.clone(),
    });
    keep_metrics(admin.prometheus.clone());
    let reception = Reception {
        edge: Arc::new(edge),
        pace: Pace::new(server),
        draining: tokens.draining.clone(),
    };
    let app = move || {
        let reception = reception.of_thread();
        App::new()
            .app_data(Data::new(endpoints.of_thread()))
            .configure(endpoint::configure)
            .configure(unbuilt::configure)
            .configure(|config| admin::configure(config, admin.clone()))
            .wrap(from_fn(move |request, next| edge::judge(reception.clone(), request, next)))
    };
    let builder = Server::build();
    let builder = match server.workers {
        0 => builder,
        workers => builder.workers(workers),
    };
    let stopping = builder.graceful_shutdown_signal();
    let door = Door::new(server, files_max);
    let (header_timeout, keep_alive) = (server.header_timeout, server.keep_alive);
    // A stream that has nothing to say says so at this pace.
    let idle_max = keep_alive.max(settings.sessions.heartbeat * 2);
    let write_buffer = server.write_buffer.max(1);
    // What `HttpServer` is made of, which would keep the connections to itself.
    let http = move || {
        let (door, stopping) = (door.clone(), stopping.clone());
        let http = HttpService::build()
            // Connections that nothing is asked on are let go first.
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(keep_alive)
            .client_request_timeout(header_timeout)
            .client_disconnect_timeout(LINGER)
            // A client that closes its side has left; what it held is free at once, not a heartbeat later.
            .h1_allow_half_closed(false)
            .h1_write_buffer_size(write_buffer)
            .local_addr(address)
            .on_connect_ext(move |connection: &Connection, known| {
                door.meet(&connection.stream, known);
                known.insert(connection.teller.clone());
                known.insert(connection.turn.clone());
            })
            .h1(map_config(
                app().into_factory().map_err(|error: Error| error.error_response()),
                // Nobody asks it for URLs: ours are made of `server.public_url`.
                |()| AppConfig::default(),
            ));
        fn_service(move |stream: TcpStream| async move {
            let peer = stream.peer_addr().ok();
            Ok::<_, DispatchError>((Connection::new(stream, header_timeout, idle_max), peer))
        })
        .and_then(http)
    };
    let running = builder
        .disable_signals()
        .max_concurrent_connections(server.connections_max)
        // By then everything has been answered or ended; this is for the last bytes to go out.
        .shutdown_timeout(2)
        .listen("metamcpd", listener, http)
        .map_err(failed)?
        .run();
    let handle = running.handle();
    actix::spawn(async move {
        let ended = AssertUnwindSafe(running).catch_unwind().await;
        if !tokens.draining.is_cancelled() {
            tracing::error!(?ended, "the HTTP server has ended by itself");
            tokens.deserted.cancel();
        }
    });
    Ok((handle, url))
}

fn keep_metrics(prometheus: PrometheusHandle) {
    tend("metrics", move || {
        let prometheus = prometheus.clone();
        async move {
            loop {
                failpoint::pass("metrics-upkeep");
                // A directory that may be long is no work for a thread that serves.
                drop(tokio::task::spawn_blocking(files::count).await);
                prometheus.run_upkeep();
                tokio::time::sleep(METRICS_UPKEEP_EVERY).await;
            }
        }
    });
}
