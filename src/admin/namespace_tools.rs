//! `/api/v1/namespaces/{id}/tools`: what the servers of a namespace offer, and what is decided about
//! it. How a row comes about is in `tool_view`.

use actix_web::{
    get, patch,
    web::{Data, Json, Path, Query},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    AdminState, ApiError,
    body::{Body, RowsOr, given, named},
    paging,
    tool_view::{NamespaceTool, refuse_taken, tools_of},
};
use crate::store::{Page, Status, ToolPolicyPatch};

/// Which tools; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ToolsQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// The name or the uuid of a server.
    server: Option<String>,
    status: Option<Status>,
    /// Whether what was decided about it cannot take effect.
    unresolved: Option<bool>,
    /// Whether anything of it was overridden.
    overridden: Option<bool>,
    /// The server's own name for it.
    name: Option<String>,
    /// The name that clients see it under.
    shown_name: Option<String>,
}

/// The tools that one status is given to: without a filter, all.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ToolsFilter {
    /// The name or the uuid of a server.
    server: Option<String>,
    status: Option<Status>,
    /// Whether what was decided about it cannot take effect.
    unresolved: Option<bool>,
    /// Whether anything of it was overridden.
    overridden: Option<bool>,
    /// The server's own name for it.
    name: Option<String>,
    /// The name that clients see it under.
    shown_name: Option<String>,
}

/// The fields that are to change; `null` clears.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolChange {
    #[serde(default, deserialize_with = "given")]
    status: Option<Status>,
    /// The whole name that clients are to see, in every mode of naming: 1 to 64 letters, digits,
    /// `_` and `-`.
    #[serde(default, deserialize_with = "named")]
    override_name: Option<Option<String>>,
    /// Takes the place of `title`, and of `annotations.title` where the server gives one.
    #[serde(default, deserialize_with = "named")]
    override_title: Option<Option<String>>,
    /// An empty text is a text.
    #[serde(default, deserialize_with = "named")]
    override_description: Option<Option<String>>,
    /// Merged member by member over the server's own; a member that is `null` is removed.
    #[serde(default, deserialize_with = "named")]
    override_annotations: Option<Option<Value>>,
}

/// Many at once: each with its status, or one status for all that the query names.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes the body, which is read by its first character")]
pub enum ToolsChange {
    Each(Vec<ToolStatus>),
    Same(SameStatus),
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolStatus {
    pub uuid: Uuid,
    pub status: Status,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SameStatus {
    pub status: Status,
}

/// What a change of many has come to.
#[derive(Serialize, ToSchema)]
pub struct ToolsChanged {
    /// Those that were named.
    pub matched: usize,
    /// Those among them that had another status.
    pub changed: usize,
}

/// Every tool of its servers, in the order of the servers and of their own lists.
#[utoipa::path(
    tag = "namespaces",
    params(ToolsQuery),
    responses((status = 200, body = Page<NamespaceTool>))
)]
#[get("/namespaces/{id}/tools")]
pub async fn list(
    state: Data<AdminState>,
    id: Path<String>,
    query: Query<ToolsQuery>,
) -> Result<Json<Page<NamespaceTool>>, ApiError> {
    let ToolsQuery { limit, cursor, server, status, unresolved, overridden, name, shown_name } =
        query.into_inner();
    let request = paging::page(limit, cursor)?;
    let filter = ToolsFilter { server, status, unresolved, overridden, name, shown_name };
    let namespace = state.store().namespace(&id).await?;
    state.catch_up().await;
    let tools = tools_of(&state, &namespace, None).await?;
    let page = paging::cut_where(
        tools,
        &request,
        |tool| tool.uuid.to_string(),
        |tool| filter.names(tool),
    )?;
    Ok(Json(page))
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
    let namespace = state.store().namespace(&id).await?;
    let outline = state.store().outline(uuid).await?;
    if let Some(Some(name)) = &change.override_name {
        refuse_taken(&state, &namespace, &outline, name)?;
    }
    let patch = ToolPolicyPatch {
        status: change.status,
        override_name: change.override_name,
        override_title: change.override_title,
        override_description: change.override_description,
        override_annotations: change.override_annotations,
    };
    let place = namespace.uuid;
    state.write(|store| async move { store.patch_policy(place, uuid, patch).await }).await?;
    let tools = tools_of(&state, &namespace, Some(outline.mcp_server_uuid)).await?;
    let changed = tools.into_iter().find(|tool| tool.uuid == uuid);
    Ok(Json(changed.ok_or_else(|| ApiError::not_found("tool", &tool))?))
}

/// Gives many tools their status, all of them or none: `[{"uuid","status"}]`, or `{"status"}` for
/// every tool that the query names.
#[utoipa::path(
    tag = "namespaces",
    params(ToolsFilter),
    request_body = ToolsChange,
    responses((status = 200, body = ToolsChanged))
)]
#[patch("/namespaces/{id}/tools")]
pub async fn change_many(
    state: Data<AdminState>,
    id: Path<String>,
    filter: Query<ToolsFilter>,
    body: RowsOr<ToolStatus, SameStatus>,
) -> Result<Json<ToolsChanged>, ApiError> {
    let namespace = state.store().namespace(&id).await?;
    state.catch_up().await;
    let wanted: Vec<(Uuid, Status)> = match body {
        RowsOr::Rows(_) if !filter.is_empty() => {
            return Err(ApiError::bad_request("a list of tools takes no filter in the query"));
        }
        RowsOr::Rows(rows) => rows.into_iter().map(|row| (row.uuid, row.status)).collect(),
        RowsOr::One(SameStatus { status }) => {
            let tools = tools_of(&state, &namespace, None).await?.into_iter();
            tools.filter(|tool| filter.names(tool)).map(|tool| (tool.uuid, status)).collect()
        }
    };
    let (place, matched) = (namespace.uuid, wanted.len());
    let changed =
        state.write(|store| async move { store.set_statuses(place, &wanted).await }).await?;
    Ok(Json(ToolsChanged { matched, changed }))
}

impl ToolsFilter {
    fn is_empty(&self) -> bool {
        let Self { server, status, unresolved, overridden, name, shown_name } = self;
        let texts = [server, name, shown_name];
        status.is_none()
            && unresolved.is_none()
            && overridden.is_none()
            && texts.iter().all(|text| text.is_none())
    }

    fn names(&self, tool: &NamespaceTool) -> bool {
        let Self { server, status, unresolved, overridden, name, shown_name } = self;
        let is_server = |asked: &String| match Uuid::try_parse(asked) {
            Ok(uuid) => tool.server == uuid,
            Err(_) => tool.server_name == *asked,
        };
        server.as_ref().is_none_or(is_server)
            && status.is_none_or(|status| tool.status == status)
            && unresolved.is_none_or(|unresolved| tool.unresolved == unresolved)
            && overridden.is_none_or(|overridden| tool.is_overridden() == overridden)
            && name.as_ref().is_none_or(|name| tool.name == *name)
            && shown_name.as_ref().is_none_or(|name| tool.shown_name.as_ref() == Some(name))
    }
}
