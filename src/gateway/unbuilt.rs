//! Paths of the contract that no room serves yet: they say so, instead of looking mistyped.
//!
//! The well-known documents are not among them. Clients take a 404 there for what it is, a server
//! without OAuth, and would stumble over anything else.

use actix_web::{
    HttpResponse,
    web::{self, ServiceConfig},
};

const OAUTH: &[&str] = &["/authorize", "/token", "/register", "/revoke", "/introspect"];

pub fn configure(config: &mut ServiceConfig) {
    for path in OAUTH {
        config.route(path, web::to(not_implemented));
    }
}

async fn not_implemented() -> HttpResponse {
    HttpResponse::NotImplemented().json(serde_json::json!({
        "code": "not_implemented",
        "message": "OAuth is not served by this version; clients use an API key",
        "details": [],
    }))
}
