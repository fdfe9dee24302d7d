//! What a remote upstream says by 429 and 503: that it did not do what was asked, and when to come again.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::remote::Remote;
use crate::upstream::{
    CallError, Exit, Reason,
    breaker::{Admission, Outcome, Pass},
};

/// How long one that is asked too often, and does not say for how long, is left alone.
const REST: Duration = Duration::from_secs(1);

/// How long an upstream asks to be left alone by this answer (RFC 9110, 10.2.3; RFC 6585, 4). `None`
/// where it does not: a 503 without `Retry-After` is a failure like any other.
pub fn asked_rest(
    status: StatusCode,
    headers: &HeaderMap,
    now: OffsetDateTime,
) -> Option<Duration> {
    let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let rest = retry_after.and_then(|text| read(text.trim(), now));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(rest.unwrap_or(REST)),
        StatusCode::SERVICE_UNAVAILABLE => rest,
        _ => None,
    }
}

/// Seconds, or a date.
fn read(text: &str, now: OffsetDateTime) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some(Duration::try_from(at - now).unwrap_or_default())
}

/// Whether a session was not opened for that; it is kept to from now on.
pub fn refused_to_open(remote: &Remote, status: StatusCode, headers: &HeaderMap) -> Option<Exit> {
    let rest = asked_rest(status, headers, OffsetDateTime::now_utc())?;
    let (after, _) = remote.belonging.breaker.throttle(rest);
    let detail =
        format!("HTTP status {status}: it asks to be left alone for {} s", after.as_secs());
    Some(Exit::new(Reason::Throttled, detail))
}

/// Lets a call through to the upstream, or says why not.
pub fn admit(remote: &Remote) -> Result<Pass, CallError> {
    let server = remote.server.clone();
    remote.belonging.breaker.admit().map_err(|admission| match admission {
        Admission::Throttled(after) => CallError::Throttled { server, after },
        // Its worker is about to say whether it is there at all, and that decides.
        Admission::Open(_) if remote.signals.is_doubted() => {
            CallError::NotSent { server, detail: None }
        }
        Admission::Open(after) => CallError::CircuitOpen { server, after },
        Admission::Pass | Admission::Probe => CallError::NotSent { server, detail: None },
    })
}

/// What the failure of a call says of the upstream.
pub fn outcome_of(error: &CallError) -> Outcome {
    use Reason::*;
    match error {
        // It was not reached at all, or broke off.
        CallError::NotSent { .. } | CallError::Ended { reason: Unreachable, .. } => {
            Outcome::Failure
        }
        CallError::HttpStatus { status, .. } if *status >= 500 => Outcome::Failure,
        // The session that the call needed could not be opened.
        CallError::Unavailable {
            reason: ConnectFailed | ConnectTimeout | TlsFailed | HttpStatus | HandshakeTimeout,
            ..
        } => Outcome::Failure,
        CallError::HttpStatus { .. } | CallError::InsufficientScope { .. } => Outcome::Success,
        CallError::Unavailable { .. }
        | CallError::Busy { .. }
        | CallError::Full { .. }
        | CallError::NoProcess { .. }
        | CallError::Inactive { .. }
        | CallError::TooLong { .. }
        | CallError::Ended { .. }
        | CallError::Unauthorized { .. }
        | CallError::NoToken { .. }
        | CallError::BadAnswer { .. }
        | CallError::Throttled { .. }
        | CallError::CircuitOpen { .. }
        | CallError::Cancelled => Outcome::Neither,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_what_says_when_to_come_again_asks_to_be_left_alone() {
        let now = time::macros::datetime!(2015-10-21 07:28:00 UTC);
        let secs = Duration::from_secs;
        for (status, retry_after, expected) in [
            (429, Some("7"), Some(secs(7))),
            (429, Some(" 0 "), Some(secs(0))),
            (429, None, Some(REST)),
            (429, Some("soon"), Some(REST)),
            (429, Some("-1"), Some(REST)),
            (503, Some("7"), Some(secs(7))),
            (503, Some("Wed, 21 Oct 2015 07:28:10 GMT"), Some(secs(10))),
            (503, Some("Wed, 21 Oct 2015 07:00:00 GMT"), Some(secs(0))),
            (503, None, None),
            (503, Some("soon"), None),
            (500, Some("7"), None),
            (200, Some("7"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(text) = retry_after {
                headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(asked_rest(status, &headers, now), expected, "{status} {retry_after:?}");
        }
    }

    #[test]
    fn only_what_is_the_upstreams_own_doing_speaks_against_it() {
        let server: std::sync::Arc<str> = "a".into();
        let status = |status| CallError::HttpStatus { server: server.clone(), status };
        for (error, expected) in [
            (status(500), Outcome::Failure),
            (status(503), Outcome::Failure),
            (status(404), Outcome::Success),
            (CallError::NotSent { server: server.clone(), detail: None }, Outcome::Failure),
            (CallError::Throttled { server: server.clone(), after: REST }, Outcome::Neither),
            (CallError::unauthorized(server.clone()), Outcome::Neither),
            (
                CallError::InsufficientScope { server: server.clone(), scope: None },
                Outcome::Success,
            ),
            (
                CallError::NoToken { server: server.clone(), why: "HTTP status 503".into() },
                Outcome::Neither,
            ),
            (CallError::Cancelled, Outcome::Neither),
        ] {
            assert_eq!(outcome_of(&error), expected, "{error}");
        }
    }
}
