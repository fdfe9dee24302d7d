//! `…/refresh`: has upstreams list all that they offer now, and says what that changed.
//!
//! It asks and waits a little; the listing is the upstream's own affair and goes on behind. A listing
//! that fails takes nothing away.

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    http::StatusCode,
    post,
    web::{Data, Path},
};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AdminState, ApiError};
use crate::{
    catalogue::kind::Kind,
    store::Status,
    upstream::{
        board::Board,
        status::{CatalogueChange, NameList},
    },
};

/// How a refresh of one server went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its lists are as fresh as can be.
    Listed,
    /// It has been asked, and has not answered yet.
    Waiting,
    /// It could not list everything; what was known holds.
    Failed,
    /// It is not up; everything is listed when it is.
    Down,
}

/// What a refresh of one server came to.
#[derive(Serialize, ToSchema)]
pub struct Refreshed {
    uuid: Uuid,
    name: String,
    outcome: Outcome,
    /// How many tools it is known to offer.
    tools: usize,
    prompts: usize,
    resources: usize,
    resource_templates: usize,
    /// Of the tools.
    added: NameList,
    removed: NameList,
    changed: NameList,
    /// Why it failed, or is down.
    error: Option<String>,
}

/// What a refresh of a namespace came to, for each of its `ACTIVE` servers.
#[derive(Serialize, ToSchema)]
pub struct RefreshedServers {
    items: Vec<Refreshed>,
}

/// Lists all that a server offers now: 200 with what that changed, or 202 when it takes longer than
/// `lists.refresh_wait`.
#[utoipa::path(
    tag = "mcp-servers",
    responses((status = 200, body = Refreshed), (status = 202, body = Refreshed))
)]
#[post("/mcp-servers/{id}/refresh")]
pub async fn server(state: Data<AdminState>, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let server = super::mcp_servers::find(&state, &id).await?;
    if !server.enabled {
        let what = format!("the server `{}` is not enabled", server.name);
        return Err(ApiError::Conflict { what });
    }
    let board = state.conductor.board(server.uuid);
    let board = board.ok_or(ApiError::Unavailable { what: "nothing is started just now" })?;
    let refreshed = refresh(&board, Instant::now() + state.refresh_wait).await;
    Ok(HttpResponse::build(status([&refreshed])).json(refreshed))
}

/// Lists all that its `ACTIVE` servers offer now: 200 with what that changed, or 202 when some
/// take longer than `lists.refresh_wait`.
#[utoipa::path(
    tag = "namespaces",
    responses((status = 200, body = RefreshedServers), (status = 202, body = RefreshedServers))
)]
#[post("/namespaces/{id}/refresh")]
pub async fn namespace(
    state: Data<AdminState>,
    id: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let namespace = state.store().namespace(&id).await?;
    let active = namespace.servers.iter().filter(|member| member.status == Status::Active);
    let boards = active.filter_map(|member| state.conductor.board(member.server));
    let boards: Vec<_> = boards.filter(|board| board.spec().enabled).collect();
    let deadline = Instant::now() + state.refresh_wait;
    let items = join_all(boards.iter().map(|board| refresh(board, deadline))).await;
    Ok(HttpResponse::build(status(&items)).json(RefreshedServers { items }))
}

fn status<'a>(refreshed: impl IntoIterator<Item = &'a Refreshed>) -> StatusCode {
    match refreshed.into_iter().any(|one| one.outcome == Outcome::Waiting) {
        true => StatusCode::ACCEPTED,
        false => StatusCode::OK,
    }
}

async fn refresh(board: &Arc<Board>, deadline: Instant) -> Refreshed {
    if board.is_resting() {
        board.port.want();
    } else if !board.is_ready() {
        let runtime = board.runtime();
        let why = runtime.last_error.map(|error| format!(": {error}")).unwrap_or_default();
        let state = runtime.state.as_str();
        return Refreshed::new(board, Outcome::Down, Some(format!("it is {state}{why}")));
    }
    let listings = Kind::ALL.map(|kind| {
        let refresh = &board.refresh[kind];
        let ticket = refresh.ask();
        timeout_at(deadline, refresh.outcome(ticket))
    });
    // The tools first: what became of them is told in full.
    let mut outcomes = join_all(listings).await.into_iter();
    let mut refreshed = match outcomes.next() {
        Some(Ok(Ok(change))) => Refreshed::listed(board, &change),
        Some(Ok(Err(why))) => Refreshed::new(board, Outcome::Failed, Some(why.to_string())),
        Some(Err(_)) | None => Refreshed::new(board, Outcome::Waiting, None),
    };
    for outcome in outcomes {
        match outcome {
            _ if refreshed.outcome != Outcome::Listed => break,
            Ok(Ok(_)) => {}
            Ok(Err(why)) => {
                (refreshed.outcome, refreshed.error) = (Outcome::Failed, Some(why.to_string()));
            }
            Err(_elapsed) => refreshed.outcome = Outcome::Waiting,
        }
    }
    refreshed
}

impl Refreshed {
    fn new(board: &Board, outcome: Outcome, error: Option<String>) -> Self {
        let count = |kind| board.list(kind).map_or(0, |items| items.len());
        let tools = count(Kind::Tool);
        let (added, removed, changed) = Default::default();
        let name = board.spec().name.clone();
        Self {
            uuid: board.id,
            name,
            outcome,
            tools,
            prompts: count(Kind::Prompt),
            resources: count(Kind::Resource),
            resource_templates: count(Kind::Template),
            added,
            removed,
            changed,
            error,
        }
    }

    fn listed(board: &Board, change: &CatalogueChange) -> Self {
        let CatalogueChange { tools, added, removed, changed, .. } = change.clone();
        let shown = Self::new(board, Outcome::Listed, None);
        Self { tools, added, removed, changed, ..shown }
    }
}
