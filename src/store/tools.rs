//! What each server was last seen to offer.
//!
//! Tools are kept by server and name: uuid, status and overrides survive every listing. One that
//! is no longer offered is marked, not removed, because it may come back.

use std::collections::HashMap;

use entity::{mcp_server, tool};
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, Select,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::StoreError;
use super::offered::{Difference, Marks, Offered, difference, insert, mark_vanished};
use super::rules::keepable;
use super::{Store, kept, now};

/// A tool as a listing brought it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedTool {
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub input_schema_json: String,
    /// The tool object as it came, byte for byte.
    pub definition: String,
}

/// A tool as the last good catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTool {
    pub name: String,
    pub definition: String,
}

/// A tool with everything we know of it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Tool {
    pub uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    /// As the database keeps JSON: the order of keys may differ from what came.
    pub tool_schema: Value,
    /// The tool object as it came, byte for byte.
    pub definition: String,
    pub position: i32,
    /// Since when it is no longer offered.
    #[serde(with = "time::serde::rfc3339::option")]
    pub vanished_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A tool as the lists of namespaces show it.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct ToolOutline {
    pub uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub vanished_at: Option<OffsetDateTime>,
}

impl Store {
    pub async fn outline(&self, uuid: Uuid) -> Result<ToolOutline, StoreError> {
        outlines()
            .filter(tool::Column::Uuid.eq(uuid))
            .into_model::<ToolOutline>()
            .one(self.reader())
            .await?
            .ok_or_else(|| StoreError::not_found("tool", uuid))
    }

    /// The tools of all servers that are named, each server's in its own order; what has vanished
    /// comes last.
    pub async fn outlines_of(
        &self,
        servers: impl IntoIterator<Item = Uuid>,
    ) -> Result<HashMap<Uuid, Vec<ToolOutline>>, StoreError> {
        let rows = outlines()
            .filter(tool::Column::McpServerUuid.is_in(servers))
            .order_by_asc(tool::Column::Position)
            .order_by_asc(tool::Column::Uuid)
            .into_model::<ToolOutline>()
            .all(self.reader())
            .await?;
        let (offered, vanished): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.vanished_at.is_none());
        let mut outlines: HashMap<Uuid, Vec<ToolOutline>> = HashMap::new();
        for row in offered.into_iter().chain(vanished) {
            outlines.entry(row.mcp_server_uuid).or_default().push(row);
        }
        Ok(outlines)
    }

    /// In the order of the server; what has vanished comes last.
    pub async fn tools_of(&self, server: Uuid) -> Result<Vec<Tool>, StoreError> {
        let rows = tool::Entity::find()
            .filter(tool::Column::McpServerUuid.eq(server))
            .order_by_asc(tool::Column::Position)
            .order_by_asc(tool::Column::Uuid)
            .all(self.reader())
            .await?;
        let (offered, vanished): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.vanished_at.is_none());
        Ok(offered.into_iter().chain(vanished).map(tool_of).collect())
    }

    /// Takes a complete listing of a server, in its order. Of two tools with one name the first
    /// counts.
    #[cfg(test)]
    pub async fn upsert_tools(
        &self,
        server: Uuid,
        listed: &[ListedTool],
        at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        if mcp_server::Entity::find_by_id(server).one(&transaction).await?.is_none() {
            return Err(StoreError::not_found("server", server));
        }
        upsert(&transaction, server, listed, at).await?;
        transaction.commit().await?;
        Ok(())
    }
}

fn outlines() -> Select<tool::Entity> {
    tool::Entity::find().select_only().columns([
        tool::Column::Uuid,
        tool::Column::McpServerUuid,
        tool::Column::Name,
        tool::Column::Title,
        tool::Column::Description,
        tool::Column::VanishedAt,
    ])
}

/// The server has to exist.
pub(super) async fn upsert(
    connection: &impl ConnectionTrait,
    server: Uuid,
    listed: &[ListedTool],
    at: OffsetDateTime,
) -> Result<(), StoreError> {
    let at = kept(at);
    let known =
        tool::Entity::find().filter(tool::Column::McpServerUuid.eq(server)).all(connection).await?;
    let rows = listed.iter().enumerate().map(|(position, tool)| row_of(tool, server, position, at));
    let Difference { added, changed, vanished } = difference(known, rows);
    for (uuid, row) in changed {
        let changed = tool::ActiveModel {
            uuid: Unchanged(uuid),
            title: Set(row.title),
            description: Set(row.description),
            tool_schema: Set(row.tool_schema),
            definition: Set(row.definition),
            position: Set(row.position),
            vanished_at: Set(None),
            updated_at: Set(at),
            ..Default::default()
        };
        changed.update(connection).await?;
    }
    insert::<tool::Entity, _>(connection, added).await?;
    let marks = Marks {
        uuid: tool::Column::Uuid,
        vanished_at: tool::Column::VanishedAt,
        updated_at: tool::Column::UpdatedAt,
    };
    mark_vanished::<tool::Entity>(connection, marks, &vanished, at).await?;
    mcp_server::Entity::update_many()
        .col_expr(mcp_server::Column::ToolsListedAt, Expr::value(at))
        .filter(mcp_server::Column::Uuid.eq(server))
        .exec(connection)
        .await?;
    Ok(())
}

fn row_of(tool: &ListedTool, server: Uuid, position: usize, at: OffsetDateTime) -> tool::Model {
    let created_at = now();
    tool::Model {
        uuid: Uuid::now_v7(),
        mcp_server_uuid: server,
        name: keepable(&tool.name),
        title: tool.title.as_deref().map(keepable),
        description: tool.description.as_deref().map(keepable),
        tool_schema: schema_of(&tool.input_schema_json),
        definition: keepable(&tool.definition),
        position: i32::try_from(position).unwrap_or(i32::MAX),
        vanished_at: None,
        created_at,
        updated_at: at,
    }
}

impl Offered for tool::Model {
    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn key(&self) -> &str {
        &self.name
    }

    fn listed_as(&self) -> (&str, i32) {
        (&self.definition, self.position)
    }

    fn has_vanished(&self) -> bool {
        self.vanished_at.is_some()
    }
}

/// The column serves queries only, so that a schema which no JSON column can hold (too deep, a
/// number out of range) is left out of it rather than refused with its tool.
fn schema_of(text: &str) -> Value {
    fn keep(value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(keepable(&text)),
            Value::Array(items) => Value::Array(items.into_iter().map(keep).collect()),
            Value::Object(fields) => Value::Object(
                fields.into_iter().map(|(name, value)| (keepable(&name), keep(value))).collect(),
            ),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
        }
    }
    serde_json::from_str(text).map_or(Value::Null, keep)
}

fn tool_of(row: tool::Model) -> Tool {
    Tool {
        uuid: row.uuid,
        mcp_server_uuid: row.mcp_server_uuid,
        name: row.name,
        title: row.title,
        description: row.description,
        tool_schema: row.tool_schema,
        definition: row.definition,
        position: row.position,
        vanished_at: row.vanished_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{listed, no_one, on_both, process};

    #[tokio::test]
    async fn tools_keep_their_order_and_their_bytes() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let tools = ["write", "append", "read"].map(listed);
            store.upsert_tools(server, &tools, now()).await.unwrap();

            let kept = store.tools_of(server).await.unwrap();
            for (kept, listed) in kept.iter().zip(&tools) {
                assert_eq!(kept.name, listed.name);
                assert_eq!(kept.definition, listed.definition);
                assert_eq!(kept.description, listed.description);
                assert_eq!(kept.tool_schema, serde_json::json!({"type": "object"}));
            }
            assert_eq!(kept.len(), 3);
        })
        .await;
    }

    #[tokio::test]
    async fn a_tool_that_vanishes_is_kept_and_is_the_same_when_it_comes_back() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            store.upsert_tools(server, &["a", "b", "c"].map(listed), now()).await.unwrap();
            let before = store.tools_of(server).await.unwrap();

            store.upsert_tools(server, &["c", "a"].map(listed), now()).await.unwrap();
            let without = store.tools_of(server).await.unwrap();
            let names: Vec<&str> = without.iter().map(|tool| tool.name.as_str()).collect();
            assert_eq!(names, ["c", "a", "b"]);
            let vanished: Vec<bool> =
                without.iter().map(|tool| tool.vanished_at.is_some()).collect();
            assert_eq!(vanished, [false, false, true]);
            let heads = store.outlines_of([server, no_one()]).await.unwrap();
            let heads: Vec<_> =
                heads[&server].iter().map(|head| (head.uuid, head.vanished_at)).collect();
            let tools: Vec<_> = without.iter().map(|tool| (tool.uuid, tool.vanished_at)).collect();
            assert_eq!(heads, tools);

            let mut changed = listed("b");
            changed.title = Some("Bee".to_owned());
            changed.definition.push(' ');
            let tools = [listed("a"), changed, listed("c")];
            store.upsert_tools(server, &tools, now()).await.unwrap();
            let after = store.tools_of(server).await.unwrap();
            let uuids = |tools: &[Tool]| tools.iter().map(|tool| tool.uuid).collect::<Vec<_>>();
            assert_eq!(uuids(&after), uuids(&before));
            assert_eq!(after[1].title.as_deref(), Some("Bee"));
            assert!(after.iter().all(|tool| tool.vanished_at.is_none()));
        })
        .await;
    }

    #[tokio::test]
    async fn a_tool_that_comes_back_unchanged_has_not_vanished() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            for listing in [vec!["a", "b"], vec!["a"], vec!["a", "b"]] {
                let tools: Vec<ListedTool> = listing.into_iter().map(listed).collect();
                store.upsert_tools(server, &tools, now()).await.unwrap();
            }
            let tools = store.tools_of(server).await.unwrap();
            assert!(tools.iter().all(|tool| tool.vanished_at.is_none()));
        })
        .await;
    }

    #[tokio::test]
    async fn a_listing_that_brings_nothing_new_touches_no_tool() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap();
            let tools = ["a", "b"].map(listed);
            store.upsert_tools(server.uuid, &tools, now()).await.unwrap();
            let before = store.tools_of(server.uuid).await.unwrap();
            let listed_at = now();

            store.upsert_tools(server.uuid, &tools, listed_at).await.unwrap();

            assert_eq!(store.tools_of(server.uuid).await.unwrap(), before);
            let after = store.server("files").await.unwrap();
            assert_eq!(after.tools_listed_at, Some(listed_at));
            assert_eq!(after.updated_at, server.updated_at, "a listing is no configuration");
        })
        .await;
    }

    #[tokio::test]
    async fn hostile_tools_are_kept_without_harm() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let mut twice = listed("a");
            twice.description = Some("an impostor".to_owned());
            let mut nul = listed("nul\0name");
            nul.description = Some("a\0b".to_owned());
            nul.input_schema_json = r#"{"a\u0000":["\u0000"]}"#.to_owned();
            let mut deep = listed("deep");
            deep.input_schema_json = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
            let mut broken = listed("broken");
            broken.input_schema_json = "1e999".to_owned();
            let many = (0..1_200).map(|number| listed(&format!("tool-{number}")));
            let tools: Vec<ListedTool> =
                [listed("a"), twice, nul, deep, broken].into_iter().chain(many).collect();

            store.upsert_tools(server, &tools, now()).await.unwrap();
            store.upsert_tools(server, &tools, now()).await.unwrap();

            let kept = store.tools_of(server).await.unwrap();
            assert_eq!(kept.len(), 1_204);
            assert_eq!(kept[0].description.as_deref(), Some("does a"));
            assert_eq!(kept[1].name, "nul\u{fffd}name");
            assert_eq!(kept[2].tool_schema, Value::Null);
        })
        .await;
    }

    #[tokio::test]
    async fn tools_of_no_server_are_not_taken() {
        on_both(async |store| {
            let refused = store.upsert_tools(no_one(), &[], now()).await;
            assert!(matches!(refused, Err(StoreError::NotFound { what: "server", .. })));
        })
        .await;
    }
}
