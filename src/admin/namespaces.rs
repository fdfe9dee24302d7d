//! `/api/v1/namespaces`: named groups of servers. What their tools are like is in
//! `namespace_tools`.

use actix_web::{
    HttpResponse, delete, get, patch, post, put,
    web::{Data, Json, Path, Query},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    AdminState, ApiError,
    body::{Body, Rows, given, named, or_empty},
    paging,
};
use crate::store::{
    Member, Membership, Namespace, NamespaceFilter, NamespacePatch, Naming, NewNamespace, Page,
    Problem, Status, Store, StoreError,
};

/// Which namespaces; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NamespacesQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    name: Option<String>,
    naming: Option<Naming>,
    uri_naming: Option<Naming>,
    default_tool_status: Option<Status>,
    /// `null` asks for what is public.
    user_id: Option<String>,
}

/// A namespace to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamespaceBody {
    name: String,
    description: Option<String>,
    /// ALWAYS unless given.
    naming: Option<Naming>,
    /// When the URIs of resources and templates are rewritten: NEVER unless given.
    uri_naming: Option<Naming>,
    /// What its tools are until they are decided about: ACTIVE unless given. INACTIVE makes clients
    /// see none but those that are made ACTIVE.
    default_tool_status: Option<Status>,
    /// In the order in which their tools are listed.
    #[serde(default, deserialize_with = "or_empty")]
    servers: Vec<MemberBody>,
    user_id: Option<String>,
}

/// The fields that are to change; `null` clears.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamespaceChange {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "named")]
    description: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    naming: Option<Naming>,
    #[serde(default, deserialize_with = "given")]
    uri_naming: Option<Naming>,
    /// Tools that its servers were seen to offer before keep the status they have.
    #[serde(default, deserialize_with = "given")]
    default_tool_status: Option<Status>,
    #[serde(default, deserialize_with = "named")]
    user_id: Option<Option<String>>,
}

/// A server by its name or uuid. Unless it says otherwise, it keeps the status that it has in the
/// namespace, and one that is new there is ACTIVE.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "a server's name or uuid, or {\"server\", \"status\"}")]
pub enum MemberBody {
    Server(String),
    WithStatus(MemberWithStatus),
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberWithStatus {
    server: String,
    status: Option<Status>,
}

/// What a server of a namespace is to be there.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberStatus {
    /// Its name or uuid.
    server: String,
    status: Status,
}

/// Every namespace, oldest first.
#[utoipa::path(
    tag = "namespaces",
    params(NamespacesQuery),
    responses((status = 200, body = Page<Namespace>))
)]
#[get("/namespaces")]
pub async fn list(
    state: Data<AdminState>,
    query: Query<NamespacesQuery>,
) -> Result<Json<Page<Namespace>>, ApiError> {
    let query = query.into_inner();
    let request = paging::page(query.limit, query.cursor)?;
    let filter = NamespaceFilter {
        name: query.name,
        naming: query.naming,
        uri_naming: query.uri_naming,
        default_tool_status: query.default_tool_status,
        user_id: paging::owner(query.user_id),
    };
    Ok(Json(state.store().namespaces_where(&filter, &request).await?))
}

#[utoipa::path(
    tag = "namespaces",
    request_body = NamespaceBody,
    responses((status = 201, body = Namespace))
)]
#[post("/namespaces")]
pub async fn create(
    state: Data<AdminState>,
    Body(body): Body<NamespaceBody>,
) -> Result<HttpResponse, ApiError> {
    let new = NewNamespace {
        servers: memberships(state.store(), body.servers, &[]).await?,
        name: body.name,
        description: body.description,
        naming: body.naming.unwrap_or(Naming::Always),
        uri_naming: body.uri_naming.unwrap_or(Naming::Never),
        default_tool_status: body.default_tool_status.unwrap_or(Status::Active),
        user_id: body.user_id,
    };
    let row = state.write(|store| async move { store.create_namespace(new).await }).await?;
    Ok(HttpResponse::Created().json(row))
}

#[utoipa::path(tag = "namespaces", responses((status = 200, body = Namespace)))]
#[get("/namespaces/{id}")]
pub async fn read(state: Data<AdminState>, id: Path<String>) -> Result<Json<Namespace>, ApiError> {
    Ok(Json(state.store().namespace(&id).await?))
}

/// Changes the fields that are named. Its servers are replaced by a PUT of their own.
#[utoipa::path(
    tag = "namespaces",
    request_body = NamespaceChange,
    responses((status = 200, body = Namespace))
)]
#[patch("/namespaces/{id}")]
pub async fn change(
    state: Data<AdminState>,
    id: Path<String>,
    Body(change): Body<NamespaceChange>,
) -> Result<Json<Namespace>, ApiError> {
    let uuid = state.store().namespace(&id).await?.uuid;
    let NamespaceChange { name, description, naming, uri_naming, default_tool_status, user_id } =
        change;
    if default_tool_status.is_some() {
        // What was seen is what has been written.
        state.catch_up().await;
    }
    let patch =
        NamespacePatch { name, description, naming, uri_naming, default_tool_status, user_id };
    let row = state.write(|store| async move { store.patch_namespace(uuid, patch).await }).await?;
    Ok(Json(row))
}

/// Forgets a namespace with its endpoints. Its servers stay.
#[utoipa::path(tag = "namespaces", responses((status = 204)))]
#[delete("/namespaces/{id}")]
pub async fn delete(state: Data<AdminState>, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let uuid = state.store().namespace(&id).await?.uuid;
    state.write(|store| async move { store.delete_namespace(uuid).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Makes its servers exactly these, in this order.
#[utoipa::path(
    tag = "namespaces",
    request_body = Vec<MemberBody>,
    responses((status = 200, body = Namespace))
)]
#[put("/namespaces/{id}/servers")]
pub async fn put_servers(
    state: Data<AdminState>,
    id: Path<String>,
    Rows(servers): Rows<MemberBody>,
) -> Result<Json<Namespace>, ApiError> {
    let Namespace { uuid, servers: known, .. } = state.store().namespace(&id).await?;
    let members = memberships(state.store(), servers, &known).await?;
    let row = state.write(|store| async move { store.set_members(uuid, &members).await }).await?;
    Ok(Json(row))
}

/// Gives some of its servers another status, all of them or none; the others stay as they are.
#[utoipa::path(
    tag = "namespaces",
    request_body = Vec<MemberStatus>,
    responses((status = 200, body = Namespace))
)]
#[patch("/namespaces/{id}/servers")]
pub async fn patch_servers(
    state: Data<AdminState>,
    id: Path<String>,
    Rows(servers): Rows<MemberStatus>,
) -> Result<Json<Namespace>, ApiError> {
    let uuid = state.store().namespace(&id).await?.uuid;
    let named = servers.into_iter().map(|MemberStatus { server, status }| {
        MemberBody::WithStatus(MemberWithStatus { server, status: Some(status) })
    });
    let members = memberships(state.store(), named.collect(), &[]).await?;
    let row =
        state.write(|store| async move { store.set_member_statuses(uuid, &members).await }).await?;
    Ok(Json(row))
}

/// Finds the servers that are named. Whether they may be in the namespace is judged by the store.
async fn memberships(
    store: &Store,
    wanted: Vec<MemberBody>,
    known: &[Member],
) -> Result<Vec<Membership>, ApiError> {
    let mut members = Vec::with_capacity(wanted.len());
    let mut problems = Vec::new();
    for (index, member) in wanted.into_iter().enumerate() {
        let (id, status) = match member {
            MemberBody::Server(server) => (server, None),
            MemberBody::WithStatus(MemberWithStatus { server, status }) => (server, status),
        };
        match store.server(&id).await {
            Ok(server) => {
                let present = known.iter().find(|member| member.server == server.uuid);
                let present = present.map_or(Status::Active, |member| member.status);
                let status = status.unwrap_or(present);
                members.push(Membership { server: server.uuid, status });
            }
            Err(StoreError::NotFound { .. }) => {
                let reason = format!("there is no server `{id}`");
                let problem = Problem::new(format!("servers[{index}].server"), reason);
                problems.push(problem.accepted("the name or the uuid of a server"));
            }
            Err(other) => return Err(other.into()),
        }
    }
    if problems.is_empty() { Ok(members) } else { Err(ApiError::Invalid(problems)) }
}
