//! HTTP+SSE (2024-11-05) as a client: POSTs up, and one stream down that is the session.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use tokio::{
    sync::oneshot,
    time::{timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use super::{
    Ear, HANDSHAKE_PATIENCE, TELL_PATIENCE,
    caller::{ACCEPT_BOTH, ACCEPT_EVENTS, Caller, Events, Marks, is_events},
    failure::Failure,
    streamable::message_of,
};
use crate::wire::{Frame, Kind};

/// A stream that is open, and the requests whose answers it is to bring.
pub struct EventStream {
    /// Where messages go, as the server said it.
    post_url: Uri,
    waiting: Mutex<HashMap<Bytes, oneshot::Sender<Frame>>>,
    /// Cancelled when the stream has ended, and to end it.
    pub closed: CancellationToken,
}

impl EventStream {
    /// Opens the stream and learns where messages go.
    pub async fn open(
        caller: &Arc<Caller>,
        url: &Url,
        uri: &Uri,
        ear: Ear,
        tasks: &TaskTracker,
        ending: &CancellationToken,
    ) -> Result<Arc<Self>, Failure> {
        let deadline = tokio::time::Instant::now() + HANDSHAKE_PATIENCE;
        let late = |_elapsed| Failure::Broken { why: "it did not answer in time".into() };
        let marks = Marks::default();
        let opening = caller.send(Method::GET, uri, ACCEPT_EVENTS, &marks, Bytes::new());
        let response = timeout_at(deadline, opening).await.map_err(late)??;
        if response.status() != StatusCode::OK {
            // Nobody has an id here, so what is not refused is a status.
            return match caller.refusal(response, false, None).await {
                Ok(_) => Err(Failure::bad("the stream was refused")),
                Err(failure) => Err(failure),
            };
        }
        if !is_events(response.headers()) {
            return Err(Failure::bad("it is no stream of events"));
        }
        let mut events = caller.events(response.into_body());
        let first = async {
            while let Some(event) = events.next().await? {
                if event.event == "endpoint" {
                    return Ok(event.data);
                }
            }
            Err(Failure::bad("the stream did not say where messages go"))
        };
        let place = timeout_at(deadline, first).await.map_err(late)??;
        let stream = Arc::new(Self {
            post_url: post_url(url, &place)?,
            waiting: Mutex::default(),
            closed: CancellationToken::new(),
        });
        let (reading, ending) = (stream.clone(), ending.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = reading.closed.cancelled() => {}
                () = reading.read(events, ear) => {}
            }
            reading.close();
        });
        Ok(stream)
    }

    async fn read(&self, mut events: Events, ear: Ear) {
        loop {
            match events.next().await {
                Ok(Some(event)) => {
                    let Some(frame) = message_of(event) else { continue };
                    let is_answer = matches!(frame.kind(), Kind::Result | Kind::Error);
                    match frame.id().filter(|_| is_answer).and_then(|id| self.lock().remove(id)) {
                        // Whoever waited may have given up meanwhile.
                        Some(waits) => drop(waits.send(frame)),
                        None if is_answer => tracing::debug!("an answer that nobody waits for"),
                        None => ear.hear(frame).await,
                    }
                }
                Ok(None) => return,
                Err(failure) => {
                    tracing::debug!(%failure, "the stream broke");
                    return;
                }
            }
        }
    }

    /// Everyone who waits hears that there will be no answer.
    fn close(&self) {
        self.closed.cancel();
        self.lock().clear();
    }

    /// Posts a request and waits for its answer on the stream.
    pub async fn exchange(&self, caller: &Caller, request: &Frame) -> Result<Frame, Failure> {
        let Some(id) = request.id().map(Bytes::copy_from_slice) else {
            return Err(Failure::bad("a request without an id"));
        };
        let (answered, answer) = oneshot::channel();
        self.lock().insert(id.clone(), answered);
        let _waiting = Waiting { stream: self, id };
        if self.closed.is_cancelled() {
            return Err(Failure::SessionGone);
        }
        self.post(caller, request.bytes().clone(), Duration::MAX).await?;
        answer.await.map_err(|_closed| Failure::Broken { why: "the stream ended".into() })
    }

    /// Posts what has no answer.
    pub async fn tell(&self, caller: &Caller, message: Bytes) -> Result<(), Failure> {
        self.post(caller, message, TELL_PATIENCE).await
    }

    async fn post(
        &self,
        caller: &Caller,
        message: Bytes,
        patience: Duration,
    ) -> Result<(), Failure> {
        let marks = Marks::default();
        let sending = caller.send(Method::POST, &self.post_url, ACCEPT_BOTH, &marks, message);
        let response = tokio::select! {
            sent = timeout(patience, sending) => {
                sent.map_err(|_elapsed| Failure::Broken { why: "it took no notice".into() })??
            }
            () = self.closed.cancelled() => {
                return Err(Failure::Broken { why: "the stream ended".into() });
            }
        };
        if response.status().is_success() {
            return Ok(());
        }
        let refused = caller.refusal(response, true, None).await;
        Err(refused.err().unwrap_or_else(|| Failure::bad("the message was refused")))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Bytes, oneshot::Sender<Frame>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a request out of the table when nobody waits for it any more.
struct Waiting<'a> {
    stream: &'a EventStream,
    id: Bytes,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.stream.lock().remove(&self.id);
    }
}

/// Where messages go. Only to the origin that was asked: the key goes with them.
fn post_url(base: &Url, place: &[u8]) -> Result<Uri, Failure> {
    let place = String::from_utf8_lossy(place);
    let url = base
        .join(place.trim())
        .map_err(|error| Failure::bad(format!("where messages go cannot be read: {error}")))?;
    if url.origin() != base.origin() {
        return Err(Failure::bad("messages are to go to another origin, which is not followed"));
    }
    url.as_str().parse().map_err(|error| Failure::bad(format!("where messages go: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn messages_go_to_the_same_origin_and_nowhere_else() {
        let base = Url::parse("https://a.example/x/sse").unwrap();
        for (place, expected) in [
            ("/x/message?sessionId=1", Some("https://a.example/x/message?sessionId=1")),
            ("message", Some("https://a.example/x/message")),
            ("https://a.example:443/m", Some("https://a.example/m")),
            ("https://b.example/m", None),
            ("http://a.example/m", None),
            ("//b.example/m", None),
        ] {
            let read = post_url(&base, place.as_bytes()).ok().map(|url| url.to_string());
            assert_eq!(read.as_deref(), expected, "{place}");
        }
    }
}
