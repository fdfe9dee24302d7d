//! Everything that a remote upstream can say instead of an answer: each has its word, fails its own call
//! once, is never asked for twice, and leaves the next call as good as ever.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::call,
    gateway::Start,
    scripted::{Said, Scripted, Then, answer},
};

/// Calls give up soon, and the upstream is given up never: what is looked at are the calls.
const HASTY: &str = r#"
wire = { message_max = 100000 }
calls = { timeout = "1s", total = "2s", breaker = { failures = 0, retry_after_max = "0s", retry_wait = "0s" } }
"#;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

struct Case {
    what: &'static str,
    said: fn(&str) -> Said,
    /// The result, or the reason of the error.
    wanted: Result<(), &'static str>,
}

fn good(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"n"}}]}}}}"#
    )
}

fn json(body: impl AsRef<[u8]>) -> Said {
    Said::whole(answer("200 OK", JSON, body.as_ref()))
}

fn events(body: impl AsRef<[u8]>) -> Said {
    Said::whole(answer("200 OK", EVENTS, body.as_ref()))
}

fn of_kind(kind: &str, body: impl AsRef<[u8]>) -> Said {
    Said::whole(answer("200 OK", kind, body.as_ref()))
}

fn status(status: &str, body: &str) -> Said {
    Said::whole(answer(status, "text/html", body.as_bytes()))
}

/// Says that it is longer than it is.
fn short(kind: &str, body: &[u8], missing: usize) -> Said {
    let mut said = Said::whole(answer("200 OK", kind, &[body, &vec![b' '; missing]].concat()));
    said.bytes.truncate(said.bytes.len() - missing);
    said
}

fn chunked(chunks: &str) -> Said {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    Said::whole(format!("{head}{chunks}"))
}

const BAD: Result<(), &str> = Err("upstream_bad_answer");
const STATUS: Result<(), &str> = Err("upstream_http_status");
const ENDED: Result<(), &str> = Err("upstream_ended");
const SILENT: Result<(), &str> = Err("call_timeout");

macro_rules! cases {
    ($( $what:literal, $wanted:expr, $said:expr; )+) => {
        &[$( Case { what: $what, said: $said, wanted: $wanted }, )+]
    };
}

const CASES: &[Case] = cases! {
    // What it is said to be.
    "a picture", BAD, |id| of_kind("image/png", good(id));
    "a page for people", BAD, |_| of_kind("text/html", "<!doctype html><h1>Welcome</h1>");
    "a page that is called JSON", BAD, |_| json("<!doctype html><h1>Welcome</h1>");
    "JSON without a content type", Ok(()), |id| of_kind("", good(id));
    "JSON that is called text", Ok(()), |id| of_kind("text/plain", good(id));
    "what is packed though nobody asked for that", BAD,
        |_| of_kind("application/json\r\nContent-Encoding: gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03");
    // What is missing of it.
    "nothing at all", BAD, |_| json("");
    "nothing, in chunks", ENDED, |_| chunked("0\r\n\r\n");
    "half of the JSON", BAD, |id| json(&good(id)[..20]);
    "half of what was promised", ENDED, |id| short(JSON, &good(id).as_bytes()[..20], 40);
    "chunks that have no end", ENDED, |_| chunked("5\r\n{\"jso\r\n");
    "chunks that are none", ENDED, |_| chunked("zz\r\n{}\r\n");
    "a stream without the answer", ENDED, |_| events(": hello\n\n");
    "a stream that breaks", ENDED, |id| short(EVENTS, format!("data: {}", good(id)).as_bytes(), 9);
    "an event that is no message, before the answer", Ok(()),
        |id| events(format!("data: oops\n\ndata: {}\n\n", good(id)));
    // What it says.
    "a text", BAD, |_| json("\"ok\"");
    "null", BAD, |_| json("null");
    "another's answer", BAD, |_| json(good("987654321"));
    "its id as a text", BAD, |id| json(good(&format!("\"{id}\"")));
    "neither a result nor an error", BAD,
        |id| json(format!(r#"{{"jsonrpc":"2.0","id":{id}}}"#));
    "a result that is null", BAD,
        |id| json(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":null}}"#));
    "a result that is a text", BAD,
        |id| json(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"s"}}"#));
    "a result that is a list, as an event", BAD,
        |id| events(format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":[]}}\n\n"));
    "an error that is null", BAD,
        |id| json(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":null}}"#));
    "an error that says nothing", BAD,
        |id| json(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{}}}}"#));
    "an error without an id that says nothing", BAD,
        |_| json(r#"{"jsonrpc":"2.0","id":null,"error":{}}"#);
    "an error that is of other types", BAD, |id| json(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":"x","message":5}}}}"#
    ));
    "a log message", BAD, |_| json(
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":"x"}}"#
    );
    "a question", BAD, |_| json(r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#);
    "progress of the call", BAD, |id| json(format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{id},"progress":1}}}}"#
    ));
    "depth without end", BAD, |id| json(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{}{}}}"#, "[".repeat(2_000), "]".repeat(2_000)
    ));
    "bytes that are no text", BAD, |id| {
        let text = good(id);
        let (head, tail) = text.split_at(text.len() - 6);
        json([head.as_bytes(), b"\xff\xfe", tail.as_bytes()].concat())
    };
    "more than is allowed", BAD, |_| json(vec![b' '; 200_000]);
    "an event that is more than is allowed", BAD,
        |_| events([&b"data: "[..], &vec![b'x'; 200_000]].concat());
    // Statuses.
    "noted", STATUS, |_| Said::whole(answer("202 Accepted", "", b""));
    "no content", STATUS, |_| Said::whole("HTTP/1.1 204 No Content\r\n\r\n".as_bytes());
    "a failure", STATUS, |_| status("500 Internal Server Error", "<h1>no</h1>");
    "a failing proxy", STATUS, |_| status("502 Bad Gateway", "<h1>no</h1>");
    "overload", STATUS, |_| status("503 Service Unavailable", "<h1>no</h1>");
    "a redirect", STATUS, |_| Said::whole(
        "HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:9/mcp\r\nContent-Length: 0\r\n\r\n".as_bytes()
    );
    "a redirect for good", STATUS, |_| Said::whole(
        "HTTP/1.1 301 Moved\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".as_bytes()
    );
    "a scope that is missing", Err("upstream_insufficient_scope"), |_| Said::whole(
        "HTTP/1.1 403 Forbidden\r\nWWW-Authenticate: Bearer error=\"insufficient_scope\", scope=\"more\"\r\n\
         Content-Length: 0\r\n\r\n".as_bytes()
    );
    "a request that is too large", STATUS, |_| status("413 Payload Too Large", "");
    // What is not HTTP.
    "garbage", ENDED, |_| Said::whole(*b"\xff\xfe not HTTP at all\r\n\r\n");
    "a closed connection", ENDED, |_| Said::whole(*b"");
    "a head without end", ENDED,
        |_| Said::whole([&b"HTTP/1.1 200 OK\r\nX: "[..], &vec![b'x'; 1_000_000]].concat());
    // Slow ones.
    "silence", SILENT, |_| Said { bytes: Vec::new(), then: Then::Hang };
    "silence after the head", SILENT, |id| Said { then: Then::Hang, ..short(JSON, b"", good(id).len()) };
    "silence in the middle", SILENT,
        |id| Said { then: Then::Hang, ..short(JSON, &good(id).as_bytes()[..20], 40) };
    "silence in the middle of an event", SILENT,
        |_| Said { then: Then::Hang, ..short(EVENTS, b"data: {\"json", 40) };
    "byte after byte, for too long", SILENT,
        |id| Said { then: Then::Drip(60, Duration::from_millis(50)), ..json(good(id)) };
    "byte after byte", Ok(()),
        |id| Said { then: Then::Drip(60, Duration::from_millis(2)), ..json(good(id)) };
};

/// The one answer to a call; more or fewer fail the test.
async fn only_answer(client: &Client, case: usize) -> Value {
    let id = json!("the same for all");
    let reply = client.post(&call(id.clone(), "s__t", json!({"case": case}))).await;
    assert_eq!(reply.status, StatusCode::OK, "{case}: {reply:?}");
    let messages =
        reply.messages.iter().map(|message| serde_json::from_str(message).expect("JSON"));
    let mut answers: Vec<Value> = messages.filter(|message: &Value| message["id"] == id).collect();
    assert_eq!(answers.len(), 1, "{case}: {reply:?}");
    answers.remove(0)
}

fn outcome(answer: &Value) -> Result<(), &str> {
    if answer["error"].is_null() {
        assert_eq!(answer["result"]["content"][0]["text"], "n", "{answer}");
        return Ok(());
    }
    Err(answer["error"]["data"]["reason"].as_str().unwrap_or("no reason"))
}

#[tokio::test]
async fn what_is_no_answer_has_its_word_and_fails_its_own_call_once() {
    let gateway = Start::new().settings(HASTY).run().await;
    let server = Scripted::start(|asked| {
        let case = asked.arguments["case"].as_u64().and_then(|case| usize::try_from(case).ok());
        match case.and_then(|case| CASES.get(case)) {
            Some(case) => (case.said)(&asked.id),
            None => json(good(&asked.id)),
        }
    });
    let row =
        json!({"name": "s", "type": "STREAMABLE_HTTP", "url": server.url, "isolation": "SHARED"});
    gateway.create("mcp-servers", row).await;
    let client = gateway.client_of(&["s"]).await;

    let mut wrong = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let called = server.calls();
        let said = only_answer(&client, number).await;
        if outcome(&said) != case.wanted {
            wrong.push(format!("{}: {:?} was wanted: {said}", case.what, case.wanted));
        }
        assert_eq!(server.calls(), called + 1, "{}: a call is sent once", case.what);
        let next = only_answer(&client, CASES.len()).await;
        assert_eq!(outcome(&next), Ok(()), "after {}: {next}", case.what);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(CASES.len() >= 25);
    let server = gateway.server("s").await;
    let (state, restarts) = (&server["runtime"]["state"], &server["runtime"]["restarts"]);
    assert_eq!((state, restarts), (&json!("READY"), &json!(0)), "{server}");
}

/// It is heard or counted, whether or not the length of all of it was said.
#[tokio::test]
async fn what_stands_behind_an_answer_is_heard_as_what_it_is() {
    let gateway = TestGateway::start().await;
    let server = Scripted::start(|asked| {
        let note = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":"behind"}}"#;
        let (once, again) = (good(&asked.id), good("987654321"));
        let body = format!("{once}\n{note}\n{again}\n{{\"no\":\"message\"}}\n");
        match asked.arguments["case"] == 0 {
            true => json(body),
            false => chunked(&format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())),
        }
    });
    let row =
        json!({"name": "s", "type": "STREAMABLE_HTTP", "url": server.url, "isolation": "SESSION"});
    gateway.create("mcp-servers", row).await;
    let client = gateway.client_of(&["s"]).await;
    let mut standing = client.listen().await;
    for case in 0..2 {
        let said = only_answer(&client, case).await;
        assert_eq!(outcome(&said), Ok(()), "{said}");
        let heard = standing.events.expect("the log message", SOON).await.json();
        assert_eq!(heard["params"]["data"], "behind", "{heard}");
        let times = Some(case as f64 + 1.0);
        let unknown = gateway.metric("metamcpd_upstream_unknown_replies_total").await;
        let noise = gateway.metric("metamcpd_upstream_noise_total").await;
        assert_eq!((unknown, noise), (times, times), "case {case}");
    }
}

/// What the upstream said is for operators at most: it may quote what is no client's business.
#[tokio::test]
async fn what_an_error_page_says_is_told_to_no_client() {
    let gateway = TestGateway::start().await;
    let server = Scripted::start(|_| status("500 Oh", "<pre>password=hunter2</pre>"));
    gateway.remote("s", &server.url).await;
    let client = gateway.client_of(&["s"]).await;
    let said = only_answer(&client, 0).await;
    assert_eq!(outcome(&said), STATUS);
    assert!(!said.to_string().contains("hunter2"), "{said}");
}

#[tokio::test]
async fn a_credential_that_is_refused_in_the_middle_of_its_life_is_shown_and_not_tried_again() {
    let gateway = TestGateway::start().await;
    let server = Scripted::start(|_| status("401 Unauthorized", ""));
    gateway.remote("s", &server.url).await;
    let client = gateway.client_of(&["s"]).await;
    let said = only_answer(&client, 0).await;
    assert_eq!(outcome(&said), Err("upstream_unauthorized"), "{said}");
    assert_eq!(server.calls(), 1, "it is sent once");
    let shown = gateway
        .server_until("s", "its want of a credential", |server| {
            server["runtime"]["state"] == "NEEDS_AUTH"
        })
        .await;
    assert_eq!(shown["runtime"]["reason"], "unauthorized", "{shown}");
    let said = only_answer(&client, 0).await;
    assert_eq!(outcome(&said), Err("upstream_unauthorized"), "{said}");
    assert_eq!(server.calls(), 1, "and calls fail at once until it is mended");
}
