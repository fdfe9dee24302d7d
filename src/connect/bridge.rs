//! The client's side: its lines, its requests in flight, and what becomes of each.
//!
//! A request has a task of its own, so that none waits for another. What has no answer is sent in
//! turn, so that `initialized` comes before the requests that need it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    CANCELLED_PATIENCE, DEPTH_MAX, Ear, Options, Pause, TELL_PATIENCE,
    caller::{Caller, Marks},
    failure::Failure,
    memory::Memory,
    sessions::{Phase, Session, Way},
    streamable,
};
use crate::{
    egress::Egress,
    wire::{
        Fault, Frame, Kind,
        lines::{Line, Lines},
    },
};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// Sessions that one request may see forgotten before it is given up.
const RENEWALS_MAX: usize = 3;

pub struct Bridge {
    pub(super) options: Options,
    pub(super) caller: Arc<Caller>,
    pub(super) uri: http::Uri,
    pub(super) way: Mutex<Way>,
    pub(super) phase: watch::Sender<Phase>,
    /// One handshake at a time.
    pub(super) shaking: tokio::sync::Mutex<()>,
    pub(super) memory: Arc<Mutex<Memory>>,
    pub(super) out: mpsc::Sender<Bytes>,
    /// The client's requests, by id, with what cancels them.
    in_flight: Mutex<HashMap<Bytes, CancellationToken>>,
    requests: TaskTracker,
    /// What lives as long as a session.
    pub(super) keepers: TaskTracker,
    pub(super) ending: CancellationToken,
    /// Cancelled when no session can ever be begun.
    pub hopeless: CancellationToken,
    why_hopeless: OnceLock<Failure>,
}

impl Bridge {
    pub fn new(
        options: Options,
        egress: &Egress,
        out: mpsc::Sender<Bytes>,
    ) -> Result<Arc<Self>, Failure> {
        let uri = options.url.as_str().parse();
        let uri = uri.map_err(|error| Failure::bad(format!("the URL cannot be used: {error}")))?;
        let caller = Caller {
            door: egress.steady(),
            headers: options.headers.clone(),
            message_max: options.message_max,
        };
        let way = if options.sse { Way::EventStream } else { Way::Unknown };
        Ok(Arc::new(Self {
            caller: Arc::new(caller),
            uri,
            way: Mutex::new(way),
            phase: watch::Sender::new(Phase::Unmade),
            shaking: tokio::sync::Mutex::default(),
            memory: Arc::default(),
            out,
            in_flight: Mutex::default(),
            requests: TaskTracker::new(),
            keepers: TaskTracker::new(),
            ending: CancellationToken::new(),
            hopeless: CancellationToken::new(),
            why_hopeless: OnceLock::new(),
            options,
        }))
    }

    /// Hears the client until it closes our input.
    pub async fn listen<R: AsyncRead + Unpin>(self: &Arc<Self>, mut stdin: R) {
        let mut lines = Lines::new(self.options.message_max);
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            match stdin.read_buf(&mut chunk).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "stdin cannot be read");
                    return;
                }
            }
            for line in lines.push(chunk.freeze()) {
                match line {
                    Line::Whole(line) => self.hear(line).await,
                    Line::Long(line) => self.hear(line.whole()).await,
                    Line::TooLong(torn) => {
                        let (bytes, max) = (torn.bytes, self.options.message_max);
                        let why =
                            format!("the message has {bytes} bytes, and at most {max} may pass");
                        self.say(Fault::invalid_request(why).to_bytes(None)).await;
                    }
                }
            }
        }
    }

    /// Lets what is in flight end, for a while.
    pub async fn finish(&self) {
        self.requests.close();
        if timeout(self.options.linger, self.requests.wait()).await.is_err() {
            tracing::warn!(
                left = self.requests.len(),
                "requests had no answer when the client left"
            );
        }
    }

    /// Ends everything: tasks, streams, and the session at the endpoint.
    pub async fn end(&self) {
        self.ending.cancel();
        self.end_session().await;
        for tasks in [&self.requests, &self.keepers] {
            tasks.close();
            tasks.wait().await;
        }
        self.phase.send_replace(Phase::Unmade);
    }

    pub fn why_hopeless(&self) -> Option<Failure> {
        self.why_hopeless.get().cloned()
    }

    async fn hear(self: &Arc<Self>, line: Bytes) {
        let frame = match Frame::parse(line, DEPTH_MAX) {
            Ok(frame) => frame,
            Err(bad) => {
                let id = match &bad {
                    crate::wire::Bad::Invalid { id, .. } => id.clone(),
                    crate::wire::Bad::Json(_) | crate::wire::Bad::Unanswerable => None,
                };
                return self.say(Fault::from(&bad).to_bytes(id.as_deref())).await;
            }
        };
        let method = frame.method().unwrap_or_default().into_owned();
        match frame.kind() {
            Kind::Request => self.take_up(frame, method == "initialize").await,
            Kind::Notification => {
                if method == "notifications/cancelled" {
                    self.cancel(&frame);
                }
                self.tell(frame, method == "notifications/initialized").await;
            }
            Kind::Result | Kind::Error => self.pass_answer(frame).await,
        }
    }

    /// Gives a request a task of its own.
    async fn take_up(self: &Arc<Self>, frame: Frame, is_initialize: bool) {
        let id = Bytes::copy_from_slice(frame.id().unwrap_or(b"null"));
        let cancelled = CancellationToken::new();
        let refused = {
            let mut in_flight = self.in_flight();
            let max = self.options.in_flight_max;
            if in_flight.contains_key(&id) {
                Some(Fault::invalid_request("a request with this id has no answer yet"))
            } else if in_flight.len() >= max {
                Some(Failure::Busy { max }.fault())
            } else {
                in_flight.insert(id.clone(), cancelled.clone());
                None
            }
        };
        if let Some(fault) = refused {
            return self.say(fault.to_bytes(Some(&id))).await;
        }
        if is_initialize {
            // Before the next line is read: what comes after a handshake waits for its end.
            self.begin_anew();
        }
        let bridge = self.clone();
        self.requests.spawn(async move {
            let outcome = async {
                match is_initialize {
                    true => bridge.begin(&frame).await,
                    false => bridge.deliver(&frame, &cancelled).await,
                }
            };
            let outcome = tokio::select! {
                outcome = outcome => Some(outcome),
                () = bridge.ending.cancelled() => None,
                () = given_up(&cancelled) => None,
            };
            bridge.in_flight().remove(&id);
            match outcome {
                Some(Ok(answer)) => bridge.say(answer).await,
                // A cancelled request has no answer (basic/utilities/cancellation).
                Some(Err(_)) if cancelled.is_cancelled() => {}
                Some(Err(failure)) => {
                    tracing::warn!("{failure}");
                    let answer = match &failure {
                        Failure::Refused(answer) => answer.clone(),
                        failure => failure.fault().to_bytes(Some(&id)),
                    };
                    bridge.say(answer).await;
                    if is_initialize && failure.is_final() {
                        drop(bridge.why_hopeless.set(failure));
                        bridge.hopeless.cancel();
                    }
                }
                // A handshake that was given up must not be waited for.
                None if is_initialize => drop(bridge.leave(Phase::Unmade)),
                None => {}
            }
        });
    }

    /// Brings a request to the endpoint, waiting for one that is away, and answers its outcome.
    async fn deliver(
        self: &Arc<Self>,
        frame: &Frame,
        cancelled: &CancellationToken,
    ) -> Result<Bytes, Failure> {
        let deadline = Instant::now() + self.options.away_max;
        let (mut pause, mut renewals) = (Pause::default(), 0);
        loop {
            let session = self.session(deadline).await?;
            if cancelled.is_cancelled() {
                return Err(Failure::NotSent { why: "it was cancelled before".into() });
            }
            let failure = match self.exchange(session.as_ref(), frame).await {
                Ok(answer) => return Ok(answer.bytes().clone()),
                Err(failure) => failure,
            };
            match (&failure, session) {
                (Failure::SessionGone, Some(session)) if renewals < RENEWALS_MAX => {
                    renewals += 1;
                    self.renew(session.generation, deadline).await?;
                }
                _ if failure.is_unexecuted() && pause.fits(deadline) => pause.rest().await,
                _ => return Err(failure),
            }
        }
    }

    async fn exchange(
        &self,
        session: Option<&Arc<Session>>,
        frame: &Frame,
    ) -> Result<Frame, Failure> {
        match session {
            Some(session) => session.exchange(self, frame).await,
            // A client may ask something before it shakes hands; the endpoint knows what it may.
            None if *self.way() == Way::EventStream => {
                Err(Failure::bad("this transport begins with `initialize`"))
            }
            None => {
                let marks = Marks::default();
                let (caller, ear) = (&self.caller, self.ear(0));
                let answer = streamable::exchange(caller, &self.uri, &marks, frame, &ear).await?;
                Ok(answer.frame)
            }
        }
    }

    async fn tell(self: &Arc<Self>, frame: Frame, is_initialized: bool) {
        let Ok(session) = self.session(Instant::now() + TELL_PATIENCE).await else { return };
        let Some(session) = session else { return };
        if let Err(failure) = session.tell(self, frame.bytes().clone()).await {
            tracing::debug!(%failure, "a notification did not reach the endpoint");
        }
        if is_initialized {
            session.introduced.cancel();
        }
    }

    async fn pass_answer(&self, frame: Frame) {
        let Phase::Open(session) = self.phase.borrow().clone() else { return };
        if !self.memory().take_answer(&frame, session.generation) {
            tracing::debug!("an answer to nothing that was asked in this session");
            return;
        }
        if let Err(failure) = session.tell(self, frame.bytes().clone()).await {
            tracing::debug!(%failure, "an answer did not reach the endpoint");
        }
    }

    fn cancel(&self, frame: &Frame) {
        if let Some(token) = frame.request_id().and_then(|id| self.in_flight().get(id).cloned()) {
            token.cancel();
        }
    }

    /// Hands a message to the client, as soon as it reads; a client that never does holds nobody up
    /// at the end.
    pub(super) async fn say(&self, message: Bytes) {
        tokio::select! {
            biased;
            said = self.out.send(message) => {
                if said.is_err() {
                    tracing::trace!("the client is gone");
                }
            }
            () = self.ending.cancelled() => tracing::debug!("the client did not read an answer"),
        }
    }

    pub(super) fn ear(&self, generation: u64) -> Ear {
        Ear { out: self.out.clone(), memory: self.memory.clone(), generation }
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_flight(&self) -> MutexGuard<'_, HashMap<Bytes, CancellationToken>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a while after a request was cancelled: its server may never say a word about it.
async fn given_up(cancelled: &CancellationToken) {
    cancelled.cancelled().await;
    sleep(CANCELLED_PATIENCE).await;
}
