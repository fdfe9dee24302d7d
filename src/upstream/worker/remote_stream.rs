//! The stream of events that answers a call, taken up again where it broke off.
//!
//! A server may close a stream at any time and go on with the call (2025-11-25, "Resumability and
//! Redelivery"). Where it gave ids to its events the rest is fetched from where the last one was, at
//! the pace that the server asked for. How long a call may take in all is not decided here.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::StatusCode;
use tokio::time::sleep;

use super::{
    authorizing::SendError,
    messages::{Kindred, kindred},
    remote::Remote,
    remote_session::RemoteSession,
    trail::{Said, Trail},
};
use crate::{
    egress::{Begun, Body},
    wire::sse,
};

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
    source: Source,
    reader: sse::Reader,
    ready: VecDeque<Bytes>,
    trail: Trail,
}

enum Source {
    Open(Body),
    /// Waiting for the pace, and then for the server.
    Reopening(Pin<Box<dyn Future<Output = Result<http::Response<Body>, SendError>>>>),
}

impl Events {
    pub fn new(remote: &Arc<Remote>, session: &Arc<RemoteSession>, body: Body) -> Self {
        Self {
            remote: remote.clone(),
            session: session.clone(),
            source: Source::Open(body),
            reader: sse::Reader::new(remote.frames().message_max),
            ready: VecDeque::new(),
            trail: Trail::new(remote.limits.resume),
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
        let events = self.reader.push(chunk).map_err(StreamError::TooLarge)?;
        let said = events.into_iter().filter_map(|event| self.trail.follow(event));
        self.ready.extend(said.filter_map(Said::once));
        Ok(())
    }

    /// Takes the stream up again, if it can be and has not been tried too often.
    fn reopen(&mut self, why: &str) -> Result<(), StreamError> {
        let Some(last_event) = self.trail.last_event() else {
            return Err(StreamError::Broken(why.to_owned()));
        };
        let attempts = self.trail.attempts;
        if self.trail.is_exhausted() {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "upstream.resume.attempts_max")
                .increment(1);
            let why = format!("{why}, and it could not be resumed in {attempts} attempts");
            return Err(StreamError::Broken(why));
        }
        self.trail.attempts += 1;
        metrics::counter!("metamcpd_upstream_streams_resumed_total").increment(1);
        let (remote, session, retry) =
            (self.remote.clone(), self.session.clone(), self.trail.rest());
        self.source = Source::Reopening(Box::pin(async move {
            sleep(retry).await;
            let established = session.established();
            let begun = Begun::default();
            remote.listen(established.as_deref(), Some(last_event), Some(&begun)).await
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
                self.trail.resumed();
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
