//! The HTTP side of answers: bodies in, statuses and headers out.

use std::io::ErrorKind;

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::SizedStream,
    error::PayloadError,
    http::{StatusCode, header},
    web,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};

use crate::{
    aside::{IN_PLACE_MAX, aside},
    failpoint,
    session::Session,
    wire::{Bad, Fault, ListCounts, message},
};

const JSON: header::HeaderValue = header::HeaderValue::from_static("application/json");

/// A request that is answered by an error, and by nothing else.
pub struct Refusal {
    status: StatusCode,
    fault: Box<Fault>,
    id: Option<Bytes>,
}

impl Refusal {
    pub fn new(status: StatusCode, fault: Fault, id: Option<&[u8]>) -> Self {
        Self { status, fault: Box::new(fault), id: id.map(Bytes::copy_from_slice) }
    }

    /// The request itself is wrong, before its id was read.
    pub fn invalid(status: StatusCode, why: impl Into<String>) -> Self {
        Self::new(status, Fault::invalid_request(why), None)
    }

    pub fn response(&self) -> HttpResponse {
        let mut response = json(self.status, self.fault.to_bytes(self.id.as_deref()));
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let seconds = header::HeaderValue::from_static("5");
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<Bad> for Refusal {
    fn from(bad: Bad) -> Self {
        let id = match &bad {
            Bad::Invalid { id, .. } => id.as_deref(),
            Bad::Json(_) | Bad::Unanswerable => None,
        };
        Self::new(StatusCode::BAD_REQUEST, Fault::from(&bad), id)
    }
}

/// Reads a body. How slowly it may come is judged by whoever hands it over.
pub async fn read_body(mut payload: web::Payload, max: usize) -> Result<Bytes, Refusal> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(unread)?;
        if body.len() + chunk.len() > max {
            let why = format!("the body is larger than {max} bytes (`server.body_max`)");
            return Err(Refusal::invalid(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Reads the message, or the messages, that a body is. A long one is read where nobody else waits for that.
pub async fn read_aside<T: Send + 'static>(
    body: Bytes,
    read: impl FnOnce(Bytes) -> T + Send + 'static,
) -> T {
    if body.len() <= IN_PLACE_MAX { read(body) } else { aside(move || read(body)).await }
}

fn unread(error: PayloadError) -> Refusal {
    match error {
        PayloadError::Io(error) if error.kind() == ErrorKind::TimedOut => {
            let why = "the body came too slowly (`server.body_timeout`, `server.body_rate_min`)";
            Refusal::invalid(StatusCode::REQUEST_TIMEOUT, why)
        }
        error => {
            let why = format!("the body could not be read: {error}");
            Refusal::invalid(StatusCode::BAD_REQUEST, why)
        }
    }
}

/// Whether the body is said to be JSON.
pub fn is_json(request: &HttpRequest) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    })
}

/// What a client says it can read. Silence means everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    pub json: bool,
    pub events: bool,
}

impl Accepts {
    pub fn of(request: &HttpRequest) -> Self {
        let mut values = request.headers().get_all(header::ACCEPT).peekable();
        if values.peek().is_none() {
            return Self { json: true, events: true };
        }
        let mut accepts = Self { json: false, events: false };
        for value in values.filter_map(|value| value.to_str().ok()) {
            for kind in value.split(',') {
                let kind = kind.split(';').next().unwrap_or_default().trim();
                let is_any_of =
                    |known: &[&str]| known.iter().any(|known| kind.eq_ignore_ascii_case(known));
                accepts.json |= is_any_of(&["*/*", "application/json", "application/*"]);
                accepts.events |= is_any_of(&["*/*", "text/event-stream", "text/*"]);
            }
        }
        accepts
    }
}

pub fn json(status: StatusCode, body: Bytes) -> HttpResponse {
    with_body(HttpResponse::build(status).content_type(JSON), body)
}

/// A response with a body of any length. A long one goes out in pieces: whole, it would be copied for its
/// connection at once, and written for as long as its client reads, while the others of the thread wait.
pub fn with_body(response: &mut HttpResponseBuilder, body: Bytes) -> HttpResponse {
    if body.len() <= IN_PLACE_MAX {
        return response.body(body);
    }
    response.body(SizedStream::new(body.len() as u64, pieces(body)))
}

fn pieces(body: Bytes) -> impl Stream<Item = Result<Bytes, actix_web::Error>> + 'static {
    /// What the buffer of a connection takes at once.
    const PIECE: usize = 32 << 10;
    futures_util::stream::unfold((body, 0_usize), async |(mut body, sent)| {
        if body.is_empty() {
            return None;
        }
        let piece = body.split_to(PIECE.min(body.len()));
        let sent = match sent + piece.len() {
            sent if sent < IN_PLACE_MAX => sent,
            _ => {
                tokio::task::yield_now().await;
                0
            }
        };
        Some((Ok(piece), (body, sent)))
    })
}

/// A stream of events that no proxy is to hold back.
pub fn events() -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-cache, no-transform"))
        .insert_header(("X-Accel-Buffering", "no"));
    response
}

/// Tells a session of the lists that have changed since it last saw them. From then on it has been
/// told.
pub fn announce(session: &Session, counts: &ListCounts) {
    for topic in session.unseen(counts) {
        session.saw_list(topic, counts);
        session.push(message::notification(topic.changed_method(), b""));
    }
}

/// Makes a stream of what `next` gives until it gives nothing.
pub fn stream_of<S: 'static>(
    state: S,
    next: impl AsyncFn(&mut S) -> Option<Bytes> + 'static,
) -> impl Stream<Item = Result<Bytes, actix_web::Error>> + 'static {
    let next = std::rc::Rc::new(next);
    futures_util::stream::unfold(state, move |mut state| {
        let next = next.clone();
        async move {
            failpoint::pass("stream");
            next(&mut state).await.map(|bytes| (Ok(bytes), state))
        }
    })
}

pub fn not_implemented() -> HttpResponse {
    let body = r#"{"code":"not_implemented","message":"tools over plain HTTP are not served by this version","details":[]}"#;
    json(StatusCode::NOT_IMPLEMENTED, Bytes::from_static(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_client_can_read_is_understood() {
        for (accept, json, events) in [
            ("application/json, text/event-stream", true, true),
            ("application/json", true, false),
            ("text/event-stream;q=0.5", false, true),
            ("*/*", true, true),
            ("text/html", false, false),
            ("APPLICATION/JSON;charset=utf-8", true, false),
        ] {
            let request =
                TestRequest::default().insert_header(("accept", accept)).to_http_request();
            assert_eq!(Accepts::of(&request), Accepts { json, events }, "{accept}");
        }
        let silent = TestRequest::default().to_http_request();
        assert_eq!(Accepts::of(&silent), Accepts { json: true, events: true });
    }

    /// A media range, and whether it takes JSON and events.
    fn range() -> impl Strategy<Value = (String, bool, bool)> {
        let known = prop_oneof![
            Just(("*/*", true, true)),
            Just(("application/json", true, false)),
            Just(("application/*", true, false)),
            Just(("text/event-stream", false, true)),
            Just(("Text/*", false, true)),
            Just(("text/html", false, false)),
            Just(("application/jsonp", false, false)),
            Just(("", false, false)),
        ];
        (known, "[ \t]?", "(;q=0\\.5|; charset=x|;)?").prop_map(
            |((name, json, events), pad, rest)| (format!("{pad}{name}{pad}{rest}"), json, events),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_client_reads_what_any_of_its_ranges_takes(
            headers in proptest::collection::vec(proptest::collection::vec(range(), 1..4), 1..3),
        ) {
            let mut request = TestRequest::default();
            for ranges in &headers {
                let texts: Vec<&str> = ranges.iter().map(|(text, _, _)| text.as_str()).collect();
                request = request.append_header(("accept", texts.join(",")));
            }
            let all = || headers.iter().flatten();
            let expected = Accepts {
                json: all().any(|(_, json, _)| *json),
                events: all().any(|(_, _, events)| *events),
            };
            prop_assert_eq!(Accepts::of(&request.to_http_request()), expected);
        }

        #[test]
        fn no_header_at_all_is_a_panic(bytes in proptest::collection::vec(0x20_u8.., 0..60)) {
            if let Ok(value) = header::HeaderValue::from_bytes(&bytes) {
                let request = TestRequest::default().insert_header((header::ACCEPT, value.clone()));
                let request = request.insert_header((header::CONTENT_TYPE, value)).to_http_request();
                Accepts::of(&request);
                is_json(&request);
            }
        }
    }
}
