//! Servers that run only while somebody needs them, how many calls one is given at once, and first starts.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    SOON, TestGateway, client::call, fixtures::without_python, gateway::Start, processes, python,
    wait_until, within,
};

fn rests(server: &Value) -> bool {
    (&server["runtime"]["state"], &server["runtime"]["reason"])
        == (&json!("STOPPED"), &json!("idle"))
}

async fn keep(gateway: &TestGateway, server: &str, upkeep: Value) {
    gateway.change(&format!("mcp-servers/{server}"), upkeep).await;
}

#[tokio::test]
async fn a_server_that_nobody_calls_stops_and_the_next_call_has_it_again() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let pid = gateway.server_pid("demo").await;
    let tools = client.tools().await;
    keep(&gateway, "demo", json!({"idle_stop_ms": 100})).await;
    let server = gateway.server_until("demo", "at rest", rests).await;
    assert_eq!(server["error_status"], "NONE", "{server}");
    wait_until("its process to go", SOON, async || (!processes::is_alive(pid)).then_some(())).await;
    gateway.server_until("demo", "without a process", |one| one["runtime"]["pid"].is_null()).await;

    assert_eq!(client.tools().await, tools, "what it offers is remembered");
    assert!(rests(&gateway.server("demo").await), "a list wakes nobody");
    assert!(client.call("demo__echo", json!({"message": "hi"})).await["result"].is_object());
    gateway.server_until("demo", "at rest", rests).await;
    let reasons: Vec<String> = gateway
        .history("demo")
        .await
        .iter()
        .filter_map(|one| one["reason"].as_str().map(str::to_owned))
        .collect();
    assert!(reasons.ends_with(&["wanted", "ready", "idle"].map(str::to_owned)), "{reasons:?}");

    // What is offered now can only be told by asking it.
    let (status, refreshed) = gateway.admin(Method::POST, "mcp-servers/demo/refresh", None).await;
    assert_eq!((status, &refreshed["outcome"]), (StatusCode::OK, &json!("listed")), "{refreshed}");
}

#[tokio::test]
async fn a_lazy_server_runs_once_to_be_listed_and_after_a_restart_of_the_daemon_not_until_it_is_called()
 {
    let mut gateway = TestGateway::start().await;
    let row = json!({"name": "demo", "type": "STDIO", "command": "metamcpd",
        "args": ["demo-upstream"], "start": "LAZY"});
    gateway.create("mcp-servers", row).await;
    gateway.ready("demo").await;
    gateway.publish("all", &["demo"]).await;
    let key = gateway.key("suite").await;

    gateway.restart().await;
    let server = gateway.server_until("demo", "at rest", rests).await;
    assert_eq!(server["start"], "LAZY", "{server}");
    let client = gateway.client("all", &key).await;
    assert!(!client.tools().await.is_empty());
    let calls = (0..20).map(|_| client.call("demo__echo", json!({"message": "hi"})));
    let answers = within("the answers", SOON, join_all(calls)).await;
    assert!(answers.iter().all(|answer| answer["result"].is_object()), "{answers:?}");
    let server = gateway.ready("demo").await;
    assert_eq!(server["runtime"]["restarts"], 0, "all of them woke it once: {server}");
}

#[tokio::test]
async fn calls_around_every_stop_are_all_answered() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    keep(&gateway, "demo", json!({"idle_stop_ms": 1})).await;
    for round in 0..15_u64 {
        let calls = (0..4).map(|_| client.call("demo__echo", json!({"message": "hi"})));
        let answers = within("the answers", SOON, join_all(calls)).await;
        assert!(answers.iter().all(|answer| answer["result"].is_object()), "{answers:?}");
        // Somewhere between just before its stop and just after it.
        tokio::time::sleep(Duration::from_millis(round % 5)).await;
    }
    let restarts = gateway.server("demo").await["runtime"]["restarts"].as_u64();
    assert!(restarts.is_some_and(|restarts| restarts >= 3), "it stopped between: {restarts:?}");
}

#[tokio::test]
async fn a_server_is_given_as_many_calls_at_once_as_its_row_says_and_so_many_wait() {
    if without_python() {
        return;
    }
    let gateway =
        Start::new().settings("[calls]\nwaiting_max = 2\nqueue_wait = \"10s\"").run().await;
    gateway.stdio("echo", &python("echo_delay.py", &[])).await;
    keep(&gateway, "echo", json!({"concurrency_max": 1})).await;
    let client = gateway.client_of(&["echo"]).await;
    let long = json!({"value": "x", "delay_ms": 700});
    let calls = (0..4_u64).map(|id| {
        let (client, body) = (&client, call(json!(id), "echo__echo", long.clone()));
        async move { client.post(&body).await.answer_to(&json!(id)).clone() }
    });
    let answers = within("the answers", SOON, join_all(calls)).await;
    let busy =
        answers.iter().filter(|one| one["error"]["data"]["reason"] == "upstream_busy").count();
    let done = answers.iter().filter(|one| one["result"].is_object()).count();
    assert_eq!((done, busy), (3, 1), "{answers:?}");

    let (status, refusal) =
        gateway.admin(Method::PATCH, "mcp-servers/echo", Some(json!({"concurrency_max": 0}))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refusal}");
    keep(&gateway, "echo", json!({"concurrency_max": null})).await;
    assert_eq!(gateway.server("echo").await["concurrency_max"], Value::Null);
}

/// A program called `npx` that takes its time to become a server, as one does that downloads it.
#[tokio::test]
async fn a_first_start_that_has_to_fetch_its_program_has_the_time_for_it() {
    use std::os::unix::fs::PermissionsExt;
    if without_python() {
        return;
    }
    let gateway = Start::new()
        .settings("[upstream]\nconnect_timeout = \"300ms\"\nprefetch_timeout = \"20s\"")
        .run()
        .await;
    let npx = gateway.scratch().join("npx");
    let server = python("slow_start.py", &["1.2"]).join("' '");
    std::fs::write(&npx, format!("#!/bin/sh\nexec '{server}'\n")).expect("a script");
    std::fs::set_permissions(&npx, std::fs::Permissions::from_mode(0o755)).expect("its mode");

    gateway.stdio("cold", &[npx.display().to_string(), "-y".to_owned(), "x".to_owned()]).await;
    gateway
        .server_until("cold", "being fetched", |server| {
            server["runtime"]["state"] == "STARTING" && server["runtime"]["reason"] == "prefetching"
        })
        .await;
    let ready = gateway.ready("cold").await;
    assert_eq!(ready["runtime"]["restarts"], 0, "{ready}");

    // Now it is there, and has to be as quick as any other.
    gateway.admin(Method::POST, "mcp-servers/cold/restart", None).await;
    gateway
        .server_until("cold", "too slow", |server| {
            server["runtime"]["last_error"].to_string().contains("took too long")
                || server["runtime"]["last_error"].to_string().contains("handshake timeout")
        })
        .await;
}
