//! `/api/v1/mcp-servers`: what servers are wanted, how each of them runs, and its history.

use actix_web::{
    HttpResponse, delete, get, patch, post,
    web::{Data, Json, Path, Query},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    AdminState, ApiError,
    body::Body,
    paging,
    server_body::{ServerBody, ServerChange},
    server_view::ServerView,
};
use crate::{
    store::{
        ErrorStatus, HistoryFilter, Isolation, Page, Protocol, Server, ServerFilter, ServerKind,
        Tool, Transition,
    },
    upstream::status::StateWord,
};

/// Which servers; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ServersQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    name: Option<String>,
    r#type: Option<ServerKind>,
    error_status: Option<ErrorStatus>,
    enabled: Option<bool>,
    isolation: Option<Isolation>,
    protocol: Option<Protocol>,
    /// `null` asks for what is public.
    user_id: Option<String>,
}

/// Which changes of state; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// The state it went to.
    state: Option<StateWord>,
    error_status: Option<ErrorStatus>,
    reason: Option<String>,
}

/// Which of its tools; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ServerToolsQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// The server's own name for it.
    name: Option<String>,
    /// Whether it is no longer offered.
    vanished: Option<bool>,
}

/// That a restart has been ordered.
#[derive(serde::Serialize, ToSchema)]
pub struct Restarting {
    uuid: uuid::Uuid,
    name: String,
}

/// Every server, oldest first.
#[utoipa::path(tag = "mcp-servers", params(ServersQuery), responses((status = 200, body = Page<ServerView>)))]
#[get("/mcp-servers")]
pub async fn list(
    state: Data<AdminState>,
    query: Query<ServersQuery>,
) -> Result<Json<Page<ServerView>>, ApiError> {
    let query = query.into_inner();
    let request = paging::page(query.limit, query.cursor)?;
    if query.error_status.is_some() {
        // The filter reads the rows, and the rows are written a moment after it has happened.
        state.catch_up().await;
    }
    let filter = ServerFilter {
        name: query.name,
        kind: query.r#type,
        error_status: query.error_status,
        enabled: query.enabled,
        isolation: query.isolation,
        protocol: query.protocol,
        user_id: paging::owner(query.user_id),
    };
    let page = match state.ask(state.store().servers(&filter, &request)).await {
        Err(error) if error.is_passing() && request.cursor.is_none() => remembered(&state, filter),
        asked => asked?,
    };
    let shown = page.items.into_iter().map(|server| view(&state, server));
    // What has changed since the rows were written no longer matches.
    let matches =
        |shown: &ServerView| query.error_status.is_none_or(|asked| asked == shown.error_status());
    Ok(Json(Page { items: shown.filter(matches).collect(), next_cursor: page.next_cursor }))
}

/// Makes a server. It is started behind; the answer does not wait for it.
#[utoipa::path(
    tag = "mcp-servers",
    request_body = ServerBody,
    responses((status = 201, body = ServerView))
)]
#[post("/mcp-servers")]
pub async fn create(
    state: Data<AdminState>,
    Body(body): Body<ServerBody>,
) -> Result<HttpResponse, ApiError> {
    let new = body.into_new()?;
    let server = state.write(|store| async move { store.create_server(new).await }).await?;
    Ok(HttpResponse::Created().json(view(&state, server)))
}

#[utoipa::path(tag = "mcp-servers", responses((status = 200, body = ServerView)))]
#[get("/mcp-servers/{id}")]
pub async fn read(state: Data<AdminState>, id: Path<String>) -> Result<Json<ServerView>, ApiError> {
    let server = find(&state, &id).await?;
    Ok(Json(view(&state, server)))
}

/// Changes the fields that are named. Its process is restarted only when it has to be.
#[utoipa::path(
    tag = "mcp-servers",
    request_body = ServerChange,
    responses((status = 200, body = ServerView))
)]
#[patch("/mcp-servers/{id}")]
pub async fn change(
    state: Data<AdminState>,
    id: Path<String>,
    Body(change): Body<ServerChange>,
) -> Result<Json<ServerView>, ApiError> {
    let server = state.store().server(&id).await?;
    let (uuid, patch) = (server.uuid, change.into_patch(&server)?);
    let server = state.write(|store| async move { store.patch_server(uuid, patch).await }).await?;
    Ok(Json(view(&state, server)))
}

/// Stops a server and forgets it, its tools and its history.
#[utoipa::path(tag = "mcp-servers", responses((status = 204)))]
#[delete("/mcp-servers/{id}")]
pub async fn delete(state: Data<AdminState>, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let uuid = state.store().server(&id).await?.uuid;
    state.write(|store| async move { store.delete_server(uuid).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Clears what was counted of its failures, and starts it now.
#[utoipa::path(tag = "mcp-servers", responses((status = 202, body = Restarting)))]
#[post("/mcp-servers/{id}/restart")]
pub async fn restart(state: Data<AdminState>, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let server = find(&state, &id).await?;
    if !server.enabled {
        let what = format!("the server `{}` is not enabled", server.name);
        return Err(ApiError::Conflict { what });
    }
    if !state.conductor.restart(server.uuid).await {
        return Err(ApiError::Unavailable { what: "nothing is started just now" });
    }
    let Server { uuid, name, .. } = server;
    Ok(HttpResponse::Accepted().json(Restarting { uuid, name }))
}

/// Every change of its state, newest first.
#[utoipa::path(tag = "mcp-servers", params(HistoryQuery), responses((status = 200, body = Page<Transition>)))]
#[get("/mcp-servers/{id}/history")]
pub async fn history(
    state: Data<AdminState>,
    id: Path<String>,
    query: Query<HistoryQuery>,
) -> Result<Json<Page<Transition>>, ApiError> {
    let HistoryQuery { limit, cursor, state: word, error_status, reason } = query.into_inner();
    let request = paging::page(limit, cursor)?;
    let uuid = state.store().server(&id).await?.uuid;
    state.catch_up().await;
    let word = word.map(|word| word.as_str().to_owned());
    let filter = HistoryFilter { state: word, error_status, reason };
    Ok(Json(state.store().history_where(uuid, &filter, &request).await?))
}

/// What it was last seen to offer, in its own order; what has vanished comes last.
#[utoipa::path(tag = "mcp-servers", params(ServerToolsQuery), responses((status = 200, body = Page<Tool>)))]
#[get("/mcp-servers/{id}/tools")]
pub async fn tools(
    state: Data<AdminState>,
    id: Path<String>,
    query: Query<ServerToolsQuery>,
) -> Result<Json<Page<Tool>>, ApiError> {
    let ServerToolsQuery { limit, cursor, name, vanished } = query.into_inner();
    let request = paging::page(limit, cursor)?;
    let uuid = state.store().server(&id).await?.uuid;
    state.catch_up().await;
    let tools = state.store().tools_of(uuid).await?;
    let is_asked_for = |tool: &Tool| {
        name.as_ref().is_none_or(|name| *name == tool.name)
            && vanished.is_none_or(|vanished| vanished == tool.vanished_at.is_some())
    };
    Ok(Json(paging::cut_where(tools, &request, |tool| tool.uuid.to_string(), is_asked_for)?))
}

/// The server with this uuid or name. Who watches servers, or restarts one, can do so while the
/// database is away: by what was last read of it.
pub async fn find(state: &AdminState, id: &str) -> Result<Server, ApiError> {
    let away = match state.ask(state.store().server(id)).await {
        Err(error) if error.is_passing() => error,
        asked => return Ok(asked?),
    };
    let servers = state.conductor.servers.load();
    let is_it = |server: &&Server| match uuid::Uuid::try_parse(id) {
        Ok(uuid) => server.uuid == uuid,
        Err(_) => server.name == id,
    };
    let mut found = servers.iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(server), None) => Ok(server.clone()),
        // What is not known, or not alone, only the database can tell.
        _ => Err(away.into()),
    }
}

/// All that match, on one page: without the database there is no cursor to go on by.
fn remembered(state: &AdminState, filter: ServerFilter) -> Page<Server> {
    // The reports in these rows are old. The boards know better, and are asked next.
    let filter = ServerFilter { error_status: None, ..filter };
    let servers = state.conductor.servers.load();
    let items = servers.iter().filter(|server| filter.matches(server)).cloned().collect();
    Page { items, next_cursor: None }
}

fn view(state: &AdminState, server: Server) -> ServerView {
    let board = state.conductor.board(server.uuid);
    ServerView::new(server, board.as_deref())
}
