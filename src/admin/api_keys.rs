//! `/api/v1/api-keys`: who may come in. The value of a key is answered once, when it is made.

use actix_web::{
    HttpResponse, delete, get, patch, post,
    web::{Data, Json, Path, Query},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    AdminState, ApiError,
    body::{Body, given},
    paging,
};
use crate::{
    identity::keys,
    store::{ApiKey, ApiKeyFilter, ApiKeyPatch, KeyKind, NewApiKey, Page},
};

/// Which keys; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct KeysQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    name: Option<String>,
    kind: Option<KeyKind>,
    is_active: Option<bool>,
    /// `null` asks for what is public.
    user_id: Option<String>,
}

/// A key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyBody {
    name: String,
    /// CLIENT unless given.
    kind: Option<KeyKind>,
    user_id: Option<String>,
}

/// The fields that are to change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyChange {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    is_active: Option<bool>,
}

/// A new key with its value.
#[derive(Serialize, ToSchema)]
pub struct MadeKey<'a> {
    #[serde(flatten)]
    row: ApiKey,
    /// The value. It is shown this once, and kept nowhere.
    key: &'a str,
}

/// Every key, oldest first, without its value.
#[utoipa::path(tag = "api-keys", params(KeysQuery), responses((status = 200, body = Page<ApiKey>)))]
#[get("/api-keys")]
pub async fn list(
    state: Data<AdminState>,
    query: Query<KeysQuery>,
) -> Result<Json<Page<ApiKey>>, ApiError> {
    let query = query.into_inner();
    let request = paging::page(query.limit, query.cursor)?;
    let filter = ApiKeyFilter {
        name: query.name,
        kind: query.kind,
        is_active: query.is_active,
        user_id: paging::owner(query.user_id),
    };
    Ok(Json(state.store().api_keys_where(&filter, &request).await?))
}

/// Makes a key, and shows its value this once.
#[utoipa::path(
    tag = "api-keys",
    request_body = KeyBody,
    responses((status = 201, body = MadeKey))
)]
#[post("/api-keys")]
pub async fn create(
    state: Data<AdminState>,
    Body(body): Body<KeyBody>,
) -> Result<HttpResponse, ApiError> {
    let minted = keys::mint().map_err(|error| ApiError::Internal(Box::new(error)))?;
    let new = NewApiKey {
        name: body.name,
        hash_hex: minted.hash.to_hex(),
        hint: minted.hint,
        kind: body.kind.unwrap_or(KeyKind::Client),
        user_id: body.user_id,
    };
    let row = state.write(|store| async move { store.create_api_key(new).await }).await?;
    Ok(HttpResponse::Created().json(MadeKey { row, key: minted.text.expose() }))
}

#[utoipa::path(tag = "api-keys", responses((status = 200, body = ApiKey)))]
#[get("/api-keys/{id}")]
pub async fn read(state: Data<AdminState>, id: Path<String>) -> Result<Json<ApiKey>, ApiError> {
    Ok(Json(state.store().api_key(&id).await?))
}

/// Renames a key, or switches it off or on. Sessions that were begun with it end when it is off.
#[utoipa::path(
    tag = "api-keys",
    request_body = KeyChange,
    responses((status = 200, body = ApiKey))
)]
#[patch("/api-keys/{id}")]
pub async fn change(
    state: Data<AdminState>,
    id: Path<String>,
    Body(KeyChange { name, is_active }): Body<KeyChange>,
) -> Result<Json<ApiKey>, ApiError> {
    let uuid = state.store().api_key(&id).await?.uuid;
    let patch = ApiKeyPatch { name, is_active };
    let row = state.write(|store| async move { store.patch_api_key(uuid, patch).await }).await?;
    Ok(Json(row))
}

/// Forgets a key for good. Sessions that were begun with it end.
#[utoipa::path(tag = "api-keys", responses((status = 204)))]
#[delete("/api-keys/{id}")]
pub async fn delete(state: Data<AdminState>, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let uuid = state.store().api_key(&id).await?.uuid;
    state.write(|store| async move { store.delete_api_key(uuid).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}
