//! `/api/v1/sessions`: which clients are connected, and the end of one.
//!
//! A session is shown by a uuid of its own. The id that its client uses is shown nowhere: with it,
//! and the client's key, one could go on in the client's place.

use std::sync::Arc;

use actix_web::{
    HttpResponse, delete, get,
    web::{Data, Json, Path, Query},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{AdminState, ApiError, paging};
use crate::{
    access::Principal,
    conductor::EndpointEntry,
    session::{Session, Via},
    store::Page,
};

/// Which sessions; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SessionsQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// The name or the uuid of an endpoint.
    endpoint: Option<String>,
    /// The uuid of a namespace.
    namespace_uuid: Option<Uuid>,
    /// The name or the uuid of the API key that it was begun with.
    api_key: Option<String>,
    /// The owner of that key. `null` asks for sessions of public keys, and of nobody.
    user_id: Option<String>,
    transport: Option<Transport>,
}

/// How a session's client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = SessionTransport)]
pub enum Transport {
    StreamableHttp,
    Sse,
}

/// One client's session.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionRow)]
pub struct SessionView {
    /// Its name for operators. It opens nothing.
    uuid: Uuid,
    endpoint: Uuid,
    endpoint_name: Option<String>,
    namespace_uuid: Option<Uuid>,
    /// The key that it was begun with; null for somebody who came without one.
    api_key: Option<Uuid>,
    api_key_name: Option<String>,
    /// The owner of that key; null for a public one.
    user_id: Option<String>,
    transport: Transport,
    /// The revision of MCP that was agreed on; null before `initialize`.
    protocol_version: Option<&'static str>,
    /// What the client says that it is.
    client_name: Option<String>,
    client_version: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    began_at: OffsetDateTime,
    /// When something of it was last heard.
    #[serde(with = "time::serde::rfc3339")]
    last_used_at: OffsetDateTime,
    /// When it will be too old, whatever it is doing.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// Requests without an outcome.
    in_flight: usize,
    /// Streams that are open to the client, besides those of its calls.
    streams: u64,
}

/// Every session that is open, oldest first.
#[utoipa::path(
    tag = "sessions",
    params(SessionsQuery),
    responses((status = 200, body = Page<SessionView>))
)]
#[get("/sessions")]
pub async fn list(
    state: Data<AdminState>,
    query: Query<SessionsQuery>,
) -> Result<Json<Page<SessionView>>, ApiError> {
    let query = query.into_inner();
    let request = paging::page(query.limit, query.cursor.clone())?;
    let sessions = state.conductor.sessions.list();
    let views = sessions.iter().map(|session| SessionView::new(&state, session)).collect();
    let page = paging::cut_sorted(
        views,
        &request,
        |view: &SessionView| view.uuid,
        |view| query.names(view),
    )?;
    Ok(Json(page))
}

#[utoipa::path(tag = "sessions", responses((status = 200, body = SessionView)))]
#[get("/sessions/{id}")]
pub async fn read(
    state: Data<AdminState>,
    id: Path<String>,
) -> Result<Json<SessionView>, ApiError> {
    Ok(Json(SessionView::new(&state, &*find(&state, &id)?)))
}

/// Ends a session. What it has in flight is answered with `session_ended`, its streams close, and its
/// client finds nothing under its id any more.
#[utoipa::path(tag = "sessions", responses((status = 204)))]
#[delete("/sessions/{id}")]
pub async fn delete(state: Data<AdminState>, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let session = find(&state, &id)?;
    state.conductor.end_session(&session).await;
    tracing::info!(session = %session.uuid, "an operator has ended a session");
    Ok(HttpResponse::NoContent().finish())
}

fn find(state: &AdminState, id: &str) -> Result<Arc<Session>, ApiError> {
    let asked = Uuid::try_parse(id).ok();
    let mut open = state.conductor.sessions.list().into_iter();
    open.find(|session| Some(session.uuid) == asked)
        .ok_or_else(|| ApiError::not_found("session", id))
}

impl SessionsQuery {
    fn names(&self, view: &SessionView) -> bool {
        let is = |asked: &String, uuid: Option<Uuid>, name: &Option<String>| match Uuid::try_parse(
            asked,
        ) {
            Ok(asked) => uuid == Some(asked),
            Err(_) => name.as_ref() == Some(asked),
        };
        let owner = paging::owner(self.user_id.clone());
        self.endpoint
            .as_ref()
            .is_none_or(|asked| is(asked, Some(view.endpoint), &view.endpoint_name))
            && self.namespace_uuid.is_none_or(|asked| view.namespace_uuid == Some(asked))
            && self.api_key.as_ref().is_none_or(|asked| is(asked, view.api_key, &view.api_key_name))
            && owner.is_none_or(|owner| owner == view.user_id)
            && self.transport.is_none_or(|transport| transport == view.transport)
    }
}

impl SessionView {
    fn new(state: &AdminState, session: &Session) -> Self {
        let endpoints = state.conductor.endpoints.load();
        let mut entries = endpoints.values();
        let entry: Option<&Arc<EndpointEntry>> = entries.find(|entry| entry.id == session.endpoint);
        let (api_key, user_id) = match &session.principal {
            Principal::Anonymous => (None, None),
            Principal::Key { uuid, user_id } => (Some(*uuid), user_id.clone()),
        };
        let keys = state.conductor.keys.load();
        let record = api_key.and_then(|uuid| keys.by_uuid(uuid));
        let client = session.client();
        let (now, at) = (Instant::now(), OffsetDateTime::now_utc());
        let since_used = now.saturating_duration_since(session.last_used());
        Self {
            uuid: session.uuid,
            endpoint: session.endpoint,
            endpoint_name: entry.map(|entry| entry.name.clone()),
            namespace_uuid: entry.map(|entry| entry.namespace.id),
            api_key,
            api_key_name: record.map(|record| record.name.clone()),
            user_id,
            transport: match session.via {
                Via::StreamableHttp => Transport::StreamableHttp,
                Via::Sse => Transport::Sse,
            },
            protocol_version: session.version(),
            client_name: client.map(|client| client.name.clone()),
            client_version: client.map(|client| client.version.clone()),
            began_at: session.mark.issued,
            last_used_at: at - since_used,
            expires_at: session.mark.issued + state.conductor.sessions.lifetime(),
            in_flight: session.in_flight(),
            streams: session.streams(),
        }
    }
}
