//! The modern era over HTTP (2026-07-28): no session, every request says who it is.

use std::io;

use serde_json::{Value, json};

use super::{
    Shared,
    legacy::{hang, refuse},
    line::Line,
    request::Request,
};
use crate::{
    fault::{Condition, Fault},
    offer::{self, MODERN},
    script::encoded,
};

const JSON: (&str, &str) = ("content-type", "application/json");
const META: &str = "io.modelcontextprotocol";

/// Whether a request is of the modern era: it says so itself, or by a header that no legacy client has.
pub fn is_meant(request: &Request, message: &Value) -> bool {
    let by_header = request
        .header("mcp-protocol-version")
        .is_some_and(|version| !offer::LEGACY.contains(&version));
    by_header || !message["params"]["_meta"][format!("{META}/protocolVersion")].is_null()
}

/// What is wrong with a request: the status, the code and the words.
fn problem(request: &Request, message: &Value) -> Option<(u16, i64, &'static str)> {
    let meta = &message["params"]["_meta"];
    let said = &meta[format!("{META}/protocolVersion")];
    let header = request.header("mcp-protocol-version");
    let method = message["method"].as_str().unwrap_or_default();
    let named = match method {
        "tools/call" | "prompts/get" => message["params"]["name"].as_str(),
        "resources/read" => message["params"]["uri"].as_str(),
        _ => None,
    };
    if header.is_none() {
        return Some((400, -32020, "MCP-Protocol-Version is missing"));
    }
    if said.is_null() || meta[format!("{META}/clientCapabilities")].is_null() {
        return Some((400, -32602, "_meta does not say who asks"));
    }
    if said.as_str() != header {
        return Some((400, -32020, "MCP-Protocol-Version is not what _meta says"));
    }
    if header != Some(MODERN) {
        return Some((400, -32022, "unsupported version"));
    }
    if request.header("mcp-method") != Some(method) {
        return Some((400, -32020, "Mcp-Method is not the method"));
    }
    if named.is_some() && request.header("mcp-name") != named {
        return Some((400, -32020, "Mcp-Name is not the name"));
    }
    None
}

pub fn serve(
    shared: &Shared,
    request: &Request,
    message: &Value,
    line: &mut Line,
) -> io::Result<()> {
    if shared.character.now().contains(&Fault::LegacyOnly) {
        return line.answer(400, &[("content-type", "text/plain")], b"Bad Request: no session");
    }
    if request.method != "POST" {
        return line.answer(405, &[("allow", "POST")], b"");
    }
    let id = &message["id"];
    if let Some((status, code, words)) = problem(request, message) {
        let mut error = json!({"code": code, "message": words});
        if code == -32022 {
            let asked = request.header("mcp-protocol-version");
            error["data"] = json!({"supported": [MODERN], "requested": asked});
        }
        let body = json!({"jsonrpc": "2.0", "id": id, "error": error});
        return line.answer(status, &[JSON], &encoded(&body));
    }
    if id.is_null() {
        return line.answer(202, &[], b"");
    }
    let method = message["method"].as_str().unwrap_or_default();
    match method {
        "tools/call" => {
            let streams = shared.character.conditions.contains(&Condition::Stream);
            super::call::serve_modern(shared, message, streams, line)
        }
        "subscriptions/listen" => listen(message, line),
        "server/discover" if shared.character.now().contains(&Fault::HangInit) => hang(line),
        "server/discover"
        | "tools/list"
        | "resources/list"
        | "resources/templates/list"
        | "resources/read"
        | "prompts/list" => {
            if method.ends_with("/list") && shared.character.now().contains(&Fault::HangList) {
                return hang(line);
            }
            let mut answer = shared.answer(method, &message["params"]);
            answer.said =
                answer.said.map(|result| offer::modern(&shared.character, method, result));
            line.answer(200, &[JSON], &encoded(&answer.message(id)))
        }
        _ => refuse(line, 404, id, -32601, "there is no such method"),
    }
}

/// A stream of what was asked for, which is all honoured, until the client goes.
fn listen(message: &Value, line: &mut Line) -> io::Result<()> {
    let params = json!({
        "notifications": message["params"]["notifications"],
        "_meta": {format!("{META}/subscriptionId"): message["id"]},
    });
    let method = "notifications/subscriptions/acknowledged";
    line.stream(&[])?;
    line.event(None, &encoded(&json!({"jsonrpc": "2.0", "method": method, "params": params})))?;
    hang(line)
}
