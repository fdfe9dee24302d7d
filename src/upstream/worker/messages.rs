//! The messages in the body of an answer, whether it is a stream of events or JSON.
//!
//! What is called JSON may be several documents that follow each other, and what is called nothing at
//! all is taken for JSON.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, header};

use super::FrameLimits;
use crate::{
    aside::{IN_PLACE_MAX, aside},
    egress::{Body, EgressError},
    wire::{Bad, Frame, documents, documents::Documents, sse},
};

/// What a body is said to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Kindred {
    Events,
    Json,
    /// Something that can hold no message, by its name.
    Neither(String),
}

/// What the Content-Type says, leniently: parameters and case are of no account.
pub fn kindred(headers: &HeaderMap) -> Kindred {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    match kind.split(';').next().unwrap_or_default().trim() {
        "text/event-stream" => Kindred::Events,
        "" | "text/plain" => Kindred::Json,
        json if json.ends_with("json") => Kindred::Json,
        other => Kindred::Neither(other.to_owned()),
    }
}

/// Why a body cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Broken(EgressError),
    #[error(transparent)]
    Event(sse::TooLarge),
    #[error(transparent)]
    Document(documents::TooLarge),
}

/// A body, and the message that it is.
pub struct Read {
    pub body: Bytes,
    pub message: Result<Frame, Bad>,
}

/// Reads the message that a body is. A long one is read where nobody else waits for that.
pub async fn read(body: Bytes, depth_max: usize) -> Read {
    let read = move |body: Bytes| Read { message: Frame::parse(body.clone(), depth_max), body };
    if body.len() <= IN_PLACE_MAX { read(body) } else { aside(move || read(body)).await }
}

/// The message that these bytes are; the same of a long one.
pub async fn parse(bytes: Bytes, depth_max: usize) -> Result<Frame, Bad> {
    read(bytes, depth_max).await.message
}

/// The same of a body that is still to come.
pub async fn read_whole(body: Body, frames: FrameLimits) -> Result<Read, EgressError> {
    Ok(read(body.collect(frames.message_max).await?, frames.depth_max).await)
}

/// A body, and the messages that were read and not yet looked at.
pub struct Messages {
    body: Option<Body>,
    reader: Reader,
    ready: VecDeque<Bytes>,
}

enum Reader {
    Events(sse::Reader),
    Documents(Documents),
}

impl Messages {
    pub fn of(response: http::Response<Body>, message_max: usize) -> Self {
        let reader = match kindred(response.headers()) {
            Kindred::Events => Reader::Events(sse::Reader::new(message_max)),
            Kindred::Json | Kindred::Neither(_) => Reader::Documents(Documents::new(message_max)),
        };
        Self { body: Some(response.into_body()), reader, ready: VecDeque::new() }
    }

    /// The messages of a body that has been read, where it has more than one.
    pub fn of_whole(body: &[u8]) -> Option<Self> {
        let mut reader = Documents::new(body.len());
        let ready: VecDeque<Bytes> = reader.push(body).ok()?.into();
        (ready.len() > 1).then(|| Self { body: None, reader: Reader::Documents(reader), ready })
    }

    /// What came with the messages that were looked at, and was not.
    pub fn ready(&mut self) -> impl Iterator<Item = Bytes> {
        self.ready.drain(..)
    }

    /// The next message, or nothing at the end. Safe to be dropped while it waits.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Unreadable> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            let Some(chunk) = body.chunk().await else { return Ok(None) };
            let chunk = chunk.map_err(Unreadable::Broken)?;
            match &mut self.reader {
                Reader::Events(reader) => {
                    let events = reader.push(&chunk).map_err(Unreadable::Event)?;
                    let messages = events.into_iter().map(|event| event.data);
                    // An event without data primes the stream and says nothing.
                    self.ready.extend(messages.filter(|data| !data.is_empty()));
                }
                Reader::Documents(reader) => {
                    self.ready.extend(reader.push(&chunk).map_err(Unreadable::Document)?);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn content_types_are_read_leniently() {
        for (kind, expected) in [
            (Some("application/json"), Kindred::Json),
            (Some("Application/JSON; charset=utf-8"), Kindred::Json),
            (Some("application/json;charset=UTF-8;x=y"), Kindred::Json),
            (Some("application/problem+json"), Kindred::Json),
            (Some("application/x-ndjson"), Kindred::Json),
            (Some("text/plain; charset=utf-8"), Kindred::Json),
            (None, Kindred::Json),
            (Some("text/event-stream"), Kindred::Events),
            (Some("text/event-stream;charset=utf-8"), Kindred::Events),
            (Some("text/html"), Kindred::Neither("text/html".into())),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(kind.map(|kind| (header::CONTENT_TYPE, kind.parse().unwrap())));
            assert_eq!(kindred(&headers), expected, "{kind:?}");
        }
    }
}
