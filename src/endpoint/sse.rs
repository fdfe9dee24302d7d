//! HTTP+SSE (2024-11-05): one stream down, and POSTs up whose answers come by the stream.
//!
//! The stream is the session: when it ends, so does everything that was under way in it.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Payload, Query},
};
use bytes::Bytes;
use futures_util::FutureExt;
use serde::Deserialize;
use tokio::{sync::watch, time::Instant};

use super::{
    EndpointState,
    answers::{self, Accepts, Refusal, stream_of},
    containing::panicked,
    conversation::{self, Batch, Heard, Turn},
    guard::admit_request,
    introduction,
    teller::{Carried, Teller},
};
use crate::{
    conductor::{Conductor, EndpointEntry},
    failpoint,
    session::{InFlight, Outgoing, Session, Via},
    wire::{Fault, Frame, Kind, ListCounts, batch, sse},
};

/// How long the stream of a session that was ended waits for the outcomes of its calls.
const LAST_WORD_WAIT: Duration = Duration::from_secs(2);

/// How often it is looked whether one of them still has an outcome to come.
const LAST_WORD_PACE: Duration = Duration::from_millis(10);

pub fn get(state: &EndpointState, name: &str, request: &HttpRequest) -> HttpResponse {
    failpoint::pass("older-get");
    let admitted = match admit_request(&state.conductor, request, name) {
        Ok(admitted) => admitted,
        Err(denied) => return denied.response(),
    };
    let refuse = |status, why: String| Refusal::invalid(status, why).response();
    if !Accepts::of(request).events {
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
    if let Err(error) = session.has_room_for_stream() {
        state.conductor.sessions.end(&session);
        return refuse(StatusCode::TOO_MANY_REQUESTS, error.to_string());
    }
    session.open_stream();
    session.saw_lists(&entry.namespace.changes.borrow());
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
        _carried: request
            .conn_data::<Teller>()
            .map(|teller| teller.carry(session.short(), session.ended.clone())),
        session,
    };
    answers::events().streaming(stream_of(stream, async |stream| stream.next().await))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageQuery {
    #[serde(alias = "session_id")]
    session_id: Option<String>,
}

pub async fn post(
    state: &Data<EndpointState>,
    name: &str,
    request: &HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let query = match Query::<MessageQuery>::from_query(request.query_string()) {
        Ok(query) => query.into_inner(),
        Err(error) => {
            return Refusal::invalid(StatusCode::BAD_REQUEST, error.to_string()).response();
        }
    };
    failpoint::pass("older-post");
    let admitted = match admit_request(&state.conductor, request, name) {
        Ok(admitted) => admitted,
        Err(denied) => return denied.response(),
    };
    let session = query.session_id.as_deref().and_then(|id| {
        let (endpoint, principal) = (admitted.entry.id, &admitted.principal);
        state.conductor.sessions.find(id, endpoint, principal, Via::Sse).ok()
    });
    let Some(session) = session else {
        let fault = Fault::session_not_found();
        return Refusal::new(StatusCode::NOT_FOUND, fault, None).response();
    };
    if let Some(teller) = request.conn_data::<Teller>() {
        teller.is_of(session.short());
    }
    let body = match answers::read_body(payload, state.body_max).await {
        Ok(body) => body,
        Err(refusal) => return refusal.response(),
    };
    let taken = match batch::is_batch(&body) {
        true => take_batch(state, &admitted.entry, &session, body).await,
        false => take(state, &admitted.entry, &session, body).await,
    };
    match taken {
        Ok(()) => HttpResponse::Accepted().body("Accepted"),
        Err(refusal) => refusal.response(),
    }
}

async fn take(
    state: &Data<EndpointState>,
    entry: &Arc<EndpointEntry>,
    session: &Arc<Session>,
    body: Bytes,
) -> Result<(), Refusal> {
    let depth_max = state.frames.depth_max;
    let frame = answers::read_aside(body, move |body| Frame::parse(body, depth_max)).await?;
    if let Some(fault) = repeated(session, &frame) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, fault, frame.id()));
    }
    let noted = conversation::note(session, &frame)
        .map_err(|fault| Refusal::new(StatusCode::TOO_MANY_REQUESTS, fault, frame.id()))?;
    begin(state, entry, session, frame, noted).await;
    Ok(())
}

/// Each message of a batch as if it had come by itself, but that what is wrong with one of them is said
/// by the stream.
async fn take_batch(
    state: &Data<EndpointState>,
    entry: &Arc<EndpointEntry>,
    session: &Arc<Session>,
    body: Bytes,
) -> Result<(), Refusal> {
    let (depth_max, max) = (state.frames.depth_max, state.conductor.sessions.options.batch_max);
    let messages = answers::read_aside(body, move |body| batch::split(&body, depth_max, max));
    for message in messages.await? {
        let repetition = message.as_ref().ok().and_then(|frame| repeated(session, frame));
        if let (Ok(frame), Some(fault)) = (&message, repetition) {
            session.push(fault.to_bytes(frame.id()));
            continue;
        }
        let Batch { noted, said } = conversation::note_all(session, vec![message]);
        for error in said {
            session.push(error);
        }
        for (frame, noted) in noted {
            begin(state, entry, session, frame, noted).await;
        }
    }
    Ok(())
}

/// All answers share one stream, where nothing but the id tells them apart.
fn repeated(session: &Session, frame: &Frame) -> Option<Fault> {
    let is_in_use = frame.id().is_some_and(|id| session.has_in_flight(id));
    (frame.kind() == Kind::Request && is_in_use)
        .then(|| Fault::invalid_request("a request with this id has no answer yet"))
}

async fn begin(
    state: &Data<EndpointState>,
    entry: &Arc<EndpointEntry>,
    session: &Arc<Session>,
    frame: Frame,
    noted: Option<InFlight>,
) {
    if noted.is_some() {
        // In a task of its own, since the POST is answered at once and the outcome by the stream.
        let (state, entry, session) = (state.clone(), entry.clone(), session.clone());
        let id = frame.id().map(Bytes::copy_from_slice);
        let said_to = session.clone();
        actix_web::rt::spawn(async move {
            let answered = AssertUnwindSafe(answer(state, entry, session, frame, noted));
            if answered.catch_unwind().await.is_err() {
                said_to.push(panicked().to_bytes(id.as_deref()));
            }
        });
    } else if let Turn::Answer(answer) =
        conversation::hear(state, entry, session, frame, noted).await
    {
        session.push(answer);
    }
}

async fn answer(
    state: Data<EndpointState>,
    entry: Arc<EndpointEntry>,
    session: Arc<Session>,
    frame: Frame,
    noted: Option<InFlight>,
) {
    failpoint::pass("answer");
    // A client that does not read loses its session, and this with it.
    let say = |message: &Bytes| {
        session.push(message.clone());
    };
    let is_initialize = frame.method().as_deref() == Some("initialize");
    if is_initialize && session.version().is_none() {
        match introduction::initialize(&entry, &frame) {
            Ok((answer, agreed)) => {
                session.agree_on(agreed);
                if let Some(client) = introduction::client_info(&frame) {
                    session.introduce(client);
                }
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
    outbox: Outgoing,
    changes: watch::Receiver<ListCounts>,
    heartbeat: Duration,
    debounce: Duration,
    /// When the changes that the client has not been told of are to be announced.
    announce_at: Option<Instant>,
    /// Who ends the session says why, and the connection says nothing.
    _carried: Option<Carried>,
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
            let counts = *self.changes.borrow_and_update();
            let is_behind = self.session.unseen(&counts).next().is_some();
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
                    answers::announce(&self.session, &self.changes.borrow_and_update());
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
