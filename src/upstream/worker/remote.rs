//! A remote upstream as calls see it: a URL to POST to, and a session for each who has one.
//!
//! A call goes through it by `remote_call`; what is meant for the gateway itself is handed to the
//! worker.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use tokio::{
    sync::{Notify, Semaphore, SetOnce},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{
    FrameLimits,
    remote_session::{Established, RemoteSession},
    remote_stream::ResumeOptions,
};
use crate::{
    egress::{Body, Door, Egress, EgressError},
    upstream::{
        CallError, Exit, Reason,
        exchange::{SessionKey, answer_to},
        handshake::Introduction,
    },
    wire::Frame,
};

pub const SESSION_ID: &str = "mcp-session-id";
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
const LAST_EVENT_ID: &str = "last-event-id";

/// Both forms of an answer, as the transport asks for (2025-03-26).
pub const ACCEPT_BOTH: &str = "application/json, text/event-stream";

/// How long an upstream may take to receive what needs no answer.
const TELL_PATIENCE: Duration = Duration::from_secs(5);

/// Answers to an upstream's own requests that may be on their way at once.
const ANSWERS_MAX: usize = 16;

/// The shared part of one connection to a remote upstream.
pub struct Remote {
    pub server: Arc<str>,
    url: http::Uri,
    /// What is sent with every request: configured headers and the bearer token.
    headers: HeaderMap,
    egress: Egress,
    steady: Door,
    frames: FrameLimits,
    next_id: AtomicU64,
    sessions: Mutex<HashMap<SessionKey, Arc<RemoteSession>>>,
    sessions_max: usize,
    /// How long an upstream may take to open a session.
    pub opening_patience: Duration,
    pub resume_options: ResumeOptions,
    answers: Arc<Semaphore>,
    /// What is done for this connection outside of any call.
    pub tasks: TaskTracker,
    /// Why no more calls are taken; set once, when the worker ends.
    closed: SetOnce<CallError>,
    pub signals: Signals,
}

/// What calls notice on their way, for the worker to act on.
#[derive(Default)]
pub struct Signals {
    /// The upstream says that its tools have changed.
    pub changed: Notify,
    /// It could not be reached, or broke off.
    pub suspect: Notify,
    /// It refused our credential.
    pub unauthorized: Notify,
    /// Whether it would say that its tools have changed, and we would hear it.
    pub announces: AtomicBool,
}

thread_local! {
    /// Each server thread has connections of its own, so a call never changes its thread.
    static HOT: RefCell<Option<Door>> = const { RefCell::new(None) };
}

impl Remote {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one fact of the upstream's row or settings"
    )]
    pub fn new(
        server: Arc<str>,
        url: http::Uri,
        headers: HeaderMap,
        egress: Egress,
        frames: FrameLimits,
        sessions_max: usize,
        opening_patience: Duration,
        resume_options: ResumeOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            server,
            url,
            headers,
            steady: egress.steady(),
            egress,
            frames,
            next_id: AtomicU64::new(1),
            sessions: Mutex::default(),
            sessions_max,
            opening_patience,
            resume_options,
            answers: Arc::new(Semaphore::new(ANSWERS_MAX)),
            tasks: TaskTracker::new(),
            closed: SetOnce::new(),
            signals: Signals::default(),
        })
    }

    /// Opens the gateway's own session, and tells what the server said of itself.
    pub async fn introduce(self: &Arc<Self>) -> Result<Introduction, Exit> {
        let session = self
            .session(&SessionKey::Shared)
            .map_err(|error| Exit::new(Reason::HandshakeFailed, error.to_string()))?;
        let introduction = session.open(self, None).await?.introduction.clone();
        self.signals.announces.store(introduction.announces, Ordering::Relaxed);
        Ok(introduction)
    }

    /// Ends every call with the reason of `exit`, and takes no more.
    pub fn close(&self, exit: &Exit) {
        let (server, detail) = (self.server.clone(), exit.detail.clone());
        let why = CallError::Ended { server, reason: exit.reason, detail };
        if self.closed.set(why).is_err() {
            tracing::trace!(server = %self.server, "the connection had been closed already");
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed.initialized()
    }

    /// Waits until no more calls are taken, and says why.
    pub async fn closed(&self) -> CallError {
        self.closed.wait().await.clone()
    }

    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Ends the session that was opened for one client.
    pub fn forget(self: &Arc<Self>, key: &SessionKey) {
        let session = self.lock().remove(key);
        if let Some(session) = session {
            self.end_later(session);
        }
    }

    /// Ends the sessions of clients that nobody has used for so long and no call is with.
    pub fn forget_idle(self: &Arc<Self>, idle: Duration) {
        let idle_ones: Vec<_> = {
            let mut sessions = self.lock();
            let unused = |key: &SessionKey, session: &mut Arc<RemoteSession>| {
                let is_free = Arc::strong_count(session) == 1 && session.is_idle(idle);
                *key != SessionKey::Shared && is_free
            };
            sessions.extract_if(unused).map(|(_, session)| session).collect()
        };
        idle_ones.into_iter().for_each(|session| self.end_later(session));
    }

    fn end_later(self: &Arc<Self>, session: Arc<RemoteSession>) {
        let remote = self.clone();
        actix::spawn(self.tasks.track_future(async move { session.end(&remote).await }));
    }

    /// Every session there is.
    pub fn sessions(&self) -> Vec<Arc<RemoteSession>> {
        self.lock().values().cloned().collect()
    }

    /// The session of this key. It costs nothing before its first call.
    pub fn session(&self, key: &SessionKey) -> Result<Arc<RemoteSession>, CallError> {
        let mut sessions = self.lock();
        if let Some(session) = sessions.get(key) {
            return Ok(session.clone());
        }
        if sessions.len() >= self.sessions_max {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "upstream.sessions_max")
                .increment(1);
            return Err(CallError::Busy { server: self.server.clone() });
        }
        let session = Arc::new(RemoteSession::default());
        sessions.insert(key.clone(), session.clone());
        Ok(session)
    }

    /// Sends one request. `hot` takes this thread's own connections.
    pub async fn send(
        &self,
        method: Method,
        accept: &'static str,
        established: Option<&Established>,
        body: Bytes,
        hot: bool,
    ) -> Result<http::Response<Body>, CallError> {
        let sent = self.exchange(method, accept, established, body, hot).await;
        sent.map_err(|error| self.send_error(error))
    }

    /// The same, with the cause of a failure as egress has it.
    pub async fn exchange(
        &self,
        method: Method,
        accept: &'static str,
        established: Option<&Established>,
        body: Bytes,
        hot: bool,
    ) -> Result<http::Response<Body>, EgressError> {
        let request = self.request(method, accept, established, body);
        self.pass(request, hot).await
    }

    /// Asks for what a stream that broke off would still have said after this event (transports,
    /// "Resumability and Redelivery").
    pub async fn resume(
        &self,
        established: Option<&Established>,
        last_event: HeaderValue,
    ) -> Result<http::Response<Body>, EgressError> {
        let mut request = self.request(Method::GET, "text/event-stream", established, Bytes::new());
        request.headers_mut().insert(LAST_EVENT_ID, last_event);
        self.pass(request, true).await
    }

    fn request(
        &self,
        method: Method,
        accept: &'static str,
        established: Option<&Established>,
        body: Bytes,
    ) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        if let Some(established) = established {
            established.mark(headers);
        }
        request
    }

    async fn pass(
        &self,
        request: Request<Bytes>,
        hot: bool,
    ) -> Result<http::Response<Body>, EgressError> {
        let door = if hot { self.hot() } else { self.steady.clone() };
        let sent = door.send(request).await;
        if sent.is_err() {
            self.signals.suspect.notify_one();
        }
        sent
    }

    fn send_error(&self, error: EgressError) -> CallError {
        let (server, detail) = (self.server.clone(), Some(error.to_string()));
        match error.not_sent() {
            true => CallError::NotSent { server, detail },
            false => CallError::Ended { server, reason: Reason::Unreachable, detail },
        }
    }

    /// Sends what needs no answer: a notification, or an answer of ours.
    pub async fn tell(&self, established: Option<&Established>, message: Bytes) {
        let sending = self.send(Method::POST, ACCEPT_BOTH, established, message, false);
        match timeout(TELL_PATIENCE, sending).await {
            Ok(Ok(_taken)) => {}
            Ok(Err(error)) => {
                tracing::debug!(server = %self.server, %error, "a message did not reach the upstream");
            }
            Err(_elapsed) => {
                tracing::debug!(server = %self.server, "the upstream took no notice of a message");
            }
        }
    }

    /// Acts on what a server says outside of any call.
    pub fn hear(self: &Arc<Self>, key: &SessionKey, frame: &Frame) {
        if let Some(answer) = answer_to(frame) {
            let Ok(turn) = self.answers.clone().try_acquire_owned() else {
                metrics::counter!("metamcpd_upstream_messages_dropped_total").increment(1);
                return;
            };
            let remote = self.clone();
            let established = self.lock().get(key).and_then(|session| session.established());
            actix::spawn(self.tasks.track_future(async move {
                remote.tell(established.as_deref(), answer).await;
                drop(turn);
            }));
        } else if frame.method().as_deref() == Some("notifications/tools/list_changed") {
            self.signals.changed.notify_one();
        }
    }

    pub fn frames(&self) -> FrameLimits {
        self.frames
    }

    fn hot(&self) -> Door {
        HOT.with_borrow_mut(|door| door.get_or_insert_with(|| self.egress.hot()).clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionKey, Arc<RemoteSession>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
