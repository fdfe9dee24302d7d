//! Streamable HTTP upstreams: their sessions, their streams, and what is sent to them.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::request,
    gateway::Start,
    remote::{Answers, Knobs, Remote},
    wait_until,
};

async fn with(knobs: Knobs) -> (TestGateway, Remote, Client) {
    let gateway = TestGateway::start().await;
    let remote = Remote::start(knobs);
    gateway.remote("remote", &remote.url).await;
    let client = gateway.client_of(&["remote"]).await;
    (gateway, remote, client)
}

#[tokio::test]
async fn tools_are_listed_and_called_whichever_way_the_upstream_answers() {
    for answers in [Answers::Json, Answers::Sse] {
        let (_gateway, _remote, client) = with(Knobs { answers, ..Knobs::default() }).await;
        assert_eq!(client.tools().await, ["remote__echo", "remote__steps"], "{answers:?}");
        assert_eq!(
            client.text_of("remote__echo", json!({"value": "über"})).await,
            "über",
            "{answers:?}"
        );
    }
}

#[tokio::test]
async fn an_upstream_without_a_standing_stream_serves_as_well() {
    let (_gateway, remote, client) = with(Knobs { streams: false, ..Knobs::default() }).await;
    let stream = client.listen().await;
    assert_eq!(client.text_of("remote__echo", json!({"value": "hi"})).await, "hi");
    drop(stream);
    assert!(remote.count("GET") < 20, "405 is an answer, not a reason to ask again and again");
}

#[tokio::test]
async fn progress_of_a_remote_upstream_reaches_the_client() {
    let (_gateway, remote, client) =
        with(Knobs { answers: Answers::Sse, ..Knobs::default() }).await;
    let params = json!({"name": "remote__steps", "arguments": {"count": 3}, "_meta": {"progressToken": "mine"}});
    let reply = client.post(&request(json!(1), "tools/call", params)).await;
    let tokens: Vec<Value> = reply
        .messages
        .iter()
        .filter_map(|text| serde_json::from_str::<Value>(text).ok())
        .filter(|message| message["method"] == "notifications/progress")
        .map(|message| message["params"]["progressToken"].clone())
        .collect();
    assert_eq!(tokens, ["mine", "mine", "mine"], "{reply:?}");
    assert!(reply.answer_to(&json!(1))["result"].is_object());
    let calls = remote.seen_of("tools/call");
    let sent = &calls.last().expect("the call").body;
    assert_ne!(
        sent["params"]["_meta"]["progressToken"], "mine",
        "towards an upstream tokens are ours"
    );
    assert_eq!(sent["params"]["name"], "steps");
}

#[tokio::test]
async fn a_lost_session_is_begun_again_once_for_fifty_calls_and_nobody_notices() {
    let gateway = TestGateway::start().await;
    let remote = Remote::start(Knobs::default());
    let body = json!({"name": "remote", "type": "STREAMABLE_HTTP", "url": remote.url, "isolation": "SHARED"});
    gateway.create("mcp-servers", body).await;
    let client = gateway.client_of(&["remote"]).await;
    client.text_of("remote__echo", json!({"value": "warm"})).await;
    let before = remote.seen_of("initialize").len();

    remote.forget_sessions();
    let values: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let calls = values.iter().map(|value| client.text_of("remote__echo", json!({"value": value})));
    assert_eq!(join_all(calls).await, values);

    assert_eq!(remote.seen_of("initialize").len(), before + 1);
    let hellos = remote.seen_of("initialize");
    assert_eq!(
        hellos.last().expect("a handshake").header("mcp-session-id"),
        None,
        "begun without the old id"
    );
}

#[tokio::test]
async fn a_session_of_each_client_is_begun_again_once() {
    let (_gateway, remote, client) = with(Knobs::default()).await;
    client.text_of("remote__echo", json!({"value": "warm"})).await;
    let before = remote.seen_of("initialize").len();
    remote.forget_sessions();
    let values: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let calls = values.iter().map(|value| client.text_of("remote__echo", json!({"value": value})));
    assert_eq!(join_all(calls).await, values);
    let begun = remote.seen_of("initialize").len() - before;
    // One for the client's calls, and at most one for the gateway's own lists.
    assert!((1..=2).contains(&begun), "{begun}");
}

#[tokio::test]
async fn the_configured_credentials_are_sent_and_the_clients_are_not() {
    let gateway = Start::new().environment("SUITE_TENANT", "tenant-7").run().await;
    let remote =
        Remote::start(Knobs { bearer: Some("upstream-token".to_owned()), ..Knobs::default() });
    let body = json!({
        "name": "remote", "type": "STREAMABLE_HTTP", "url": remote.url, "bearer_token": "upstream-token",
        "headers": {"X-Plain": "plain", "X-Tenant": "${SUITE_TENANT}"},
    });
    gateway.create("mcp-servers", body).await;
    let mut client = gateway.client_of(&["remote"]).await;
    client.headers.push(("cookie".to_owned(), "client=cookie".to_owned()));
    client.headers.push(("x-from-client".to_owned(), "not for upstreams".to_owned()));
    assert_eq!(client.text_of("remote__echo", json!({"value": "hi"})).await, "hi");

    let client_key = client.headers[0].1.trim_start_matches("Bearer ").to_owned();
    let client_session = client.session.clone().expect("a session");
    for seen in remote.seen() {
        assert_eq!(seen.header("authorization"), Some("Bearer upstream-token"), "{seen:?}");
        assert_eq!(seen.header("x-plain"), Some("plain"), "{seen:?}");
        assert_eq!(seen.header("x-tenant"), Some("tenant-7"), "{seen:?}");
        let everything = format!("{seen:?}");
        for private in
            [client_key.as_str(), client_session.as_str(), "client=cookie", "not for upstreams"]
        {
            assert!(!everything.contains(private), "{private} went upstream: {everything}");
        }
    }
    let calls = remote.seen_of("tools/call");
    let call = calls.last().expect("the call");
    assert!(
        call.header("mcp-session-id").is_some_and(|id| id.starts_with("upstream-session-")),
        "{call:?}"
    );
    assert_eq!(call.header("mcp-protocol-version"), Some("2025-11-25"), "{call:?}");
}

#[tokio::test]
async fn a_bad_token_is_shown_and_a_good_one_heals() {
    let gateway = Start::new()
        .settings("[supervision]\nbackoff_min = \"20ms\"\nbackoff_max = \"100ms\"")
        .run()
        .await;
    let remote = Remote::start(Knobs { bearer: Some("good".to_owned()), ..Knobs::default() });
    let body = json!({"name": "remote", "type": "STREAMABLE_HTTP", "url": remote.url, "bearer_token": "bad"});
    gateway.create("mcp-servers", body).await;
    gateway.server_until("remote", "refused", |server| server["error_status"] != "NONE").await;
    gateway.change("mcp-servers/remote", json!({"bearer_token": "good"})).await;
    assert_eq!(gateway.ready("remote").await["error_status"], "NONE");
}

#[tokio::test]
async fn a_change_of_the_remote_list_reaches_the_clients_stream() {
    let (_gateway, remote, client) = with(Knobs::default()).await;
    assert_eq!(client.tools().await.len(), 2);
    let mut stream = client.listen().await;
    remote.turn(|knobs| knobs.tools.push("fresh".to_owned()));
    wait_until("a stream to push on", SOON, async || {
        (remote.push("notifications/tools/list_changed") > 0).then_some(())
    })
    .await;
    stream
        .events
        .find("list_changed", SOON, |message| {
            message["method"] == "notifications/tools/list_changed"
        })
        .await;
    assert!(client.tools().await.contains(&"remote__fresh".to_owned()));
    assert_eq!(client.text_of("remote__fresh", json!({})).await, "fresh");
}

#[tokio::test]
async fn a_remote_call_that_takes_too_long_is_cancelled_there() {
    let (gateway, remote, client) = with(Knobs::default()).await;
    // The session there is begun first, or its handshake might take all of the time.
    client.call("remote__echo", json!({"value": "early"})).await;
    gateway.change("mcp-servers/remote", json!({"call_timeout_ms": 500})).await;
    gateway.ready("remote").await;
    let answer = client.call("remote__echo", json!({"value": "late", "delay_ms": 30_000})).await;
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    let cancelled = wait_until("the cancellation", SOON, async || {
        remote.seen_of("notifications/cancelled").first().cloned()
    })
    .await;
    let calls = remote.seen_of("tools/call");
    assert_eq!(cancelled.body["params"]["requestId"], calls.last().expect("the call").body["id"]);
}

#[tokio::test]
async fn an_upstream_that_comes_later_is_used_without_a_person() {
    let gateway = Start::new()
        .settings("[supervision]\nbackoff_min = \"20ms\"\nbackoff_max = \"100ms\"")
        .run()
        .await;
    let port = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.local_addr().expect("its address").port()
    };
    gateway.remote("remote", &format!("http://127.0.0.1:{port}/mcp")).await;
    gateway.server_until("remote", "failing", |server| server["error_status"] != "NONE").await;
    let remote = Remote::start_on(port, Knobs::default());
    assert_eq!(gateway.ready("remote").await["error_status"], "NONE");
    assert!(!remote.seen_of("initialize").is_empty());
}
