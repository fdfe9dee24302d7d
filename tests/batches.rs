//! Batches: served where the revision has them, refused as a whole where it has not.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Client, SseClient, TestGateway, gateway::Start};

async fn demo(settings: &str) -> (TestGateway, Client) {
    let gateway = Start::new().settings(settings).run().await;
    gateway.demo("demo").await;
    let mut client = gateway.client_of(&["demo"]).await.again();
    client.initialize("2025-03-26").await;
    (gateway, client)
}

fn echo(id: Value, message: &str) -> Value {
    let params = json!({"name": "demo__echo", "arguments": {"message": message}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

fn ping(id: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "ping"})
}

/// The answers by their ids.
fn answer_to<'a>(answers: &'a [Value], id: &Value) -> &'a Value {
    let mut found = answers.iter().filter(|answer| answer["id"] == *id);
    let answer = found.next().unwrap_or_else(|| panic!("nothing for {id}: {answers:?}"));
    assert!(found.next().is_none(), "one answer for {id}: {answers:?}");
    answer
}

#[tokio::test]
async fn each_message_of_a_batch_is_handled_on_its_own_and_the_answers_are_one_array() {
    let (_gateway, client) = demo("").await;
    let batch = json!([
        ping(json!(1)),
        echo(json!("two"), "first"),
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
        echo(json!(3), "second"),
        {"jsonrpc": "2.0", "id": 4, "method": "no/such"},
        {"jsonrpc": "1.0", "id": 5, "method": "ping"},
        {"jsonrpc": "2.0", "id": 6, "method": "initialize", "params": {}},
        {"jsonrpc": "2.0", "id": 99, "result": {}},
    ]);
    let reply = client.post(&batch.to_string()).await;
    assert_eq!(reply.status, StatusCode::OK);
    let Value::Array(answers) = reply.json() else { panic!("no array: {reply:?}") };
    assert_eq!(answers.len(), 6, "{answers:?}");
    assert_eq!(answer_to(&answers, &json!(1))["result"], json!({}));
    for (id, text) in [(json!("two"), "first"), (json!(3), "second")] {
        let said = answer_to(&answers, &id)["result"]["content"][0]["text"].to_string();
        assert!(said.contains(text), "{said}");
    }
    assert_eq!(answer_to(&answers, &json!(4))["error"]["code"], -32601);
    assert_eq!(answer_to(&answers, &json!(5))["error"]["code"], -32600);
    assert_eq!(answer_to(&answers, &json!(6))["error"]["code"], -32600);
}

#[tokio::test]
async fn a_batch_that_asks_nothing_is_accepted() {
    let (_gateway, client) = demo("").await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let reply = client.post(&json!([note, note]).to_string()).await;
    assert_eq!((reply.status, reply.messages.len()), (StatusCode::ACCEPTED, 0));
}

#[tokio::test]
async fn a_batch_that_has_more_to_say_is_one_stream() {
    let (_gateway, client) = demo("").await;
    let reporting = json!({"jsonrpc": "2.0", "id": "r", "method": "tools/call", "params": {
        "name": "demo__echo", "arguments": {"message": "x", "repeat": 3, "delay_ms": 20},
        "_meta": {"progressToken": "t"},
    }});
    let reply =
        client.post(&json!([ping(json!(1)), reporting, echo(json!(2), "y")]).to_string()).await;
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")));
    for id in [json!(1), json!("r"), json!(2)] {
        assert!(reply.answer_to(&id)["result"].is_object(), "{reply:?}");
    }
    assert!(reply.messages.iter().any(|message| message.contains("notifications/progress")));
}

#[tokio::test]
async fn a_batch_is_refused_as_a_whole_where_the_revision_has_none_and_where_it_is_no_batch() {
    let (_gateway, client) = demo("[sessions]\nbatch_max = 3").await;
    let good = json!([ping(json!(1))]).to_string();
    for (version, status) in [
        ("2024-11-05", StatusCode::BAD_REQUEST),
        ("2025-03-26", StatusCode::OK),
        ("2025-06-18", StatusCode::BAD_REQUEST),
        ("2025-11-25", StatusCode::BAD_REQUEST),
    ] {
        let mut client = client.again();
        client.initialize(version).await;
        let reply = client.post(&good).await;
        assert_eq!(reply.status, status, "{version}");
        if status != StatusCode::OK {
            assert_eq!(reply.json()["error"]["code"], -32600, "{version}: {reply:?}");
        }
    }
    let many = json!([1, 2, 3, 4].map(|id| ping(json!(id)))).to_string();
    for (body, code) in [("[]", -32600), (&*many, -32600), ("[1", -32700)] {
        let reply = client.post(body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(reply.json()["error"]["code"], code, "{body}: {reply:?}");
    }
    let mut stranger = client.again();
    stranger.session = None;
    assert_eq!(stranger.post(&good).await.status, StatusCode::BAD_REQUEST, "there is no session");
}

#[tokio::test]
async fn a_client_of_the_older_transport_may_send_batches_and_hears_each_answer_on_its_stream() {
    let (gateway, _client) = demo("").await;
    let key = gateway.key("sse").await;
    let client: SseClient = gateway.sse_client("all", &key).await;
    let bad = json!({"jsonrpc": "1.0", "id": 3, "method": "ping"});
    let batch = json!([ping(json!(1)), echo(json!(2), "by batch"), bad]).to_string();
    assert_eq!(client.post(&batch).await, StatusCode::ACCEPTED);
    for id in [1, 2] {
        client
            .heard("an answer", |message| message["id"] == id && message["result"].is_object())
            .await;
    }
    assert_eq!(client.post("[]").await, StatusCode::BAD_REQUEST);
    assert_eq!(client.post(&json!([bad]).to_string()).await, StatusCode::ACCEPTED);
    let error = client.heard("the error", |message| message["id"] == 3).await;
    assert_eq!(error["error"]["code"], -32600, "{error}");
}
