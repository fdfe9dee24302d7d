//! `/api/v1/import`: the file of any MCP client, or an export of MetaMCP's, as its text.

use actix_web::{
    HttpMessage, HttpRequest, post,
    web::{Data, Json, Payload, Query},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{AdminState, ApiError};
use crate::{
    import::{BadFile, FILE_MAX},
    operator::{self, Imports, Wanted},
};

/// The kinds of a body: what a file may be called by those who send it.
const KINDS: [&str; 6] = [
    "application/json",
    "application/json5",
    "application/jsonc",
    "application/toml",
    "application/octet-stream",
    "text/plain",
];

/// What is to be done with the servers of a file.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// Whether to say only what would be done.
    #[serde(default)]
    dry_run: bool,
    /// The namespace that is to have the servers, by its name. If there is none of this name it is
    /// made, with an endpoint. Without it no namespace is touched.
    namespace: Option<String>,
}

/// Makes the servers of a file that are not there yet. One bad entry fails alone; what is there stays
/// as it is.
#[utoipa::path(
    tag = "import",
    params(ImportQuery),
    request_body(content = String, description = "the file's text", content_type = "text/plain"),
    responses((status = 200, body = Imports))
)]
#[post("/import")]
pub async fn take(
    state: Data<AdminState>,
    query: Query<ImportQuery>,
    request: HttpRequest,
    body: Payload,
) -> Result<Json<Imports>, ApiError> {
    let mime = request.mime_type().ok().flatten();
    if mime.is_some_and(|mime| !KINDS.contains(&mime.essence_str())) {
        return Err(ApiError::UnsupportedFile { accepted: KINDS.join(", ") });
    }
    // More than other bodies may have: these files hold more than servers.
    let body = body.to_bytes_limited(FILE_MAX).await;
    let body = body.map_err(|_| ApiError::TooLarge { max: FILE_MAX })?;
    let body = body.map_err(super::body::unread)?;
    let imported = operator::read_apart(body).await.map_err(|error| match error {
        BadFile::TooLarge => ApiError::TooLarge { max: FILE_MAX },
        error => ApiError::bad_request(error.to_string()),
    })?;
    let ImportQuery { dry_run, namespace } = query.into_inner();
    let wanted = Wanted { namespace, dry_run };
    let applied = state
        .write(move |store| async move { operator::apply(&store, imported, &wanted).await })
        .await?;
    Ok(Json(applied))
}
