//! One call to a remote upstream: its request, its session where there is none yet, and its answer
//! as one body or as a stream of events.
//!
//! It needs no other thread and no task of its own.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    remote::{ACCEPT_BOTH, Remote},
    remote_session::{Established, RemoteSession},
    remote_stream::{Events, StreamError},
};
use crate::{
    egress::{Body, EgressError},
    upstream::{
        CallError, Exit, Reason,
        exchange::{Heard, SessionKey, own_id},
        status::StateWord,
    },
    wire::{Frame, Kind, message},
};

/// POSTs a message within its session, which is opened first where there is none, and once more
/// where the upstream has forgotten it: a 404 proves that nothing was executed.
async fn deliver(
    remote: Arc<Remote>,
    session: Arc<RemoteSession>,
    message: Bytes,
) -> Result<http::Response<Body>, CallError> {
    let mut stale: Option<Arc<Established>> = None;
    loop {
        let established = match session.established() {
            Some(established) if stale.is_none() => established,
            _ => session
                .open(&remote, stale.as_ref())
                .await
                .map_err(|exit| opening_error(&remote, exit))?,
        };
        let message = message.clone();
        let response =
            remote.send(Method::POST, ACCEPT_BOTH, Some(&established), message, true).await?;
        let server = remote.server.clone();
        match response.status() {
            StatusCode::OK => return Ok(response),
            StatusCode::NOT_FOUND if stale.is_none() && established.has_id() => {
                stale = Some(established);
            }
            StatusCode::UNAUTHORIZED => {
                remote.signals.unauthorized.notify_one();
                return Err(CallError::Unauthorized { server });
            }
            status => return Err(CallError::HttpStatus { server, status: status.as_u16() }),
        }
    }
}

fn opening_error(remote: &Remote, exit: Exit) -> CallError {
    let server = remote.server.clone();
    match exit.reason {
        Reason::Unauthorized => CallError::Unauthorized { server },
        reason => CallError::Unavailable {
            server,
            state: StateWord::Starting,
            reason,
            detail: exit.detail,
        },
    }
}

type Delivery = Pin<Box<dyn Future<Output = Result<http::Response<Body>, CallError>>>>;

/// One call to a remote upstream.
pub struct RemoteLeg {
    remote: Arc<Remote>,
    key: SessionKey,
    /// Held so that a session is not taken for idle while a call is with it.
    session: Arc<RemoteSession>,
    id: u64,
    part: Part,
    _permit: Option<OwnedSemaphorePermit>,
}

/// How far a call has come.
enum Part {
    Sending(Delivery),
    /// The answer is one body, which is being read.
    Whole(Pin<Box<dyn Future<Output = Result<Bytes, EgressError>>>>),
    /// The answer comes as events.
    Events(Box<Events>),
}

impl RemoteLeg {
    /// Makes ready to send the request that `write` makes for the id it is given.
    pub fn begin(
        remote: &Arc<Remote>,
        write: impl FnOnce(u64) -> Bytes,
        key: SessionKey,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, CallError> {
        if remote.is_closed() {
            return Err(CallError::NotSent { server: remote.server.clone(), detail: None });
        }
        let id = remote.next_id();
        let session = remote.session(&key)?;
        session.touch();
        let sending = Box::pin(deliver(remote.clone(), session.clone(), write(id)));
        let (remote, part) = (remote.clone(), Part::Sending(sending));
        Ok(Self { remote, key, session, id, part, _permit: permit })
    }

    pub async fn next(&mut self) -> Heard {
        let remote = self.remote.clone();
        let advanced = tokio::select! {
            biased;
            advanced = self.advance() => advanced,
            why = remote.closed() => Err(why),
        };
        advanced.unwrap_or_else(Heard::Failed)
    }

    /// Safe to be dropped at any await: what was read stays in `self.part`.
    async fn advance(&mut self) -> Result<Heard, CallError> {
        loop {
            let bytes = match &mut self.part {
                Part::Sending(delivery) => {
                    let response = delivery.await?;
                    self.part = self.part_of(response)?;
                    continue;
                }
                Part::Whole(body) => body.await.map_err(|error| self.broken(error.to_string()))?,
                Part::Events(events) => match events.next().await {
                    Ok(data) => data,
                    Err(StreamError::Broken(why)) => return Err(self.broken(why)),
                    Err(StreamError::TooLarge(error)) => return Err(self.bad(&error.to_string())),
                },
            };
            if let Some(heard) = self.judge(bytes)? {
                return Ok(heard);
            }
        }
    }

    fn part_of(&self, response: http::Response<Body>) -> Result<Part, CallError> {
        let kind = response.headers().get(header::CONTENT_TYPE);
        let kind =
            kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
        if kind.starts_with("text/event-stream") {
            let events = Events::new(&self.remote, &self.session, response.into_body());
            Ok(Part::Events(Box::new(events)))
        } else if kind.starts_with("application/json") {
            let body = response.into_body();
            Ok(Part::Whole(Box::pin(body.collect(self.remote.frames().message_max))))
        } else {
            Err(self.bad(&format!("its content type is `{kind}`")))
        }
    }

    /// Whether a message is for this call; what is not goes to the worker.
    fn judge(&self, bytes: Bytes) -> Result<Option<Heard>, CallError> {
        let whole = matches!(self.part, Part::Whole(_));
        let frame = match Frame::parse(bytes, self.remote.frames().depth_max) {
            Ok(frame) => frame,
            Err(error) if whole => return Err(self.bad(&error.to_string())),
            Err(error) => {
                tracing::debug!(server = %self.remote.server, %error, "an event is no message");
                return Ok(None);
            }
        };
        let is_progress = frame.method().as_deref() == Some("notifications/progress");
        match frame.kind() {
            Kind::Result | Kind::Error if own_id(frame.id()) == Some(self.id) => {
                Ok(Some(Heard::Reply(frame)))
            }
            Kind::Result | Kind::Error if whole => {
                Err(self.bad("its id is not that of the request"))
            }
            Kind::Result | Kind::Error => {
                metrics::counter!("metamcpd_upstream_unknown_replies_total").increment(1);
                Ok(None)
            }
            Kind::Notification if is_progress => {
                let token = frame.token_span().map(|span| frame.get(span));
                Ok((own_id(token) == Some(self.id)).then_some(Heard::Progress(frame)))
            }
            Kind::Notification | Kind::Request => {
                self.remote.hear(&self.key, &frame);
                Ok(None)
            }
        }
    }

    pub fn cancel(&mut self, reason: &str) {
        let (remote, established) = (self.remote.clone(), self.session.established());
        let message = message::cancelled(self.id, reason);
        // Told before the connection is dropped, since dropping it says nothing in this era.
        actix::spawn(self.remote.tasks.track_future(async move {
            if established.is_some() {
                remote.tell(established.as_deref(), message).await;
            }
        }));
    }

    fn bad(&self, why: &str) -> CallError {
        CallError::BadAnswer { server: self.remote.server.clone(), why: why.into() }
    }

    fn broken(&self, detail: String) -> CallError {
        self.remote.signals.suspect.notify_one();
        let reason = Reason::Unreachable;
        CallError::Ended { server: self.remote.server.clone(), reason, detail: Some(detail) }
    }
}
