//! Every call has one outcome, whatever else happens meanwhile: the server ends, its row changes, the
//! client leaves or takes the call back, the session ends, the daemon stops.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Client, SOON, TestGateway,
    client::{call, http},
    fixtures::without_python,
    gateway::Start,
    python,
    remote::{Knobs, Remote},
    wait_until, within,
};

async fn echo(settings: &str) -> Option<(TestGateway, Client)> {
    if without_python() {
        return None;
    }
    let gateway = Start::new().settings(settings).run().await;
    gateway.stdio("echo", &python("echo_delay.py", &[])).await;
    let client = gateway.client_of(&["echo"]).await;
    Some((gateway, client))
}

async fn remote(settings: &str) -> (TestGateway, Remote, Client) {
    let gateway = Start::new().settings(settings).run().await;
    let remote = Remote::start(Knobs::default());
    gateway.remote("remote", &remote.url).await;
    let client = gateway.client_of(&["remote"]).await;
    (gateway, remote, client)
}

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn what_a_server_answers_just_before_it_ends_is_heard() {
    let settings = "[supervision]\nbackoff_min = \"5ms\"\nbackoff_max = \"20ms\"\nfailures_burst = 1000\nfailures_slow = 1000";
    let Some((gateway, client)) = echo(settings).await else { return };
    // Of a size that takes a while to be read.
    let value = "x".repeat(300_000);
    for restarts in 1..=10 {
        assert_eq!(client.text_of("echo__last", json!({"value": value})).await, value);
        // The next call is not to meet it while it ends.
        gateway
            .server_until("echo", "running again", |server| {
                let runtime = &server["runtime"];
                runtime["restarts"] == restarts && runtime["state"] == "READY"
            })
            .await;
    }
}

#[tokio::test]
async fn a_call_that_is_cancelled_while_it_waits_for_its_turn_is_never_sent() {
    let settings = "[calls]\nin_flight_max = 1\nqueue_wait = \"20s\"";
    let (_gateway, remote, client) = remote(settings).await;
    let first = call(json!("first"), "remote__echo", json!({"value": "x", "delay_ms": 2000}));
    let second = call(json!("second"), "remote__echo", json!({"value": "never"}));
    let (first, second) = tokio::join!(client.post(&first), async {
        wait_until("the first call to arrive", SOON, async || remote.seen_of("tools/call").pop())
            .await;
        tokio::join!(client.post(&second), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            client.notify("notifications/cancelled", json!({"requestId": "second"})).await;
        })
        .0
    });
    assert!(first.answer_to(&json!("first"))["result"].is_object());
    assert!(second.messages.is_empty(), "its client took it back: {second:?}");
    assert_eq!(client.text_of("remote__echo", json!({"value": "next"})).await, "next");
    let sent = format!("{:?}", remote.seen_of("tools/call"));
    assert!(!sent.contains("never"), "{sent}");
}

#[tokio::test]
async fn a_call_that_outlives_its_session_is_told_so() {
    let Some((_gateway, client)) = echo("").await else { return };
    let body = call(json!(1), "echo__wait", json!({}));
    let (reply, ()) =
        tokio::join!(within("the end of the call", SOON, client.post(&body)), async {
            taken(&client).await;
            client.end().await;
        });
    assert_eq!(reason(&reply.answer_to(&json!(1))), "session_ended", "{reply:?}");
}

#[tokio::test]
async fn a_call_that_waits_for_an_upstream_when_the_daemon_stops_is_answered() {
    let settings = "[calls]\nready_wait = \"60s\"\n[server]\ndrain_grace = \"500ms\"";
    let Some((mut gateway, client)) = echo(settings).await else { return };
    // It is known by its last good list, and never comes back.
    let hang = python("hang_init.py", &[]);
    gateway.change("mcp-servers/echo", json!({"command": hang[0], "args": hang[1..]})).await;
    gateway
        .server_until("echo", "starting", |server| server["runtime"]["state"] == "STARTING")
        .await;
    let body = call(json!(1), "echo__echo", json!({"value": "x"}));
    let (reply, ()) =
        tokio::join!(within("the end of the call", SOON, client.post(&body)), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            gateway.signal(Signal::TERM);
        });
    assert_eq!(reason(&reply.answer_to(&json!(1))), "stopping", "{reply:?}");
    assert_eq!(gateway.ended().await.code, Some(0));
}

#[tokio::test]
async fn calls_to_a_remote_upstream_end_with_their_connection() {
    let (gateway, remote, client) = remote("").await;
    let changes = [json!({"headers": {"X-New": "1"}}), json!({"enabled": false})];
    for change in changes {
        let before = remote.seen_of("tools/call").len();
        let body = call(json!(1), "remote__echo", json!({"value": "late", "delay_ms": 60_000}));
        let (reply, ()) =
            tokio::join!(within("the end of the call", SOON, client.post(&body)), async {
                wait_until("the call to arrive", SOON, async || {
                    (remote.seen_of("tools/call").len() > before).then_some(())
                })
                .await;
                gateway.change("mcp-servers/remote", change.clone()).await;
            });
        assert_eq!(reason(&reply.answer_to(&json!(1))), "upstream_ended", "{change}: {reply:?}");
    }
    wait_until("the sessions to be given back", SOON, async || {
        (remote.sessions() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_that_was_being_opened_for_a_client_that_left_is_given_back() {
    let (_gateway, remote, client) = remote("").await;
    let shared = remote.sessions();
    let begun = remote.seen_of("initialize").len();
    remote.turn(|knobs| knobs.hello_delay = Duration::from_millis(500));
    let body = call(json!(1), "remote__echo", json!({"value": "x"}));
    let (reply, ()) =
        tokio::join!(within("the end of the call", SOON, client.post(&body)), async {
            wait_until("the handshake to arrive", SOON, async || {
                (remote.seen_of("initialize").len() > begun).then_some(())
            })
            .await;
            client.end().await;
        });
    assert_eq!(reason(&reply.answer_to(&json!(1))), "session_ended", "{reply:?}");
    wait_until("the session to be given back", SOON, async || {
        (remote.count("DELETE") > 0 && remote.sessions() == shared).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_moves_to_another_namespace_begins_anew() {
    let Some((gateway, client)) = echo("").await else { return };
    gateway.create("namespaces", json!({"name": "other", "servers": []})).await;
    let mut stream = client.listen().await;
    gateway.change("endpoints/all", json!({"namespace": "other"})).await;
    within("the stream of the old offer to end", SOON, stream.events.rest()).await;
    assert_eq!(client.post(&call(json!(1), "echo__count", json!({}))).await.status, 404);
    let key = client.headers[0].1.trim_start_matches("Bearer ").to_owned();
    assert!(gateway.client("all", &key).await.tools().await.is_empty());
}

#[tokio::test]
async fn what_a_client_held_is_given_back_as_soon_as_it_leaves() {
    let (gateway, remote, client) = remote("[sessions]\nheartbeat = \"10m\"").await;
    let before = remote.sessions();
    let key = client.headers[0].1.trim_start_matches("Bearer ").to_owned();
    let leaving = gateway.sse_client("all", &key).await;
    let answer = leaving.call(json!(1), "remote__echo", json!({"value": "hi"})).await;
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(remote.sessions(), before + 1);
    drop(leaving);
    wait_until("the session to be given back", SOON, async || {
        (remote.sessions() == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_connection() {
    let settings = "[server]\nwrite_timeout = \"1s\"\n[sessions]\nheartbeat = \"1s\"";
    let Some((gateway, client)) = echo(settings).await else { return };
    let key = client.headers[0].1.clone();
    let address = gateway.base.trim_start_matches("http://").to_owned();
    let sockets = || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("its files");
        let targets = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    let before = sockets();
    let mut reader = TcpStream::connect(&address).await.expect("a connection");
    let hello = format!(
        "GET /metamcp/all/sse HTTP/1.1\r\nHost: {address}\r\nAuthorization: {key}\r\nAccept: text/event-stream\r\n\r\n"
    );
    reader.write_all(hello.as_bytes()).await.expect("the request");
    let mut head = String::new();
    while !(head.contains("sessionId=") && head.ends_with('\n')) {
        let mut chunk = [0; 4096];
        let count = reader.read(&mut chunk).await.expect("the head");
        head.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    let path = head.split("data: ").nth(1).and_then(|rest| rest.lines().next()).expect("a path");
    let writer = http();
    let value = "x".repeat(500_000);
    for number in 0..60 {
        let body = call(json!(number), "echo__echo", json!({"value": value}));
        let sent = writer.post(format!("{}{path}", gateway.base)).header("authorization", &key);
        let sent = sent.header("content-type", "application/json").body(body).send().await;
        if sent.expect("an answer").status() != 202 {
            break;
        }
    }
    drop(writer);
    wait_until("the connection to be cut", SOON, async || (sockets() <= before).then_some(()))
        .await;
    drop(reader);
}

#[tokio::test]
async fn an_error_names_its_upstream_as_it_is_called_now() {
    let Some((gateway, client)) = echo("").await else { return };
    gateway.change("mcp-servers/echo", json!({"name": "renamed"})).await;
    let answer = client.call("renamed__exit", json!({"code": 1})).await;
    assert_eq!(answer["error"]["data"]["server"], "renamed", "{answer}");
    assert!(!answer["error"]["message"].to_string().contains("`echo`"), "{answer}");
}

/// Waits until the script has taken a call.
async fn taken(client: &Client) {
    wait_until("the call to arrive", SOON, async || {
        (client.text_of("echo__count", json!({})).await == "1").then_some(())
    })
    .await;
}
