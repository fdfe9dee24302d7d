//! The server over HTTP: good in both eras, and bad as it is told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by ending")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use evil_mcp::{Character, Fault, fault::Condition, http::Server, value::Bytes};
use serde_json::{Value, json};

/// What came back on a connection that was closed after it.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Whether the connection ended as it should.
    whole: bool,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(one, _)| *one == name).map(|(_, value)| value).next()
    }
}

/// Sends one request on a connection of its own and reads until it has the body that was promised.
fn send(server: &Server, method: &str, headers: &str, body: &str) -> Reply {
    let address = server.url.strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let request =
        format!("{method} /mcp HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    socket.write_all(body.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        if let Some(reply) = parsed(&bytes, false) {
            return reply;
        }
        match socket.read(&mut piece) {
            Ok(0) | Err(_) => {
                let none = Reply { status: 0, head: String::new(), body: vec![], whole: false };
                return parsed(&bytes, true).unwrap_or(none);
            }
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

/// The reply, once it is whole or the connection `ended`.
fn parsed(bytes: &[u8], ended: bool) -> Option<Reply> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut reply = Reply { status, head, body: bytes[end + 4..].to_vec(), whole: true };
    let is_whole = match reply.header("content-length") {
        Some(length) => reply.body.len() == length.parse::<usize>().unwrap(),
        None => reply.body.ends_with(b"0\r\n\r\n"),
    };
    reply.whole = is_whole;
    (is_whole || ended).then_some(reply)
}

fn with(fault: Fault) -> Server {
    Server::start(Character::good().with(fault)).unwrap()
}

/// Begins a session; the header that belongs to it.
fn session(server: &Server) -> String {
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let reply = send(server, "POST", "", hello);
    format!("mcp-session-id: {}\r\n", reply.header("mcp-session-id").unwrap())
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call",
    "params":{"name":"echo","arguments":{"nonce":"n"}}}"#;

fn call(server: &Server) -> Reply {
    send(server, "POST", &session(server), CALL)
}

#[test]
fn a_good_server_keeps_sessions() {
    let server = Server::start(Character::good()).unwrap();
    let session = session(&server);
    assert_eq!(send(&server, "POST", &session, CALL).json()["result"]["content"][0]["text"], "n");
    assert_eq!(send(&server, "POST", "", CALL).status, 400);
    assert_eq!(send(&server, "POST", "mcp-session-id: other\r\n", CALL).status, 404);
    assert_eq!(send(&server, "DELETE", &session, "").status, 200);
    assert_eq!(send(&server, "POST", &session, CALL).status, 404);
    assert_eq!((server.calls(), server.hellos()), (1, 1));
}

/// A request of the modern era, with its headers.
fn modern(method: &str, more: &str) -> (String, String) {
    let headers = format!("mcp-protocol-version: 2026-07-28\r\nmcp-method: {method}\r\n{more}");
    let mut message = json!({"jsonrpc": "2.0", "id": 2, "method": method, "params": {"_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }}});
    if method == "tools/call" {
        message["params"]["name"] = json!("echo");
        message["params"]["arguments"] = json!({"nonce": "n"});
    }
    (headers, message.to_string())
}

#[test]
fn a_good_server_speaks_the_modern_era_too() {
    let server = Server::start(Character::good()).unwrap();
    let ask = |method: &str, more: &str| {
        let (headers, body) = modern(method, more);
        send(&server, "POST", &headers, &body)
    };
    assert_eq!(
        ask("server/discover", "").json()["result"]["supportedVersions"],
        json!(["2026-07-28"])
    );
    let answer = ask("tools/call", "mcp-name: echo\r\n").json();
    assert_eq!(answer["result"]["resultType"], "complete");
    assert_eq!(answer["result"]["content"][0]["text"], "n");
    let refused = ask("tools/call", "mcp-name: other\r\n");
    assert_eq!((refused.status, refused.json()["error"]["code"].as_i64()), (400, Some(-32020)));
    assert_eq!(ask("no/method", "").status, 404);

    let old = with(Fault::LegacyOnly);
    let (headers, body) = modern("server/discover", "");
    assert_eq!(send(&old, "POST", &headers, &body).status, 400);
    let new = with(Fault::ModernOnly);
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    assert_eq!(send(&new, "POST", "", hello).json()["error"]["code"], -32022);
}

#[test]
fn it_answers_with_whatever_it_is_told() {
    let server =
        Server::start(Character::good().with(Fault::Status(429)).with(Fault::RetryAfter(7)))
            .unwrap();
    let reply = call(&server);
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("7")));
    assert!(call(&with(Fault::Status(401))).header("www-authenticate").is_some());
    assert_eq!(call(&with(Fault::Html)).header("content-type"), Some("text/html"));
    assert_eq!(call(&with(Fault::Accepted)).status, 202);
    assert!(call(&with(Fault::Empty)).body.is_empty());
    let half = call(&with(Fault::Truncated));
    assert!(half.whole && serde_json::from_slice::<Value>(&half.body).is_err());
    let away = call(&with(Fault::Redirect("http://127.0.0.1:9/".to_owned())));
    assert_eq!((away.status, away.header("location")), (307, Some("http://127.0.0.1:9/")));
    let bomb = call(&with(Fault::GzipBomb(Bytes(5_000_000))));
    assert!(bomb.whole && bomb.body.len() < 100_000);
    assert_eq!(bomb.header("content-encoding"), Some("gzip"));
}

#[test]
fn one_that_is_closed_does_not_even_say_hello() {
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    assert_eq!(send(&with(Fault::Closed(401)), "POST", "", hello).status, 401);
}

#[test]
fn it_breaks_connections_as_it_is_told() {
    let cut = call(&with(Fault::Cut(Bytes(10))));
    assert_eq!((cut.whole, cut.body.len()), (false, 10));
    assert_eq!(call(&with(Fault::Reset)).status, 0);

    let character = Character::good().with(Fault::Cut(Bytes(12))).when(Condition::Stream);
    let cut = call(&Server::start(character).unwrap());
    assert!(!cut.whole, "{cut:?}");
    assert!(cut.body.ends_with(b"data: {\"id\":"), "{cut:?}");
}

#[test]
fn a_second_answer_makes_a_stream_of_it() {
    let reply = call(&with(Fault::DupReply));
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let text = String::from_utf8(reply.body).unwrap();
    assert_eq!(text.matches("\"result\"").count(), 2);
}

#[test]
fn a_session_expires_after_its_calls() {
    let server = with(Fault::Expire(2));
    let session = session(&server);
    let statuses: Vec<u16> = (0..4).map(|_| send(&server, "POST", &session, CALL).status).collect();
    assert_eq!(statuses, [200, 200, 404, 404]);
}

#[test]
fn an_answer_can_be_fetched_later_and_is_repeated_where_told() {
    let character = Character::good().with(Fault::DuplicateEvents).when(Condition::Resumable);
    let server = Server::start(character).unwrap();
    let session = session(&server);
    let begun = send(&server, "POST", &session, CALL);
    let text = String::from_utf8(begun.body).unwrap();
    assert!(begun.whole && !text.contains("result"), "{text}");
    let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let fetched = send(&server, "GET", &format!("{session}last-event-id: {id}\r\n"), "");
    let text = String::from_utf8(fetched.body).unwrap();
    assert_eq!(text.matches("\"result\"").count(), 2, "{text}");
}
