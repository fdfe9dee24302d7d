//! Sends requests with the token of the upstream's OAuth session, and has it renewed: ahead of its end, and
//! once where a request was answered 401. That proves that it was not executed, so it is sent once more.
//!
//! Whether there is something to renew is decided by `oauth::standing`. One asks the token endpoint at a
//! time, by a task of its own: whoever asked may go at any time, and the tokens that were issued by then
//! must not be lost, since the ones before are good no more.

use std::sync::{Arc, atomic::Ordering};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use time::OffsetDateTime;
use tokio::{runtime::Handle, time::timeout};
use url::{Url, form_urlencoded};

use super::{remote::Remote, remote_life::Hiding};
use crate::{
    egress::{Begun, Body, Door, EgressError},
    failpoint,
    upstream::{
        Exit, Reason,
        oauth::{
            ClientAuth, OAuthOptions, TokenKeeper, Tokens,
            answer::{self, Answer},
            credential::{Credential, Present},
            standing::Need,
        },
    },
};

/// What it takes to send with the token of an OAuth session, and to renew it.
#[derive(Clone)]
pub struct Authorizing {
    pub credential: Arc<Credential>,
    /// By the machine's own certificates, whatever the upstream's are.
    pub door: Door,
    pub keeper: Arc<dyn TokenKeeper>,
    pub options: OAuthOptions,
    /// What the tokens are for, where the session does not say.
    pub resource: String,
    /// Whose log must not show the tokens.
    pub hiding: Hiding,
    /// Where the upstream itself lives. The threads of those who call end before it does, and with them
    /// what they have begun.
    pub runtime: Handle,
}

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error(transparent)]
    Token(#[from] NoToken),
}

/// Why there is no token to send it with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// A person has to do something.
    #[error("{0}")]
    GivenUp(Arc<str>),
    /// It may be had another time.
    #[error("no new access token was to be had: {0}")]
    Failed(Arc<str>),
}

impl NoToken {
    pub fn exit(self) -> Exit {
        match self {
            Self::GivenUp(why) => Exit::new(Reason::Unauthorized, &*why),
            Self::Failed(_) => Exit::new(Reason::TokenFailed, self.to_string()),
        }
    }
}

impl Remote {
    /// Sends a request with the present token, if there is an OAuth session, and where that is refused
    /// once more with a new one. A 401 that comes back is the last word.
    pub(super) async fn pass(
        &self,
        request: Request<Bytes>,
        begun: Option<&Begun>,
    ) -> Result<http::Response<Body>, SendError> {
        let Some(authorizing) = &self.address.authorizing else {
            return Ok(self.pass_once(request, begun).await?);
        };
        let credential = &authorizing.credential;
        let mut present = self.token(authorizing, None).await?;
        let mut is_repeated = false;
        loop {
            let mut attempt = request.clone();
            if let Some(header) = &present.header {
                attempt.headers_mut().insert(header::AUTHORIZATION, header.clone());
            }
            let response = self.pass_once(attempt, begun).await?;
            if response.status().is_success() {
                credential.accepted(&present);
            }
            if response.status() != StatusCode::UNAUTHORIZED || is_repeated {
                return Ok(response);
            }
            if let Some(begun) = begun {
                begun.store(false, Ordering::Relaxed);
            }
            present = match self.token(authorizing, Some(present.generation)).await {
                Ok(present) => present,
                Err(NoToken::GivenUp(_)) => return Ok(response),
                Err(failed @ NoToken::Failed(_)) => return Err(failed.into()),
            };
            is_repeated = true;
        }
    }

    /// What an exit for want of a credential has to say of the OAuth session.
    pub(super) fn explained(&self, exit: Exit) -> Exit {
        let authorizing = self.address.authorizing.as_ref();
        let authorizing = authorizing.filter(|_| exit.reason == Reason::Unauthorized);
        let trouble = |one: &Authorizing| one.credential.trouble(&one.options);
        match authorizing.and_then(trouble) {
            Some(why) => Exit::new(Reason::Unauthorized, &*why),
            None => exit,
        }
    }

    /// The token to send with; `refused` are those that were answered 401.
    async fn token(
        &self,
        authorizing: &Authorizing,
        refused: Option<u64>,
    ) -> Result<Arc<Present>, NoToken> {
        match authorizing.credential.need(refused, &authorizing.options) {
            Need::Use => Ok(authorizing.credential.present()),
            Need::Rest(why) => Err(NoToken::Failed(why)),
            Need::GivenUp(why) => Err(NoToken::GivenUp(why)),
            Need::Refresh => {
                let server = self.server.clone();
                let renewing = authorizing.clone().renewed(server, refused);
                let renewing = self.tasks.track_future(renewing);
                let renewed = authorizing.runtime.spawn(renewing).await;
                renewed.unwrap_or_else(|_panicked| {
                    Err(NoToken::Failed("our own code panicked; please report it".into()))
                })
            }
        }
    }
}

impl Authorizing {
    /// The tokens after one refresh, whoever of those who want it has made it.
    async fn renewed(
        self,
        server: Arc<str>,
        refused: Option<u64>,
    ) -> Result<Arc<Present>, NoToken> {
        let credential = &self.credential;
        let _one_at_a_time = credential.turn().await;
        for may_refresh in [true, false] {
            match credential.need(refused, &self.options) {
                Need::Refresh if may_refresh => self.refresh(&server).await,
                Need::Use | Need::Refresh => break,
                Need::Rest(why) => return Err(NoToken::Failed(why)),
                Need::GivenUp(why) => return Err(NoToken::GivenUp(why)),
            }
        }
        Ok(credential.present())
    }

    async fn refresh(&self, server: &str) {
        let credential = &self.credential;
        let asked = timeout(self.options.refresh_timeout, self.ask()).await;
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                if let EgressError::TooLarge { .. } = error {
                    metrics::counter!("metamcpd_limit_hit_total", "limit" => "oauth.answer_max")
                        .increment(1);
                }
                Answer::Failed(format!("the token endpoint could not be asked: {error}"))
            }
            Err(_elapsed) => Answer::Failed(
                "the token endpoint did not answer in time (`oauth.refresh_timeout`)".into(),
            ),
        };
        let outcome = match &answer {
            Answer::Granted(tokens) => {
                failpoint::pass("token-issued");
                // Before anybody can see them, and before they can come back in what a server says.
                self.hiding.hide(tokens.secrets());
                self.keep(server, tokens).await;
                "refreshed"
            }
            Answer::Refused(said) => {
                tracing::warn!(%server, said, "the OAuth session of an upstream has ended");
                "refused"
            }
            Answer::Failed(why) => {
                tracing::warn!(%server, why, "an access token could not be renewed");
                "failed"
            }
        };
        metrics::counter!("metamcpd_oauth_refreshes_total", "outcome" => outcome).increment(1);
        credential.settle(answer, &self.options);
    }

    /// Written down before they are used: the refresh token before them may be good no more. Where the
    /// database is away they are used all the same, and written when it is back; to refuse them would
    /// lose them for certain.
    async fn keep(&self, server: &str, tokens: &Tokens) {
        if !self.keeper.keep(self.credential.grant.id, tokens.clone()).await {
            metrics::counter!("metamcpd_oauth_tokens_unwritten_total").increment(1);
            tracing::warn!(%server, "renewed tokens are not written down yet");
        }
    }

    async fn ask(&self) -> Result<Answer, EgressError> {
        let before = self.credential.tokens();
        let request = self.request(&before)?;
        let response = self.door.send(request).await?;
        let status = response.status();
        let max = self.options.answer_max;
        let body = match response.into_body().collect(max).await {
            Ok(body) => body,
            // What a refusal says beside its status is not needed.
            Err(_) if status != StatusCode::OK => Bytes::new(),
            Err(error) => return Err(error),
        };
        Ok(answer::read(status, &body, &before, OffsetDateTime::now_utc()))
    }

    /// A refresh (RFC 6749, 6) for the resource (RFC 8707, 2.2).
    fn request(&self, before: &Tokens) -> Result<Request<Bytes>, EgressError> {
        let client = self.credential.client();
        let place: Uri =
            client.token_endpoint.parse().map_err(|error: http::uri::InvalidUri| {
                EgressError::Unsendable { source: error.into() }
            })?;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token");
        form.append_pair("refresh_token", before.refresh_token.as_deref().unwrap_or_default());
        form.append_pair("resource", client.resource.as_deref().unwrap_or(&self.resource));
        let mut authorization = None;
        match (client.auth, &client.secret) {
            (ClientAuth::Basic, Some(secret)) => {
                let encoded = |text: &str| {
                    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>()
                };
                let pair = format!("{}:{}", encoded(&client.id), encoded(secret));
                authorization = Some(format!("Basic {}", BASE64.encode(pair)));
            }
            (ClientAuth::Post, Some(secret)) => {
                form.append_pair("client_id", &client.id).append_pair("client_secret", secret);
            }
            (ClientAuth::Basic | ClientAuth::Post, None) | (ClientAuth::None, _) => {
                form.append_pair("client_id", &client.id);
            }
        }
        let mut request = Request::new(Bytes::from(form.finish()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = place;
        let headers = request.headers_mut();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(authorization) =
            authorization.and_then(|text| HeaderValue::from_str(&text).ok())
        {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        Ok(request)
    }
}

/// What tokens for the server at this URL are for, where nobody says: the URL without what may be secret
/// in it.
pub fn resource_of(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}
