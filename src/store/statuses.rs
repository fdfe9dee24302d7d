//! Which tools of a namespace are used, many at a time: what an operator says about a list of them,
//! and what is written down when the default for new ones changes.

use std::collections::{HashMap, HashSet};

use entity::{namespace, namespace_server_mapping, namespace_tool_mapping as policy, tool};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
};
use uuid::Uuid;

use super::error::StoreError;
use super::rules::Problem;
use super::words::Status;
use super::{Store, now};

impl Store {
    /// Decides about many tools of the namespace's servers, all of them or none, and answers how
    /// many have another status now.
    ///
    /// # Errors
    /// `Invalid` with every tool that is named twice or is none of the namespace's.
    pub async fn set_statuses(
        &self,
        namespace: Uuid,
        wanted: &[(Uuid, Status)],
    ) -> Result<usize, StoreError> {
        let transaction = self.write().await?;
        let row = namespace::Entity::find_by_id(namespace)
            .one(&transaction)
            .await?
            .ok_or_else(|| StoreError::not_found("namespace", namespace))?;
        let default = Status::stored("namespaces.default_tool_status", &row.default_tool_status)?;
        let servers: HashMap<Uuid, Uuid> =
            tools_of_members(&transaction, namespace).await?.into_iter().collect();
        refuse(wanted, &servers)?;
        let before = decided(&transaction, namespace).await?;

        let mut changed = 0;
        for status in Status::ALL.iter().copied() {
            let tools =
                || wanted.iter().filter(|(_, wanted)| *wanted == status).map(|(tool, _)| *tool);
            let was = |tool: &Uuid| before.get(tool).copied();
            changed += tools().filter(|tool| was(tool).unwrap_or(default) != status).count();
            let other: Vec<Uuid> =
                tools().filter(|tool| was(tool).is_some_and(|was| was != status)).collect();
            for other in other.chunks(ROWS_AT_ONCE) {
                policy::Entity::update_many()
                    .col_expr(policy::Column::Status, Expr::value(status.as_str()))
                    .filter(policy::Column::NamespaceUuid.eq(namespace))
                    .filter(policy::Column::ToolUuid.is_in(other.iter().copied()))
                    .exec(&transaction)
                    .await?;
            }
            let fresh = tools().filter(|tool| was(tool).is_none());
            let fresh = fresh.filter_map(|tool| Some((tool, *servers.get(&tool)?)));
            add(&transaction, namespace, fresh, status.as_str()).await?;
        }
        transaction.commit().await?;
        Ok(changed)
    }
}

/// Writes down that every tool which was seen here without a decision has this status, so that
/// another default does not change it.
pub(super) async fn settle(
    connection: &impl ConnectionTrait,
    namespace: Uuid,
    status: &str,
) -> Result<(), StoreError> {
    let decided = decided(connection, namespace).await?;
    let tools = tools_of_members(connection, namespace).await?.into_iter();
    let seen = tools.filter(|(tool, _)| !decided.contains_key(tool));
    add(connection, namespace, seen, status).await
}

/// Tools with their servers.
async fn tools_of_members(
    connection: &impl ConnectionTrait,
    namespace: Uuid,
) -> Result<Vec<(Uuid, Uuid)>, StoreError> {
    let members = sea_orm::sea_query::Query::select()
        .column(namespace_server_mapping::Column::McpServerUuid)
        .from(namespace_server_mapping::Entity)
        .and_where(namespace_server_mapping::Column::NamespaceUuid.eq(namespace))
        .to_owned();
    let tools = tool::Entity::find()
        .select_only()
        .columns([tool::Column::Uuid, tool::Column::McpServerUuid])
        .filter(tool::Column::McpServerUuid.in_subquery(members))
        .into_tuple()
        .all(connection)
        .await?;
    Ok(tools)
}

async fn decided(
    connection: &impl ConnectionTrait,
    namespace: Uuid,
) -> Result<HashMap<Uuid, Status>, StoreError> {
    let rows: Vec<(Uuid, String)> = policy::Entity::find()
        .select_only()
        .columns([policy::Column::ToolUuid, policy::Column::Status])
        .filter(policy::Column::NamespaceUuid.eq(namespace))
        .into_tuple()
        .all(connection)
        .await?;
    let status = |word: &str| Status::stored("namespace_tool_mappings.status", word);
    rows.into_iter().map(|(tool, word)| Ok((tool, status(&word)?))).collect()
}

async fn add(
    connection: &impl ConnectionTrait,
    namespace: Uuid,
    tools: impl Iterator<Item = (Uuid, Uuid)>,
    status: &str,
) -> Result<(), StoreError> {
    let created_at = now();
    let rows: Vec<policy::ActiveModel> = tools
        .map(|(tool, server)| {
            let row = policy::Model {
                uuid: Uuid::now_v7(),
                namespace_uuid: namespace,
                tool_uuid: tool,
                mcp_server_uuid: server,
                status: status.to_owned(),
                override_name: None,
                override_title: None,
                override_description: None,
                override_annotations: None,
                created_at,
            };
            row.into_active_model()
        })
        .collect();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        policy::Entity::insert_many(rows.iter().cloned())
            .exec_without_returning(connection)
            .await?;
    }
    Ok(())
}

fn refuse(wanted: &[(Uuid, Status)], tools: &HashMap<Uuid, Uuid>) -> Result<(), StoreError> {
    let mut seen = HashSet::new();
    let mut problems = Vec::new();
    for (index, (tool, _)) in wanted.iter().enumerate() {
        let reason = match tools.contains_key(tool) {
            false => "no tool of this namespace",
            true if !seen.insert(tool) => "named twice",
            true => continue,
        };
        let problem = Problem::new(format!("[{index}].uuid"), reason);
        problems.push(problem.accepted("the uuid of a tool, as the list of tools has it"));
    }
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Invalid(problems)) }
}

/// Keeps a statement well below the number of parameters either database takes.
const ROWS_AT_ONCE: usize = 500;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{group, listed, no_one, on_both, process, refused};
    use crate::store::{NamespacePatch, ToolPolicyPatch};

    /// A namespace of one server with these tools, and their uuids in that order.
    async fn scene(store: &Store, names: &[&str]) -> (Uuid, Uuid, Vec<Uuid>) {
        let server = store.create_server(process("files")).await.unwrap();
        let namespace = store.create_namespace(group("all", &[&server])).await.unwrap().uuid;
        let tools: Vec<_> = names.iter().map(|name| listed(name)).collect();
        store.upsert_tools(server.uuid, &tools, now()).await.unwrap();
        let tools = store.tools_of(server.uuid).await.unwrap();
        (namespace, server.uuid, tools.into_iter().map(|tool| tool.uuid).collect())
    }

    async fn statuses(store: &Store, namespace: Uuid) -> Vec<(String, Status)> {
        let policies = store.policies(namespace).await.unwrap();
        let mut statuses: Vec<_> =
            policies.into_iter().map(|policy| (policy.tool_name, policy.status)).collect();
        statuses.sort_by(|one, other| one.0.cmp(&other.0));
        statuses
    }

    fn default(status: Status) -> NamespacePatch {
        NamespacePatch { default_tool_status: Some(status), ..NamespacePatch::default() }
    }

    #[tokio::test]
    async fn many_tools_are_decided_about_at_once_or_none_is() {
        use Status::{Active, Inactive};
        on_both(async |store| {
            let (namespace, _, tools) = scene(&store, &["a", "b", "c"]).await;
            let named = ToolPolicyPatch {
                override_title: Some(Some("B".to_owned())),
                ..ToolPolicyPatch::default()
            };
            store.patch_policy(namespace, tools[1], named).await.unwrap();

            let wanted = [(tools[0], Inactive), (tools[1], Inactive), (tools[2], Active)];
            assert_eq!(store.set_statuses(namespace, &wanted).await.unwrap(), 2);
            assert_eq!(store.set_statuses(namespace, &wanted).await.unwrap(), 0);
            let expected = [("a", Inactive), ("b", Inactive), ("c", Active)];
            let expected = expected.map(|(name, status)| (name.to_owned(), status));
            assert_eq!(statuses(&store, namespace).await, expected);
            let policies = store.policies(namespace).await.unwrap();
            assert!(policies.iter().any(|policy| policy.override_title.as_deref() == Some("B")));

            let bad = [(tools[0], Active), (no_one(), Active), (tools[0], Active)];
            let refusal = store.set_statuses(namespace, &bad).await;
            assert_eq!(refused(refusal), ["[1].uuid", "[2].uuid"]);
            assert_eq!(statuses(&store, namespace).await, expected);
            let missing = store.set_statuses(no_one(), &[]).await;
            assert!(matches!(missing, Err(StoreError::NotFound { what: "namespace", .. })));
        })
        .await;
    }

    #[tokio::test]
    async fn another_default_changes_no_tool_that_was_seen() {
        use Status::{Active, Inactive};
        on_both(async |store| {
            let (namespace, server, tools) = scene(&store, &["a", "b"]).await;
            store.set_statuses(namespace, &[(tools[1], Inactive)]).await.unwrap();
            store.patch_namespace(namespace, default(Inactive)).await.unwrap();
            let seen = [("a".to_owned(), Active), ("b".to_owned(), Inactive)];
            assert_eq!(statuses(&store, namespace).await, seen);

            // One that comes now is new; a decision about its title is none about its status.
            store.upsert_tools(server, &["a", "b", "c"].map(listed), now()).await.unwrap();
            assert_eq!(statuses(&store, namespace).await, seen);
            let new = store.tools_of(server).await.unwrap()[2].uuid;
            let titled = ToolPolicyPatch {
                override_title: Some(Some("C".to_owned())),
                ..ToolPolicyPatch::default()
            };
            let policy = store.patch_policy(namespace, new, titled).await.unwrap();
            assert_eq!(policy.status, Inactive);

            store.upsert_tools(server, &["a", "d"].map(listed), now()).await.unwrap();
            store.patch_namespace(namespace, default(Active)).await.unwrap();
            let all = [("a", Active), ("b", Inactive), ("c", Inactive), ("d", Inactive)];
            let all = all.map(|(name, status)| (name.to_owned(), status));
            assert_eq!(statuses(&store, namespace).await, all);
        })
        .await;
    }
}
