//! The conversations of legacy clients: who began one, what it has in flight, and when it ends.
//!
//! A session is not authentication: whoever presents its id must also be the principal that began
//! it, on the same endpoint, or is told that there is no such session.

mod calendar;
mod outbox;
pub mod questions;
mod registry;
mod replay;
mod sealed;
mod streams;
mod task_ids;
mod tombstones;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use outbox::Outgoing;
pub use registry::{SessionError, Sessions};
pub use replay::ReplayOptions;
pub use sealed::PURPOSE;
pub use streams::{Reader, UnknownEvent};
pub use task_ids::{TASKS_PURPOSE, TaskClaims, TaskIds};
pub use tombstones::Mark;

use outbox::Outbox;
use questions::Questions;
use replay::{Held, Replay};

use crate::{
    access::Principal,
    catalogue::profiles::Profile,
    wire::{ListCounts, Topic, capabilities::ClientCapabilities, level::Level},
};

/// The limits of `sessions` in the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionOptions {
    /// A session that nobody has used for so long, and no stream is open of, ends.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// A session ends after so long, whatever it is doing.
    #[serde(with = "humantime_serde")]
    pub lifetime: Duration,
    /// Sessions of one principal; the one that was not used for longest makes room.
    pub per_principal_max: usize,
    pub total_max: usize,
    /// Requests of one session that have no answer yet.
    pub in_flight_max: usize,
    /// Requests of all sessions of one principal that have no answer yet.
    pub in_flight_per_principal_max: usize,
    /// Streams that all sessions of one principal may have open, besides those of their calls.
    pub streams_per_principal_max: usize,
    /// Resources that one session may be subscribed to.
    pub subscriptions_max: usize,
    /// The pace of comments on a stream that has nothing else to say.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Messages that wait for a client to read its SSE stream before it is closed as too slow.
    pub stream_buffer: usize,
    /// Bytes that those may have together.
    pub stream_bytes_max: usize,
    /// Whether a session of an earlier run goes on when its client presents its id.
    pub revival: bool,
    /// Ended sessions that are remembered, so that none of them is revived.
    pub tombstones_max: usize,
    /// A session whose id was issued further in the future is not revived.
    #[serde(with = "humantime_serde")]
    pub ahead_max: Duration,
    /// Messages of one batch, where batches are allowed.
    pub batch_max: usize,
    /// What is kept for clients whose connection broke.
    pub replay: ReplayOptions,
    /// What one client may be asked at once: sampling, elicitation, roots.
    pub questions_max: usize,
    /// How long a client may take to answer.
    #[serde(with = "humantime_serde")]
    pub question_timeout: Duration,
    /// How long a client whose connection broke is waited for with what it is asked.
    #[serde(with = "humantime_serde")]
    pub away_max: Duration,
}

/// Over which of the two served transports a session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    StreamableHttp,
    Sse,
}

/// What was agreed on in `initialize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// One of [`crate::wire::era::LEGACY`].
    pub version: &'static str,
    /// What the client can be asked for.
    pub capabilities: ClientCapabilities,
    /// What tools it can take, by what it says that it is.
    pub profile: Profile,
}

/// What a client says of itself in `initialize`. It is for people, and proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    pub name: String,
    pub version: String,
}

/// One client's conversation.
pub struct Session {
    /// What the client knows it by. Whoever has it is half way in, so it is shown to nobody else.
    pub id: Arc<str>,
    /// What it is known by when it has ended, and when its id was issued.
    pub mark: Mark,
    /// What everybody else knows it by. It tells nothing of the id; a later session has a later one,
    /// and so has one that was revived.
    pub uuid: Uuid,
    pub endpoint: Uuid,
    pub principal: Principal,
    pub via: Via,
    /// When it began, or was revived, in this run.
    began: Instant,
    /// How old it was by then.
    age: Duration,
    client: OnceLock<ClientInfo>,
    /// Set once `initialize` was answered.
    agreed: OnceLock<Agreed>,
    /// The level of log messages that it asked for.
    log_level: Mutex<Option<Level>>,
    /// What it is being asked.
    pub questions: Arc<Questions>,
    used: Mutex<Instant>,
    /// Requests that have no outcome yet, by the client's own id. An id may be in use more than
    /// once: some clients give every request the same.
    in_flight: Mutex<HashMap<Box<[u8]>, Vec<Pending>>>,
    in_flight_max: usize,
    in_flight_per_principal_max: usize,
    streams_per_principal_max: usize,
    load: Arc<Load>,
    next_request: AtomicU64,
    /// Cancelled when the session ends.
    pub ended: CancellationToken,
    /// What was said and may have to be said again, once there is anything.
    replay: Mutex<Option<Box<Replay>>>,
    replay_options: ReplayOptions,
    /// How long its client may be away while it is asked something.
    away_max: Duration,
    held: Held,
    /// Told of every change of `replay`.
    stirred: watch::Sender<()>,
    /// How many streams are open to the client, besides those of its calls.
    streams: AtomicU64,
    /// When the last of them was closed.
    stream_closed: Mutex<Option<Instant>>,
    /// The lists that the client has seen or has been told of, by its namespace's counts.
    announced: [AtomicU64; 3],
    /// A bit for each of the lists that the client has read.
    read: AtomicU8,
    /// The way to the client, of a session over SSE.
    outbox: Option<Outbox>,
}

/// What a session begins with, or is revived from.
struct Start {
    id: Arc<str>,
    mark: Mark,
    endpoint: Uuid,
    principal: Principal,
    via: Via,
    agreed: Option<Agreed>,
    /// How long ago its id was issued.
    age: Duration,
    outbox: Option<Outbox>,
    load: Arc<Load>,
}

/// What all sessions of one principal have open together.
#[derive(Debug, Default)]
struct Load {
    in_flight: AtomicUsize,
    streams: AtomicUsize,
}

/// A request without an outcome: its number within the session, and how it is cancelled.
type Pending = (u64, CancellationToken);

/// A request on its way. Dropping it forgets the request.
pub struct InFlight {
    session: Arc<Session>,
    id: Box<[u8]>,
    number: u64,
    pub cancel: CancellationToken,
}

/// Why a client is to wait: it has as much under way as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    #[error("this session has {0} requests without an answer (`sessions.in_flight_max`)")]
    InSession(usize),
    #[error(
        "the sessions of this key have {0} requests without an answer (`sessions.in_flight_per_principal_max`)"
    )]
    OfPrincipal(usize),
    #[error(
        "the sessions of this key have {0} streams open (`sessions.streams_per_principal_max`)"
    )]
    Streams(usize),
}

impl TooMany {
    fn counted(self) -> Self {
        let limit = match self {
            Self::InSession(_) => "sessions.in_flight_max",
            Self::OfPrincipal(_) => "sessions.in_flight_per_principal_max",
            Self::Streams(_) => "sessions.streams_per_principal_max",
        };
        metrics::counter!("metamcpd_limit_hit_total", "limit" => limit).increment(1);
        self
    }
}

impl Session {
    fn new(start: Start, options: &SessionOptions, held: Held) -> Self {
        let now = Instant::now();
        Self {
            id: start.id,
            mark: start.mark,
            uuid: Uuid::now_v7(),
            endpoint: start.endpoint,
            principal: start.principal,
            via: start.via,
            began: now,
            age: start.age,
            client: OnceLock::new(),
            agreed: start.agreed.map(OnceLock::from).unwrap_or_default(),
            used: Mutex::new(now),
            log_level: Mutex::new(None),
            questions: Questions::new(options.questions_max),
            in_flight: Mutex::default(),
            in_flight_max: options.in_flight_max,
            in_flight_per_principal_max: options.in_flight_per_principal_max,
            streams_per_principal_max: options.streams_per_principal_max,
            load: start.load,
            next_request: AtomicU64::new(0),
            ended: CancellationToken::new(),
            replay: Mutex::default(),
            replay_options: options.replay,
            away_max: options.away_max,
            held,
            stirred: watch::channel(()).0,
            streams: AtomicU64::new(0),
            stream_closed: Mutex::default(),
            announced: Default::default(),
            read: AtomicU8::new(0),
            outbox: start.outbox,
        }
    }

    /// The revision that was agreed on, once `initialize` was answered.
    pub fn version(&self) -> Option<&'static str> {
        self.agreed.get().map(|agreed| agreed.version)
    }

    /// What the client can be asked for. Nothing before `initialize` was answered.
    pub fn capabilities(&self) -> ClientCapabilities {
        self.agreed.get().map(|agreed| agreed.capabilities).unwrap_or_default()
    }

    /// What tools the client can take by itself. `raw` before `initialize` was answered.
    pub fn profile(&self) -> Profile {
        self.agreed.get().map(|agreed| agreed.profile).unwrap_or_default()
    }

    /// Notes what was agreed on in `initialize`; what was agreed on first stays.
    pub fn agree_on(&self, agreed: Agreed) {
        self.agreed.get_or_init(|| agreed);
    }

    /// How long ago its id was issued, which may have been in an earlier run.
    pub fn age(&self, now: Instant) -> Duration {
        self.age + now.saturating_duration_since(self.began)
    }

    /// Notes what the client says of itself; what it said first stays.
    pub fn introduce(&self, client: ClientInfo) {
        self.client.get_or_init(|| client);
    }

    pub fn client(&self) -> Option<&ClientInfo> {
        self.client.get()
    }

    pub fn log_level(&self) -> Option<Level> {
        *lock(&self.log_level)
    }

    pub fn set_log_level(&self, level: Level) {
        *lock(&self.log_level) = Some(level);
    }

    pub fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }

    pub fn last_used(&self) -> Instant {
        *lock(&self.used)
    }

    /// Notes a request, so that the client can cancel it by its id.
    ///
    /// # Errors
    /// There are as many without an answer as there may be.
    pub fn begin(self: &Arc<Self>, id: &[u8]) -> Result<InFlight, TooMany> {
        let mut in_flight = lock(&self.in_flight);
        if in_flight.values().map(Vec::len).sum::<usize>() >= self.in_flight_max {
            return Err(TooMany::InSession(self.in_flight_max).counted());
        }
        let max = self.in_flight_per_principal_max;
        if self.load.in_flight.fetch_add(1, Ordering::Relaxed) >= max {
            self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(TooMany::OfPrincipal(max).counted());
        }
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        // A session that ends takes its requests with it.
        let cancel = self.ended.child_token();
        in_flight.entry(id.into()).or_default().push((number, cancel.clone()));
        Ok(InFlight { session: self.clone(), id: id.into(), number, cancel })
    }

    /// How many requests have no outcome yet.
    pub fn in_flight(&self) -> usize {
        lock(&self.in_flight).values().map(Vec::len).sum()
    }

    /// Whether a request with this id has no outcome yet.
    pub fn has_in_flight(&self, id: &[u8]) -> bool {
        lock(&self.in_flight).contains_key(id)
    }

    /// Cancels what the client has in flight under this id. An unknown one is ignored, as the
    /// request may have ended in the meantime (basic/utilities/cancellation).
    pub fn cancel(&self, id: &[u8]) {
        for (_, cancel) in lock(&self.in_flight).remove(id).unwrap_or_default() {
            cancel.cancel();
        }
    }

    /// Whether it may have a stream open. One that has may always replace it.
    pub fn has_room_for_stream(&self) -> Result<(), TooMany> {
        let max = self.streams_per_principal_max;
        match self.has_stream() || self.load.streams.load(Ordering::Relaxed) < max {
            true => Ok(()),
            false => Err(TooMany::Streams(max).counted()),
        }
    }

    /// A session is not idle while a stream is open.
    pub fn open_stream(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.load.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub fn close_stream(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
        self.load.streams.fetch_sub(1, Ordering::Relaxed);
        *lock(&self.stream_closed) = Some(Instant::now());
        self.touch();
    }

    /// Whether its client hears what belongs to none of its calls: it has a stream for that, or lost it
    /// so lately that it may come back.
    pub fn is_listening(&self) -> bool {
        let is_lately = |closed: Instant| closed.elapsed() <= self.away_max;
        self.has_stream() || lock(&self.stream_closed).is_some_and(is_lately)
    }

    pub fn has_stream(&self) -> bool {
        self.streams() > 0
    }

    /// How many streams are open to the client, besides those of its calls.
    pub fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// The client has read the list of this count. Only the first that it reads stands for an
    /// announcement: later ones its library may read for itself, and who uses that is to hear of a change
    /// all the same.
    pub fn read_list(&self, topic: Topic, counts: &ListCounts) {
        let bit = 1 << topic as u8;
        if self.read.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.saw_list(topic, counts);
        }
    }

    /// The client has seen the list of this count, or has been told of it.
    pub fn saw_list(&self, topic: Topic, counts: &ListCounts) {
        self.announced[topic as usize].fetch_max(counts.of(topic), Ordering::Relaxed);
    }

    /// It begins with these lists.
    pub fn saw_lists(&self, counts: &ListCounts) {
        Topic::ALL.into_iter().for_each(|topic| self.saw_list(topic, counts));
    }

    /// The lists that have become others since the client last saw them or was told of it.
    pub fn unseen(&self, counts: &ListCounts) -> impl Iterator<Item = Topic> {
        let announced = |topic: Topic| self.announced[topic as usize].load(Ordering::Relaxed);
        Topic::ALL.into_iter().filter(move |topic| counts.of(*topic) > announced(*topic))
    }

    /// Enough of the id to tell sessions apart in a log, and too little to use one.
    pub fn short(&self) -> &str {
        self.id.get(..8).unwrap_or_default()
    }
}

impl InFlight {
    /// Whether it was cancelled by the end of its session rather than by its client.
    pub fn is_orphaned(&self) -> bool {
        self.session.ended.is_cancelled()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.session.load.in_flight.fetch_sub(1, Ordering::Relaxed);
        // A session is idle from the end of its last call, however long that took.
        self.session.touch();
        let mut in_flight = lock(&self.session.in_flight);
        if let Some(requests) = in_flight.get_mut(&self.id) {
            requests.retain(|(number, _)| *number != self.number);
            if requests.is_empty() {
                in_flight.remove(&self.id);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What these hold is whole whenever the lock is free, even after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
