//! `/api/v1/logs`: what servers wrote, what became of them, and which calls failed; as pages, and as a
//! stream.
//!
//! Everything is read from memory, also while the database is away. What is kept, and what is hidden, was
//! decided when it came in.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse, delete, get,
    http::header::ACCEPT,
    web::{Bytes, Data, Query},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::Interval,
};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    AdminState, ApiError,
    events::server_named,
    paging,
    stream::{self as streams, missed},
};
use crate::{
    conductor::Watch,
    logs::{
        entry::{Kind, Level, LogEntry},
        ring::{Filter, Since},
    },
    store::{Page, Problem},
    wire::sse,
};

const EVENT_STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// Which entries; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogsQuery {
    /// 1 to 500; 100 unless given. Not for the stream.
    limit: Option<u64>,
    /// The `next_cursor` of the page before. Not for the stream.
    cursor: Option<String>,
    /// The name or the uuid of a server; one that is gone, too, as long as it has entries.
    server: Option<String>,
    /// A time (RFC 3339): what happened then or later. Or the id of an entry: what came after it.
    since: Option<String>,
    /// This level and worse.
    level: Option<Level>,
    /// One kind, or several with commas between them.
    kind: Option<String>,
}

/// Whose entries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ClearQuery {
    /// The name or the uuid of a server. Everything unless given.
    server: Option<String>,
}

/// What has happened, newest first; or, where `Accept` asks for `text/event-stream`, as it happens.
///
/// The stream begins with what is kept since `since`, or since the event that the header `Last-Event-ID`
/// names, oldest first; without either it begins now. Each event is named `log`, has the id of its entry
/// as its own, and carries it as JSON. An event `missed` carries `{"count"}`: so many entries were not
/// read in time; a new stream from the last id has those of them that are still kept.
#[utoipa::path(
    tag = "logs",
    params(
        LogsQuery,
        ("Last-Event-ID" = Option<i64>, Header, description = "The last event that was read, on a reconnect")
    ),
    responses((
        status = 200,
        description = "A page, or a stream",
        content((Page<LogEntry> = "application/json"), (LogEntry = "text/event-stream"))
    ))
)]
#[get("/logs")]
pub async fn read(
    state: Data<AdminState>,
    request: HttpRequest,
    query: Query<LogsQuery>,
) -> Result<HttpResponse, ApiError> {
    let query = query.into_inner();
    let mut filter = Filter {
        server: query.server.as_deref().map(|id| server(&state, id)).transpose()?,
        level: query.level,
        kinds: query.kind.as_deref().map(kinds).transpose()?.unwrap_or_default(),
        since: query.since.as_deref().map(since).transpose()?,
    };
    if !asks_for_stream(&request) {
        let page = page(&state, &filter, query.limit, query.cursor)?;
        return Ok(HttpResponse::Ok().json(page));
    }
    if query.limit.is_some() || query.cursor.is_some() {
        return Err(ApiError::bad_request(
            "a stream has no pages: `limit` and `cursor` are for lists",
        ));
    }
    if let Some(last) = request.headers().get(LAST_EVENT_ID) {
        let id = last.to_str().ok().and_then(|last| last.trim().parse().ok());
        filter.since = Some(Since::Entry(id.ok_or_else(|| {
            refused(LAST_EVENT_ID, "no id of an entry", "the id of the last event that was read")
        })?));
    }
    Ok(streams::answer(Watcher::new(&state, filter).into_stream()))
}

/// Forgets what has been logged, of one server or of all.
#[utoipa::path(tag = "logs", params(ClearQuery), responses((status = 204)))]
#[delete("/logs")]
pub async fn clear(
    state: Data<AdminState>,
    query: Query<ClearQuery>,
) -> Result<HttpResponse, ApiError> {
    let server = query.server.as_deref().map(|id| server(&state, id)).transpose()?;
    state.conductor.witness.logbook.clear(server);
    // So that it stays forgotten, whatever happens to the daemon next.
    state.catch_up().await;
    Ok(HttpResponse::NoContent().finish())
}

fn page(
    state: &AdminState,
    filter: &Filter,
    limit: Option<u64>,
    cursor: Option<String>,
) -> Result<Page<Arc<LogEntry>>, ApiError> {
    let request = paging::page(limit, cursor)?;
    let before = match &request.cursor {
        None => None,
        Some(cursor) => Some(cursor.parse().map_err(|_| paging::bad_cursor())?),
    };
    let limit = paging::limit(&request);
    let (items, more) = state.conductor.witness.logbook.page(filter, before, limit);
    let next_cursor = items.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Page { items, next_cursor })
}

fn asks_for_stream(request: &HttpRequest) -> bool {
    let accepted = request.headers().get_all(ACCEPT).filter_map(|accepted| accepted.to_str().ok());
    let mut types = accepted.flat_map(|accepted| accepted.split(','));
    types.any(|one| {
        let name = one.split(';').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case(EVENT_STREAM)
    })
}

/// One that runs, or one that entries tell of.
fn server(state: &AdminState, id: &str) -> Result<Uuid, ApiError> {
    match server_named(state, id) {
        Err(error @ ApiError::NotFound { .. }) => {
            state.conductor.witness.logbook.server(id).ok_or(error)
        }
        found => found,
    }
}

fn kinds(asked: &str) -> Result<Vec<Kind>, ApiError> {
    let kind = |word: &str| {
        let accepted = || Kind::ALL.map(Kind::as_str).join(", ");
        Kind::named(word.trim()).ok_or_else(|| refused("kind", "no kind of entry", &accepted()))
    };
    asked.split(',').map(kind).collect()
}

fn since(asked: &str) -> Result<Since, ApiError> {
    if let Ok(id) = asked.parse() {
        return Ok(Since::Entry(id));
    }
    // A plus sign that was not escaped has become a blank on its way.
    let time = OffsetDateTime::parse(&asked.replace(' ', "+"), &Rfc3339);
    time.map(Since::Time).map_err(|_| {
        let accepted = "an RFC 3339 time, such as 2026-01-31T09:00:00Z, or the id of an entry";
        refused("since", "neither a time nor an id", accepted)
    })
}

fn refused(field: &str, reason: &str, accepted: &str) -> ApiError {
    let problem = Problem::new(field, reason).accepted(accepted);
    ApiError::BadRequest { message: problem.to_string(), details: vec![problem] }
}

struct Watcher {
    kept: VecDeque<Arc<LogEntry>>,
    coming: Receiver<Arc<LogEntry>>,
    /// What of that which comes is asked for.
    filter: Filter,
    heartbeat: Interval,
    stopping: CancellationToken,
    has_begun: bool,
}

impl Watcher {
    fn new(state: &AdminState, filter: Filter) -> Self {
        let Watch { kept, coming } = state.conductor.witness.logbook.watch(&filter);
        Self {
            kept,
            coming,
            filter: Filter { since: None, ..filter },
            heartbeat: streams::heartbeat(state.heartbeat),
            stopping: state.stopping.clone(),
            has_begun: false,
        }
    }

    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut watcher| async {
            let bytes = watcher.next().await?;
            Some((Ok(bytes), watcher))
        })
    }

    /// What to write next; `None` at the end of the daemon.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.has_begun {
            // Whoever reads this knows that nothing is missed from here on.
            self.has_begun = true;
            return Some(sse::HEARTBEAT);
        }
        if let Some(entry) = self.kept.pop_front() {
            return Some(event(&entry));
        }
        loop {
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return None,
                heard = self.coming.recv() => match heard {
                    Ok(entry) if self.filter.matches(&entry) => return Some(event(&entry)),
                    Ok(_not_asked_for) => {}
                    Err(RecvError::Lagged(count)) => return Some(missed(count)),
                    Err(RecvError::Closed) => return None,
                },
                _ = self.heartbeat.tick() => return Some(sse::HEARTBEAT),
            }
        }
    }
}

fn event(entry: &LogEntry) -> Bytes {
    let data = json!(entry).to_string();
    Bytes::from(format!("event: log\nid: {}\ndata: {data}\n\n", entry.id))
}
