//! Upstreams that come back as another version of themselves: with other tools, or with another revision of the
//! protocol, which may be one that we do not speak.

use std::path::Path;

use evil_mcp::{Character, Fault, fault::Condition, http::Server};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{
    Client, TestGateway,
    evil::evil,
    gateway::Start,
    remote::{Knobs, Remote},
};

const CHANGED: &str = "notifications/tools/list_changed";
const HEARTBEAT: &str = "[sessions]\nheartbeat = \"500ms\"";

/// A server that is another while this file exists.
fn either(fault: Fault, file: &Path) -> Character {
    Character::good().with(fault).when(Condition::While(file.to_owned()))
}

async fn kill(gateway: &TestGateway, name: &str) {
    let pid = i32::try_from(gateway.server_pid(name).await).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process"), Signal::KILL).expect("it dies");
}

async fn description(client: &Client, tool: &str) -> String {
    let listed = client.request("tools/list", json!({})).await;
    let tools = listed["result"]["tools"].as_array().expect("tools");
    let found = tools.iter().find(|one| one["name"] == tool).expect("the tool");
    found["description"].as_str().unwrap_or_default().to_owned()
}

/// The entry of the log on what has become another, of which there is one.
async fn entry_on_changes(gateway: &TestGateway) -> Value {
    let entries = gateway.items("logs?kind=catalogue&server=it&level=warn").await;
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    entry.clone()
}

#[tokio::test]
async fn a_process_that_comes_back_with_other_definitions_is_told_of_once() {
    let gateway = Start::new().settings(HEARTBEAT).run().await;
    let folder = tempfile::tempdir().expect("a directory");
    let other = folder.path().join("other");
    gateway.stdio("it", &evil(&either(Fault::Rugpull, &other))).await;
    let one = gateway.client_of(&["it"]).await;
    let mut two = one.again();
    two.initialize("2025-11-25").await;
    assert_eq!(description(&one, "it__echo").await, "The tool echo.");
    let mut streams = [one.listen().await, two.listen().await].map(|open| open.events);

    std::fs::write(&other, "").expect("a file");
    kill(&gateway, "it").await;
    let [first, second] = &mut streams;
    let heard = tokio::join!(first.announcements(CHANGED, 6), second.announcements(CHANGED, 6));
    assert_eq!(heard, (1, 1));
    assert_eq!(description(&one, "it__echo").await, "The tool echo, in its edition 1.");
    let entry = entry_on_changes(&gateway).await;
    let message = entry["message"].as_str().unwrap_or_default();
    assert!(message.contains("0 added, 0 removed, 9 changed (`echo`, `sleep`, "), "{entry}");
}

#[tokio::test]
async fn a_remote_server_that_forgets_a_session_is_listed_anew() {
    for isolation in ["SHARED", "SESSION"] {
        let gateway = Start::new().settings(HEARTBEAT).run().await;
        let folder = tempfile::tempdir().expect("a directory");
        let other = folder.path().join("other");
        let character = either(Fault::Rugpull, &other).with(Fault::Expire(1));
        let server = Server::start(character).expect("a server");
        let row = json!({
            "name": "it", "type": "STREAMABLE_HTTP", "url": server.url, "isolation": isolation,
        });
        gateway.create("mcp-servers", row).await;
        let client = gateway.client_of(&["it"]).await;
        client.call("it__echo", json!({})).await;
        let mut stream = client.listen().await.events;

        std::fs::write(&other, "").expect("a file");
        let began = server.hellos();
        // The first may be within what its session is good for.
        for _ in 0..2 {
            let answer = client.call("it__echo", json!({})).await;
            assert!(answer["error"].is_null(), "{isolation}: {answer}");
        }
        assert!(server.hellos() > began, "{isolation}: its session was begun anew");
        assert_eq!(stream.announcements(CHANGED, 6).await, 1, "{isolation}");
        assert!(description(&client, "it__echo").await.contains("edition"), "{isolation}");
        let message = entry_on_changes(&gateway).await["message"].clone();
        assert!(
            message.as_str().is_some_and(|said| said.contains("9 changed (`echo`")),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_server_of_another_era_is_shown_with_what_it_speaks_and_left_alone() {
    let gateway = Start::new()
        .settings("[supervision]\nbackoff_min = \"1ms\"\nbackoff_max = \"5ms\"")
        .run()
        .await;
    let server = Server::start(Character::good().with(Fault::ModernOnly)).expect("a server");
    gateway.remote("remote", &server.url).await;
    gateway.stdio("process", &evil(&Character::good().when(Condition::Modern))).await;
    for name in ["remote", "process"] {
        let is_tried = |row: &Value| row["error_status"] != "NONE";
        let row = gateway.server_until(name, "its failure", is_tried).await;
        let runtime = &row["runtime"];
        assert_eq!(
            (&runtime["state"], &runtime["reason"]),
            (&json!("BACKOFF"), &json!("incompatible")),
            "{row}"
        );
        assert_eq!(row["error_status"], "ERROR", "{row}");
        let why = runtime["last_error"].as_str().unwrap_or_default();
        assert!(why.contains("2026-07-28"), "{name}: what it speaks: {why}");
        assert!(
            why.contains("we speak 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25"),
            "{name}: {why}"
        );
        let time = |field: &str| {
            let text = runtime[field].as_str().unwrap_or_default();
            OffsetDateTime::parse(text, &Rfc3339)
                .unwrap_or_else(|error| panic!("{field}: {error}: {row}"))
        };
        let rest = time("next_attempt_at") - time("since");
        assert!(rest > Duration::seconds(20), "{name}: it is tried again in {rest}");
        assert_eq!(runtime["restarts"], 0, "{row}");
    }
}

#[tokio::test]
async fn a_process_that_comes_back_with_another_revision_is_negotiated_with_anew() {
    let gateway = TestGateway::start().await;
    let folder = tempfile::tempdir().expect("a directory");
    let other = folder.path().join("other");
    let older = Fault::WrongVersion("2025-03-26".to_owned());
    gateway.stdio("it", &evil(&either(older, &other))).await;
    let client = gateway.client_of(&["it"]).await;
    for (is_older, version) in [(false, "2025-11-25"), (true, "2025-03-26"), (false, "2025-11-25")]
    {
        let speaks = |row: &Value| {
            row["runtime"]["state"] == "READY" && row["runtime"]["protocol_version"] == version
        };
        gateway.server_until("it", version, speaks).await;
        let answer = client.call("it__echo", json!({})).await;
        assert!(answer["error"].is_null(), "{version}: {answer}");
        match is_older {
            false if !other.exists() => std::fs::write(&other, "").expect("a file"),
            _ => std::fs::remove_file(&other).expect("the file"),
        }
        kill(&gateway, "it").await;
    }
}

/// The versions that a remote server was asked in, of the calls that it had.
fn spoken(remote: &Remote) -> Vec<String> {
    let calls = remote.seen_of("tools/call").into_iter();
    calls.map(|call| call.header("mcp-protocol-version").unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_remote_server_that_speaks_another_revision_is_begun_with_anew_and_calls_go_on() {
    for isolation in ["SHARED", "SESSION"] {
        // It has forgotten its sessions with its end; or it refuses the revision that they were agreed on.
        for forgets in [true, false] {
            let gateway = TestGateway::start().await;
            let remote = Remote::start(Knobs { streams: false, ..Knobs::default() });
            let row = json!({
                "name": "it", "type": "STREAMABLE_HTTP", "url": remote.url, "isolation": isolation,
            });
            gateway.create("mcp-servers", row).await;
            let client = gateway.client_of(&["it"]).await;
            for version in ["2025-11-25", "2025-03-26", "2025-06-18"] {
                remote.turn(|knobs| knobs.version = Some(version));
                if forgets {
                    remote.forget_sessions();
                }
                let before = remote.seen_of("initialize").len();
                for value in ["one", "two", "three"] {
                    let said = client.text_of("it__echo", json!({"value": value})).await;
                    assert_eq!(said, value, "{isolation} {forgets} {version}");
                }
                let begun = remote.seen_of("initialize").len() - before;
                // The caller's session, and the gateway's own.
                assert!(begun <= 2, "{isolation} {forgets} {version}: begun {begun} times");
                assert_eq!(spoken(&remote).last().map(String::as_str), Some(version));
                if isolation == "SHARED" {
                    let speaks = |row: &Value| row["runtime"]["protocol_version"] == version;
                    gateway.server_until("it", version, speaks).await;
                }
            }
            let row = gateway.server("it").await;
            assert_eq!(row["runtime"]["state"], "READY", "{row}");
            assert_eq!(row["runtime"]["restarts"], 0, "{row}");
        }
    }
}

#[tokio::test]
async fn one_that_refuses_what_it_has_agreed_to_is_begun_with_once_for_each_call() {
    let gateway = TestGateway::start().await;
    let remote = Remote::start(Knobs { streams: false, ..Knobs::default() });
    gateway.remote("it", &remote.url).await;
    let client = gateway.client_of(&["it"]).await;
    client.text_of("it__echo", json!({"value": "warm"})).await;
    // Agreed on is what is asked for, and spoken is something else.
    remote.turn(|knobs| knobs.refuses_all = true);
    let before = remote.seen_of("tools/call").len();
    let said = client.call("it__echo", json!({"value": "hi"})).await;
    assert_eq!(said["error"]["data"]["reason"], "upstream_http_status", "{said}");
    assert_eq!(remote.seen_of("tools/call").len() - before, 2, "it is sent once more, and no more");
}
