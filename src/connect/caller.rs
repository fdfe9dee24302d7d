//! The HTTP of the bridge: what is sent with every request, and bodies as the messages they hold.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use tokio::time::timeout;

use super::{DEPTH_MAX, failure::Failure};
use crate::{
    egress::{Body, Door},
    wire::{Frame, Kind, sse},
};

pub const SESSION_ID: &str = "mcp-session-id";
pub const ACCEPT_BOTH: &str = "application/json, text/event-stream";
pub const ACCEPT_EVENTS: &str = "text/event-stream";

/// Bytes of a body that explains a status, and how long it may take to arrive.
const EXPLANATION: (usize, Duration) = (64 * 1024, Duration::from_secs(5));

/// What marks a request as one of a session.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    pub session: Option<HeaderValue>,
    /// The revision that was agreed on (`MCP-Protocol-Version`, since 2025-06-18).
    pub version: Option<HeaderValue>,
    /// The event after which a stream is to go on.
    pub last_event: Option<HeaderValue>,
}

/// Sends requests with the client's own headers.
pub struct Caller {
    pub door: Door,
    /// The key among them.
    pub headers: HeaderMap,
    /// Bytes of one message.
    pub message_max: usize,
}

impl Caller {
    /// Sends one request and waits for the head of its answer, whatever its status.
    pub async fn send(
        &self,
        method: Method,
        url: &Uri,
        accept: &'static str,
        marks: &Marks,
        body: Bytes,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        let marks = [
            (SESSION_ID, &marks.session),
            ("mcp-protocol-version", &marks.version),
            ("last-event-id", &marks.last_event),
        ];
        for (name, value) in marks {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        Ok(self.door.send(request).await?)
    }

    /// What an answer without success means. A JSON-RPC error for this very request is its outcome,
    /// and is passed on as it came.
    pub async fn refusal(
        &self,
        response: Response<Body>,
        in_session: bool,
        id: Option<&[u8]>,
    ) -> Result<Frame, Failure> {
        let status = response.status();
        let (max, patience) = EXPLANATION;
        let said = match timeout(patience, response.into_body().collect(max)).await {
            Ok(Ok(said)) => said,
            // The status says enough.
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        let text = String::from_utf8_lossy(&said).into_owned();
        let failure = Failure::of_status(status, in_session, &text);
        if !matches!(failure, Failure::Status { .. }) {
            return Err(failure);
        }
        match Frame::parse(said, DEPTH_MAX) {
            Ok(frame) if frame.kind() == Kind::Error && id.is_some() && frame.id() == id => {
                Ok(frame)
            }
            _ => Err(failure),
        }
    }

    /// The message that is the whole of a body.
    pub async fn message(&self, body: Body) -> Result<Frame, Failure> {
        let bytes = body.collect(self.message_max).await.map_err(unfinished)?;
        Frame::parse(bytes, DEPTH_MAX).map_err(|bad| Failure::bad(bad.to_string()))
    }

    pub fn events(&self, body: Body) -> Events {
        Events { body, reader: sse::Reader::new(self.message_max), ready: VecDeque::new() }
    }
}

/// A body of events, one at a time.
pub struct Events {
    body: Body,
    reader: sse::Reader,
    ready: VecDeque<sse::Event>,
}

impl Events {
    /// The next event, or nothing at the stream's end. Safe to be dropped while it waits.
    pub async fn next(&mut self) -> Result<Option<sse::Event>, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(chunk) = self.body.chunk().await else { return Ok(None) };
            let chunk = chunk.map_err(unfinished)?;
            let events =
                self.reader.push(&chunk).map_err(|error| Failure::bad(error.to_string()))?;
            self.ready.extend(events);
        }
    }
}

/// The head of the answer had come, so the request had too.
fn unfinished(error: crate::egress::EgressError) -> Failure {
    match error {
        crate::egress::EgressError::TooLarge { .. } => Failure::bad(error.to_string()),
        error => Failure::Broken { why: error.to_string() },
    }
}

/// Whether a body is a stream of events, rather than one message.
pub fn is_events(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with(ACCEPT_EVENTS))
}
