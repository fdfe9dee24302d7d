//! `/api/v1/events`: every change of state of every server, and of its tools, as it happens.
//!
//! What happened before is in each server's history; a watcher that was away reads it there. One
//! that reads too slowly is told how much it has missed, and holds up nobody.

use std::{convert::Infallible, sync::Arc};

use actix_web::{
    HttpResponse, get,
    web::{Bytes, Data, Query},
};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::Interval,
};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    AdminState, ApiError,
    stream::{self as streams, missed},
};
use crate::{
    upstream::status::{CatalogueChange, Transition},
    wire::sse,
};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// The name or the uuid of the one server to watch.
    server: Option<String>,
}

/// Changes of state as they happen, as server-sent events.
///
/// An event named `transition` is a server's change of state, one named `catalogue` what has become of
/// its tools: what was added, removed and changed. Each has an id that only grows, and carries the
/// change as JSON. An event `missed` carries `{"count"}`: so many were lost, because they were not read in time.
#[utoipa::path(
    tag = "events",
    params(EventsQuery),
    responses((status = 200, body = Transition, content_type = "text/event-stream"))
)]
#[get("/events")]
pub async fn watch(
    state: Data<AdminState>,
    query: Query<EventsQuery>,
) -> Result<HttpResponse, ApiError> {
    let server = match &query.server {
        Some(id) => Some(server_named(&state, id)?),
        None => None,
    };
    let watcher = Watcher {
        transitions: state.conductor.witness.transitions.subscribe(),
        catalogues: state.conductor.witness.catalogues.subscribe(),
        server,
        heartbeat: streams::heartbeat(state.heartbeat),
        stopping: state.stopping.clone(),
        last_id: 0,
        has_begun: false,
    };
    Ok(streams::answer(watcher.into_stream()))
}

struct Watcher {
    transitions: Receiver<Arc<Transition>>,
    catalogues: Receiver<Arc<CatalogueChange>>,
    server: Option<Uuid>,
    heartbeat: Interval,
    stopping: CancellationToken,
    /// Microseconds of the epoch, so that ids grow over reconnects and restarts too.
    last_id: i128,
    has_begun: bool,
}

impl Watcher {
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
        loop {
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return None,
                heard = self.transitions.recv() => match heard {
                    Ok(transition) => {
                        if self.is_asked_for(transition.mcp_server_uuid) {
                            return Some(self.event("transition", transition.at, &*transition));
                        }
                    }
                    Err(RecvError::Lagged(count)) => return Some(missed(count)),
                    Err(RecvError::Closed) => return None,
                },
                heard = self.catalogues.recv() => match heard {
                    Ok(change) => {
                        if self.is_asked_for(change.mcp_server_uuid) {
                            return Some(self.event("catalogue", change.at, &*change));
                        }
                    }
                    Err(RecvError::Lagged(count)) => return Some(missed(count)),
                    Err(RecvError::Closed) => return None,
                },
                _ = self.heartbeat.tick() => return Some(sse::HEARTBEAT),
            }
        }
    }

    fn is_asked_for(&self, server: Uuid) -> bool {
        self.server.is_none_or(|asked| asked == server)
    }

    fn event(&mut self, name: &str, at: OffsetDateTime, data: &impl Serialize) -> Bytes {
        self.last_id = (at.unix_timestamp_nanos() / 1_000).max(self.last_id + 1);
        let data = json!(data).to_string();
        let event = format!("event: {name}\nid: {}\ndata: {data}\n\n", self.last_id);
        Bytes::from(event)
    }
}

/// Found among what runs, so that one can watch while the database is away.
pub fn server_named(state: &AdminState, id: &str) -> Result<Uuid, ApiError> {
    let roster = state.conductor.roster.load();
    let asked = Uuid::try_parse(id).ok();
    let mut found = roster.values().filter(|board| match asked {
        Some(uuid) => board.id == uuid,
        None => board.spec().name == id,
    });
    match (found.next(), found.next()) {
        (Some(board), None) => Ok(board.id),
        (None, _) => Err(ApiError::not_found("server", id)),
        (Some(_), Some(_)) => {
            let what =
                format!("several owners have a server named `{id}`: its uuid has to be used");
            Err(ApiError::Ambiguous { what })
        }
    }
}
