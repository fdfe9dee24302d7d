//! A request whose handling panics takes nothing down but itself, and is answered all the same.

use std::panic::AssertUnwindSafe;

use actix_web::{Error, HttpResponse, body::BoxBody, dev::ServiceResponse, error::InternalError};
use futures_util::FutureExt;
use serde_json::json;

use crate::endpoint::panicked;

const WORDS: &str = "the gateway has failed at this; its log has the place";

/// Handles a request to its answer, whatever happens on the way.
pub async fn contained(
    is_mcp: bool,
    handling: impl Future<Output = Result<ServiceResponse<BoxBody>, Error>>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    AssertUnwindSafe(handling).catch_unwind().await.unwrap_or_else(|_logged| {
        // The request is gone, and with it the only way to answer by anything but an error.
        Err(InternalError::from_response("a handler panicked", answer(is_mcp)).into())
    })
}

fn answer(is_mcp: bool) -> HttpResponse {
    let mut response = HttpResponse::InternalServerError();
    match is_mcp {
        // What its id was, nobody knows any more (JSON-RPC 2.0, section 5).
        true => response.content_type("application/json").body(panicked().to_bytes(None)),
        false => response.json(json!({"code": "internal", "message": WORDS, "details": []})),
    }
}
