//! Streamable HTTP (2025-03-26 and later): POST, GET and DELETE on one URL.
//!
//! A POST is answered by JSON when its outcome is all there is to say, and by a stream of events
//! when something comes before it or it is long in coming.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header::HeaderName},
    web::Payload,
};
use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    EndpointState,
    answers::{self, Accepts, Refusal},
    call_stream,
    conversation::{self, Batch, Turn},
    guard::{Admitted, admit_request},
    introduction,
    standing::Standing,
    teller::Teller,
};
use crate::{
    failpoint,
    session::{Session, SessionError, Via},
    wire::{Fault, Frame, Kind, batch, era},
};

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The one revision of this transport that has batches.
const BATCHED_IN: &str = "2025-03-26";

pub async fn post(
    state: &EndpointState,
    name: &str,
    request: &HttpRequest,
    payload: Payload,
) -> HttpResponse {
    failpoint::pass("post");
    let admitted = match admit_request(&state.conductor, request, name) {
        Ok(admitted) => admitted,
        Err(denied) => return denied.response(),
    };
    let answered = respond(state, &admitted, request, payload).await;
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
    let body = answers::read_body(payload, state.body_max).await?;
    if batch::is_batch(&body) {
        return respond_to_batch(state, admitted, request, accepts, body).await;
    }
    let depth_max = state.frames.depth_max;
    let frame = answers::read_aside(body, move |body| Frame::parse(body, depth_max)).await?;

    let is_initialize =
        frame.kind() == Kind::Request && frame.method().as_deref() == Some("initialize");
    if is_initialize {
        return begin(state, admitted, &frame);
    }
    let session = find_session(state, admitted, request, frame.id())?;
    let heartbeat = state.conductor.sessions.options.heartbeat;
    let noted = conversation::note(&session, &frame)
        .map_err(|fault| Refusal::new(StatusCode::TOO_MANY_REQUESTS, fault, frame.id()))?;
    match conversation::hear(state, &admitted.entry, &session, frame, noted).await {
        Turn::Answer(answer) => Ok(call_stream::one(answer, accepts)),
        Turn::Nothing => Ok(HttpResponse::Accepted().finish()),
        Turn::Cancelled => Ok(answers::events().finish()),
        Turn::Call(call) => Ok(call_stream::reply(&session, call, accepts, heartbeat).await),
    }
}

/// Handles each message of a batch on its own, all at once, as only 2025-03-26 has it.
async fn respond_to_batch(
    state: &EndpointState,
    admitted: &Admitted,
    request: &HttpRequest,
    accepts: Accepts,
    body: Bytes,
) -> Result<HttpResponse, Refusal> {
    let session = find_session(state, admitted, request, None)?;
    if session.version() != Some(BATCHED_IN) {
        let why = "batches are of the revision 2025-03-26 only; send each message by itself";
        return Err(Refusal::invalid(StatusCode::BAD_REQUEST, why));
    }
    let options = &state.conductor.sessions.options;
    let (depth_max, max) = (state.frames.depth_max, options.batch_max);
    let messages =
        answers::read_aside(body, move |body| batch::split(&body, depth_max, max)).await?;
    let Batch { noted, mut said } = conversation::note_all(&session, messages);
    let entry = &admitted.entry;
    let turns = noted
        .into_iter()
        .map(|(frame, noted)| conversation::hear(state, entry, &session, frame, noted));
    let mut calls = Vec::new();
    for turn in join_all(turns).await {
        match turn {
            Turn::Answer(answer) => said.push(answer),
            Turn::Call(call) => calls.push(call),
            Turn::Nothing | Turn::Cancelled => {}
        }
    }
    Ok(call_stream::reply_to_batch(&session, calls, said, accepts, options.heartbeat).await)
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
    let (answer, agreed) = introduction::initialize(&admitted.entry, frame)
        .map_err(|fault| Refusal::new(StatusCode::OK, fault, frame.id()))?;
    let sessions = &state.conductor.sessions;
    let session = sessions
        .begin(admitted.entry.id, admitted.principal.clone(), agreed)
        .map_err(|error| busy(error.to_string()))?;
    if let Some(client) = introduction::client_info(frame) {
        session.introduce(client);
    }
    session.saw_lists(&admitted.entry.namespace.changes.borrow());
    let mut response = answers::json(StatusCode::OK, answer);
    if let Ok(id) = session.id.parse() {
        response.headers_mut().insert(SESSION_ID, id);
    }
    Ok(response)
}

pub fn get(state: &EndpointState, name: &str, request: &HttpRequest) -> HttpResponse {
    failpoint::pass("get");
    let admitted = match admit_request(&state.conductor, request, name) {
        Ok(admitted) => admitted,
        Err(denied) => return denied.response(),
    };
    if state.draining.is_cancelled() {
        // A stream that begins now would only end; its session goes on in the next run.
        let why = "the gateway is stopping";
        return Refusal::invalid(StatusCode::SERVICE_UNAVAILABLE, why).response();
    }
    if !Accepts::of(request).events {
        let why = "the Accept header does not take text/event-stream";
        return Refusal::invalid(StatusCode::NOT_ACCEPTABLE, why).response();
    }
    if let Err(refusal) = check_version(request) {
        return refusal.response();
    }
    let session = match find_session(state, &admitted, request, None) {
        Ok(session) => session,
        Err(refusal) => return refusal.response(),
    };
    session.touch();
    if let Err(error) = session.has_room_for_stream() {
        return Refusal::invalid(StatusCode::TOO_MANY_REQUESTS, error.to_string()).response();
    }
    let last_event = request.headers().get(LAST_EVENT_ID);
    // What is no text is no id of ours either.
    let reader = match session.listen(last_event.map(|id| id.to_str().unwrap_or_default())) {
        Ok(reader) => reader,
        Err(unknown) => {
            return Refusal::invalid(StatusCode::BAD_REQUEST, unknown.to_string()).response();
        }
    };
    let heartbeat = state.conductor.sessions.options.heartbeat;
    match reader.is_standing() {
        false => call_stream::read(reader, heartbeat),
        true => {
            let changes = admitted.entry.namespace.changes.clone();
            Standing::new(reader, changes, heartbeat, state.debounce).serve()
        }
    }
}

pub async fn delete(state: &EndpointState, name: &str, request: &HttpRequest) -> HttpResponse {
    failpoint::pass("delete");
    let admitted = match admit_request(&state.conductor, request, name) {
        Ok(admitted) => admitted,
        Err(denied) => return denied.response(),
    };
    if let Err(refusal) = check_version(request) {
        return refusal.response();
    }
    match find_session(state, &admitted, request, None) {
        Ok(session) => {
            state.conductor.end_session(&session).await;
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
    let session_id = session_id.to_str().unwrap_or_default();
    let found = sessions.find(session_id, endpoint, principal, Via::StreamableHttp);
    if let (Ok(session), Some(teller)) = (&found, request.conn_data::<Teller>()) {
        teller.is_of(session.short());
    }
    found.map_err(|error| match error {
        SessionError::Unknown => {
            Refusal::new(StatusCode::NOT_FOUND, Fault::session_not_found(), id)
        }
        // Its client is to come again with the same session, which is still good.
        SessionError::TooMany
        | SessionError::MemoryIsShort
        | SessionError::Closed
        | SessionError::NoId(_) => {
            let fault = Fault::invalid_request(error.to_string());
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, fault, id)
        }
    })
}
