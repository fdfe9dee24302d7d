//! One life of a remote upstream, over either transport: its sessions, what it announces, and whether
//! it is still there.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Assignment,
    authorizing::{Authorizing, resource_of},
    belonging::Belonging,
    credential, introduce, keep_listed, reintroduce,
    remote::{Address, Remote, RemoteLimits, Speech},
    remote_session::DELETE_PATIENCE,
    standing,
};
use crate::{
    catalogue::kind::Kind,
    egress::Authorities,
    upstream::{
        Exit, Reason, board::Board, exchange::SessionKey, link::Link, spec, variables::resolve,
    },
};

/// The rest between two looks at the lists of one whose sessions have to be begun anew, which doubles up to
/// the last where that goes on.
const RELIST_REST: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));

/// What is said of a credential that was good for as long as the session was open.
const REFUSED: &str = "the upstream refused our credential";

pub async fn work(assignment: &Assignment, configured: &spec::Remote, speech: Speech) -> Exit {
    let remote = match build(assignment, configured, speech) {
        Ok(remote) => remote,
        Err(exit) => return exit,
    };
    let closer = Closer(remote.clone());
    let link = Link::Remote(remote.clone());
    let serve = async {
        introduce(assignment, &link).await.map_err(|exit| remote.explained(exit))?;
        let exit = tokio::select! {
            exit = keep_listed(assignment, &link, &remote.signals.changed) => exit,
            exit = listen(&remote) => exit,
            exit = watch(assignment, &remote, &link) => exit,
            never = sweep(assignment, &remote) => match never {},
            never = follow(assignment, &remote) => match never {},
        };
        Err::<Infallible, Exit>(exit)
    };
    let exit = tokio::select! {
        biased;
        () = assignment.stop.cancelled() => Exit::of(Reason::Asked),
        Err(exit) = serve => exit,
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

fn build(
    assignment: &Assignment,
    configured: &spec::Remote,
    speech: Speech,
) -> Result<Arc<Remote>, Exit> {
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
    let egress = match &configured.ca_certificates {
        None => workshop.egress.clone(),
        Some(text) => {
            let refused =
                |error: &dyn std::fmt::Display| invalid(format!("`ca_certificates` {error}"));
            let authorities = Authorities::parse(text).map_err(|error| refused(&error))?;
            workshop.egress.trusting(&authorities).map_err(|error| refused(&error))?
        }
    };
    let authorizing = board.credential().map(|credential| {
        let hiding = Hiding(board.clone());
        // It may have been renewed since the row was read.
        hiding.hide(credential.tokens().secrets());
        Authorizing {
            credential,
            door: workshop.egress.steady(),
            keeper: workshop.tokens.clone(),
            options: workshop.oauth.clone(),
            resource: resource_of(&url),
            hiding,
            runtime: Handle::current(),
        }
    });
    let name: Arc<str> = Arc::from(&*spec.name);
    let address = Address { url, uri, headers, authorizing, speech };
    let limits = RemoteLimits {
        frames: workshop.frames,
        sessions_max: workshop.options.sessions_max,
        queue_max: workshop.queue_max,
        dialogue: workshop.dialogue,
        opening_patience: spec.connect_timeout,
        endpoint_wait: workshop.options.endpoint_wait,
        resume: workshop.options.resume,
    };
    let belonging = Belonging {
        id: board.id,
        isolation: spec.isolation,
        levels: board.port.levels.clone(),
        subscriptions: board.port.subscriptions.clone(),
        tasks: board.port.tasks.clone(),
        clients: workshop.clients.clone(),
        breaker: board.port.breaker.clone(),
        retries: board.port.retries.clone(),
    };
    Ok(Remote::new(name, address, limits, belonging, egress))
}

/// What keeps tokens out of an upstream's log.
#[derive(Clone)]
pub struct Hiding(Arc<Board>);

impl Hiding {
    pub fn hide<'a>(&self, tokens: impl Iterator<Item = &'a str>) {
        self.0.stderr.hide_renewed(tokens);
    }
}

/// Hears what the upstream announces, and returns when it has lost the stream that all depends on.
async fn listen(remote: &Arc<Remote>) -> Exit {
    loop {
        let session = remote.known_session(&SessionKey::Shared);
        let established = session.as_ref().and_then(|session| session.established());
        let lost = established.as_ref().and_then(|one| one.stream()).map(|stream| stream.lost());
        let Some(lost) = lost else {
            let never: Infallible = standing::listen(remote).await;
            match never {}
        };
        let why = lost.await;
        let now = session.and_then(|session| session.established());
        let is_replaced = now.is_some_and(|now| !now.is_over());
        if !is_replaced {
            return Exit::new(Reason::Unreachable, &*why);
        }
    }
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
                return remote.explained(unauthorized(remote, REFUSED));
            }
            () = remote.signals.suspect.notified() => {}
            () = assignment.board.port.conduct.suspected() => {}
            () = pace => {}
        }
        // Any answer will do, even one that says that `ping` is unknown.
        if let Err(error) = link.ask(&remote.server, "ping", b"{}", patience).await {
            use crate::upstream::CallError::*;
            match error {
                Unauthorized { .. } => return remote.explained(unauthorized(remote, REFUSED)),
                HttpStatus { status, .. } if status < 500 => {}
                InsufficientScope { .. } => {}
                // It lives, and says so.
                Throttled { .. } | NoToken { .. } => {}
                _ => return Exit::new(Reason::Unreachable, error.to_string()),
            }
        }
        remote.signals.trust();
    }
}

/// When the lists of one whose sessions are begun anew are looked at.
struct Pace {
    looked: Option<Instant>,
    rest: Duration,
}

impl Pace {
    fn new() -> Self {
        Self { looked: None, rest: RELIST_REST.0 }
    }

    /// Not before this.
    fn next(&self, now: Instant) -> Instant {
        self.looked.map_or(now, |at| at + self.rest)
    }

    /// They are looked at now.
    fn look(&mut self, now: Instant) {
        self.rest = match self.looked.map(|at| now - at) {
            Some(since) if since <= self.rest * 2 => (self.rest * 2).min(RELIST_REST.1),
            // It had been good for long, or was never bad.
            Some(_) | None => RELIST_REST.0,
        };
        self.looked = Some(now);
    }
}

/// Takes what begins its sessions anew for another version of itself: what it said of itself holds at once, and
/// its lists are looked at again, though never at a pace at which one that forgets every session would be listed
/// for ever.
async fn follow(assignment: &Assignment, remote: &Arc<Remote>) -> Infallible {
    let mut pace = Pace::new();
    let mut is_due = false;
    loop {
        let rest = async {
            match is_due {
                true => sleep_until(pace.next(Instant::now())).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = remote.signals.reopened.notified() => is_due = true,
            () = remote.signals.reintroduced.notified() => {
                let session = remote.known_session(&SessionKey::Shared);
                if let Some(established) = session.and_then(|session| session.established()) {
                    reintroduce(assignment, remote, &established.introduction);
                }
                is_due = true;
            }
            () = rest => {
                for kind in Kind::ALL {
                    assignment.board.refresh[kind].ask();
                }
                pace.look(Instant::now());
                is_due = false;
            }
        }
    }
}

fn unauthorized(remote: &Remote, what: &str) -> Exit {
    let challenge = remote.signals.challenge();
    Exit::new(Reason::Unauthorized, credential::with_its_words(what, challenge.as_ref()))
}

/// Ends the sessions of clients that have not called for long. They are opened again on use.
async fn sweep(assignment: &Assignment, remote: &Arc<Remote>) -> Infallible {
    let idle = assignment.workshop.options.session_idle;
    loop {
        sleep(idle / 4).await;
        remote.forget_idle(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whose_sessions_are_begun_anew_for_ever_is_looked_at_ever_less_often() {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        assert_eq!(pace.next(now), now, "the first time at once");
        for seconds in [30, 60, 120, 240, 300, 300] {
            pace.look(now);
            let next = pace.next(now);
            assert_eq!(next - now, Duration::from_secs(seconds));
            now = next;
        }
        now += Duration::from_secs(3600);
        assert_eq!(pace.next(now).max(now), now);
        pace.look(now);
        assert_eq!(pace.next(now) - now, RELIST_REST.0, "it had been good for long");
    }
}
