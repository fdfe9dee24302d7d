//! Streamable HTTP (2025-03-26 and later): POST, GET and DELETE on one URL.
//!
//! A POST is answered by JSON when its outcome is all there is to say, and by a stream of events
//! when something comes before it or it is long in coming.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header::HeaderName},
    web::{Data, Path, Payload},
};
use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    EndpointState,
    answers::{self, Accepts, Refusal, stream_of},
    conversation::{self, Heard, Introduction, Turn, Underway},
    guard::{Admitted, admit_request},
};
use crate::{
    session::{Session, Via},
    wire::{Fault, Frame, Kind, era, message, sse},
};

const SESSION_ID: &str = "mcp-session-id";
const PROTOCOL_VERSION: &str = "mcp-protocol-version";

pub async fn post(
    state: Data<EndpointState>,
    name: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let admitted = match admit_request(&state.conductor, &request, &name) {
        Ok(admitted) => admitted,
        Err(denied) => return denied.response(),
    };
    let answered = respond(&state, &admitted, &request, payload).await;
    answered.unwrap_or_else(|refusal| refusal.response())
}

async fn respond(
    state: &EndpointState,
    admitted: &Admitted,
    request: &HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Refusal> {
    let accepts = Accepts::of(request);
    if !accepts.json && !accepts.events {
        let why = "the Accept header takes neither application/json nor text/event-stream";
        return Err(Refusal::invalid(StatusCode::NOT_ACCEPTABLE, why));
    }
    if !answers::is_json(request) {
        let why = "the Content-Type must be application/json";
        return Err(Refusal::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    check_version(request)?;
    let (max, patience, depth_max) = (state.body_max, state.body_timeout, state.frames.depth_max);
    let frame = answers::read_frame(payload, max, patience, depth_max).await?;

    let is_initialize =
        frame.kind() == Kind::Request && frame.method().as_deref() == Some("initialize");
    if is_initialize {
        return begin(state, admitted, &frame);
    }
    let session = find_session(state, admitted, request, frame.id())?;
    let heartbeat = state.conductor.sessions.options.heartbeat;
    let noted = conversation::note(state, &session, &frame)
        .map_err(|fault| Refusal::new(StatusCode::TOO_MANY_REQUESTS, fault, frame.id()))?;
    match conversation::hear(state, &admitted.entry, &session, frame, noted).await {
        Turn::Answer(answer) => Ok(reply(answer, accepts)),
        Turn::Nothing => Ok(HttpResponse::Accepted().finish()),
        Turn::Cancelled => Ok(answers::events().finish()),
        Turn::Call(call) if accepts.events => Ok(reply_or_stream(call, accepts, heartbeat).await),
        Turn::Call(call) => Ok(reply_whole(call).await),
    }
}

/// A new session. An id that comes with it belongs to an old one and is of no account.
fn begin(
    state: &EndpointState,
    admitted: &Admitted,
    frame: &Frame,
) -> Result<HttpResponse, Refusal> {
    let busy = |why: String| {
        let fault = Fault::invalid_request(why);
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, fault, frame.id())
    };
    if state.draining.is_cancelled() {
        return Err(busy("the gateway is stopping".into()));
    }
    let Introduction { answer, version, capabilities } =
        conversation::initialize(&admitted.entry, frame)
            .map_err(|fault| Refusal::new(StatusCode::OK, fault, frame.id()))?;
    let sessions = &state.conductor.sessions;
    let session = sessions
        .begin(admitted.entry.id, admitted.principal.clone())
        .map_err(|error| busy(error.to_string()))?;
    session.agree_on(version);
    if let Some(client) = conversation::client_info(frame) {
        session.introduce(client);
    }
    session.declare(capabilities);
    session.saw_list(*admitted.entry.namespace.changes.borrow());
    let mut response = answers::json(StatusCode::OK, answer);
    if let Ok(id) = session.id.parse() {
        response.headers_mut().insert(HeaderName::from_static(SESSION_ID), id);
    }
    Ok(response)
}

pub async fn get(
    state: Data<EndpointState>,
    name: Path<String>,
    request: HttpRequest,
) -> HttpResponse {
    let admitted = match admit_request(&state.conductor, &request, &name) {
        Ok(admitted) => admitted,
        Err(denied) => return denied.response(),
    };
    if !Accepts::of(&request).events {
        let why = "the Accept header does not take text/event-stream";
        return Refusal::invalid(StatusCode::NOT_ACCEPTABLE, why).response();
    }
    if let Err(refusal) = check_version(&request) {
        return refusal.response();
    }
    let session = match find_session(&state, &admitted, &request, None) {
        Ok(session) => session,
        Err(refusal) => return refusal.response(),
    };
    session.touch();
    let (number, newest) = session.open_stream();
    let standing = Standing {
        number,
        newest,
        changes: admitted.entry.namespace.changes.clone(),
        heartbeat: state.conductor.sessions.options.heartbeat,
        debounce: state.debounce,
        announce_at: None,
        is_new: true,
        session,
    };
    answers::events().streaming(stream_of(standing, async |standing| standing.next().await))
}

pub async fn delete(
    state: Data<EndpointState>,
    name: Path<String>,
    request: HttpRequest,
) -> HttpResponse {
    let admitted = match admit_request(&state.conductor, &request, &name) {
        Ok(admitted) => admitted,
        Err(denied) => return denied.response(),
    };
    match find_session(&state, &admitted, &request, None) {
        Ok(session) => {
            state.conductor.sessions.end(&session);
            HttpResponse::NoContent().finish()
        }
        Err(refusal) => refusal.response(),
    }
}

/// A version that is named must be one that sessions can have agreed on (transports, 2025-06-18).
fn check_version(request: &HttpRequest) -> Result<(), Refusal> {
    let Some(named) = request.headers().get(PROTOCOL_VERSION) else { return Ok(()) };
    let known = named.to_str().ok().and_then(era::legacy);
    known.map(|_| ()).ok_or_else(|| {
        let why = format!(
            "the MCP-Protocol-Version is not one of {}; send `initialize` without it",
            era::LEGACY.join(", ")
        );
        Refusal::invalid(StatusCode::BAD_REQUEST, why)
    })
}

fn find_session(
    state: &EndpointState,
    admitted: &Admitted,
    request: &HttpRequest,
    id: Option<&[u8]>,
) -> Result<Arc<Session>, Refusal> {
    let Some(session_id) = request.headers().get(SESSION_ID) else {
        let why = "there is no Mcp-Session-Id header; send `initialize` to begin a session";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, Fault::invalid_request(why), id));
    };
    let sessions = &state.conductor.sessions;
    let (endpoint, principal) = (admitted.entry.id, &admitted.principal);
    session_id
        .to_str()
        .ok()
        .and_then(|session_id| sessions.find(session_id, endpoint, principal, Via::StreamableHttp))
        .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, Fault::session_not_found(), id))
}

fn reply(answer: Bytes, accepts: Accepts) -> HttpResponse {
    match accepts.json {
        true => answers::json(StatusCode::OK, answer),
        false => answers::events().body(sse::message(&answer)),
    }
}

/// JSON for who can read nothing else; what comes before the answer is left out.
async fn reply_whole(mut call: Box<Underway>) -> HttpResponse {
    call.hears_only_the_answer();
    loop {
        match call.next().await {
            Heard::Event(_) => {}
            Heard::Answer(answer) => return answers::json(StatusCode::OK, answer),
            Heard::Cancelled => return HttpResponse::NoContent().finish(),
        }
    }
}

async fn reply_or_stream(
    mut call: Box<Underway>,
    accepts: Accepts,
    heartbeat: Duration,
) -> HttpResponse {
    let first = match timeout(heartbeat, call.next()).await {
        Ok(Heard::Answer(answer)) => return reply(answer, accepts),
        Ok(Heard::Cancelled) => return answers::events().finish(),
        Ok(Heard::Event(event)) => sse::message(&event),
        Err(_elapsed) => sse::HEARTBEAT,
    };
    let streaming = Streaming { call: Some(call), first: Some(first), heartbeat };
    answers::events().streaming(stream_of(streaming, async |streaming| streaming.next().await))
}

/// The rest of a call, as events.
struct Streaming {
    call: Option<Box<Underway>>,
    first: Option<Bytes>,
    heartbeat: Duration,
}

impl Streaming {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let heard = match timeout(self.heartbeat, self.call.as_mut()?.next()).await {
            Ok(heard) => heard,
            Err(_elapsed) => return Some(sse::HEARTBEAT),
        };
        match heard {
            Heard::Event(event) => Some(sse::message(&event)),
            Heard::Answer(answer) => {
                self.call = None;
                Some(sse::message(&answer))
            }
            Heard::Cancelled => {
                self.call = None;
                None
            }
        }
    }
}

/// The standing stream of a session: announcements, and comments to keep it open.
struct Standing {
    session: Arc<Session>,
    number: u64,
    newest: watch::Receiver<u64>,
    changes: watch::Receiver<u64>,
    heartbeat: Duration,
    debounce: Duration,
    /// When the changes that the client has not been told of are to be announced.
    announce_at: Option<Instant>,
    is_new: bool,
}

impl Standing {
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.is_new) {
            return Some(sse::HEARTBEAT);
        }
        let until = Instant::now() + self.heartbeat;
        loop {
            let count = *self.changes.borrow_and_update();
            let is_behind = count > self.session.announced();
            // Counted from the first change, whatever is said meanwhile.
            self.announce_at = is_behind
                .then(|| self.announce_at.unwrap_or_else(|| Instant::now() + self.debounce));
            let announce_at = self.announce_at.unwrap_or(until);
            tokio::select! {
                biased;
                () = self.session.ended.cancelled() => return None,
                newest = self.newest.wait_for(|newest| *newest != self.number) => {
                    drop(newest);
                    return None;
                }
                () = tokio::time::sleep_until(announce_at), if is_behind => {
                    self.announce_at = None;
                    let count = *self.changes.borrow_and_update();
                    self.session.saw_list(count);
                    let changed = message::notification("notifications/tools/list_changed", b"");
                    return Some(sse::message(&changed));
                }
                changed = self.changes.changed(), if !is_behind => {
                    // The namespace is gone, and with it the endpoint.
                    changed.ok()?;
                }
                () = tokio::time::sleep_until(until) => return Some(sse::HEARTBEAT),
            }
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.session.close_stream();
    }
}
