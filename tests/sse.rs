//! The older transport with its two endpoints.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, SseClient, TestGateway, client::request, events::EventStream, within,
};

async fn demo() -> (TestGateway, String) {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    gateway.publish("all", &["demo"]).await;
    gateway.ready("demo").await;
    let key = gateway.key("suite").await;
    (gateway, key)
}

#[tokio::test]
async fn tools_are_listed_and_called_over_sse() {
    let (gateway, key) = demo().await;
    let client = gateway.sse_client("all", &key).await;
    assert!(client.tools().await.contains(&"demo__echo".to_owned()));
    let answer = client.call(json!("a"), "demo__echo", json!({"message": "hello"})).await;
    assert_eq!(answer["id"], "a");
    assert!(
        answer["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains("hello"))
    );
    let streamable = Client::connect(&gateway.endpoint_url("all"), Some(&key)).await;
    assert_eq!(streamable.tools().await, client.tools().await);
}

#[tokio::test]
async fn progress_comes_before_the_answer_and_with_the_clients_own_token() {
    let (gateway, key) = demo().await;
    let client = gateway.sse_client("all", &key).await;
    let params = json!({
        "name": "demo__echo", "arguments": {"message": "x", "repeat": 3, "delay_ms": 10},
        "_meta": {"progressToken": 7},
    });
    assert_eq!(client.post(&request(json!(1), "tools/call", params)).await, StatusCode::ACCEPTED);
    let note =
        client.heard("progress", |message| message["method"] == "notifications/progress").await;
    assert_eq!(note["params"]["progressToken"], 7);
    client.heard("the answer", |message| message["id"] == 1 && message["result"].is_object()).await;
}

#[tokio::test]
async fn a_cancelled_call_is_silent_and_the_stream_goes_on() {
    let (gateway, key) = demo().await;
    let client = gateway.sse_client("all", &key).await;
    let long = json!({"name": "demo__long_task", "arguments": {"seconds": 60, "steps": 60}});
    assert_eq!(
        client.post(&request(json!("long"), "tools/call", long)).await,
        StatusCode::ACCEPTED
    );
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "long"}});
    assert_eq!(client.post(&cancel.to_string()).await, StatusCode::ACCEPTED);
    // Whatever comes until the next answer must not be about the call that was cancelled.
    assert_eq!(client.post(&request(json!(2), "ping", json!({}))).await, StatusCode::ACCEPTED);
    let next =
        client.heard("any response", |message: &Value| message.get("method").is_none()).await;
    assert_eq!(next, json!({"jsonrpc": "2.0", "id": 2, "result": {}}));
}

#[tokio::test]
async fn the_stream_is_guarded_like_everything_else() {
    let (gateway, _key) = demo().await;
    let bare = gateway.http.get(gateway.sse_url("all")).header("accept", "text/event-stream");
    assert_eq!(bare.send().await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_message_needs_the_stream_that_it_belongs_to() {
    let (gateway, key) = demo().await;
    let client = SseClient::connect(&gateway.sse_url("all"), Some(&key)).await;
    let ping = request(json!(1), "ping", json!({}));
    let post = async |url: &str, key: Option<&str>| {
        let request =
            gateway.http.post(url).header("content-type", "application/json").body(ping.clone());
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        request.send().await.expect("an answer").status()
    };
    let unknown = format!("{}/metamcp/all/message?sessionId=no-such-session", gateway.base);
    assert_eq!(post(&unknown, Some(&key)).await, StatusCode::NOT_FOUND);
    let twice = format!("{}&sessionId=another", client.message_url);
    let request = gateway.http.post(&twice).header("content-type", "application/json");
    let refused = request.body(ping.clone()).bearer_auth(&key).send().await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let refused = refused.text().await.expect("a body");
    let refused: Value = serde_json::from_str(&refused).expect("an error of the protocol");
    assert_eq!(refused["error"]["code"], -32600, "{refused}");
    let other_key = gateway.key("other").await;
    assert_eq!(post(&client.message_url, Some(&other_key)).await, StatusCode::NOT_FOUND);
    assert_eq!(post(&client.message_url, None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(post(&client.message_url, Some(&key)).await, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_session_ends_with_its_stream() {
    let (gateway, key) = demo().await;
    let client = SseClient::connect(&gateway.sse_url("all"), Some(&key)).await;
    let url = client.message_url.clone();
    drop(client);
    let ping = request(json!(1), "ping", json!({}));
    crate::support::wait_until("the session to end", SOON, async || {
        let request =
            gateway.http.post(&url).header("content-type", "application/json").bearer_auth(&key);
        let status = request.body(ping.clone()).send().await.expect("an answer").status();
        (status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_stream_has_the_headers_that_proxies_need() {
    let (gateway, key) = demo().await;
    let request = gateway
        .http
        .get(gateway.sse_url("all"))
        .header("accept", "text/event-stream")
        .bearer_auth(&key);
    let response = request.send().await.expect("an answer");
    let header = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    assert_eq!(header("x-accel-buffering").as_deref(), Some("no"));
    assert!(header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")));
    let first = within("the endpoint event", SOON, EventStream::of(response).next())
        .await
        .expect("an event");
    assert!(first.data.contains("/metamcp/all/message?sessionId="), "{first:?}");
}
