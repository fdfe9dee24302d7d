//! API keys: what is known of each, and a hash of its value. The value itself never comes here.
//!
//! Making and comparing values is the business of `identity`; who may come in with a key is
//! decided elsewhere, in memory.

use entity::api_key;
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect,
};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::StoreError;
use super::page::{Page, PageRequest};
use super::rules::{KeyName, Problem, refuse_nul};
use super::words::KeyKind;
use super::{Store, now};

const WHAT: &str = "API key";
const HASH_DIGITS: usize = 64;

/// A key as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ApiKey {
    pub uuid: Uuid,
    pub name: String,
    /// Enough of the value to tell it from others.
    pub hint: String,
    pub kind: KeyKind,
    /// None for what is public.
    pub user_id: Option<String>,
    pub is_active: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A key as the key ring needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    pub uuid: Uuid,
    pub name: String,
    /// Lower-case hex SHA-256 of the value.
    pub hash_hex: String,
    pub kind: KeyKind,
    pub user_id: Option<String>,
    pub is_active: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewApiKey {
    pub name: String,
    /// Lower-case hex SHA-256 of the value.
    pub hash_hex: String,
    pub hint: String,
    pub kind: KeyKind,
    pub user_id: Option<String>,
}

/// None leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKeyPatch {
    pub name: Option<String>,
    pub is_active: Option<bool>,
}

/// Which keys are asked for; every field that is given has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKeyFilter {
    pub name: Option<String>,
    pub kind: Option<KeyKind>,
    pub is_active: Option<bool>,
    /// `Some(None)` asks for what is public.
    pub user_id: Option<Option<String>>,
}

impl Store {
    /// Oldest first.
    pub async fn api_keys(&self, page: &PageRequest) -> Result<Page<ApiKey>, StoreError> {
        self.api_keys_where(&ApiKeyFilter::default(), page).await
    }

    /// Oldest first.
    pub async fn api_keys_where(
        &self,
        filter: &ApiKeyFilter,
        page: &PageRequest,
    ) -> Result<Page<ApiKey>, StoreError> {
        let limit = page.limit()?;
        let mut query = api_key::Entity::find()
            .order_by_asc(api_key::Column::Uuid)
            .limit(limit.saturating_add(1));
        if let Some(after) = page.after()? {
            query = query.filter(api_key::Column::Uuid.gt(Uuid::from_bytes(after)));
        }
        if let Some(name) = &filter.name {
            query = query.filter(api_key::Column::Name.eq(name));
        }
        if let Some(kind) = filter.kind {
            query = query.filter(api_key::Column::Kind.eq(kind.as_str()));
        }
        if let Some(is_active) = filter.is_active {
            query = query.filter(api_key::Column::IsActive.eq(is_active));
        }
        match &filter.user_id {
            Some(Some(user_id)) => query = query.filter(api_key::Column::UserId.eq(user_id)),
            Some(None) => query = query.filter(api_key::Column::UserId.is_null()),
            None => {}
        }
        let rows = query.all(self.reader()).await?;
        Page::cut(rows, limit, |row| row.uuid.into_bytes()).try_map(key_of)
    }

    /// By uuid or by name.
    ///
    /// # Errors
    /// `Ambiguous` for a name that several owners use.
    pub async fn api_key(&self, id: &str) -> Result<ApiKey, StoreError> {
        let query = api_key::Entity::find();
        let query = match Uuid::try_parse(id) {
            Ok(uuid) => query.filter(api_key::Column::Uuid.eq(uuid)),
            Err(_) => query.filter(api_key::Column::Name.eq(id)),
        };
        let mut rows = query.limit(2).all(self.reader()).await?;
        match (rows.pop(), rows.pop()) {
            (Some(row), None) => key_of(row),
            (Some(_), Some(_)) => Err(StoreError::Ambiguous { what: WHAT, name: id.to_owned() }),
            (None, _) => Err(StoreError::not_found(WHAT, id)),
        }
    }

    pub async fn create_api_key(&self, new: NewApiKey) -> Result<ApiKey, StoreError> {
        check(&new)?;
        let row = api_key::Model {
            uuid: Uuid::now_v7(),
            name: new.name.clone(),
            key: new.hash_hex,
            hint: new.hint,
            kind: new.kind.as_str().to_owned(),
            user_id: new.user_id,
            is_active: true,
            created_at: now(),
        };
        let transaction = self.write().await?;
        let is_used = api_key::Entity::find()
            .filter(api_key::Column::Key.eq(&row.key))
            .one(&transaction)
            .await?
            .is_some();
        if is_used {
            return Err(StoreError::Conflict { field: "key", value: row.hint });
        }
        let row = row
            .into_active_model()
            .insert(&transaction)
            .await
            .map_err(|error| StoreError::of_write(error, &new.name))?;
        transaction.commit().await?;
        key_of(row)
    }

    pub async fn patch_api_key(
        &self,
        uuid: Uuid,
        patch: ApiKeyPatch,
    ) -> Result<ApiKey, StoreError> {
        let transaction = self.write().await?;
        let before = api_key::Entity::find_by_id(uuid)
            .one(&transaction)
            .await?
            .ok_or_else(|| StoreError::not_found(WHAT, uuid))?;
        let name = patch.name.unwrap_or(before.name);
        KeyName::parse(&name).map_err(StoreError::invalid)?;
        let changed = api_key::ActiveModel {
            uuid: Unchanged(uuid),
            name: Set(name.clone()),
            is_active: Set(patch.is_active.unwrap_or(before.is_active)),
            ..Default::default()
        };
        let row = changed
            .update(&transaction)
            .await
            .map_err(|error| StoreError::of_write(error, &name))?;
        transaction.commit().await?;
        key_of(row)
    }

    pub async fn delete_api_key(&self, uuid: Uuid) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        let deleted = api_key::Entity::delete_by_id(uuid).exec(&transaction).await?;
        transaction.commit().await?;
        match deleted.rows_affected {
            0 => Err(StoreError::not_found(WHAT, uuid)),
            _ => Ok(()),
        }
    }

    /// Every key, active or not, for the key ring in memory.
    #[cfg(test)]
    pub async fn all_hashes(&self) -> Result<Vec<KeyRecord>, StoreError> {
        records(self.reader()).await
    }
}

pub(super) async fn records(
    connection: &impl ConnectionTrait,
) -> Result<Vec<KeyRecord>, StoreError> {
    let rows = api_key::Entity::find().order_by_asc(api_key::Column::Uuid).all(connection).await?;
    rows.into_iter()
        .map(|row| {
            Ok(KeyRecord {
                uuid: row.uuid,
                name: row.name,
                hash_hex: row.key,
                kind: KeyKind::stored("api_keys.kind", &row.kind)?,
                user_id: row.user_id,
                is_active: row.is_active,
            })
        })
        .collect()
}

fn key_of(row: api_key::Model) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        uuid: row.uuid,
        name: row.name,
        hint: row.hint,
        kind: KeyKind::stored("api_keys.kind", &row.kind)?,
        user_id: row.user_id,
        is_active: row.is_active,
        created_at: row.created_at,
    })
}

fn check(new: &NewApiKey) -> Result<(), StoreError> {
    let mut problems = Vec::new();
    problems.extend(KeyName::parse(&new.name).err());
    problems.extend(refuse_nul("user_id", new.user_id.as_deref()));
    problems.extend(refuse_nul("hint", Some(&new.hint)));
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if new.hash_hex.len() != HASH_DIGITS || !new.hash_hex.bytes().all(is_hex) {
        problems.push(Problem::new("key", "not a hash").accepted("64 lower-case hex digits"));
    }
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Invalid(problems)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{add_user, no_one, on_both, refused};

    fn key(name: &str, digit: &str) -> NewApiKey {
        NewApiKey {
            name: name.to_owned(),
            hash_hex: digit.repeat(HASH_DIGITS),
            hint: "sk_mt_ab…wxyz".to_owned(),
            kind: KeyKind::Client,
            user_id: None,
        }
    }

    #[tokio::test]
    async fn a_key_is_kept_as_its_hash() {
        on_both(async |store| {
            let admin = NewApiKey { kind: KeyKind::Admin, ..key("my laptop", "a") };
            let made = store.create_api_key(admin).await.unwrap();
            assert_eq!(store.api_key("my laptop").await.unwrap(), made);
            let page = store.api_keys(&PageRequest::default()).await.unwrap();
            assert_eq!(page.items, std::slice::from_ref(&made));
            let hashes = store.all_hashes().await.unwrap();
            let expected = KeyRecord {
                uuid: made.uuid,
                name: made.name,
                hash_hex: "a".repeat(64),
                kind: KeyKind::Admin,
                user_id: None,
                is_active: true,
            };
            assert_eq!(hashes, [expected]);

            let clear = NewApiKey { hash_hex: "sk_mt_clear".to_owned(), ..key("x", "b") };
            assert_eq!(refused(store.create_api_key(clear).await), ["key"]);
        })
        .await;
    }

    #[tokio::test]
    async fn names_and_values_are_not_used_twice() {
        on_both(async |store| {
            add_user(&store, "ann").await;
            store.create_api_key(key("one", "a")).await.unwrap();
            let taken = store.create_api_key(key("one", "b")).await;
            assert!(matches!(taken, Err(StoreError::Conflict { field: "name", .. })));
            let taken = store.create_api_key(key("two", "a")).await;
            assert!(matches!(taken, Err(StoreError::Conflict { field: "key", .. })));

            let anns = NewApiKey { user_id: Some("ann".to_owned()), ..key("one", "b") };
            store.create_api_key(anns).await.unwrap();
            assert!(matches!(store.api_key("one").await, Err(StoreError::Ambiguous { .. })));
        })
        .await;
    }

    #[tokio::test]
    async fn a_key_is_switched_off_renamed_and_removed() {
        on_both(async |store| {
            let made = store.create_api_key(key("one", "a")).await.unwrap();
            store.create_api_key(key("two", "b")).await.unwrap();
            let off = ApiKeyPatch { name: Some("uno".to_owned()), is_active: Some(false) };
            let patched = store.patch_api_key(made.uuid, off).await.unwrap();
            assert_eq!((patched.name.as_str(), patched.is_active), ("uno", false));
            assert!(!store.all_hashes().await.unwrap()[0].is_active);

            let taken = ApiKeyPatch { name: Some("two".to_owned()), is_active: None };
            let taken = store.patch_api_key(made.uuid, taken).await;
            assert!(matches!(taken, Err(StoreError::Conflict { .. })));

            store.delete_api_key(made.uuid).await.unwrap();
            let gone = [
                store.api_key("uno").await.err(),
                store.delete_api_key(made.uuid).await.err(),
                store.patch_api_key(no_one(), ApiKeyPatch::default()).await.err(),
            ];
            for error in gone {
                assert!(matches!(error, Some(StoreError::NotFound { .. })));
            }
        })
        .await;
    }
}
