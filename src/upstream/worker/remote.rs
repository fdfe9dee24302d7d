//! A remote upstream as calls see it: a URL to POST to, and a session for each who has one.
//!
//! A call goes through it by `remote_call`; what is meant for the gateway itself is handed to the
//! worker.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use tokio::{
    sync::{Semaphore, SetOnce},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{
    FrameLimits,
    authorizing::{Authorizing, NoToken, SendError},
    belonging::Belonging,
    carry_out,
    hot_doors::HotDoors,
    opening::not_connected,
    remote_session::{Established, RemoteSession},
    signals::Signals,
    trail::ResumeOptions,
};
use crate::{
    egress::{Begun, Body, Door, Egress, EgressError},
    upstream::{
        CallError, Exit, Reason,
        dialogue::{Aside, DialogueOptions},
        exchange::SessionKey,
        handshake::Introduction,
        link::bridged,
        question::Say,
        status::StateWord,
    },
    wire::{Frame, capabilities::ClientCapabilities, message},
};

pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Both forms of an answer, as the transport asks for (2025-03-26).
pub const ACCEPT_BOTH: &str = "application/json, text/event-stream";

/// How long an upstream may take to receive what needs no answer.
pub const TELL_PATIENCE: Duration = Duration::from_secs(5);

/// Answers to an upstream's own requests that may be on their way at once.
const ANSWERS_MAX: usize = 16;

/// Answers to what was asked of clients that may be on their way at once. Clients are never asked so much;
/// but an upstream can be refused faster than it takes the refusals.
const REPLIES_MAX: usize = 1024;

/// The two transports that are spoken over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// 2025-03-26 and later: each POST is answered by itself.
    StreamableHttp,
    /// HTTP+SSE, 2024-11-05: what is POSTed is answered on one stream.
    Sse,
}

impl Speech {
    pub fn other(self) -> Self {
        match self {
            Self::StreamableHttp => Self::Sse,
            Self::Sse => Self::StreamableHttp,
        }
    }

    /// The word that a row's `type` has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StreamableHttp => "STREAMABLE_HTTP",
            Self::Sse => "SSE",
        }
    }
}

/// Where a remote upstream is, and what is sent to it with every request.
pub struct Address {
    pub url: url::Url,
    pub uri: Uri,
    /// Configured headers and the bearer token.
    pub headers: HeaderMap,
    /// How requests come by the token of an OAuth session, if there is one.
    pub authorizing: Option<Authorizing>,
    /// What the row says that it speaks.
    pub speech: Speech,
}

/// What one connection may take, of the settings and of the row.
pub struct RemoteLimits {
    pub frames: FrameLimits,
    pub sessions_max: usize,
    pub queue_max: usize,
    pub dialogue: DialogueOptions,
    /// How long an upstream may take to open a session.
    pub opening_patience: Duration,
    /// How long an HTTP+SSE server may take to say where messages go.
    pub endpoint_wait: Duration,
    pub resume: ResumeOptions,
}

/// The shared part of one connection to a remote upstream.
pub struct Remote {
    pub server: Arc<str>,
    pub address: Address,
    pub limits: RemoteLimits,
    pub belonging: Belonging,
    /// What it turned out to speak.
    speaks: OnceLock<Speech>,
    hot: HotDoors,
    steady: Door,
    next_id: AtomicU64,
    sessions: Mutex<HashMap<SessionKey, Arc<RemoteSession>>>,
    answers: Arc<Semaphore>,
    replies: Arc<Semaphore>,
    /// What is done for this connection outside of any call.
    pub tasks: TaskTracker,
    /// Why no more calls are taken; set once, when the worker ends.
    closed: SetOnce<CallError>,
    pub signals: Signals,
}

impl Remote {
    pub fn new(
        server: Arc<str>,
        address: Address,
        limits: RemoteLimits,
        belonging: Belonging,
        egress: Egress,
    ) -> Arc<Self> {
        Arc::new(Self {
            server,
            address,
            limits,
            belonging,
            speaks: OnceLock::new(),
            steady: egress.steady(),
            hot: HotDoors::new(egress),
            next_id: AtomicU64::new(1),
            sessions: Mutex::default(),
            answers: Arc::new(Semaphore::new(ANSWERS_MAX)),
            replies: Arc::new(Semaphore::new(REPLIES_MAX)),
            tasks: TaskTracker::new(),
            closed: SetOnce::new(),
            signals: Signals::default(),
        })
    }

    /// What it has been found to speak, by the first session that was opened.
    pub fn speaks(&self) -> Option<Speech> {
        self.speaks.get().copied()
    }

    /// Remembers what it speaks, for as long as this connection lives.
    pub fn learn(&self, speech: Speech) {
        let known = *self.speaks.get_or_init(|| speech);
        debug_assert_eq!(known, speech, "only what is known is tried");
    }

    /// Opens the gateway's own session, and tells what the server said of itself.
    pub async fn introduce(self: &Arc<Self>) -> Result<Introduction, Exit> {
        let session = self
            .session(&SessionKey::Shared, bridged(self.belonging.isolation))
            .map_err(|error| Exit::new(Reason::HandshakeFailed, error.to_string()))?;
        let introduction = session.open(self, None).await?.introduction.clone();
        self.hears_announcements(Some(&introduction));
        Ok(introduction)
    }

    /// Takes note that announcements are heard of what it says so of; or of nothing.
    pub fn hears_announcements(&self, introduction: Option<&Introduction>) {
        for (kind, announces) in self.signals.announces.iter() {
            let is_heard = introduction.is_some_and(|said| said.offers[kind].announces);
            announces.store(is_heard, Ordering::Relaxed);
        }
    }

    /// Takes note of the lists that it does not say any more that it announces changes of. Whether
    /// announcements of the others are heard was found out before, and holds.
    pub fn unlearn_announcements(&self, introduction: &Introduction) {
        let silent = |kind| !introduction.offers[kind].announces;
        let announces = self.signals.announces.iter();
        announces
            .filter(|(kind, _)| silent(*kind))
            .for_each(|(_, it)| it.store(false, Ordering::Relaxed));
    }

    /// Ends every call with the reason of `exit`, and takes no more.
    pub fn close(&self, exit: &Exit) {
        let (server, detail) = (self.server.clone(), exit.detail.clone());
        let why = CallError::Ended { server, reason: exit.reason, detail };
        // The first reason counts.
        drop(self.closed.set(why));
        // Nothing that was asked of clients wants an answer any more.
        self.sessions().iter().for_each(|session| session.dialogue.close());
    }

    pub fn is_closed(&self) -> bool {
        self.closed.initialized()
    }

    /// Why no more calls are taken, if that is so.
    pub fn why_closed(&self) -> Option<CallError> {
        self.closed.get().cloned()
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
                let is_listened_to = self.belonging.expects_something(key);
                *key != SessionKey::Shared && is_free && !is_listened_to
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

    /// The session of this key, if there is one.
    pub fn known_session(&self, key: &SessionKey) -> Option<Arc<RemoteSession>> {
        self.lock().get(key).cloned()
    }

    /// The session of this key. It costs nothing before its first call. `declared` is what the
    /// upstream is told that can be asked for, where the session is new.
    pub fn session(
        &self,
        key: &SessionKey,
        declared: ClientCapabilities,
    ) -> Result<Arc<RemoteSession>, CallError> {
        let mut sessions = self.lock();
        if let Some(session) = sessions.get(key) {
            return Ok(session.clone());
        }
        if sessions.len() >= self.limits.sessions_max {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "upstream.sessions_max")
                .increment(1);
            return Err(CallError::Busy { server: self.server.clone() });
        }
        let dialogue = self.belonging.dialogue(key, self.limits.dialogue);
        let session = Arc::new(RemoteSession::new(key.clone(), declared, dialogue));
        sessions.insert(key.clone(), session.clone());
        Ok(session)
    }

    /// Sends one request.
    pub async fn send(
        &self,
        method: Method,
        accept: &'static str,
        established: Option<&Established>,
        body: Bytes,
    ) -> Result<http::Response<Body>, CallError> {
        let sent = self.exchange(method, accept, established, body, None).await;
        sent.map_err(|error| self.send_error(error))
    }

    /// POSTs a call by this thread's own connections, and notes when a byte of it may have been sent.
    pub async fn post_call(
        &self,
        established: &Established,
        message: Bytes,
        begun: &Begun,
    ) -> Result<http::Response<Body>, CallError> {
        let (method, established) = (Method::POST, Some(established));
        let sent = self.exchange(method, ACCEPT_BOTH, established, message, Some(begun)).await;
        sent.map_err(|error| self.send_error(error))
    }

    /// One request, with the cause of a failure as egress has it. What notes its beginning goes by this
    /// thread's own connections.
    pub async fn exchange(
        &self,
        method: Method,
        accept: &'static str,
        established: Option<&Established>,
        body: Bytes,
        begun: Option<&Begun>,
    ) -> Result<http::Response<Body>, SendError> {
        let place = established.and_then(Established::place).unwrap_or(&self.address.uri).clone();
        let mut request = self.request(method, place, accept, body);
        if let Some(established) = established {
            established.mark(request.headers_mut());
        }
        self.pass(request, begun).await
    }

    /// Opens a stream of a session; or asks for what one that broke off would still have said after this
    /// event (transports, "Resumability and Redelivery"). One that notes its beginning goes by this thread's
    /// own connections.
    pub async fn listen(
        &self,
        established: Option<&Established>,
        last_event: Option<HeaderValue>,
        begun: Option<&Begun>,
    ) -> Result<http::Response<Body>, SendError> {
        let place = self.address.uri.clone();
        let mut request = self.request(Method::GET, place, "text/event-stream", Bytes::new());
        if let Some(last_event) = last_event {
            request.headers_mut().insert(LAST_EVENT_ID, last_event);
        }
        if let Some(established) = established {
            established.mark(request.headers_mut());
        }
        self.pass(request, begun).await
    }

    /// Sends a request as it is.
    pub(super) async fn pass_once(
        &self,
        request: Request<Bytes>,
        begun: Option<&Begun>,
    ) -> Result<http::Response<Body>, EgressError> {
        let sent = match begun {
            Some(begun) => self.hot.of_this_thread().send_noting(request, begun).await,
            None => self.steady.send(request).await,
        };
        if let Err(error) = &sent {
            if error.is_passing() {
                self.signals.doubt();
            }
            self.signals.suspect.notify_one();
        }
        sent
    }

    /// POSTs to where the server of a stream wants messages, before there is a session.
    pub async fn post_to(
        &self,
        place: &Uri,
        message: Bytes,
    ) -> Result<http::Response<Body>, CallError> {
        let request = self.request(Method::POST, place.clone(), ACCEPT_BOTH, message);
        self.pass(request, None).await.map_err(|error| self.send_error(error))
    }

    /// A request with all that was configured, and nothing of a session yet.
    fn request(
        &self,
        method: Method,
        place: Uri,
        accept: &'static str,
        body: Bytes,
    ) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = place;
        let headers = request.headers_mut();
        let configured = &self.address.headers;
        headers.extend(configured.iter().map(|(name, value)| (name.clone(), value.clone())));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        request
    }

    fn send_error(&self, error: SendError) -> CallError {
        let (server, detail) = (self.server.clone(), Some(error.to_string()));
        let error = match error {
            SendError::Egress(error) => error,
            SendError::Token(NoToken::GivenUp(_)) => {
                self.signals.unauthorized.notify_one();
                return CallError::unauthorized(server);
            }
            SendError::Token(NoToken::Failed(why)) => return CallError::NoToken { server, why },
        };
        match error.not_sent() {
            true if error.is_passing() => CallError::NotSent { server, detail },
            // The next try would fare no better.
            true => {
                let (state, reason) = (StateWord::Ready, not_connected(error.into()).reason);
                CallError::Unavailable { server, state, reason, detail }
            }
            false => CallError::Ended { server, reason: Reason::Unreachable, detail },
        }
    }

    /// Sends what needs no answer: a notification, or an answer of ours.
    pub async fn tell(&self, established: Option<&Established>, message: Bytes) {
        let sending = self.send(Method::POST, ACCEPT_BOTH, established, message);
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
    pub fn hear(self: &Arc<Self>, session: &Arc<RemoteSession>, frame: Frame) {
        let heard = session.dialogue.hear(frame, || self.answering(session));
        self.carry_out(session, heard);
    }

    /// Does what is left to be done about what a server said of itself.
    pub fn carry_out(self: &Arc<Self>, session: &Arc<RemoteSession>, aside: Aside) {
        let say = |answer: Bytes| {
            let Ok(turn) = self.answers.clone().try_acquire_owned() else {
                metrics::counter!("metamcpd_upstream_messages_dropped_total").increment(1);
                return;
            };
            let (remote, established) = (self.clone(), session.established());
            actix::spawn(self.tasks.track_future(async move {
                remote.tell(established.as_deref(), answer).await;
                drop(turn);
            }));
        };
        let Belonging { clients, id, .. } = &self.belonging;
        carry_out(&**clients, *id, aside, &self.signals.changed, say);
    }

    /// How an answer reaches the very session that asked.
    pub fn answering(self: &Arc<Self>, session: &Arc<RemoteSession>) -> Say {
        let (remote, established) = (self.clone(), session.established());
        Box::new(move |answer| {
            let (remote, established) = (remote.clone(), established.clone());
            let Ok(turn) = remote.replies.clone().try_acquire_owned() else {
                metrics::counter!("metamcpd_upstream_messages_dropped_total").increment(1);
                return;
            };
            let tasks = remote.tasks.clone();
            let telling = async move {
                remote.tell(established.as_deref(), answer).await;
                drop(turn);
            };
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(tasks.track_future(telling));
            }
        })
    }

    /// Tells an open session something that needs no answer.
    pub fn tell_later(self: &Arc<Self>, session: &Arc<RemoteSession>, message: Bytes) {
        if session.established().is_some() {
            self.answering(session)(message);
        }
    }

    /// Tells the session of `key`, where it is open, that the roots of its client have changed.
    pub fn roots_changed(self: &Arc<Self>, key: &SessionKey) {
        if let Some(session) = self.known_session(key).filter(|session| session.was_told_of_roots())
        {
            let changed = message::notification("notifications/roots/list_changed", b"");
            self.tell_later(&session, changed);
        }
    }

    pub fn frames(&self) -> FrameLimits {
        self.limits.frames
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionKey, Arc<RemoteSession>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
