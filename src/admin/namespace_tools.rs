//! `/api/v1/namespaces/{id}/tools`: what the servers of a namespace offer, under which names clients
//! see it, and what was decided about it.

use std::collections::HashMap;

use actix_web::{
    get, patch,
    web::{Data, Json, Path, Query},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    AdminState, ApiError,
    body::{Body, given, named},
    mcp_servers::PageQuery,
    paging,
};
use crate::{
    catalogue::naming::{Hidden, Why},
    namespace::published::Published,
    store::{Namespace, Page, Status, ToolPolicyPatch},
};

/// A tool of one of the namespace's servers.
#[derive(Serialize, ToSchema)]
pub struct NamespaceTool {
    uuid: Uuid,
    server: Uuid,
    server_name: String,
    /// The server's own name for it.
    name: String,
    title: Option<String>,
    description: Option<String>,
    status: Status,
    override_name: Option<String>,
    override_title: Option<String>,
    override_description: Option<String>,
    override_annotations: Option<Value>,
    /// The name that clients see it under; null when they do not see it.
    shown_name: Option<String>,
    /// `name_taken` when another server's tool has its name, `repeated` when its own server listed
    /// the name before.
    hidden: Option<&'static str>,
    /// Since when it is no longer offered.
    #[serde(with = "time::serde::rfc3339::option")]
    vanished_at: Option<OffsetDateTime>,
}

/// The fields that are to change; `null` clears.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolChange {
    #[serde(default, deserialize_with = "given")]
    status: Option<Status>,
    #[serde(default, deserialize_with = "named")]
    override_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "named")]
    override_title: Option<Option<String>>,
    #[serde(default, deserialize_with = "named")]
    override_description: Option<Option<String>>,
    #[serde(default, deserialize_with = "named")]
    override_annotations: Option<Option<Value>>,
}

/// Every tool of its servers, in the order of the servers and of their own lists.
#[utoipa::path(
    tag = "namespaces",
    params(PageQuery),
    responses((status = 200, body = Page<NamespaceTool>))
)]
#[get("/namespaces/{id}/tools")]
pub async fn list(
    state: Data<AdminState>,
    id: Path<String>,
    query: Query<PageQuery>,
) -> Result<Json<Page<NamespaceTool>>, ApiError> {
    let request = query.into_inner().page()?;
    let namespace = state.store().namespace(&id).await?;
    state.catch_up().await;
    let tools = tools_of(&state, &namespace, None).await?;
    Ok(Json(paging::cut(tools, &request, |tool| tool.uuid)?))
}

/// Decides about one tool, here and in no other namespace.
#[utoipa::path(
    tag = "namespaces",
    request_body = ToolChange,
    responses((status = 200, body = NamespaceTool))
)]
#[patch("/namespaces/{id}/tools/{uuid}")]
pub async fn change(
    state: Data<AdminState>,
    path: Path<(String, String)>,
    Body(change): Body<ToolChange>,
) -> Result<Json<NamespaceTool>, ApiError> {
    let (id, tool) = path.into_inner();
    let Ok(uuid) = Uuid::try_parse(&tool) else { return Err(ApiError::not_found("tool", &tool)) };
    change.refuse_unbuilt()?;
    let namespace = state.store().namespace(&id).await?;
    let patch = ToolPolicyPatch {
        status: change.status,
        override_name: change.override_name,
        override_title: change.override_title,
        override_description: change.override_description,
        override_annotations: change.override_annotations,
    };
    let place = namespace.uuid;
    let policy =
        state.write(|store| async move { store.patch_policy(place, uuid, patch).await }).await?;
    let tools = tools_of(&state, &namespace, Some(policy.server)).await?;
    let changed = tools.into_iter().find(|tool| tool.uuid == uuid);
    Ok(Json(changed.ok_or_else(|| ApiError::not_found("tool", &tool))?))
}

impl ToolChange {
    /// Clearing an override is always possible; setting one would change nothing yet.
    fn refuse_unbuilt(&self) -> Result<(), ApiError> {
        let is_set = |text: &Option<Option<String>>| matches!(text, Some(Some(_)));
        let overrides = is_set(&self.override_name)
            || is_set(&self.override_title)
            || is_set(&self.override_description)
            || matches!(self.override_annotations, Some(Some(_)));
        if overrides { Err(ApiError::not_implemented("overriding a tool")) } else { Ok(()) }
    }
}

/// All of them, or those of `only` one server.
async fn tools_of(
    state: &AdminState,
    namespace: &Namespace,
    only: Option<Uuid>,
) -> Result<Vec<NamespaceTool>, ApiError> {
    let policies = state.store().policies(namespace.uuid).await?;
    let mut policies: HashMap<Uuid, _> =
        policies.into_iter().map(|policy| (policy.tool, policy)).collect();
    let handle = state.conductor.namespace(namespace.uuid);
    let published = handle.map(|handle| handle.published.load_full());
    let shown = published.as_deref().map(shown_names).unwrap_or_default();
    let hidden = published.as_deref().map(hidden_tools).unwrap_or_default();

    let members = namespace.servers.iter();
    let members: Vec<_> =
        members.filter(|member| only.is_none_or(|only| only == member.server)).collect();
    let servers: Vec<Uuid> = members.iter().map(|member| member.server).collect();
    let mut heads = state.store().tool_heads(&servers).await?;
    let mut tools = Vec::new();
    for member in members {
        for tool in heads.remove(&member.server).unwrap_or_default() {
            let policy = policies.remove(&tool.uuid);
            let key = (member.server, &*tool.name);
            tools.push(NamespaceTool {
                uuid: tool.uuid,
                server: member.server,
                server_name: member.name.clone(),
                title: tool.title,
                description: tool.description,
                status: policy.as_ref().map_or(Status::Active, |policy| policy.status),
                override_name: policy.as_ref().and_then(|policy| policy.override_name.clone()),
                override_title: policy.as_ref().and_then(|policy| policy.override_title.clone()),
                override_description: policy
                    .as_ref()
                    .and_then(|policy| policy.override_description.clone()),
                override_annotations: policy.and_then(|policy| policy.override_annotations),
                shown_name: shown.get(&key).map(|name| (*name).to_owned()),
                hidden: hidden.get(&key).copied(),
                vanished_at: tool.vanished_at,
                name: tool.name,
            });
        }
    }
    Ok(tools)
}

fn shown_names(published: &Published) -> HashMap<(Uuid, &str), &str> {
    let routes = published.routes.iter();
    routes.map(|(shown, route)| ((route.server, &*route.tool), shown)).collect()
}

fn hidden_tools(published: &Published) -> HashMap<(Uuid, &str), &'static str> {
    let hidden = published.hidden.iter();
    hidden
        .map(|Hidden { server, tool, why }| {
            let word = match why {
                Why::NameTaken { .. } => "name_taken",
                Why::Repeated => "repeated",
            };
            ((*server, &**tool), word)
        })
        .collect()
}
