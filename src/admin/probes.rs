//! What watches the daemon from outside: whether it lives, whether it can serve, and its numbers.
//!
//! One sick upstream is no reason to be taken out of service, and neither is a database that is
//! away: calls do not need it.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, get,
    http::StatusCode,
    route,
    web::{Data, Json},
};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AdminState, ApiError, operator, private};
use crate::{failpoint, upstream::status::StateWord};

/// How long the database has to answer before it counts as away.
const PING_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`: a process that does not live answers nothing.
    status: &'static str,
    /// Made anew at each start: by it a URL is found to lead to this daemon.
    run: Uuid,
}

#[derive(Serialize, ToSchema)]
pub struct Readiness {
    ready: bool,
    /// `ok` or `unavailable`. It is told, and decides nothing.
    database: &'static str,
    /// What is in the way: `configuration` until the rows were read for the first time, `stopping`
    /// once the daemon is on its way out.
    missing: Vec<&'static str>,
}

/// The process lives.
#[utoipa::path(
    get,
    path = "/health",
    tag = "probes",
    security(()),
    responses((status = 200, body = Health))
)]
#[route("/health", method = "GET", method = "HEAD", wrap = "private()")]
pub async fn health(state: Data<AdminState>) -> Json<Health> {
    failpoint::pass("health");
    Json(Health { status: "ok", run: state.conductor.run })
}

/// The daemon can serve.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "probes",
    security(()),
    responses(
        (status = 200, body = Readiness),
        (status = 503, description = "Not yet, or no longer", body = Readiness),
    )
)]
#[route("/ready", method = "GET", method = "HEAD", wrap = "private()")]
pub async fn ready(state: Data<AdminState>) -> HttpResponse {
    failpoint::pass("ready");
    let mut missing = Vec::new();
    if !state.conductor.is_ready.load(Ordering::Relaxed) {
        missing.push("configuration");
    }
    if state.stopping.is_cancelled() {
        missing.push("stopping");
    }
    let database = match timeout(PING_PATIENCE, state.store().ping()).await {
        Ok(Ok(())) => "ok",
        Ok(Err(_)) | Err(_) => "unavailable",
    };
    let ready = missing.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(status).json(Readiness { ready, database, missing })
}

/// The daemon's numbers, for Prometheus. Asks for an admin key unless the settings open it.
#[utoipa::path(
    tag = "probes",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
#[get("/metrics", wrap = "private()")]
pub async fn metrics(
    request: HttpRequest,
    state: Data<AdminState>,
) -> Result<HttpResponse, ApiError> {
    failpoint::pass("metrics");
    if !state.metrics_open {
        operator::check(&request)?;
    }
    count_upstreams(&state);
    let numbers = state.prometheus.render();
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(numbers))
}

/// How many upstreams there are in each state, those in none of them too.
fn count_upstreams(state: &AdminState) {
    let mut counts: HashMap<&'static str, u32> =
        StateWord::ALL.into_iter().map(|word| (word.as_str(), 0)).collect();
    for board in state.conductor.roster.load().values() {
        *counts.entry(board.runtime().state.as_str()).or_default() += 1;
    }
    for (word, count) in counts {
        ::metrics::gauge!("metamcpd_upstreams", "state" => word).set(count);
    }
}
