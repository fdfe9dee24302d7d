//! What was decided about single tools in a namespace: whether they are used, and as what.
//!
//! Policies are kept by namespace and tool, never by the name a tool is shown under. A tool without
//! a policy is as its namespace's default has it, and shown as it came.

use std::collections::HashMap;

use entity::{
    mcp_server, namespace, namespace_server_mapping, namespace_tool_mapping as policy, tool,
};
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QuerySelect,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::StoreError;
use super::rules::{Problem, refuse_nul};
use super::words::Status;
use super::{Store, now};

/// What was decided about one tool in one namespace.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ToolPolicy {
    pub tool: Uuid,
    pub server: Uuid,
    /// The server's own name for it.
    pub tool_name: String,
    pub status: Status,
    pub override_name: Option<String>,
    pub override_title: Option<String>,
    pub override_description: Option<String>,
    pub override_annotations: Option<Value>,
}

/// None leaves a field as it is, `Some(None)` clears it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolPolicyPatch {
    pub status: Option<Status>,
    pub override_name: Option<Option<String>>,
    pub override_title: Option<Option<String>>,
    pub override_description: Option<Option<String>>,
    pub override_annotations: Option<Option<Value>>,
}

impl Store {
    pub async fn policies(&self, namespace: Uuid) -> Result<Vec<ToolPolicy>, StoreError> {
        let snapshot = self.snapshot().await?;
        let rows = policy::Entity::find()
            .filter(policy::Column::NamespaceUuid.eq(namespace))
            .all(&snapshot)
            .await?;
        Ok(of_rows(&snapshot, rows).await?.into_values().flatten().collect())
    }

    /// Decides about a tool of one of the namespace's servers.
    ///
    /// # Errors
    /// `ToolNameTaken` when another of their tools was given the name before. Whether one has it of
    /// itself is known to the catalogue alone.
    pub async fn patch_policy(
        &self,
        namespace: Uuid,
        tool: Uuid,
        patch: ToolPolicyPatch,
    ) -> Result<ToolPolicy, StoreError> {
        check(&patch)?;
        let transaction = self.write().await?;
        let place = namespace::Entity::find_by_id(namespace)
            .one(&transaction)
            .await?
            .ok_or_else(|| StoreError::not_found("namespace", namespace))?;
        let row = tool::Entity::find_by_id(tool)
            .one(&transaction)
            .await?
            .ok_or_else(|| StoreError::not_found("tool", tool))?;
        let is_member = namespace_server_mapping::Entity::find()
            .filter(namespace_server_mapping::Column::NamespaceUuid.eq(namespace))
            .filter(namespace_server_mapping::Column::McpServerUuid.eq(row.mcp_server_uuid))
            .one(&transaction)
            .await?
            .is_some();
        if !is_member {
            return Err(StoreError::not_found("tool", tool));
        }
        if let Some(Some(name)) = &patch.override_name {
            refuse_given(&transaction, namespace, tool, name).await?;
        }
        let before = policy::Entity::find()
            .filter(policy::Column::NamespaceUuid.eq(namespace))
            .filter(policy::Column::ToolUuid.eq(tool))
            .one(&transaction)
            .await?;
        let decided = match before {
            Some(before) => patch.onto(&before).update(&transaction).await?,
            None => {
                let fresh = policy::Model {
                    uuid: Uuid::now_v7(),
                    namespace_uuid: namespace,
                    tool_uuid: tool,
                    mcp_server_uuid: row.mcp_server_uuid,
                    status: match patch.status {
                        Some(status) => status.as_str().to_owned(),
                        None => place.default_tool_status,
                    },
                    override_name: patch.override_name.flatten(),
                    override_title: patch.override_title.flatten(),
                    override_description: patch.override_description.flatten(),
                    override_annotations: patch.override_annotations.flatten(),
                    created_at: now(),
                };
                fresh.into_active_model().insert(&transaction).await?
            }
        };
        transaction.commit().await?;
        policy_of(decided, row.name)
    }
}

impl ToolPolicyPatch {
    fn onto(self, before: &policy::Model) -> policy::ActiveModel {
        let mut changed =
            policy::ActiveModel { uuid: Unchanged(before.uuid), ..Default::default() };
        // Always set, so that a patch which names nothing is still a statement.
        let status = self.status.map(|status| status.as_str().to_owned());
        changed.status = Set(status.unwrap_or_else(|| before.status.clone()));
        if let Some(name) = self.override_name {
            changed.override_name = Set(name);
        }
        if let Some(title) = self.override_title {
            changed.override_title = Set(title);
        }
        if let Some(description) = self.override_description {
            changed.override_description = Set(description);
        }
        if let Some(annotations) = self.override_annotations {
            changed.override_annotations = Set(annotations);
        }
        changed
    }
}

/// Policies by namespace.
pub(super) async fn of_rows(
    connection: &impl ConnectionTrait,
    rows: Vec<policy::Model>,
) -> Result<HashMap<Uuid, Vec<ToolPolicy>>, StoreError> {
    let names: Vec<(Uuid, String)> = tool::Entity::find()
        .select_only()
        .columns([tool::Column::Uuid, tool::Column::Name])
        .filter(
            tool::Column::Uuid.in_subquery(
                sea_orm::sea_query::Query::select()
                    .column(policy::Column::ToolUuid)
                    .from(policy::Entity)
                    .to_owned(),
            ),
        )
        .into_tuple()
        .all(connection)
        .await?;
    let names: HashMap<Uuid, String> = names.into_iter().collect();
    let mut policies: HashMap<Uuid, Vec<ToolPolicy>> = HashMap::new();
    for row in rows {
        let namespace = row.namespace_uuid;
        let name = names.get(&row.tool_uuid).cloned().unwrap_or_default();
        policies.entry(namespace).or_default().push(policy_of(row, name)?);
    }
    Ok(policies)
}

fn policy_of(row: policy::Model, tool_name: String) -> Result<ToolPolicy, StoreError> {
    Ok(ToolPolicy {
        tool: row.tool_uuid,
        server: row.mcp_server_uuid,
        tool_name,
        status: Status::stored("namespace_tool_mappings.status", &row.status)?,
        override_name: row.override_name,
        override_title: row.override_title,
        override_description: row.override_description,
        override_annotations: row.override_annotations,
    })
}

/// Refuses a name that was given to another tool of the members. What was decided about a server
/// that has left stands against nobody.
async fn refuse_given(
    connection: &impl ConnectionTrait,
    namespace: Uuid,
    tool: Uuid,
    name: &str,
) -> Result<(), StoreError> {
    let members = sea_orm::sea_query::Query::select()
        .column(namespace_server_mapping::Column::McpServerUuid)
        .from(namespace_server_mapping::Entity)
        .and_where(namespace_server_mapping::Column::NamespaceUuid.eq(namespace))
        .to_owned();
    let holder = policy::Entity::find()
        .filter(policy::Column::NamespaceUuid.eq(namespace))
        .filter(policy::Column::OverrideName.eq(name))
        .filter(policy::Column::ToolUuid.ne(tool))
        .filter(policy::Column::McpServerUuid.in_subquery(members))
        .one(connection)
        .await?;
    let Some(holder) = holder else { return Ok(()) };
    let tool = tool::Entity::find_by_id(holder.tool_uuid).one(connection).await?;
    let server = mcp_server::Entity::find_by_id(holder.mcp_server_uuid).one(connection).await?;
    Err(StoreError::ToolNameTaken {
        name: name.to_owned(),
        server: server.map(|server| server.name).unwrap_or_default(),
        tool: tool.map(|tool| tool.name).unwrap_or_default(),
    })
}

fn check(patch: &ToolPolicyPatch) -> Result<(), StoreError> {
    let mut problems = Vec::new();
    let texts = [
        ("override_title", &patch.override_title),
        ("override_description", &patch.override_description),
    ];
    let name = patch.override_name.as_ref().and_then(Option::as_deref);
    if name.is_some_and(|name| !is_callable(name)) {
        let problem = Problem::new("override_name", "not a name that every client takes");
        problems.push(problem.accepted("1 to 64 letters, digits, `_` and `-`, or null"));
    }
    for (field, text) in texts {
        problems.extend(refuse_nul(field, text.as_ref().and_then(Option::as_deref)));
    }
    let annotations = patch.override_annotations.as_ref().and_then(Option::as_ref);
    if annotations.is_some_and(|annotations| !annotations.is_object()) {
        problems.push(
            Problem::new("override_annotations", "not an object").accepted("an object or null"),
        );
    }
    if annotations.is_some_and(|annotations| annotations.get("annotations").is_some()) {
        let problem = Problem::new("override_annotations", "holds a second `annotations`");
        problems.push(problem.accepted("the members of the annotations themselves"));
    }
    if annotations.is_some_and(|annotations| annotations.to_string().contains("\\u0000")) {
        problems.push(Problem::new("override_annotations", "holds a NUL character"));
    }
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Invalid(problems)) }
}

/// `^[A-Za-z0-9_-]{1,64}$`: what every known model API takes for a tool's name.
fn is_callable(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{group, listed, members, no_one, on_both, process, refused};

    #[tokio::test]
    async fn a_decision_about_a_tool_survives_whatever_happens_around_it() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap();
            let namespace = store.create_namespace(group("all", &[&server])).await.unwrap().uuid;
            store.upsert_tools(server.uuid, &[listed("read")], now()).await.unwrap();
            let tool = store.tools_of(server.uuid).await.unwrap()[0].uuid;
            assert!(store.policies(namespace).await.unwrap().is_empty());

            let off = ToolPolicyPatch {
                status: Some(Status::Inactive),
                override_name: Some(Some("look".to_owned())),
                override_annotations: Some(Some(serde_json::json!({"readOnlyHint": true}))),
                ..ToolPolicyPatch::default()
            };
            let decided = store.patch_policy(namespace, tool, off).await.unwrap();
            assert_eq!((decided.tool_name.as_str(), decided.status), ("read", Status::Inactive));

            store.upsert_tools(server.uuid, &[], now()).await.unwrap();
            store.upsert_tools(server.uuid, &[listed("read")], now()).await.unwrap();
            store.set_members(namespace, &[]).await.unwrap();
            store.set_members(namespace, &members(&[&server])).await.unwrap();
            let kept = store.policies(namespace).await.unwrap();
            assert_eq!(kept, std::slice::from_ref(&decided));

            let clear = ToolPolicyPatch { override_name: Some(None), ..ToolPolicyPatch::default() };
            let cleared = store.patch_policy(namespace, tool, clear).await.unwrap();
            assert_eq!(cleared, ToolPolicy { override_name: None, ..decided });
            let unchanged = ToolPolicyPatch::default();
            assert_eq!(store.patch_policy(namespace, tool, unchanged).await.unwrap(), cleared);
        })
        .await;
    }

    #[tokio::test]
    async fn only_tools_of_members_are_decided_about() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap();
            let namespace = store.create_namespace(group("all", &[])).await.unwrap().uuid;
            store.upsert_tools(server.uuid, &[listed("read")], now()).await.unwrap();
            let tool = store.tools_of(server.uuid).await.unwrap()[0].uuid;
            let patch = ToolPolicyPatch::default;
            for (namespace, tool) in [(namespace, tool), (namespace, no_one()), (no_one(), tool)] {
                let refused = store.patch_policy(namespace, tool, patch()).await;
                assert!(matches!(refused, Err(StoreError::NotFound { .. })));
            }
            let nul = serde_json::json!({"a": "\0"});
            let nested = serde_json::json!({"annotations": {"a": 1}});
            for annotations in [serde_json::json!([1]), nul, nested] {
                let patch = ToolPolicyPatch {
                    override_annotations: Some(Some(annotations)),
                    ..ToolPolicyPatch::default()
                };
                let refusal = store.patch_policy(namespace, tool, patch).await;
                assert_eq!(refused(refusal), ["override_annotations"]);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_chosen_name_is_one_that_every_client_takes_and_nobody_else_has() {
        on_both(async |store| {
            let files = store.create_server(process("files")).await.unwrap();
            let web = store.create_server(process("web")).await.unwrap();
            let space = store.create_namespace(group("all", &[&files, &web])).await.unwrap().uuid;
            let mut tools = Vec::new();
            for server in [&files, &web] {
                store.upsert_tools(server.uuid, &[listed("read")], now()).await.unwrap();
                tools.push(store.tools_of(server.uuid).await.unwrap()[0].uuid);
            }
            let named = |name: &str| ToolPolicyPatch {
                override_name: Some(Some(name.to_owned())),
                ..ToolPolicyPatch::default()
            };
            let longest = "x".repeat(64);
            for name in ["", "a b", "a.b", "ä", "a/b", "a\0", &format!("{longest}x")] {
                let refusal = store.patch_policy(space, tools[0], named(name)).await;
                assert_eq!(refused(refusal), ["override_name"], "{name}");
            }
            for name in [longest.as_str(), "look", "look"] {
                store.patch_policy(space, tools[0], named(name)).await.unwrap();
            }
            let taken = store.patch_policy(space, tools[1], named("look")).await.unwrap_err();
            assert_eq!(taken.to_string(), "the name `look` is that of the tool `read` of `files`");

            store.set_members(space, &members(&[&web])).await.unwrap();
            store.patch_policy(space, tools[1], named("look")).await.unwrap();
        })
        .await;
    }
}
