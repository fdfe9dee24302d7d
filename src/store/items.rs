//! What each server was last seen to offer besides tools: prompts, resources and their templates.
//!
//! They are kept by server, kind and key (a name, a URI, a template), as tools are by server and
//! name: what was decided about one survives every listing, and one that is no longer offered is
//! marked, not removed.

use std::collections::HashMap;

use entity::{item, item_listing, mcp_server};
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::error::StoreError;
use super::offered::{Difference, Marks, Offered, difference, insert, mark_vanished};
use super::rules::keepable;
use super::words::ItemKind;
use super::{Store, kept, now};

/// One of them, as a listing brought it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedItem {
    pub key: String,
    /// The object as it came, byte for byte.
    pub definition: String,
}

/// One of them, with everything we know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    pub kind: ItemKind,
    pub key: String,
    /// The object as it came, byte for byte.
    pub definition: String,
    /// Since when it is no longer offered.
    pub vanished_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl Store {
    /// What these servers offer of a kind, each server's in its own order; what has vanished comes
    /// last.
    pub async fn items_of(
        &self,
        servers: impl IntoIterator<Item = Uuid>,
        kind: ItemKind,
    ) -> Result<HashMap<Uuid, Vec<Item>>, StoreError> {
        let rows = item::Entity::find()
            .filter(item::Column::McpServerUuid.is_in(servers))
            .filter(item::Column::Kind.eq(kind.as_str()))
            .order_by_asc(item::Column::Position)
            .order_by_asc(item::Column::Uuid)
            .all(self.reader())
            .await?;
        let (offered, vanished): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.vanished_at.is_none());
        let mut items: HashMap<Uuid, Vec<Item>> = HashMap::new();
        for row in offered.into_iter().chain(vanished) {
            items.entry(row.mcp_server_uuid).or_default().push(item_of(row)?);
        }
        Ok(items)
    }
}

/// What a server says of its use. The server has to exist.
pub(super) async fn instruct(
    connection: &impl ConnectionTrait,
    server: Uuid,
    instructions: Option<&str>,
) -> Result<(), StoreError> {
    mcp_server::Entity::update_many()
        .col_expr(mcp_server::Column::Instructions, Expr::value(instructions.map(keepable)))
        .filter(mcp_server::Column::Uuid.eq(server))
        .exec(connection)
        .await?;
    Ok(())
}

/// Takes a complete listing of one kind, in the order of the server, which has to exist. Of two with
/// one key the first counts.
pub(super) async fn upsert(
    connection: &impl ConnectionTrait,
    server: Uuid,
    kind: ItemKind,
    listed: &[ListedItem],
    at: OffsetDateTime,
) -> Result<(), StoreError> {
    let at = kept(at);
    let known = item::Entity::find()
        .filter(item::Column::McpServerUuid.eq(server))
        .filter(item::Column::Kind.eq(kind.as_str()))
        .all(connection)
        .await?;
    let created_at = now();
    let rows = listed.iter().enumerate().map(|(position, listed)| item::Model {
        uuid: Uuid::now_v7(),
        mcp_server_uuid: server,
        kind: kind.as_str().to_owned(),
        key: keepable(&listed.key),
        definition: keepable(&listed.definition),
        position: i32::try_from(position).unwrap_or(i32::MAX),
        vanished_at: None,
        created_at,
        updated_at: at,
    });
    let Difference { added, changed, vanished } = difference(known, rows);
    for (uuid, row) in changed {
        let changed = item::ActiveModel {
            uuid: Unchanged(uuid),
            definition: Set(row.definition),
            position: Set(row.position),
            vanished_at: Set(None),
            updated_at: Set(at),
            ..Default::default()
        };
        changed.update(connection).await?;
    }
    insert::<item::Entity, _>(connection, added).await?;
    let marks = Marks {
        uuid: item::Column::Uuid,
        vanished_at: item::Column::VanishedAt,
        updated_at: item::Column::UpdatedAt,
    };
    mark_vanished::<item::Entity>(connection, marks, &vanished, at).await?;
    let listing = item_listing::Model {
        uuid: Uuid::now_v7(),
        mcp_server_uuid: server,
        kind: kind.as_str().to_owned(),
        listed_at: at,
    };
    let again =
        OnConflict::columns([item_listing::Column::McpServerUuid, item_listing::Column::Kind])
            .update_column(item_listing::Column::ListedAt)
            .to_owned();
    item_listing::Entity::insert(listing.into_active_model())
        .on_conflict(again)
        .exec_without_returning(connection)
        .await?;
    Ok(())
}

impl Offered for item::Model {
    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn key(&self) -> &str {
        &self.key
    }

    fn listed_as(&self) -> (&str, i32) {
        (&self.definition, self.position)
    }

    fn has_vanished(&self) -> bool {
        self.vanished_at.is_some()
    }
}

fn item_of(row: item::Model) -> Result<Item, StoreError> {
    Ok(Item {
        uuid: row.uuid,
        mcp_server_uuid: row.mcp_server_uuid,
        kind: ItemKind::stored("items.kind", &row.kind)?,
        key: row.key,
        definition: row.definition,
        vanished_at: row.vanished_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{listed_item, on_both, process};

    impl Store {
        pub async fn upsert_items(
            &self,
            server: Uuid,
            kind: ItemKind,
            listed: &[ListedItem],
        ) -> Result<(), StoreError> {
            let transaction = self.write().await?;
            upsert(&transaction, server, kind, listed, now()).await?;
            transaction.commit().await?;
            Ok(())
        }

        pub async fn items(&self, server: Uuid, kind: ItemKind) -> Vec<Item> {
            self.items_of([server], kind).await.unwrap().remove(&server).unwrap_or_default()
        }
    }

    #[tokio::test]
    async fn each_kind_keeps_its_order_its_bytes_and_what_has_vanished() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            for kind in [ItemKind::Prompt, ItemKind::Resource, ItemKind::ResourceTemplate] {
                let all = ["b", "a", "c"].map(listed_item);
                store.upsert_items(server, kind, &all).await.unwrap();
                let before = store.items(server, kind).await;
                for (kept, listed) in before.iter().zip(&all) {
                    assert_eq!((&kept.key, &kept.definition), (&listed.key, &listed.definition));
                }
                store.upsert_items(server, kind, &["c", "b"].map(listed_item)).await.unwrap();
                let without = store.items(server, kind).await;
                let seen: Vec<_> =
                    without.iter().map(|item| (&*item.key, item.vanished_at.is_some())).collect();
                assert_eq!(seen, [("c", false), ("b", false), ("a", true)]);

                store.upsert_items(server, kind, &all).await.unwrap();
                let after = store.items(server, kind).await;
                let uuids = |items: &[Item]| items.iter().map(|item| item.uuid).collect::<Vec<_>>();
                assert_eq!(uuids(&after), uuids(&before));
                assert!(after.iter().all(|item| item.vanished_at.is_none()));
            }
        })
        .await;
    }

    #[tokio::test]
    async fn hostile_and_many_ones_are_kept_without_harm() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let mut twice = listed_item("a");
            twice.definition = "an impostor".to_owned();
            // As random as text can be, so that no database makes it shorter.
            let long: String = (0..2_048_u32)
                .map(|number| {
                    char::from(b'!' + (number.wrapping_mul(2_654_435_761) >> 24) as u8 % 90)
                })
                .collect();
            let mut items = vec![listed_item("a"), twice, listed_item("nul\0"), listed_item(&long)];
            items.extend((0..1_200).map(|number| listed_item(&format!("u://{number}"))));
            for _ in 0..2 {
                store.upsert_items(server, ItemKind::Resource, &items).await.unwrap();
            }
            let kept = store.items(server, ItemKind::Resource).await;
            assert_eq!(kept.len(), 1_203);
            assert_eq!(kept[0].definition, listed_item("a").definition);
            assert_eq!(kept[2].key, long);
        })
        .await;
    }
}
