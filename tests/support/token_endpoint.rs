//! A token endpoint inside the test that rotates refresh tokens: each is good once. It can be away, refuse,
//! and issue what nobody accepts, and it remembers everything that it was asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, dev::ServerHandle, web};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Client, TestGateway,
    remote::{self, Bearers, Knobs, Remote, lock},
};

/// One request that came in.
#[derive(Clone, Debug)]
pub struct Asked {
    pub form: BTreeMap<String, String>,
    pub authorization: Option<String>,
}

/// What may be turned while it runs.
#[derive(Clone, Debug, Default)]
pub struct TokenKnobs {
    /// Answers with this status and body, and issues nothing.
    pub trouble: Option<(u16, String)>,
    /// Issues tokens that no upstream accepts.
    pub is_void: bool,
    pub expires_in: Option<u64>,
    pub delay: Duration,
}

#[derive(Debug)]
pub struct TokenEndpoint {
    pub url: String,
    state: Arc<State>,
    handle: ServerHandle,
}

#[derive(Debug, Default)]
struct State {
    /// The access tokens that are good.
    bearers: Bearers,
    knobs: Mutex<TokenKnobs>,
    asked: Mutex<Vec<Asked>>,
    issued: Mutex<u64>,
}

impl TokenEndpoint {
    /// Listens on a free port of loopback. The refresh token that is good at first is the one of zero.
    pub fn start() -> TokenEndpoint {
        let state = Arc::new(State::default());
        let shared = web::Data::from(Arc::clone(&state));
        let (port, handle) = remote::listen(0, move |config| {
            config.app_data(shared.clone()).default_service(web::to(serve));
        });
        TokenEndpoint { url: format!("http://127.0.0.1:{port}/token"), state, handle }
    }

    pub fn turn(&self, how: impl FnOnce(&mut TokenKnobs)) {
        how(&mut lock(&self.state.knobs));
    }

    /// The access tokens that are good just now, to be shared with an upstream.
    pub fn bearers(&self) -> Bearers {
        self.state.bearers.clone()
    }

    /// Has an access token be good.
    pub fn accept(&self, token: &str) {
        lock(&self.state.bearers).insert(token.to_owned());
    }

    /// Ends every access token.
    pub fn expire_all(&self) {
        lock(&self.state.bearers).clear();
    }

    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }
}

impl Drop for TokenEndpoint {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

/// The refresh token that is good after so many were issued.
pub fn refresh_token(issued: u64) -> String {
    format!("canary-refresh-{issued}-5d1e")
}

/// The access token that was issued so and so late.
pub fn access_token(issued: u64) -> String {
    format!("canary-access-{issued}-77ab")
}

async fn serve(request: HttpRequest, body: Bytes, state: web::Data<State>) -> HttpResponse {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let authorization = request.headers().get("authorization");
    let authorization = authorization.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let given = form.get("refresh_token").cloned().unwrap_or_default();
    lock(&state.asked).push(Asked { form, authorization });
    let knobs = lock(&state.knobs).clone();
    tokio::time::sleep(knobs.delay).await;
    if let Some((status, body)) = knobs.trouble {
        return HttpResponse::build(remote::status_of(status)).body(body);
    }
    let mut issued = lock(&state.issued);
    if given != refresh_token(*issued) {
        let body = json!({"error": "invalid_grant", "error_description": "canary-description"});
        return HttpResponse::BadRequest().json(body);
    }
    *issued += 1;
    let access_token = access_token(*issued);
    if !knobs.is_void {
        lock(&state.bearers).insert(access_token.clone());
    }
    let mut tokens = json!({
        "access_token": access_token, "token_type": "Bearer", "refresh_token": refresh_token(*issued),
    });
    if let Some(seconds) = knobs.expires_in {
        tokens["expires_in"] = json!(seconds);
    }
    HttpResponse::Ok().json(tokens)
}

// === An upstream behind it ===

/// What an operator puts in, with this access token.
pub fn session(tokens: &TokenEndpoint, access: Option<&str>) -> Value {
    json!({
        "token_endpoint": tokens.url, "client_id": "the client", "client_secret": "canary-client:+/ 9",
        "refresh_token": refresh_token(0), "access_token": access,
    })
}

/// An upstream that takes the access tokens of this endpoint.
pub fn upstream(tokens: &TokenEndpoint) -> Remote {
    Remote::start(Knobs { bearers: Some(tokens.bearers()), ..Knobs::default() })
}

/// Puts a session in.
pub async fn put(gateway: &TestGateway, server: &str, session: Value) -> Value {
    gateway.replace(&format!("mcp-servers/{server}/oauth-session"), session).await
}

/// A gateway with an upstream that is READY by an access token that was good at first.
pub async fn with(gateway: &TestGateway) -> (TokenEndpoint, Remote, Client) {
    let tokens = TokenEndpoint::start();
    tokens.accept("canary-access-first");
    let remote = upstream(&tokens);
    gateway.remote("remote", &remote.url).await;
    put(gateway, "remote", session(&tokens, Some("canary-access-first"))).await;
    let client = gateway.client_of(&["remote"]).await;
    assert_eq!(client.text_of("remote__echo", json!({"value": "warm"})).await, "warm");
    assert_eq!(tokens.asked().len(), 0, "it was good");
    (tokens, remote, client)
}

/// Waits until the upstream named `remote` wants a credential.
pub async fn needs_auth(gateway: &TestGateway) -> Value {
    let is_so = |server: &Value| server["runtime"]["state"] == "NEEDS_AUTH";
    gateway.server_until("remote", "NEEDS_AUTH", is_so).await
}
