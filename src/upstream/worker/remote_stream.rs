//! The stream of events that answers a call, taken up again where it broke off.
//!
//! A server may close a stream at any time and go on with the call (2025-11-25, "Resumability and
//! Redelivery"). Where it gave ids to its events the rest is fetched from where the last one was, at
//! the pace that the server asked for. How long a call may take in all is not decided here.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::time::sleep;

use super::{
    authorizing::SendError,
    messages::{Kindred, kindred},
    remote::Remote,
    remote_session::RemoteSession,
};
use crate::{egress::Body, wire::sse};

/// The limits of `upstream.resume` in the settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeOptions {
    /// How long after a break the stream is taken up again, where the server does not say.
    #[serde(with = "humantime_serde")]
    pub retry: Duration,
    /// The longest rest that a server can ask for.
    #[serde(with = "humantime_serde")]
    pub retry_max: Duration,
    /// Attempts in a row that bring nothing, after which the call has failed. Zero: never resume.
    pub attempts_max: u32,
}

/// The shortest rest, whatever the server says: a stream that closes at once must not be a loop.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Events with ids that are remembered of one call, in case its stream is resumed too early.
const KNOWN_MAX: usize = 256;

/// Why no more comes of a stream.
pub enum StreamError {
    /// It broke off, and is not to be had again.
    Broken(String),
    TooLarge(sse::TooLarge),
}

/// A stream of events, and those that were read and not yet looked at.
pub struct Events {
    remote: Arc<Remote>,
    session: Arc<RemoteSession>,
    options: ResumeOptions,
    source: Source,
    reader: sse::Reader,
    ready: VecDeque<Bytes>,
    /// Of the last event that had an id: where the rest begins.
    last_event: Option<HeaderValue>,
    retry: Duration,
    attempts: u32,
    known: Known,
    is_resumed: bool,
}

/// Which events have come, by their ids and what they say: some servers give the same id to all.
#[derive(Default)]
struct Known {
    hasher: RandomState,
    marks: VecDeque<u64>,
}

impl Known {
    fn mark(&self, id: &str, data: &[u8]) -> u64 {
        self.hasher.hash_one((id, data))
    }

    /// Whether it has come before.
    fn has(&self, id: &str, data: &[u8]) -> bool {
        self.marks.contains(&self.mark(id, data))
    }

    fn remember(&mut self, id: &str, data: &[u8]) {
        if self.marks.len() == KNOWN_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back(self.mark(id, data));
    }
}

enum Source {
    Open(Body),
    /// Waiting for the pace, and then for the server.
    Reopening(Pin<Box<dyn Future<Output = Result<http::Response<Body>, SendError>>>>),
}

impl Events {
    pub fn new(remote: &Arc<Remote>, session: &Arc<RemoteSession>, body: Body) -> Self {
        let options = remote.limits.resume;
        Self {
            remote: remote.clone(),
            session: session.clone(),
            options,
            source: Source::Open(body),
            reader: sse::Reader::new(remote.frames().message_max),
            ready: VecDeque::new(),
            last_event: None,
            retry: options.retry,
            attempts: 0,
            known: Known::default(),
            is_resumed: false,
        }
    }

    /// The next message. Safe to be dropped while it waits.
    pub async fn next(&mut self) -> Result<Bytes, StreamError> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Ok(data);
            }
            match &mut self.source {
                Source::Open(body) => match body.chunk().await {
                    Some(Ok(chunk)) => self.take(&chunk)?,
                    Some(Err(error)) => self.reopen(&error.to_string())?,
                    None => self.reopen("the stream ended without the answer")?,
                },
                Source::Reopening(response) => {
                    let response = response.await;
                    self.judge(response)?;
                }
            }
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), StreamError> {
        for event in self.reader.push(chunk).map_err(StreamError::TooLarge)? {
            if let Some(id) = event.id.as_deref().filter(|id| !id.is_empty()) {
                if self.is_resumed && self.known.has(id, &event.data) {
                    metrics::counter!("metamcpd_upstream_duplicate_events_total").increment(1);
                    continue;
                }
                self.known.remember(id, &event.data);
            }
            self.attempts = 0;
            if let Some(id) = event.id {
                // An empty id takes the last one back (WHATWG HTML, section 9.2.6).
                self.last_event = HeaderValue::from_str(&id).ok().filter(|id| !id.is_empty());
            }
            if let Some(retry) = event.retry {
                let longest = self.options.retry_max.max(RETRY_MIN);
                self.retry = Duration::from_millis(retry).clamp(RETRY_MIN, longest);
            }
            // An event without data primes the stream and says nothing.
            if !event.data.is_empty() {
                self.ready.push_back(event.data);
            }
        }
        Ok(())
    }

    /// Takes the stream up again, if it can be and has not been tried too often.
    fn reopen(&mut self, why: &str) -> Result<(), StreamError> {
        let Some(last_event) = self.last_event.clone().filter(|_| self.options.attempts_max > 0)
        else {
            return Err(StreamError::Broken(why.to_owned()));
        };
        if self.attempts >= self.options.attempts_max {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "upstream.resume.attempts_max")
                .increment(1);
            let why = format!("{why}, and it could not be resumed in {} attempts", self.attempts);
            return Err(StreamError::Broken(why));
        }
        self.attempts += 1;
        metrics::counter!("metamcpd_upstream_streams_resumed_total").increment(1);
        let (remote, session, retry) = (self.remote.clone(), self.session.clone(), self.retry);
        self.source = Source::Reopening(Box::pin(async move {
            sleep(retry).await;
            remote.resume(session.established().as_deref(), last_event).await
        }));
        Ok(())
    }

    fn judge(
        &mut self,
        response: Result<http::Response<Body>, SendError>,
    ) -> Result<(), StreamError> {
        let response = match response {
            Ok(response) => response,
            Err(error) => return self.reopen(&error.to_string()),
        };
        match response.status() {
            StatusCode::OK if kindred(response.headers()) == Kindred::Events => {
                self.reader = sse::Reader::new(self.remote.frames().message_max);
                self.is_resumed = true;
                self.source = Source::Open(response.into_body());
                Ok(())
            }
            // Not now is not never.
            status if status.is_server_error() => self.reopen(&format!("HTTP status {status}")),
            status => Err(StreamError::Broken(format!(
                "the stream ended without the answer, and resuming it was answered with HTTP status {status}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_come_before_where_its_id_and_its_words_have() {
        let mut known = Known::default();
        known.remember("1", b"a");
        assert!(known.has("1", b"a"));
        assert!(!known.has("1", b"b"), "some servers give the same id to all");
        assert!(!known.has("2", b"a"));
        for number in 0..KNOWN_MAX {
            known.remember(&format!("later {number}"), b"");
        }
        assert!(!known.has("1", b"a"));
        assert_eq!(known.marks.len(), KNOWN_MAX);
    }
}
