//! One life of a remote upstream: its session, its standing stream, and whether it is still there.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::time::{Instant, sleep, timeout};

use super::{Assignment, introduce, keep_listed, remote::Remote, remote_session::DELETE_PATIENCE};
use crate::{
    upstream::{Exit, Reason, exchange::SessionKey, link::Link, spec, variables::resolve},
    wire::{Frame, sse},
};

/// The rest before a standing stream that has ended is opened again, which doubles up to the last.
const STREAM_REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

pub async fn work(assignment: &Assignment, configured: &spec::Remote) -> Exit {
    let remote = match build(assignment, configured) {
        Ok(remote) => remote,
        Err(exit) => return exit,
    };
    let closer = Closer(remote.clone());
    let link = Link::Remote(remote.clone());
    let serve = async {
        introduce(assignment, &link).await?;
        tokio::select! {
            () = keep_listed(assignment, &link, &remote.signals.changed) => {}
            () = listen(&remote) => {}
            () = sweep(assignment, &remote) => {}
            exit = watch(assignment, &remote, &link) => return Err(exit),
        }
        Ok(())
    };
    let exit = tokio::select! {
        biased;
        () = assignment.stop.cancelled() => Exit::of(Reason::Asked),
        ended = serve => match ended {
            Err(exit) => exit,
            Ok(()) => Exit::of(Reason::Unreachable),
        },
    };
    // Before the sessions end, so that each call hears why, and none opens a session anew.
    closer.0.close(&exit);
    let sessions = remote.sessions();
    let endings = sessions.iter().map(|session| session.end(&remote));
    futures_util::future::join_all(endings).await;
    remote.tasks.close();
    if timeout(DELETE_PATIENCE, remote.tasks.wait()).await.is_err() {
        tracing::debug!(server = %remote.server, "some last words did not reach the upstream");
    }
    exit
}

/// Ends the calls of a connection, even when the worker is aborted or panics.
struct Closer(Arc<Remote>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close(&Exit::of(Reason::Panicked));
    }
}

fn build(assignment: &Assignment, configured: &spec::Remote) -> Result<Arc<Remote>, Exit> {
    let (board, workshop) = (&assignment.board, &assignment.workshop);
    let spec = board.spec();
    let look_up = |place: &str, text: &str| {
        let resolved = resolve(text, spec.may_use_variables, |name| std::env::var(name).ok())
            .map_err(|error| Exit::new(error.reason(), format!("{place}: {error}")))?;
        if resolved != text {
            board.stderr.hide_value(&resolved);
        }
        Ok::<String, Exit>(resolved)
    };
    let invalid = |what: String| Exit::new(Reason::ConfigInvalid, what);

    let text = look_up("url", &configured.url)?;
    let url = url::Url::parse(&text).map_err(|error| invalid(format!("url: {error}")))?;
    workshop
        .egress
        .check(&url)
        .map_err(|error| Exit::new(Reason::AddressRefused, error.to_string()))?;
    let uri: http::Uri = url.as_str().parse().map_err(|error| invalid(format!("url: {error}")))?;

    let mut headers = HeaderMap::new();
    for (name, value) in &configured.headers {
        let value = look_up(&format!("header `{name}`"), value)?;
        let name: HeaderName =
            name.parse().map_err(|error| invalid(format!("header `{name}`: {error}")))?;
        let mut value = HeaderValue::from_str(&value)
            .map_err(|error| invalid(format!("header `{name}`: {error}")))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    if let Some(token) = &configured.bearer_token {
        let token = look_up("bearer_token", token)?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|error| invalid(format!("bearer_token: {error}")))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    let name: Arc<str> = Arc::from(&*spec.name);
    let sessions_max = workshop.options.sessions_max;
    let (egress, frames) = (workshop.egress.clone(), workshop.frames);
    let (patience, resume) = (spec.connect_timeout, workshop.options.resume);
    Ok(Remote::new(name, uri, headers, egress, frames, sessions_max, patience, resume))
}

/// Holds the standing stream of the gateway's own session, where announcements come.
async fn listen(remote: &Arc<Remote>) {
    let mut rest = STREAM_REST.0;
    loop {
        let began = Instant::now();
        match hold_stream(remote).await {
            Stream::NotOffered => {
                remote.signals.announces.store(false, Ordering::Relaxed);
                return std::future::pending().await;
            }
            Stream::Ended => {}
        }
        if began.elapsed() > STREAM_REST.1 {
            rest = STREAM_REST.0;
        }
        sleep(rest).await;
        rest = (rest * 2).min(STREAM_REST.1);
        // What was announced in between is lost, so the list is looked at again.
        remote.signals.changed.notify_one();
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
        StatusCode::NOT_FOUND if established.has_id() => {
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

/// Asks whether the upstream is still there, at its pace and whenever a call has its doubts, and
/// returns when it is not.
async fn watch(assignment: &Assignment, remote: &Arc<Remote>, link: &Link) -> Exit {
    let every = assignment.workshop.options.ping_every;
    let patience = assignment.board.spec().connect_timeout;
    loop {
        let pace = async {
            match every.is_zero() {
                true => std::future::pending().await,
                false => sleep(every).await,
            }
        };
        tokio::select! {
            () = remote.signals.unauthorized.notified() => {
                return Exit::new(Reason::Unauthorized, "the upstream refused our credential");
            }
            () = remote.signals.suspect.notified() => {}
            () = pace => {}
        }
        // Any answer will do, even one that says that `ping` is unknown.
        if let Err(error) = link.ask(&remote.server, "ping", b"{}", patience).await {
            use crate::upstream::CallError::*;
            match error {
                Unauthorized { .. } => return Exit::new(Reason::Unauthorized, error.to_string()),
                HttpStatus { status, .. } if status < 500 => {}
                _ => return Exit::new(Reason::Unreachable, error.to_string()),
            }
        }
    }
}

/// Ends the sessions of clients that have not called for long. They are opened again on use.
async fn sweep(assignment: &Assignment, remote: &Arc<Remote>) {
    let idle = assignment.workshop.options.session_idle;
    loop {
        sleep(idle / 4).await;
        remote.forget_idle(idle);
    }
}
