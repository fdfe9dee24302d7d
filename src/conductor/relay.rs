//! Takes to a client what an upstream asks of it or says to it, and back what it answers.
//!
//! Who is meant has been decided in `upstream`, and what a client may be asked stands in its session.
//! Every question that comes here has one outcome, whatever becomes of the client.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, future::LocalBoxFuture};
use tokio_util::sync::CancellationToken;

use crate::{
    session::{
        Session,
        questions::{Place, Said},
    },
    upstream::question::Question,
    wire::{Frame, Kind, level::Level, message},
};

/// A question that is being put to a client.
pub struct Asking {
    /// Our id of it.
    pub id: u64,
    /// What the client is to be sent.
    pub request: Bytes,
    /// Ends when the question has its outcome. What it then gives is to be sent to the client too:
    /// that it need not answer any more.
    pub outcome: Outcome,
}

pub type Outcome = LocalBoxFuture<'static, Option<Bytes>>;

/// Begins to ask the client of `session`. `None` where it cannot be asked; the upstream has then been
/// refused. Dropping what is given gives the question up.
pub fn ask(
    session: &Arc<Session>,
    question: Question,
    patience: Duration,
    abandoned: CancellationToken,
) -> Option<Asking> {
    if let Some(lack) = question.lacks(session.capabilities()) {
        question.refuse_lack(lack);
        return None;
    }
    let Some(place) = session.questions.begin() else {
        question.refuse("the client is asked as much as it may be at once", "busy");
        return None;
    };
    let id = place.id;
    let request = question.under(id);
    let outcome = see_through(session.clone(), question, place, patience, abandoned);
    Some(Asking { id, request, outcome: outcome.boxed_local() })
}

async fn see_through(
    session: Arc<Session>,
    question: Question,
    mut place: Place,
    patience: Duration,
    abandoned: CancellationToken,
) -> Option<Bytes> {
    let timeout = tokio::time::sleep(patience);
    tokio::pin!(timeout);
    let take_back = |id: u64, why: &str| Some(message::cancelled(id, why));
    loop {
        tokio::select! {
            biased;
            said = place.next() => match said {
                Said::Progress(note) => question.progress(&note),
                Said::Answer(answer) => {
                    question.answer(&answer);
                    return None;
                }
                Said::Unheard => {
                    question.give_up("the client is away, and cannot be asked", "client_gone");
                    return None;
                }
            },
            () = question.withdrawn() => {
                question.forget();
                return take_back(place.id, "the server took its request back");
            }
            () = session.ended.cancelled() => {
                question.give_up("the client has gone", "client_gone");
                return None;
            }
            () = abandoned.cancelled() => {
                question.give_up("the call that this belongs to has ended", "call_ended");
                return take_back(place.id, "the call that this belongs to has ended");
            }
            () = &mut timeout => {
                question.give_up("the client gave no answer in time", "timeout");
                return take_back(place.id, "there was no answer in time");
            }
        }
    }
}

/// The outcome of a question that goes by the session's own stream; and where nobody reads that for as
/// long as a client may be away, the question is given up.
pub fn while_there_is_a_stream(session: Arc<Session>, asking: Asking) -> Outcome {
    let Asking { id, outcome, .. } = asking;
    let seeing = async move {
        tokio::select! {
            biased;
            taken_back = outcome => taken_back,
            () = session.is_deserted() => {
                session.take_back_from_standing(id, deserted(id));
                None
            }
        }
    };
    seeing.boxed_local()
}

/// What a client is told of a question that was given up while it was away: whoever gives up waiting for
/// what it asked says so (basic/utilities/cancellation), and an answer would find nobody.
pub fn deserted(id: u64) -> Bytes {
    message::cancelled(id, "nobody was there to answer in time")
}

/// Sees questions through that no call waits for any more, or never did. What the client is to be told
/// then goes by its session's own stream.
pub fn see_through_later(session: Arc<Session>, outcomes: impl IntoIterator<Item = Outcome>) {
    for outcome in outcomes {
        let session = session.clone();
        actix::spawn(async move {
            if let Some(taken_back) = outcome.await {
                session.offer(taken_back);
            }
        });
    }
}

/// Whether a client is to be told this: a log message that is less than it asked for is not for it.
pub fn is_wanted(session: &Session, note: &Frame) -> bool {
    let is_log = note.kind() == Kind::Notification
        && note.method().as_deref() == Some("notifications/message");
    match (is_log, session.log_level()) {
        (false, _) | (true, None) => true,
        // What has no level of ours is left to the client to judge.
        (true, Some(wanted)) => Level::of(note).is_none_or(|level| level >= wanted),
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
