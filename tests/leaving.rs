//! Clients that leave before they heard anything of their calls. That takes nothing back: each call goes
//! on by the clocks, within the limits and to the ends that it would have with its client there.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::{call, request},
    fixtures::without_python,
    gateway::Start,
    python,
    remote::{Knobs, Remote},
    wait_until,
};

/// A gateway with the echoing script, one who looks on, and a key for who leaves.
async fn echo(settings: &str, timeout_ms: u64) -> Option<(TestGateway, Client, String)> {
    if without_python() {
        return None;
    }
    let gateway = Start::new().settings(settings).run().await;
    gateway.stdio("echo", &python("echo_delay.py", &[])).await;
    gateway.change("mcp-servers/echo", json!({"call_timeout_ms": timeout_ms})).await;
    let onlooker = gateway.client_of(&["echo"]).await;
    let key = gateway.key("leaving").await;
    Some((gateway, onlooker, key))
}

fn wait(id: i64) -> String {
    call(json!(id), "echo__wait", json!({}))
}

/// Sends it, and goes as soon as the server has taken so many calls.
async fn leave(client: &Client, body: &str, onlooker: &Client, calls: usize) {
    tokio::select! {
        reply = client.post(body) => panic!("it was answered: {reply:?}"),
        () = taken(onlooker, calls) => {}
    }
}

async fn taken(onlooker: &Client, calls: usize) {
    wait_until("the calls to arrive", SOON, async || {
        (onlooker.text_of("echo__count", json!({})).await == calls.to_string()).then_some(())
    })
    .await;
}

/// Waits until the server was told of so many that they are not wanted any more.
async fn stopped(onlooker: &Client, calls: usize) {
    wait_until("the server to be told", SOON, async || {
        let told = onlooker.text_of("echo__stopped", json!({})).await;
        let told: Vec<Value> = serde_json::from_str(&told).expect("a list");
        (told.len() == calls).then_some(())
    })
    .await;
}

/// How many calls have no outcome yet, as the operator sees it.
async fn in_flight(gateway: &TestGateway) -> u64 {
    let sessions = gateway.items("sessions").await;
    sessions.iter().filter_map(|session| session["in_flight"].as_u64()).sum()
}

async fn until_in_flight(gateway: &TestGateway, calls: u64) {
    wait_until("the calls in flight", SOON, async || {
        (in_flight(gateway).await == calls).then_some(())
    })
    .await;
}

async fn timed_out(gateway: &TestGateway) -> f64 {
    let name = r#"metamcpd_calls_failed_total{reason="call_timeout"}"#;
    gateway.metric(name).await.unwrap_or_default()
}

#[tokio::test]
async fn a_silent_call_whose_client_has_left_ends_when_it_would_have_with_it() {
    let settings = "[calls]\nin_flight_max = 3\nqueue_wait = \"200ms\"";
    let Some((gateway, onlooker, key)) = echo(settings, 1500).await else { return };
    let client = gateway.client("all", &key).await;
    leave(&client, &wait(1), &onlooker, 1).await;
    leave(&client, &wait(2), &onlooker, 2).await;
    assert_eq!(in_flight(&gateway).await, 2, "they count until they end");
    stopped(&onlooker, 2).await;
    until_in_flight(&gateway, 0).await;
    assert_eq!(timed_out(&gateway).await, 2.0);
    // Their places are free: there is one for each of these.
    let calls =
        (0..3).map(|_| client.text_of("echo__echo", json!({"value": "x", "delay_ms": 500})));
    assert_eq!(futures_util::future::join_all(calls).await, ["x"; 3]);
}

#[tokio::test]
async fn a_call_whose_client_has_left_is_carried_out_while_it_shows_signs_of_life() {
    let Some((gateway, onlooker, key)) = echo("", 2000).await else { return };
    let client = gateway.client("all", &key).await;
    let arguments = json!({"count": 5, "delay_ms": 900});
    let params =
        json!({"name": "echo__steps", "arguments": arguments, "_meta": {"progressToken": "t"}});
    leave(&client, &request(json!(1), "tools/call", params), &onlooker, 1).await;
    until_in_flight(&gateway, 0).await;
    let seen = onlooker.text_of("echo__seen", json!({})).await;
    assert!(!seen.contains("notifications/cancelled"), "{seen}");
    assert_eq!(timed_out(&gateway).await, 0.0);
}

#[tokio::test]
async fn every_way_to_send_a_call_is_left_alike() {
    let Some((gateway, onlooker, key)) = echo("", 1000).await else { return };
    let mut client = gateway.client("all", &key).await.again();
    client.initialize("2025-03-26").await;
    let batch = format!("[{},{}]", wait(1), wait(2));
    leave(&client, &batch, &onlooker, 2).await;
    stopped(&onlooker, 2).await;
    // To who reads no events everything is said at once, at the end.
    let mut only_json = client.http.post(&client.url).body(wait(3));
    only_json = only_json.header("accept", "application/json");
    only_json = only_json.header("content-type", "application/json");
    only_json = only_json.header("mcp-session-id", client.session.as_deref().expect("a session"));
    for (name, value) in &client.headers {
        only_json = only_json.header(name, value);
    }
    tokio::select! {
        reply = only_json.send() => panic!("it was answered: {reply:?}"),
        () = taken(&onlooker, 3) => {}
    }
    stopped(&onlooker, 3).await;
    until_in_flight(&gateway, 0).await;
    assert_eq!(timed_out(&gateway).await, 3.0);
}

#[tokio::test]
async fn who_leaves_gets_no_further_than_the_limit_of_a_session() {
    let settings = "[sessions]\nin_flight_max = 2";
    let Some((gateway, onlooker, key)) = echo(settings, 600_000).await else { return };
    let client = gateway.client("all", &key).await;
    leave(&client, &wait(1), &onlooker, 1).await;
    leave(&client, &wait(2), &onlooker, 2).await;
    let refused = client.post(&wait(3)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{refused:?}");
    assert_eq!(in_flight(&gateway).await, 2);
}

#[tokio::test]
async fn a_call_whose_client_has_left_ends_as_any_other_does() {
    let settings = "[sessions]\nper_principal_max = 1";
    let Some((gateway, onlooker, key)) = echo(settings, 600_000).await else { return };
    for (number, how) in ["cancelled", "deleted", "killed", "evicted", "revoked"].iter().enumerate()
    {
        let client = gateway.client("all", &key).await;
        let calls = number + 1;
        leave(&client, &wait(7), &onlooker, calls).await;
        until_in_flight(&gateway, 1).await;
        match *how {
            "cancelled" => {
                client.notify("notifications/cancelled", json!({"requestId": 7})).await;
            }
            "deleted" => drop(client.end().await),
            "killed" => {
                let sessions = gateway.items("sessions").await;
                let busy = sessions.iter().find(|session| session["in_flight"] == 1);
                let uuid = busy.expect("its session")["uuid"].as_str().expect("a uuid").to_owned();
                gateway.remove(&format!("sessions/{uuid}")).await;
            }
            "evicted" => drop(gateway.client("all", &key).await),
            _revoked => {
                let keys = gateway.items("api-keys").await;
                let row = keys.iter().find(|row| row["name"] == "leaving").expect("the key");
                gateway.remove(&format!("api-keys/{}", row["uuid"].as_str().expect("one"))).await;
            }
        }
        stopped(&onlooker, calls).await;
        until_in_flight(&gateway, 0).await;
    }
    assert_eq!(timed_out(&gateway).await, 0.0);
}

#[tokio::test]
async fn a_remote_call_whose_client_has_left_ends_when_it_would_have_with_it() {
    let gateway = TestGateway::start().await;
    let remote = Remote::start(Knobs::default());
    gateway.remote("remote", &remote.url).await;
    gateway.change("mcp-servers/remote", json!({"call_timeout_ms": 1000})).await;
    let client = gateway.client_of(&["remote"]).await;
    let body = call(json!(1), "remote__echo", json!({"value": "x", "delay_ms": 600_000}));
    tokio::select! {
        reply = client.post(&body) => panic!("it was answered: {reply:?}"),
        _seen = wait_until("the call to arrive", SOON, async || {
            remote.seen_of("tools/call").pop()
        }) => {}
    }
    // Its handler is gone when its connection is, and that is soon.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(in_flight(&gateway).await, 1, "it counts until it ends");
    wait_until("the server to be told", SOON, async || {
        remote.seen_of("notifications/cancelled").pop()
    })
    .await;
    until_in_flight(&gateway, 0).await;
    assert_eq!(timed_out(&gateway).await, 1.0);
}
