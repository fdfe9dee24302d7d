//! What the sessions of a remote upstream were subscribed to, said again when one is made anew.
//!
//! A session is otherwise opened on use; one with subscriptions is used by nobody and wanted all the
//! same.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    remote::Remote,
    remote_session::{Established, RemoteSession},
    standing,
};
use crate::upstream::{exchange::SessionKey, link::Link};

/// The rest before a session that was lost is opened again, which doubles up to the last.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Has a session that was just opened hear of what is wanted of it, and watches over it where nobody
/// else does.
pub fn begin(remote: &Arc<Remote>, session: &Arc<RemoteSession>, established: &Arc<Established>) {
    let subscriptions = remote.belonging.subscriptions.clone();
    if !subscriptions.of(&session.key).is_empty() && established.introduction.has_subscriptions {
        let (server, session) = (remote.clone(), session.clone());
        let established = established.clone();
        actix::spawn(remote.tasks.track_future(async move {
            standing::open_before_a_call(&server, &session, &established).await;
            Link::Remote(server).subscribe_session(&subscriptions, &session.key).await;
        }));
    }
    // That of the gateway's own session is the worker's affair.
    if let Some(stream) = established.stream().filter(|_| session.key != SessionKey::Shared) {
        let lost = stream.lost();
        let (server, session) = (remote.clone(), Arc::downgrade(session));
        let established = Arc::downgrade(established);
        actix::spawn(remote.tasks.track_future(async move {
            tokio::select! {
                biased;
                _closed = server.closed() => return,
                _why = lost => {}
            }
            if let (Some(session), Some(established)) = (session.upgrade(), established.upgrade()) {
                open_again(&server, &session, &established).await;
            }
        }));
    }
}

/// Opens a session again that the upstream has lost, for as long as anything is wanted of it.
pub async fn open_again(
    remote: &Arc<Remote>,
    session: &Arc<RemoteSession>,
    lost: &Arc<Established>,
) {
    let mut rest = REST.0;
    while remote.belonging.subscriptions.has(&session.key) && !remote.is_closed() {
        match session.open(remote, Some(lost)).await {
            Ok(_opened) => return,
            Err(exit) => {
                tracing::debug!(server = %remote.server, ?exit, "a session was not made anew");
                remote.signals.suspect.notify_one();
            }
        }
        tokio::select! {
            _closed = remote.closed() => return,
            () = sleep(rest) => rest = (rest * 2).min(REST.1),
        }
    }
}
