//! Wherever the daemon's own code panics, it lives on, whoever waits is answered, and it is counted once.
//!
//! The places are those where `failpoint` can be asked for a panic, in the build that the suite tests.

use std::{collections::BTreeSet, path::Path};

use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    ADMIN_KEY, SOON,
    client::{http, request},
    fragile::Fragile,
    wait_until, within,
};

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_request_whose_handling_panics_is_answered_and_the_next_is_served() {
    let fragile = Fragile::start("").await;
    fragile.gateway.demo("demo").await;
    let client = fragile.gateway.client_of(&["demo"]).await;
    fragile.arm("request");
    let reply = client.post(&request(json!(1), "ping", json!({}))).await;
    assert_eq!(reply.status, 500);
    assert_eq!(reason(&reply.json()), "panicked", "{reply:?}");
    assert_eq!(client.text_of("demo__echo", json!({"message": "next"})).await, "next");
    fragile.arm("request");
    let (status, body) = fragile.gateway.admin(reqwest::Method::GET, "mcp-servers", None).await;
    assert_eq!((status.as_u16(), &body["code"]), (500, &json!("internal")));
    fragile.counted(2.0).await;
    let log = fragile.gateway.log();
    assert!(log.contains("panicked") && log.contains("failpoint.rs"), "{log}");
}

#[tokio::test]
async fn a_call_whose_outcome_comes_by_a_stream_has_one_when_its_task_panics() {
    let fragile = Fragile::start("[sessions]\nheartbeat = \"100ms\"").await;
    fragile.gateway.demo("demo").await;
    let client = fragile.gateway.client_of(&["demo"]).await;
    fragile.arm("collect");
    let slow = json!({"message": "slow", "delay_ms": 1000});
    let answer = within("the outcome", SOON, client.call("demo__echo", slow.clone())).await;
    assert_eq!(reason(&answer), "panicked", "{answer}");
    assert_eq!(client.text_of("demo__echo", slow).await, "slow");

    let key = client.headers[0].1.trim_start_matches("Bearer ").to_owned();
    let older = fragile.gateway.sse_client("all", &key).await;
    fragile.arm("answer");
    let answer = older.call(json!(7), "demo__echo", json!({"message": "x"})).await;
    assert_eq!(reason(&answer), "panicked", "{answer}");
    let answer = older.call(json!(8), "demo__echo", json!({"message": "x"})).await;
    assert!(answer["result"].is_object(), "{answer}");
    fragile.counted(2.0).await;
}

#[tokio::test]
async fn every_way_in_answers_where_it_panics_and_serves_the_next() {
    let fragile = Fragile::start("").await;
    let gateway = &fragile.gateway;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let key = client.headers[0].1.trim_start_matches("Bearer ").to_owned();
    let base = gateway.fact("listening").unwrap();
    let ways = [
        ("edge", Method::GET, "/health"),
        ("health", Method::GET, "/health"),
        ("ready", Method::GET, "/ready"),
        ("metrics", Method::GET, "/metrics"),
        ("post", Method::POST, "/metamcp/all/mcp"),
        ("get", Method::GET, "/metamcp/all/mcp"),
        ("delete", Method::DELETE, "/metamcp/all/mcp"),
        ("older-get", Method::GET, "/metamcp/all/sse"),
        ("older-post", Method::POST, "/metamcp/all/message?sessionId=none"),
    ];
    let mut panics = 0.0;
    for (point, method, path) in ways {
        fragile.arm(point);
        let ask = async || {
            let key = if path == "/metrics" { ADMIN_KEY } else { &key };
            let asked = http().request(method.clone(), format!("{base}{path}")).bearer_auth(key);
            asked.send().await.expect("an answer").status()
        };
        assert_eq!(ask().await, StatusCode::INTERNAL_SERVER_ERROR, "{point}");
        assert_ne!(ask().await, StatusCode::INTERNAL_SERVER_ERROR, "{point}");
        panics += 1.0;
        fragile.counted(panics).await;
    }
    fragile.arm("door");
    assert_eq!(http().get(format!("{base}/health")).send().await.unwrap().status(), 200);
    fragile.went_off("door").await;

    // A stream is cut, since its head has promised what it cannot keep.
    for (point, path, key) in [
        ("stream", "/metamcp/all/sse", &*key),
        ("watch", "/api/v1/events", ADMIN_KEY),
        ("watch", "/api/v1/logs", ADMIN_KEY),
    ] {
        let open = async || {
            let asked = http().get(format!("{base}{path}")).bearer_auth(key);
            asked.header("accept", "text/event-stream").send().await
        };
        fragile.arm(point);
        let cut = async {
            match open().await {
                Ok(begun) => begun.text().await.is_err(),
                Err(_before_it_began) => true,
            }
        };
        assert!(within("the cut", SOON, cut).await, "{path}");
        let mut again = open().await.unwrap();
        assert!(within("a stream", SOON, again.chunk()).await.unwrap().is_some(), "{path}");
    }
    fragile.counted(panics + 4.0).await;
    assert_eq!(client.text_of("demo__echo", json!({"message": "next"})).await, "next");
}

#[tokio::test]
async fn a_change_whose_maker_panics_once_it_is_written_is_followed() {
    let fragile = Fragile::start("").await;
    let gateway = &fragile.gateway;
    fragile.arm("change");
    let row =
        json!({"name": "demo", "type": "STDIO", "command": "metamcpd", "args": ["demo-upstream"]});
    let (status, body) = gateway.admin(Method::POST, "mcp-servers", Some(row)).await;
    assert_eq!((status.as_u16(), &body["code"]), (500, &json!("internal")), "{body}");
    gateway.ready("demo").await;

    fragile.arm("fleet-restart");
    let restarted = gateway.admin(Method::POST, "mcp-servers/demo/restart", None).await;
    assert_eq!(restarted.0, StatusCode::SERVICE_UNAVAILABLE, "{restarted:?}");
    let restarted = gateway.admin(Method::POST, "mcp-servers/demo/restart", None).await;
    assert_eq!(restarted.0, StatusCode::ACCEPTED, "{restarted:?}");
    fragile.counted(2.0).await;
}

/// A place that neither of the two chapters has the daemon come by would prove nothing.
#[test]
fn every_failpoint_is_driven_by_these_chapters() {
    fn named(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                named(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let calls = text.split("failpoint::pass(\"").skip(1);
                found.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
    let mut points = BTreeSet::new();
    named(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut points);
    let here = [include_str!("panics.rs"), include_str!("panics_below.rs")].concat();
    let missing: Vec<_> =
        points.iter().filter(|point| !here.contains(&format!("\"{point}\""))).collect();
    assert!(points.len() > 50 && missing.is_empty(), "{}: {missing:?}", points.len());
}

#[tokio::test]
async fn a_clients_own_process_whose_worker_panics_fails_its_call_and_the_next_is_served() {
    let fragile = Fragile::start("").await;
    let gateway = &fragile.gateway;
    gateway.demo("demo").await;
    gateway.change("mcp-servers/demo", json!({"isolation": "SESSION"})).await;
    gateway.ready("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    fragile.arm("process");
    let answer = client.call("demo__echo", json!({"message": "x"})).await;
    assert_eq!(reason(&answer), "upstream_unavailable", "{answer}");
    let text = wait_until("a process to be given again", SOON, async || {
        let answer = client.call("demo__echo", json!({"message": "next"})).await;
        answer["result"]["content"][0]["text"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(text, "next");
    fragile.counted(1.0).await;
}

#[tokio::test]
async fn what_runs_as_long_as_the_daemon_is_begun_again() {
    let mut fragile = Fragile::start("").await;
    let loops = ["strays", "sessions", "configuration", "log", "metrics-upkeep", "sink"];
    for round in [1.0, 2.0] {
        loops.iter().for_each(|point| fragile.arm(point));
        for point in loops {
            // The second time proves that it was begun again.
            fragile.went_off(point).await;
        }
        fragile.counted(round * 6.0).await;
    }
    // The writer of the log is a thread of its own.
    wait_until("all of them to be counted as begun again", SOON, async || {
        let restarted = fragile.gateway.metric("metamcpd_tasks_restarted_total").await;
        (restarted == Some(10.0)).then_some(())
    })
    .await;

    fragile.arm("operator");
    let create = || {
        let mut command = fragile.gateway.command();
        command.args(["admin", "create-key", "--data-dir"]).arg(fragile.gateway.data_dir());
        command.output().unwrap().status.code()
    };
    assert_eq!(create(), Some(1), "the daemon hung up");
    wait_until("the operator's door to open again", SOON, async || {
        (create() == Some(0)).then_some(())
    })
    .await;
    fragile.counted(13.0).await;
    fragile.arm("order");
    assert_eq!(create(), Some(1), "the daemon hung up");
    wait_until("the operator's door to open again", SOON, async || {
        (create() == Some(0)).then_some(())
    })
    .await;
    let key = "sk_mt_0000000000000000000000000000000000000000000";
    fragile.arm("signals");
    fragile.gateway.signal(Signal::HUP);
    fragile.went_off("signals").await;
    fragile.counted(15.0).await;
    // What the order and the signal were to have read is read, so that it is known who is a stranger.
    wait_until("the rows to be known", SOON, async || {
        let asked = fragile.gateway.admin_as(Some(key), Method::GET, "mcp-servers", None).await;
        (asked.0 == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    fragile.gateway.signal(Signal::TERM);
    assert_eq!(fragile.gateway.ended().await.code, Some(0));
}

#[tokio::test]
async fn the_journal_goes_on_after_a_panic() {
    let fragile = Fragile::start("").await;
    fragile.arm("journal");
    fragile.gateway.demo("demo").await;
    fragile.went_off("journal").await;
    fragile.gateway.ready("demo").await;
    let before = fragile.gateway.history("demo").await.len();
    fragile.gateway.admin(reqwest::Method::POST, "mcp-servers/demo/restart", None).await;
    wait_until("the history to go on", SOON, async || {
        (fragile.gateway.history("demo").await.len() > before).then_some(())
    })
    .await;
    fragile.counted(1.0).await;
    // What was being written was written once by the next try.
    assert_eq!(fragile.gateway.metric("metamcpd_journal_dropped_total").await, None);
    let states: Vec<_> =
        fragile.gateway.history("demo").await.iter().map(|one| one["state"].clone()).collect();
    assert!(states.starts_with(&[json!("STARTING"), json!("READY")]), "{states:?}");
}
