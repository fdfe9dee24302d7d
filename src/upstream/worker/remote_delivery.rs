//! Sends one request to a remote upstream, within a session that is opened first where there is none.
//!
//! What comes back is for others to read. It is sent once more only where the upstream proved that it did
//! nothing.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::StatusCode;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};

use super::{
    credential,
    dialects::{REFUSAL_MAX, has_forgotten},
    event_stream::StreamLeg,
    opening::{call_error, is_answer_to},
    remote::{Remote, TELL_PATIENCE},
    remote_session::{Established, RemoteSession, Sake},
    standing,
    throttling::asked_rest,
};
use crate::{
    egress::{Begun, Body},
    upstream::{CallError, attribution::Client},
    wire::Frame,
};

/// A request that is to be sent.
#[derive(Clone)]
pub struct Outgoing {
    pub id: u64,
    /// Whose call it is, unless it is the gateway's own.
    pub client: Option<Client>,
    pub message: Bytes,
    /// Whether the upstream may have received it, and has not said that it did nothing.
    pub is_sent: Begun,
}

impl Outgoing {
    /// What a session is opened for where it is opened for this. All that we ask of our own accord, but
    /// whether it is still there, is for its lists.
    fn sake(&self, depth_max: usize) -> Sake {
        let is_ping = |frame: &Frame| frame.method().as_deref() == Some("ping");
        let is_ours = self.client.is_none();
        match Frame::parse(self.message.clone(), depth_max) {
            Ok(frame) if is_ours && !is_ping(&frame) => Sake::Listing,
            Ok(_) | Err(_) => Sake::Other,
        }
    }
}

/// What came of sending it.
pub enum Delivered {
    Answered(http::Response<Body>),
    /// The server refused it by an error of the protocol.
    Refused(Bytes),
    /// The answer is to come by a stream.
    Streaming(StreamLeg, Arc<Established>),
}

/// Sends a request within its session, which is opened first where there is none, and once more
/// where the upstream has forgotten it: that proves that nothing was executed. `stale` is a session
/// that was found to be forgotten.
pub async fn deliver(
    remote: Arc<Remote>,
    session: Arc<RemoteSession>,
    outgoing: Outgoing,
    mut stale: Option<Arc<Established>>,
) -> Result<Delivered, CallError> {
    let mut is_repeated = false;
    loop {
        let established = match session.established() {
            Some(established) if stale.is_none() && !established.is_over() => established,
            _ => session
                .open_for(&remote, stale.as_ref(), outgoing.sake(remote.frames().depth_max))
                .await
                .map_err(|exit| call_error(&remote, exit))?,
        };
        let Outgoing { id, client, message, is_sent } = outgoing.clone();
        is_sent.store(false, Ordering::Relaxed);
        if let Some(stream) = established.stream() {
            let begun = is_sent.clone();
            match StreamLeg::begin(&remote, &established, stream, client, id, message, begun) {
                Ok(leg) => return Ok(Delivered::Streaming(leg, established)),
                // It ended just now, before anything was sent.
                Err(CallError::NotSent { .. }) if !remote.is_closed() && stale.is_none() => {
                    stale = Some(established);
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        standing::open_before_a_call(&remote, &session, &established).await;
        let response = remote.post_call(&established, message, &is_sent).await?;
        let server = remote.server.clone();
        let rest = asked_rest(response.status(), response.headers(), OffsetDateTime::now_utc());
        if let Some(rest) = rest {
            let (after, is_short) = remote.belonging.breaker.throttle(rest);
            // Only a 429 proves that nothing was done: a proxy may say 503 of what went on behind it.
            let is_proof = response.status() == StatusCode::TOO_MANY_REQUESTS;
            let may_repeat = is_proof && is_short && !is_repeated;
            if !may_repeat || !remote.belonging.retries.take("throttled") {
                return Err(CallError::Throttled { server, after });
            }
            is_repeated = true;
            is_sent.store(false, Ordering::Relaxed);
            sleep(after).await;
            continue;
        }
        match response.status() {
            StatusCode::OK => return Ok(Delivered::Answered(response)),
            StatusCode::UNAUTHORIZED => {
                remote.signals.note_challenge(credential::challenge(response.headers()));
                remote.signals.unauthorized.notify_one();
                return Err(CallError::unauthorized(server));
            }
            status => {
                credential::lacks_scope(&remote, status, response.headers())?;
                let reading = response.into_body().collect(REFUSAL_MAX);
                let body = timeout(TELL_PATIENCE, reading).await.ok().and_then(Result::ok);
                let body = body.unwrap_or_default();
                if has_forgotten(status, &body, established.is_named()) {
                    if stale.is_none() {
                        stale = Some(established);
                        continue;
                    }
                    // In its words a client would take this for the end of its own session.
                    return Err(CallError::HttpStatus { server, status: status.as_u16() });
                }
                let frame = Frame::parse(body.clone(), remote.frames().depth_max);
                return match frame {
                    Ok(frame) if frame.error().is_some() && is_answer_to(&frame, id) => {
                        Ok(Delivered::Refused(body))
                    }
                    Ok(_) | Err(_) => {
                        Err(CallError::HttpStatus { server, status: status.as_u16() })
                    }
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message;

    #[test]
    fn a_session_is_opened_for_a_list_where_the_gateway_asks_for_one() {
        let sake = |method, client| {
            let message = message::request(1, method, b"{}");
            Outgoing { id: 1, client, message, is_sent: Begun::default() }.sake(16)
        };
        assert_eq!(sake("tools/list", None), Sake::Listing);
        assert_eq!(sake("ping", None), Sake::Other);
    }
}
