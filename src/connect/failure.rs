//! What can go wrong between a client and its endpoint, and what the client is told of it.
//!
//! Pure: statuses and causes in, words out. Nothing here holds a key or a query, so all of it may be
//! shown.

use http::StatusCode;

use crate::{
    egress::EgressError,
    wire::{
        Fault,
        fault::{Blame, Data},
    },
};

/// Why a message had no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was certainly not received: nobody listens, or no connection could be made.
    NotSent { why: String },
    /// It may have been received, and may have been acted upon.
    Broken { why: String },
    /// The session is forgotten, so nothing was executed (transports, "Session Management").
    SessionGone,
    /// 401: no key, or a bad one.
    Unauthorized,
    /// 403: the key is known and may not.
    Forbidden,
    /// 404 or 405 outside of a session: there is no such endpoint.
    NoEndpoint { status: u16 },
    /// Any other status that is no answer.
    Status { status: u16, said: String },
    /// It answered, but not with sense.
    BadAnswer { why: String },
    /// The server refused `initialize`; the whole error message as it came.
    Refused(bytes::Bytes),
    /// As many requests are in flight as may be.
    Busy { max: usize },
}

impl Failure {
    pub fn bad(why: impl Into<String>) -> Self {
        Self::BadAnswer { why: why.into() }
    }

    /// What a status without an answer means. `in_session`: whether the request named a session.
    pub fn of_status(status: StatusCode, in_session: bool, said: &str) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND if in_session => Self::SessionGone,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                Self::NoEndpoint { status: status.as_u16() }
            }
            _ => Self::Status { status: status.as_u16(), said: shortened(said) },
        }
    }

    /// Whether the same message may be sent again: it is certain that nobody has executed it.
    pub fn is_unexecuted(&self) -> bool {
        matches!(self, Self::NotSent { .. } | Self::SessionGone)
    }

    /// Whether a handshake that failed so is worth another try: a daemon that restarts, or a proxy
    /// that does not find it, looks like this.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NotSent { .. } | Self::Broken { .. } | Self::SessionGone => true,
            Self::Status { status, .. } => matches!(status, 429 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether `initialize` can never work until a person has mended something.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unauthorized | Self::Forbidden | Self::NoEndpoint { .. })
    }

    /// Whether the other transport may be meant (transports, "Backwards Compatibility").
    pub fn asks_for_sse(&self) -> bool {
        matches!(self, Self::NoEndpoint { .. })
    }

    /// The error that the client gets for its request.
    pub fn fault(&self) -> Fault {
        let (reason, fault) = match self {
            Self::NotSent { .. } => ("connect_unreachable", Blame::Gateway),
            Self::Broken { .. } => ("connect_broken", Blame::Gateway),
            Self::SessionGone => ("connect_session_gone", Blame::Gateway),
            Self::Unauthorized | Self::Forbidden => ("connect_unauthorized", Blame::Client),
            Self::NoEndpoint { .. } => ("connect_no_endpoint", Blame::Client),
            Self::Status { .. } => ("connect_http_status", Blame::Gateway),
            Self::BadAnswer { .. } | Self::Refused(_) => ("connect_bad_answer", Blame::Gateway),
            Self::Busy { .. } => ("connect_busy", Blame::Client),
        };
        let retry = match self {
            // As for an upstream that ended: a second call might do its work twice.
            Self::Broken { .. } => false,
            Self::Busy { .. } => true,
            failure => failure.is_passing(),
        };
        Fault::internal(
            self.to_string(),
            Data { reason, fault, server: None, retry, uri: None, scope: None },
        )
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent { why } => {
                write!(formatter, "the endpoint cannot be reached: {why}; is the daemon running?")
            }
            Self::Broken { why } => write!(
                formatter,
                "the connection to the endpoint broke: {why}; whether the request was carried out is unknown"
            ),
            Self::SessionGone => {
                write!(formatter, "the endpoint forgot the session, and no new one could be begun")
            }
            Self::Unauthorized => write!(
                formatter,
                "the endpoint refused the key (401): set METAMCP_API_KEY, or give --api-key, with one that \
                 `metamcpd admin create-key --client` makes"
            ),
            Self::Forbidden => {
                write!(formatter, "the endpoint refused this client (403): ask whoever runs it")
            }
            Self::NoEndpoint { status } => write!(
                formatter,
                "there is no endpoint at this URL, or not for this key ({status}): check the name in \
                 /metamcp/{{endpoint}}/mcp"
            ),
            Self::Status { status, said } => {
                write!(formatter, "the endpoint answered with the status {status}")?;
                if matches!(status, 300..=399) {
                    write!(formatter, "; redirects are not followed, so give the final URL")?;
                }
                if said.is_empty() { Ok(()) } else { write!(formatter, ": {said}") }
            }
            Self::BadAnswer { why } => write!(formatter, "the endpoint's answer is no MCP: {why}"),
            Self::Refused(_) => write!(formatter, "the endpoint refused `initialize`"),
            Self::Busy { max } => write!(
                formatter,
                "{max} requests are in flight already (`--in-flight-max`); wait for one to end"
            ),
        }
    }
}

impl std::error::Error for Failure {}

impl From<EgressError> for Failure {
    fn from(error: EgressError) -> Self {
        let why = error.to_string();
        match error {
            // Waiting would not mend these, and they are no daemon that is away.
            EgressError::Refused { .. }
            | EgressError::NotHttp { .. }
            | EgressError::NoHost
            | EgressError::Unsendable { .. }
            | EgressError::Setup { .. }
            | EgressError::TooLarge { .. } => Self::BadAnswer { why },
            error if error.not_sent() => Self::NotSent { why },
            _ => Self::Broken { why },
        }
    }
}

/// The first line of what a server says in its own words.
fn shortened(said: &str) -> String {
    const CHARS_MAX: usize = 200;
    let line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let printable = line.chars().filter(|char| !char.is_control());
    printable.take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_status_means_what_the_transport_says_it_means() {
        let status = |status, said: &str| Failure::Status { status, said: said.into() };
        for (code, in_session, expected) in [
            (401, true, Failure::Unauthorized),
            (401, false, Failure::Unauthorized),
            (403, false, Failure::Forbidden),
            (404, true, Failure::SessionGone),
            (404, false, Failure::NoEndpoint { status: 404 }),
            (405, false, Failure::NoEndpoint { status: 405 }),
            (400, false, status(400, "no")),
            (307, false, status(307, "no")),
            (503, true, status(503, "no")),
        ] {
            let read = Failure::of_status(StatusCode::from_u16(code).unwrap(), in_session, "no");
            assert_eq!(read, expected, "{code} {in_session}");
        }
    }

    #[test]
    fn only_what_was_certainly_not_executed_is_sent_again() {
        let why = || String::from("x");
        for (failure, again, passing, at_an_end) in [
            (Failure::NotSent { why: why() }, true, true, false),
            (Failure::SessionGone, true, true, false),
            (Failure::Broken { why: why() }, false, true, false),
            (Failure::Status { status: 503, said: why() }, false, true, false),
            (Failure::Status { status: 500, said: why() }, false, false, false),
            (Failure::BadAnswer { why: why() }, false, false, false),
            (Failure::Unauthorized, false, false, true),
            (Failure::Forbidden, false, false, true),
            (Failure::NoEndpoint { status: 404 }, false, false, true),
        ] {
            assert_eq!(failure.is_unexecuted(), again, "{failure}");
            assert_eq!(failure.is_passing(), passing, "{failure}");
            assert_eq!(failure.is_final(), at_an_end, "{failure}");
        }
    }

    #[test]
    fn a_failure_is_told_with_its_reason_and_its_cure() {
        let told = Failure::Unauthorized.fault().to_bytes(Some(b"7"));
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(told["id"], 7);
        assert_eq!(told["error"]["data"]["reason"], "connect_unauthorized");
        assert_eq!(told["error"]["data"]["fault"], "client");
        assert!(told["error"]["message"].as_str().unwrap().contains("METAMCP_API_KEY"));
    }

    #[test]
    fn a_page_of_html_is_not_repeated_to_its_end() {
        let said = format!("\n  <html>\u{7}{}\nsecond", "x".repeat(1_000));
        let Failure::Status { said, .. } =
            Failure::of_status(StatusCode::BAD_GATEWAY, false, &said)
        else {
            panic!("not a status");
        };
        assert_eq!(said.chars().count(), 200);
        assert!(said.starts_with("<html>x"));
    }
}
