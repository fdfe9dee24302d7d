//! Endpoints: the public names, each bound to one namespace.
//!
//! A public endpoint leads to a public namespace; a private one to its owner's or to a public one.
//! Who comes in by an endpoint is decided elsewhere, from the columns that are kept here.

use entity::{endpoint, namespace};
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
use super::rules::{Name, Problem, refuse_nul};
use super::words::SchemaProfile;
use super::{Store, now};

const WHAT: &str = "endpoint";

/// A public name and who may come in by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Endpoint {
    pub uuid: Uuid,
    pub name: String,
    pub description: Option<String>,
    pub namespace_uuid: Uuid,
    pub enable_api_key_auth: bool,
    pub enable_oauth: bool,
    pub use_query_param_auth: bool,
    #[serde(flatten)]
    pub rates: Rates,
    pub schema_profile: SchemaProfile,
    /// None for what is public.
    pub user_id: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// How often an endpoint may be called, as a whole and by each client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rates {
    pub enable_max_rate: bool,
    pub enable_client_max_rate: bool,
    pub max_rate: Option<i32>,
    pub max_rate_seconds: Option<i32>,
    pub client_max_rate: Option<i32>,
    pub client_max_rate_seconds: Option<i32>,
    pub client_max_rate_strategy: Option<String>,
    pub client_max_rate_strategy_key: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEndpoint {
    pub name: String,
    pub description: Option<String>,
    pub namespace_uuid: Uuid,
    pub enable_api_key_auth: bool,
    pub enable_oauth: bool,
    pub use_query_param_auth: bool,
    pub rates: Rates,
    pub schema_profile: SchemaProfile,
    pub user_id: Option<String>,
}

/// None leaves a field as it is, `Some(None)` clears it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointPatch {
    pub name: Option<String>,
    pub description: Option<Option<String>>,
    pub namespace_uuid: Option<Uuid>,
    pub enable_api_key_auth: Option<bool>,
    pub enable_oauth: Option<bool>,
    pub use_query_param_auth: Option<bool>,
    pub enable_max_rate: Option<bool>,
    pub enable_client_max_rate: Option<bool>,
    pub max_rate: Option<Option<i32>>,
    pub max_rate_seconds: Option<Option<i32>>,
    pub client_max_rate: Option<Option<i32>>,
    pub client_max_rate_seconds: Option<Option<i32>>,
    pub client_max_rate_strategy: Option<Option<String>>,
    pub client_max_rate_strategy_key: Option<Option<String>>,
    pub schema_profile: Option<SchemaProfile>,
    pub user_id: Option<Option<String>>,
}

impl NewEndpoint {
    /// An endpoint that asks for a key, with everything else off.
    pub fn new(name: impl Into<String>, namespace_uuid: Uuid) -> NewEndpoint {
        NewEndpoint {
            name: name.into(),
            description: None,
            namespace_uuid,
            enable_api_key_auth: true,
            enable_oauth: false,
            use_query_param_auth: false,
            rates: Rates::default(),
            schema_profile: SchemaProfile::Raw,
            user_id: None,
        }
    }
}

/// Which endpoints are asked for; every field that is given has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointFilter {
    pub name: Option<String>,
    pub namespace_uuid: Option<Uuid>,
    pub enable_api_key_auth: Option<bool>,
    pub enable_oauth: Option<bool>,
    pub use_query_param_auth: Option<bool>,
    pub schema_profile: Option<SchemaProfile>,
    /// `Some(None)` asks for what is public.
    pub user_id: Option<Option<String>>,
}

impl Store {
    /// Oldest first.
    #[cfg(test)]
    pub async fn endpoints(&self, page: &PageRequest) -> Result<Page<Endpoint>, StoreError> {
        self.endpoints_where(&EndpointFilter::default(), page).await
    }

    /// Oldest first.
    pub async fn endpoints_where(
        &self,
        filter: &EndpointFilter,
        page: &PageRequest,
    ) -> Result<Page<Endpoint>, StoreError> {
        let limit = page.limit()?;
        let mut query = endpoint::Entity::find()
            .order_by_asc(endpoint::Column::Uuid)
            .limit(limit.saturating_add(1));
        if let Some(after) = page.after()? {
            query = query.filter(endpoint::Column::Uuid.gt(Uuid::from_bytes(after)));
        }
        if let Some(name) = &filter.name {
            query = query.filter(endpoint::Column::Name.eq(name));
        }
        if let Some(namespace) = filter.namespace_uuid {
            query = query.filter(endpoint::Column::NamespaceUuid.eq(namespace));
        }
        if let Some(asks_for_key) = filter.enable_api_key_auth {
            query = query.filter(endpoint::Column::EnableApiKeyAuth.eq(asks_for_key));
        }
        if let Some(oauth) = filter.enable_oauth {
            query = query.filter(endpoint::Column::EnableOauth.eq(oauth));
        }
        if let Some(by_query) = filter.use_query_param_auth {
            query = query.filter(endpoint::Column::UseQueryParamAuth.eq(by_query));
        }
        if let Some(profile) = filter.schema_profile {
            query = query.filter(endpoint::Column::SchemaProfile.eq(profile.as_str()));
        }
        match &filter.user_id {
            Some(Some(user_id)) => query = query.filter(endpoint::Column::UserId.eq(user_id)),
            Some(None) => query = query.filter(endpoint::Column::UserId.is_null()),
            None => {}
        }
        let rows = query.all(self.reader()).await?;
        Page::cut(rows, limit, |row| row.uuid.into_bytes()).try_map(endpoint_of)
    }

    /// By uuid or by name, which is unique among all owners.
    pub async fn endpoint(&self, id: &str) -> Result<Endpoint, StoreError> {
        let query = endpoint::Entity::find();
        let query = match Uuid::try_parse(id) {
            Ok(uuid) => query.filter(endpoint::Column::Uuid.eq(uuid)),
            Err(_) => query.filter(endpoint::Column::Name.eq(id)),
        };
        let row = query.one(self.reader()).await?;
        endpoint_of(row.ok_or_else(|| StoreError::not_found(WHAT, id))?)
    }

    pub async fn create_endpoint(&self, new: NewEndpoint) -> Result<Endpoint, StoreError> {
        let at = now();
        let row = endpoint::Model {
            uuid: Uuid::now_v7(),
            name: new.name,
            description: new.description,
            namespace_uuid: new.namespace_uuid,
            enable_api_key_auth: new.enable_api_key_auth,
            enable_oauth: new.enable_oauth,
            use_query_param_auth: new.use_query_param_auth,
            enable_max_rate: new.rates.enable_max_rate,
            enable_client_max_rate: new.rates.enable_client_max_rate,
            max_rate: new.rates.max_rate,
            max_rate_seconds: new.rates.max_rate_seconds,
            client_max_rate: new.rates.client_max_rate,
            client_max_rate_seconds: new.rates.client_max_rate_seconds,
            client_max_rate_strategy: new.rates.client_max_rate_strategy,
            client_max_rate_strategy_key: new.rates.client_max_rate_strategy_key,
            schema_profile: new.schema_profile.as_str().to_owned(),
            user_id: new.user_id,
            created_at: at,
            updated_at: at,
        };
        check(&row)?;
        let transaction = self.write().await?;
        check_namespace(&transaction, &row).await?;
        let name = row.name.clone();
        let row = row
            .into_active_model()
            .insert(&transaction)
            .await
            .map_err(|error| StoreError::of_write(error, &name))?;
        transaction.commit().await?;
        endpoint_of(row)
    }

    pub async fn patch_endpoint(
        &self,
        uuid: Uuid,
        patch: EndpointPatch,
    ) -> Result<Endpoint, StoreError> {
        let transaction = self.write().await?;
        let before = endpoint::Entity::find_by_id(uuid)
            .one(&transaction)
            .await?
            .ok_or_else(|| StoreError::not_found(WHAT, uuid))?;
        let after = patch.applied_to(before);
        check(&after)?;
        check_namespace(&transaction, &after).await?;
        let name = after.name.clone();
        let mut changed = after.into_active_model().reset_all();
        changed.uuid = Unchanged(uuid);
        changed.updated_at = Set(now());
        let row = changed
            .update(&transaction)
            .await
            .map_err(|error| StoreError::of_write(error, &name))?;
        transaction.commit().await?;
        endpoint_of(row)
    }

    pub async fn delete_endpoint(&self, uuid: Uuid) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        let deleted = endpoint::Entity::delete_by_id(uuid).exec(&transaction).await?;
        transaction.commit().await?;
        match deleted.rows_affected {
            0 => Err(StoreError::not_found(WHAT, uuid)),
            _ => Ok(()),
        }
    }
}

impl EndpointPatch {
    fn applied_to(self, row: endpoint::Model) -> endpoint::Model {
        endpoint::Model {
            uuid: row.uuid,
            name: self.name.unwrap_or(row.name),
            description: self.description.unwrap_or(row.description),
            namespace_uuid: self.namespace_uuid.unwrap_or(row.namespace_uuid),
            enable_api_key_auth: self.enable_api_key_auth.unwrap_or(row.enable_api_key_auth),
            enable_oauth: self.enable_oauth.unwrap_or(row.enable_oauth),
            use_query_param_auth: self.use_query_param_auth.unwrap_or(row.use_query_param_auth),
            enable_max_rate: self.enable_max_rate.unwrap_or(row.enable_max_rate),
            enable_client_max_rate: self
                .enable_client_max_rate
                .unwrap_or(row.enable_client_max_rate),
            max_rate: self.max_rate.unwrap_or(row.max_rate),
            max_rate_seconds: self.max_rate_seconds.unwrap_or(row.max_rate_seconds),
            client_max_rate: self.client_max_rate.unwrap_or(row.client_max_rate),
            client_max_rate_seconds: self
                .client_max_rate_seconds
                .unwrap_or(row.client_max_rate_seconds),
            client_max_rate_strategy: self
                .client_max_rate_strategy
                .unwrap_or(row.client_max_rate_strategy),
            client_max_rate_strategy_key: self
                .client_max_rate_strategy_key
                .unwrap_or(row.client_max_rate_strategy_key),
            schema_profile: self
                .schema_profile
                .map_or(row.schema_profile, |profile| profile.as_str().to_owned()),
            user_id: self.user_id.unwrap_or(row.user_id),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

pub(super) fn endpoint_of(row: endpoint::Model) -> Result<Endpoint, StoreError> {
    Ok(Endpoint {
        uuid: row.uuid,
        name: row.name,
        description: row.description,
        namespace_uuid: row.namespace_uuid,
        enable_api_key_auth: row.enable_api_key_auth,
        enable_oauth: row.enable_oauth,
        use_query_param_auth: row.use_query_param_auth,
        rates: Rates {
            enable_max_rate: row.enable_max_rate,
            enable_client_max_rate: row.enable_client_max_rate,
            max_rate: row.max_rate,
            max_rate_seconds: row.max_rate_seconds,
            client_max_rate: row.client_max_rate,
            client_max_rate_seconds: row.client_max_rate_seconds,
            client_max_rate_strategy: row.client_max_rate_strategy,
            client_max_rate_strategy_key: row.client_max_rate_strategy_key,
        },
        schema_profile: SchemaProfile::stored("endpoints.schema_profile", &row.schema_profile)?,
        user_id: row.user_id,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

fn check(row: &endpoint::Model) -> Result<(), StoreError> {
    let mut problems = Vec::new();
    problems.extend(Name::parse(&row.name).err());
    let texts = [
        ("description", &row.description),
        ("user_id", &row.user_id),
        ("client_max_rate_strategy", &row.client_max_rate_strategy),
        ("client_max_rate_strategy_key", &row.client_max_rate_strategy_key),
    ];
    for (field, text) in texts {
        problems.extend(refuse_nul(field, text.as_deref()));
    }
    let rates = [
        ("max_rate", row.max_rate),
        ("max_rate_seconds", row.max_rate_seconds),
        ("client_max_rate", row.client_max_rate),
        ("client_max_rate_seconds", row.client_max_rate_seconds),
    ];
    for (field, rate) in rates {
        if rate.is_some_and(|rate| rate < 1) {
            problems.push(Problem::new(field, "out of range").accepted("1 or more, or null"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Invalid(problems)) }
}

async fn check_namespace(
    connection: &impl ConnectionTrait,
    row: &endpoint::Model,
) -> Result<(), StoreError> {
    let found = namespace::Entity::find_by_id(row.namespace_uuid).one(connection).await?;
    let reason = match found {
        None => "there is no such namespace",
        Some(namespace) => match (&namespace.user_id, &row.user_id) {
            (None, _) => return Ok(()),
            (Some(owner), Some(ours)) if owner == ours => return Ok(()),
            (Some(_), None) => "a public endpoint leads only to a public namespace",
            (Some(_), Some(_)) => "it belongs to somebody else",
        },
    };
    Err(StoreError::invalid(Problem::new("namespace", reason)))
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
