//! A handler that panics takes nothing down but its own request, which is answered all the same.

use std::panic::AssertUnwindSafe;

use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    middleware::Next,
};
use futures_util::FutureExt;
use serde_json::json;

use crate::{endpoint::panicked, failpoint};

const WORDS: &str = "the gateway has failed at this; its log has the place";

/// Handles a request to its answer, whatever happens on the way.
pub async fn contained(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let is_mcp = request.path().starts_with("/metamcp/");
    let handled = AssertUnwindSafe(async move {
        failpoint::pass("request");
        next.call(request).await
    });
    match handled.catch_unwind().await {
        Ok(answered) => Ok(answered?.map_into_boxed_body()),
        // The request is gone, and with it the only way to answer by anything but an error.
        Err(_logged) => {
            Err(InternalError::from_response("a handler panicked", answer(is_mcp)).into())
        }
    }
}

fn answer(is_mcp: bool) -> HttpResponse {
    let mut response = HttpResponse::InternalServerError();
    match is_mcp {
        // What its id was, nobody knows any more (JSON-RPC 2.0, section 5).
        true => response.content_type("application/json").body(panicked().to_bytes(None)),
        false => response.json(json!({"code": "internal", "message": WORDS, "details": []})),
    }
}
