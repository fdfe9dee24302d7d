//! From calls to the body of a POST's answer.
//!
//! An answer that is all there is to say goes out as JSON from the handler that waited for it. Once
//! there is more, a task collects it for the session, whose client reads along, and may go and come
//! back: to disconnect is not to cancel in this era.

use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::StatusCode};
use bytes::Bytes;
use futures_util::{FutureExt, future::select_all};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    answers::{self, Accepts, stream_of},
    containing::panicked,
    conversation::Heard,
    leaving::Call,
};
use crate::{
    conductor::relay,
    failpoint,
    session::{Reader, Session},
    wire::{
        Fault, Frame, batch,
        fault::{Blame, Data},
        sse,
    },
};

/// Answers one call.
pub async fn reply(
    session: &Arc<Session>,
    mut call: Call,
    accepts: Accepts,
    heartbeat: Duration,
) -> HttpResponse {
    if !accepts.events {
        call.hears_only_the_answer();
        return whole(call).await;
    }
    // Pinned here, it need not be moved into the timeout: it is long.
    let first = match timeout(heartbeat, pin!(call.next())).await {
        Ok(Heard::Answer(answer)) => return one(answer, accepts),
        Ok(Heard::Cancelled) => return answers::events().finish(),
        Ok(Heard::Event(event)) => vec![event],
        Err(_elapsed) => vec![],
    };
    stream(session, vec![call], first, heartbeat)
}

/// Answers a batch: what was answered already, and the calls that are under way.
pub async fn reply_to_batch(
    session: &Arc<Session>,
    mut calls: Vec<Call>,
    mut said: Vec<Bytes>,
    accepts: Accepts,
    heartbeat: Duration,
) -> HttpResponse {
    if !accepts.events {
        calls.iter_mut().for_each(Call::hears_only_the_answer);
    }
    let until = Instant::now() + heartbeat;
    loop {
        let heard = match accepts.events {
            true => match timeout_at(until, next_of(&mut calls)).await {
                Ok(heard) => heard,
                Err(_elapsed) => return stream(session, calls, said, heartbeat),
            },
            false => next_of(&mut calls).await,
        };
        match heard {
            Some(Heard::Answer(answer)) => said.push(answer),
            Some(Heard::Event(event)) if accepts.events => {
                said.push(event);
                return stream(session, calls, said, heartbeat);
            }
            Some(Heard::Event(_) | Heard::Cancelled) => {}
            None => break,
        }
    }
    match (said.is_empty(), accepts.json) {
        (true, _) => HttpResponse::Accepted().finish(),
        (false, true) => answers::json(StatusCode::OK, batch::join(&said)),
        (false, false) => {
            let events: Vec<Bytes> = said.iter().map(|one| sse::message(one)).collect();
            answers::with_body(&mut answers::events(), events.concat().into())
        }
    }
}

/// The answer in the form that the client reads.
pub fn one(answer: Bytes, accepts: Accepts) -> HttpResponse {
    match accepts.json {
        true => answers::json(StatusCode::OK, answer),
        false => answers::with_body(&mut answers::events(), sse::message(&answer)),
    }
}

/// JSON for who can read nothing else; what comes before the answer is left out.
async fn whole(mut call: Call) -> HttpResponse {
    loop {
        match call.next().await {
            Heard::Event(_) => {}
            Heard::Answer(answer) => return answers::json(StatusCode::OK, answer),
            Heard::Cancelled => return HttpResponse::NoContent().finish(),
        }
    }
}

/// What any of the calls says next; `None` when all of them are over.
async fn next_of(calls: &mut Vec<Call>) -> Option<Heard> {
    let (heard, place) = match &mut calls[..] {
        [] => return None,
        [call] => (call.next().await, 0),
        calls => {
            // Those that are not first are dropped while they wait, which loses nothing.
            let waits = calls.iter_mut().map(|call| Box::pin(call.next()));
            let (heard, place, _) = select_all(waits).await;
            (heard, place)
        }
    };
    if !matches!(heard, Heard::Event(_)) {
        calls.swap_remove(place);
    }
    Some(heard)
}

/// Makes the rest a stream, which begins with what was `said` already.
fn stream(
    session: &Arc<Session>,
    calls: Vec<Call>,
    said: Vec<Bytes>,
    heartbeat: Duration,
) -> HttpResponse {
    let stream = session.begin_call_stream();
    let Some(reader) = session.read_call_stream(stream) else {
        return answers::events().finish();
    };
    actix_web::rt::spawn(collect(session.clone(), stream, calls, said));
    read(reader, heartbeat)
}

/// Serves the stream of a call to whoever reads it now.
pub fn read(reader: Reader, heartbeat: Duration) -> HttpResponse {
    let first = reader.primer().unwrap_or(sse::HEARTBEAT);
    let tail = Tail { reader, first: Some(first), heartbeat };
    answers::events().streaming(stream_of(tail, async |tail| tail.next().await))
}

async fn collect(session: Arc<Session>, stream: u64, mut calls: Vec<Call>, said: Vec<Bytes>) {
    let heard = AssertUnwindSafe(hear_out(&session, stream, &mut calls, said));
    if heard.catch_unwind().await.is_err() {
        for call in &mut calls {
            session.say_last(stream, panicked().to_bytes(call.id()));
            call.fail();
        }
    }
    session.end_call_stream(stream);
}

async fn hear_out(session: &Arc<Session>, stream: u64, calls: &mut Vec<Call>, said: Vec<Bytes>) {
    failpoint::pass("collect");
    for message in said {
        tell(session, stream, message).await;
    }
    let mut absence = Box::pin(session.unread(stream));
    loop {
        let heard = tokio::select! {
            biased;
            heard = next_of(calls) => heard,
            () = &mut absence => {
                for question in calls.iter_mut().flat_map(Call::gives_up_asking) {
                    session.take_back(stream, question, relay::deserted(question));
                }
                absence = Box::pin(session.unread(stream));
                continue;
            }
        };
        let Some(heard) = heard else { break };
        match heard {
            // A client that reads hardly anything does not hold a call for longer than it may take.
            Heard::Event(event) => {
                let last =
                    calls.iter().filter_map(Call::ends_by).max().unwrap_or_else(Instant::now);
                if timeout_at(last, tell(session, stream, event)).await.is_err() {
                    metrics::counter!("metamcpd_session_messages_dropped_total").increment(1);
                }
            }
            Heard::Answer(answer) => {
                if !session.say(stream, answer.clone()).await {
                    metrics::counter!("metamcpd_answers_dropped_total").increment(1);
                    session.say_last(stream, not_kept(answer));
                }
            }
            Heard::Cancelled => {}
        }
    }
}

async fn tell(session: &Session, stream: u64, message: Bytes) {
    if !session.say(stream, message).await {
        metrics::counter!("metamcpd_session_messages_dropped_total").increment(1);
    }
}

/// What stands in the place of an answer that was too much to be kept for a client that has gone.
fn not_kept(answer: Bytes) -> Bytes {
    let frame = Frame::parse(answer, usize::MAX).ok();
    let data = Data {
        reason: "answer_not_kept",
        fault: Blame::Client,
        server: None,
        retry: false,
        uri: None,
        scope: None,
    };
    let fault = Fault::internal(
        "the call was carried out while its client was away, and its answer was too large to be kept (`sessions.replay.bytes_max`)",
        data,
    );
    fault.to_bytes(frame.as_ref().and_then(Frame::id))
}

/// What is left of a stream, with comments where it is silent.
struct Tail {
    reader: Reader,
    first: Option<Bytes>,
    heartbeat: Duration,
}

impl Tail {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        match timeout(self.heartbeat, self.reader.next()).await {
            Ok(event) => event,
            Err(_elapsed) => Some(sse::HEARTBEAT),
        }
    }
}
