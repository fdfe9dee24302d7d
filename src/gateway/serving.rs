//! The port, and everything that is served there.

use std::{net::TcpListener, sync::Arc, time::Duration};

use actix_web::{App, HttpServer, dev::ServerHandle, middleware::from_fn, web::Data};
use metrics_exporter_prometheus::PrometheusHandle;

use super::{StartError, Tokens, door::Door, edge, files, tending::tend, unbuilt};
use crate::{
    admin::{self, AdminState},
    conductor::Conductor,
    endpoint::{self, EndpointState, edge::Edge, paging::Paging},
    settings::Settings,
};

/// How often what was recorded for the metrics is put together, so that it does not pile up.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);

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
        conductor,
        prometheus,
        metrics_open: settings.metrics.open,
        public_url: url.clone(),
        body_timeout: server.body_timeout,
        answer_timeout: settings.database.answer_timeout,
        heartbeat: settings.sessions.heartbeat,
        refresh_wait: settings.lists.refresh_wait,
        stopping: tokens.draining.clone(),
    });
    keep_metrics(admin.prometheus.clone());
    let edge = Arc::new(edge);
    let draining = tokens.draining.clone();
    let http = HttpServer::new(move || {
        let (edge, draining) = (edge.clone(), draining.clone());
        App::new()
            .app_data(endpoints.clone())
            .configure(endpoint::configure)
            .configure(unbuilt::configure)
            .configure(|config| admin::configure(config, admin.clone()))
            .wrap(from_fn(move |request, next| {
                edge::judge(edge.clone(), draining.clone(), request, next)
            }))
    });
    let http = match server.workers {
        0 => http,
        workers => http.workers(workers),
    };
    let door = Door::new(server, files_max);
    let running = http
        .on_connect(move |connection, known| door.meet(connection, known))
        // A client that closes its side has left; what it held is free at once, not a heartbeat later.
        .h1_allow_half_closed(false)
        .h1_write_buffer_size(server.write_buffer.max(1))
        .disable_signals()
        .max_connections(server.connections_max)
        .client_request_timeout(server.header_timeout)
        .keep_alive(server.keep_alive)
        // By then everything has been answered or ended; this is for the last bytes to go out.
        .shutdown_timeout(2)
        .listen(listener)
        .map_err(failed)?
        .run();
    let handle = running.handle();
    actix::spawn(async move {
        let ended = running.await;
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
                // A directory that may be long is no work for a thread that serves.
                drop(tokio::task::spawn_blocking(files::count).await);
                prometheus.run_upkeep();
                tokio::time::sleep(METRICS_UPKEEP_EVERY).await;
            }
        }
    });
}
