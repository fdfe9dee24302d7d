//! The ways in which servers say that they know nothing of a session (any more).
//!
//! The specification has one, 404 (transports, 2025-06-18). The official SDKs and what is built on
//! them have others, and whoever takes those for failures of the call loses an upstream that was
//! restarted for as long as it lives. All of them are said before anything is executed.

use http::StatusCode;
use serde::Deserialize;

use crate::wire::codes;

/// Bytes of a refusal that are looked at.
pub const REFUSAL_MAX: usize = 64 * 1024;

/// The codes that such a refusal has been seen with.
const CODES: &[i64] = &[-32000, -32001, -32002, -32600, -32602];

/// What is said of the word `session`.
const OF_SESSIONS: &[&str] = &[
    "not found",
    "unknown",
    "invalid",
    "no valid",
    "not valid",
    "expired",
    "missing",
    "find session",
    "no transport",
    "no session",
    "not exist",
    "no longer",
    "terminated",
    "closed",
];

/// What a header names that we send with every request of a session.
const REVISION: &[&str] = &["protocol version", "protocol-version", "protocolversion"];

/// What is said of a revision of the protocol that a session was agreed on, by a server that has come back as
/// another version of itself.
const OF_REVISIONS: &[&str] = &["unsupported", "not supported", "unknown", "invalid", "mismatch"];

/// What is said of a server that was never told `initialize`.
const OF_SERVERS: &[&str] = &["not initialized", "not initialised", "uninitialized"];

/// Whether this refusal says that the server has no such session, or none of that revision of the protocol, so
/// that nothing was executed.
/// `is_named`: whether the request named one.
pub fn has_forgotten(status: StatusCode, body: &[u8], is_named: bool) -> bool {
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => is_named,
        StatusCode::BAD_REQUEST => says_so(body),
        _ => false,
    }
}

fn says_so(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Refusal {
        error: Fault,
    }
    #[derive(Deserialize)]
    struct Fault {
        code: i64,
        message: String,
    }

    let said = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) if codes::MODERN_REFUSALS.contains(&refusal.error.code) => return true,
        Ok(refusal) if !CODES.contains(&refusal.error.code) => return false,
        Ok(refusal) => refusal.error.message,
        Err(_no_error_of_the_protocol) => String::from_utf8_lossy(body).into_owned(),
    };
    let said = said.to_lowercase();
    let any = |phrases: &[&str]| phrases.iter().any(|phrase| said.contains(phrase));
    (said.contains("session") && any(OF_SESSIONS))
        || (any(REVISION) && any(OF_REVISIONS))
        || any(OF_SERVERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_session_is_recognised_in_every_dialect_that_is_known() {
        let error = |code: i64, message: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"{message}"}}}}"#
            )
        };
        for (status, body, is_named, expected) in [
            (404, String::new(), true, true),
            (404, error(-32001, "Session not found"), true, true),
            (404, "Could not find session".into(), true, true),
            (410, String::new(), true, true),
            (400, error(-32000, "Bad Request: Server not initialized"), true, true),
            (400, error(-32000, "Bad Request: No valid session ID provided"), true, true),
            (400, error(-32600, "Invalid session ID"), true, true),
            (400, error(-32001, "Session has expired"), true, true),
            (400, "No transport found for sessionId".into(), true, true),
            (
                400,
                error(
                    -32000,
                    "Bad Request: Unsupported protocol version (supported versions: 2025-06-18)",
                ),
                true,
                true,
            ),
            (400, "Bad Request: Unsupported MCP-Protocol-Version: 2025-11-25".into(), true, true),
            (400, "Invalid MCP-Protocol-Version header".into(), false, true),
            (400, error(-32022, "no"), true, true),
            // The URL is wrong, rather than the session.
            (404, String::new(), false, false),
            (410, String::new(), false, false),
            // What was asked is wrong, rather than the session.
            (400, error(-32602, "Invalid params: `city` is missing"), true, false),
            (400, error(-32603, "the database session is closed"), true, false),
            (400, error(-32600, "Invalid Request"), true, false),
            (400, String::new(), true, false),
            // It may have been executed.
            (500, error(-32000, "Session not found"), true, false),
            (503, "no session".into(), true, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            let found = has_forgotten(status, body.as_bytes(), is_named);
            assert_eq!(found, expected, "{status} {body} {is_named}");
        }
    }
}
