//! Many calls over one connection: our own ids out, and every answer back to the call it is for.
//!
//! It knows neither processes nor sockets: a worker writes what comes out of the queue, and hands in
//! what the server says.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};
use uuid::Uuid;

use super::{
    CallError,
    attribution::Client,
    conduct::Conduct,
    dialogue::{Aside, Dialogue},
    exchange::{Heard, own_id},
    inbox::Listening,
    places::Place,
    question::Say,
};
use crate::wire::{Frame, Kind, level::Level, message};

/// Answers that may wait for a server which reads nothing just now. Clients are never asked so much at
/// once; but a server can be refused faster than it reads.
const ANSWERS_OWED_MAX: usize = 256;

/// The call side of a connection that all calls share: of a process, or of an HTTP+SSE stream.
pub struct Pipe {
    server: Arc<str>,
    next_id: AtomicU64,
    waiting: Mutex<Waiting>,
    queue: mpsc::Sender<Bytes>,
    /// Turns to wait for a place in the queue with an answer.
    owed: Arc<Semaphore>,
    dialogue: Arc<Dialogue>,
    /// Answers to what was never asked.
    unasked: AtomicU64,
    /// Whether the server said that it can be told which log messages are wanted.
    has_logging: AtomicBool,
    /// The level that it was last told.
    level: Mutex<Option<Level>>,
    /// What its own calls tell of it, where it is one of several processes.
    conduct: OnceLock<Arc<Conduct>>,
}

#[derive(Default)]
struct Waiting {
    calls: HashMap<u64, Call>,
    /// Why no more calls are taken; set once, when the connection ends.
    closed: Option<CallError>,
}

struct Call {
    outcome: oneshot::Sender<Result<Frame, CallError>>,
    /// After this nobody waits any more, even if the client has gone without a word.
    expires: Instant,
    /// Counts the call among those in flight for as long as the server may work on it.
    _place: Option<Place>,
}

/// One call's side of the pipe.
pub struct PipeLeg {
    pipe: Arc<Pipe>,
    id: u64,
    listening: Listening,
    outcome: oneshot::Receiver<Result<Frame, CallError>>,
}

impl Pipe {
    /// A pipe and the queue that a worker has to write to the server, line by line.
    pub fn new(
        server: Arc<str>,
        queue_max: usize,
        dialogue: Arc<Dialogue>,
    ) -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let (queue, lines) = mpsc::channel(queue_max.max(1));
        let pipe = Self {
            server,
            next_id: AtomicU64::new(1),
            waiting: Mutex::default(),
            queue,
            owed: Arc::new(Semaphore::new(ANSWERS_OWED_MAX)),
            dialogue,
            unasked: AtomicU64::new(0),
            has_logging: AtomicBool::new(false),
            level: Mutex::default(),
            conduct: OnceLock::new(),
        };
        (Arc::new(pipe), lines)
    }

    /// Of the process: what it knows of tasks ends with it.
    pub fn life(&self) -> Uuid {
        self.dialogue.life()
    }

    pub fn set_has_logging(&self, has_logging: bool) {
        self.has_logging.store(has_logging, Ordering::Relaxed);
    }

    pub fn has_logging(&self) -> bool {
        self.has_logging.load(Ordering::Relaxed)
    }

    pub fn set_level(&self, level: Level) {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = Some(level);
    }

    pub fn level(&self) -> Option<Level> {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on its calls are counted by themselves, besides those of the whole upstream.
    pub fn count_by(&self, conduct: Arc<Conduct>) {
        drop(self.conduct.set(conduct));
    }

    /// Whether the call of any client is with the server.
    pub fn has_calls(&self) -> bool {
        self.dialogue.has_calls()
    }

    /// Sends the request that `write` makes for the id it is given, and waits at most `queue_wait`
    /// for a place in the queue.
    pub async fn begin(
        self: &Arc<Self>,
        write: impl FnOnce(u64) -> Bytes,
        client: Option<Client>,
        place: Option<Place>,
        queue_wait: Duration,
        lifetime: Duration,
    ) -> Result<PipeLeg, CallError> {
        let room = match tokio::time::timeout(queue_wait, self.queue.reserve()).await {
            Ok(Ok(room)) => room,
            Ok(Err(_closed)) => return Err(self.not_sent()),
            Err(_elapsed) => {
                metrics::counter!("metamcpd_limit_hit_total", "limit" => "calls.queue_max")
                    .increment(1);
                return Err(CallError::Busy { server: self.server.clone() });
            }
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let leg = self.enter(id, client, place, lifetime)?;
        room.send(write(id));
        Ok(leg)
    }

    /// Notes a call whose request is sent past the queue, under an id that no other call here has.
    pub fn enter(
        self: &Arc<Self>,
        id: u64,
        client: Option<Client>,
        place: Option<Place>,
        lifetime: Duration,
    ) -> Result<PipeLeg, CallError> {
        let (outcome_in, outcome) = oneshot::channel();
        let call = Call { outcome: outcome_in, expires: Instant::now() + lifetime, _place: place };
        let mut waiting = self.lock();
        if waiting.closed.is_some() {
            drop(waiting);
            return Err(self.not_sent());
        }
        waiting.calls.insert(id, call);
        drop(waiting);
        // Before the server can have read it, or what it asks at once would be nobody's.
        let listening = self.dialogue.begin(id, client);
        Ok(PipeLeg { pipe: self.clone(), id, listening, outcome })
    }

    /// Takes what the server said to the call it is for. What belongs to no call is given back, with
    /// what is to be done about it.
    pub fn hear(self: &Arc<Self>, frame: Frame) -> Aside {
        match frame.kind() {
            Kind::Result | Kind::Error => {
                let call =
                    own_id(frame.id()).and_then(|id| Some((id, self.lock().calls.remove(&id)?)));
                match call {
                    Some((id, call)) => {
                        self.dialogue.end(id, &frame);
                        // A receiver that is gone belonged to a client that is gone.
                        drop(call.outcome.send(Ok(frame)));
                    }
                    None => {
                        // One that was asked may come late, or once more; that is no fault.
                        let is_ours = |id| id < self.next_id.load(Ordering::Relaxed);
                        if !own_id(frame.id()).is_some_and(is_ours) {
                            self.unasked.fetch_add(1, Ordering::Relaxed);
                        }
                        metrics::counter!("metamcpd_upstream_unknown_replies_total").increment(1);
                    }
                }
                Aside::Settled
            }
            Kind::Notification if frame.method().as_deref() == Some("notifications/progress") => {
                self.dialogue.progress(frame)
            }
            Kind::Request | Kind::Notification => self.dialogue.hear(frame, || self.answering()),
        }
    }

    /// How many answers came to what was never asked.
    pub fn unasked(&self) -> u64 {
        self.unasked.load(Ordering::Relaxed)
    }

    /// Ends a call whose answer came and cannot be taken.
    pub fn refuse(&self, id: u64, why: &str) {
        let call = self.lock().calls.remove(&id);
        if let Some(call) = call {
            self.dialogue.end_badly(id);
            let bad = CallError::BadAnswer { server: self.server.clone(), why: why.into() };
            drop(call.outcome.send(Err(bad)));
        }
    }

    /// How an answer reaches the server. One that finds the queue full waits for its place, so that none
    /// is lost to a server that reads.
    fn answering(self: &Arc<Self>) -> Say {
        let pipe = self.clone();
        Box::new(move |line| {
            if let (Err(mpsc::error::TrySendError::Full(line)), Ok(runtime)) =
                (pipe.queue.try_send(line), tokio::runtime::Handle::try_current())
            {
                let Ok(turn) = pipe.owed.clone().try_acquire_owned() else {
                    metrics::counter!("metamcpd_upstream_messages_dropped_total").increment(1);
                    return;
                };
                let queue = pipe.queue.clone();
                runtime.spawn(async move {
                    drop(queue.send(line).await);
                    drop(turn);
                });
            }
        })
    }

    /// Puts a message into the queue if there is room: an answer, or a notification.
    pub fn say(&self, line: Bytes) {
        if self.queue.try_send(line).is_err() {
            metrics::counter!("metamcpd_upstream_messages_dropped_total").increment(1);
        }
    }

    /// Waits until everything that was put into the queue has been taken out of it.
    pub async fn is_written(&self) {
        drop(self.queue.reserve_many(self.queue.max_capacity()).await);
    }

    /// Ends every call with `why`, and takes no more.
    pub fn close(&self, why: CallError) {
        let calls = {
            let mut waiting = self.lock();
            waiting.closed.get_or_insert_with(|| why.clone());
            std::mem::take(&mut waiting.calls)
        };
        // In the order in which they were sent, so that a simulated run is the same each time.
        let mut calls: Vec<_> = calls.into_iter().collect();
        calls.sort_unstable_by_key(|(id, _)| *id);
        for (_, call) in calls {
            drop(call.outcome.send(Err(why.clone())));
        }
        self.dialogue.close();
    }

    /// Forgets the calls whose time is over and that nobody waits for.
    pub fn expire(&self, now: Instant) {
        let expired: Vec<u64> = {
            let mut waiting = self.lock();
            let over = |call: &Call| call.expires <= now && call.outcome.is_closed();
            let ids: Vec<u64> =
                waiting.calls.iter().filter(|(_, call)| over(call)).map(|(id, _)| *id).collect();
            waiting.calls.retain(|id, _| !ids.contains(id));
            ids
        };
        for id in expired {
            self.dialogue.give_up(id);
            self.say(message::cancelled(id, "the client has gone and the call took too long"));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // The map is whole whenever the lock is free, even after a panic elsewhere.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_sent(&self) -> CallError {
        CallError::NotSent { server: self.server.clone(), detail: None }
    }
}

impl PipeLeg {
    pub async fn next(&mut self) -> Heard {
        tokio::select! {
            // What came before the answer is told before it.
            biased;
            heard = self.listening.next() => heard,
            outcome = &mut self.outcome => match outcome {
                Ok(Ok(frame)) => Heard::Reply(frame),
                Ok(Err(error)) => Heard::Failed(error),
                Err(_dropped) => Heard::Failed(self.pipe.not_sent()),
            },
        }
    }

    /// Takes the request back: the server is told, and a late answer is dropped.
    pub fn cancel(&mut self, reason: &str) {
        if self.pipe.lock().calls.remove(&self.id).is_some() {
            self.pipe.dialogue.give_up(self.id);
            self.pipe.say(message::cancelled(self.id, reason));
        }
    }

    /// What else the server says of a call that was answered by a task.
    pub async fn aside(&mut self) -> Heard {
        self.listening.next().await
    }

    /// It had no answer in time.
    pub fn timed_out(&self) {
        if let Some(conduct) = self.pipe.conduct.get() {
            conduct.timed_out();
        }
    }

    /// Of the process that it is with.
    pub fn life(&self) -> Uuid {
        self.pipe.life()
    }

    /// Why that process has ended, if it has.
    pub fn why_over(&self) -> Option<CallError> {
        self.pipe.lock().closed.clone()
    }

    /// Forgets the call. Nobody is told, and a late answer is dropped.
    pub fn leave(&self) {
        self.pipe.lock().calls.remove(&self.id);
    }
}

impl Drop for PipeLeg {
    fn drop(&mut self) {
        // One that was answered, and went on as a task, has ended now. Others have not.
        if !self.pipe.lock().calls.contains_key(&self.id) {
            self.pipe.dialogue.end_badly(self.id);
        }
    }
}

#[cfg(test)]
#[path = "pipe_tests.rs"]
mod tests;
