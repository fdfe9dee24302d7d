//! The clock of the host jumps by hours and days while the daemon runs: nothing ends by that, nothing is
//! refused, and what has ended stays so.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use crate::support::{
    Client, SOON, TestGateway,
    client::{LATEST, call},
    gateway::Start,
    processes, skipped, wait_until,
};

/// What has the daemon see another clock (`apt-get install faketime`).
fn faketime() -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let mut found = directories.map(|one| one.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.is_file())
}

/// Sets the daemon's clock, and waits until it has seen that.
async fn jump(gateway: &TestGateway, by: time::Duration) {
    let offset = format!("{:+}s", by.whole_seconds());
    // In one step: what is read is never half of it.
    let file = gateway.scratch().join("clock");
    std::fs::write(file.with_extension("new"), &offset).unwrap();
    std::fs::rename(file.with_extension("new"), &file).unwrap();
    wait_until("the clock to jump", SOON, async || {
        let answer = gateway.http.get(format!("{}/health", gateway.base)).send().await.ok()?;
        let date = answer.headers().get("date")?.to_str().ok()?.replace("GMT", "+0000");
        let seen = OffsetDateTime::parse(&date, &Rfc2822).expect("a date");
        let off = seen - OffsetDateTime::now_utc() - by;
        (off.abs() < time::Duration::minutes(10)).then_some(())
    })
    .await;
}

/// Waits until it was looked for sessions whose time is over: one that nobody uses is gone, and `left` are
/// not.
async fn swept(gateway: &TestGateway, client: &Client, left: usize) {
    let mut idle = client.again();
    assert_eq!(idle.initialize(LATEST).await.status, 200);
    wait_until("the idle session to be gone", SOON, async || {
        (gateway.items("sessions").await.len() == left).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_jumps_ends_nothing_refuses_nothing_and_brings_nothing_back() {
    let Some(library) = faketime() else {
        skipped("faketime", "a clock that jumps");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let clock = directory.path().join("clock");
    std::fs::write(&clock, "+0s").unwrap();
    let settings = "[sessions]\nidle = \"2s\"\nheartbeat = \"500ms\"";
    let start = Start::new().settings(settings);
    let start = start.environment("LD_PRELOAD", library.to_str().unwrap());
    let start = start.environment("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap());
    // A clock that never jumps is not to jump either.
    let start = start.environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let start = start.environment("DONT_FAKE_MONOTONIC", "1").environment("FAKETIME_NO_CACHE", "1");
    let mut gateway = start.run_in(directory).await;
    gateway.demo("demo").await;
    gateway.demo("mortal").await;
    let client = gateway.client_of(&["demo", "mortal"]).await;
    let stream = client.listen().await;
    let key = client.headers[0].1.trim_start_matches("Bearer ").to_owned();
    let old = gateway.sse_client("all", &key).await;
    let mut dead = Vec::new();

    let (day, hour) = (time::Duration::DAY, time::Duration::HOUR);
    for by in [day, -day, hour, -hour, time::Duration::ZERO] {
        let mut ended = client.again();
        assert_eq!(ended.initialize(LATEST).await.status, 200);
        assert_eq!(ended.end().await, 204);
        dead.push(ended);
        // A call that the jump comes in the midst of, with its deadline.
        let slow = json!({"message": "slow", "delay_ms": 1500});
        let (answer, ()) = tokio::join!(client.text_of("demo__echo", slow), jump(&gateway, by));
        assert_eq!(answer, "slow", "{by}");
        let answer = old.call(json!("old"), "demo__echo", json!({"message": "old"})).await;
        assert_eq!(answer["result"]["content"][0]["text"], "old", "{by}: {answer}");
        // A server that failed is tried again after a rest, and not after a day.
        let pid = gateway.server_pid("mortal").await;
        processes::signal(pid, Signal::KILL);
        gateway
            .server_until("mortal", "started again", |server| {
                server["runtime"]["state"] == "READY" && server["runtime"]["pid"] != pid
            })
            .await;
        if by.abs() == day {
            swept(&gateway, &client, 2).await;
        }
        let body = call(json!(1), "demo__echo", json!({"message": "x"}));
        for (number, ended) in dead.iter().enumerate() {
            assert_eq!(ended.post(&body).await.status, 404, "{number} at {by}");
        }
    }
    // After a restart with a clock that is a day behind, or right again, sessions go on, and ended ones do not.
    for by in ["-86400s", "+0s"] {
        std::fs::write(gateway.scratch().join("clock"), by).unwrap();
        gateway.restart().await;
        gateway.ready("demo").await;
        let client = client.at(&gateway.endpoint_url("all"));
        assert_eq!(client.text_of("demo__echo", json!({"message": "on"})).await, "on", "{by}");
        let body = call(json!(1), "demo__echo", json!({"message": "x"}));
        for ended in &dead {
            let ended = ended.at(&client.url);
            assert_eq!(ended.post(&body).await.status, 404, "{by}");
        }
    }
    drop(stream);
}
