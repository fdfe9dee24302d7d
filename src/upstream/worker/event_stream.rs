//! HTTP+SSE (2024-11-05) as a client: one stream down, on which every answer comes, and POSTs up.
//!
//! The stream is the session: with it end the calls that wait for it. It is read by one task, and
//! what is said past any call is POSTed by the same; a call POSTs its request itself, so that it
//! hears at once when the server does not take it. Who waits for which answer is `pipe`'s affair.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use tokio::{
    sync::{SetOnce, mpsc},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use super::{
    authorizing::NoToken,
    belonging::Belonging,
    carry_out, credential,
    dialects::{REFUSAL_MAX, has_forgotten},
    messages::{Kindred, kindred, parse},
    opening::{Unopened, not_connected, refusal},
    remote::{Remote, TELL_PATIENCE},
    remote_session::{Established, RemoteSession, Way},
};
use crate::{
    egress::{Begun, Body},
    upstream::{
        CallError, Exit, Reason,
        attribution::Client,
        exchange::Heard,
        handshake::{self, excerpt},
        pipe::{Pipe, PipeLeg},
    },
    wire::{Bad, Fault, Frame, capabilities::ClientCapabilities, message, sse},
};

/// One stream. When this value is dropped, the stream is closed.
pub struct EventStream {
    /// Where messages go, as the server said it.
    pub place: Uri,
    pipe: Arc<Pipe>,
    /// Why it has ended.
    ended: Arc<SetOnce<Arc<str>>>,
    ending: CancellationToken,
    _guard: DropGuard,
}

/// Opens a stream, learns where messages go, and shakes hands.
pub async fn open(remote: &Arc<Remote>, session: &RemoteSession) -> Result<Established, Unopened> {
    let response = remote
        .exchange(Method::GET, "text/event-stream", None, Bytes::new(), None)
        .await
        .map_err(not_connected)?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(refusal(status, response.headers(), "GET"));
    }
    if kindred(response.headers()) != Kindred::Events {
        let why = "GET was not answered by a stream of events (`text/event-stream`)";
        return Err(Unopened::Foreign(Exit::new(Reason::HttpStatus, why)));
    }
    let reader = sse::Reader::new(remote.frames().message_max);
    let mut events = Events { body: response.into_body(), reader };
    let first = timeout(remote.limits.endpoint_wait, events.endpoint()).await;
    let silent = "the stream did not say where messages go (no `endpoint` event)";
    let (place, rest) = match first {
        Ok(Ok(found)) => found,
        Ok(Err(why)) => return Err(Exit::new(Reason::HandshakeFailed, why).into()),
        Err(_elapsed) => {
            return Err(Unopened::Foreign(Exit::new(Reason::HttpStatus, silent)));
        }
    };
    let place = message_url(&remote.address.url, &place)
        .map_err(|why| Exit::new(Reason::HandshakeFailed, why))?;

    let (queue_max, dialogue) = (remote.limits.queue_max, session.dialogue.clone());
    let (pipe, queue) = Pipe::new(remote.server.clone(), queue_max, dialogue);
    let (ended, ending) = (Arc::new(SetOnce::new()), CancellationToken::new());
    let reading = Reading {
        place: place.clone(),
        closing: Closing { pipe: pipe.clone(), remote: remote.clone(), ended: ended.clone() },
        ending: ending.clone(),
    };
    actix::spawn(remote.tasks.track_future(reading.run(events, rest, queue)));
    let guard = ending.clone().drop_guard();
    let stream = EventStream { place, pipe, ended, ending, _guard: guard };
    let introduction = handshake::introduction(&stream.greet(remote, session.declared).await?)?;
    Ok(Established { introduction, way: Way::Stream(stream) })
}

impl EventStream {
    pub fn is_over(&self) -> bool {
        self.ended.initialized()
    }

    /// Waits until the stream has ended, and says why.
    pub fn lost(&self) -> impl Future<Output = Arc<str>> + use<> {
        let ended = self.ended.clone();
        async move { ended.wait().await.clone() }
    }

    /// Closes the stream. Whoever waits for an answer on it hears why.
    pub fn end(&self, why: &str) {
        if self.ended.set(why.into()).is_ok() {
            self.ending.cancel();
        }
    }

    /// `initialize`, and its answer.
    async fn greet(
        &self,
        remote: &Arc<Remote>,
        declared: ClientCapabilities,
    ) -> Result<Frame, Exit> {
        let failed = |why: String| Exit::new(Reason::HandshakeFailed, why);
        let id = remote.next_id();
        let message = message::request(id, "initialize", &handshake::initialize_params(declared));
        let leg = self
            .pipe
            .enter(id, None, None, remote.limits.opening_patience)
            .map_err(|error| failed(error.to_string()))?;
        let (server, place, pipe) = (remote.clone(), self.place.clone(), self.pipe.clone());
        let posting = async move {
            let response = server.post_to(&place, message).await.map_err(Refused::Failed)?;
            judge(&server, &pipe, response).await
        };
        let mut leg = StreamLeg { leg, posting: Some(Box::pin(posting)), is_lost: false };
        match leg.next().await {
            Ok(Heard::Reply(answer)) => Ok(answer),
            Ok(Heard::Failed(error)) => Err(failed(error.to_string())),
            Ok(Heard::Progress(_) | Heard::Asked(_) | Heard::Said(_)) => {
                Err(failed("`initialize` was answered by something else".into()))
            }
            Err(Refused::Forgotten { status }) => {
                Err(failed(format!("the stream's own session is unknown (HTTP status {status})")))
            }
            Err(Refused::Failed(
                CallError::Unauthorized { .. } | CallError::HttpStatus { status: 403, .. },
            )) => Err(Exit::new(
                Reason::Unauthorized,
                "messages are refused for want of a credential",
            )),
            Err(Refused::Failed(CallError::InsufficientScope { scope, .. })) => {
                Err(Exit::for_want_of(scope))
            }
            Err(Refused::Failed(CallError::NoToken { why, .. })) => {
                Err(NoToken::Failed(why).exit())
            }
            Err(Refused::Failed(error)) => Err(failed(error.to_string())),
        }
    }
}

// === A call ===

/// Why the server did not take a request.
pub enum Refused {
    /// It does not know the session (any more), so that nothing was executed.
    Forgotten {
        status: StatusCode,
    },
    Failed(CallError),
}

type Posting = Pin<Box<dyn Future<Output = Result<(), Refused>>>>;

/// One call whose answer is to come by the stream.
pub struct StreamLeg {
    leg: PipeLeg,
    /// The POST, until the server has taken it. Its answer can be earlier.
    posting: Option<Posting>,
    /// Whether the stream has ended, so that only the POST has still something to say.
    is_lost: bool,
}

impl StreamLeg {
    /// Makes ready to send a request under its id. `established` must have a stream.
    pub fn begin(
        remote: &Arc<Remote>,
        established: &Arc<Established>,
        stream: &EventStream,
        client: Option<Client>,
        id: u64,
        message: Bytes,
        begun: Begun,
    ) -> Result<Self, CallError> {
        // How long it waits is up to whoever holds it: it is forgotten with this value.
        let leg = stream.pipe.enter(id, client, None, remote.limits.opening_patience)?;
        let (remote, pipe) = (remote.clone(), stream.pipe.clone());
        let established = established.clone();
        let posting = async move {
            let sending = remote.post_call(&established, message, &begun);
            let response = sending.await.map_err(Refused::Failed)?;
            judge(&remote, &pipe, response).await
        };
        Ok(Self { leg, posting: Some(Box::pin(posting)), is_lost: false })
    }

    /// What the call hears next. Safe to be dropped while it waits.
    pub async fn next(&mut self) -> Result<Heard, Refused> {
        loop {
            let Some(posting) = &mut self.posting else { return Ok(self.leg.next().await) };
            let heard = tokio::select! {
                biased;
                heard = self.leg.next(), if !self.is_lost => heard,
                taken = posting => {
                    self.posting = None;
                    taken?;
                    continue;
                }
            };
            let Heard::Failed(lost) = heard else { return Ok(heard) };
            // What the server did not take was not executed, whatever became of the stream.
            let posting = self.posting.take();
            self.is_lost = true;
            self.posting = Some(Box::pin(async move {
                let Some(posting) = posting else { return Err(Refused::Failed(lost)) };
                match timeout(TELL_PATIENCE, posting).await {
                    Ok(Err(refused)) => Err(refused),
                    Ok(Ok(())) | Err(_) => Err(Refused::Failed(lost)),
                }
            }));
        }
    }

    /// What else the server says of a call that was answered by a task.
    pub async fn aside(&mut self) -> Heard {
        self.leg.aside().await
    }

    pub fn cancel(&mut self, reason: &str) {
        self.leg.cancel(reason);
    }
}

impl Drop for StreamLeg {
    fn drop(&mut self) {
        self.leg.leave();
    }
}

/// What the answer to a POST says about it. 202 is due (2024-11-05); 200 and 204 are said as well, and
/// some servers answer the request itself there.
async fn judge(
    remote: &Remote,
    pipe: &Arc<Pipe>,
    response: http::Response<Body>,
) -> Result<(), Refused> {
    let status = response.status();
    let server = remote.server.clone();
    if status.is_success() {
        // Read to its end, so that the connection can be used again.
        let body =
            timeout(TELL_PATIENCE, response.into_body().collect(remote.frames().message_max));
        if let Ok(Ok(body)) = body.await
            && let Ok(frame) = parse(body, remote.frames().depth_max).await
            && frame.method().is_none()
        {
            drop(pipe.hear(frame));
        }
        return Ok(());
    }
    if status == StatusCode::UNAUTHORIZED {
        remote.signals.note_challenge(credential::challenge(response.headers()));
        remote.signals.unauthorized.notify_one();
        return Err(Refused::Failed(CallError::unauthorized(server)));
    }
    credential::lacks_scope(remote, status, response.headers()).map_err(Refused::Failed)?;
    let body = timeout(TELL_PATIENCE, response.into_body().collect(REFUSAL_MAX)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    match has_forgotten(status, &body, true) {
        true => Err(Refused::Forgotten { status }),
        false => Err(Refused::Failed(CallError::HttpStatus { server, status: status.as_u16() })),
    }
}

// === The stream's own task ===

struct Reading {
    place: Uri,
    closing: Closing,
    ending: CancellationToken,
}

/// Ends the calls that wait for a stream, however its task ends.
struct Closing {
    pipe: Arc<Pipe>,
    remote: Arc<Remote>,
    ended: Arc<SetOnce<Arc<str>>>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        // Whoever ended it before has said why.
        drop(self.ended.set("its reader was ended".into()));
        let (server, reason) = (self.remote.server.clone(), Reason::Unreachable);
        let detail = self.ended.get().map(|why| why.to_string());
        let lost = CallError::Ended { server, reason, detail };
        self.pipe.close(self.remote.why_closed().unwrap_or(lost));
    }
}

impl Reading {
    async fn run(self, events: Events, rest: Vec<sse::Event>, queue: mpsc::Receiver<Bytes>) {
        let why = tokio::select! {
            biased;
            () = self.ending.cancelled() => return,
            _ = self.closing.remote.closed() => return,
            why = self.read(events, rest) => why,
            () = self.write(queue) => return,
        };
        drop(self.closing.ended.set(why.into()));
    }

    /// Takes what the server says to whom it is for, until it says no more.
    async fn read(&self, mut events: Events, rest: Vec<sse::Event>) -> String {
        self.hear(rest).await;
        loop {
            match events.next().await {
                Ok(Some(events)) => self.hear(events).await,
                Ok(None) => return "its stream of events ended".into(),
                Err(why) => return format!("its stream of events broke: {why}"),
            }
        }
    }

    /// Nothing more is read before all of it is heard, so that it is heard in order.
    async fn hear(&self, events: Vec<sse::Event>) {
        let Closing { pipe, remote, .. } = &self.closing;
        let server = &remote.server;
        for event in events.into_iter().filter(|event| !event.data.is_empty()) {
            let frame = match parse(event.data, remote.frames().depth_max).await {
                Ok(frame) => frame,
                Err(error) => {
                    metrics::counter!("metamcpd_upstream_noise_total").increment(1);
                    tracing::debug!(%server, %error, "an event is no message");
                    if let Bad::Unanswerable = error {
                        pipe.say(Fault::from(&error).to_bytes(None));
                    }
                    continue;
                }
            };
            let aside = pipe.hear(frame);
            let Belonging { clients, id, .. } = &remote.belonging;
            let say = |answer| pipe.say(answer);
            carry_out(&**clients, *id, aside, &remote.signals.changed, say);
        }
    }

    /// POSTs what is said past any call, one after the other: their order may matter.
    async fn write(&self, mut queue: mpsc::Receiver<Bytes>) {
        while let Some(message) = queue.recv().await {
            let remote = &self.closing.remote;
            let server = &remote.server;
            match timeout(TELL_PATIENCE, remote.post_to(&self.place, message)).await {
                Ok(Ok(_taken)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%server, %error, "a message did not reach the upstream");
                }
                Err(_elapsed) => {
                    tracing::debug!(%server, "the upstream took no notice of a message");
                }
            }
        }
    }
}

/// The events of a body.
struct Events {
    body: Body,
    reader: sse::Reader,
}

impl Events {
    /// The events of the next piece. Safe to be dropped while it waits.
    async fn next(&mut self) -> Result<Option<Vec<sse::Event>>, String> {
        let Some(chunk) = self.body.chunk().await else { return Ok(None) };
        let chunk = chunk.map_err(|error| error.to_string())?;
        self.reader.push(&chunk).map(Some).map_err(|error| error.to_string())
    }

    /// Where messages go, and the events that came with the one that says so.
    async fn endpoint(&mut self) -> Result<(Bytes, Vec<sse::Event>), String> {
        loop {
            let Some(events) = self.next().await? else {
                return Err("the stream ended before it said where messages go".into());
            };
            let mut events = events.into_iter();
            if let Some(found) = events.find(|event| event.event == "endpoint") {
                return Ok((found.data, events.collect()));
            }
        }
    }
}

/// Where messages go. Only to the origin that the row names: the credential goes with them.
fn message_url(base: &Url, place: &[u8]) -> Result<Uri, String> {
    let text = String::from_utf8_lossy(place);
    let unreadable =
        |why: String| format!("where messages go cannot be read: `{}`: {why}", excerpt(place));
    let url = base.join(text.trim()).map_err(|error| unreadable(error.to_string()))?;
    if url.origin() != base.origin() {
        let theirs = url.origin().ascii_serialization();
        let ours = base.origin().ascii_serialization();
        return Err(format!(
            "it wants messages sent to {}, which is another origin than {ours}; a credential must \
             not go there, so give the server's own URL as `url`, or have it name its own origin",
            excerpt(theirs.as_bytes())
        ));
    }
    url.as_str().parse().map_err(|error: http::uri::InvalidUri| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn messages_go_to_the_origin_of_the_row_and_nowhere_else() {
        let base = Url::parse("https://a.example/x/sse?key=1").unwrap();
        for (place, expected) in [
            ("/x/message?sessionId=1", Some("https://a.example/x/message?sessionId=1")),
            ("message?sessionId=1", Some("https://a.example/x/message?sessionId=1")),
            ("?sessionId=1", Some("https://a.example/x/sse?sessionId=1")),
            (" https://A.example:443/m \r", Some("https://a.example/m")),
            ("https://b.example/m", None),
            ("http://a.example/m", None),
            ("https://a.example:444/m", None),
            ("https://a.example@b.example/m", None),
            ("//b.example/m", None),
            ("\\\\b.example\\m", None),
            ("data:,x", None),
        ] {
            let read = message_url(&base, place.as_bytes()).ok().map(|url| url.to_string());
            assert_eq!(read.as_deref(), expected, "{place}");
        }
        let why = message_url(&base, b"https://evil.example/m").unwrap_err();
        assert!(why.contains("https://evil.example") && why.contains("https://a.example"), "{why}");
    }
}
