//! What a client's message means, whichever transport brought it.
//!
//! Lists come from the published snapshot and calls go by it; the namespace's actor is asked only
//! for what the snapshot cannot tell.

use std::{pin::pin, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    EndpointState,
    asking::Askings,
    containing::session_ended,
    fitting,
    leaving::Call,
    older, rewriting,
    routing::{self, Asked, settled},
    subscribing,
    tasks::{self, Way},
};
use crate::{
    catalogue::kind::Kind,
    conductor::{Conductor, EndpointEntry, relay},
    namespace::published::Published,
    session::{InFlight, Session},
    upstream::{
        CallError,
        board::Board,
        driving::{Course, Driving},
        link::Caller,
        nesting,
        port::Step,
    },
    wire::{
        Bad, Fault, Frame, Kind as FrameKind, Topic, codes,
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
    Call(Call),
    /// There is nothing to answer: it was a notification or an answer of the client's.
    Nothing,
    /// The request was cancelled by its client before it had an outcome.
    Cancelled,
}

/// A call and what keeps it cancellable.
pub struct Underway {
    course: Course,
    in_flight: InFlight,
    id: Bytes,
    ending: CancellationToken,
    session: Arc<Session>,
    askings: Askings,
    /// How it ended, while something is still to be said before that.
    ended: Option<Result<Bytes, CallError>>,
    called: Called,
    asked: Asked,
    /// Whether the client asked by a URI behind a prefix of ours.
    by_prefix: bool,
    /// Where it is kept which resources the upstream has spoken of.
    published: Arc<ArcSwap<Published>>,
}

/// What a call is of, for those who look into its failure.
struct Called {
    conductor: Arc<Conductor>,
    endpoint: Uuid,
    board: Arc<Board>,
    /// The tool, prompt or resource, as its server knows it.
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
    /// The client's own id of it.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// When it has ended at the latest, whatever its client takes of what is said for it.
    pub fn ends_by(&self) -> Instant {
        self.course.ends_by()
    }

    /// From now on nothing can be asked of the client.
    pub fn asks_nothing(&mut self, why: &'static str) {
        self.askings.refuse_all(why);
    }

    /// Takes it back from its server, whatever its client wants. It is not to be asked any more.
    pub fn give_up(&mut self, why: &str) {
        self.course.give_up(why);
    }

    /// The client has been away for too long to be waited for with what it is asked just now; our ids of
    /// that.
    pub fn gives_up_asking(&mut self) -> Vec<u64> {
        self.askings.give_up()
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
                step = self.course.next() => step,
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
            Ok(answer) => {
                let origin = rewriting::Origin {
                    asked: self.asked,
                    server: self.called.board.id,
                    key: &self.called.tool,
                    by_prefix: self.by_prefix,
                };
                let answer = rewriting::shown(&self.published.load(), origin, answer);
                let answer = self.asked.instead(&answer, &self.id).unwrap_or(answer);
                Heard::Answer(older::worded_for(self.session.version(), answer))
            }
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
pub fn note(session: &Arc<Session>, frame: &Frame) -> Result<Option<InFlight>, Fault> {
    session.touch();
    let Some(id) = frame.id().filter(|_| frame.kind() == FrameKind::Request) else {
        return Ok(None);
    };
    let noted = session.begin(id).map_err(|error| Fault::invalid_request(error.to_string()))?;
    Ok(Some(noted))
}

/// A batch before anything is done about it.
#[derive(Default)]
pub struct Batch {
    pub noted: Vec<(Frame, Option<InFlight>)>,
    /// The errors of messages that nothing will be done about.
    pub said: Vec<Bytes>,
}

/// Notes each request of a batch, so that it can be cancelled from then on. A message that is bad, or
/// one too many, fails alone; so does `initialize`, which a batch must not hold (2025-03-26,
/// lifecycle).
pub fn note_all(session: &Arc<Session>, messages: Vec<Result<Frame, Bad>>) -> Batch {
    let mut batch = Batch::default();
    for message in messages {
        let frame = match message {
            Ok(frame) => frame,
            Err(bad) => {
                let id = match &bad {
                    Bad::Invalid { id, .. } => id.as_deref(),
                    Bad::Json(_) | Bad::Unanswerable => None,
                };
                batch.said.push(Fault::from(&bad).to_bytes(id));
                continue;
            }
        };
        let noted = match frame.method().as_deref() {
            Some("initialize") => Err(Fault::invalid_request("`initialize` is not for batches")),
            _ => note(session, &frame),
        };
        match noted {
            Ok(noted) => batch.noted.push((frame, noted)),
            Err(fault) => batch.said.push(fault.to_bytes(frame.id())),
        }
    }
    batch
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
    if frame.kind() == FrameKind::Request && state.draining.is_cancelled() {
        return Turn::Answer(stopping().to_bytes(frame.id()));
    }
    match (noted, method.as_deref()) {
        (Some(in_flight), Some(method)) => {
            let id = frame.id_span().map(|span| frame.slice(span)).unwrap_or_default();
            match method {
                "ping" => Turn::Answer(message::reply(&id, b"{}")),
                nesting::METHOD => {
                    let behind = nesting::answer(&entry.namespace.published.load().active);
                    Turn::Answer(message::reply(&id, &behind))
                }
                "logging/setLevel" => Turn::Answer(set_level(entry, session, &frame, &id).await),
                "initialize" => Turn::Answer(
                    Fault::invalid_request("this session has been initialised already")
                        .to_bytes(Some(&id)),
                ),
                tasks::LIST if tasks::are_known_to(session) => {
                    Turn::Answer(tasks::list(state, entry, session, &frame, &id).await)
                }
                other => match (Asked::by(other), Kind::listed_by(other)) {
                    (Some(Asked::Task(_)), _) if !tasks::are_known_to(session) => {
                        Turn::Answer(Fault::method_not_found(other).to_bytes(Some(&id)))
                    }
                    (Some(Asked::Subscription), _) => {
                        subscribing::subscribe(state, entry, session, frame, in_flight).await
                    }
                    (Some(Asked::Unsubscription), _) => {
                        Turn::Answer(subscribing::unsubscribe(state, entry, session, &frame, &id))
                    }
                    (Some(asked), _) => call(state, entry, session, asked, frame, in_flight).await,
                    (None, Some(kind)) => {
                        Turn::Answer(list(state, entry, session, kind, &frame, &id).await)
                    }
                    (None, None) => {
                        Turn::Answer(Fault::method_not_found(other).to_bytes(Some(&id)))
                    }
                },
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
pub fn caller(session: &Session) -> Caller<'_> {
    Caller {
        session: &session.id,
        principal: &session.principal,
        capabilities: session.capabilities(),
        log_level: session.log_level(),
    }
}

/// The level is the session's; each upstream is told as much as its clients want of it in all, before
/// the client is answered.
async fn set_level(entry: &EndpointEntry, session: &Session, frame: &Frame, id: &[u8]) -> Bytes {
    let Some(level) = Level::of(frame) else {
        let why = "`logging/setLevel` needs a `level` from `debug` to `emergency`";
        return Fault::invalid_params(why).to_bytes(Some(id));
    };
    session.set_log_level(level);
    let (published, caller) = (entry.namespace.published.load_full(), caller(session));
    let told = published.boards.iter().map(|board| board.port.set_level(&caller, level));
    futures_util::future::join_all(told).await;
    message::reply(id, b"{}")
}

/// Decision 9: the last good lists, whatever is dead; only what was never listed is waited for.
async fn list(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Session,
    kind: Kind,
    frame: &Frame,
    id: &[u8],
) -> Bytes {
    let after = match state.paging.place(entry.id, kind, frame) {
        Ok(after) => after,
        Err(fault) => return fault.to_bytes(Some(id)),
    };
    // Read first: a change that comes between is then announced rather than missed.
    let counts = *entry.namespace.changes.borrow();
    let published = settled(entry, kind).await;
    // Resources and their templates are announced as one, and this is half of it. And who reads a
    // later page may have read the first before a change.
    if kind.topic() != Topic::Resources && after.is_none() {
        session.read_list(kind.topic(), &counts);
    }
    let tools = match kind {
        Kind::Tool => match fitting::tools(entry, session, &published).await {
            Ok(tools) => Some(tools),
            Err(fault) => return fault.to_bytes(Some(id)),
        },
        Kind::Prompt | Kind::Resource | Kind::Template => None,
    };
    let list = tools.as_ref().unwrap_or_else(|| published.list(kind));
    let list = &older::listed_for(session.version(), kind, list);
    state.paging.answer(entry.id, &published, kind, list, after.as_ref(), id)
}

async fn call(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Arc<Session>,
    asked: Asked,
    frame: Frame,
    in_flight: InFlight,
) -> Turn {
    let id = frame.id_span().map(|span| frame.slice(span)).unwrap_or_default();
    let fail = |fault: Fault| Turn::Answer(fault.to_bytes(Some(&id)));
    let way = match asked {
        Asked::Task(request) => tasks::find(state, entry, session, request, &frame),
        _ => way(state, entry, session, asked, &frame).await,
    };
    let Way { board, key, edits, manner, is_reworded, is_driven } = match way {
        Ok(way) => way,
        Err(fault) => {
            let is_unknown = asked == Asked::Tool && fault.code == codes::INVALID_PARAMS;
            if let Some(name) = frame.name_span().filter(|_| is_unknown) {
                let name = frame.text(name).unwrap_or_default();
                state.conductor.witness.logbook.unknown_tool(&name, &entry.name);
            }
            return fail(fault);
        }
    };
    let (conductor, endpoint) = (state.conductor.clone(), entry.id);
    let called = Called { conductor, endpoint, board, tool: key };
    let caller = caller(session);
    let cancel = in_flight.cancel.clone();
    let begun = {
        // Pinned where it is made, as it is too long to be moved about for each call.
        let begin = pin!(async {
            if is_driven {
                let board = called.board.clone();
                let driving = Driving::begin(board, frame, edits, &caller, cancel);
                return Ok(Course::Driven(Box::new(Box::pin(driving).await?)));
            }
            let port = &called.board.port;
            Ok(Course::Plain(port.call_as(frame, edits, &caller, cancel, manner).await?))
        });
        tokio::select! {
            biased;
            begun = begin => begun,
            () = state.ending.cancelled() => return fail(stopping()),
        }
    };
    match begun {
        Ok(course) => {
            let ending = state.ending.clone();
            let published = entry.namespace.published.clone();
            let patience = state.conductor.sessions.options.question_timeout;
            let askings = Askings::new(session.clone(), patience);
            let underway = Underway {
                course,
                in_flight,
                id,
                ending,
                session: session.clone(),
                askings,
                ended: None,
                called,
                asked,
                by_prefix: asked == Asked::Resource && is_reworded,
                published,
            };
            Turn::Call(Call::new(underway))
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
pub fn stopping() -> Fault {
    let data = Data {
        reason: "stopping",
        fault: Blame::Gateway,
        server: None,
        retry: true,
        uri: None,
        scope: None,
    };
    Fault::internal("the gateway is stopping; try again when it is back", data)
}

/// The way of a request to one upstream.
async fn way(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Session,
    asked: Asked,
    frame: &Frame,
) -> Result<Way, Fault> {
    let found = routing::find(entry, asked, frame).await?;
    // A tool that is hidden is unknown before anything else is said of it.
    let arguments = match asked {
        Asked::Tool => fitting::arguments(entry, session, frame).await?,
        _ => None,
    };
    let mut way = tasks::way_of(state, entry, session, asked, found, frame)?;
    way.edits.extend(arguments);
    Ok(way)
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
