//! The standing stream of a Streamable HTTP upstream, where it announces what no call has asked for.
//! A server that offers none is as good as any other.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use super::remote::Remote;
use crate::{
    upstream::exchange::SessionKey,
    wire::{Frame, sse},
};

/// The rest before a standing stream that has ended is opened again, which doubles up to the last.
const STREAM_REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Holds the standing stream of the gateway's own session, where announcements come.
pub async fn listen(remote: &Arc<Remote>) -> Infallible {
    let mut rest = STREAM_REST.0;
    loop {
        let began = Instant::now();
        match hold_stream(remote).await {
            Stream::NotOffered => {
                for (_, announces) in remote.signals.announces.iter() {
                    announces.store(false, Ordering::Relaxed);
                }
                return std::future::pending().await;
            }
            Stream::Ended => {}
        }
        if began.elapsed() > STREAM_REST.1 {
            rest = STREAM_REST.0;
        }
        sleep(rest).await;
        rest = (rest * 2).min(STREAM_REST.1);
        // What was announced in between is lost, so the lists are looked at again.
        remote.signals.changed.presume_all();
    }
}

enum Stream {
    NotOffered,
    Ended,
}

async fn hold_stream(remote: &Arc<Remote>) -> Stream {
    let Ok(session) = remote.session(&SessionKey::Shared) else { return Stream::Ended };
    let Some(established) = session.established() else { return Stream::Ended };
    let accept = "text/event-stream";
    let sent = remote.send(Method::GET, accept, Some(&established), Bytes::new(), false).await;
    let Ok(response) = sent else { return Stream::Ended };
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE if established.is_named() => {
            // The session is forgotten; one stands in line to make it anew.
            if let Err(exit) = session.open(remote, Some(&established)).await {
                tracing::debug!(server = %remote.server, ?exit, "the session was not made anew");
                remote.signals.suspect.notify_one();
            }
            return Stream::Ended;
        }
        // Not now is not never.
        status if status.is_server_error() => return Stream::Ended,
        _not_offered => return Stream::NotOffered,
    }
    let mut body = response.into_body();
    let frames = remote.frames();
    let mut reader = sse::Reader::new(frames.message_max);
    while let Some(Ok(chunk)) = body.chunk().await {
        let Ok(events) = reader.push(&chunk) else { return Stream::Ended };
        for event in events {
            if let Ok(frame) = Frame::parse(event.data, frames.depth_max) {
                remote.hear(&SessionKey::Shared, &frame);
            }
        }
    }
    remote.signals.suspect.notify_one();
    Stream::Ended
}
