//! What a client's message means, whichever transport brought it.
//!
//! Lists come from the published snapshot and calls go by it; the namespace's actor is asked only
//! for what the snapshot cannot tell.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{EndpointState, asking::Askings, older};
use crate::{
    catalogue::routes::Route,
    conductor::{Conductor, EndpointEntry, relay},
    namespace::{AwaitFirst, Resolve, published::Published},
    session::{ClientInfo, InFlight, Session},
    upstream::{
        CallError,
        board::Board,
        link::Caller,
        nesting,
        port::{Conversation, Step},
    },
    wire::{
        Fault, Frame, Kind,
        capabilities::ClientCapabilities,
        era,
        fault::{Blame, Data},
        level::Level,
        message,
    },
};

/// What is to be done about a message.
pub enum Turn {
    /// The request is answered by this.
    Answer(Bytes),
    /// A call has begun; its outcome is still to come.
    Call(Box<Underway>),
    /// There is nothing to answer: it was a notification or an answer of the client's.
    Nothing,
    /// The request was cancelled by its client before it had an outcome.
    Cancelled,
}

/// A call and what keeps it cancellable.
pub struct Underway {
    conversation: Conversation,
    in_flight: InFlight,
    id: Bytes,
    ending: CancellationToken,
    session: Arc<Session>,
    askings: Askings,
    /// How it ended, while something is still to be said before that.
    ended: Option<Result<Bytes, CallError>>,
    called: Called,
}

/// What a call is of, for those who look into its failure.
struct Called {
    conductor: Arc<Conductor>,
    endpoint: Uuid,
    board: Arc<Board>,
    /// By its server's own name.
    tool: Box<str>,
}

/// What comes of a call.
pub enum Heard {
    /// A notification that belongs to it, or a question; more will follow.
    Event(Bytes),
    /// Its answer.
    Answer(Bytes),
    /// Its client took it back, so nothing is said.
    Cancelled,
}

impl Underway {
    /// The client takes one answer and nothing else, so nothing can be asked of it.
    pub fn hears_only_the_answer(&mut self) {
        self.askings.refuse_all();
    }

    /// What comes next. Not to be asked again after an answer. Safe to be dropped while it waits.
    pub async fn next(&mut self) -> Heard {
        loop {
            if self.ended.is_some()
                && let Some(heard) = self.last_words()
            {
                return heard;
            }
            let step = tokio::select! {
                biased;
                step = self.conversation.next() => step,
                taken_back = self.askings.next() => return Heard::Event(taken_back),
                () = self.ending.cancelled() => {
                    return Heard::Answer(stopping().to_bytes(Some(&self.id)));
                }
            };
            match step {
                Step::Event(event) => return Heard::Event(event),
                Step::Asked(question) => {
                    if let Some(request) = self.askings.begin(question) {
                        return Heard::Event(request);
                    }
                }
                Step::Said(note) if relay::is_wanted(&self.session, &note) => {
                    return Heard::Event(note.bytes().clone());
                }
                Step::Said(_unwanted) => {}
                Step::End(ended) => {
                    if ended.is_err() {
                        self.askings.abandon();
                    }
                    self.ended = Some(ended);
                }
            }
        }
    }

    /// What the upstream took back comes before its answer. An answer does not end what is still
    /// asked; a call that was given up does.
    fn last_words(&mut self) -> Option<Heard> {
        if let Some(taken_back) = self.askings.ready() {
            return Some(Heard::Event(taken_back));
        }
        self.askings.outlive_the_call();
        let ended = self.ended.take()?;
        Some(self.outcome(ended))
    }

    fn outcome(&self, ended: Result<Bytes, CallError>) -> Heard {
        match ended {
            Ok(answer) => Heard::Answer(older::worded_for(self.session.version(), answer)),
            Err(CallError::Cancelled) if self.in_flight.is_orphaned() => {
                Heard::Answer(session_ended().to_bytes(Some(&self.id)))
            }
            Err(CallError::Cancelled) => Heard::Cancelled,
            Err(error) => {
                self.called.failed(&error);
                Heard::Answer(error.fault().to_bytes(Some(&self.id)))
            }
        }
    }
}

/// Notes a request before anything is done about it, so that from then on it can be cancelled. Other
/// messages need no note.
pub fn note(
    state: &EndpointState,
    session: &Arc<Session>,
    frame: &Frame,
) -> Result<Option<InFlight>, Fault> {
    session.touch();
    let Some(id) = frame.id().filter(|_| frame.kind() == Kind::Request) else { return Ok(None) };
    let max = state.conductor.sessions.options.in_flight_max;
    let noted = session.begin(id).ok_or_else(|| {
        Fault::invalid_request(format!(
            "this session has {max} requests without an answer (`sessions.in_flight_max`)"
        ))
    })?;
    Ok(Some(noted))
}

/// Takes one message of a session that has been introduced, with the note made of it.
pub async fn hear(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Arc<Session>,
    frame: Frame,
    noted: Option<InFlight>,
) -> Turn {
    let method = frame.method();
    if frame.kind() == Kind::Request && state.draining.is_cancelled() {
        return Turn::Answer(stopping().to_bytes(frame.id()));
    }
    match (noted, method.as_deref()) {
        (Some(in_flight), Some(method)) => {
            let id = frame.id().map(Bytes::copy_from_slice).unwrap_or_default();
            match method {
                "ping" => Turn::Answer(message::reply(&id, b"{}")),
                "tools/list" => Turn::Answer(match refuse_cursor(&frame) {
                    Ok(()) => list(entry, session, &id).await,
                    Err(fault) => fault.to_bytes(Some(&id)),
                }),
                // What is not offered is empty: many clients ask without looking whether it is.
                "prompts/list" => Turn::Answer(message::reply(&id, br#"{"prompts":[]}"#)),
                "resources/list" => Turn::Answer(message::reply(&id, br#"{"resources":[]}"#)),
                "resources/templates/list" => {
                    Turn::Answer(message::reply(&id, br#"{"resourceTemplates":[]}"#))
                }
                nesting::METHOD => {
                    let behind = nesting::answer(&entry.namespace.published.load().active);
                    Turn::Answer(message::reply(&id, &behind))
                }
                "tools/call" => call(state, entry, session, frame, in_flight).await,
                "logging/setLevel" => Turn::Answer(set_level(entry, session, &frame, &id)),
                "initialize" => Turn::Answer(
                    Fault::invalid_request("this session has been initialised already")
                        .to_bytes(Some(&id)),
                ),
                other => Turn::Answer(Fault::method_not_found(other).to_bytes(Some(&id))),
            }
        }
        (None, Some("notifications/cancelled")) => {
            if let Some(id) = frame.request_id() {
                session.cancel(id);
            }
            Turn::Nothing
        }
        (None, Some("notifications/progress")) => {
            session.questions.progress(frame);
            Turn::Nothing
        }
        (None, Some("notifications/roots/list_changed")) => {
            let caller = caller(session);
            for board in &entry.namespace.published.load().boards {
                board.port.roots_changed(&caller);
            }
            Turn::Nothing
        }
        (None, None) => {
            session.questions.answer(frame);
            Turn::Nothing
        }
        (Some(_) | None, _) => Turn::Nothing,
    }
}

/// Who calls, as upstreams see it.
fn caller(session: &Session) -> Caller<'_> {
    Caller {
        session: &session.id,
        principal: &session.principal,
        capabilities: session.capabilities(),
        log_level: session.log_level(),
    }
}

/// The level is the session's; each upstream is told as much as its clients want of it in all.
fn set_level(entry: &EndpointEntry, session: &Session, frame: &Frame, id: &[u8]) -> Bytes {
    let Some(level) = Level::of(frame) else {
        let why = "`logging/setLevel` needs a `level` from `debug` to `emergency`";
        return Fault::invalid_params(why).to_bytes(Some(id));
    };
    session.set_log_level(level);
    for board in &entry.namespace.published.load().boards {
        board.port.set_level(&caller(session), level);
    }
    message::reply(id, b"{}")
}

/// What `initialize` comes to.
pub struct Introduction {
    pub answer: Bytes,
    pub version: &'static str,
    pub capabilities: ClientCapabilities,
}

/// Answers `initialize`, without touching any upstream.
pub fn initialize(entry: &EndpointEntry, frame: &Frame) -> Result<Introduction, Fault> {
    #[derive(Deserialize)]
    struct Request {
        params: Params,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        protocol_version: String,
        #[serde(default)]
        capabilities: serde_json::Value,
    }

    let request: Request = serde_json::from_slice(frame.bytes()).map_err(|error| {
        Fault::invalid_params(format!("`initialize` needs a `protocolVersion`: {error}"))
    })?;
    let version = era::negotiate(&request.params.protocol_version);
    let result = serde_json::json!({
        "protocolVersion": version,
        "capabilities": { "tools": { "listChanged": true }, "logging": {} },
        "serverInfo": {
            "name": nesting::GATEWAY,
            "title": entry.name,
            "version": env!("CARGO_PKG_VERSION"),
        },
    });
    let id = frame.id().unwrap_or(b"null");
    Ok(Introduction {
        answer: message::reply(id, result.to_string().as_bytes()),
        version,
        capabilities: ClientCapabilities::of(&request.params.capabilities),
    })
}

/// What the client says of itself in `initialize`, if it says it with sense; of each word no more
/// than people read.
pub fn client_info(frame: &Frame) -> Option<ClientInfo> {
    #[derive(Deserialize)]
    struct Request {
        params: Params,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        client_info: Said,
    }
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        name: String,
        #[serde(default)]
        version: String,
    }
    const CHARACTERS_MAX: usize = 200;

    let request: Request = serde_json::from_slice(frame.bytes()).ok()?;
    let Said { name, version } = request.params.client_info;
    let clipped = |text: String| text.chars().take(CHARACTERS_MAX).collect();
    Some(ClientInfo { name: clipped(name), version: clipped(version) })
}

/// Lists are given whole, on one page, so that there is no cursor that we gave. To answer one with the
/// first page again would lead its client round in circles.
fn refuse_cursor(frame: &Frame) -> Result<(), Fault> {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        params: Option<Params>,
    }
    #[derive(Deserialize)]
    struct Params {
        #[serde(default)]
        cursor: Option<serde_json::Value>,
    }

    let request: Request = serde_json::from_slice(frame.bytes()).map_err(|error| {
        Fault::invalid_params(format!("the parameters of a list are an object: {error}"))
    })?;
    match request.params.and_then(|params| params.cursor) {
        None => Ok(()),
        Some(_) => Err(Fault::invalid_params(
            "this cursor is not one that was given here; lists are on one page, without `cursor`",
        )),
    }
}

/// Decision 9: the last good lists, whatever is dead; only what was never listed is waited for.
async fn list(entry: &EndpointEntry, session: &Session, id: &[u8]) -> Bytes {
    // Read first: a change that comes between is then announced rather than missed.
    let count = *entry.namespace.changes.borrow();
    let published = settled(entry).await;
    session.saw_list(count);
    message::reply_of(id, &[br#"{"tools":"#, published.routes.list(), b"}"])
}

/// The snapshot, once every upstream that may still come has had its time.
async fn settled(entry: &EndpointEntry) -> Arc<Published> {
    let published = entry.namespace.published.load_full();
    if published.is_settled {
        return published;
    }
    // An actor that panicked is made anew; until then the snapshot is as good as it gets.
    entry.namespace.actor.send(AwaitFirst).await.unwrap_or(published)
}

async fn call(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Arc<Session>,
    frame: Frame,
    in_flight: InFlight,
) -> Turn {
    let id = frame.id().map(Bytes::copy_from_slice).unwrap_or_default();
    let fail = |fault: Fault| Turn::Answer(fault.to_bytes(Some(&id)));
    let Some(name) = frame.name_span().and_then(|span| frame.text(span)) else {
        return fail(Fault::invalid_params("`tools/call` needs the tool's `name` as a string"));
    };
    let found = match entry.namespace.published.load().find(&name) {
        Some(found) => Some(found),
        None => match settled(entry).await.find(&name) {
            Some(found) => Some(found),
            None => {
                let resolve = Resolve { name: name.to_string() };
                entry.namespace.actor.send(resolve).await.ok().flatten()
            }
        },
    };
    let Some((board, route)) = found else {
        state.conductor.witness.logbook.unknown_tool(&name, &entry.name);
        return fail(Fault::unknown_tool(&name));
    };
    drop(name);
    let Route { tool, tool_json, .. } = route;
    let called = Called { conductor: state.conductor.clone(), endpoint: entry.id, board, tool };
    let caller = caller(session);
    let begun = tokio::select! {
        biased;
        begun = called.board.port.call(frame, &tool_json, &caller, in_flight.cancel.clone()) => begun,
        () = state.ending.cancelled() => return fail(stopping()),
    };
    match begun {
        Ok(conversation) => {
            let ending = state.ending.clone();
            let askings = Askings::new(session.clone(), state.conductor.clone());
            let underway = Underway {
                conversation,
                in_flight,
                id,
                ending,
                session: session.clone(),
                askings,
                ended: None,
                called,
            };
            Turn::Call(Box::new(underway))
        }
        Err(CallError::Cancelled) if in_flight.is_orphaned() => fail(session_ended()),
        Err(CallError::Cancelled) => Turn::Cancelled,
        Err(error) => {
            called.failed(&error);
            fail(error.fault())
        }
    }
}

/// The answer to what can no longer be done.
fn stopping() -> Fault {
    let data = Data { reason: "stopping", fault: Blame::Gateway, server: None, retry: true };
    Fault::internal("the gateway is stopping; try again when it is back", data)
}

/// The answer to what its client did not take back, but can no longer be heard of.
fn session_ended() -> Fault {
    let data = Data { reason: "session_ended", fault: Blame::Gateway, server: None, retry: false };
    Fault::internal(
        "the session ended before the call did; send `initialize` to begin a new one",
        data,
    )
}

impl Called {
    fn failed(&self, error: &CallError) {
        let reason = error.fault().data.map_or("other", |data| data.reason);
        metrics::counter!("metamcpd_calls_failed_total", "reason" => reason).increment(1);
        // By the name that the endpoint has now; it may have been deleted meanwhile.
        let endpoints = self.conductor.endpoints.load();
        let entry = endpoints.values().find(|entry| entry.id == self.endpoint);
        let endpoint = entry.map(|entry| entry.name.as_str());
        self.conductor.witness.logbook.call_failed(&self.board, &self.tool, endpoint, error);
    }
}
