//! Wherever the daemon's own code panics, it lives on, whoever waits is answered, and it is counted once.
//!
//! The places are those where `failpoint` can be asked for a panic, in the build that the suite tests.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{SOON, TestGateway, gateway::Start, wait_until, within};

/// A gateway, and the directory in which it finds what it is to panic at.
struct Fragile {
    gateway: TestGateway,
    points: tempfile::TempDir,
}

impl Fragile {
    async fn start(settings: &str) -> Fragile {
        let points = tempfile::tempdir().unwrap();
        let directory = points.path().display().to_string();
        let start = Start::new().environment("METAMCPD_FAILPOINTS", &directory).settings(settings);
        Fragile { gateway: start.run().await, points }
    }

    fn arm(&self, point: &str) {
        std::fs::write(self.points.path().join(point), "").unwrap();
    }

    async fn went_off(&self, point: &str) {
        let file = self.points.path().join(point);
        wait_until(point, SOON, async || (!file.exists()).then_some(())).await;
    }

    /// Waits until so many panics are counted, and sees that they are no more.
    async fn counted(&self, panics: f64) {
        wait_until("the panics to be counted", SOON, async || {
            let counted = self.gateway.metric("metamcpd_panics_total").await.unwrap_or_default();
            assert!(counted <= panics, "{counted} of {panics}:\n{}", self.gateway.log());
            (counted == panics).then_some(())
        })
        .await;
    }
}

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_request_whose_handling_panics_is_answered_and_the_next_is_served() {
    let fragile = Fragile::start("").await;
    fragile.gateway.demo("demo").await;
    let client = fragile.gateway.client_of(&["demo"]).await;
    fragile.arm("request");
    let reply = client.post(&crate::support::client::request(json!(1), "ping", json!({}))).await;
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
async fn whatever_supervises_upstreams_is_made_anew_when_it_panics() {
    let fragile = Fragile::start("").await;
    let gateway = &fragile.gateway;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    for (panics, point) in ["worker", "upstream", "namespace"].into_iter().enumerate() {
        fragile.arm(point);
        let restarted =
            gateway.admin(reqwest::Method::POST, "mcp-servers/demo/restart", None).await;
        assert_eq!(restarted.0, 202, "{restarted:?}");
        if point == "namespace" {
            // It hears of each server whose lists are new.
            gateway.demo("other").await;
        }
        fragile.went_off(point).await;
        gateway.ready("demo").await;
        let text = wait_until("the tool to be served", SOON, async || {
            let answer = client.call("demo__echo", json!({"message": point})).await;
            answer["result"]["content"][0]["text"].as_str().map(str::to_owned)
        })
        .await;
        assert_eq!(text, point);
        fragile.counted(panics as f64 + 1.0).await;
    }
    fragile.arm("fleet");
    gateway.demo("another").await;
    fragile.went_off("fleet").await;
    gateway.ready("another").await;
    fragile.counted(4.0).await;
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
    let loops = ["strays", "sessions", "configuration", "log"];
    for round in [1.0, 2.0] {
        loops.iter().for_each(|point| fragile.arm(point));
        for point in loops {
            // The second time proves that it was begun again.
            fragile.went_off(point).await;
        }
        fragile.counted(round * 4.0).await;
    }
    let restarted = fragile.gateway.metric("metamcpd_tasks_restarted_total").await;
    assert_eq!(restarted, Some(8.0));

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
    fragile.counted(9.0).await;
    fragile.gateway.signal(Signal::TERM);
    assert_eq!(fragile.gateway.ended().await.code, Some(0));
}

#[tokio::test]
async fn the_journal_goes_on_after_a_panic() {
    let fragile = Fragile::start("").await;
    fragile.arm("journal");
    fragile.gateway.demo("demo").await;
    fragile.went_off("journal").await;
    wait_until("what is lost to be counted", SOON, async || {
        fragile.gateway.metric("metamcpd_journal_dropped_total").await.filter(|lost| *lost >= 1.0)
    })
    .await;
    fragile.gateway.ready("demo").await;
    let before = fragile.gateway.history("demo").await.len();
    fragile.gateway.admin(reqwest::Method::POST, "mcp-servers/demo/restart", None).await;
    wait_until("the history to go on", SOON, async || {
        (fragile.gateway.history("demo").await.len() > before).then_some(())
    })
    .await;
    fragile.counted(1.0).await;
}
