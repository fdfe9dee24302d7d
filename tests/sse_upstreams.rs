//! Upstreams over HTTP+SSE (2024-11-05): their streams, where messages go, and what is lost with a
//! stream.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::request,
    gateway::Start,
    remote::{Knobs, Remote},
    sse_remote::{SseKnobs, SseRemote},
    wait_until,
};

const QUICK: &str = "[supervision]\nbackoff_min = \"20ms\"\nbackoff_max = \"100ms\"";

async fn create(gateway: &TestGateway, remote: &SseRemote, isolation: &str) {
    let body = json!({"name": "old", "type": "SSE", "url": remote.url, "isolation": isolation});
    gateway.create("mcp-servers", body).await;
}

async fn with(knobs: SseKnobs, isolation: &str) -> (TestGateway, SseRemote, Client) {
    let gateway = Start::new().settings(QUICK).run().await;
    let remote = SseRemote::start(knobs);
    create(&gateway, &remote, isolation).await;
    let client = gateway.client_of(&["old"]).await;
    (gateway, remote, client)
}

async fn echo(client: &Client, value: &str) -> String {
    client.text_of("old__echo", json!({"value": value})).await
}

#[tokio::test]
async fn tools_are_listed_and_called_however_the_server_writes_its_stream() {
    let table = [
        SseKnobs::default(),
        SseKnobs { line_end: "\r\n", names_events: false, ..SseKnobs::default() },
        SseKnobs { taken: 200, ..SseKnobs::default() },
        SseKnobs { taken: 204, names_events: false, ..SseKnobs::default() },
        SseKnobs { endpoint: Some("message?x=1&sessionId={id}".into()), ..SseKnobs::default() },
        // The answer overtakes the word that the request was taken.
        SseKnobs { taken_delay: Duration::from_secs(3600), ..SseKnobs::default() },
    ];
    let gateway = Start::new().settings("[upstream]\nconnect_timeout = \"15s\"").run().await;
    let mut names = Vec::new();
    let remotes: Vec<SseRemote> = table.iter().cloned().map(SseRemote::start).collect();
    // The last word of the handshake waits for its status, and must not be waited for too long.
    for (number, remote) in remotes.iter().enumerate() {
        let name = format!("s{number}");
        let body = json!({"name": name, "type": "SSE", "url": remote.url});
        gateway.create("mcp-servers", body).await;
        names.push(name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let client = gateway.client_of(&names).await;
    for (name, knobs) in names.iter().zip(&table) {
        let text = client.text_of(&format!("{name}__echo"), json!({"value": "über"})).await;
        assert_eq!(text, "über", "{knobs:?}");
        let server = gateway.server(name).await;
        assert_eq!(server["runtime"]["protocol_version"], "2024-11-05", "{server}");
    }
}

#[tokio::test]
async fn progress_comes_back_under_the_clients_own_token() {
    let (_gateway, remote, client) = with(SseKnobs::default(), "SHARED").await;
    let params = json!({"name": "old__steps", "arguments": {"count": 3}, "_meta": {"progressToken": "mine"}});
    let reply = client.post(&request(json!("a"), "tools/call", params)).await;
    let tokens: Vec<Value> = reply
        .messages
        .iter()
        .filter_map(|text| serde_json::from_str::<Value>(text).ok())
        .filter(|message| message["method"] == "notifications/progress")
        .map(|message| message["params"]["progressToken"].clone())
        .collect();
    assert_eq!(tokens, ["mine", "mine", "mine"], "{reply:?}");
    assert!(reply.answer_to(&json!("a"))["result"].is_object());
    let calls = remote.seen_of("tools/call");
    let sent = &calls.last().expect("the call").body;
    assert_eq!(sent["params"]["name"], "steps");
    assert_ne!(sent["params"]["_meta"]["progressToken"], "mine");
}

#[tokio::test]
async fn the_configured_credentials_go_with_the_stream_and_with_every_message() {
    let gateway = Start::new().environment("SUITE_TENANT", "tenant-7").run().await;
    let remote =
        SseRemote::start(SseKnobs { bearer: Some("upstream-token".into()), ..SseKnobs::default() });
    let body = json!({
        "name": "old", "type": "SSE", "url": remote.url, "bearer_token": "upstream-token",
        "headers": {"X-Plain": "plain", "X-Tenant": "${SUITE_TENANT}"},
    });
    gateway.create("mcp-servers", body).await;
    let client = gateway.client_of(&["old"]).await;
    assert_eq!(echo(&client, "hi").await, "hi");
    let key = client.headers[0].1.trim_start_matches("Bearer ").to_owned();
    let seen = remote.seen();
    assert!(
        seen.iter().any(|seen| seen.http == "GET") && seen.iter().any(|seen| seen.http == "POST")
    );
    for seen in seen {
        assert_eq!(seen.header("authorization"), Some("Bearer upstream-token"), "{seen:?}");
        assert_eq!(seen.header("x-plain"), Some("plain"), "{seen:?}");
        assert_eq!(seen.header("x-tenant"), Some("tenant-7"), "{seen:?}");
        assert!(!format!("{seen:?}").contains(&key), "the client's key went upstream: {seen:?}");
    }
}

#[tokio::test]
async fn messages_are_not_sent_to_another_origin() {
    let gateway = Start::new().settings(QUICK).run().await;
    let thief = SseRemote::start(SseKnobs::default());
    let place = thief.url.replace("/sse", "/message?sessionId=stream-1");
    let remote = SseRemote::start(SseKnobs { endpoint: Some(place), ..SseKnobs::default() });
    let body =
        json!({"name": "old", "type": "SSE", "url": remote.url, "bearer_token": "upstream-token"});
    gateway.create("mcp-servers", body).await;
    let server =
        gateway.server_until("old", "refused", |server| server["error_status"] != "NONE").await;
    let why = server["runtime"]["last_error"].as_str().expect("a reason").to_owned();
    let origin = thief.url.replace("/sse", "");
    // Its reason may be `retry` by now; what failed stays to be read.
    assert!(why.starts_with("handshake failed"), "{why}");
    assert!(why.contains("another origin") && why.contains(&origin), "{why}");
    assert!(thief.seen().is_empty(), "{:?}", thief.seen());

    remote.turn(|knobs| knobs.endpoint = SseKnobs::default().endpoint);
    gateway.ready("old").await;
}

#[tokio::test]
async fn calls_end_once_with_their_stream_and_the_next_go_by_a_new_one() {
    for isolation in ["SHARED", "SESSION"] {
        let (gateway, remote, client) = with(SseKnobs::default(), isolation).await;
        assert_eq!(echo(&client, "warm").await, "warm");
        let slow = json!({"value": "never", "delay_ms": 600_000});
        let calls = join_all((0..5).map(|_| client.call("old__echo", slow.clone())));
        let breaking = async {
            wait_until("the calls", SOON, async || {
                let slow = remote.seen_of("tools/call").len() == 6;
                slow.then_some(())
            })
            .await;
            remote.break_streams();
        };
        let (answers, ()) = futures_util::join!(calls, breaking);
        for answer in answers {
            assert_eq!(answer["error"]["data"]["reason"], "upstream_ended", "{isolation} {answer}");
            assert_eq!(answer["error"]["data"]["server"], "old", "{answer}");
        }
        gateway.ready("old").await;
        assert_eq!(echo(&client, "again").await, "again");
        assert_eq!(remote.seen_of("tools/call").len(), 7, "no call was sent twice");
        wait_until("the loss in the history", SOON, async || {
            let history = gateway.history("old").await;
            history.iter().any(|entry| entry["reason"] == "unreachable").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_shared_upstream_has_one_stream_and_an_isolated_one_a_stream_for_each_session() {
    let (gateway, shared, first) = with(SseKnobs::default(), "SHARED").await;
    let key = gateway.key("other").await;
    let second = gateway.client("all", &key).await;
    assert_eq!(echo(&first, "1").await, "1");
    assert_eq!(echo(&second, "2").await, "2");
    assert_eq!(shared.opened(), 1);

    let isolated = SseRemote::start(SseKnobs::default());
    gateway
        .create("mcp-servers", json!({"name": "each", "type": "SSE", "url": isolated.url}))
        .await;
    gateway
        .replace("namespaces/all/servers", json!([{"server": "each", "status": "ACTIVE"}]))
        .await;
    gateway.ready("each").await;
    assert_eq!(isolated.opened(), 1, "a session costs nothing before its first call");
    for (client, opened) in [(&first, 2), (&second, 3), (&first, 3)] {
        assert_eq!(client.text_of("each__echo", json!({"value": "x"})).await, "x");
        assert_eq!(isolated.opened(), opened);
    }
    assert_eq!(first.end().await, 204);
    wait_until("the stream of the ended session to be closed", SOON, async || {
        // A closed stream is noticed when something is sent on it.
        isolated.push_message(&json!({"jsonrpc": "2.0", "method": "notifications/message"}));
        (isolated.streams() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn streams_are_capped_and_closed_when_idle() {
    let settings = "[upstream]\nsessions_max = 2\nsession_idle = \"200ms\"";
    let gateway = Start::new().settings(settings).run().await;
    let remote = SseRemote::start(SseKnobs::default());
    create(&gateway, &remote, "SESSION").await;
    let first = gateway.client_of(&["old"]).await;
    let second = gateway.client("all", &gateway.key("other").await).await;
    let slow = json!({"value": "late", "delay_ms": 1_500});
    let held = first.call("old__echo", slow);
    let refused = async {
        wait_until("the first call", SOON, async || {
            (!remote.seen_of("tools/call").is_empty()).then_some(())
        })
        .await;
        second.call("old__echo", json!({"value": "too many"})).await
    };
    let (held, refused) = futures_util::join!(held, refused);
    assert_eq!(held["result"]["content"][0]["text"], "late", "not idle while a call is with it");
    assert_eq!(refused["error"]["data"]["reason"], "upstream_busy", "{refused}");
    wait_until("room for the second session", SOON, async || {
        let answer = second.call("old__echo", json!({"value": "now"})).await;
        answer["result"].is_object().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_cancelled_there() {
    let (gateway, remote, client) = with(SseKnobs::default(), "SESSION").await;
    assert_eq!(echo(&client, "early").await, "early");
    gateway.change("mcp-servers/old", json!({"call_timeout_ms": 300})).await;
    let answer = client.call("old__echo", json!({"value": "late", "delay_ms": 600_000})).await;
    assert_eq!(answer["error"]["data"]["reason"], "call_timeout", "{answer}");
    let cancelled = wait_until("the cancellation", SOON, async || {
        remote.seen_of("notifications/cancelled").first().cloned()
    })
    .await;
    let calls = remote.seen_of("tools/call");
    assert_eq!(cancelled.body["params"]["requestId"], calls.last().expect("the call").body["id"]);
    assert_eq!(echo(&client, "on").await, "on");
    assert_eq!(remote.opened(), 2, "the stream goes on");
}

#[tokio::test]
async fn pings_are_answered_and_changes_of_the_list_heard() {
    let (_gateway, remote, client) = with(SseKnobs::default(), "SHARED").await;
    remote.push_message(&json!({"jsonrpc": "2.0", "id": "theirs", "method": "ping"}));
    remote.push_message(&json!({"jsonrpc": "2.0", "id": 77, "method": "sampling/createMessage"}));
    let answers = wait_until("the answers", SOON, async || {
        let said = remote.seen().into_iter().map(|seen| seen.body);
        let answers: Vec<Value> = said.filter(|body| body.get("method").is_none()).collect();
        Some(answers).filter(|answers| answers.iter().filter(|it| it.is_object()).count() == 2)
    })
    .await;
    let to = |id: Value| answers.iter().find(|answer| answer["id"] == id).expect("an answer");
    assert_eq!(to(json!("theirs"))["result"], json!({}));
    // No call is under way, so there is nobody whom it could be about.
    assert_eq!(to(json!(77))["error"]["code"], -32603);

    let mut stream = client.listen().await;
    remote.turn(|knobs| knobs.tools.push("fresh".to_owned()));
    remote.push_message(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    let announced = |message: &Value| message["method"] == "notifications/tools/list_changed";
    stream.events.find("list_changed", SOON, announced).await;
    assert!(client.tools().await.contains(&"old__fresh".to_owned()));
}

#[tokio::test]
async fn a_forgotten_session_is_begun_again_once_for_fifty_calls() {
    for (status, body) in [
        (404, "Could not find session"),
        (400, "No transport found for sessionId"),
        (
            400,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Server not initialized"}}"#,
        ),
        (410, ""),
    ] {
        let (gateway, remote, client) = with(SseKnobs::default(), "SHARED").await;
        assert_eq!(echo(&client, "warm").await, "warm");
        remote.turn(|knobs| knobs.forgotten = (status, body.to_owned()));
        remote.forget_sessions();
        let values: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        let calls = values.iter().map(|value| echo(&client, value));
        assert_eq!(join_all(calls).await, values, "{status} {body}");
        assert_eq!(remote.opened(), 2, "{status} {body}");
        let server = gateway.server("old").await;
        assert_eq!(server["runtime"]["state"], "READY", "{server}");
    }
}

#[tokio::test]
async fn a_bad_token_is_shown_and_a_good_one_heals() {
    let gateway = Start::new().settings(QUICK).run().await;
    let remote = SseRemote::start(SseKnobs { bearer: Some("good".into()), ..SseKnobs::default() });
    let body = json!({"name": "old", "type": "SSE", "url": remote.url, "bearer_token": "bad"});
    gateway.create("mcp-servers", body).await;
    let server =
        gateway.server_until("old", "refused", |server| server["error_status"] != "NONE").await;
    let why = server["runtime"]["last_error"].as_str().unwrap_or_default();
    assert!(why.starts_with("unauthorized"), "{why}");
    gateway.change("mcp-servers/old", json!({"bearer_token": "good"})).await;
    gateway.ready("old").await;
}

#[tokio::test]
async fn a_row_with_the_wrong_type_is_served_by_the_right_one() {
    let gateway = Start::new().settings("[upstream]\nendpoint_wait = \"200ms\"").run().await;
    let old = SseRemote::start(SseKnobs::default());
    let new = Remote::start(Knobs::default());
    gateway.remote("old", &old.url).await;
    gateway.create("mcp-servers", json!({"name": "new", "type": "SSE", "url": new.url})).await;
    let client = gateway.client_of(&["old", "new"]).await;
    assert_eq!(echo(&client, "by SSE").await, "by SSE");
    assert_eq!(client.text_of("new__echo", json!({"value": "by POST"})).await, "by POST");
    let hellos = old.seen_of("initialize").len();
    assert_eq!(hellos, 3, "it is tried once for the connection, not for each of its two sessions");
    assert!(gateway.log().contains("set its `type` to SSE"), "{}", gateway.log());
    assert!(gateway.log().contains("set its `type` to STREAMABLE_HTTP"), "{}", gateway.log());
}

#[tokio::test]
async fn what_speaks_neither_transport_says_so_of_both() {
    let gateway = Start::new()
        .settings("[upstream]\nendpoint_wait = \"200ms\"\n[supervision]\nbackoff_min = \"20ms\"")
        .run()
        .await;
    // A stream that never says where messages go, and no POST.
    let mute = SseRemote::start(SseKnobs { endpoint: None, ..SseKnobs::default() });
    let lost = mute.url.replace("/sse", "/elsewhere");
    for (name, kind, url, says) in [
        ("a", "SSE", &mute.url, "did not say where messages go"),
        ("b", "STREAMABLE_HTTP", &mute.url, "did not say where messages go"),
        ("c", "SSE", &lost, "405 Method Not Allowed to GET"),
    ] {
        gateway.create("mcp-servers", json!({"name": name, "type": kind, "url": url})).await;
        let server =
            gateway.server_until(name, "refused", |server| server["error_status"] != "NONE").await;
        let why = server["runtime"]["last_error"].as_str().unwrap_or_default();
        for part in [
            "http status",
            says,
            "405 Method Not Allowed to `initialize`",
            "as SSE",
            "as STREAMABLE_HTTP",
        ] {
            assert!(why.contains(part), "{part} is missing in {why}");
        }
    }
}
