//! The standing streams of a remote upstream's sessions, where it says what belongs to no request.
//!
//! That of the gateway's own session is held as long as the worker lives. That of a client's session
//! is held while the client can hear what comes by it: while a call of it is under way or it listens,
//! and for a moment longer, so that one call after another does not open one each. One that broke off is
//! taken up where it was, if its events had ids. No server has to say then what it has said meanwhile, and
//! none says whether it does: so the lists are looked at after every break.

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
    authorizing::{NoToken, SendError},
    beside, credential,
    dialects::{REFUSAL_MAX, has_forgotten},
    messages::parse,
    remote::{Remote, TELL_PATIENCE},
    remote_session::{Established, RemoteSession},
    resubscription,
    trail::Trail,
};
use crate::{
    egress::Body,
    failpoint,
    upstream::exchange::SessionKey,
    wire::{Kind, sse},
};

/// The rest before a standing stream that has ended is opened again, which doubles up to the last.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long a call waits for the stream of its session.
const OPEN_PATIENCE: Duration = Duration::from_secs(2);

/// How long a client's stream is held beyond its last use.
const LINGER: Duration = Duration::from_secs(5);

enum Opened {
    Stream(Box<Body>),
    /// By nobody, and never.
    NotOffered,
    /// For a reason that may be this session's, or be gone another time.
    Refused,
    Forgotten,
    Failed,
}

/// Opens a stream, or what is left of one after an event of it.
async fn open(
    remote: &Remote,
    established: &Established,
    last_event: Option<HeaderValue>,
) -> Opened {
    let is_resumption = last_event.is_some();
    let sent = remote.listen(Some(established), last_event, None).await;
    let response = match sent {
        Ok(response) => response,
        Err(error) => {
            if let SendError::Token(NoToken::GivenUp(_)) = error {
                remote.signals.unauthorized.notify_one();
            }
            return Opened::Failed;
        }
    };
    match response.status() {
        StatusCode::OK => Opened::Stream(Box::new(response.into_body())),
        StatusCode::UNAUTHORIZED => {
            remote.signals.note_challenge(credential::challenge(response.headers()));
            remote.signals.unauthorized.notify_one();
            Opened::Failed
        }
        StatusCode::NOT_FOUND | StatusCode::GONE if established.is_named() => Opened::Forgotten,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            Opened::NotOffered
        }
        // Not now is not never: some have no second stream while they take the first for whole.
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS => Opened::Failed,
        status if status.is_server_error() => Opened::Failed,
        // It may be about the event.
        _refused if is_resumption => Opened::Refused,
        status => {
            let reading = response.into_body().collect(REFUSAL_MAX);
            let body = timeout(TELL_PATIENCE, reading).await.ok().and_then(Result::ok);
            match has_forgotten(status, &body.unwrap_or_default(), established.is_named()) {
                true => Opened::Forgotten,
                false => Opened::Refused,
            }
        }
    }
}

/// Where the standing stream of a session is.
struct Place {
    /// The session that it is of: another one has another stream.
    established: Weak<Established>,
    trail: Trail,
    /// The one that was opened since the stream of the one before was not to be had, until it has a stream.
    renewed: Weak<Established>,
}

impl Place {
    fn new(remote: &Remote) -> Self {
        let trail = Trail::new(remote.limits.resume);
        Self { established: Weak::new(), trail, renewed: Weak::new() }
    }

    fn is_of(&mut self, established: &Arc<Established>) {
        if !std::ptr::eq(self.established.as_ptr(), Arc::as_ptr(established)) {
            self.established = Arc::downgrade(established);
            self.trail.lose();
        }
    }

    /// Opens the stream where it is.
    async fn open(&mut self, remote: &Remote, established: &Arc<Established>) -> Opened {
        self.is_of(established);
        let Some(last_event) = self.trail.last_event() else {
            return open(remote, established, None).await;
        };
        self.trail.attempts += 1;
        let opened = open(remote, established, Some(last_event)).await;
        match opened {
            Opened::Stream(_) => {
                metrics::counter!("metamcpd_upstream_streams_resumed_total").increment(1);
                self.trail.resumed();
                self.trail.attempts = 0;
                opened
            }
            // It does not know the event.
            Opened::NotOffered | Opened::Refused => {
                self.trail.lose();
                open(remote, established, None).await
            }
            Opened::Failed | Opened::Forgotten => {
                if self.trail.is_exhausted() {
                    self.trail.lose();
                }
                opened
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
            let Some(said) = place.trail.follow(event) else { continue };
            let parsed = parse(said.data.clone(), frames.depth_max).await;
            let is_notification =
                parsed.as_ref().is_ok_and(|frame| frame.kind() == Kind::Notification);
            // A notification that is heard twice does no harm, and one that is like another may be news.
            if !is_notification && said.once().is_none() {
                continue;
            }
            match parsed {
                Ok(frame) => beside::take(remote, session, frame),
                Err(bad) => beside::refuse(remote, session, &bad),
            }
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
        match hold_own(remote, &mut place, is_again).await {
            Held::NotOffered => {
                remote.hears_announcements(None);
                return std::future::pending().await;
            }
            Held::Refused => remote.hears_announcements(None),
            Held::Ended => {}
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
    Refused,
    Ended,
}

async fn hold_own(remote: &Arc<Remote>, place: &mut Place, is_again: bool) -> Held {
    let Some(session) = remote.known_session(&SessionKey::Shared) else { return Held::Ended };
    let Some(established) = session.established() else { return Held::Ended };
    if is_again && remote.signals.relies_on_announcements() {
        // What was announced in between may be lost. It may be long until there is a stream: some servers
        // answer only when there is something to say.
        remote.signals.changed.presume_all();
    }
    match place.open(remote, &established).await {
        Opened::Stream(mut body) => {
            place.renewed = Weak::new();
            if is_again {
                remote.hears_announcements(Some(&established.introduction));
                remote.signals.changed.presume_all();
            }
            read(remote, &session, &mut body, place).await;
            remote.signals.suspect.notify_one();
            Held::Ended
        }
        // It says so of whatever stream it is asked for, rather than of a session.
        Opened::Forgotten if std::ptr::eq(place.renewed.as_ptr(), Arc::as_ptr(&established)) => {
            Held::Refused
        }
        Opened::Forgotten => {
            // One stands in line to make it anew.
            match session.open(remote, Some(&established)).await {
                Ok(renewed) => place.renewed = Arc::downgrade(&renewed),
                Err(exit) => {
                    tracing::debug!(server = %remote.server, ?exit, "the session was not made anew");
                    remote.signals.suspect.notify_one();
                }
            }
            Held::Ended
        }
        Opened::Failed => Held::Ended,
        Opened::Refused => Held::Refused,
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
        Ok(Opened::Refused | Opened::Forgotten | Opened::Failed) => return,
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
                match place.open(remote, &established).await {
                    Opened::Stream(opened) => body = Some(opened),
                    // Nobody may call for long, and what was subscribed to is not heard of until then.
                    Opened::Forgotten if remote.belonging.subscriptions.has(&session.key) => {
                        resubscription::open_again(remote, session, &established).await;
                    }
                    _not_now => {}
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
