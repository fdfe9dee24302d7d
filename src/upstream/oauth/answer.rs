//! What a token endpoint's answer means.
//!
//! Pure. Nothing of what it says is ever repeated but an error code that is one of the registered.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use time::OffsetDateTime;

use super::{Tokens, is_token};

/// The error codes that are repeated (RFC 6749, 5.2; RFC 8707, 2; RFC 6749, 4.1.2.1).
const CODES: [&str; 9] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "server_error",
    "temporarily_unavailable",
];

/// Those of them by which a server says that it was only not able to just now.
const PASSING: [&str; 2] = ["server_error", "temporarily_unavailable"];

/// Longer than any token lives.
const EXPIRES_IN_MAX: f64 = 10.0 * 365.0 * 86_400.0;

/// What came of asking for new tokens.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// What stands now; the refresh token is the old one where no new one was given.
    Granted(Tokens),
    /// It will never be granted to this session. In words of our own.
    Refused(String),
    /// It may be another time.
    Failed(String),
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: String,
    expires_in: Option<Number>,
    refresh_token: Option<String>,
    scope: Option<String>,
}

/// Some servers write numbers as texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(f64),
    Text(String),
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

/// Reads the answer to a refresh with `before`, which came at `now`.
pub fn read(status: StatusCode, body: &[u8], before: &Tokens, now: OffsetDateTime) -> Answer {
    if status == StatusCode::OK {
        return granted(body, before, now);
    }
    let refused = serde_json::from_slice::<Refused>(body).ok();
    let code = refused.and_then(|said| CODES.into_iter().find(|code| *code == said.error));
    let said = match code {
        Some(code) => format!("`{code}` (HTTP status {})", status.as_u16()),
        None => format!("HTTP status {}", status.as_u16()),
    };
    let is_passing = code.is_some_and(|code| PASSING.contains(&code));
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED if !is_passing => Answer::Refused(said),
        _ if code == Some("invalid_grant") => Answer::Refused(said),
        _ => Answer::Failed(said),
    }
}

fn granted(body: &[u8], before: &Tokens, now: OffsetDateTime) -> Answer {
    let failed = |why: &str| Answer::Failed(why.to_owned());
    let Ok(granted) = serde_json::from_slice::<Granted>(body) else {
        return failed("an answer without a token");
    };
    if !granted.token_type.eq_ignore_ascii_case("bearer") {
        return failed("a token that is no bearer token");
    }
    let refresh_token = granted.refresh_token.filter(|token| !token.is_empty());
    let is_good = |token: &String| is_token(token);
    if !is_good(&granted.access_token) || !refresh_token.as_ref().is_none_or(is_good) {
        return failed("a token that no header can have");
    }
    Answer::Granted(Tokens {
        access_token: Some(granted.access_token),
        // One that is not replaced goes on to be good (RFC 6749, 6).
        refresh_token: refresh_token.or_else(|| before.refresh_token.clone()),
        expires_at: granted.expires_in.and_then(|seconds| seconds.after(now)),
        scope: granted.scope.or_else(|| before.scope.clone()),
    })
}

impl Number {
    /// None for what is no time to live.
    fn after(self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let seconds = match self {
            Self::Number(seconds) => seconds,
            Self::Text(text) => text.trim().parse().ok()?,
        };
        let lives = (seconds > 0.0).then(|| seconds.min(EXPIRES_IN_MAX))?;
        now.checked_add(Duration::try_from_secs_f64(lives).ok()?.try_into().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Tokens {
        Tokens {
            access_token: Some("old".into()),
            refresh_token: Some("r1".into()),
            expires_at: None,
            scope: Some("a".into()),
        }
    }

    /// The new tokens and how long they live, or why there are none.
    fn meaning(status: u16, body: &str) -> String {
        let (now, status) = (OffsetDateTime::UNIX_EPOCH, StatusCode::from_u16(status));
        match status.map(|status| read(status, body.as_bytes(), &before(), now)) {
            Ok(Answer::Granted(tokens)) => {
                let Tokens { access_token, refresh_token, expires_at, scope } = tokens;
                let lives = expires_at.map(|at| (at - now).whole_seconds());
                format!("{access_token:?} {refresh_token:?} {lives:?} {scope:?}")
                    .replace("Some", "")
                    .replace(['(', ')', '"'], "")
            }
            Ok(Answer::Refused(why)) => format!("refused: {why}"),
            Ok(Answer::Failed(why)) => format!("failed: {why}"),
            Err(_) => "no status".to_owned(),
        }
    }

    #[test]
    fn an_answer_means_what_the_specification_has_it_mean() {
        let good = r#"{"access_token":"n","token_type":"bEaReR""#;
        for (status, body, expected) in [
            (200, format!("{good}}}"), "n r1 None a"),
            (
                200,
                format!(r#"{good},"refresh_token":"r2","scope":"b","expires_in":60}}"#),
                "n r2 60 b",
            ),
            (200, format!(r#"{good},"refresh_token":"","expires_in":"60"}}"#), "n r1 60 a"),
            (200, format!(r#"{good},"refresh_token":null,"expires_in":0}}"#), "n r1 None a"),
            (200, format!(r#"{good},"expires_in":-5,"other":[1]}}"#), "n r1 None a"),
            (200, format!(r#"{good},"expires_in":1e300}}"#), "n r1 315360000 a"),
            (200, format!(r#"{good},"expires_in":"soon"}}"#), "n r1 None a"),
            (
                200,
                r#"{"access_token":"n","token_type":"mac"}"#.into(),
                "failed: a token that is no bearer token",
            ),
            (
                200,
                r#"{"access_token":"a\nb","token_type":"Bearer"}"#.into(),
                "failed: a token that no header can have",
            ),
            (
                200,
                r#"{"access_token":"","token_type":"Bearer"}"#.into(),
                "failed: a token that no header can have",
            ),
            (
                200,
                format!(r#"{good},"refresh_token":"a b"}}"#),
                "failed: a token that no header can have",
            ),
            (200, r#"{"token_type":"Bearer"}"#.into(), "failed: an answer without a token"),
            (200, "<html>".into(), "failed: an answer without a token"),
            (200, String::new(), "failed: an answer without a token"),
            (
                400,
                r#"{"error":"invalid_grant"}"#.into(),
                "refused: `invalid_grant` (HTTP status 400)",
            ),
            (
                401,
                r#"{"error":"invalid_client"}"#.into(),
                "refused: `invalid_client` (HTTP status 401)",
            ),
            (
                403,
                r#"{"error":"invalid_grant"}"#.into(),
                "refused: `invalid_grant` (HTTP status 403)",
            ),
            (400, r#"{"error":"the secret canary"}"#.into(), "refused: HTTP status 400"),
            (401, "the secret canary".into(), "refused: HTTP status 401"),
            (
                400,
                r#"{"error":"temporarily_unavailable"}"#.into(),
                "failed: `temporarily_unavailable` (HTTP status 400)",
            ),
            (500, r#"{"error":"server_error"}"#.into(), "failed: `server_error` (HTTP status 500)"),
            (302, String::new(), "failed: HTTP status 302"),
            (404, String::new(), "failed: HTTP status 404"),
            (429, String::new(), "failed: HTTP status 429"),
            (503, "the secret canary".into(), "failed: HTTP status 503"),
        ] {
            assert_eq!(meaning(status, &body), expected, "{status} {body}");
        }
    }
}
