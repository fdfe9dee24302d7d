//! Streamable HTTP (2025-03-26 and later) as a client: each message is a POST, and its answer one
//! body or a stream of events.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use tokio::time::{Instant, sleep, timeout};

use super::{
    DEPTH_MAX, Ear, Pause, TELL_PATIENCE,
    caller::{ACCEPT_BOTH, ACCEPT_EVENTS, Caller, Marks, is_events},
    failure::Failure,
};
use crate::{
    egress::Body,
    wire::{Frame, Kind, sse},
};

/// How often the stream of one answer is taken up again after it broke off (transports,
/// "Resumability"), and the longest rest that a server may ask for before it is.
const RESUMES_MAX: usize = 8;
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The answer to a request, and the headers that came with it.
pub struct Answer {
    pub frame: Frame,
    pub headers: HeaderMap,
}

/// Posts a request and waits for its answer. What comes before it is for the client too.
pub async fn exchange(
    caller: &Caller,
    url: &Uri,
    marks: &Marks,
    request: &Frame,
    ear: &Ear,
) -> Result<Answer, Failure> {
    let body = request.bytes().clone();
    let response = caller.send(Method::POST, url, ACCEPT_BOTH, marks, body).await?;
    let headers = response.headers().clone();
    if !response.status().is_success() {
        let in_session = marks.session.is_some();
        let frame = caller.refusal(response, in_session, request.id()).await?;
        return Ok(Answer { frame, headers });
    }
    if !is_events(&headers) {
        if response.status() != StatusCode::OK {
            let status = response.status().as_u16();
            return Err(Failure::bad(format!("the status {status} carries no answer")));
        }
        let frame = caller.message(response.into_body()).await?;
        return match is_answer(&frame, request) {
            true => Ok(Answer { frame, headers }),
            false => Err(Failure::bad("the body is not the answer to the request")),
        };
    }
    let frame = by_events(caller, url, marks, request, response, ear).await?;
    Ok(Answer { frame, headers })
}

/// Reads events up to the answer, and goes on where a stream broke off that can be taken up again.
async fn by_events(
    caller: &Caller,
    url: &Uri,
    marks: &Marks,
    request: &Frame,
    mut response: Response<Body>,
    ear: &Ear,
) -> Result<Frame, Failure> {
    let mut place = Place::default();
    for _ in 0..RESUMES_MAX {
        let why = match place.read(caller, response, request, ear).await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => "the stream ended without the answer".to_owned(),
            Err(Failure::Broken { why }) => why,
            Err(failure) => return Err(failure),
        };
        let Some(last_event) = place.last_event.clone() else {
            return Err(Failure::Broken { why });
        };
        sleep(place.retry).await;
        let marks = Marks { last_event: Some(last_event), ..marks.clone() };
        let taken_up = caller.send(Method::GET, url, ACCEPT_EVENTS, &marks, Bytes::new()).await;
        response = match taken_up {
            Ok(response) if response.status() == StatusCode::OK => response,
            // The request had been received, so this is not for sending it again.
            Ok(_) | Err(_) => return Err(Failure::Broken { why }),
        };
    }
    Err(Failure::Broken { why: format!("the stream broke off {RESUMES_MAX} times") })
}

/// How far a stream was read.
#[derive(Default)]
struct Place {
    last_event: Option<HeaderValue>,
    retry: Duration,
}

impl Place {
    async fn read(
        &mut self,
        caller: &Caller,
        response: Response<Body>,
        request: &Frame,
        ear: &Ear,
    ) -> Result<Option<Frame>, Failure> {
        let mut events = caller.events(response.into_body());
        while let Some(event) = events.next().await? {
            self.note(&event);
            let Some(frame) = message_of(event) else { continue };
            if is_answer(&frame, request) {
                return Ok(Some(frame));
            }
            ear.hear(frame).await;
        }
        Ok(None)
    }

    fn note(&mut self, event: &sse::Event) {
        if let Some(id) = &event.id {
            // An empty id takes the last one back (WHATWG HTML, 9.2.6).
            self.last_event = HeaderValue::from_str(id).ok().filter(|id| !id.is_empty());
        }
        if let Some(retry) = event.retry {
            self.retry = Duration::from_millis(retry).min(RETRY_MAX);
        }
    }
}

/// Posts what has no answer: a notification, or an answer of the client's.
pub async fn tell(
    caller: &Caller,
    url: &Uri,
    marks: &Marks,
    message: Bytes,
) -> Result<(), Failure> {
    let sending = caller.send(Method::POST, url, ACCEPT_BOTH, marks, message);
    let response = timeout(TELL_PATIENCE, sending)
        .await
        .map_err(|_elapsed| Failure::Broken { why: "it took no notice".into() })??;
    match response.status().is_success() {
        true => Ok(()),
        false => Err(Failure::of_status(response.status(), marks.session.is_some(), "")),
    }
}

/// Holds the standing stream for as long as the session lives, and opens it again when it ends.
/// Comes back only when the server says that it has forgotten the session.
pub async fn listen(caller: &Caller, url: &Uri, marks: &Marks, ear: &Ear) {
    let mut place = Place::default();
    let (mut pause, mut until_mended) = (Pause::default(), Pause::patient());
    loop {
        let marks = Marks { last_event: place.last_event.clone(), ..marks.clone() };
        let opened = caller.send(Method::GET, url, ACCEPT_EVENTS, &marks, Bytes::new()).await;
        match opened {
            Ok(response) if response.status() == StatusCode::OK => {
                let began = Instant::now();
                let mut events = caller.events(response.into_body());
                while let Ok(Some(event)) = events.next().await {
                    place.note(&event);
                    if let Some(frame) = message_of(event) {
                        ear.hear(frame).await;
                    }
                }
                // One that a server ends as soon as it is open is no sign that all is well.
                if began.elapsed() > Pause::MAX {
                    (pause, until_mended) = (Pause::default(), Pause::patient());
                }
                sleep(place.retry).await;
            }
            Ok(response) => {
                let status = response.status();
                match Failure::of_status(status, marks.session.is_some(), "") {
                    Failure::SessionGone => return,
                    failure if failure.is_passing() => {}
                    // A key can be switched on again, and the session is still there.
                    Failure::Unauthorized | Failure::Forbidden => {
                        until_mended.rest().await;
                        continue;
                    }
                    // Not every server offers one (transports, "Listening for Messages").
                    failure => {
                        tracing::debug!(%failure, "there is no standing stream");
                        return std::future::pending().await;
                    }
                }
            }
            Err(failure) => tracing::debug!(%failure, "the standing stream is not there"),
        }
        pause.rest().await;
    }
}

/// Ends the session, within the time of one message.
pub async fn end(caller: &Caller, url: &Uri, marks: &Marks) {
    if marks.session.is_none() {
        return;
    }
    let sending = caller.send(Method::DELETE, url, ACCEPT_BOTH, marks, Bytes::new());
    if !matches!(timeout(TELL_PATIENCE, sending).await, Ok(Ok(_taken))) {
        tracing::debug!("the endpoint did not hear that the session is over");
    }
}

/// The message of an event; one that only primes the stream has none.
pub fn message_of(event: sse::Event) -> Option<Frame> {
    let is_message = event.event.is_empty() || event.event == "message";
    if !is_message || event.data.is_empty() {
        return None;
    }
    match Frame::parse(event.data, DEPTH_MAX) {
        Ok(frame) => Some(frame),
        Err(error) => {
            tracing::warn!(%error, "an event of the endpoint is no message");
            None
        }
    }
}

pub fn is_answer(frame: &Frame, request: &Frame) -> bool {
    matches!(frame.kind(), Kind::Result | Kind::Error) && frame.id() == request.id()
}
