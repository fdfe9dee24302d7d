//! The standing streams of a remote upstream's sessions, where it says what belongs to no request.
//!
//! That of the gateway's own session is held as long as the worker lives. That of a client's session
//! is held while the client can hear what comes by it: while a call of it is under way or it listens,
//! and for a moment longer, so that one call after another does not open one each.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep, timeout};

use super::{
    remote::Remote,
    remote_session::{Established, RemoteSession},
    resubscription,
};
use crate::{
    egress::Body,
    failpoint,
    upstream::exchange::SessionKey,
    wire::{Frame, Kind, sse},
};

/// The rest before a standing stream that has ended is opened again, which doubles up to the last.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long a call waits for the stream of its session.
const OPEN_PATIENCE: Duration = Duration::from_secs(2);

/// How long a client's stream is held beyond its last use.
const LINGER: Duration = Duration::from_secs(5);

enum Opened {
    Stream(Box<Body>),
    NotOffered,
    Forgotten,
    Failed,
}

async fn open(remote: &Remote, established: &Established) -> Opened {
    let accept = "text/event-stream";
    let sent = remote.send(Method::GET, accept, Some(established), Bytes::new()).await;
    let Ok(response) = sent else { return Opened::Failed };
    match response.status() {
        StatusCode::OK => Opened::Stream(Box::new(response.into_body())),
        StatusCode::NOT_FOUND | StatusCode::GONE if established.is_named() => Opened::Forgotten,
        // Not now is not never.
        status if status.is_server_error() => Opened::Failed,
        _not_offered => Opened::NotOffered,
    }
}

/// Takes what comes until the stream ends.
async fn read(remote: &Arc<Remote>, session: &Arc<RemoteSession>, body: &mut Body) {
    let frames = remote.frames();
    let mut reader = sse::Reader::new(frames.message_max);
    while let Some(Ok(chunk)) = body.chunk().await {
        let Ok(events) = reader.push(&chunk) else { return };
        for event in events {
            let Ok(frame) = Frame::parse(event.data, frames.depth_max) else { continue };
            let is_progress = frame.method().as_deref() == Some("notifications/progress");
            match frame.kind() {
                Kind::Notification if is_progress => {
                    let aside = session.dialogue.progress(frame);
                    remote.carry_out(session, aside);
                }
                _ => remote.hear(session, frame),
            }
        }
    }
}

// === The gateway's own ===

/// Holds the standing stream of the gateway's own session, where announcements come.
pub async fn listen(remote: &Arc<Remote>) -> Infallible {
    let mut rest = REST.0;
    loop {
        let began = Instant::now();
        if let Held::NotOffered = hold_own(remote).await {
            for (_, announces) in remote.signals.announces.iter() {
                announces.store(false, Ordering::Relaxed);
            }
            return std::future::pending().await;
        }
        if began.elapsed() > REST.1 {
            rest = REST.0;
        }
        sleep(rest).await;
        rest = (rest * 2).min(REST.1);
        // What was announced in between is lost, so the lists are looked at again.
        remote.signals.changed.presume_all();
    }
}

enum Held {
    NotOffered,
    Ended,
}

async fn hold_own(remote: &Arc<Remote>) -> Held {
    let Some(session) = remote.known_session(&SessionKey::Shared) else { return Held::Ended };
    let Some(established) = session.established() else { return Held::Ended };
    match open(remote, &established).await {
        Opened::Stream(mut body) => {
            read(remote, &session, &mut body).await;
            remote.signals.suspect.notify_one();
            Held::Ended
        }
        Opened::Forgotten => {
            // One stands in line to make it anew.
            if let Err(exit) = session.open(remote, Some(&established)).await {
                tracing::debug!(server = %remote.server, ?exit, "the session was not made anew");
                remote.signals.suspect.notify_one();
            }
            Held::Ended
        }
        Opened::Failed => Held::Ended,
        Opened::NotOffered => Held::NotOffered,
    }
}

// === A client's ===

/// Has the stream of a client's session open before a call is sent, since what the upstream asks for
/// the call may come by it.
pub async fn open_before_a_call(
    remote: &Arc<Remote>,
    session: &Arc<RemoteSession>,
    established: &Arc<Established>,
) {
    // Where one stream is the session, everything comes by it.
    let is_own = session.key == SessionKey::Shared || established.stream().is_some();
    let is_useful = || session.may_ask() || is_listening(remote, session);
    let is_offered = !remote.signals.has_no_streams.load(Ordering::Relaxed);
    if is_own || !is_offered || !established.is_named() || !is_useful() {
        return;
    }
    let mut is_held = session.stream.lock().await;
    if *is_held {
        return;
    }
    let is_slow = remote.signals.has_slow_streams.load(Ordering::Relaxed);
    let patience = if is_slow { Duration::ZERO } else { OPEN_PATIENCE };
    let body = match timeout(patience, open(remote, established)).await {
        Ok(Opened::Stream(body)) => Some(body),
        Ok(Opened::NotOffered) => {
            return remote.signals.has_no_streams.store(true, Ordering::Relaxed);
        }
        Ok(Opened::Forgotten | Opened::Failed) => return,
        // Some servers answer only when there is something to say. No other call waits for that.
        Err(_elapsed) => {
            remote.signals.has_slow_streams.store(true, Ordering::Relaxed);
            None
        }
    };
    *is_held = true;
    let holding = hold(remote.clone(), session.clone(), body);
    actix::spawn(remote.tasks.track_future(holding));
}

/// Holds the stream of a client's session until nobody wants it. It counts as held all the while, so that
/// nobody else would hold it where this has panicked.
async fn hold(remote: Arc<Remote>, session: Arc<RemoteSession>, mut body: Option<Box<Body>>) {
    loop {
        let held = hold_while_wanted(&remote, &session, body.take());
        // Where it happened, the log has already.
        if AssertUnwindSafe(held).catch_unwind().await.is_ok() {
            return;
        }
        sleep(REST.0).await;
    }
}

async fn hold_while_wanted(
    remote: &Arc<Remote>,
    session: &Arc<RemoteSession>,
    mut body: Option<Box<Body>>,
) {
    let holding = async {
        let mut rest = REST.0;
        loop {
            failpoint::pass("standing");
            if body.is_none()
                && let Some(established) = session.established()
            {
                match open(remote, &established).await {
                    Opened::Stream(opened) => body = Some(opened),
                    // Nobody may call for long, and what was subscribed to is not heard of until then.
                    Opened::Forgotten if remote.belonging.subscriptions.has(&session.key) => {
                        resubscription::open_again(remote, session, &established).await;
                    }
                    Opened::Forgotten | Opened::NotOffered | Opened::Failed => {}
                }
            }
            let began = Instant::now();
            if let Some(mut body) = body.take() {
                read(remote, session, &mut body).await;
            }
            if began.elapsed() > REST.1 {
                rest = REST.0;
            }
            sleep(rest).await;
            rest = (rest * 2).min(REST.1);
        }
    };
    tokio::select! {
        biased;
        _closed = remote.closed() => {}
        () = until_unwanted(remote, session) => {}
        () = holding => {}
    }
}

/// Waits until nobody could hear what comes by the stream, and has it count as closed.
async fn until_unwanted(remote: &Remote, session: &RemoteSession) {
    loop {
        sleep(LINGER).await;
        // Under the lock, so that a call which begins now opens a stream of its own.
        let mut is_held = session.stream.lock().await;
        let is_used = session.dialogue.has_calls() || !session.is_idle(LINGER);
        if !is_used && !is_listening(remote, session) {
            *is_held = false;
            return;
        }
    }
}

fn is_listening(remote: &Remote, session: &RemoteSession) -> bool {
    if remote.belonging.expects_something(&session.key) {
        return true;
    }
    match &session.key {
        SessionKey::Client(client) => remote.belonging.clients.is_listening(client),
        SessionKey::Shared | SessionKey::User(_) => false,
    }
}
