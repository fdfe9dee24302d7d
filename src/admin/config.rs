//! `/api/v1/config`: settings that can be changed while the daemon runs.
//!
//! They are kept under the names that operators of MetaMCP know. What a key does belongs to whoever
//! reads it; in this version nobody does yet, and the answer to a change says so.

use actix_web::{
    get, put,
    web::{Data, Json, Path},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AdminState, ApiError, body::Body};
use crate::store::{ConfigValue, Page};

/// One setting.
#[derive(Serialize, ToSchema)]
pub struct ConfigRow {
    key: String,
    #[serde(flatten)]
    value: ConfigValue,
}

/// What a setting is to be. `null` gives it its default again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigBody {
    #[serde(deserialize_with = "Option::deserialize")]
    value: Option<String>,
}

/// What a setting is now.
#[derive(Serialize, ToSchema)]
pub struct ConfigChanged {
    key: String,
    /// Null when it has its default.
    value: Option<String>,
    warnings: Vec<&'static str>,
}

/// Every setting that was changed, by key.
#[utoipa::path(tag = "config", responses((status = 200, body = Page<ConfigRow>)))]
#[get("/config")]
pub async fn list(state: Data<AdminState>) -> Result<Json<Page<ConfigRow>>, ApiError> {
    let settings = state.store().config().await?.into_iter();
    let items = settings.map(|(key, value)| ConfigRow { key, value }).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// Sets one.
#[utoipa::path(
    tag = "config",
    request_body = ConfigBody,
    responses((status = 200, body = ConfigChanged))
)]
#[put("/config/{key}")]
pub async fn put(
    state: Data<AdminState>,
    key: Path<String>,
    Body(ConfigBody { value }): Body<ConfigBody>,
) -> Result<Json<ConfigChanged>, ApiError> {
    let key = key.into_inner();
    let (to, text) = (key.clone(), value.clone());
    state.write(|store| async move { store.put_config(&to, text.as_deref()).await }).await?;
    let warnings = vec!["it is kept; nothing in this version reads it yet"];
    Ok(Json(ConfigChanged { key, value, warnings }))
}
