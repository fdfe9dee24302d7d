//! `resources/subscribe` and `resources/unsubscribe` (server features, "Resources", "Subscriptions").
//!
//! A subscription goes where `resources/read` would go. What changes is told by the upstream itself,
//! in a notification that reaches the client by its session's standing stream.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    EndpointState,
    containing::session_ended,
    conversation::{self, Turn},
    older,
    routing::{self, Asked},
};
use crate::{
    conductor::{Conductor, EndpointEntry},
    session::{InFlight, Session},
    upstream::{CallError, board::Board, subscribing::Subscribed},
    wire::{Fault, Frame, codes, message},
};

pub async fn subscribe(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Arc<Session>,
    frame: Frame,
    in_flight: InFlight,
) -> Turn {
    let id = frame.id().map(Bytes::copy_from_slice).unwrap_or_default();
    let fail = |fault: Fault| Turn::Answer(fault.to_bytes(Some(&id)));
    let found = match routing::find(entry, Asked::Subscription, &frame).await {
        Ok(found) => found,
        Err(fault) => return fail(fault),
    };
    let frame = match found.edit {
        None => frame,
        Some((span, own)) => match Frame::parse(frame.splice(&mut [(span, &own)]), usize::MAX) {
            Ok(frame) => frame,
            Err(bad) => return fail(Fault::from(&bad)),
        },
    };
    let subscribing = Subscribing {
        conductor: state.conductor.clone(),
        session: session.clone(),
        board: found.board,
        uri: found.key,
    };
    // By a task of its own: a client whose connection breaks has taken nothing back.
    let work = actix_web::rt::spawn(subscribing.see_through(frame, id.clone(), in_flight));
    tokio::select! {
        biased;
        turn = work => turn.unwrap_or_else(|error| {
            tracing::error!(%error, "a subscription was not seen through");
            fail(conversation::stopping())
        }),
        () = state.ending.cancelled() => fail(conversation::stopping()),
    }
}

/// Whatever has the subscription now, and whether or not it is still offered here. What is not
/// subscribed to need not be unsubscribed.
pub fn unsubscribe(
    state: &EndpointState,
    entry: &EndpointEntry,
    session: &Session,
    frame: &Frame,
    id: &[u8],
) -> Bytes {
    let uri = match routing::uri_of(frame, Asked::Unsubscription) {
        Ok((_, uri)) => uri,
        Err(fault) => return fault.to_bytes(Some(id)),
    };
    let published = entry.namespace.published.load();
    if let Some((board, own)) = published.origin(&uri) {
        board.port.unsubscribe(own, &session.id);
        return message::reply(id, b"{}");
    }
    for board in state.conductor.roster.load().values() {
        // One that its client knows behind a prefix is not what it means without.
        if !published.is_known_by_prefix(board.id, &uri) {
            board.port.unsubscribe(&uri, &session.id);
        }
    }
    message::reply(id, b"{}")
}

/// What it takes to see a subscription through.
struct Subscribing {
    conductor: Arc<Conductor>,
    session: Arc<Session>,
    board: Arc<Board>,
    uri: Box<str>,
}

impl Subscribing {
    async fn see_through(self, frame: Frame, id: Bytes, in_flight: InFlight) -> Turn {
        let Self { conductor, session, board, uri } = self;
        let max = conductor.sessions.options.subscriptions_max;
        let has_room = || {
            let boards = conductor.roster.load();
            let held = boards.values().map(|board| board.port.subscriptions.held_by(&session.id));
            held.sum::<usize>() < max
        };
        let caller = conversation::caller(&session);
        let cancel = in_flight.cancel.clone();
        let subscribed = board.port.subscribe(frame, &uri, &caller, cancel, has_room).await;
        // It may have ended just before it was noted, and then nobody else lets go of it.
        if session.ended.is_cancelled() {
            board.port.forget(&session.id);
        }
        let fail = |fault: Fault| Turn::Answer(fault.to_bytes(Some(&id)));
        match subscribed {
            Ok(Subscribed::Answered(answer)) => {
                Turn::Answer(older::worded_for(session.version(), answer))
            }
            Ok(Subscribed::Joined) => Turn::Answer(message::reply(&id, b"{}")),
            Ok(Subscribed::NotOffered(server)) => fail(Fault {
                code: codes::METHOD_NOT_FOUND,
                message: format!(
                    "the upstream `{server}` has the resource, and does not support subscriptions"
                ),
                data: None,
            }),
            Ok(Subscribed::TooMany) => {
                metrics::counter!("metamcpd_limit_hit_total", "limit" => "sessions.subscriptions_max")
                    .increment(1);
                fail(Fault::invalid_params(format!(
                    "this session has {max} subscriptions (`sessions.subscriptions_max`); \
                     unsubscribe from some of them first"
                )))
            }
            Err(CallError::Cancelled) if in_flight.is_orphaned() => fail(session_ended()),
            Err(CallError::Cancelled) => Turn::Cancelled,
            Err(error) => fail(error.fault()),
        }
    }
}
