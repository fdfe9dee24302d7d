//! The standing streams of a remote upstream's sessions, where it says what belongs to no request.
//!
//! That of the gateway's own session is held as long as the worker lives. That of a client's session
//! is held while the client can hear what comes by it: while a call of it is under way or it listens,
//! and for a moment longer, so that one call after another does not open one each. One that broke off is
//! taken up where it was, if its events had ids.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, sleep, timeout};

use super::{
    beside,
    remote::Remote,
    remote_session::{Established, RemoteSession},
    resubscription,
    trail::Trail,
};
use crate::{egress::Body, failpoint, upstream::exchange::SessionKey, wire::sse};

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

/// Opens a stream, or what is left of one after an event of it.
async fn open(
    remote: &Remote,
    established: &Established,
    last_event: Option<HeaderValue>,
) -> Opened {
    let sent = remote.listen(Some(established), last_event, None).await;
    let Ok(response) = sent else { return Opened::Failed };
    match response.status() {
        StatusCode::OK => Opened::Stream(Box::new(response.into_body())),
        StatusCode::NOT_FOUND | StatusCode::GONE if established.is_named() => Opened::Forgotten,
        // Not now is not never: some have no second stream while they take the first for whole.
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS => Opened::Failed,
        status if status.is_server_error() => Opened::Failed,
        _not_offered => Opened::NotOffered,
    }
}

/// Where the standing stream of a session is.
struct Place {
    /// The session that it is of: another one has another stream.
    established: Weak<Established>,
    trail: Trail,
}

impl Place {
    fn new(remote: &Remote) -> Self {
        Self { established: Weak::new(), trail: Trail::new(remote.limits.resume) }
    }

    fn is_of(&mut self, established: &Arc<Established>) {
        if !std::ptr::eq(self.established.as_ptr(), Arc::as_ptr(established)) {
            self.established = Arc::downgrade(established);
            self.trail.lose();
        }
    }

    /// Opens the stream where it is; and whether nothing was lost in between.
    async fn open(&mut self, remote: &Remote, established: &Arc<Established>) -> (Opened, bool) {
        self.is_of(established);
        let Some(last_event) = self.trail.last_event() else {
            return (open(remote, established, None).await, false);
        };
        self.trail.attempts += 1;
        let opened = open(remote, established, Some(last_event)).await;
        match opened {
            Opened::Stream(_) => {
                metrics::counter!("metamcpd_upstream_streams_resumed_total").increment(1);
                self.trail.resumed();
                self.trail.attempts = 0;
                (opened, true)
            }
            // It does not know the event, or is tried in vain for too long.
            Opened::NotOffered => {
                self.trail.lose();
                (open(remote, established, None).await, false)
            }
            Opened::Failed | Opened::Forgotten => {
                if self.trail.is_exhausted() {
                    self.trail.lose();
                }
                (opened, false)
            }
        }
    }

    /// How long to wait before it is opened again.
    fn rest(&self, rest: Duration) -> Duration {
        self.trail.asked_rest().map_or(rest, |asked| asked.max(rest))
    }
}

/// Takes what comes until the stream ends, in order.
async fn read(
    remote: &Arc<Remote>,
    session: &Arc<RemoteSession>,
    body: &mut Body,
    place: &mut Place,
) {
    let frames = remote.frames();
    let mut reader = sse::Reader::new(frames.message_max);
    while let Some(Ok(chunk)) = body.chunk().await {
        let Ok(events) = reader.push(&chunk) else { return };
        for event in events {
            let Some(data) = place.trail.follow(event) else { continue };
            beside::hear(remote, session, data).await;
        }
    }
}

// === The gateway's own ===

/// Holds the standing stream of the gateway's own session, where announcements come.
pub async fn listen(remote: &Arc<Remote>) -> Infallible {
    let mut rest = REST.0;
    let mut place = Place::new(remote);
    let mut is_again = false;
    loop {
        let began = Instant::now();
        if let Held::NotOffered = hold_own(remote, &mut place, is_again).await {
            for (_, announces) in remote.signals.announces.iter() {
                announces.store(false, Ordering::Relaxed);
            }
            return std::future::pending().await;
        }
        if began.elapsed() > REST.1 {
            rest = REST.0;
        }
        sleep(place.rest(rest)).await;
        rest = (rest * 2).min(REST.1);
        is_again = true;
    }
}

enum Held {
    NotOffered,
    Ended,
}

async fn hold_own(remote: &Arc<Remote>, place: &mut Place, is_again: bool) -> Held {
    let Some(session) = remote.known_session(&SessionKey::Shared) else { return Held::Ended };
    let Some(established) = session.established() else { return Held::Ended };
    let (opened, is_whole) = place.open(remote, &established).await;
    if is_again && !is_whole {
        // What was announced in between is lost, so the lists are looked at again.
        remote.signals.changed.presume_all();
    }
    match opened {
        Opened::Stream(mut body) => {
            read(remote, &session, &mut body, place).await;
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
    let body = match timeout(patience, open(remote, established, None)).await {
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
        let mut place = Place::new(remote);
        if let Some(established) = session.established() {
            place.is_of(&established);
        }
        loop {
            failpoint::pass("standing");
            if body.is_none()
                && let Some(established) = session.established()
            {
                match place.open(remote, &established).await.0 {
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
                read(remote, session, &mut body, &mut place).await;
            }
            if began.elapsed() > REST.1 {
                rest = REST.0;
            }
            sleep(place.rest(rest)).await;
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
