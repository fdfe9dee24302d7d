//! Settings that are changed at run time, by key. What a key means and which values it takes is
//! known to those who read it.

use std::collections::BTreeMap;

use entity::config;
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::{ActiveModelTrait, ConnectionTrait, EntityTrait, IntoActiveModel};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::error::StoreError;
use super::rules::{Problem, refuse_nul};
use super::{Store, now};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConfigValue {
    pub value: String,
    pub description: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

impl Store {
    pub async fn config(&self) -> Result<BTreeMap<String, ConfigValue>, StoreError> {
        values(self.reader()).await
    }

    /// Sets a key; None removes it, which gives it its default again.
    pub async fn put_config(&self, key: &str, value: Option<&str>) -> Result<(), StoreError> {
        let mut problems = Vec::new();
        if key.is_empty() || key.len() > 200 {
            problems.push(Problem::new("key", "too short or too long").accepted("1 to 200 bytes"));
        }
        problems.extend(refuse_nul("key", Some(key)));
        problems.extend(refuse_nul("value", value));
        if !problems.is_empty() {
            return Err(StoreError::Invalid(problems));
        }

        let transaction = self.write().await?;
        let before = config::Entity::find_by_id(key).one(&transaction).await?;
        match (before, value) {
            (None, None) => {}
            (Some(_), None) => {
                config::Entity::delete_by_id(key).exec(&transaction).await?;
            }
            (Some(before), Some(value)) => {
                let changed = config::ActiveModel {
                    id: Unchanged(before.id),
                    value: Set(value.to_owned()),
                    updated_at: Set(now()),
                    ..Default::default()
                };
                changed.update(&transaction).await?;
            }
            (None, Some(value)) => {
                let at = now();
                let added = config::Model {
                    id: key.to_owned(),
                    value: value.to_owned(),
                    description: None,
                    created_at: at,
                    updated_at: at,
                };
                added.into_active_model().insert(&transaction).await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }
}

pub(super) async fn values(
    connection: &impl ConnectionTrait,
) -> Result<BTreeMap<String, ConfigValue>, StoreError> {
    let rows = config::Entity::find().all(connection).await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let value = ConfigValue {
                value: row.value,
                description: row.description,
                updated_at: row.updated_at,
            };
            (row.id, value)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::store::testing::{on_both, refused};

    #[tokio::test]
    async fn a_key_is_set_changed_and_given_its_default_again() {
        on_both(async |store| {
            store.put_config("MCP_TIMEOUT", Some("60000")).await.unwrap();
            store.put_config("MCP_TIMEOUT", Some("1000")).await.unwrap();
            store.put_config("OTHER", None).await.unwrap();
            let config = store.config().await.unwrap();
            assert_eq!(config.len(), 1);
            assert_eq!(config["MCP_TIMEOUT"].value, "1000");

            store.put_config("MCP_TIMEOUT", None).await.unwrap();
            assert!(store.config().await.unwrap().is_empty());
            assert_eq!(refused(store.put_config("", Some("\0")).await), ["key", "value"]);
        })
        .await;
    }
}
