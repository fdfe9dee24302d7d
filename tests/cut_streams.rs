//! The stream of a call that is cut anywhere: the call has one outcome, whatever was cut. Where events had
//! ids the rest is fetched, and what comes twice is told once.

use futures_util::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Client, TestGateway,
    client::request,
    gateway::Start,
    scripted::{Asked, Said, Scripted, answer},
};

const SETTINGS: &str = r#"
calls = { breaker = { failures = 0 } }
upstream = { resume = { retry = "1ms" } }
"#;

/// Calls that are under way at once.
const AT_ONCE: usize = 48;

/// Four events: one that primes the stream, two of progress, and the answer, about 2 KB in all.
fn events(call: &Call) -> Vec<String> {
    let id = |number: usize| match call.has_ids {
        true => format!("id: {}/{}/{number}\nretry: 1\n", call.id, call.cut),
        false => String::new(),
    };
    let progress = |step: u32| {
        let params =
            json!({"progressToken": call.id, "progress": step, "message": "x".repeat(500)});
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).to_string()
    };
    let text = format!("{}-{}", call.cut, "y".repeat(500));
    let result = json!({"content": [{"type": "text", "text": text}]});
    let result = json!({"jsonrpc": "2.0", "id": call.id, "result": result}).to_string();
    let said = [String::new(), progress(1), progress(2), result];
    said.iter()
        .enumerate()
        .map(|(number, data)| format!("{}data: {data}\n\n", id(number)))
        .collect()
}

struct Call {
    id: u64,
    cut: usize,
    has_ids: bool,
}

/// Cuts the stream of a call after so many bytes, and says the rest to who asks for it: and again what it
/// had said before, as if it did not know how far it had come.
fn script(asked: &Asked) -> Said {
    let (call, from) = match &asked.last_event {
        Some(last) => {
            let mut numbers = last.split('/').map(|number| number.parse().expect("our own id"));
            let mut next = || numbers.next().expect("three numbers");
            let call = Call { id: next(), cut: next() as usize, has_ids: true };
            // From the event that was the last one, which is one too early.
            (call, next() as usize)
        }
        None => {
            let cut = asked.arguments["cut"].as_u64().unwrap_or_default() as usize;
            let has_ids = asked.arguments["ids"] == true;
            (Call { id: asked.id.parse().expect("a number"), cut, has_ids }, 0)
        }
    };
    let rest = events(&call)[from..].concat();
    let mut said = Said::whole(answer("200 OK", "text/event-stream", rest.as_bytes()));
    if asked.last_event.is_none() {
        let head = said.bytes.len() - rest.len();
        said.bytes.truncate(head + call.cut);
    }
    said
}

async fn cut(client: &Client, at: usize, has_ids: bool) -> (Value, usize) {
    let (id, token) = (json!(format!("c{at}")), json!(format!("t{at}")));
    let params = json!({
        "name": "s__t", "arguments": {"cut": at, "ids": has_ids}, "_meta": {"progressToken": token},
    });
    let reply = client.post(&request(id.clone(), "tools/call", params)).await;
    assert_eq!(reply.status, StatusCode::OK, "{at}: {reply:?}");
    let messages: Vec<Value> =
        reply.messages.iter().map(|message| serde_json::from_str(message).expect("JSON")).collect();
    let answers: Vec<&Value> = messages.iter().filter(|message| message["id"] == id).collect();
    assert_eq!(answers.len(), 1, "cut at {at}: one outcome: {reply:?}");
    let steps: Vec<_> = messages
        .iter()
        .filter(|message| message["method"] == "notifications/progress")
        .map(|message| message["params"]["progress"].as_u64())
        .collect();
    assert!(steps.is_sorted() && steps.len() <= 2, "cut at {at}: {steps:?}");
    (answers[0].clone(), steps.len())
}

async fn gateway() -> (TestGateway, Scripted, Client) {
    let gateway = Start::new().settings(SETTINGS).run().await;
    let server = Scripted::start(script);
    let row =
        json!({"name": "s", "type": "STREAMABLE_HTTP", "url": server.url, "isolation": "SHARED"});
    gateway.create("mcp-servers", row).await;
    let client = gateway.client_of(&["s"]).await;
    (gateway, server, client)
}

/// Where the events of a call end, for an id of as many digits as is usual.
fn ends(id: u64, has_ids: bool, cut: usize) -> Vec<usize> {
    let events = events(&Call { id, cut, has_ids });
    events
        .iter()
        .scan(0, |end, event| {
            *end += event.len();
            Some(*end)
        })
        .collect()
}

#[tokio::test]
async fn a_stream_without_ids_that_is_cut_anywhere_is_one_outcome_and_one_call() {
    let (_gateway, server, client) = gateway().await;
    // The longest that it can be: ids of five digits.
    let longest = *ends(10_000, false, 9_999).last().expect("events") + 8;
    assert!(longest > 1_500, "{longest}");
    let calls = (0..=longest).map(|at| {
        let client = &client;
        async move { (at, cut(client, at, false).await) }
    });
    let outcomes: Vec<_> = stream::iter(calls).buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(server.calls(), longest + 1, "none is sent again");
    let mut answered = 0;
    for (at, (answer, _)) in outcomes {
        match answer["error"].is_null() {
            true => {
                let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
                assert!(text.starts_with(&format!("{at}-")), "the answer of another: {answer}");
                answered += 1;
            }
            false => {
                assert_eq!(answer["error"]["data"]["reason"], "upstream_ended", "{at}: {answer}");
                assert_eq!(answer["error"]["data"]["retry"], false, "{at}: {answer}");
            }
        }
    }
    assert!((1..40).contains(&answered), "only those whose answer was whole: {answered}");
}

#[tokio::test]
async fn a_stream_with_ids_that_is_cut_anywhere_after_the_first_brings_its_answer_once() {
    let (gateway, server, client) = gateway().await;
    let longest = *ends(10_000, true, 9_999).last().expect("events") + 8;
    let calls = (0..=longest).map(|at| {
        let client = &client;
        async move { (at, cut(client, at, true).await) }
    });
    let outcomes: Vec<_> = stream::iter(calls).buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(server.calls(), longest + 1, "a call is never sent again");
    let mut failed = Vec::new();
    for (at, (answer, steps)) in outcomes {
        match answer["error"].is_null() {
            true => {
                let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
                assert!(text.starts_with(&format!("{at}-")), "the answer of another: {answer}");
                assert_eq!(steps, 2, "cut at {at}: each step is told once");
            }
            false => {
                assert_eq!(answer["error"]["data"]["reason"], "upstream_ended", "{at}: {answer}");
                failed.push(at);
            }
        }
    }
    let first = ends(10_000, true, 9_999)[0];
    assert!(failed.iter().all(|at| *at <= first), "after the first id all are whole: {failed:?}");
    assert!(failed.len() > 10, "before it nothing can be fetched: {failed:?}");
    let duplicates = gateway.metric("metamcpd_upstream_duplicate_events_total").await;
    assert!(duplicates.unwrap_or_default() > 100.0, "{duplicates:?}");
}
