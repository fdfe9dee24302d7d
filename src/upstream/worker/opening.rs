//! How a session of a remote upstream comes about, over whichever of the two transports it speaks.
//!
//! The row says which to try first. A server that answers so as only one of the other transport does
//! is tried by the other, as the specification has it for old servers (transports, 2025-03-26,
//! "Backwards compatibility"); what it speaks is then known for as long as the connection lives.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, header};
use tokio::time::timeout;

use super::{
    authorizing::SendError,
    credential,
    dialects::REFUSAL_MAX,
    event_stream,
    messages::{Kindred, Messages, kindred, parse},
    remote::{ACCEPT_BOTH, Remote, SESSION_ID, Speech, TELL_PATIENCE},
    remote_session::{Established, RemoteSession, Way},
    throttling::refused_to_open,
};
use crate::{
    egress::{Body, EgressError},
    upstream::{
        CallError, Exit, Reason,
        exchange::own_id,
        handshake::{self, excerpt},
        status::StateWord,
    },
    wire::{Frame, capabilities::ClientCapabilities, message},
};

/// Why a session was not opened.
pub enum Unopened {
    /// What answers does not speak this transport; it may speak the other.
    Foreign(Exit),
    Failed(Exit),
}

impl From<Exit> for Unopened {
    fn from(exit: Exit) -> Self {
        Self::Failed(exit)
    }
}

/// Opens a session.
pub async fn open(remote: &Arc<Remote>, session: &RemoteSession) -> Result<Established, Exit> {
    let first = remote.speaks().unwrap_or(remote.address.speech);
    let why = match attempt(remote, session, first).await {
        Ok(established) => {
            remote.learn(first);
            return Ok(established);
        }
        Err(Unopened::Failed(exit)) => return Err(exit),
        Err(Unopened::Foreign(why)) => why,
    };
    if remote.speaks().is_some() {
        return Err(why);
    }
    let (foreign, why) = (why.reason, why.detail.unwrap_or_default());
    let second = first.other();
    let (reason, why_not) = match attempt(remote, session, second).await {
        Ok(established) => {
            remote.learn(second);
            tracing::info!(
                server = %remote.server, why, "the upstream speaks {0}; set its `type` to {0}",
                second.as_str()
            );
            return Ok(established);
        }
        Err(Unopened::Foreign(why_not)) => (foreign, why_not.detail.unwrap_or_default()),
        Err(Unopened::Failed(exit)) => {
            (exit.reason, exit.detail.unwrap_or_else(|| exit.reason.as_str().into()))
        }
    };
    let (first, second) = (first.as_str(), second.as_str());
    let detail = format!("as {first}: {why}; as {second}: {why_not}; see whether `url` is right");
    Err(Exit::new(reason, detail))
}

/// What a call hears whose session was not opened.
pub fn call_error(remote: &Remote, exit: Exit) -> CallError {
    let server = remote.server.clone();
    if exit.reason == Reason::Incompatible {
        // No session of it will be opened again, whosever it is.
        remote.signals.suspect.notify_one();
    }
    match exit.reason {
        Reason::InsufficientScope => CallError::InsufficientScope { server, scope: exit.scope },
        Reason::Unauthorized => {
            remote.signals.unauthorized.notify_one();
            CallError::unauthorized(server)
        }
        Reason::TokenFailed => {
            let why = exit.detail.unwrap_or_default().into();
            CallError::NoToken { server, why }
        }
        Reason::Throttled => {
            let after = remote.belonging.breaker.throttled_for().unwrap_or_default();
            CallError::Throttled { server, after }
        }
        // The call itself has not even begun.
        Reason::ConnectFailed | Reason::ConnectTimeout => {
            CallError::NotSent { server, detail: exit.detail }
        }
        reason => CallError::Unavailable {
            server,
            state: StateWord::Starting,
            reason,
            detail: exit.detail,
        },
    }
}

async fn attempt(
    remote: &Arc<Remote>,
    session: &RemoteSession,
    speech: Speech,
) -> Result<Established, Unopened> {
    let attempted = match speech {
        Speech::StreamableHttp => by_post(remote, session.declared).await,
        Speech::Sse => event_stream::open(remote, session).await,
    };
    attempted.map_err(|unopened| match unopened {
        Unopened::Failed(exit) => Unopened::Failed(remote.explained(exit)),
        Unopened::Foreign(why) => Unopened::Foreign(why),
    })
}

/// Streamable HTTP: `initialize` is a POST like any other.
async fn by_post(
    remote: &Arc<Remote>,
    declared: ClientCapabilities,
) -> Result<Established, Unopened> {
    let id = remote.next_id();
    let message = message::request(id, "initialize", &handshake::initialize_params(declared));
    let response = remote
        .exchange(Method::POST, ACCEPT_BOTH, None, message, None)
        .await
        .map_err(not_connected)?;
    let status = response.status();
    if let Some(exit) = refused_to_open(remote, status, response.headers()) {
        return Err(exit.into());
    }
    if status != StatusCode::OK {
        return Err(match refusal(status, response.headers(), "`initialize`") {
            Unopened::Foreign(exit) => another_era(remote, status, response.into_body(), id)
                .await
                .unwrap_or(Unopened::Foreign(exit)),
            failed @ Unopened::Failed(_) => failed,
        });
    }
    let session_id = response.headers().get(SESSION_ID).cloned();
    let failed = |why: String| Exit::new(Reason::HandshakeFailed, why);
    if let Kindred::Neither(kind) = kindred(response.headers()) {
        return Err(failed(format!("`initialize` was answered by `{kind}`")).into());
    }
    let mut messages = Messages::of(response, remote.frames().message_max);
    let answer = loop {
        let next = messages.next().await.map_err(|error| failed(error.to_string()))?;
        let Some(bytes) = next else {
            return Err(failed("the answer ended without one to `initialize`".into()).into());
        };
        match parse(bytes, remote.frames().depth_max).await {
            Ok(frame) if frame.method().is_none() && is_answer_to(&frame, id) => break frame,
            Ok(_) => {}
            Err(error) => tracing::debug!(server = %remote.server, %error, "it is no message"),
        }
    };
    let introduction = handshake::introduction(&answer)?;
    Ok(Established { introduction, way: Way::Posts { id: session_id } })
}

/// Whether the body of a refusal says that there is no revision that both speak. That `initialize` is unknown may
/// be said by a server of the other transport too.
async fn another_era(remote: &Remote, status: StatusCode, body: Body, id: u64) -> Option<Unopened> {
    let body = timeout(TELL_PATIENCE, body.collect(REFUSAL_MAX)).await.ok()?.ok()?;
    let frame = Frame::parse(body, remote.frames().depth_max).ok()?;
    let error = frame.error().filter(|_| is_answer_to(&frame, id))?;
    let exit = handshake::incompatible(&error)?;
    Some(match status {
        StatusCode::BAD_REQUEST => Unopened::Failed(exit),
        _ => Unopened::Foreign(exit),
    })
}

/// Whether a response to one request's own POST is its answer. An error needs no id: it can only be
/// about what was sent (JSON-RPC 2.0, section 5).
pub fn is_answer_to(frame: &Frame, id: u64) -> bool {
    match frame.id() {
        Some(given) => own_id(Some(given)) == Some(id),
        None => frame.error().is_some(),
    }
}

/// What a status says that is not the one that was hoped for.
pub fn refusal(status: StatusCode, headers: &HeaderMap, to: &str) -> Unopened {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Unopened::Failed(credential::refused(status, headers))
        }
        StatusCode::BAD_REQUEST
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::NOT_ACCEPTABLE => {
            let detail = format!("HTTP status {status} to {to}");
            Unopened::Foreign(Exit::new(Reason::HttpStatus, detail))
        }
        status => {
            let location = headers.get(header::LOCATION);
            let detail = match location.and_then(|location| location.to_str().ok()) {
                Some(location) => {
                    format!(
                        "HTTP status {status}; it sends us to {}, which is not followed",
                        excerpt(location.as_bytes())
                    )
                }
                None => format!("HTTP status {status} to {to}"),
            };
            Unopened::Failed(Exit::new(Reason::HttpStatus, detail))
        }
    }
}

pub fn not_connected(error: SendError) -> Exit {
    let error = match error {
        SendError::Egress(error) => error,
        SendError::Token(no_token) => return no_token.exit(),
    };
    let reason = match &error {
        EgressError::Refused { .. } => Reason::AddressRefused,
        EgressError::NotHttp { .. } | EgressError::NoHost | EgressError::Unsendable { .. } => {
            Reason::ConfigInvalid
        }
        EgressError::ConnectTimeout => Reason::ConnectTimeout,
        EgressError::Tls { .. } => Reason::TlsFailed,
        EgressError::Resolve { .. }
        | EgressError::NotBegun { .. }
        | EgressError::ConnectRefused
        | EgressError::Connect { .. }
        | EgressError::Setup { .. } => Reason::ConnectFailed,
        EgressError::Broken { .. } | EgressError::TooLarge { .. } => Reason::HandshakeFailed,
    };
    Exit::new(reason, error.to_string())
}
