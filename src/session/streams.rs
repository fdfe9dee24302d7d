//! The ways from a session to its client, and who reads them just now.
//!
//! Over SSE there is one, and its end is the session's. Over Streamable HTTP there is a standing one
//! and one for each call that has more to say than its answer; what is said on them waits for whoever
//! reads, and is kept for a while for a client that lost its connection.

use std::sync::Arc;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    Session, Via, lock,
    outbox::{Outbox, Unsent},
    questions::own_id,
    replay::{EventId, Next, Pushed, Replay, ReplayOptions, STANDING, Weight},
};
use crate::{
    aside::{IN_PLACE_MAX, aside},
    wire::{Frame, Kind, sse},
};

/// The event that a client wants to go on after is not known here (any more).
#[derive(Debug, thiserror::Error)]
#[error("what came after this event is no longer kept")]
pub struct UnknownEvent;

/// A client's end of one stream. Dropping it leaves the stream to the next one who comes.
pub struct Reader {
    session: Arc<Session>,
    stream: u64,
    number: u64,
    stirred: watch::Receiver<()>,
}

impl Session {
    /// Says something to the client that belongs to no call: a notification, or a request. Whether it
    /// was taken; nobody else tells whoever waits for the answer to a request that was not.
    ///
    /// Over Streamable HTTP it waits for the standing stream. A client over SSE that does not read
    /// loses its session, with the cause counted, rather than a message.
    pub fn push(&self, message: Bytes) -> bool {
        if let Some(outbox) = &self.outbox {
            return match outbox.send(sse::message(&message)) {
                Ok(()) => true,
                Err(Unsent::Closed) => false,
                Err(Unsent::Full) => {
                    // Of several who speak to it at once, one is enough to tell.
                    if !self.ended.is_cancelled() {
                        metrics::counter!("metamcpd_slow_clients_closed_total").increment(1);
                        tracing::warn!(session = %self.short(), "a client does not read its stream; its session is ended");
                    }
                    self.ended.cancel();
                    false
                }
            };
        }
        // Over SSE the calls of a session that has ended still have their last word.
        if self.ended.is_cancelled() {
            return false;
        }
        let weight = weight_of(&message);
        let pushed = self.replay(|replay| replay.push(STANDING, message, weight, Instant::now()));
        self.stir();
        let is_taken = pushed == Pushed::Taken;
        if !is_taken {
            metrics::counter!("metamcpd_session_messages_dropped_total").increment(1);
        }
        is_taken
    }

    /// The same of what may be missed: a client over SSE that is behind goes without it.
    pub fn offer(&self, message: Bytes) -> bool {
        let has_room = self.outbox.as_ref().is_none_or(Outbox::has_room);
        has_room && self.push(message)
    }

    /// Begins the stream of a call.
    pub fn begin_call_stream(&self) -> u64 {
        self.replay(Replay::begin)
    }

    /// Says something on the stream of a call, and waits for a client that reads slowly. Whether it was
    /// taken: where nobody reads, there is room for so much and no more. Whoever asked what was not taken
    /// hears so.
    pub async fn say(&self, stream: u64, message: Bytes) -> bool {
        let weight = weight_of(&message);
        let mut stirred = self.stirred.subscribe();
        loop {
            stirred.mark_unchanged();
            let said = message.clone();
            match self.replay(|replay| replay.push(stream, said, weight, Instant::now())) {
                Pushed::Taken => {
                    self.stir();
                    return true;
                }
                Pushed::Full => {
                    self.lose(message).await;
                    return false;
                }
                Pushed::Later => {
                    if stirred.changed().await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    /// Whoever has asked what is lost hears so.
    async fn lose(&self, message: Bytes) {
        let is_long = message.len() > IN_PLACE_MAX;
        let parse = move || Frame::parse(message, usize::MAX);
        if let Ok(lost) = if is_long { aside(parse).await } else { parse() } {
            self.questions.lose(&lost);
        }
    }

    /// Takes back a question whose client has been away for too long to be waited for. One that it was never
    /// sent is gone; where it may have seen it, it is told by this notice when it comes back.
    pub fn take_back(&self, stream: u64, question: u64, notice: Bytes) {
        let pushed = self.replay(|replay| match replay.take_back(stream, question) {
            true => Pushed::Taken,
            false => replay.push(stream, notice, Weight::Heavy, Instant::now()),
        });
        self.stir();
        if pushed != Pushed::Taken {
            metrics::counter!("metamcpd_session_messages_dropped_total").increment(1);
        }
    }

    /// The same of one that belongs to no call.
    pub fn take_back_from_standing(&self, question: u64, notice: Bytes) {
        self.take_back(STANDING, question, notice);
    }

    /// Says a short word in the place of one that was not taken. For that there is always room.
    pub fn say_last(&self, stream: u64, message: Bytes) {
        self.replay(|replay| replay.push_last(stream, message, Instant::now()));
        self.stir();
    }

    /// Waits until nobody has read the stream of a call for as long as its client may be away.
    pub async fn unread(&self, stream: u64) {
        let mut stirred = self.stirred.subscribe();
        let is_read = || self.replay(|replay| replay.is_read(stream));
        loop {
            stirred.mark_unchanged();
            if !is_read() {
                let back = async { while stirred.changed().await.is_ok() && !is_read() {} };
                if timeout(self.away_max, back).await.is_err() {
                    return;
                }
            } else if stirred.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until nobody has read the session's own stream for as long as its client may be away. One
    /// over SSE ends with its stream.
    pub async fn is_deserted(&self) {
        match self.via {
            Via::StreamableHttp => self.unread(STANDING).await,
            Via::Sse => std::future::pending().await,
        }
    }

    /// Nothing more will be said on the stream of a call.
    pub fn end_call_stream(&self, stream: u64) {
        self.replay(|replay| replay.end(stream, Instant::now()));
        self.stir();
    }

    /// Reads the stream of a call, from its beginning.
    pub fn read_call_stream(self: &Arc<Self>, stream: u64) -> Option<Reader> {
        self.read(stream, None)
    }

    /// Reads what a client asks for by GET: its standing stream, which it has only once, or what came
    /// after an event on the stream of that event.
    ///
    /// # Errors
    /// The event is of a call that nothing is kept of. One of the standing stream is never unknown:
    /// whoever asks for it wants that stream, also after a restart.
    pub fn listen(self: &Arc<Self>, last_event: Option<&str>) -> Result<Reader, UnknownEvent> {
        let id = last_event.map(|text| EventId::parse(text).ok_or(UnknownEvent)).transpose()?;
        let (stream, after) = match id {
            None => (STANDING, None),
            Some(id) => match self.replay(|replay| replay.place_of(&id)) {
                Some((stream, place)) => (stream, Some(place)),
                None if id.stream == STANDING => (STANDING, None),
                None => return Err(UnknownEvent),
            },
        };
        self.read(stream, after).ok_or(UnknownEvent)
    }

    fn read(self: &Arc<Self>, stream: u64, after: Option<u64>) -> Option<Reader> {
        let number = self.replay(|replay| replay.attach(stream, after))?;
        if stream == STANDING {
            self.open_stream();
        }
        // Whoever read it before is to see that it has been replaced.
        self.stir();
        let stirred = self.stirred.subscribe();
        Some(Reader { session: self.clone(), stream, number, stirred })
    }

    /// Drops what has been kept too long, with what nobody came for counted.
    pub fn forget_old(&self, now: Instant) {
        let Some(lost) = lock(&self.replay).as_mut().map(|replay| replay.forget(now)) else {
            return;
        };
        metrics::counter!("metamcpd_answers_dropped_total").increment(lost.answers);
        metrics::counter!("metamcpd_session_messages_dropped_total").increment(lost.messages);
    }

    /// Drops what its client was sent already.
    pub fn shed(&self) {
        if let Some(replay) = lock(&self.replay).as_mut() {
            replay.shed();
        }
    }

    /// Made at its first use: most sessions never stream anything.
    fn replay<R>(&self, what: impl FnOnce(&mut Replay) -> R) -> R {
        let mut replay = lock(&self.replay);
        what(replay.get_or_insert_with(|| {
            // Two runs, or two lives of a session, do not begin in the same millisecond.
            let milliseconds = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
            let epoch = u32::try_from(milliseconds & 0xffff_ffff).unwrap_or_default();
            Box::new(Replay::new(epoch, self.replay_options, self.held.clone()))
        }))
    }

    fn stir(&self) {
        self.stirred.send_replace(());
    }
}

impl Reader {
    /// The next event, as it is written; `None` when there are no more for this reader. Safe to be
    /// dropped while it waits.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.stirred.mark_unchanged();
            match self.session.replay(|replay| replay.next(self.stream, self.number)) {
                Next::Said(id, message) => {
                    // There is room now, for which somebody may be waiting.
                    self.session.stir();
                    return Some(sse::message_with_id(&id.to_string(), &message));
                }
                Next::Over => return None,
                Next::Wait => self.stirred.changed().await.ok()?,
            }
        }
    }

    /// What a stream begins with for clients that know it (2025-11-25, "Resumability and
    /// Redelivery"): an id to come back with before anything was said, and when to come.
    pub fn primer(&self) -> Option<Bytes> {
        let knows_it = self.session.version().is_some_and(|version| version >= PRIMED_SINCE);
        knows_it.then(|| {
            let id = self.session.replay(|replay| replay.cursor(self.stream));
            let ReplayOptions { retry, retry_spread, .. } = self.session.replay_options;
            sse::priming(&id.to_string(), retry + retry_spread.mul_f64(dice()))
        })
    }

    pub fn is_standing(&self) -> bool {
        self.stream == STANDING
    }

    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

/// A number in `0.0..1.0`. Nothing secret depends on it.
fn dice() -> f64 {
    let mut byte = [0];
    // Without entropy all clients come back together.
    getrandom::fill(&mut byte).map_or(0.0, |()| f64::from(byte[0]) / 256.0)
}

/// Older clients take an event without data for a broken message.
const PRIMED_SINCE: &str = "2025-11-25";

impl Drop for Reader {
    fn drop(&mut self) {
        self.session.replay(|replay| replay.detach(self.stream, self.number));
        // Whoever waits for this reader to read on waits for nobody now.
        self.session.stir();
        if self.is_standing() {
            self.session.close_stream();
        }
    }
}

/// What a message is worth. A long one is not read for that: it is more than a notification that may be
/// missed.
fn weight_of(message: &Bytes) -> Weight {
    if message.len() > IN_PLACE_MAX {
        return Weight::Heavy;
    }
    let Ok(frame) = Frame::parse(message.clone(), usize::MAX) else { return Weight::Heavy };
    match frame.kind() {
        Kind::Notification if frame.method().as_deref() != Some("notifications/cancelled") => {
            Weight::Light
        }
        Kind::Request => own_id(frame.id()).map_or(Weight::Heavy, Weight::Question),
        Kind::Notification | Kind::Result | Kind::Error => Weight::Heavy,
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
