//! `/api/v1/mcp-servers/{id}/oauth-session`: the tokens that a remote server is reached with, and what it
//! takes to renew them. They go in and never come out.

use std::time::Duration;

use actix_web::{
    HttpResponse, delete, get, put,
    web::{Data, Json, Path},
};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AdminState, ApiError, body::Body, mcp_servers::find, server_view::MASK};
use crate::{
    identity::secret::Secret,
    store::{
        AuthMethod, ClientInformation, NewOAuthSession, OAuthSession, OAuthTokens, Problem, Server,
        StoreError,
    },
};

/// The longest that an access token may be said to live.
const EXPIRES_IN_MAX: u64 = 10 * 365 * 86_400;

/// An OAuth session to be put in, whole: what is not given is not kept from the one before.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuthSessionBody {
    /// Where tokens are renewed: https, or http on loopback.
    // A path that there is not is said before what its body lacks.
    #[serde(default)]
    #[schema(required)]
    token_endpoint: String,
    #[serde(default)]
    #[schema(required)]
    client_id: String,
    #[schema(value_type = Option<String>)]
    client_secret: Option<Secret>,
    /// `client_secret_basic` where there is a secret, else `none`, unless given.
    token_endpoint_auth_method: Option<AuthMethod>,
    /// Without one the session ends with its access token.
    #[schema(value_type = Option<String>)]
    refresh_token: Option<Secret>,
    /// Without one the first request has one made.
    #[schema(value_type = Option<String>)]
    access_token: Option<Secret>,
    /// Seconds that the access token lives from now on; or `expires_at`.
    expires_in: Option<u64>,
    /// When the access token ends (RFC 3339); or `expires_in`.
    expires_at: Option<String>,
    scope: Option<String>,
    /// What the tokens are for (RFC 8707); the server's URL unless given.
    resource: Option<String>,
}

/// An OAuth session, with a mask where a secret is.
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthSession)]
pub struct OAuthSessionView {
    server: Uuid,
    token_endpoint: String,
    client_id: String,
    /// `********` when there is one, as in the tokens.
    client_secret: Option<&'static str>,
    token_endpoint_auth_method: AuthMethod,
    access_token: Option<&'static str>,
    refresh_token: Option<&'static str>,
    /// When the access token ends; null where nobody said.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    scope: Option<String>,
    /// Null is the server's URL.
    resource: Option<String>,
    /// What no longer opens, in the manner of `tokens.refresh_token`: the key file is another one. Such a
    /// session is not used, and has to be put in again.
    unreadable: Vec<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it was put in, or last renewed.
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// What is set, and when the access token ends. No secret is shown.
#[utoipa::path(tag = "mcp-servers", responses((status = 200, body = OAuthSessionView)))]
#[get("/mcp-servers/{id}/oauth-session")]
pub async fn read(
    state: Data<AdminState>,
    id: Path<String>,
) -> Result<Json<OAuthSessionView>, ApiError> {
    let server = find(&state, &id).await?;
    // Tokens that were renewed a moment ago are written behind where the database was away.
    state.catch_up().await;
    let session = state.ask(state.store().oauth_session(server.uuid)).await;
    Ok(Json(session.map_err(|error| of(&server, error))?.into()))
}

/// Puts a session in, in the place of the one there was, and has a server that waits for a credential
/// tried again at once.
#[utoipa::path(
    tag = "mcp-servers",
    request_body = OAuthSessionBody,
    responses((status = 200, body = OAuthSessionView))
)]
#[put("/mcp-servers/{id}/oauth-session")]
pub async fn put(
    state: Data<AdminState>,
    id: Path<String>,
    Body(body): Body<OAuthSessionBody>,
) -> Result<Json<OAuthSessionView>, ApiError> {
    let server = state.store().server(&id).await?.uuid;
    let new = body.into_new(OffsetDateTime::now_utc())?;
    let put =
        state.write(|store| async move { store.put_oauth_session(server, new).await }).await?;
    Ok(Json(put.into()))
}

/// Forgets the session. The server is reached without it from then on.
#[utoipa::path(tag = "mcp-servers", responses((status = 204)))]
#[delete("/mcp-servers/{id}/oauth-session")]
pub async fn delete(state: Data<AdminState>, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let server = state.store().server(&id).await?;
    let uuid = server.uuid;
    let name = server.name.clone();
    state
        .write(|store| async move {
            let deleted = store.delete_oauth_session(uuid).await;
            deleted.map_err(|error| named(&name, error))
        })
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// By the name that the operator knows it by.
fn of(server: &Server, error: StoreError) -> StoreError {
    named(&server.name, error)
}

fn named(name: &str, error: StoreError) -> StoreError {
    match error {
        StoreError::NotFound { what, .. } => StoreError::NotFound { what, id: name.to_owned() },
        other => other,
    }
}

impl OAuthSessionBody {
    /// # Errors
    /// `Invalid` for a mask in place of a secret, and for a time that is none.
    fn into_new(self, now: OffsetDateTime) -> Result<NewOAuthSession, ApiError> {
        let mut problems = Vec::new();
        for (field, secret) in [
            ("client_secret", &self.client_secret),
            ("access_token", &self.access_token),
            ("refresh_token", &self.refresh_token),
        ] {
            if secret.as_ref().is_some_and(|secret| secret.expose() == MASK) {
                let reason = "the mask stands for a stored value, and all of them are replaced";
                problems.push(Problem::new(field, reason).accepted("the value itself"));
            }
        }
        let expires_at = match (self.expires_in, self.expires_at) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                let both = Problem::new("expires_in", "`expires_at` is given, too");
                problems.push(both.accepted("one of the two"));
                None
            }
            (Some(seconds), None) if seconds > EXPIRES_IN_MAX => {
                let accepted = format!("0 to {EXPIRES_IN_MAX} seconds");
                problems.push(Problem::new("expires_in", "out of range").accepted(accepted));
                None
            }
            (Some(seconds), None) => Some(now + Duration::from_secs(seconds)),
            (None, Some(text)) => match OffsetDateTime::parse(&text, &Rfc3339) {
                Ok(at) => Some(at),
                Err(_) => {
                    let problem = Problem::new("expires_at", "not a time");
                    problems.push(problem.accepted("RFC 3339, as in 2026-01-31T09:00:00Z"));
                    None
                }
            },
        };
        if !problems.is_empty() {
            return Err(ApiError::Invalid(problems));
        }
        let usual = match self.client_secret {
            Some(_) => AuthMethod::Basic,
            None => AuthMethod::None,
        };
        Ok(NewOAuthSession {
            client: ClientInformation {
                client_id: self.client_id,
                client_secret: self.client_secret,
                token_endpoint_auth_method: self.token_endpoint_auth_method.unwrap_or(usual),
                token_endpoint: self.token_endpoint,
                resource: self.resource,
            },
            tokens: OAuthTokens {
                access_token: self.access_token,
                refresh_token: self.refresh_token,
                expires_at,
                scope: self.scope,
            },
        })
    }
}

impl From<OAuthSession> for OAuthSessionView {
    fn from(session: OAuthSession) -> Self {
        let masked = |secret: &Option<Secret>| secret.is_some().then_some(MASK);
        let OAuthSession { client, tokens, .. } = session;
        Self {
            server: session.server,
            token_endpoint: client.token_endpoint,
            client_id: client.client_id,
            client_secret: masked(&client.client_secret),
            token_endpoint_auth_method: client.token_endpoint_auth_method,
            access_token: masked(&tokens.access_token),
            refresh_token: masked(&tokens.refresh_token),
            expires_at: tokens.expires_at,
            scope: tokens.scope,
            resource: client.resource,
            unreadable: session.unreadable,
            created_at: session.created_at,
            updated_at: session.updated_at,
        }
    }
}
