//! Remote upstreams that are away for a moment, or for good, while they are called: what was certainly not
//! sent waits and is sent again, within the time of the call and what all may cost.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    gateway::Start,
    remote::{Knobs, Remote},
    wait_until,
};

/// Without a standing stream only a call can notice that it is away.
fn quiet() -> Knobs {
    Knobs { streams: false, ..Knobs::default() }
}

/// It comes back soon after it was found to be away.
const PATIENT: &str =
    "[supervision]\nfailures_burst = 1000\nfailures_slow = 1000\nbackoff_max = \"300ms\"\n";

async fn behind(settings: &str, isolation: &str) -> (TestGateway, Remote, u16, Client) {
    let gateway = Start::new().settings(PATIENT).settings(settings).run().await;
    let remote = Remote::start(quiet());
    let row = json!({
        "name": "remote", "type": "STREAMABLE_HTTP", "url": remote.url, "isolation": isolation,
    });
    gateway.create("mcp-servers", row).await;
    let client = gateway.client_of(&["remote"]).await;
    client.text_of("remote__echo", json!({"value": "warm"})).await;
    let port = remote.url.rsplit([':', '/']).nth(1).and_then(|port| port.parse().ok());
    (gateway, remote, port.expect("a port"), client)
}

/// Ends it, and waits until nobody listens there. Until the value is dropped nobody is given that port
/// who does not ask for it.
async fn end(remote: Remote, port: u16) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt::set_socket_reuseaddr};
    drop(remote);
    let held = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    set_socket_reuseaddr(&held, true).expect("an option");
    wait_until("its end", SOON, async || {
        bind(&held, &SocketAddr::from(([127, 0, 0, 1], port))).ok()
    })
    .await;
    // A call that is written to one of its last connections may have been received.
    wait_until("the end of its connections", SOON, async || (!is_connected(port)).then_some(()))
        .await;
    held
}

/// Whether anybody holds a connection to this port.
fn is_connected(port: u16) -> bool {
    let port = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Established, and closed by the other side only.
        matches!(words[..], [_, _, to, "01" | "08", ..] if to.ends_with(&port))
    })
}

async fn echo(client: &Client) -> Value {
    client.call("remote__echo", json!({"value": "hi"})).await
}

#[tokio::test]
async fn an_upstream_that_is_away_for_a_moment_costs_its_callers_nothing() {
    for isolation in ["SHARED", "SESSION"] {
        let settings = "[calls.retries]\nwindow_min = 1000";
        let (gateway, remote, port, client) = behind(settings, isolation).await;
        let _held = end(remote, port).await;
        // More than open a breaker.
        let calls = join_all((0..24).map(|_| echo(&client)));
        let coming = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            Remote::start_on(port, quiet())
        };
        let (answers, remote) = tokio::join!(calls, coming);
        for answer in answers {
            assert_eq!(answer["result"]["content"][0]["text"], "hi", "{isolation}: {answer}");
        }
        assert_eq!(remote.seen_of("tools/call").len(), 24, "each is carried out once");
        let retries = gateway.metric("metamcpd_retries_total").await;
        assert!(retries.is_some_and(|count| count >= 1.0), "{retries:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_stays_away_is_an_error_within_the_time_that_a_call_waits() {
    let settings = "[calls]\nready_wait = \"1s\"\nwake_wait = \"1s\"\n";
    let (_gateway, remote, port, client) = behind(settings, "SHARED").await;
    let _held = end(remote, port).await;
    let began = Instant::now();
    let answer = echo(&client).await;
    assert_eq!(answer["error"]["data"]["reason"], "upstream_unavailable", "{answer}");
    assert_eq!(answer["error"]["data"]["retry"], true, "{answer}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn beyond_what_retries_may_cost_a_call_is_answered_as_if_there_were_none() {
    let settings = "[calls.retries]\npercent_max = 0\nwindow_min = 0";
    let (gateway, remote, port, client) = behind(settings, "SHARED").await;
    let _held = end(remote, port).await;
    let answer = echo(&client).await;
    assert_eq!(answer["error"]["data"]["reason"], "upstream_unavailable", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("refused"), "{answer}");
    let hit = gateway.metric("metamcpd_limit_hit_total{limit=\"calls.retries.percent_max\"}").await;
    assert_eq!(hit, Some(1.0));
}

#[tokio::test]
async fn a_forgotten_session_is_in_no_budget() {
    let settings = "[calls.retries]\npercent_max = 0\nwindow_min = 0";
    let (gateway, remote, _port, client) = behind(settings, "SHARED").await;
    remote.forget_sessions();
    for answer in join_all((0..20).map(|_| echo(&client))).await {
        assert_eq!(answer["result"]["content"][0]["text"], "hi", "{answer}");
    }
    assert_eq!(gateway.metric("metamcpd_retries_total").await, None);
}

#[tokio::test]
async fn an_upstream_that_comes_back_with_other_tools_is_announced_once() {
    let (gateway, remote, port, client) = behind("", "SHARED").await;
    let mut stream = client.listen().await;
    let _held = end(remote, port).await;
    let knobs = Knobs { tools: ["echo", "fresh"].map(str::to_owned).to_vec(), ..quiet() };
    // The session that it knows nothing of is begun anew, and so is the list.
    let remote = Remote::start_on(port, knobs);
    assert_eq!(echo(&client).await["result"]["content"][0]["text"], "hi");
    let changed = |message: &Value| message["method"] == "notifications/tools/list_changed";
    stream.events.find("list_changed", SOON, changed).await;
    assert!(client.tools().await.contains(&"remote__fresh".to_owned()));
    assert_eq!(client.text_of("remote__fresh", json!({})).await, "fresh");
    assert!(!remote.seen_of("initialize").is_empty());
    let entries = gateway.items("logs?kind=catalogue&server=remote").await;
    let words = "1 added (`fresh`), 1 removed (`steps`), 0 changed, 2 in all";
    let is_told =
        |entry: &&Value| entry["message"].as_str().is_some_and(|said| said.contains(words));
    assert_eq!(entries.iter().filter(is_told).count(), 1, "{entries:?}");
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_shown_and_nobody_else_waits_for_it() {
    let gateway = TestGateway::start().await;
    let remote = Remote::start(quiet());
    gateway.remote("remote", &remote.url).await;
    gateway.remote("nobody", "http://no-such-name.invalid/mcp").await;
    gateway.ready("remote").await;
    gateway.publish("all", &["remote", "nobody"]).await;
    let client = gateway.client("all", &gateway.key("suite").await).await;
    assert_eq!(echo(&client).await["result"]["content"][0]["text"], "hi");
    let shown = gateway
        .server_until("nobody", "unknown", |server| server["runtime"]["reason"] == "connect_failed")
        .await;
    assert_eq!(shown["runtime"]["reason"], "connect_failed", "{shown}");
    let why = shown["runtime"]["last_error"].as_str().unwrap_or_default();
    assert!(why.contains("no-such-name.invalid cannot be resolved"), "{shown}");
}
