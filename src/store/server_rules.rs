//! What makes a server's configuration valid. Every problem is found, not only the first.
//!
//! It judges the text alone: whether the command exists or the URL answers is learnt by trying.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::error::StoreError;
use super::rules::{Problem, ServerName, refuse_nul};
use super::server::NewServer;
use super::upkeep;
use super::words::ServerKind;
use crate::egress::{AUTHORITIES_ACCEPTED, Authorities};
use crate::identity::secret::Secret;

pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// # Errors
/// `Invalid` with every problem that was found.
pub fn check(server: &NewServer) -> Result<(), StoreError> {
    let mut problems = Vec::new();
    problems.extend(ServerName::parse(&server.name).err());
    problems.extend(refuse_nul("description", server.description.as_deref()));
    problems.extend(refuse_nul("user_id", server.user_id.as_deref()));
    match server.kind {
        ServerKind::Stdio => check_process(server, &mut problems),
        ServerKind::Sse | ServerKind::StreamableHttp => check_remote(server, &mut problems),
    }
    check_env(&server.env, &mut problems);
    check_headers(server, &mut problems);
    problems.extend(refuse_authorities(server));
    upkeep::check(server, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Invalid(problems)) }
}

fn check_process(server: &NewServer, problems: &mut Vec<Problem>) {
    match server.command.as_deref().map(str::trim) {
        None | Some("") => problems.push(
            Problem::new("command", "a STDIO server needs one").accepted("the program to start"),
        ),
        Some(_) => problems.extend(refuse_nul("command", server.command.as_deref())),
    }
    if server.url.is_some() {
        problems.push(Problem::new("url", "a STDIO server has none").accepted("null"));
    }
    for (index, arg) in server.args.iter().enumerate() {
        problems.extend(refuse_nul(&format!("args[{index}]"), Some(arg)));
    }
}

fn check_remote(server: &NewServer, problems: &mut Vec<Problem>) {
    if server.command.is_some() {
        problems.push(Problem::new("command", "only a STDIO server has one").accepted("null"));
    }
    for (index, arg) in server.args.iter().enumerate() {
        problems.extend(refuse_nul(&format!("args[{index}]"), Some(arg)));
    }
    let reason = match server.url.as_deref() {
        None => Some(format!("a {} server needs one", server.kind)),
        Some(url) => refuse_url(url).map(str::to_owned),
    };
    if let Some(reason) = reason {
        problems.push(
            Problem::new("url", reason)
                .accepted("an http:// or https:// URL without user, password or fragment"),
        );
    }
}

fn refuse_url(text: &str) -> Option<&'static str> {
    // The parser forgives blanks and missing slashes; the rule of the database does not.
    let begins = |scheme: &str| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let Ok(url) = Url::parse(text) else { return Some("not a URL") };
    if !matches!(url.scheme(), "http" | "https") {
        Some("neither http nor https")
    } else if !(begins("http://") || begins("https://")) || text.contains(char::is_whitespace) {
        Some("not a URL as it has to be written")
    } else if !url.username().is_empty() || url.password().is_some() {
        Some("holds a user or a password, which belong in the headers")
    } else if url.fragment().is_some() {
        Some("holds a fragment, which no server is sent")
    } else {
        None
    }
}

fn check_env(env: &BTreeMap<String, Secret>, problems: &mut Vec<Problem>) {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0', '\n']) {
            problems.push(
                Problem::new(format!("env.{name}"), "not the name of a variable")
                    .accepted("a name without `=`, NUL or line break"),
            );
        }
        problems.extend(refuse_nul(&format!("env.{name}"), Some(value.expose())));
    }
}

fn check_headers(server: &NewServer, problems: &mut Vec<Problem>) {
    for (name, value) in &server.headers {
        problems.extend(refuse_header_name("headers", name, name));
        if HeaderValue::from_str(value.expose()).is_err() {
            problems.push(
                Problem::new(format!("headers.{name}"), "not a value a header can have")
                    .accepted("visible characters"),
            );
        }
    }
    let token = server.bearer_token.as_ref();
    if token.is_some_and(|token| !is_token(token.expose())) {
        problems.push(
            Problem::new("bearer_token", "not a value a header can have")
                .accepted("visible ASCII characters without blanks"),
        );
    }
    for (from, to) in &server.forward_headers {
        problems.extend(refuse_header_name("forward_headers", from, from));
        problems.extend(refuse_header_name("forward_headers", from, to));
    }
}

fn refuse_authorities(server: &NewServer) -> Option<Problem> {
    let text = server.ca_certificates.as_deref()?;
    let refused = |reason: &str| Problem::new("ca_certificates", reason);
    if server.kind == ServerKind::Stdio {
        return Some(refused("a STDIO server has no connection of ours").accepted("null"));
    }
    if let Err(error) = Authorities::parse(text) {
        return Some(refused(&error.to_string()).accepted(AUTHORITIES_ACCEPTED));
    }
    // Whoever names them wants the server to prove who it is, which it cannot without TLS.
    let is_secure = server.url.as_deref().and_then(|url| url.get(.."https:".len()));
    let is_secure = is_secure.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    (!is_secure)
        .then(|| refused("there is no certificate where `url` is not https").accepted("null"))
}

fn refuse_header_name(column: &str, key: &str, name: &str) -> Option<Problem> {
    HeaderName::from_bytes(name.as_bytes()).err().map(|_| {
        Problem::new(format!("{column}.{key}"), "not the name of a header")
            .accepted("letters, digits and `!#$%&'*+-.^_`|~`")
    })
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::testing::authority;
    use super::*;

    fn process() -> NewServer {
        let command = Some("npx".to_owned());
        NewServer { command, ..NewServer::new("files", ServerKind::Stdio) }
    }

    fn remote(url: &str) -> NewServer {
        let url = Some(url.to_owned());
        NewServer { url, ..NewServer::new("search", ServerKind::StreamableHttp) }
    }

    fn fields(server: &NewServer) -> Vec<String> {
        match check(server) {
            Err(StoreError::Invalid(problems)) => {
                problems.into_iter().map(|problem| problem.field).collect()
            }
            other => {
                other.unwrap();
                Vec::new()
            }
        }
    }

    #[test]
    fn a_process_needs_a_command_and_nothing_remote() {
        assert_eq!(fields(&process()), [""; 0]);
        for command in [None, Some(""), Some(" \t"), Some("a\0b")] {
            let command = command.map(str::to_owned);
            assert_eq!(fields(&NewServer { command, ..process() }), ["command"]);
        }
        let url = Some("http://localhost".to_owned());
        assert_eq!(fields(&NewServer { url, ..process() }), ["url"]);
    }

    #[test]
    fn a_remote_server_needs_a_plain_http_url() {
        for good in ["http://localhost:9", "https://x.example/mcp?a=b", "HTTPS://x.example/"] {
            assert_eq!(fields(&remote(good)), [""; 0], "{good}");
        }
        for bad in [
            "",
            "x",
            "ftp://x.example/",
            "http://",
            "http:x.example",
            "http://u@x.example/",
            "http://u:p@x.example/",
            "http://x.example/#a",
            " http://x.example/",
            "http://x.example/a b",
            "file:///etc/passwd",
        ] {
            assert_eq!(fields(&remote(bad)), ["url"], "{bad}");
        }
        let command = Some("npx".to_owned());
        assert_eq!(fields(&NewServer { command, ..remote("http://localhost") }), ["command"]);
    }

    #[test]
    fn authorities_are_named_in_pem_and_for_https_alone() {
        let naming = |text: &str, server: NewServer| NewServer {
            ca_certificates: Some(text.to_owned()),
            ..server
        };
        let secure = || remote("https://x.example/mcp");
        let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        let refused = ["ca_certificates"];
        for (text, server, expected) in [
            (authority(), secure(), &[][..]),
            (authority(), remote("HTTPS://x.example"), &[]),
            (authority(), remote("http://x.example"), &refused),
            (authority(), process(), &refused),
            ("", secure(), &refused),
            ("/etc/ssl/ca.pem", secure(), &refused),
            (key, secure(), &refused),
        ] {
            let server = naming(text, server);
            assert_eq!(fields(&server), expected, "{text} {:?}", server.url);
        }
        let Err(StoreError::Invalid(problems)) = check(&naming(key, secure())) else { panic!() };
        assert!(!format!("{problems:?}").contains("c2VjcmV0"), "{problems:?}");
        assert!(problems[0].accepted.is_some(), "{problems:?}");
    }

    #[test]
    fn every_problem_is_found_at_once() {
        let server = NewServer {
            name: "a__b".to_owned(),
            env: [("A=B".to_owned(), Secret::new("x")), ("OK".to_owned(), Secret::new("\0"))]
                .into(),
            headers: [("x y".to_owned(), Secret::new("a\r\nb"))].into(),
            forward_headers: [("x-user".to_owned(), "".to_owned())].into(),
            bearer_token: Some(Secret::new("two words")),
            timeouts: super::super::Timeouts {
                call: Some(Duration::ZERO),
                ..super::super::Timeouts::default()
            },
            ..remote("mailto:a@b")
        };
        assert_eq!(
            fields(&server),
            [
                "name",
                "url",
                "env.A=B",
                "env.OK",
                "headers.x y",
                "headers.x y",
                "bearer_token",
                "forward_headers.x-user",
                "call_timeout_ms",
            ]
        );
    }

    #[test]
    fn a_problem_never_repeats_a_secret() {
        let token = Some(Secret::new("hunter2 hunter2"));
        let error = check(&NewServer { bearer_token: token, ..remote("http://x.example") });
        assert!(!error.unwrap_err().to_string().contains("hunter2"));
    }
}
