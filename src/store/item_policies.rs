//! What was decided about single prompts, resources and templates in a namespace: whether they are
//! used. One that nothing was decided about is.

use std::collections::{HashMap, HashSet};

use entity::{item, namespace, namespace_item_mapping as policy, namespace_server_mapping};
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
};
use uuid::Uuid;

use super::error::StoreError;
use super::rules::Problem;
use super::words::{ItemKind, Status};
use super::{Store, now};

/// What was decided about one of them in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemPolicy {
    pub item: Uuid,
    pub server: Uuid,
    pub kind: ItemKind,
    /// The server's own name, URI or template.
    pub key: String,
    pub status: Status,
}

impl Store {
    pub async fn item_policies(&self, namespace: Uuid) -> Result<Vec<ItemPolicy>, StoreError> {
        let snapshot = self.snapshot().await?;
        let mut policies = all(&snapshot, Some(namespace)).await?;
        Ok(policies.remove(&namespace).unwrap_or_default())
    }

    /// Decides about many of one kind of the namespace's servers, all of them or none, and answers
    /// how many have another status now.
    ///
    /// # Errors
    /// `Invalid` with every one that is named twice or is none of the namespace's.
    pub async fn set_item_statuses(
        &self,
        namespace: Uuid,
        kind: ItemKind,
        wanted: &[(Uuid, Status)],
    ) -> Result<usize, StoreError> {
        let transaction = self.write().await?;
        if namespace::Entity::find_by_id(namespace).one(&transaction).await?.is_none() {
            return Err(StoreError::not_found("namespace", namespace));
        }
        let servers = of_members(&transaction, namespace, kind).await?;
        refuse(wanted, &servers)?;
        let decided: HashMap<Uuid, Status> = all(&transaction, Some(namespace))
            .await?
            .remove(&namespace)
            .unwrap_or_default()
            .into_iter()
            .map(|policy| (policy.item, policy.status))
            .collect();

        let mut changed = 0;
        for status in Status::ALL.iter().copied() {
            let items =
                || wanted.iter().filter(|(_, wanted)| *wanted == status).map(|(one, _)| *one);
            let was = |one: &Uuid| decided.get(one).copied();
            changed += items().filter(|one| was(one).unwrap_or(Status::Active) != status).count();
            let other: Vec<Uuid> =
                items().filter(|one| was(one).is_some_and(|was| was != status)).collect();
            for other in other.chunks(ROWS_AT_ONCE) {
                policy::Entity::update_many()
                    .col_expr(policy::Column::Status, Expr::value(status.as_str()))
                    .filter(policy::Column::NamespaceUuid.eq(namespace))
                    .filter(policy::Column::ItemUuid.is_in(other.iter().copied()))
                    .exec(&transaction)
                    .await?;
            }
            let fresh: Vec<policy::ActiveModel> = items()
                .filter(|one| was(one).is_none())
                .filter_map(|one| {
                    let row = policy::Model {
                        uuid: Uuid::now_v7(),
                        namespace_uuid: namespace,
                        item_uuid: one,
                        mcp_server_uuid: *servers.get(&one)?,
                        status: status.as_str().to_owned(),
                        created_at: now(),
                    };
                    Some(row.into_active_model())
                })
                .collect();
            for rows in fresh.chunks(ROWS_AT_ONCE) {
                policy::Entity::insert_many(rows.iter().cloned())
                    .exec_without_returning(&transaction)
                    .await?;
            }
        }
        transaction.commit().await?;
        Ok(changed)
    }
}

/// By namespace: of one, or of all.
pub(super) async fn all(
    connection: &impl ConnectionTrait,
    only: Option<Uuid>,
) -> Result<HashMap<Uuid, Vec<ItemPolicy>>, StoreError> {
    let mut rows = policy::Entity::find();
    let mut decided = Query::select();
    decided.column(policy::Column::ItemUuid).from(policy::Entity);
    if let Some(only) = only {
        rows = rows.filter(policy::Column::NamespaceUuid.eq(only));
        decided.and_where(policy::Column::NamespaceUuid.eq(only));
    }
    let rows = rows.all(connection).await?;
    let items: Vec<(Uuid, String, String)> = item::Entity::find()
        .select_only()
        .columns([item::Column::Uuid, item::Column::Kind, item::Column::Key])
        .filter(item::Column::Uuid.in_subquery(decided))
        .into_tuple()
        .all(connection)
        .await?;
    let items: HashMap<Uuid, (String, String)> =
        items.into_iter().map(|(uuid, kind, key)| (uuid, (kind, key))).collect();
    let mut policies: HashMap<Uuid, Vec<ItemPolicy>> = HashMap::new();
    for row in rows {
        let Some((kind, key)) = items.get(&row.item_uuid) else { continue };
        policies.entry(row.namespace_uuid).or_default().push(ItemPolicy {
            item: row.item_uuid,
            server: row.mcp_server_uuid,
            kind: ItemKind::stored("items.kind", kind)?,
            key: key.clone(),
            status: Status::stored("namespace_item_mappings.status", &row.status)?,
        });
    }
    Ok(policies)
}

/// Items with their servers.
async fn of_members(
    connection: &impl ConnectionTrait,
    namespace: Uuid,
    kind: ItemKind,
) -> Result<HashMap<Uuid, Uuid>, StoreError> {
    let members = Query::select()
        .column(namespace_server_mapping::Column::McpServerUuid)
        .from(namespace_server_mapping::Entity)
        .and_where(namespace_server_mapping::Column::NamespaceUuid.eq(namespace))
        .to_owned();
    let items: Vec<(Uuid, Uuid)> = item::Entity::find()
        .select_only()
        .columns([item::Column::Uuid, item::Column::McpServerUuid])
        .filter(item::Column::McpServerUuid.in_subquery(members))
        .filter(item::Column::Kind.eq(kind.as_str()))
        .into_tuple()
        .all(connection)
        .await?;
    Ok(items.into_iter().collect())
}

fn refuse(wanted: &[(Uuid, Status)], items: &HashMap<Uuid, Uuid>) -> Result<(), StoreError> {
    let mut seen = HashSet::new();
    let mut problems = Vec::new();
    for (index, (one, _)) in wanted.iter().enumerate() {
        let reason = match items.contains_key(one) {
            false => "none of this namespace",
            true if !seen.insert(one) => "named twice",
            true => continue,
        };
        let problem = Problem::new(format!("[{index}].uuid"), reason);
        problems.push(problem.accepted("a uuid, as the list of them has it"));
    }
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Invalid(problems)) }
}

/// Keeps a statement well below the number of parameters either database takes.
const ROWS_AT_ONCE: usize = 500;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{group, listed_item, members, no_one, on_both, process, refused};

    #[tokio::test]
    async fn a_decision_survives_whatever_happens_around_it() {
        use Status::{Active, Inactive};
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap();
            let space = store.create_namespace(group("all", &[&server])).await.unwrap().uuid;
            let (kind, all) = (ItemKind::Resource, ["u://a", "u://b"].map(listed_item));
            store.upsert_items(server.uuid, kind, &all).await.unwrap();
            let items = store.items(server.uuid, kind).await;
            let wanted = [(items[0].uuid, Inactive), (items[1].uuid, Active)];
            assert_eq!(store.set_item_statuses(space, kind, &wanted).await.unwrap(), 1);
            assert_eq!(store.set_item_statuses(space, kind, &wanted).await.unwrap(), 0);

            store.upsert_items(server.uuid, kind, &[]).await.unwrap();
            store.upsert_items(server.uuid, kind, &all).await.unwrap();
            store.set_members(space, &[]).await.unwrap();
            store.set_members(space, &members(&[&server])).await.unwrap();
            let mut kept = store.item_policies(space).await.unwrap();
            kept.sort_by(|one, other| one.key.cmp(&other.key));
            let kept: Vec<_> =
                kept.iter().map(|policy| (policy.kind, &*policy.key, policy.status)).collect();
            assert_eq!(kept, [(kind, "u://a", Inactive), (kind, "u://b", Active)]);

            let back = [(items[0].uuid, Active)];
            assert_eq!(store.set_item_statuses(space, kind, &back).await.unwrap(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn only_what_members_offer_of_that_kind_is_decided_about() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap();
            let space = store.create_namespace(group("all", &[&server])).await.unwrap().uuid;
            let kind = ItemKind::Prompt;
            store.upsert_items(server.uuid, kind, &[listed_item("p")]).await.unwrap();
            let prompt = store.items(server.uuid, kind).await[0].uuid;
            let status = Status::Inactive;
            let bad = [(prompt, status), (no_one(), status), (prompt, status)];
            let refusal = store.set_item_statuses(space, kind, &bad).await;
            assert_eq!(refused(refusal), ["[1].uuid", "[2].uuid"]);
            let other = store.set_item_statuses(space, ItemKind::Resource, &bad[..1]).await;
            assert_eq!(refused(other), ["[0].uuid"]);
            assert!(store.item_policies(space).await.unwrap().is_empty());
            let missing = store.set_item_statuses(no_one(), kind, &[]).await;
            assert!(matches!(missing, Err(StoreError::NotFound { what: "namespace", .. })));
        })
        .await;
    }
}
