//! Changes several servers in one transaction: all of them or none.

use entity::mcp_server;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect};
use uuid::Uuid;

use super::error::StoreError;
use super::{Store, now};

impl Store {
    /// Switches several on or off: all of them, or none when one is missing.
    pub async fn enable_servers(&self, uuids: &[Uuid], enabled: bool) -> Result<(), StoreError> {
        use mcp_server::Column;

        let transaction = self.write().await?;
        refuse_missing(&transaction, uuids).await?;
        mcp_server::Entity::update_many()
            .col_expr(Column::Enabled, Expr::value(enabled))
            .col_expr(Column::UpdatedAt, Expr::value(now()))
            .filter(Column::Uuid.is_in(uuids.iter().copied()))
            .filter(Column::Enabled.ne(enabled))
            .exec(&transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Removes several as [`Store::delete_server`] does one: all of them, or none when one is missing.
    pub async fn delete_servers(&self, uuids: &[Uuid]) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        refuse_missing(&transaction, uuids).await?;
        mcp_server::Entity::delete_many()
            .filter(mcp_server::Column::Uuid.is_in(uuids.iter().copied()))
            .exec(&transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// # Errors
/// `NotFound` for the first server that is not there.
async fn refuse_missing(
    connection: &impl ConnectionTrait,
    uuids: &[Uuid],
) -> Result<(), StoreError> {
    let known: Vec<Uuid> = mcp_server::Entity::find()
        .select_only()
        .column(mcp_server::Column::Uuid)
        .filter(mcp_server::Column::Uuid.is_in(uuids.iter().copied()))
        .into_tuple()
        .all(connection)
        .await?;
    match uuids.iter().find(|uuid| !known.contains(uuid)) {
        Some(missing) => Err(StoreError::not_found("server", missing)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{group, no_one, on_both, process};
    use crate::store::{PageRequest, ServerFilter};

    async fn enabled(store: &Store) -> Vec<(String, bool)> {
        let page = store.servers(&ServerFilter::default(), &PageRequest::default()).await.unwrap();
        page.items.into_iter().map(|server| (server.name, server.enabled)).collect()
    }

    #[tokio::test]
    async fn several_servers_are_switched_or_deleted_together_or_not_at_all() {
        on_both(async |store| {
            let mut servers = Vec::new();
            for name in ["a", "b", "c"] {
                servers.push(store.create_server(process(name)).await.unwrap());
            }
            store.create_namespace(group("all", &[&servers[0], &servers[2]])).await.unwrap();
            let [a, b, c] = [0, 1, 2].map(|index: usize| servers[index].uuid);
            let named = |rows: [(&str, bool); 3]| rows.map(|(name, on)| (name.to_owned(), on));

            store.enable_servers(&[a, c], false).await.unwrap();
            let off = named([("a", false), ("b", true), ("c", false)]);
            assert_eq!(enabled(&store).await, off);
            let untouched = store.server("b").await.unwrap();
            assert_eq!(untouched.updated_at, servers[1].updated_at);

            for refused in [
                store.enable_servers(&[a, no_one()], true).await,
                store.delete_servers(&[b, no_one()]).await,
            ] {
                assert!(matches!(refused, Err(StoreError::NotFound { what: "server", .. })));
            }
            assert_eq!(enabled(&store).await, off);

            store.delete_servers(&[a, b]).await.unwrap();
            assert_eq!(enabled(&store).await, [("c".to_owned(), false)]);
            let namespace = store.namespace("all").await.unwrap();
            assert_eq!(namespace.servers.len(), 1, "memberships go with their servers");
        })
        .await;
    }
}
