//! `/api/v1/mcp-servers/bulk`: one order for several servers, given to all of them or to none.
//!
//! The servers are named one by one. There is no word for all of them, so that no slip of the hand
//! deletes what it did not name.

use std::collections::HashSet;

use actix_web::{HttpResponse, post, web::Data};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AdminState, ApiError, body::Body, mcp_servers};
use crate::store::{Problem, Server};

/// Servers in one order.
const SERVERS_MAX: usize = 500;

/// What is to be done, and to which servers.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkBody {
    action: BulkAction,
    /// By name or uuid; 1 to 500.
    servers: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum BulkAction {
    Enable,
    Disable,
    /// Clears what was counted of their failures, and starts them now. They have to be enabled.
    Restart,
    /// Stops them and forgets them, their tools and their history.
    Delete,
}

/// What was done, in the order of the request.
#[derive(Serialize, ToSchema)]
pub struct BulkDone {
    action: BulkAction,
    items: Vec<BulkItem>,
}

#[derive(Serialize, ToSchema)]
pub struct BulkItem {
    uuid: Uuid,
    name: String,
    /// Whether it was not so before. A restart changes each.
    changed: bool,
}

/// Enables, disables, restarts or deletes several servers: all of them, or, when any of them cannot
/// be, none.
#[utoipa::path(
    tag = "mcp-servers",
    request_body = BulkBody,
    responses((status = 200, body = BulkDone), (status = 202, body = BulkDone))
)]
#[post("/mcp-servers/bulk")]
pub async fn order(
    state: Data<AdminState>,
    Body(BulkBody { action, servers }): Body<BulkBody>,
) -> Result<HttpResponse, ApiError> {
    let servers = all_of(&state, action, servers).await?;
    let uuids: Vec<Uuid> = servers.iter().map(|server| server.uuid).collect();
    match action {
        BulkAction::Enable | BulkAction::Disable => {
            let enabled = action == BulkAction::Enable;
            state.write(|store| async move { store.enable_servers(&uuids, enabled).await }).await?;
        }
        BulkAction::Delete => {
            state.write(|store| async move { store.delete_servers(&uuids).await }).await?;
        }
        BulkAction::Restart => {
            for uuid in uuids {
                if !state.conductor.restart(uuid).await {
                    return Err(ApiError::Unavailable { what: "nothing is started just now" });
                }
            }
        }
    }
    let items = servers.into_iter().map(|Server { uuid, name, enabled, .. }| BulkItem {
        uuid,
        name,
        changed: match action {
            BulkAction::Enable => !enabled,
            BulkAction::Disable => enabled,
            BulkAction::Restart | BulkAction::Delete => true,
        },
    });
    let done = BulkDone { action, items: items.collect() };
    Ok(match action {
        BulkAction::Restart => HttpResponse::Accepted().json(done),
        _ => HttpResponse::Ok().json(done),
    })
}

/// The servers that are named, when all of them can take the order.
async fn all_of(
    state: &AdminState,
    action: BulkAction,
    ids: Vec<String>,
) -> Result<Vec<Server>, ApiError> {
    if ids.is_empty() || ids.len() > SERVERS_MAX {
        let problem = Problem::new("servers", "too few or too many");
        let accepted = format!("1 to {SERVERS_MAX} names or uuids");
        return Err(ApiError::invalid(problem.accepted(accepted)));
    }
    let (mut servers, mut problems, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (index, id) in ids.into_iter().enumerate() {
        let mut blame = |reason: String| {
            let problem = Problem::new(format!("servers[{index}]"), reason);
            problems.push(problem.accepted("the name or the uuid of a server, once"));
        };
        let found = match action {
            // Who restarts a server can do so while the database is away.
            BulkAction::Restart => mcp_servers::find(state, &id).await,
            _ => state.store().server(&id).await.map_err(ApiError::from),
        };
        match found {
            Ok(server) if !seen.insert(server.uuid) => blame(format!("`{id}` is named twice")),
            Ok(server) if action == BulkAction::Restart && !server.enabled => {
                blame(format!("the server `{}` is not enabled", server.name));
            }
            Ok(server) => servers.push(server),
            Err(error @ (ApiError::NotFound { .. } | ApiError::Ambiguous { .. })) => {
                blame(error.to_string());
            }
            Err(other) => return Err(other),
        }
    }
    if problems.is_empty() { Ok(servers) } else { Err(ApiError::Invalid(problems)) }
}
