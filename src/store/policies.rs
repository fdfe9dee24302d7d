//! What was decided about single tools in a namespace: whether they are used, and as what.
//!
//! Policies are kept by namespace and tool, never by the name a tool is shown under. A tool without
//! a policy is ACTIVE and shown as it came.

use std::collections::HashMap;

use entity::{namespace, namespace_server_mapping, namespace_tool_mapping as policy, tool};
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
    pub async fn patch_policy(
        &self,
        namespace: Uuid,
        tool: Uuid,
        patch: ToolPolicyPatch,
    ) -> Result<ToolPolicy, StoreError> {
        check(&patch)?;
        let transaction = self.write().await?;
        if namespace::Entity::find_by_id(namespace).one(&transaction).await?.is_none() {
            return Err(StoreError::not_found("namespace", namespace));
        }
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
                    status: patch.status.unwrap_or(Status::Active).as_str().to_owned(),
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

fn check(patch: &ToolPolicyPatch) -> Result<(), StoreError> {
    let mut problems = Vec::new();
    let texts = [
        ("override_name", &patch.override_name),
        ("override_title", &patch.override_title),
        ("override_description", &patch.override_description),
    ];
    for (field, text) in texts {
        problems.extend(refuse_nul(field, text.as_ref().and_then(Option::as_deref)));
    }
    let annotations = patch.override_annotations.as_ref().and_then(Option::as_ref);
    if annotations.is_some_and(|annotations| !annotations.is_object()) {
        problems.push(
            Problem::new("override_annotations", "not an object").accepted("an object or null"),
        );
    }
    if annotations.is_some_and(|annotations| annotations.to_string().contains("\\u0000")) {
        problems.push(Problem::new("override_annotations", "holds a NUL character"));
    }
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Invalid(problems)) }
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
            for annotations in [serde_json::json!([1]), nul] {
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
}
