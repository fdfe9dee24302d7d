//! A live connection to an upstream, whatever carries it, and one call's way through it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    CallError, Isolation,
    attribution::Client,
    exchange::{Heard, SessionKey},
    log_levels::LogLevels,
    pipe::{Pipe, PipeLeg},
    places::Place,
    subscriptions::Subscriptions,
    worker::{remote::Remote, remote_call::RemoteLeg},
};
use crate::{
    access::Principal,
    catalogue::kind::Kind,
    wire::{
        Frame,
        capabilities::{Capability, ClientCapabilities},
        level::Level,
        message,
    },
};

/// How long an upstream may take to notice what is told to it beside calls.
const TELL_PATIENCE: Duration = Duration::from_secs(10);

/// A connection that calls can be sent through.
#[derive(Clone)]
pub enum Link {
    Pipe(Arc<Pipe>),
    Remote(Arc<Remote>),
}

/// Who calls, as far as an upstream's isolation asks for it.
#[derive(Clone, Debug)]
pub struct Caller<'a> {
    /// The client session's id.
    pub session: &'a Arc<str>,
    pub principal: &'a Principal,
    /// What the client can be asked for.
    pub capabilities: ClientCapabilities,
    /// The level of log messages that it asked for.
    pub log_level: Option<Level>,
}

impl Caller<'_> {
    pub fn key(&self, isolation: Isolation) -> SessionKey {
        match isolation {
            Isolation::Shared => SessionKey::Shared,
            Isolation::Session => SessionKey::Client(self.session.clone()),
            Isolation::User => SessionKey::User(user_of(self.principal)),
        }
    }

    /// What the upstream is told that can be asked for, in a session of this isolation.
    pub fn declared(&self, isolation: Isolation) -> ClientCapabilities {
        match isolation {
            Isolation::Session => self.capabilities,
            Isolation::Shared | Isolation::User => bridged(isolation),
        }
    }
}

/// A caller, for as long as something is done on its behalf.
#[derive(Clone)]
pub struct HeldCaller {
    session: Arc<str>,
    principal: Principal,
    capabilities: ClientCapabilities,
}

impl HeldCaller {
    pub fn of(caller: &Caller<'_>) -> Self {
        Self {
            session: caller.session.clone(),
            principal: caller.principal.clone(),
            capabilities: caller.capabilities,
        }
    }

    /// The level of log messages that it asked for has been told already.
    pub fn caller(&self) -> Caller<'_> {
        let Self { session, principal, capabilities } = self;
        Caller { session, principal, capabilities: *capabilities, log_level: None }
    }
}

/// What an upstream is told that can be asked for, in a session that is not one client's: all that can
/// be relayed, since many servers leave out the tools that need more. Each client is still asked only
/// what it declared itself. Roots are one client's, so what all share is never told of any (decision 8).
pub fn bridged(isolation: Isolation) -> ClientCapabilities {
    match isolation {
        Isolation::Shared => {
            ClientCapabilities::ALL.without(Capability::Roots).without(Capability::RootsListChanged)
        }
        Isolation::Session | Isolation::User => ClientCapabilities::ALL,
    }
}

/// The owner, or the key itself where it has none.
fn user_of(principal: &Principal) -> Arc<str> {
    match principal {
        Principal::Anonymous => Arc::from("anonymous"),
        Principal::Key { uuid, user_id: None } => Arc::from(format!("key:{uuid}")),
        Principal::Key { user_id: Some(user), .. } => Arc::from(format!("user:{user}")),
    }
}

/// One call that is with the upstream.
pub enum Leg {
    Pipe(PipeLeg),
    Remote(Box<RemoteLeg>),
}

impl Leg {
    /// What the upstream says next. Not to be asked again after the call has ended.
    pub async fn next(&mut self) -> Heard {
        match self {
            Self::Pipe(leg) => leg.next().await,
            Self::Remote(leg) => leg.next().await,
        }
    }

    /// What else it says of a call that was answered by a task. Safe to be dropped while it waits.
    pub async fn aside(&mut self) -> Heard {
        match self {
            Self::Pipe(leg) => leg.aside().await,
            Self::Remote(leg) => leg.aside().await,
        }
    }

    /// It had no answer in time.
    pub fn timed_out(&self) {
        match self {
            Self::Pipe(leg) => leg.timed_out(),
            // A remote upstream is watched by its calls' outcomes.
            Self::Remote(_) => {}
        }
    }

    /// Takes the request back, and tells the upstream so under the id that it knows.
    pub fn cancel(&mut self, reason: &str) {
        match self {
            Self::Pipe(leg) => leg.cancel(reason),
            Self::Remote(leg) => leg.cancel(reason),
        }
    }
}

/// How a request is to be sent.
pub struct Sending {
    pub key: SessionKey,
    /// Whose call it is; nobody's where the gateway asks for itself.
    pub client: Option<Client>,
    /// What the upstream is told that can be asked for, if its session has to be opened.
    pub declared: ClientCapabilities,
    pub place: Option<Place>,
    /// How long it may wait for its turn.
    pub queue_wait: Duration,
    /// When it is given up at the latest.
    pub lifetime: Duration,
}

impl Link {
    /// Sends the request that `write` makes for the id it is given.
    pub async fn begin(
        &self,
        write: impl FnOnce(u64) -> Bytes,
        sending: Sending,
    ) -> Result<Leg, CallError> {
        match self {
            Self::Pipe(pipe) => {
                let Sending { client, place, queue_wait, lifetime, .. } = sending;
                pipe.begin(write, client, place, queue_wait, lifetime).await.map(Leg::Pipe)
            }
            Self::Remote(remote) => {
                let leg = RemoteLeg::begin(remote, write, sending)?;
                Ok(Leg::Remote(Box::new(leg)))
            }
        }
    }

    /// Of the process that the tasks of its sessions end with; nil where they may outlive us.
    pub fn life(&self) -> Uuid {
        match self {
            Self::Pipe(pipe) => pipe.life(),
            Self::Remote(_) => Uuid::nil(),
        }
    }

    /// Whether it, which is the connection for `key`, has the session of that just now.
    pub fn has_session(&self, key: &SessionKey) -> bool {
        match self {
            // A process has one session.
            Self::Pipe(_) => true,
            Self::Remote(remote) => remote.known_session(key).is_some(),
        }
    }

    /// A request of the gateway's own, and its answer: a result or an error.
    pub async fn ask(
        &self,
        server: &Arc<str>,
        method: &str,
        params: &[u8],
        patience: Duration,
    ) -> Result<Frame, CallError> {
        let sending = Sending {
            key: SessionKey::Shared,
            client: None,
            declared: ClientCapabilities::default(),
            place: None,
            queue_wait: patience,
            lifetime: patience,
        };
        let mut leg = self.begin(|id| message::request(id, method, params), sending).await?;
        let answer = async {
            loop {
                match leg.next().await {
                    // A question that is dropped is refused.
                    Heard::Progress(_) | Heard::Asked(_) | Heard::Said(_) => {}
                    Heard::Reply(frame) => return Ok(frame),
                    Heard::Failed(error) => return Err(error),
                }
            }
        };
        match tokio::time::timeout(patience, answer).await {
            Ok(answered) => answered,
            Err(_elapsed) => {
                leg.cancel("the gateway waited long enough");
                Err(CallError::Inactive { server: server.clone(), after: patience })
            }
        }
    }

    /// Whether a change of what it offers of a kind would be heard of. A process can always say so; of a remote
    /// upstream it is known by what it promised, and by whether it lets us listen.
    pub fn announces(&self, kind: Kind) -> bool {
        match self {
            Self::Pipe(_) => true,
            Self::Remote(remote) => remote.signals.announces[kind].load(Ordering::Relaxed),
        }
    }

    /// Tells a session of the upstream, where it is open and understands that, which log messages are
    /// wanted of it, and waits until it has heard that.
    async fn tell_level(&self, key: &SessionKey, level: Level) {
        match self {
            Self::Pipe(pipe) => {
                if !pipe.has_logging() {
                    return;
                }
                let patience = TELL_PATIENCE;
                let write = |id| level.request(id);
                let Ok(mut leg) = pipe.begin(write, None, None, patience, patience).await else {
                    return;
                };
                // Its answer says nothing that could be acted on.
                if tokio::time::timeout(patience, leg.next()).await.is_err() {
                    leg.cancel("the gateway waited long enough");
                }
            }
            Self::Remote(remote) => {
                let established = remote.known_session(key).and_then(|one| one.established());
                if let Some(established) = established.filter(|one| one.introduction.has_logging) {
                    let message = level.request(remote.next_id());
                    remote.tell(Some(&established), message).await;
                }
            }
        }
    }

    /// The same, for who does not wait for it, or not for ever.
    pub fn set_level(&self, key: &SessionKey, level: Level) -> tokio::task::JoinHandle<()> {
        if let Self::Pipe(pipe) = self {
            pipe.set_level(level);
        }
        let (link, key) = (self.clone(), key.clone());
        actix::spawn(async move { link.tell_level(&key, level).await })
    }

    /// Tells a process, which can be called from now on, the level that has come to be wanted since it
    /// was told of one. A remote session sees to that when it is opened.
    pub fn catch_up(&self, key: &SessionKey, levels: &LogLevels) {
        if let Self::Pipe(pipe) = self
            && let Some(level) = levels.of(key)
            && pipe.level() != Some(level)
        {
            drop(self.set_level(key, level));
        }
    }

    /// Tells a session of the upstream, where it is open, which resource it is to be (un)subscribed to,
    /// and waits until it has heard that. What it says to it could not be acted on.
    pub async fn tell_of_resource(&self, key: &SessionKey, method: &str, uri: &str) {
        let params = serde_json::json!({ "uri": uri }).to_string();
        match self {
            Self::Pipe(pipe) => {
                let write = |id| message::request(id, method, params.as_bytes());
                let patience = TELL_PATIENCE;
                let Ok(mut leg) = pipe.begin(write, None, None, patience, patience).await else {
                    return;
                };
                match tokio::time::timeout(patience, leg.next()).await {
                    Ok(Heard::Reply(reply)) if reply.error().is_some() => {
                        tracing::warn!(uri, method, "an upstream refused what it had agreed to");
                    }
                    Ok(_heard) => {}
                    Err(_elapsed) => leg.cancel("the gateway waited long enough"),
                }
            }
            Self::Remote(remote) => {
                let established = remote.known_session(key).and_then(|one| one.established());
                if let Some(established) = established {
                    let message = message::request(remote.next_id(), method, params.as_bytes());
                    remote.tell(Some(&established), message).await;
                }
            }
        }
    }

    /// Has a connection that was made anew say again what is still to be heard of.
    pub fn subscribe_again(&self, subscriptions: &Arc<Subscriptions>) {
        match self {
            Self::Pipe(_) => {
                let (link, subscriptions) = (self.clone(), subscriptions.clone());
                actix::spawn(async move {
                    link.subscribe_session(&subscriptions, &SessionKey::Shared).await;
                });
            }
            // The gateway's own session was subscribed when it was opened.
            Self::Remote(remote) => {
                for (key, declared) in subscriptions.sessions() {
                    if key != SessionKey::Shared
                        && let Ok(session) = remote.session(&key, declared)
                    {
                        let remote = remote.clone();
                        actix::spawn(async move {
                            if let Err(exit) = session.open(&remote, None).await {
                                tracing::warn!(server = %remote.server, ?exit, "a session that has subscriptions was not opened again");
                            }
                        });
                    }
                }
            }
        }
    }

    /// Subscribes one session to everything that is wanted of it.
    pub async fn subscribe_session(&self, subscriptions: &Subscriptions, key: &SessionKey) {
        for uri in subscriptions.of(key) {
            let turn = subscriptions.turn(key, &uri);
            let _ours = turn.lock().await;
            if subscriptions.is_wanted(key, &uri) {
                self.tell_of_resource(key, "resources/subscribe", &uri).await;
            }
        }
    }

    /// Tells a session of the upstream that the roots of its client have changed.
    pub fn roots_changed(&self, key: &SessionKey) {
        match self {
            // What all share knows of no roots.
            Self::Pipe(_) => {}
            Self::Remote(remote) => remote.roots_changed(key),
        }
    }

    /// Ends the sessions that were opened for one client.
    pub fn forget(&self, key: &SessionKey) {
        match self {
            Self::Pipe(_) => {}
            Self::Remote(remote) => remote.forget(key),
        }
    }
}
