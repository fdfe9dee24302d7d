//! What was said on the streams of one session and may have to be said again.
//!
//! Every event has an id that names its stream and its place there, so that a client whose connection
//! broke gets the rest of that stream and nothing of another. It holds what was not yet sent, and of
//! what was sent as much as its limits allow. It waits for nobody and reads no clock.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

/// The stream that a client holds open by GET. Those of its calls are counted from one.
pub const STANDING: u64 = 0;

/// The limits of `sessions.replay` in the settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayOptions {
    /// Events that one stream holds.
    pub events_max: usize,
    /// Streams of calls that have ended and are still held for one session.
    pub streams_max: usize,
    /// Bytes that all streams of one session hold.
    pub bytes_max: usize,
    /// Bytes that all sessions hold together.
    pub total_bytes_max: usize,
    /// How long what was said can be fetched.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long we ask clients to wait before they come back.
    #[serde(with = "humantime_serde")]
    pub retry: Duration,
    /// How much longer some of them are asked to wait, so that they do not come back together.
    #[serde(with = "humantime_serde")]
    pub retry_spread: Duration,
}

/// The bytes that all sessions hold.
pub type Held = Arc<AtomicUsize>;

/// The name of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    /// Another in each run of the daemon, so that an id of an earlier one names nothing.
    pub epoch: u32,
    pub stream: u64,
    pub place: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{:x}-{}-{}", self.epoch, self.stream, self.place)
    }
}

impl EventId {
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let epoch = u32::from_str_radix(parts.next()?, 16).ok()?;
        let (stream, place) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Self { epoch, stream, place })
    }
}

/// What a message is worth when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// A notification: the next ones tell enough.
    Light,
    /// An answer, or what takes a question back: somebody waits for it.
    Heavy,
    /// A question, by its id: somebody waits for what comes of it.
    Question(u64),
}

/// Whether a message was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Taken,
    /// There will be room when the client has read on.
    Later,
    /// Nobody reads, and there is no room.
    Full,
}

/// What comes next for a reader.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Said(EventId, Bytes),
    /// Nothing for now.
    Wait,
    /// Nothing any more: the stream has ended, or another reader has it.
    Over,
}

/// What time took away that nobody had read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Streams of calls whose end was never read.
    pub answers: u64,
    pub messages: u64,
}

pub struct Replay {
    epoch: u32,
    options: ReplayOptions,
    streams: BTreeMap<u64, Log>,
    calls: u64,
    readers: u64,
    bytes: usize,
    held: Held,
}

#[derive(Default)]
struct Log {
    events: VecDeque<Event>,
    /// The place of the last event.
    last: u64,
    /// The place of the last event that a reader took.
    sent: u64,
    /// The place of the last event that is missed, and is here no more.
    gone: u64,
    reader: Option<u64>,
    ended: Option<Instant>,
}

struct Event {
    place: u64,
    weight: Weight,
    at: Instant,
    message: Bytes,
}

impl Log {
    fn has_unsent(&self) -> bool {
        self.events.back().is_some_and(|event| event.place > self.sent)
    }

    /// Takes an event out.
    fn take(&mut self, at: usize) -> Option<Event> {
        let event = self.events.remove(at)?;
        if event.weight != Weight::Light {
            self.gone = self.gone.max(event.place);
        }
        Some(event)
    }

    /// The oldest event that may go to make room.
    fn spare(&self, only_sent: bool) -> Option<usize> {
        let oldest_is_sent = self.events.front().is_some_and(|event| event.place <= self.sent);
        match oldest_is_sent {
            true => Some(0),
            // Who reads will make room itself.
            false if only_sent || self.reader.is_some() => None,
            false => self.events.iter().position(|event| event.weight == Weight::Light),
        }
    }
}

impl Replay {
    pub fn new(epoch: u32, options: ReplayOptions, held: Held) -> Self {
        let streams = BTreeMap::from([(STANDING, Log::default())]);
        Self { epoch, options, streams, calls: 0, readers: 0, bytes: 0, held }
    }

    /// Begins the stream of a call. Of those that have ended and nobody reads, the oldest makes room
    /// where there are too many.
    pub fn begin(&mut self) -> u64 {
        let left = self.streams.iter();
        let left = left.filter(|(_, log)| log.ended.is_some() && log.reader.is_none());
        let left: Vec<u64> = left.map(|(number, _)| *number).collect();
        let too_many = (left.len() + 1).saturating_sub(self.options.streams_max.max(1));
        for number in left.into_iter().take(too_many) {
            if self.remove(number) {
                metrics::counter!("metamcpd_answers_dropped_total").increment(1);
            }
        }
        self.calls += 1;
        self.streams.insert(self.calls, Log::default());
        self.calls
    }

    pub fn push(&mut self, stream: u64, message: Bytes, weight: Weight, now: Instant) -> Pushed {
        loop {
            let Some(log) = self.streams.get(&stream) else { return Pushed::Full };
            let is_counted_in = log.events.len() < self.options.events_max;
            // Whoever reads and has read everything takes one message of any size.
            let passes = log.reader.is_some() && !log.has_unsent();
            let fits = self.bytes + message.len() <= self.options.bytes_max
                && self.held.load(Ordering::Relaxed) + message.len()
                    <= self.options.total_bytes_max;
            let is_read = log.reader.is_some();
            if is_counted_in && fits {
                break;
            }
            let has_made_room = self.make_room(stream, is_counted_in);
            if !has_made_room && passes {
                break;
            }
            if !has_made_room {
                return if is_read { Pushed::Later } else { Pushed::Full };
            }
        }
        self.append(stream, message, weight, now);
        Pushed::Taken
    }

    /// Puts in the last word of a stream, for which there is always room.
    pub fn push_last(&mut self, stream: u64, message: Bytes, now: Instant) {
        self.append(stream, message, Weight::Heavy, now);
    }

    fn append(&mut self, stream: u64, message: Bytes, weight: Weight, at: Instant) {
        let Some(log) = self.streams.get_mut(&stream) else { return };
        log.last += 1;
        self.bytes += message.len();
        self.held.fetch_add(message.len(), Ordering::Relaxed);
        log.events.push_back(Event { place: log.last, weight, at, message });
    }

    /// Drops one event: of this stream, or, where bytes are short, one of another that was sent.
    fn make_room(&mut self, stream: u64, may_be_of_another: bool) -> bool {
        let own = self.streams.get(&stream).and_then(|log| log.spare(false));
        if let Some(place) = own {
            self.drop_event(stream, place);
            return true;
        }
        let other = self.streams.iter().find(|(_, log)| log.spare(true).is_some());
        match other.map(|(number, _)| *number).filter(|_| may_be_of_another) {
            Some(other) => {
                self.drop_event(other, 0);
                true
            }
            None => false,
        }
    }

    fn drop_event(&mut self, stream: u64, place: usize) {
        let Some(log) = self.streams.get_mut(&stream) else { return };
        let Some(event) = log.take(place) else { return };
        if event.place > log.sent {
            metrics::counter!("metamcpd_session_messages_dropped_total").increment(1);
        }
        self.free(event.message.len());
    }

    /// Takes out a question that no reader was sent. It is then as if it had never been there.
    pub fn take_back(&mut self, stream: u64, question: u64) -> bool {
        let Some(log) = self.streams.get_mut(&stream) else { return false };
        let sent = log.sent;
        let is_it =
            |event: &Event| event.place > sent && event.weight == Weight::Question(question);
        let found = log.events.iter().position(is_it);
        let Some(event) = found.and_then(|at| log.events.remove(at)) else { return false };
        self.free(event.message.len());
        true
    }

    /// Nothing more will be said on the stream.
    pub fn end(&mut self, stream: u64, now: Instant) {
        if let Some(log) = self.streams.get_mut(&stream) {
            log.ended = Some(now);
        }
    }

    /// A new reader of a stream, which takes the place of the one before: from where that was, or from
    /// what comes after an event. `None` when there is no such stream (any more), or an answer or a question
    /// that came after that event is no longer kept. The standing stream goes on with what there is.
    pub fn attach(&mut self, stream: u64, after: Option<u64>) -> Option<u64> {
        let log = self.streams.get_mut(&stream)?;
        if let Some(after) = after {
            if stream != STANDING && after < log.gone {
                return None;
            }
            log.sent = after.min(log.last);
        }
        self.readers += 1;
        log.reader = Some(self.readers);
        Some(self.readers)
    }

    /// The stream and the place that an event names, where it is one of ours.
    pub fn place_of(&self, id: &EventId) -> Option<(u64, u64)> {
        let is_ours = id.epoch == self.epoch && self.streams.contains_key(&id.stream);
        is_ours.then_some((id.stream, id.place))
    }

    pub fn is_read(&self, stream: u64) -> bool {
        self.streams.get(&stream).is_some_and(|log| log.reader.is_some())
    }

    pub fn detach(&mut self, stream: u64, reader: u64) {
        if let Some(log) = self.streams.get_mut(&stream)
            && log.reader == Some(reader)
        {
            log.reader = None;
        }
    }

    pub fn next(&mut self, stream: u64, reader: u64) -> Next {
        let Some(log) = self.streams.get_mut(&stream) else { return Next::Over };
        if log.reader != Some(reader) {
            return Next::Over;
        }
        let sent = log.sent;
        match log.events.iter().find(|event| event.place > sent) {
            Some(event) => {
                log.sent = event.place;
                let id = EventId { epoch: self.epoch, stream, place: event.place };
                Next::Said(id, event.message.clone())
            }
            None if log.ended.is_some() => Next::Over,
            None => Next::Wait,
        }
    }

    /// Where the reader of a stream is: what comes after it is what it has not seen.
    pub fn cursor(&self, stream: u64) -> EventId {
        let place = self.streams.get(&stream).map_or(0, |log| log.sent);
        EventId { epoch: self.epoch, stream, place }
    }

    /// Drops what was said too long ago, and what is left of calls that nobody came back for.
    pub fn forget(&mut self, now: Instant) -> Lost {
        let window = self.options.window;
        let is_old = |at: Instant| now.saturating_duration_since(at) > window;
        let mut lost = Lost::default();
        let (mut freed, mut over) = (0, Vec::new());
        for (number, log) in &mut self.streams {
            if log.ended.is_some_and(is_old) && log.reader.is_none() {
                over.push(*number);
                continue;
            }
            let sent = log.sent;
            while let Some(event) = log.events.front().filter(|event| {
                // What a reader is still to take is not too old for it.
                is_old(event.at) && (event.place <= sent || log.reader.is_none())
            }) {
                freed += event.message.len();
                lost.messages += u64::from(event.place > sent && log.ended.is_none());
                log.take(0);
            }
        }
        self.free(freed);
        for number in over {
            lost.answers += u64::from(self.remove(number));
        }
        lost
    }

    /// Drops what was sent already. Who loses its connection now cannot have it again; what nobody has read
    /// stays.
    pub fn shed(&mut self) {
        let (mut freed, mut over) = (0, Vec::new());
        for (number, log) in &mut self.streams {
            if log.ended.is_some() && log.reader.is_none() && !log.has_unsent() {
                over.push(*number);
                continue;
            }
            while let Some(event) = log.events.front().filter(|event| event.place <= log.sent) {
                freed += event.message.len();
                log.take(0);
            }
            log.events.shrink_to_fit();
        }
        self.free(freed);
        for number in over {
            self.remove(number);
        }
    }

    /// Lets go of a stream; whether there was something on it that nobody had read.
    fn remove(&mut self, stream: u64) -> bool {
        let Some(log) = self.streams.remove(&stream) else { return false };
        self.free(log.events.iter().map(|event| event.message.len()).sum());
        log.has_unsent()
    }

    fn free(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
