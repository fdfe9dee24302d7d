//! A tool of a namespace as the operator sees it: what its server says of it, what was decided here,
//! and what clients see of it.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AdminState, ApiError};
use crate::{
    catalogue::{
        kind::Kind,
        naming::{Hidden, Holder, Why},
    },
    namespace::published::Published,
    store::{Member, Namespace, Status, ToolOutline, ToolPolicy},
};

/// A tool of one of the namespace's servers.
#[derive(Serialize, ToSchema)]
pub struct NamespaceTool {
    pub uuid: Uuid,
    pub server: Uuid,
    pub server_name: String,
    /// The server's own name for it.
    pub name: String,
    /// The server's own.
    title: Option<String>,
    /// The server's own.
    description: Option<String>,
    /// The namespace's `default_tool_status` until it is decided about.
    pub status: Status,
    override_name: Option<String>,
    override_title: Option<String>,
    override_description: Option<String>,
    override_annotations: Option<Value>,
    /// The name that clients see it under; null when they do not see it.
    pub shown_name: Option<String>,
    /// Why clients do not see it: `vanished` when its server no longer offers it, `server_inactive`
    /// and `server_disabled` when its server is not used here or at all, `inactive` by its own
    /// status, `name_taken` when another server's tool has its name, `repeated` when its own server
    /// listed the name before. Null also while its server was never seen.
    hidden: Option<&'static str>,
    /// Whether what was decided about it cannot take effect: it has vanished, or its
    /// `override_name` is that of another tool.
    pub unresolved: bool,
    /// Who has its `override_name`, as `server/tool`; it is shown by its own name then.
    override_name_taken_by: Option<String>,
    /// Since when it is no longer offered.
    #[serde(with = "time::serde::rfc3339::option")]
    vanished_at: Option<OffsetDateTime>,
}

impl NamespaceTool {
    /// Whether anything of it was overridden.
    pub fn is_overridden(&self) -> bool {
        self.override_name.is_some()
            || self.override_title.is_some()
            || self.override_description.is_some()
            || self.override_annotations.is_some()
    }
}

/// The tools of a namespace's members, or of one of them, in the order of the members and of their
/// own lists.
pub async fn tools_of(
    state: &AdminState,
    namespace: &Namespace,
    only: Option<Uuid>,
) -> Result<Vec<NamespaceTool>, ApiError> {
    let members: Vec<&Member> = namespace
        .servers
        .iter()
        .filter(|member| only.is_none_or(|only| member.server == only))
        .collect();
    let mut outlines =
        state.store().outlines_of(members.iter().map(|member| member.server)).await?;
    let policies = state.store().policies(namespace.uuid).await?;
    let mut policies: HashMap<Uuid, ToolPolicy> =
        policies.into_iter().map(|policy| (policy.tool, policy)).collect();
    let handle = state.conductor.namespace(namespace.uuid);
    let published = handle.map(|handle| handle.published.load_full());
    let face = published.as_deref().map(Face::new).unwrap_or_default();

    let mut tools = Vec::new();
    for member in members {
        let board = state.conductor.board(member.server);
        let is_enabled = board.is_none_or(|board| board.spec().enabled);
        for tool in outlines.remove(&member.server).unwrap_or_default() {
            let policy = policies.remove(&tool.uuid);
            let mut row = row_of(tool, member, policy, namespace.default_tool_status);
            let key = (row.server, &*row.name);
            row.shown_name = face.shown.get(&key).map(|name| (*name).to_owned());
            let unseen = if row.vanished_at.is_some() {
                Some("vanished")
            } else if member.status == Status::Inactive {
                Some("server_inactive")
            } else if !is_enabled {
                Some("server_disabled")
            } else if row.status == Status::Inactive {
                Some("inactive")
            } else {
                face.hidden.get(&key).copied()
            };
            row.hidden = unseen.filter(|_| row.shown_name.is_none());
            let taken_by = row.override_name.as_deref().filter(|_| face.refused.contains(&key));
            let taken_by = taken_by.and_then(|name| face.holders?.get(name));
            row.override_name_taken_by = taken_by.map(|holder| {
                let server = server_name(state, holder);
                format!("{server}/{}", holder.tool)
            });
            row.unresolved = row.vanished_at.is_some() || row.override_name_taken_by.is_some();
            tools.push(row);
        }
    }
    Ok(tools)
}

/// Refuses a name that another tool has of itself, is given, or would get back.
pub fn refuse_taken(
    state: &AdminState,
    namespace: &Namespace,
    tool: &ToolOutline,
    name: &str,
) -> Result<(), ApiError> {
    let Some(handle) = state.conductor.namespace(namespace.uuid) else { return Ok(()) };
    let published = handle.published.load();
    match published.holders.get(name) {
        Some(holder) if holder.server != tool.mcp_server_uuid || *holder.tool != *tool.name => {
            let (server, tool) = (server_name(state, holder), &holder.tool);
            let what = format!("the name `{name}` is that of the tool `{tool}` of `{server}`");
            Err(ApiError::Conflict { what })
        }
        _ => Ok(()),
    }
}

fn server_name(state: &AdminState, holder: &Holder) -> String {
    let board = state.conductor.board(holder.server);
    board.map_or_else(|| holder.server.to_string(), |board| board.spec().name.clone())
}

fn row_of(
    tool: ToolOutline,
    member: &Member,
    policy: Option<ToolPolicy>,
    default: Status,
) -> NamespaceTool {
    let status = policy.as_ref().map_or(default, |policy| policy.status);
    let (override_name, override_title, override_description, override_annotations) = policy
        .map(|policy| {
            let ToolPolicy { override_name, override_title, .. } = policy;
            let ToolPolicy { override_description, override_annotations, .. } = policy;
            (override_name, override_title, override_description, override_annotations)
        })
        .unwrap_or_default();
    NamespaceTool {
        uuid: tool.uuid,
        server: member.server,
        server_name: member.name.clone(),
        name: tool.name,
        title: tool.title,
        description: tool.description,
        status,
        override_name,
        override_title,
        override_description,
        override_annotations,
        shown_name: None,
        hidden: None,
        unresolved: false,
        override_name_taken_by: None,
        vanished_at: tool.vanished_at,
    }
}

/// What is published, by server and by the server's own names.
#[derive(Default)]
struct Face<'a> {
    shown: HashMap<(Uuid, &'a str), &'a str>,
    hidden: HashMap<(Uuid, &'a str), &'static str>,
    refused: std::collections::HashSet<(Uuid, &'a str)>,
    holders: Option<&'a HashMap<Box<str>, Holder>>,
}

impl<'a> Face<'a> {
    fn new(published: &'a Published) -> Self {
        let routes = published.routes.iter();
        let hidden = published.hidden[Kind::Tool].iter();
        let refused = published.refused.iter();
        Self {
            shown: routes.map(|(shown, route)| ((route.server, &*route.key), shown)).collect(),
            hidden: hidden
                .map(|Hidden { server, tool, why }| {
                    let word = match why {
                        Why::NameTaken { .. } => "name_taken",
                        Why::Repeated => "repeated",
                    };
                    ((*server, &**tool), word)
                })
                .collect(),
            refused: refused.map(|Hidden { server, tool, .. }| (*server, &**tool)).collect(),
            holders: Some(&published.holders),
        }
    }
}
