//! Which servers are in a namespace, in which order, and which may be.
//!
//! A public namespace holds only public servers; a private one its owner's and public ones. A
//! member that stays keeps its row, so that nothing which hangs on it is lost by a change beside it.

use std::collections::{HashMap, HashSet};

use entity::{mcp_server, namespace, namespace_server_mapping as mapping};
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::StoreError;
use super::now;
use super::rules::Problem;
use super::words::Status;

/// A server in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Member {
    pub server: Uuid,
    pub name: String,
    pub status: Status,
}

/// A member as it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub server: Uuid,
    pub status: Status,
}

/// Members by namespace, each in its order.
pub(super) async fn of(
    connection: &impl ConnectionTrait,
    namespaces: impl IntoIterator<Item = Uuid>,
) -> Result<HashMap<Uuid, Vec<Member>>, StoreError> {
    let mappings = mapping::Entity::find()
        .filter(mapping::Column::NamespaceUuid.is_in(namespaces))
        .order_by_asc(mapping::Column::Position)
        .order_by_asc(mapping::Column::Uuid)
        .all(connection)
        .await?;
    let servers: HashSet<Uuid> = mappings.iter().map(|mapping| mapping.mcp_server_uuid).collect();
    let names: Vec<(Uuid, String)> = mcp_server::Entity::find()
        .select_only()
        .columns([mcp_server::Column::Uuid, mcp_server::Column::Name])
        .filter(mcp_server::Column::Uuid.is_in(servers))
        .into_tuple()
        .all(connection)
        .await?;
    let names: HashMap<Uuid, String> = names.into_iter().collect();

    let mut members: HashMap<Uuid, Vec<Member>> = HashMap::new();
    for mapping in mappings {
        let member = Member {
            server: mapping.mcp_server_uuid,
            name: names.get(&mapping.mcp_server_uuid).cloned().unwrap_or_default(),
            status: Status::stored("namespace_server_mappings.status", &mapping.status)?,
        };
        members.entry(mapping.namespace_uuid).or_default().push(member);
    }
    Ok(members)
}

/// Adds, moves and removes mappings until they are as wanted; says whether anything had to change.
pub(super) async fn place(
    connection: &impl ConnectionTrait,
    namespace: &namespace::Model,
    wanted: &[Membership],
) -> Result<bool, StoreError> {
    refuse(connection, namespace.user_id.as_deref(), wanted).await?;
    let present = mapping::Entity::find()
        .filter(mapping::Column::NamespaceUuid.eq(namespace.uuid))
        .all(connection)
        .await?;
    let mut present: HashMap<Uuid, mapping::Model> =
        present.into_iter().map(|mapping| (mapping.mcp_server_uuid, mapping)).collect();

    let mut is_changed = false;
    for (position, membership) in wanted.iter().enumerate() {
        let position = i32::try_from(position).unwrap_or(i32::MAX);
        let status = membership.status.as_str();
        match present.remove(&membership.server) {
            Some(row) if row.status == status && row.position == position => {}
            Some(row) => {
                is_changed = true;
                let changed = mapping::ActiveModel {
                    uuid: Unchanged(row.uuid),
                    status: Set(status.to_owned()),
                    position: Set(position),
                    ..Default::default()
                };
                changed.update(connection).await?;
            }
            None => {
                is_changed = true;
                let added = mapping::Model {
                    uuid: Uuid::now_v7(),
                    namespace_uuid: namespace.uuid,
                    mcp_server_uuid: membership.server,
                    status: status.to_owned(),
                    position,
                    created_at: now(),
                };
                added.into_active_model().insert(connection).await?;
            }
        }
    }
    if !present.is_empty() {
        is_changed = true;
        mapping::Entity::delete_many()
            .filter(mapping::Column::Uuid.is_in(present.values().map(|mapping| mapping.uuid)))
            .exec(connection)
            .await?;
    }
    Ok(is_changed)
}

/// Gives members another status, all of them or none; says whether any had another. Their order and
/// all other members stay.
pub(super) async fn set_statuses(
    connection: &impl ConnectionTrait,
    namespace: Uuid,
    wanted: &[Membership],
) -> Result<bool, StoreError> {
    let present = mapping::Entity::find()
        .filter(mapping::Column::NamespaceUuid.eq(namespace))
        .all(connection)
        .await?;
    let mut present: HashMap<Uuid, mapping::Model> =
        present.into_iter().map(|mapping| (mapping.mcp_server_uuid, mapping)).collect();
    let (mut rows, mut problems, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (index, member) in wanted.iter().enumerate() {
        let reason = match present.remove(&member.server) {
            Some(row) => {
                seen.insert(member.server);
                rows.push((row, member.status));
                continue;
            }
            None if seen.contains(&member.server) => "named twice",
            None => "it is not in this namespace",
        };
        let problem = Problem::new(format!("servers[{index}].server"), reason);
        problems.push(problem.accepted("a server of the namespace, once"));
    }
    if !problems.is_empty() {
        return Err(StoreError::Invalid(problems));
    }
    let mut is_changed = false;
    for (row, status) in rows {
        if row.status != status.as_str() {
            is_changed = true;
            let changed = mapping::ActiveModel {
                uuid: Unchanged(row.uuid),
                status: Set(status.as_str().to_owned()),
                ..Default::default()
            };
            changed.update(connection).await?;
        }
    }
    Ok(is_changed)
}

/// # Errors
/// `Invalid` with every member that may not be one.
pub(super) async fn refuse(
    connection: &impl ConnectionTrait,
    owner: Option<&str>,
    wanted: &[Membership],
) -> Result<(), StoreError> {
    let rows: Vec<(Uuid, Option<String>)> = mcp_server::Entity::find()
        .select_only()
        .columns([mcp_server::Column::Uuid, mcp_server::Column::UserId])
        .filter(mcp_server::Column::Uuid.is_in(wanted.iter().map(|member| member.server)))
        .into_tuple()
        .all(connection)
        .await?;
    let owners: HashMap<Uuid, Option<String>> = rows.into_iter().collect();

    let mut seen = HashSet::new();
    let mut problems = Vec::new();
    for (index, member) in wanted.iter().enumerate() {
        let reason = match owners.get(&member.server) {
            None => "there is no such server",
            Some(_) if !seen.insert(member.server) => "named twice",
            Some(Some(other)) if owner != Some(other) => match owner {
                None => "a public namespace holds only public servers",
                Some(_) => "it belongs to somebody else",
            },
            Some(_) => continue,
        };
        problems.push(Problem::new(format!("servers[{index}].server"), reason));
    }
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Invalid(problems)) }
}
