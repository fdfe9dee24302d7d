//! Sessions at the endpoint: how one is begun, kept, begun anew when it is forgotten, and ended.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::HeaderValue;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    DEPTH_MAX, HANDSHAKE_PATIENCE, Pause,
    bridge::Bridge,
    caller::{Marks, SESSION_ID},
    event_stream::EventStream,
    failure::Failure,
    memory, streamable,
};
use crate::wire::{Frame, Kind, message};

/// How the endpoint is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Streamable HTTP, and HTTP+SSE where the server does not know it.
    Unknown,
    Streamable,
    EventStream,
}

/// How far the conversation is.
#[derive(Clone)]
pub enum Phase {
    Unmade,
    /// The client's own handshake is under way.
    Opening,
    Open(Arc<Session>),
}

/// One session at the endpoint.
pub struct Session {
    /// Counts sessions, so that nobody takes an old one for the present one.
    pub generation: u64,
    channel: Channel,
    /// Cancelled when the server was told `initialized`.
    pub introduced: CancellationToken,
    /// Cancelled when another session has taken its place.
    replaced: CancellationToken,
}

enum Channel {
    Streamable(Marks),
    EventStream(Arc<EventStream>),
}

static GENERATIONS: AtomicU64 = AtomicU64::new(1);

impl Session {
    pub async fn exchange(&self, bridge: &Bridge, frame: &Frame) -> Result<Frame, Failure> {
        match &self.channel {
            Channel::Streamable(marks) => {
                let ear = bridge.ear(self.generation);
                let (caller, uri) = (&bridge.caller, &bridge.uri);
                let answer = streamable::exchange(caller, uri, marks, frame, &ear).await?;
                Ok(answer.frame)
            }
            Channel::EventStream(stream) => stream.exchange(&bridge.caller, frame).await,
        }
    }

    pub async fn tell(&self, bridge: &Bridge, message: Bytes) -> Result<(), Failure> {
        match &self.channel {
            Channel::Streamable(marks) => {
                streamable::tell(&bridge.caller, &bridge.uri, marks, message).await
            }
            Channel::EventStream(stream) => stream.tell(&bridge.caller, message).await,
        }
    }

    /// Tells the endpoint that the session is over.
    async fn end(&self, bridge: &Bridge) {
        match &self.channel {
            Channel::Streamable(marks) => {
                streamable::end(&bridge.caller, &bridge.uri, marks).await;
            }
            Channel::EventStream(stream) => stream.closed.cancel(),
        }
    }

    /// Comes back when the session is forgotten.
    async fn lost(&self, bridge: &Bridge) {
        match &self.channel {
            Channel::Streamable(marks) => {
                self.introduced.cancelled().await;
                let ear = bridge.ear(self.generation);
                streamable::listen(&bridge.caller, &bridge.uri, marks, &ear).await;
            }
            Channel::EventStream(stream) => stream.closed.cancelled().await,
        }
    }
}

impl Bridge {
    /// The session there is, or `None` where the client has begun none. Waits for a handshake that
    /// is under way.
    pub(super) async fn session(&self, deadline: Instant) -> Result<Option<Arc<Session>>, Failure> {
        let mut phase = self.phase.subscribe();
        let settled = phase.wait_for(|phase| !matches!(phase, Phase::Opening));
        match timeout_at(deadline, settled).await {
            Ok(Ok(phase)) => Ok(match &*phase {
                Phase::Open(session) => Some(session.clone()),
                Phase::Unmade | Phase::Opening => None,
            }),
            Ok(Err(_)) | Err(_) => {
                Err(Failure::NotSent { why: "the handshake is not over yet".into() })
            }
        }
    }

    /// The client's own handshake; its answer as it came.
    pub(super) async fn begin(self: &Arc<Self>, hello: &Frame) -> Result<Bytes, Failure> {
        let _turn = self.shaking.lock().await;
        self.memory().note_hello(hello);
        let deadline = Instant::now() + self.options.away_max;
        match self.shake(hello, deadline).await {
            Ok((session, answer)) => {
                self.publish(session);
                Ok(answer.bytes().clone())
            }
            Err(failure) => {
                drop(self.leave(Phase::Unmade));
                Err(failure)
            }
        }
    }

    /// A session in the place of the one that was forgotten, unless another has been begun already.
    /// It is begun with the client's own words, and the client hears what it may have missed.
    pub(super) async fn renew(
        self: &Arc<Self>,
        forgotten: u64,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let _turn = timeout_at(deadline, self.shaking.lock())
            .await
            .map_err(|_elapsed| Failure::NotSent { why: "it did not come back in time".into() })?;
        match &*self.phase.borrow() {
            Phase::Open(session) if session.generation == forgotten => {}
            _ => return Ok(()),
        }
        let hello = self.memory().hello_again();
        let hello = hello.and_then(|hello| Frame::parse(hello, DEPTH_MAX).ok());
        let Some(hello) = hello else { return Err(Failure::SessionGone) };
        let shaken = self.shake(&hello, deadline).await;
        let (session, _) = shaken.map_err(|failure| match failure {
            // The message is for a request that nobody made.
            Failure::Refused(_) => Failure::SessionGone,
            failure => failure,
        })?;
        let initialized = message::notification("notifications/initialized", b"");
        if let Err(failure) = session.tell(self, initialized).await {
            tracing::debug!(%failure, "the endpoint was not told that the handshake is over");
        }
        session.introduced.cancel();
        tracing::info!("the endpoint had forgotten the session; a new one is begun");
        self.publish(session);
        let announcements = self.memory().announcements();
        for announcement in announcements {
            self.say(announcement).await;
        }
        Ok(())
    }

    /// Shakes hands, and tries again while the endpoint is away.
    async fn shake(
        &self,
        hello: &Frame,
        deadline: Instant,
    ) -> Result<(Arc<Session>, Frame), Failure> {
        let mut pause = Pause::default();
        loop {
            let opened = timeout(HANDSHAKE_PATIENCE, self.open(hello)).await;
            let opened = opened.unwrap_or_else(|_elapsed| {
                Err(Failure::Broken { why: "it did not answer `initialize` in time".into() })
            });
            match opened {
                Err(failure) if failure.is_passing() && pause.fits(deadline) => {
                    tracing::debug!(%failure, "the handshake is tried again");
                    pause.rest().await;
                }
                done => return done,
            }
        }
    }

    /// One attempt. A server that does not know Streamable HTTP is asked for the older transport, and
    /// when it does not know that either, the first refusal is the one that counts.
    async fn open(&self, hello: &Frame) -> Result<(Arc<Session>, Frame), Failure> {
        let way = *self.way();
        let opened = match way {
            Way::EventStream => self.open_event_stream(hello).await,
            Way::Unknown | Way::Streamable => self.open_streamable(hello).await,
        };
        match opened {
            Err(failure) if way == Way::Unknown && failure.asks_for_sse() => {
                let opened = self.open_event_stream(hello).await.map_err(|second| {
                    tracing::debug!(%second, "nor is there an older transport");
                    failure
                })?;
                *self.way() = Way::EventStream;
                Ok(opened)
            }
            Ok(opened) => {
                if way == Way::Unknown {
                    *self.way() = Way::Streamable;
                }
                Ok(opened)
            }
            refused => refused,
        }
    }

    async fn open_streamable(&self, hello: &Frame) -> Result<(Arc<Session>, Frame), Failure> {
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        let (caller, ear, marks) = (&self.caller, self.ear(generation), Marks::default());
        let answer = streamable::exchange(caller, &self.uri, &marks, hello, &ear).await?;
        let version = self.judge(&answer.frame)?;
        let marks = Marks {
            session: answer.headers.get(SESSION_ID).cloned(),
            version: HeaderValue::from_str(&version).ok(),
            last_event: None,
        };
        Ok((session_of(generation, Channel::Streamable(marks)), answer.frame))
    }

    async fn open_event_stream(&self, hello: &Frame) -> Result<(Arc<Session>, Frame), Failure> {
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        let (ear, url, keepers) = (self.ear(generation), &self.options.url, &self.keepers);
        let stream =
            EventStream::open(&self.caller, url, &self.uri, ear, keepers, &self.ending).await?;
        // No stream stays behind a handshake that fails, or is given up.
        let unless_open = stream.closed.clone().drop_guard();
        let answer = stream.exchange(&self.caller, hello).await?;
        self.judge(&answer)?;
        unless_open.disarm();
        Ok((session_of(generation, Channel::EventStream(stream)), answer))
    }

    /// The revision that was agreed on.
    fn judge(&self, answer: &Frame) -> Result<String, Failure> {
        if answer.kind() == Kind::Error {
            return Err(Failure::Refused(answer.bytes().clone()));
        }
        let version = memory::version_of(answer);
        let version = version.ok_or_else(|| Failure::bad("it agrees on no protocol version"))?;
        self.memory().note_answer(answer);
        Ok(version)
    }

    /// Goes on to another phase. A session that was open is kept no longer.
    pub(super) fn leave(&self, next: Phase) -> Option<Arc<Session>> {
        let Phase::Open(before) = self.phase.send_replace(next) else { return None };
        before.replaced.cancel();
        Some(before)
    }

    /// Waits for the client's own handshake. One that comes in the middle ends the session there was.
    pub(super) fn begin_anew(self: &Arc<Self>) {
        if let Some(before) = self.leave(Phase::Opening) {
            let bridge = self.clone();
            self.keepers.spawn(async move { before.end(&bridge).await });
        }
    }

    /// Makes a session the present one, and keeps it.
    fn publish(self: &Arc<Self>, session: Arc<Session>) {
        drop(self.leave(Phase::Open(session.clone())));
        let bridge = self.clone();
        self.keepers.spawn(async move {
            tokio::select! {
                () = bridge.ending.cancelled() => {}
                () = bridge.keep(&session) => {}
            }
        });
    }

    /// Waits until the session is forgotten, and then for as long as it takes to have another: a
    /// client that only listens shall hear that something has changed.
    async fn keep(self: &Arc<Self>, session: &Session) {
        tokio::select! {
            () = session.replaced.cancelled() => return,
            () = session.lost(self) => {}
        }
        let (mut pause, mut until_mended) = (Pause::default(), Pause::patient());
        let mut told = None;
        while let Err(failure) =
            self.renew(session.generation, Instant::now() + self.options.away_max).await
        {
            // A request of the client's asks anew whenever it comes, so that this may take its time.
            let rest = match failure.is_final() {
                true => until_mended.rest(),
                false => pause.rest(),
            };
            if told.as_ref() != Some(&failure) {
                tracing::warn!("no new session yet: {failure}");
                told = Some(failure);
            }
            tokio::select! {
                () = session.replaced.cancelled() => return,
                () = rest => {}
            }
        }
    }

    /// Tells the endpoint that the session is over.
    pub(super) async fn end_session(&self) {
        let phase = self.phase.borrow().clone();
        if let Phase::Open(session) = phase {
            session.end(self).await;
        }
    }
}

fn session_of(generation: u64, channel: Channel) -> Arc<Session> {
    let (introduced, replaced) = (CancellationToken::new(), CancellationToken::new());
    Arc::new(Session { generation, channel, introduced, replaced })
}
