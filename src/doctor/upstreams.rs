//! What can be said of an upstream: by what the running daemon reports of it, and without a daemon by
//! what a start would need.
//!
//! Nothing is started, and no more than a connection is opened.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use futures_util::{StreamExt, stream};
use time::OffsetDateTime;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use url::Url;

use super::finding::Finding;
use crate::{
    egress::{Authorities, Egress},
    operator::report::UpstreamReport,
    store::{Server, ServerKind},
    upstream::{variables::resolve, worker::lifeline::child_environment},
};

/// Connections that are tried at once, so that many dead ones do not add up.
const AT_ONCE: usize = 16;

/// What to do about authorities whose time is over.
const RENEW: &str = "put the authority's present certificate into its `ca_certificates`";

fn about(name: &str) -> String {
    format!("upstream `{name}`")
}

/// What the daemon that supervises it says.
pub fn reported(report: &UpstreamReport) -> Finding {
    let about = about(&report.name);
    if let (Some(error), "READY") = (&report.list_error, report.state.as_str()) {
        let tools = report.tools;
        let what =
            format!("READY, with the {tools} tools of before: the last list failed: {error}");
        return Finding::warning(about, what, cure("list_failed"));
    }
    if let (Some(complaint), "READY") = (&report.authorities_complaint, report.state.as_str()) {
        let what = format!("READY, {} tools; {complaint}", report.tools);
        return Finding::warning(about, what, RENEW);
    }
    let rests = report.state == "STOPPED" && report.reason == "idle";
    if report.state == "READY" || report.state == "DISABLED" || rests {
        return Finding::ok(about, format!("{}, {} tools", report.state, report.tools));
    }
    let mut what = format!("{}, {}", report.state, report.reason);
    if let Some(error) = &report.last_error {
        what.push_str(": ");
        what.push_str(error);
    }
    if let Some(complaint) = &report.authorities_complaint {
        what.push_str("; ");
        what.push_str(complaint);
    }
    match report.error_status.as_str() {
        "NONE" => Finding::warning(about, what, "wait until it has started, and ask again"),
        _ => Finding::error(about, what, cure(&report.reason)),
    }
}

/// What to do, by the reason's word.
fn cure(reason: &str) -> &'static str {
    match reason {
        "command_not_found" => "mend its `command`, or install the program where PATH finds it",
        "command_not_executable" => "let the daemon's user execute its `command`",
        "spawn_failed" => "look at the host's limits of processes and memory",
        "variable_missing" => "set the variable for the daemon, or write `${NAME:-default}`",
        "config_invalid" => "mend the row: PATCH /api/v1/mcp-servers/{name}",
        "exited" | "killed" | "stdout_closed" => {
            "read its last lines (`runtime.stderr_tail`), run its command by hand, mend it; it is \
             tried again by itself"
        }
        "handshake_timeout" | "connect_timeout" => {
            "see whether it needs longer than `upstream.connect_timeout` (a first npx or uvx \
             downloads), or does not answer at all"
        }
        "handshake_failed" | "incompatible" | "list_failed" => {
            "see whether it is an MCP server of this transport, and of a revision that we speak"
        }
        "nesting_cycle" => "take it out of one of the namespaces that make the circle",
        "address_refused" => "allow such addresses in `[egress]`, or give another `url`",
        "connect_failed" | "unreachable" => "start the server, or mend its `url`",
        "tls_failed" => {
            "give it a certificate that this host trusts, or name the authority that signs it in its \
             `ca_certificates`"
        }
        "http_status" => "see whether `url` has the server's MCP path",
        "insufficient_scope" => {
            "give its credential the scope that it asks for: see its `bearer_token`, `headers` and \
             `oauth-session`"
        }
        "unauthorized" => {
            "set its `bearer_token`, `headers` or `oauth-session` to a credential that is good"
        }
        "token_failed" => {
            "see whether its token endpoint is there, and take it for what `last_error` says"
        }
        "stdin_stalled" => "the server stopped reading; see what it waits for",
        _ => "see its history: GET /api/v1/mcp-servers/{name}/history",
    }
}

/// What a start of each would find, by this process's own environment.
pub async fn foreseen(servers: &[Server], egress: &Egress, patience: Duration) -> Vec<Finding> {
    let looks = servers.iter().map(|server| async move {
        if !server.enabled {
            return Finding::ok(about(&server.name), "DISABLED");
        }
        match server.kind {
            ServerKind::Stdio => program(server),
            ServerKind::Sse | ServerKind::StreamableHttp => remote(server, egress, patience).await,
        }
    });
    stream::iter(looks).buffered(AT_ONCE).collect().await
}

fn look_up(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn program(server: &Server) -> Finding {
    let about = about(&server.name);
    let mut environment = BTreeMap::new();
    for (name, value) in &server.env {
        match resolve(value.expose(), true, look_up) {
            Ok(value) => environment.insert(name.clone(), value),
            Err(error) => {
                return Finding::error(
                    about,
                    format!("env `{name}`: {error}"),
                    cure("variable_missing"),
                );
            }
        };
    }
    let environment = child_environment(std::env::vars(), &environment);
    let command = server.command.as_deref().unwrap_or_default();
    if command == "metamcpd" {
        return Finding::ok(about, "metamcpd itself");
    }
    match find(command, environment.get("PATH").map_or("", String::as_str)) {
        Found::Program(path) => Finding::ok(about, format!("would run {path}")),
        Found::Nothing => {
            Finding::error(about, format!("there is no `{command}`"), cure("command_not_found"))
        }
        Found::NoProgram(path) => {
            Finding::error(about, format!("{path} is no program"), cure("command_not_executable"))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Program(String),
    /// Something is there that cannot be executed.
    NoProgram(String),
    Nothing,
}

/// Looks a command up as `execvp` does.
fn find(command: &str, path: &str) -> Found {
    let places: Vec<String> = match command.contains('/') {
        true => vec![command.to_owned()],
        false => path.split(':').map(|folder| format!("{folder}/{command}")).collect(),
    };
    let mut found = Found::Nothing;
    for place in places {
        let Ok(metadata) = Path::new(&place).metadata() else { continue };
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            return Found::Program(place);
        }
        found = Found::NoProgram(place);
    }
    found
}

async fn remote(server: &Server, egress: &Egress, patience: Duration) -> Finding {
    let about = about(&server.name);
    let missing = |place: &str, error: &dyn std::fmt::Display| {
        Finding::error(about.clone(), format!("{place}: {error}"), cure("variable_missing"))
    };
    let mut texts: Vec<(&str, &str)> =
        server.headers.iter().map(|(name, value)| (&**name, value.expose())).collect();
    texts.extend(server.bearer_token.as_ref().map(|token| ("bearer_token", token.expose())));
    for (place, text) in texts {
        if let Err(error) = resolve(text, true, look_up) {
            return missing(place, &error);
        }
    }
    let url = match resolve(server.url.as_deref().unwrap_or_default(), true, look_up) {
        Ok(url) => url,
        Err(error) => return missing("url", &error),
    };
    let url = match Url::parse(&url) {
        Ok(url) => url,
        Err(error) => {
            return Finding::error(about, format!("url: {error}"), cure("config_invalid"));
        }
    };
    let authorities = server.ca_certificates.as_deref();
    if let Some(Err(error)) = authorities.map(Authorities::parse) {
        let what = format!("`ca_certificates` {error}");
        return Finding::error(about, what, cure("config_invalid"));
    }
    if let Err(error) = egress.check(&url) {
        return Finding::error(about, error.to_string(), cure("address_refused"));
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    match timeout(patience, reach(egress, &host, port)).await {
        Ok(Ok(())) => {
            let what = format!("{host}:{port} takes connections");
            let now = OffsetDateTime::now_utc();
            match authorities.and_then(|text| Authorities::complaint(text, now)) {
                None => Finding::ok(about, what),
                Some(complaint) => Finding::warning(about, format!("{what}; {complaint}"), RENEW),
            }
        }
        Ok(Err(Unreached::Refused(why))) => Finding::error(about, why, cure("address_refused")),
        Ok(Err(Unreached::Io(error))) => {
            Finding::error(about, format!("{host}:{port}: {error}"), cure("connect_failed"))
        }
        Err(_elapsed) => {
            let what = format!("{host}:{port} did not answer within {patience:?}");
            Finding::error(about, what, cure("connect_timeout"))
        }
    }
}

enum Unreached {
    Refused(String),
    Io(std::io::Error),
}

/// Opens a connection, to no address that the egress rules forbid, and closes it.
async fn reach(egress: &Egress, host: &str, port: u16) -> Result<(), Unreached> {
    let addresses = lookup_host((host, port)).await.map_err(Unreached::Io)?;
    let mut last = Unreached::Io(std::io::ErrorKind::NotFound.into());
    for address in addresses {
        if let Err(why) = egress.verdict(address.ip()) {
            last = Unreached::Refused(format!("{}: {why}", address.ip()));
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(_connection) => return Ok(()),
            Err(error) => last = Unreached::Io(error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::doctor::finding::Severity;

    fn report(state: &str, error_status: &str, reason: &str) -> UpstreamReport {
        UpstreamReport {
            name: "x".into(),
            state: state.into(),
            error_status: error_status.into(),
            reason: reason.into(),
            last_error: Some("why".into()),
            list_error: None,
            authorities_complaint: None,
            tools: 3,
        }
    }

    #[test]
    fn only_what_fails_is_an_error_and_each_has_a_cure() {
        for (state, status, reason, severity) in [
            ("READY", "NONE", "ready", Severity::Ok),
            ("DISABLED", "NONE", "disabled", Severity::Ok),
            ("STOPPED", "NONE", "idle", Severity::Ok),
            ("STARTING", "NONE", "started", Severity::Warning),
            ("BACKOFF", "ERROR", "exited", Severity::Error),
            ("CRASHED", "CRASHED", "command_not_found", Severity::Error),
            ("BACKOFF", "ERROR", "some_new_word", Severity::Error),
        ] {
            let finding = reported(&report(state, status, reason));
            assert_eq!(finding.severity, severity, "{state} {reason}");
            assert_eq!(finding.cure.is_none(), severity == Severity::Ok, "{state} {reason}");
        }
    }

    #[test]
    fn a_server_that_runs_and_cannot_be_listed_is_found() {
        let healthy = report("READY", "NONE", "ready");
        let finding = reported(&UpstreamReport { list_error: Some("no page".into()), ..healthy });
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.what.contains("no page") && finding.cure.is_some(), "{finding:?}");
    }

    #[test]
    fn authorities_that_will_not_do_for_long_are_found_whatever_its_state_is() {
        let complaint = Some("the 1. certificate has expired".to_owned());
        for (state, status, reason, severity) in [
            ("READY", "NONE", "ready", Severity::Warning),
            ("BACKOFF", "ERROR", "tls_failed", Severity::Error),
        ] {
            let report = report(state, status, reason);
            let finding =
                reported(&UpstreamReport { authorities_complaint: complaint.clone(), ..report });
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.what.contains("has expired") && finding.cure.is_some(), "{finding:?}");
        }
    }

    #[test]
    fn a_command_is_looked_up_as_a_start_would() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().display().to_string();
        std::fs::write(place.path().join("tool"), "").unwrap();
        let tool = format!("{folder}/tool");
        assert_eq!(find("tool", &folder), Found::NoProgram(tool.clone()));
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(place.path().join("tool"), executable).unwrap();
        assert_eq!(find("tool", &format!("/nowhere:{folder}")), Found::Program(tool.clone()));
        assert_eq!(find(&tool, ""), Found::Program(tool));
        assert_eq!(find("tool", "/nowhere"), Found::Nothing);
    }
}
