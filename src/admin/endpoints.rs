//! `/api/v1/endpoints`: the public names under which clients find namespaces, and who may come in.

use actix_web::{
    HttpResponse, delete, get, patch, post,
    web::{Data, Json, Path, Query},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    AdminState, ApiError,
    body::{Body, given, named},
    paging,
};
use crate::store::{
    Endpoint, EndpointFilter, EndpointPatch, NewEndpoint, Page, Problem, Rates, SchemaProfile,
    Store, StoreError,
};

/// Which endpoints; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EndpointsQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    name: Option<String>,
    namespace_uuid: Option<Uuid>,
    enable_api_key_auth: Option<bool>,
    enable_oauth: Option<bool>,
    use_query_param_auth: Option<bool>,
    schema_profile: Option<SchemaProfile>,
    /// `null` asks for what is public.
    user_id: Option<String>,
}

/// An endpoint to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointBody {
    name: String,
    description: Option<String>,
    /// The name or the uuid of a namespace.
    #[serde(alias = "namespace_uuid")]
    namespace: String,
    /// True unless given. `false` is the explicit word for an endpoint that is open to everybody.
    enable_api_key_auth: Option<bool>,
    enable_oauth: Option<bool>,
    use_query_param_auth: Option<bool>,
    enable_max_rate: Option<bool>,
    enable_client_max_rate: Option<bool>,
    max_rate: Option<i32>,
    max_rate_seconds: Option<i32>,
    client_max_rate: Option<i32>,
    client_max_rate_seconds: Option<i32>,
    client_max_rate_strategy: Option<String>,
    client_max_rate_strategy_key: Option<String>,
    /// What tools are made fit for: `raw` unless given.
    schema_profile: Option<SchemaProfile>,
    user_id: Option<String>,
}

/// The fields that are to change; `null` clears.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointChange {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "named")]
    description: Option<Option<String>>,
    /// The name or the uuid of a namespace.
    #[serde(default, deserialize_with = "given", alias = "namespace_uuid")]
    namespace: Option<String>,
    #[serde(default, deserialize_with = "given")]
    enable_api_key_auth: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    enable_oauth: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    use_query_param_auth: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    enable_max_rate: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    enable_client_max_rate: Option<bool>,
    #[serde(default, deserialize_with = "named")]
    max_rate: Option<Option<i32>>,
    #[serde(default, deserialize_with = "named")]
    max_rate_seconds: Option<Option<i32>>,
    #[serde(default, deserialize_with = "named")]
    client_max_rate: Option<Option<i32>>,
    #[serde(default, deserialize_with = "named")]
    client_max_rate_seconds: Option<Option<i32>>,
    #[serde(default, deserialize_with = "named")]
    client_max_rate_strategy: Option<Option<String>>,
    #[serde(default, deserialize_with = "named")]
    client_max_rate_strategy_key: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    schema_profile: Option<SchemaProfile>,
    #[serde(default, deserialize_with = "named")]
    user_id: Option<Option<String>>,
}

/// A row of `endpoints`, and where clients find it.
#[derive(Serialize, ToSchema)]
#[schema(as = EndpointRow)]
pub struct EndpointView {
    #[serde(flatten)]
    endpoint: Endpoint,
    urls: Urls,
    /// What the operator should think about again. Only in the answer to a change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'static str>,
}

#[derive(Serialize, ToSchema)]
pub struct Urls {
    /// Streamable HTTP.
    mcp: String,
    /// HTTP+SSE, for older clients.
    sse: String,
}

/// Every endpoint, oldest first.
#[utoipa::path(
    tag = "endpoints",
    params(EndpointsQuery),
    responses((status = 200, body = Page<EndpointView>))
)]
#[get("/endpoints")]
pub async fn list(
    state: Data<AdminState>,
    query: Query<EndpointsQuery>,
) -> Result<Json<Page<EndpointView>>, ApiError> {
    let query = query.into_inner();
    let request = paging::page(query.limit, query.cursor)?;
    let filter = EndpointFilter {
        name: query.name,
        namespace_uuid: query.namespace_uuid,
        enable_api_key_auth: query.enable_api_key_auth,
        enable_oauth: query.enable_oauth,
        use_query_param_auth: query.use_query_param_auth,
        schema_profile: query.schema_profile,
        user_id: paging::owner(query.user_id),
    };
    let page = state.store().endpoints_where(&filter, &request).await?;
    let items = page.items.into_iter().map(|row| EndpointView::new(row, &state.public_url));
    Ok(Json(Page { items: items.collect(), next_cursor: page.next_cursor }))
}

/// Makes an endpoint. It asks for a key unless it is told not to, which is warned about.
#[utoipa::path(
    tag = "endpoints",
    request_body = EndpointBody,
    responses((status = 201, body = EndpointView))
)]
#[post("/endpoints")]
pub async fn create(
    state: Data<AdminState>,
    Body(body): Body<EndpointBody>,
) -> Result<HttpResponse, ApiError> {
    let limits = [body.enable_max_rate, body.enable_client_max_rate];
    refuse_unbuilt(body.enable_oauth, limits)?;
    let new = NewEndpoint {
        namespace_uuid: namespace_named(state.store(), &body.namespace).await?,
        name: body.name,
        description: body.description,
        enable_api_key_auth: body.enable_api_key_auth.unwrap_or(true),
        enable_oauth: body.enable_oauth.unwrap_or(false),
        use_query_param_auth: body.use_query_param_auth.unwrap_or(false),
        rates: Rates {
            enable_max_rate: body.enable_max_rate.unwrap_or(false),
            enable_client_max_rate: body.enable_client_max_rate.unwrap_or(false),
            max_rate: body.max_rate,
            max_rate_seconds: body.max_rate_seconds,
            client_max_rate: body.client_max_rate,
            client_max_rate_seconds: body.client_max_rate_seconds,
            client_max_rate_strategy: body.client_max_rate_strategy,
            client_max_rate_strategy_key: body.client_max_rate_strategy_key,
        },
        schema_profile: body.schema_profile.unwrap_or(SchemaProfile::Raw),
        user_id: body.user_id,
    };
    let row = state.write(|store| async move { store.create_endpoint(new).await }).await?;
    Ok(HttpResponse::Created().json(EndpointView::new(row, &state.public_url).warned()))
}

#[utoipa::path(tag = "endpoints", responses((status = 200, body = EndpointView)))]
#[get("/endpoints/{id}")]
pub async fn read(
    state: Data<AdminState>,
    id: Path<String>,
) -> Result<Json<EndpointView>, ApiError> {
    let row = state.store().endpoint(&id).await?;
    Ok(Json(EndpointView::new(row, &state.public_url)))
}

/// Changes the fields that are named. Sessions that may no longer be there end; those whose tools are
/// others by another `schema_profile` are told so.
#[utoipa::path(
    tag = "endpoints",
    request_body = EndpointChange,
    responses((status = 200, body = EndpointView))
)]
#[patch("/endpoints/{id}")]
pub async fn change(
    state: Data<AdminState>,
    id: Path<String>,
    Body(change): Body<EndpointChange>,
) -> Result<Json<EndpointView>, ApiError> {
    refuse_unbuilt(change.enable_oauth, [change.enable_max_rate, change.enable_client_max_rate])?;
    let uuid = state.store().endpoint(&id).await?.uuid;
    let namespace_uuid = match &change.namespace {
        Some(namespace) => Some(namespace_named(state.store(), namespace).await?),
        None => None,
    };
    let opens = change.enable_api_key_auth == Some(false);
    let patch = EndpointPatch {
        name: change.name,
        description: change.description,
        namespace_uuid,
        enable_api_key_auth: change.enable_api_key_auth,
        enable_oauth: change.enable_oauth,
        use_query_param_auth: change.use_query_param_auth,
        enable_max_rate: change.enable_max_rate,
        enable_client_max_rate: change.enable_client_max_rate,
        max_rate: change.max_rate,
        max_rate_seconds: change.max_rate_seconds,
        client_max_rate: change.client_max_rate,
        client_max_rate_seconds: change.client_max_rate_seconds,
        client_max_rate_strategy: change.client_max_rate_strategy,
        client_max_rate_strategy_key: change.client_max_rate_strategy_key,
        schema_profile: change.schema_profile,
        user_id: change.user_id,
    };
    let row = state.write(|store| async move { store.patch_endpoint(uuid, patch).await }).await?;
    let view = EndpointView::new(row, &state.public_url);
    Ok(Json(if opens { view.warned() } else { view }))
}

/// Closes an endpoint and ends its sessions. Its namespace stays.
#[utoipa::path(tag = "endpoints", responses((status = 204)))]
#[delete("/endpoints/{id}")]
pub async fn delete(state: Data<AdminState>, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let uuid = state.store().endpoint(&id).await?.uuid;
    state.write(|store| async move { store.delete_endpoint(uuid).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

impl EndpointView {
    fn new(endpoint: Endpoint, public_url: &str) -> Self {
        let url = |transport| format!("{public_url}/metamcp/{}/{transport}", endpoint.name);
        let urls = Urls { mcp: url("mcp"), sse: url("sse") };
        Self { endpoint, urls, warnings: Vec::new() }
    }

    /// Tells the operator, in the answer and in the log, that the door stands open.
    fn warned(mut self) -> Self {
        if !self.endpoint.enable_api_key_auth && !self.endpoint.enable_oauth {
            let name = &self.endpoint.name;
            tracing::warn!(endpoint = %name, "the endpoint `{name}` is open: it asks for no key");
            self.warnings.push("the endpoint is open: whoever reaches it can use it without a key");
        }
        self
    }
}

/// A limit or a login that is written down and not kept would be worse than none.
fn refuse_unbuilt(oauth: Option<bool>, rates: [Option<bool>; 2]) -> Result<(), ApiError> {
    if oauth == Some(true) {
        return Err(ApiError::not_implemented("OAuth on endpoints"));
    }
    if rates.contains(&Some(true)) {
        return Err(ApiError::not_implemented("limiting the rate of an endpoint"));
    }
    Ok(())
}

async fn namespace_named(store: &Store, id: &str) -> Result<Uuid, ApiError> {
    match store.namespace(id).await {
        Ok(namespace) => Ok(namespace.uuid),
        Err(StoreError::NotFound { .. }) => {
            let problem = Problem::new("namespace", format!("there is no namespace `{id}`"));
            Err(ApiError::invalid(problem.accepted("the name or the uuid of a namespace")))
        }
        Err(other) => Err(other.into()),
    }
}
