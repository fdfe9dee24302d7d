//! `/api/v1/namespaces/{id}/prompts`, `…/resources` and `…/resource-templates`, and the same of one
//! server: what servers offer besides tools, and whether a namespace uses it.

use std::collections::HashMap;

use actix_web::{
    get, patch,
    web::{Data, Json, Path, Query},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    AdminState, ApiError,
    body::{Body, RowsOr, given},
    namespace_tools::{SameStatus, ToolStatus, ToolsChange, ToolsChanged},
    paging,
};
use crate::{
    catalogue::{item::Item as Offered, kind::Kind, naming::Why},
    conductor::snapshot,
    store::{Item, ItemKind, Namespace, Page, Status},
};

/// The place of a path where one of [`Kinds`] stands, as every route here has it.
pub const KINDS: &str = "{kinds:prompts|resources|resource-templates}";

/// Which kind of things.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kinds {
    Prompts,
    Resources,
    ResourceTemplates,
}

/// Which of them; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ItemsQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// The name or the uuid of a server.
    server: Option<String>,
    status: Option<Status>,
    /// The server's own name, URI or template.
    key: Option<String>,
}

/// Which of them a server offers; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ServerItemsQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// The name, URI or template.
    key: Option<String>,
    /// Whether it is no longer offered.
    vanished: Option<bool>,
}

/// Those that one status is given to: without a filter, all.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ItemsFilter {
    /// The name or the uuid of a server.
    server: Option<String>,
    status: Option<Status>,
    /// The server's own name, URI or template.
    key: Option<String>,
}

/// The fields that are to change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ItemChange {
    #[serde(default, deserialize_with = "given")]
    status: Option<Status>,
}

/// What a server was last seen to offer.
#[derive(Serialize, ToSchema)]
pub struct ServerItem {
    uuid: Uuid,
    mcp_server_uuid: Uuid,
    /// The name of a prompt, the URI of a resource, the URI template of a template.
    key: String,
    name: Option<String>,
    title: Option<String>,
    description: Option<String>,
    /// The object as it came, byte for byte.
    definition: String,
    /// Since when it is no longer offered.
    #[serde(with = "time::serde::rfc3339::option")]
    vanished_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// What one of the namespace's servers offers.
#[derive(Serialize, ToSchema)]
pub struct NamespaceItem {
    uuid: Uuid,
    server: Uuid,
    server_name: String,
    /// The server's own name, URI or template.
    key: String,
    name: Option<String>,
    title: Option<String>,
    description: Option<String>,
    /// `ACTIVE` until it is decided about.
    status: Status,
    /// The name, URI or template that clients see it under, which is another than `key` where the
    /// namespace has rewritten it; null when they do not see it.
    shown_as: Option<String>,
    /// Why clients do not see it: `vanished` when its server no longer offers it, `server_inactive`
    /// and `server_disabled` when its server is not used here or at all, `inactive` by its own
    /// status, `name_taken` and `uri_taken` when another server has its name, URI or template. Null
    /// also while its server was never seen.
    hidden: Option<&'static str>,
    /// The server that has its name, URI or template.
    taken_by: Option<String>,
    /// Since when it is no longer offered.
    #[serde(with = "time::serde::rfc3339::option")]
    vanished_at: Option<OffsetDateTime>,
}

/// What a server was last seen to offer, in its own order; what has vanished comes last.
#[utoipa::path(
    tag = "mcp-servers",
    params(("id" = String, Path), ("kinds" = inline(Kinds), Path), ServerItemsQuery),
    responses((status = 200, body = Page<ServerItem>))
)]
#[get("/mcp-servers/{id}/{kinds:prompts|resources|resource-templates}")]
pub async fn of_server(
    state: Data<AdminState>,
    path: Path<(String, Kinds)>,
    query: Query<ServerItemsQuery>,
) -> Result<Json<Page<ServerItem>>, ApiError> {
    let (id, kinds) = path.into_inner();
    let ServerItemsQuery { limit, cursor, key, vanished } = query.into_inner();
    let request = paging::page(limit, cursor)?;
    let uuid = state.store().server(&id).await?.uuid;
    state.catch_up().await;
    let mut items = state.store().items_of([uuid], kinds.stored()).await?;
    let items = items.remove(&uuid).unwrap_or_default();
    let items = items.into_iter().map(|item| ServerItem::new(kinds, item)).collect();
    let is_asked_for = |item: &ServerItem| {
        key.as_ref().is_none_or(|key| *key == item.key)
            && vanished.is_none_or(|vanished| vanished == item.vanished_at.is_some())
    };
    Ok(Json(paging::cut_where(items, &request, |item| item.uuid.to_string(), is_asked_for)?))
}

/// Everything of a kind that its servers offer, in the order of the servers and of their own lists.
#[utoipa::path(
    tag = "namespaces",
    params(("id" = String, Path), ("kinds" = inline(Kinds), Path), ItemsQuery),
    responses((status = 200, body = Page<NamespaceItem>))
)]
#[get("/namespaces/{id}/{kinds:prompts|resources|resource-templates}")]
pub async fn list(
    state: Data<AdminState>,
    path: Path<(String, Kinds)>,
    query: Query<ItemsQuery>,
) -> Result<Json<Page<NamespaceItem>>, ApiError> {
    let (id, kinds) = path.into_inner();
    let ItemsQuery { limit, cursor, server, status, key } = query.into_inner();
    let request = paging::page(limit, cursor)?;
    let filter = ItemsFilter { server, status, key };
    let namespace = state.store().namespace(&id).await?;
    state.catch_up().await;
    let items = items_of(&state, &namespace, kinds).await?;
    let id = |item: &NamespaceItem| item.uuid.to_string();
    Ok(Json(paging::cut_where(items, &request, id, |item| filter.names(item))?))
}

/// Decides about one of them, here and in no other namespace.
#[utoipa::path(
    tag = "namespaces",
    params(("id" = String, Path), ("kinds" = inline(Kinds), Path), ("uuid" = Uuid, Path)),
    request_body = ItemChange,
    responses((status = 200, body = NamespaceItem))
)]
#[patch("/namespaces/{id}/{kinds:prompts|resources|resource-templates}/{uuid}")]
pub async fn change(
    state: Data<AdminState>,
    path: Path<(String, Kinds, String)>,
    Body(ItemChange { status }): Body<ItemChange>,
) -> Result<Json<NamespaceItem>, ApiError> {
    let (id, kinds, item) = path.into_inner();
    let namespace = state.store().namespace(&id).await?;
    state.catch_up().await;
    let missing = || ApiError::not_found(kinds.kind().noun(), &item);
    let uuid = Uuid::try_parse(&item).map_err(|_| missing())?;
    let is_there = |items: Vec<NamespaceItem>| items.into_iter().find(|one| one.uuid == uuid);
    is_there(items_of(&state, &namespace, kinds).await?).ok_or_else(missing)?;
    if let Some(status) = status {
        set(&state, namespace.uuid, kinds, vec![(uuid, status)]).await?;
    }
    let changed = is_there(items_of(&state, &namespace, kinds).await?);
    Ok(Json(changed.ok_or_else(missing)?))
}

/// Gives many of them their status, all of them or none: `[{"uuid","status"}]`, or `{"status"}` for
/// all that the query names.
#[utoipa::path(
    tag = "namespaces",
    params(("id" = String, Path), ("kinds" = inline(Kinds), Path), ItemsFilter),
    request_body = ToolsChange,
    responses((status = 200, body = ToolsChanged))
)]
#[patch("/namespaces/{id}/{kinds:prompts|resources|resource-templates}")]
pub async fn change_many(
    state: Data<AdminState>,
    path: Path<(String, Kinds)>,
    filter: Query<ItemsFilter>,
    body: RowsOr<ToolStatus, SameStatus>,
) -> Result<Json<ToolsChanged>, ApiError> {
    let (id, kinds) = path.into_inner();
    let namespace = state.store().namespace(&id).await?;
    state.catch_up().await;
    let wanted: Vec<(Uuid, Status)> = match body {
        RowsOr::Rows(_) if !filter.is_empty() => {
            return Err(ApiError::bad_request("a list takes no filter in the query"));
        }
        RowsOr::Rows(rows) => rows.into_iter().map(|row| (row.uuid, row.status)).collect(),
        RowsOr::One(SameStatus { status }) => {
            let items = items_of(&state, &namespace, kinds).await?.into_iter();
            items.filter(|item| filter.names(item)).map(|item| (item.uuid, status)).collect()
        }
    };
    let matched = wanted.len();
    let changed = set(&state, namespace.uuid, kinds, wanted).await?;
    Ok(Json(ToolsChanged { matched, changed }))
}

async fn set(
    state: &AdminState,
    namespace: Uuid,
    kinds: Kinds,
    wanted: Vec<(Uuid, Status)>,
) -> Result<usize, ApiError> {
    let kind = kinds.stored();
    state
        .write(|store| async move { store.set_item_statuses(namespace, kind, &wanted).await })
        .await
}

/// Everything of a kind that the namespace's members offer, and what clients see of it.
async fn items_of(
    state: &AdminState,
    namespace: &Namespace,
    kinds: Kinds,
) -> Result<Vec<NamespaceItem>, ApiError> {
    let (kind, members) = (kinds.kind(), &namespace.servers);
    let servers = members.iter().map(|member| member.server);
    let mut offered = state.store().items_of(servers, kinds.stored()).await?;
    let policies = state.store().item_policies(namespace.uuid).await?;
    let statuses: HashMap<Uuid, Status> =
        policies.into_iter().map(|policy| (policy.item, policy.status)).collect();
    let handle = state.conductor.namespace(namespace.uuid);
    let published = handle.map(|handle| handle.published.load_full());
    let (mut shown, mut taken) = (HashMap::new(), HashMap::new());
    if let Some(published) = published.as_deref() {
        match kind {
            Kind::Prompt => shown.extend(
                published.prompts.iter().map(|(shown, route)| ((route.server, &*route.key), shown)),
            ),
            Kind::Tool | Kind::Resource | Kind::Template => {
                let servers = published.resources.shown(kind).filter_map(|(shown, member, key)| {
                    Some(((published.boards.get(member)?.id, key), shown))
                });
                shown.extend(servers);
            }
        }
        for hidden in &published.hidden[kind] {
            if let Why::NameTaken { taken_by } = hidden.why {
                taken.insert((hidden.server, &*hidden.tool), taken_by);
            }
        }
    }
    let mut items = Vec::new();
    for member in members {
        let board = state.conductor.board(member.server);
        let is_enabled = board.is_none_or(|board| board.spec().enabled);
        for item in offered.remove(&member.server).unwrap_or_default() {
            let key = (member.server, &*item.key);
            let status = statuses.get(&item.uuid).copied().unwrap_or(Status::Active);
            let shown_as = shown.get(&key).map(|name| (*name).to_owned());
            let taken_by = taken.get(&key).copied();
            let hidden = match () {
                () if shown_as.is_some() => None,
                () if item.vanished_at.is_some() => Some("vanished"),
                () if member.status == Status::Inactive => Some("server_inactive"),
                () if !is_enabled => Some("server_disabled"),
                () if status == Status::Inactive => Some("inactive"),
                () if taken_by.is_some() && kind == Kind::Prompt => Some("name_taken"),
                () if taken_by.is_some() => Some("uri_taken"),
                () => None,
            };
            let name_of = |server: Uuid| {
                let board = state.conductor.board(server);
                board.map_or_else(|| server.to_string(), |board| board.spec().name.clone())
            };
            let taken_by = taken_by.filter(|_| hidden.is_some()).map(name_of);
            let ServerItem { uuid, key, name, title, description, vanished_at, .. } =
                ServerItem::new(kinds, item);
            items.push(NamespaceItem {
                uuid,
                server: member.server,
                server_name: member.name.clone(),
                key,
                name,
                title,
                description,
                status,
                shown_as,
                hidden,
                taken_by,
                vanished_at,
            });
        }
    }
    Ok(items)
}

impl Kinds {
    fn kind(self) -> Kind {
        match self {
            Self::Prompts => Kind::Prompt,
            Self::Resources => Kind::Resource,
            Self::ResourceTemplates => Kind::Template,
        }
    }

    fn stored(self) -> ItemKind {
        snapshot::stored_kind(self.kind())
    }
}

impl ServerItem {
    fn new(kinds: Kinds, item: Item) -> Self {
        // What cannot be read any more is shown without its words.
        let offered = Offered::parse(kinds.kind(), item.definition.clone().into()).ok();
        let offered = offered.as_ref();
        Self {
            uuid: item.uuid,
            mcp_server_uuid: item.mcp_server_uuid,
            key: item.key,
            name: offered.and_then(Offered::name),
            title: offered.and_then(Offered::title),
            description: offered.and_then(Offered::description),
            definition: item.definition,
            vanished_at: item.vanished_at,
            created_at: item.created_at,
            updated_at: item.updated_at,
        }
    }
}

impl ItemsFilter {
    fn is_empty(&self) -> bool {
        let Self { server, status, key } = self;
        server.is_none() && status.is_none() && key.is_none()
    }

    fn names(&self, item: &NamespaceItem) -> bool {
        let Self { server, status, key } = self;
        let is_server = |asked: &String| match Uuid::try_parse(asked) {
            Ok(uuid) => item.server == uuid,
            Err(_) => item.server_name == *asked,
        };
        server.as_ref().is_none_or(is_server)
            && status.is_none_or(|status| item.status == status)
            && key.as_ref().is_none_or(|key| item.key == *key)
    }
}
