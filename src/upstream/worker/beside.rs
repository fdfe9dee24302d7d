//! What a remote server says beside the answers to our requests: by the stream of its session, or behind
//! an answer in the same body.

use std::sync::Arc;

use bytes::Bytes;

use super::{messages::parse, remote::Remote, remote_session::RemoteSession};
use crate::{
    aside::IN_PLACE_MAX,
    wire::{Bad, Fault, Frame, Kind},
};

async fn hear(remote: &Arc<Remote>, session: &Arc<RemoteSession>, data: Bytes) {
    match parse(data, remote.frames().depth_max).await {
        Ok(frame) => take(remote, session, frame),
        Err(bad) => refuse(remote, session, &bad),
    }
}

/// Hears what came with an answer and behind it. Its call waits for none of that any more.
pub fn hear_behind(
    remote: &Arc<Remote>,
    session: &Arc<RemoteSession>,
    behind: impl IntoIterator<Item = Bytes>,
) {
    let depth_max = remote.frames().depth_max;
    for data in behind {
        if data.len() > IN_PLACE_MAX {
            let (one, session) = (remote.clone(), session.clone());
            let heard = async move { hear(&one, &session, data).await };
            actix::spawn(remote.tasks.track_future(heard));
            continue;
        }
        match Frame::parse(data, depth_max) {
            Ok(frame) => take(remote, session, frame),
            Err(bad) => refuse(remote, session, &bad),
        }
    }
}

/// Hears a message that is no answer to a call.
pub fn take(remote: &Arc<Remote>, session: &Arc<RemoteSession>, frame: Frame) {
    let is_progress = frame.method().as_deref() == Some("notifications/progress");
    match frame.kind() {
        Kind::Notification if is_progress => {
            let aside = session.dialogue.progress(frame);
            remote.carry_out(session, aside);
        }
        Kind::Notification | Kind::Request => remote.hear(session, frame),
        Kind::Result | Kind::Error => {
            metrics::counter!("metamcpd_upstream_unknown_replies_total").increment(1);
        }
    }
}

/// What was said is no message. A request that cannot be answered by its id is answered without one, or
/// the server would wait for that, and whatever it asks for with it.
pub fn refuse(remote: &Arc<Remote>, session: &Arc<RemoteSession>, bad: &Bad) {
    metrics::counter!("metamcpd_upstream_noise_total").increment(1);
    tracing::debug!(server = %remote.server, error = %bad, "it is no message");
    match bad {
        Bad::Unanswerable => remote.answering(session)(Fault::from(bad).to_bytes(None)),
        Bad::Json(_) | Bad::Invalid { .. } => {}
    }
}
