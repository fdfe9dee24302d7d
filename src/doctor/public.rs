//! Whether clients that follow the public URL arrive at this daemon, and at all of it.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use super::finding::Finding;
use crate::{
    egress::{Egress, EgressOptions},
    operator::report::DaemonReport,
};

const ABOUT: &str = "public url";

/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 64 * 1024;

/// Asks the URL that clients use who is there, and compares it with the daemon on this host.
pub async fn examine(
    options: &EgressOptions,
    report: &DaemonReport,
    patience: Duration,
) -> Vec<Finding> {
    // The operator's own daemon may be anywhere; only upstreams are confined.
    let options = EgressOptions { allow_loopback: true, allow_private: true, ..options.clone() };
    let egress = match Egress::new(&options) {
        Ok(egress) => egress,
        Err(error) => {
            return vec![Finding::error(ABOUT, error.to_string(), "mend the host's certificates")];
        }
    };
    let url = report.url.trim_end_matches('/');
    let health = ask(&egress, Method::GET, &format!("{url}/health"), patience).await;
    let mut found = vec![is_us(url, health, &report.run)];
    if let (Some(endpoint), true) =
        (report.endpoints.iter().find(|it| !it.open), found[0].cure.is_none())
    {
        let address = format!("{url}/metamcp/{}/mcp", endpoint.name);
        let answer = ask(&egress, Method::POST, &address, patience).await;
        found.push(is_guarded(&address, answer));
    }
    found
}

/// A status, and the JSON of the body if it is any.
type Answer = Result<(StatusCode, Value), String>;

async fn ask(egress: &Egress, method: Method, url: &str, patience: Duration) -> Answer {
    let request = Request::builder().method(method).uri(url);
    let request = request.header("content-type", "application/json").body(Bytes::new());
    let request = request.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = egress.steady().send(request).await?;
        let status = response.status();
        let body = response.into_body().collect(ANSWER_MAX).await?;
        Ok::<_, crate::egress::EgressError>((
            status,
            serde_json::from_slice(&body).unwrap_or_default(),
        ))
    };
    match timeout(patience, exchange).await {
        Ok(answer) => answer.map_err(|error| with_cause(&error)),
        Err(_elapsed) => Err(format!("no answer within {patience:?}")),
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn is_us(url: &str, answer: Answer, run: &str) -> Finding {
    match answer {
        Ok((StatusCode::OK, body)) if body["run"] == run => {
            Finding::ok(ABOUT, format!("{url} leads to this daemon"))
        }
        Ok((StatusCode::OK, body)) if body["run"].is_string() => Finding::error(
            ABOUT,
            format!("{url} leads to another metamcpd, or to an earlier start of this one"),
            "point the proxy at this daemon, or set server.public_url to its own URL",
        ),
        Ok((StatusCode::FORBIDDEN, _)) => Finding::error(
            ABOUT,
            format!("{url}/health answers 403: the name in the request is not allowed"),
            "set server.public_url to what clients use, or add the name that the proxy sends to server.allowed_hosts",
        ),
        Ok((status, _)) => Finding::error(
            ABOUT,
            format!("{url}/health answers {} and is not metamcpd", status.as_u16()),
            "let the proxy pass the whole path, with its prefix as in server.public_url, or mend server.public_url",
        ),
        Err(why) => Finding::error(
            ABOUT,
            format!("{url}: {why}"),
            "see that the name resolves here, that the proxy runs, and that server.public_url is right",
        ),
    }
}

/// Who comes without a key has to hear so from us and not from the proxy: clients go by it.
fn is_guarded(address: &str, answer: Answer) -> Finding {
    match answer {
        Ok((StatusCode::UNAUTHORIZED, body)) if body["error"] == "unauthorized" => {
            Finding::ok(ABOUT, format!("{address} asks for a key"))
        }
        Ok((status, _)) => Finding::error(
            ABOUT,
            format!("{address} answers {} to a request without a key", status.as_u16()),
            "let the proxy pass /metamcp/ unchanged: method, headers, body and status",
        ),
        Err(why) => Finding::error(
            ABOUT,
            format!("{address}: {why}"),
            "let the proxy pass POST requests to /metamcp/",
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn only_this_very_daemon_is_the_right_one() {
        for (answer, severity, word) in [
            (
                Ok((StatusCode::OK, json!({"status": "ok", "run": "a"}))),
                Severity::Ok,
                "this daemon",
            ),
            (Ok((StatusCode::OK, json!({"status": "ok", "run": "b"}))), Severity::Error, "another"),
            (Ok((StatusCode::OK, json!({"status": "ok"}))), Severity::Error, "not metamcpd"),
            (Ok((StatusCode::OK, Value::Null)), Severity::Error, "not metamcpd"),
            (Ok((StatusCode::FORBIDDEN, Value::Null)), Severity::Error, "not allowed"),
            (Ok((StatusCode::BAD_GATEWAY, Value::Null)), Severity::Error, "502"),
            (Err("no such host".into()), Severity::Error, "no such host"),
        ] {
            let finding = is_us("https://x", answer, "a");
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.what.contains(word), "{finding:?}");
        }
    }

    #[test]
    fn the_401_has_to_be_ours() {
        let ours = json!({"error": "unauthorized"});
        assert_eq!(is_guarded("u", Ok((StatusCode::UNAUTHORIZED, ours))).severity, Severity::Ok);
        for answer in [
            Ok((StatusCode::UNAUTHORIZED, Value::Null)),
            Ok((StatusCode::METHOD_NOT_ALLOWED, Value::Null)),
            Err("broken".into()),
        ] {
            assert_eq!(is_guarded("u", answer).severity, Severity::Error);
        }
    }
}
