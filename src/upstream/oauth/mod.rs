//! What we hold to act as an OAuth client of one upstream, and when it has to be renewed.
//!
//! `standing` decides and `answer` reads, both without a clock; `credential` is what all of one upstream's
//! connections share. Who asks the token endpoint is the worker, and who keeps what it gave is told
//! by a [`TokenKeeper`].

pub mod answer;
pub mod credential;
pub mod standing;

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// Bytes of a token. Longer ones pass no header of any server.
pub const TOKEN_MAX: usize = 16_384;

/// The limits of `oauth` in the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuthOptions {
    /// How long a token endpoint may take for its whole answer.
    #[serde(with = "humantime_serde")]
    pub refresh_timeout: Duration,
    /// How long before its end a token is renewed.
    #[serde(with = "humantime_serde")]
    pub refresh_ahead: Duration,
    /// The rest after a refresh that came to nothing. Each further one doubles it.
    #[serde(with = "humantime_serde")]
    pub retry_min: Duration,
    #[serde(with = "humantime_serde")]
    pub retry_max: Duration,
    /// How long a token that was new and was refused all the same is not renewed.
    #[serde(with = "humantime_serde")]
    pub refused_rest: Duration,
    /// How long the database has to write new tokens down before they are used without that.
    #[serde(with = "humantime_serde")]
    pub persist_wait: Duration,
    /// Bytes of an answer of a token endpoint.
    pub answer_max: usize,
}

/// What an operator has put in. Secrets are in here, so it is never printed.
///
/// Two are the same that came of the same order: what has been renewed since is in the
/// [`credential::Credential`].
#[derive(Clone)]
pub struct Grant {
    /// Another one for each that is put in.
    pub id: Uuid,
    pub client: OAuthClient,
    /// As they were when they were read.
    pub tokens: Tokens,
}

impl PartialEq for Grant {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Grant {}

/// Who we are to the authorization server (RFC 7591's names).
#[derive(Clone, PartialEq, Eq)]
pub struct OAuthClient {
    pub id: String,
    pub secret: Option<String>,
    pub auth: ClientAuth,
    pub token_endpoint: String,
    /// What the tokens are for (RFC 8707); none for the upstream's own URL.
    pub resource: Option<String>,
}

/// How a client says to the token endpoint who it is (RFC 6749, 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    Basic,
    Post,
    None,
}

/// Tokens as a token endpoint gives them (RFC 6749, 5.1). They are bearer tokens.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// None until the first refresh, where only a refresh token was put in.
    pub access_token: Option<String>,
    pub refresh_token: Option<String>,
    pub expires_at: Option<OffsetDateTime>,
    pub scope: Option<String>,
}

impl Tokens {
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.access_token.iter().chain(&self.refresh_token).map(String::as_str)
    }
}

impl Grant {
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.tokens.secrets().chain(self.client.secret.as_deref())
    }
}

/// Where renewed tokens are kept.
pub trait TokenKeeper: Send + Sync {
    /// Has the tokens of a grant written down. Whether they are, by the time that there is for it; if
    /// not they will be later.
    fn keep(&self, grant: Uuid, tokens: Tokens) -> BoxFuture<'static, bool>;
}

/// Whether a text can stand in an `Authorization` header as a bearer token.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= TOKEN_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}
