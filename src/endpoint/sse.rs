//! HTTP+SSE (2024-11-05): one stream down, and POSTs up whose answers come by the stream.
//!
//! The stream is the session: when it ends, so does everything that was under way in it.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Path, Payload, Query},
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    EndpointState,
    answers::{self, Accepts, Refusal, stream_of},
    conversation::{self, Heard, Introduction, Turn},
    guard::admit_request,
};
use crate::{
    conductor::{Conductor, EndpointEntry},
    session::{InFlight, Session, Via},
    wire::{Fault, Frame, Kind, message, sse},
};

/// How long the stream of a session that was ended waits for the outcomes of its calls.
const LAST_WORD_WAIT: Duration = Duration::from_secs(2);

/// How often it is looked whether one of them still has an outcome to come.
const LAST_WORD_PACE: Duration = Duration::from_millis(10);

pub async fn get(
    state: Data<EndpointState>,
    name: Path<String>,
    request: HttpRequest,
) -> HttpResponse {
    let admitted = match admit_request(&state.conductor, &request, &name) {
        Ok(admitted) => admitted,
        Err(denied) => return denied.response(),
    };
    let refuse = |status, why: String| Refusal::invalid(status, why).response();
    if !Accepts::of(&request).events {
        let why = "the Accept header does not take text/event-stream";
        return refuse(StatusCode::NOT_ACCEPTABLE, why.into());
    }
    if state.draining.is_cancelled() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping".into());
    }
    let entry = admitted.entry;
    let begun = state.conductor.sessions.begin_sse(entry.id, admitted.principal);
    let (session, outbox) = match begun {
        Ok(begun) => begun,
        Err(error) => return refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    };
    session.open_stream();
    session.saw_list(*entry.namespace.changes.borrow());
    let mut url =
        format!("{}/metamcp/{}/message?sessionId={}", state.path_prefix, entry.name, session.id);
    if let Some(key) = admitted.query_key {
        // Who sends the key by the query has no other way to send it with the next request.
        let key: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
        url.push_str("&api_key=");
        url.push_str(&key);
    }
    let stream = Stream {
        first: Some(sse::named("endpoint", url.as_bytes())),
        outbox,
        changes: entry.namespace.changes.clone(),
        heartbeat: state.conductor.sessions.options.heartbeat,
        debounce: state.debounce,
        announce_at: None,
        conductor: state.conductor.clone(),
        session,
    };
    answers::events().streaming(stream_of(stream, async |stream| stream.next().await))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageQuery {
    #[serde(alias = "session_id")]
    session_id: Option<String>,
}

pub async fn post(
    state: Data<EndpointState>,
    name: Path<String>,
    query: Query<MessageQuery>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let admitted = match admit_request(&state.conductor, &request, &name) {
        Ok(admitted) => admitted,
        Err(denied) => return denied.response(),
    };
    let session = query.session_id.as_deref().and_then(|id| {
        let (endpoint, principal) = (admitted.entry.id, &admitted.principal);
        state.conductor.sessions.find(id, endpoint, principal, Via::Sse)
    });
    let Some(session) = session else {
        let fault = Fault::session_not_found();
        return Refusal::new(StatusCode::NOT_FOUND, fault, None).response();
    };
    let (max, patience, depth_max) = (state.body_max, state.body_timeout, state.frames.depth_max);
    let frame = match answers::read_frame(payload, max, patience, depth_max).await {
        Ok(frame) => frame,
        Err(refusal) => return refusal.response(),
    };
    // All answers share one stream, where nothing but the id tells them apart.
    if frame.kind() == Kind::Request && frame.id().is_some_and(|id| session.has_in_flight(id)) {
        let fault = Fault::invalid_request("a request with this id has no answer yet");
        return Refusal::new(StatusCode::BAD_REQUEST, fault, frame.id()).response();
    }
    let noted = match conversation::note(&state, &session, &frame) {
        Ok(noted) => noted,
        Err(fault) => {
            return Refusal::new(StatusCode::TOO_MANY_REQUESTS, fault, frame.id()).response();
        }
    };
    if noted.is_some() {
        // In a task of its own, since the POST is answered at once and the outcome by the stream.
        actix_web::rt::spawn(answer(state.clone(), admitted.entry, session, frame, noted));
    } else if let Turn::Answer(answer) =
        conversation::hear(&state, &admitted.entry, &session, frame, noted).await
    {
        session.push(sse::message(&answer));
    }
    HttpResponse::Accepted().body("Accepted")
}

async fn answer(
    state: Data<EndpointState>,
    entry: Arc<EndpointEntry>,
    session: Arc<Session>,
    frame: Frame,
    noted: Option<InFlight>,
) {
    let say = |message: &[u8]| {
        session.push(sse::message(message));
    };
    let is_initialize = frame.method().as_deref() == Some("initialize");
    if is_initialize && session.version().is_none() {
        match conversation::initialize(&entry, &frame) {
            Ok(Introduction { answer, version, capabilities }) => {
                session.agree_on(version);
                if let Some(client) = conversation::client_info(&frame) {
                    session.introduce(client);
                }
                session.declare(capabilities);
                say(&answer);
            }
            Err(fault) => say(&fault.to_bytes(frame.id())),
        }
        return;
    }
    match conversation::hear(&state, &entry, &session, frame, noted).await {
        Turn::Answer(answer) => say(&answer),
        Turn::Nothing | Turn::Cancelled => {}
        Turn::Call(mut call) => loop {
            match call.next().await {
                Heard::Event(event) => say(&event),
                Heard::Answer(answer) => break say(&answer),
                Heard::Cancelled => break,
            }
        },
    }
}

/// The stream of one session.
struct Stream {
    first: Option<Bytes>,
    outbox: mpsc::Receiver<Bytes>,
    changes: watch::Receiver<u64>,
    heartbeat: Duration,
    debounce: Duration,
    /// When the changes that the client has not been told of are to be announced.
    announce_at: Option<Instant>,
    session: Arc<Session>,
    conductor: Arc<Conductor>,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
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
                // What was said before the session ended is still sent.
                said = self.outbox.recv() => return said,
                () = self.session.ended.cancelled() => return self.last_word().await,
                () = tokio::time::sleep_until(announce_at), if is_behind => {
                    self.announce_at = None;
                    self.session.saw_list(*self.changes.borrow_and_update());
                    let changed = message::notification("notifications/tools/list_changed", b"");
                    return Some(sse::message(&changed));
                }
                changed = self.changes.changed(), if !is_behind => changed.ok()?,
                () = tokio::time::sleep_until(until) => return Some(sse::HEARTBEAT),
            }
        }
    }
}

impl Stream {
    /// What the calls of a session that was ended still have to say: each has its one outcome, and
    /// this stream is its only way to the client.
    async fn last_word(&mut self) -> Option<Bytes> {
        let until = Instant::now() + LAST_WORD_WAIT;
        loop {
            if let Ok(said) = self.outbox.try_recv() {
                return Some(said);
            }
            if self.session.in_flight() == 0 {
                // The last of them may have spoken in between.
                return self.outbox.try_recv().ok();
            }
            tokio::select! {
                biased;
                said = self.outbox.recv() => return said,
                () = tokio::time::sleep(LAST_WORD_PACE) => {}
                () = tokio::time::sleep_until(until) => return None,
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.session.close_stream();
        self.conductor.sessions.end(&self.session);
    }
}
