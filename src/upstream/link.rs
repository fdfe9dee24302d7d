//! A live connection to an upstream, whatever carries it, and one call's way through it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    CallError, Isolation,
    exchange::{Heard, SessionKey},
    pipe::{Pipe, PipeLeg},
    worker::{remote::Remote, remote_call::RemoteLeg},
};
use crate::{
    access::Principal,
    catalogue::kind::Kind,
    wire::{Frame, message},
};

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
}

impl Caller<'_> {
    pub fn key(&self, isolation: Isolation) -> SessionKey {
        match isolation {
            Isolation::Shared => SessionKey::Shared,
            Isolation::Session => SessionKey::Of(self.session.clone()),
            Isolation::User => SessionKey::Of(user_of(self.principal)),
        }
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
    pub permit: Option<OwnedSemaphorePermit>,
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
        let Sending { key, permit, queue_wait, lifetime } = sending;
        match self {
            Self::Pipe(pipe) => {
                pipe.begin(write, permit, queue_wait, lifetime).await.map(Leg::Pipe)
            }
            Self::Remote(remote) => {
                RemoteLeg::begin(remote, write, key, permit).map(|leg| Leg::Remote(Box::new(leg)))
            }
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
            permit: None,
            queue_wait: patience,
            lifetime: patience,
        };
        let mut leg = self.begin(|id| message::request(id, method, params), sending).await?;
        let answer = async {
            loop {
                match leg.next().await {
                    Heard::Progress(_) => {}
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

    /// Ends the sessions that were opened for one client.
    pub fn forget(&self, key: &SessionKey) {
        match self {
            Self::Pipe(_) => {}
            Self::Remote(remote) => remote.forget(key),
        }
    }
}
