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
use http::{HeaderMap, HeaderValue, Method, Uri};
use tokio::time::{Instant, timeout};

use super::{
    event_stream::EventStream,
    opening,
    remote::{PROTOCOL_VERSION, Remote, SESSION_ID},
    resubscription,
};
use crate::{
    upstream::{Exit, Reason, dialogue::Dialogue, exchange::SessionKey, handshake::Introduction},
    wire::{
        capabilities::{Capability, ClientCapabilities},
        message,
    },
};

/// How long an upstream may take to be told that a session has ended.
pub const DELETE_PATIENCE: Duration = Duration::from_secs(2);

/// A place for a session.
pub struct RemoteSession {
    pub key: SessionKey,
    /// What the upstream is told that can be asked for.
    pub declared: ClientCapabilities,
    pub dialogue: Arc<Dialogue>,
    /// Whether its standing stream is held, or being opened.
    pub stream: tokio::sync::Mutex<bool>,
    established: ArcSwapOption<Established>,
    opening: tokio::sync::Mutex<()>,
    used: Mutex<Instant>,
    /// Whether its client has gone. What is still being opened for it is given back at once.
    is_over: AtomicBool,
}

/// What a session is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sake {
    /// A look at the lists, which are the present ones then.
    Listing,
    Other,
}

/// What may have become another when a session was begun anew.
#[derive(Debug, PartialEq, Eq)]
enum Suspicion {
    /// What it said of itself to the gateway, and so its lists.
    Itself,
    Lists,
}

/// What is to be looked at after a session was begun anew, in which it says the same of itself as in the one
/// before or not.
fn suspicion(is_own: bool, is_same: bool, sake: Sake) -> Option<Suspicion> {
    match (is_own, is_same, sake) {
        (true, false, _) => Some(Suspicion::Itself),
        // One that ends its sessions soon would be listed for ever, since it was listed.
        (_, _, Sake::Listing) => None,
        (_, _, Sake::Other) => Some(Suspicion::Lists),
    }
}

/// A session as the upstream gave it.
pub struct Established {
    pub introduction: Introduction,
    pub way: Way,
}

/// How its messages come and go.
pub enum Way {
    /// Each POST is answered by itself (Streamable HTTP). The id is what the server gave, if it did.
    Posts { id: Option<HeaderValue> },
    /// All answers come by one stream, which is the session (HTTP+SSE).
    Stream(EventStream),
}

impl Established {
    /// Whether the server was told which session a request belongs to.
    pub fn is_named(&self) -> bool {
        !matches!(&self.way, Way::Posts { id: None })
    }

    pub fn stream(&self) -> Option<&EventStream> {
        match &self.way {
            Way::Posts { .. } => None,
            Way::Stream(stream) => Some(stream),
        }
    }

    /// Where messages go, if that is not the URL itself.
    pub fn place(&self) -> Option<&Uri> {
        self.stream().map(|stream| &stream.place)
    }

    /// Whether it has certainly ended.
    pub fn is_over(&self) -> bool {
        self.stream().is_some_and(EventStream::is_over)
    }

    /// Puts the session's id and version on a request (transports, 2025-06-18).
    pub fn mark(&self, headers: &mut HeaderMap) {
        if let Way::Posts { id: Some(id) } = &self.way {
            headers.insert(SESSION_ID, id.clone());
        }
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(self.introduction.version));
    }
}

impl RemoteSession {
    pub fn new(key: SessionKey, declared: ClientCapabilities, dialogue: Dialogue) -> Self {
        Self {
            key,
            declared,
            dialogue: Arc::new(dialogue),
            stream: tokio::sync::Mutex::new(false),
            established: ArcSwapOption::empty(),
            opening: tokio::sync::Mutex::default(),
            used: Mutex::new(Instant::now()),
            is_over: AtomicBool::new(false),
        }
    }

    /// Whether the upstream may ask something of the session's clients.
    pub fn may_ask(&self) -> bool {
        self.declared != ClientCapabilities::default()
    }

    pub fn was_told_of_roots(&self) -> bool {
        self.declared.has(Capability::RootsListChanged)
    }

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
        self.open_for(remote, stale, Sake::Other).await
    }

    /// The same, for this.
    pub async fn open_for(
        self: &Arc<Self>,
        remote: &Arc<Remote>,
        stale: Option<&Arc<Established>>,
        sake: Sake,
    ) -> Result<Arc<Established>, Exit> {
        let (session, stale, server) = (self.clone(), stale.cloned(), remote.clone());
        let opening = async move { session.open_now(&server, stale.as_ref(), sake).await };
        let opened = actix::spawn(remote.tasks.track_future(opening)).await;
        opened.unwrap_or_else(|error| {
            Err(Exit::new(Reason::Panicked, format!("the session was not opened: {error}")))
        })
    }

    async fn open_now(
        self: &Arc<Self>,
        remote: &Arc<Remote>,
        stale: Option<&Arc<Established>>,
        sake: Sake,
    ) -> Result<Arc<Established>, Exit> {
        let _one_at_a_time = self.opening.lock().await;
        let current = self.established();
        if let Some(current) = &current {
            let is_stale = stale.is_some_and(|stale| Arc::ptr_eq(stale, current));
            if !is_stale && !current.is_over() {
                return Ok(current.clone());
            }
        }
        let opened = timeout(remote.limits.opening_patience, opening::open(remote, self)).await;
        let established =
            Arc::new(opened.unwrap_or_else(|_elapsed| Err(Exit::of(Reason::HandshakeTimeout)))?);
        let initialized = message::notification("notifications/initialized", b"");
        remote.tell(Some(&established), initialized).await;
        let has_logging = established.introduction.has_logging;
        let wanted = || remote.belonging.levels.of(&self.key).filter(|_| has_logging);
        let told = wanted();
        if let Some(level) = told {
            // Its answer says nothing that could be acted on.
            remote.tell(Some(&established), level.request(remote.next_id())).await;
        }
        self.established.store(Some(established.clone()));
        if let Some(current) = &current {
            self.tell_of_another(remote, current, &established, sake);
        }
        // What came to be wanted while it was told could not be told by whoever wants it.
        if let Some(level) = wanted().filter(|_| wanted() != told) {
            remote.tell(Some(&established), level.request(remote.next_id())).await;
        }
        if let Some(forgotten) = current.as_ref().and_then(|current| current.stream()) {
            // What still waits there waits in vain.
            forgotten.end("the upstream forgot its session");
        }
        if self.is_over.load(Ordering::SeqCst) || remote.is_closed() {
            self.end(remote).await;
            return Err(Exit::of(Reason::Asked));
        }
        resubscription::begin(remote, self, &established);
        Ok(established)
    }

    /// Has the upstream looked at where it may be another since the session was begun anew.
    fn tell_of_another(
        &self,
        remote: &Remote,
        before: &Established,
        now: &Established,
        sake: Sake,
    ) {
        let is_same = before.introduction == now.introduction;
        match suspicion(self.key == SessionKey::Shared, is_same, sake) {
            Some(Suspicion::Itself) => remote.signals.reintroduced.notify_one(),
            Some(Suspicion::Lists) => remote.signals.reopened.notify_one(),
            None => {}
        }
    }

    /// Tells the upstream that the session has ended. One that does not care answers 405.
    pub async fn end(&self, remote: &Remote) {
        self.dialogue.close();
        self.is_over.store(true, Ordering::SeqCst);
        let Some(established) = self.established.swap(None).filter(|one| one.is_named()) else {
            return;
        };
        if let Some(stream) = established.stream() {
            return stream.end("the session was ended");
        }
        let deletion = remote.send(Method::DELETE, "*/*", Some(&established), Bytes::new());
        if timeout(DELETE_PATIENCE, deletion).await.is_err() {
            tracing::debug!(server = %remote.server, "the upstream took no notice of a DELETE");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_the_lists_brings_about_no_other_unless_there_is_something_new() {
        use Suspicion::{Itself, Lists};
        for (is_own, is_same, sake, expected) in [
            (true, true, Sake::Other, Some(Lists)),
            (true, true, Sake::Listing, None),
            (true, false, Sake::Other, Some(Itself)),
            (true, false, Sake::Listing, Some(Itself)),
            // What a client was told of it says nothing of what the gateway was.
            (false, true, Sake::Other, Some(Lists)),
            (false, false, Sake::Other, Some(Lists)),
        ] {
            assert_eq!(suspicion(is_own, is_same, sake), expected, "{is_own} {is_same} {sake:?}");
        }
    }
}
