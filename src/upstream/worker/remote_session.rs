//! One session of a remote upstream: opened at its first use, by one of those who want it at a
//! time, and opened again when the upstream has forgotten it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::time::{Instant, timeout};

use super::remote::{PROTOCOL_VERSION, Remote, SESSION_ID};
use crate::{
    egress::{Body, EgressError},
    upstream::{
        Exit, Reason,
        exchange::own_id,
        handshake::{self, Introduction, excerpt},
    },
    wire::{Frame, message, sse},
};

/// How long an upstream may take to be told that a session has ended.
pub const DELETE_PATIENCE: Duration = Duration::from_secs(2);

/// A place for a session.
pub struct RemoteSession {
    established: ArcSwapOption<Established>,
    opening: tokio::sync::Mutex<()>,
    used: Mutex<Instant>,
    /// Whether its client has gone. What is still being opened for it is given back at once.
    is_over: AtomicBool,
}

/// A session as the upstream gave it.
pub struct Established {
    pub introduction: Introduction,
    id: Option<HeaderValue>,
}

impl Established {
    pub fn has_id(&self) -> bool {
        self.id.is_some()
    }

    /// Puts the session's id and version on a request (transports, 2025-06-18).
    pub fn mark(&self, headers: &mut HeaderMap) {
        if let Some(id) = &self.id {
            headers.insert(SESSION_ID, id.clone());
        }
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(self.introduction.version));
    }
}

impl Default for RemoteSession {
    fn default() -> Self {
        Self {
            established: ArcSwapOption::empty(),
            opening: tokio::sync::Mutex::default(),
            used: Mutex::new(Instant::now()),
            is_over: AtomicBool::new(false),
        }
    }
}

impl RemoteSession {
    pub fn established(&self) -> Option<Arc<Established>> {
        self.established.load_full()
    }

    pub fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub fn is_idle(&self, idle: Duration) -> bool {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > idle
    }

    /// The session, opened if it has to be. `stale` is the one that the upstream has forgotten; of
    /// many who found that out, one opens the new session and the others take it.
    ///
    /// It is opened by a task of its own: whoever asked may go at any time, and a session that the
    /// upstream has given must not be lost to us, or nobody would give it back.
    pub async fn open(
        self: &Arc<Self>,
        remote: &Arc<Remote>,
        stale: Option<&Arc<Established>>,
    ) -> Result<Arc<Established>, Exit> {
        let (session, stale, server) = (self.clone(), stale.cloned(), remote.clone());
        let opening = async move { session.open_now(&server, stale.as_ref()).await };
        let opened = actix::spawn(remote.tasks.track_future(opening)).await;
        opened.unwrap_or_else(|error| {
            Err(Exit::new(Reason::Panicked, format!("the session was not opened: {error}")))
        })
    }

    async fn open_now(
        &self,
        remote: &Arc<Remote>,
        stale: Option<&Arc<Established>>,
    ) -> Result<Arc<Established>, Exit> {
        let _one_at_a_time = self.opening.lock().await;
        if let Some(current) = self.established() {
            let is_stale = stale.is_some_and(|stale| Arc::ptr_eq(stale, &current));
            if !is_stale {
                return Ok(current);
            }
        }
        let initialized = timeout(remote.opening_patience, initialize(remote)).await;
        let established = Arc::new(
            initialized.unwrap_or_else(|_elapsed| Err(Exit::of(Reason::HandshakeTimeout)))?,
        );
        let initialized = message::notification("notifications/initialized", b"");
        remote.tell(Some(&established), initialized).await;
        self.established.store(Some(established.clone()));
        if self.is_over.load(Ordering::SeqCst) || remote.is_closed() {
            self.end(remote).await;
            return Err(Exit::of(Reason::Asked));
        }
        Ok(established)
    }

    /// Tells the upstream that the session has ended. One that does not care answers 405.
    pub async fn end(&self, remote: &Remote) {
        self.is_over.store(true, Ordering::SeqCst);
        let Some(established) = self.established.swap(None).filter(|one| one.has_id()) else {
            return;
        };
        let deletion = remote.send(Method::DELETE, "*/*", Some(&established), Bytes::new(), false);
        if timeout(DELETE_PATIENCE, deletion).await.is_err() {
            tracing::debug!(server = %remote.server, "the upstream took no notice of a DELETE");
        }
    }
}

async fn initialize(remote: &Arc<Remote>) -> Result<Established, Exit> {
    let id = remote.next_id();
    let message = message::request(id, "initialize", &handshake::initialize_params());
    let accept = "application/json, text/event-stream";
    let response = remote
        .exchange(Method::POST, accept, None, message, false)
        .await
        .map_err(|error| Exit::new(connect_reason(&error), error.to_string()))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let detail = "the upstream wants another credential: see `bearer_token` and `headers`";
            return Err(Exit::new(Reason::Unauthorized, detail));
        }
        status => {
            let location = response.headers().get(header::LOCATION);
            let detail = match location.and_then(|location| location.to_str().ok()) {
                Some(location) => {
                    format!(
                        "HTTP status {status}; it sends us to {}, which is not followed",
                        excerpt(location.as_bytes())
                    )
                }
                None => format!("HTTP status {status} to `initialize`"),
            };
            return Err(Exit::new(Reason::HttpStatus, detail));
        }
    }
    let session_id = response.headers().get(SESSION_ID).cloned();
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/event-stream"));
    let answer = if is_stream {
        first_reply(remote, response.into_body(), id).await?
    } else {
        let body = response.into_body().collect(remote.frames().message_max).await;
        let body = body.map_err(|error| Exit::new(Reason::HandshakeFailed, error.to_string()))?;
        Frame::parse(body, remote.frames().depth_max)
            .map_err(|error| Exit::new(Reason::HandshakeFailed, error.to_string()))?
    };
    let introduction = handshake::introduction(&answer)?;
    Ok(Established { introduction, id: session_id })
}

/// The answer with this id out of a stream of events.
async fn first_reply(remote: &Remote, mut body: Body, id: u64) -> Result<Frame, Exit> {
    let failed = |why: String| Exit::new(Reason::HandshakeFailed, why);
    let frames = remote.frames();
    let mut reader = sse::Reader::new(frames.message_max);
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.map_err(|error| failed(error.to_string()))?;
        for event in reader.push(&chunk).map_err(|error| failed(error.to_string()))? {
            match Frame::parse(event.data, frames.depth_max) {
                Ok(frame) if own_id(frame.id()) == Some(id) => return Ok(frame),
                Ok(_) | Err(_) => {}
            }
        }
    }
    Err(failed("the stream ended without an answer to `initialize`".into()))
}

fn connect_reason(error: &EgressError) -> Reason {
    match error {
        EgressError::Refused { .. } => Reason::AddressRefused,
        EgressError::NotHttp { .. } | EgressError::NoHost | EgressError::Unsendable { .. } => {
            Reason::ConfigInvalid
        }
        EgressError::ConnectTimeout => Reason::ConnectTimeout,
        EgressError::Tls { .. } => Reason::TlsFailed,
        EgressError::Resolve { .. }
        | EgressError::ConnectRefused
        | EgressError::Connect { .. }
        | EgressError::Setup { .. } => Reason::ConnectFailed,
        EgressError::Broken { .. } | EgressError::TooLarge { .. } => Reason::HandshakeFailed,
    }
}
