//! Tasks as clients have them (basic, "Tasks", 2025-11-25): calls that they make as tasks, what they ask
//! of those afterwards, and calls that are made as tasks on their behalf.
//!
//! A task stays its upstream's. What is ours is the id that its owner knows it by.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    EndpointState, conversation,
    routing::{Asked, Found},
};
use crate::{
    catalogue::task_support::TaskSupport,
    conductor::EndpointEntry,
    session::{Session, TaskClaims},
    upstream::{
        board::Board,
        concern::{Concern, Known},
        exchange::SessionKey,
        port::{Manner, Step},
        tasks::{Listed, Owner, Seal, json},
    },
    wire::{Fault, Frame, Span, codes, message, task},
};

/// What can be asked of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Get,
    Result,
    Cancel,
}

impl Request {
    pub fn by(method: &str) -> Option<Self> {
        match method {
            "tasks/get" => Some(Self::Get),
            "tasks/result" => Some(Self::Result),
            "tasks/cancel" => Some(Self::Cancel),
            _ => None,
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Get => "tasks/get",
            Self::Result => "tasks/result",
            Self::Cancel => "tasks/cancel",
        }
    }
}

/// The request that lists them.
pub const LIST: &str = "tasks/list";

/// Which way a request goes.
pub struct Way {
    pub board: Arc<Board>,
    /// What is asked for, as its server knows it.
    pub key: Box<str>,
    /// What stands in the place of the client's words where those are ours.
    pub edits: Vec<(Span, Bytes)>,
    pub manner: Manner,
    /// Whether the client's word for what it asks for is ours.
    pub is_reworded: bool,
    /// Whether it is seen through as a task that its client does not know of.
    pub is_driven: bool,
}

/// Whether the client of a session knows of tasks.
pub fn are_known_to(session: &Session) -> bool {
    session.version().is_some_and(|version| version >= task::SINCE)
}

/// The way of a request whose upstream has been found. It is here that a tool is called as a task, or
/// plainly, or as a task in spite of that.
pub fn way_of(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Session,
    asked: Asked,
    found: Found,
    frame: &Frame,
) -> Result<Way, Fault> {
    let Found { board, key, edit, tasks } = found;
    let related = related_edit(state, entry, session, &board, frame);
    let is_reworded = edit.is_some();
    let edits: Vec<_> = edit.into_iter().chain(related).collect();
    let mut way =
        Way { board, key, edits, manner: Manner::default(), is_reworded, is_driven: false };
    if asked != Asked::Tool {
        return Ok(way);
    }
    match (task::augmentation(frame), tasks) {
        (Some(_), Some(TaskSupport::Forbidden)) if are_known_to(session) => {
            let name = frame.name_span().and_then(|span| frame.text(span)).unwrap_or_default();
            let message =
                format!("the tool `{name}` cannot be called as a task; call it without `task`");
            return Err(Fault { code: codes::METHOD_NOT_FOUND, message, data: None });
        }
        (Some(_), _) if are_known_to(session) => {
            let (owner, seal) = (owner_of(session), seal_of(state, session, &way.board));
            way.manner.concern = Some(Concern::Creates { owner, seal });
            metrics::counter!("metamcpd_tasks_total", "how" => "relayed").increment(1);
        }
        (_, Some(TaskSupport::Required)) => way.is_driven = true,
        // Who knows of no tasks makes none by a member that means nothing to it.
        (Some(cut), _) => way.edits.push((cut, Bytes::new())),
        (None, _) => {}
    }
    Ok(way)
}

/// The way of what is asked of a task.
pub fn find(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Session,
    request: Request,
    frame: &Frame,
) -> Result<Way, Fault> {
    let (span, shown) = task::named(frame).ok_or_else(|| {
        Fault::invalid_params(format!("`{}` needs the `taskId` as a string", request.method()))
    })?;
    let place = place_of(state, entry, session, &shown).ok_or_else(Fault::unknown_task)?;
    let Place { board, known, key, life } = place;
    let related = related_edit(state, entry, session, &board, frame);
    let edits = std::iter::once((span, json(&known.theirs))).chain(related).collect();
    let (concern, patience) = match request {
        Request::Get | Request::Cancel => (Concern::Asks(known), None),
        Request::Result => (Concern::Awaits(known), Some(board.port.options().tasks.result_wait)),
    };
    let manner = Manner { concern: Some(concern), key: Some(key), life, patience };
    Ok(Way {
        board,
        key: request.method().into(),
        edits,
        manner,
        is_reworded: false,
        is_driven: false,
    })
}

/// What stands in the place of a task that a request says it belongs to, where that is one of its own
/// upstream's.
fn related_edit(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Session,
    board: &Board,
    frame: &Frame,
) -> Option<(Span, Bytes)> {
    let related = task::related(frame)?;
    let place = place_of(state, entry, session, &related.id)?;
    (place.board.id == board.id).then(|| (related.id_span, json(&place.known.theirs)))
}

/// Where a task is.
struct Place {
    board: Arc<Board>,
    known: Known,
    key: SessionKey,
    /// Of the process that it ends with; nil where it may outlive us.
    life: Uuid,
}

/// For its owner, where the task was made, and while its upstream is offered there.
fn place_of(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Session,
    shown: &str,
) -> Option<Place> {
    let ids = &state.conductor.task_ids;
    let TaskClaims { server, life, theirs } =
        ids.open(shown, &session.principal, session.endpoint)?;
    let published = entry.namespace.published.load();
    let board = published.active.iter().find(|board| board.id == server)?.clone();
    let known = Known { shown: Some(shown.into()), theirs };
    let caller = conversation::caller(session);
    let key = board.port.session_of_task(&known, life, &owner_of(session), &caller)?;
    Some(Place { board, known, key, life })
}

fn owner_of(session: &Session) -> Owner {
    Owner { principal: session.principal.clone(), endpoint: session.endpoint }
}

fn seal_of(state: &EndpointState, session: &Session, board: &Board) -> Seal {
    let (ids, server, owner) = (state.conductor.task_ids.clone(), board.id, owner_of(session));
    Arc::new(move |theirs, life| {
        let claims = TaskClaims { server, life, theirs: theirs.into() };
        ids.seal(&owner.principal, owner.endpoint, &claims)
    })
}

/// Answers `tasks/list` with the tasks that the client's principal has made here, the oldest first, as
/// their upstreams describe them now.
pub async fn list(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Session,
    frame: &Frame,
    id: &[u8],
) -> Bytes {
    let after = match after(state, session, frame) {
        Ok(after) => after,
        Err(fault) => return fault.to_bytes(Some(id)),
    };
    let active = entry.namespace.published.load().active.clone();
    let Some(options) = active.first().map(|board| board.port.options().tasks.clone()) else {
        return message::reply(id, br#"{"tasks":[]}"#);
    };
    let owner = owner_of(session);
    let all = active.iter().flat_map(|board| {
        board.port.tasks.of(&owner).into_iter().map(move |listed| (board, listed))
    });
    let mut rest: Vec<(&Arc<Board>, Listed)> =
        all.filter(|(_, listed)| after.is_none_or(|after| listed.number > after)).collect();
    rest.sort_unstable_by_key(|(_, listed)| listed.number);
    let has_more = rest.len() > options.page;
    rest.truncate(options.page);

    let until = Instant::now() + options.list_wait;
    let looks = rest.iter().map(|(board, listed)| async move {
        let place = place_of(state, entry, session, &listed.shown)?;
        look(session, place, until).await;
        board.port.tasks.last_of(&listed.shown)
    });
    let tasks: Vec<Bytes> = join_all(looks).await.into_iter().flatten().collect();
    let mut result = [br#"{"tasks":["#, tasks.join(&b","[..]).as_slice(), b"]"].concat();
    if let Some((_, last)) = rest.last().filter(|_| has_more)
        && let Some(cursor) =
            state.conductor.task_ids.cursor(&session.principal, session.endpoint, last.number)
    {
        result.extend_from_slice(format!(r#","nextCursor":"{cursor}""#).as_bytes());
    }
    result.push(b'}');
    message::reply(id, &result)
}

/// The task that a list goes on after.
fn after(state: &EndpointState, session: &Session, frame: &Frame) -> Result<Option<Uuid>, Fault> {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        params: Option<Params>,
    }
    #[derive(Deserialize)]
    struct Params {
        #[serde(default)]
        cursor: Option<String>,
    }
    let request: Request = serde_json::from_slice(frame.bytes()).map_err(|error| {
        Fault::invalid_params(format!("the `cursor` of a list is a string: {error}"))
    })?;
    let Some(cursor) = request.params.and_then(|params| params.cursor) else { return Ok(None) };
    let ids = &state.conductor.task_ids;
    let after = ids.open_cursor(&cursor, &session.principal, session.endpoint);
    after.map(Some).ok_or_else(|| {
        Fault::invalid_params("this cursor is not one that was given here for a list of tasks")
    })
}

/// Has an upstream say how a task is. What it says is noted on the way.
async fn look(session: &Session, place: Place, until: Instant) {
    let Place { board, known, key, life } = place;
    let params = serde_json::json!({ "taskId": &*known.theirs }).to_string();
    let request = message::request(0, Request::Get.method(), params.as_bytes());
    let Ok(frame) = Frame::parse(request, usize::MAX) else { return };
    let concern = Some(Concern::Asks(known));
    let manner = Manner { concern, key: Some(key), life, patience: None };
    let (caller, cancel) = (conversation::caller(session), CancellationToken::new());
    let begun = board.port.call_as(frame, Vec::new(), &caller, cancel, manner);
    let Ok(Ok(mut asking)) = timeout_at(until, begun).await else { return };
    // A question that is dropped is refused.
    let answered = async { while !matches!(asking.next().await, Step::End(_)) {} };
    if timeout_at(until, answered).await.is_err() {
        asking.give_up("the list goes out without it");
    }
}
