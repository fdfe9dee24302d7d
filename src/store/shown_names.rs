//! The names under which a namespace shows its tools and its prompts, and the URIs of what several of
//! its servers have, kept so that they stay the same for ever.
//!
//! Which name one gets is decided by the catalogue; here it is only remembered.

use std::collections::{HashMap, HashSet};

use entity::{mcp_server, shown_name};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::StoreError;
use super::now;
use super::rules::keepable;
use super::words::{ItemKind, Naming};

/// That something is shown by a name or a URI, and under which naming that was given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ShownName {
    pub server: Uuid,
    pub kind: ItemKind,
    /// The server's own name for it, or its own URI or template.
    pub tool_name: String,
    pub shown_name: String,
    pub naming: Naming,
}

/// Makes the names of one kind exactly these. The namespace has to exist; names of servers that do
/// not are left out.
pub(super) async fn put(
    connection: &impl ConnectionTrait,
    namespace: Uuid,
    kind: ItemKind,
    names: &[ShownName],
) -> Result<(), StoreError> {
    let present = shown_name::Entity::find()
        .filter(shown_name::Column::NamespaceUuid.eq(namespace))
        .filter(shown_name::Column::Kind.eq(kind.as_str()))
        .all(connection)
        .await?;
    let servers: HashSet<Uuid> = names.iter().map(|name| name.server).collect();
    let servers: HashSet<Uuid> = mcp_server::Entity::find()
        .select_only()
        .column(mcp_server::Column::Uuid)
        .filter(mcp_server::Column::Uuid.is_in(servers))
        .into_tuple::<Uuid>()
        .all(connection)
        .await?
        .into_iter()
        .collect();
    let mut wanted: HashMap<(Uuid, String), &ShownName> = names
        .iter()
        .filter(|name| servers.contains(&name.server))
        .map(|name| ((name.server, keepable(&name.tool_name)), name))
        .collect();

    let mut outdated = Vec::new();
    for row in present {
        let tool = (row.mcp_server_uuid, row.tool_name);
        let stays = wanted.get(&tool).is_some_and(|name| {
            keepable(&name.shown_name) == row.shown_name && name.naming.as_str() == row.naming
        });
        if stays {
            wanted.remove(&tool);
        } else {
            outdated.push(row.uuid);
        }
    }
    // First away, then in: two tools may have exchanged their names.
    for outdated in outdated.chunks(ROWS_AT_ONCE) {
        shown_name::Entity::delete_many()
            .filter(shown_name::Column::Uuid.is_in(outdated.iter().copied()))
            .exec(connection)
            .await?;
    }
    let created_at = now();
    let added: Vec<shown_name::Model> = wanted
        .into_iter()
        .map(|((server, tool_name), name)| shown_name::Model {
            uuid: Uuid::now_v7(),
            namespace_uuid: namespace,
            mcp_server_uuid: server,
            kind: kind.as_str().to_owned(),
            tool_name,
            shown_name: keepable(&name.shown_name),
            naming: name.naming.as_str().to_owned(),
            created_at,
        })
        .collect();
    for added in added.chunks(ROWS_AT_ONCE) {
        let added = added.iter().cloned().map(shown_name::Model::into_active_model);
        shown_name::Entity::insert_many(added).exec_without_returning(connection).await?;
    }
    Ok(())
}

/// Keeps a statement well below the number of parameters either database takes.
const ROWS_AT_ONCE: usize = 500;

pub(super) fn shown_name_of(row: shown_name::Model) -> Result<ShownName, StoreError> {
    Ok(ShownName {
        server: row.mcp_server_uuid,
        kind: ItemKind::stored("shown_names.kind", &row.kind)?,
        tool_name: row.tool_name,
        shown_name: row.shown_name,
        naming: Naming::stored("shown_names.naming", &row.naming)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::{
        Store,
        testing::{group, no_one, on_both, process},
    };
    use entity::namespace;
    use sea_orm::QueryOrder;

    // The daemon writes names by its journal, and reads those of all namespaces at once.
    impl Store {
        pub async fn shown_names(&self, namespace: Uuid) -> Result<Vec<ShownName>, StoreError> {
            let rows = shown_name::Entity::find()
                .filter(shown_name::Column::NamespaceUuid.eq(namespace))
                .order_by_asc(shown_name::Column::Uuid)
                .all(self.reader())
                .await?;
            rows.into_iter().map(shown_name_of).collect()
        }

        /// Makes the names of a namespace exactly these. What stays keeps its row.
        pub async fn put_shown_names(
            &self,
            namespace: Uuid,
            names: &[ShownName],
        ) -> Result<(), StoreError> {
            let transaction = self.write().await?;
            if namespace::Entity::find_by_id(namespace).one(&transaction).await?.is_none() {
                return Err(StoreError::not_found("namespace", namespace));
            }
            put(&transaction, namespace, ItemKind::Tool, names).await?;
            transaction.commit().await?;
            Ok(())
        }
    }

    fn name(server: Uuid, tool: &str, shown: &str) -> ShownName {
        ShownName {
            server,
            kind: ItemKind::Tool,
            tool_name: tool.to_owned(),
            shown_name: shown.to_owned(),
            naming: Naming::OnConflict,
        }
    }

    #[tokio::test]
    async fn names_are_replaced_where_they_differ() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let namespace = store.create_namespace(group("all", &[])).await.unwrap().uuid;
            let first = [name(server, "a", "x"), name(server, "b", "y"), name(server, "c", "z")];
            store.put_shown_names(namespace, &first).await.unwrap();
            let rows = async || shown_name::Entity::find().all(store.reader()).await.unwrap();
            let kept = rows().await.into_iter().find(|row| row.tool_name == "c").unwrap();

            // Two exchange their names, one stays, one comes; a stranger's is left out.
            let second = [
                name(server, "a", "y"),
                name(server, "b", "x"),
                name(server, "c", "z"),
                name(server, "d", "w"),
            ];
            let with_stranger = [&second[..], &[name(no_one(), "e", "v")]].concat();
            store.put_shown_names(namespace, &with_stranger).await.unwrap();

            let found: HashSet<ShownName> =
                store.shown_names(namespace).await.unwrap().into_iter().collect();
            assert_eq!(found, HashSet::from(second));
            assert!(rows().await.contains(&kept));
        })
        .await;
    }

    #[tokio::test]
    async fn one_name_is_not_shown_twice() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let namespace = store.create_namespace(group("all", &[])).await.unwrap().uuid;
            let twice = [name(server, "a", "x"), name(server, "b", "x")];
            store.put_shown_names(namespace, &twice).await.unwrap_err();
            assert!(store.shown_names(namespace).await.unwrap().is_empty());
            let missing = store.put_shown_names(no_one(), &[]).await;
            assert!(matches!(missing, Err(StoreError::NotFound { what: "namespace", .. })));
        })
        .await;
    }
}
