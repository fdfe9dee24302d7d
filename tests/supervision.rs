//! Upstreams that fail: what the operator sees, how they heal, and what their clients get.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway, client::call, fixtures::without_python, gateway::Start, processes,
    python, wait_until, within,
};

/// Supervision that takes fractions of a second where it usually takes minutes.
const HASTY: &str = r#"
[supervision]
backoff_min = "20ms"
backoff_max = "100ms"
failures_burst = 3
burst_window = "30s"
failures_slow = 100
slow_window = "15m"
probe_every = "300ms"
probe_every_max = "600ms"
steady_after = "1s"
"#;

async fn hasty() -> TestGateway {
    Start::new().settings(HASTY).run().await
}

fn state(server: &Value) -> &str {
    server["runtime"]["state"].as_str().unwrap_or_default()
}

/// The `error_status` of each transition, oldest first, without repetitions.
fn statuses(history: &[Value]) -> Vec<&str> {
    let mut statuses: Vec<&str> =
        history.iter().filter_map(|one| one["error_status"].as_str()).collect();
    statuses.dedup();
    statuses
}

/// A gateway with a script that fails until the file it returns exists.
async fn frail() -> Option<(TestGateway, std::path::PathBuf)> {
    if without_python() {
        return None;
    }
    let gateway = hasty().await;
    let mended = gateway.scratch().join("mended");
    gateway.stdio("frail", &python("exit_at_once.py", &[&mended.display().to_string()])).await;
    gateway.publish("all", &["frail"]).await;
    Some((gateway, mended))
}

#[tokio::test]
async fn calls_in_flight_when_a_child_is_killed_each_end_once_and_the_next_succeeds() {
    if without_python() {
        return;
    }
    let gateway = hasty().await;
    gateway.stdio("echo", &python("echo_delay.py", &[])).await;
    let client = gateway.client_of(&["echo"]).await;
    let pid = gateway.server_pid("echo").await;
    assert_eq!(
        client.text_of("echo__pid", json!({})).await,
        pid.to_string(),
        "the server's own pid"
    );

    let calls = join_all((0..20_u64).map(|number| {
        let delay = if number < 10 { 0 } else { 60_000 };
        let body = call(json!(number), "echo__echo", json!({"value": "x", "delay_ms": delay}));
        let client = &client;
        async move { (number, client.post(&body).await) }
    }));
    let kill = async {
        wait_until("the calls to arrive", SOON, async || {
            (client.text_of("echo__count", json!({})).await == "20").then_some(())
        })
        .await;
        processes::signal(pid, Signal::KILL);
    };
    let (replies, ()) = within("every outcome", SOON, async { tokio::join!(calls, kill) }).await;
    for (number, reply) in replies {
        assert_eq!(reply.messages.len(), 1, "one outcome: {reply:?}");
        let answer = reply.answer_to(&json!(number));
        if number < 10 {
            assert_eq!(answer["result"]["content"][0]["text"], "x", "{answer}");
        } else {
            assert_eq!(answer["error"]["code"], -32603, "{answer}");
        }
    }
    let next = wait_until("the next call to succeed", SOON, async || {
        let answer = client.call("echo__echo", json!({"value": "again"})).await;
        answer.get("result").is_some().then_some(answer)
    })
    .await;
    assert_eq!(next["result"]["content"][0]["text"], "again");
    assert_ne!(gateway.server_pid("echo").await, pid);

    let history = gateway.history("echo").await;
    assert!(history.iter().any(|one| one["exit_signal"] == 9), "the signal is told: {history:#?}");
    let server = gateway.ready("echo").await;
    assert_eq!(server["error_status"], "NONE", "{server}");
    assert_eq!(server["runtime"]["last_exit"]["signal"], 9, "{server}");
    assert!(
        server["runtime"]["restarts"].as_u64().is_some_and(|restarts| restarts >= 1),
        "{server}"
    );
}

#[tokio::test]
async fn a_child_that_exits_at_once_reaches_crashed_and_heals_when_it_is_mended() {
    let Some((gateway, mended)) = frail().await else { return };
    let crashed = gateway
        .server_until("frail", "CRASHED", |server| server["error_status"] == "CRASHED")
        .await;
    assert_eq!(crashed["runtime"]["last_exit"]["code"], 3, "{crashed}");
    assert!(
        crashed["runtime"]["stderr_tail"].to_string().contains("licence file is missing"),
        "{crashed}"
    );
    assert!(crashed["runtime"]["reason"].is_string(), "{crashed}");
    assert!(crashed["runtime"]["since"].is_string(), "{crashed}");
    let filtered = gateway.items("mcp-servers?error_status=CRASHED").await;
    assert_eq!(filtered.iter().map(|row| &row["name"]).collect::<Vec<_>>(), ["frail"]);

    std::fs::write(&mended, "").expect("the file");
    let healed = gateway.ready("frail").await;
    assert_eq!(healed["error_status"], "NONE", "{healed}");
    let key = gateway.key("suite").await;
    let client = gateway.client("all", &key).await;
    assert_eq!(client.text_of("frail__hello", json!({})).await, "mended");

    let history = gateway.history("frail").await;
    assert_eq!(statuses(&history), ["NONE", "ERROR", "CRASHED", "NONE"], "{history:#?}");
    for one in &history {
        assert!(
            one["at"].is_string() && one["reason"].is_string() && one["state"].is_string(),
            "{one}"
        );
    }
    assert!(history.iter().any(|one| one["exit_code"] == 3), "{history:#?}");
    let backoffs = history.iter().filter(|one| one["state"] == "BACKOFF").count();
    assert!(backoffs >= 2, "nothing is coalesced: {history:#?}");
}

#[tokio::test]
async fn a_probe_that_fails_leaves_it_crashed_and_is_followed_by_another() {
    let Some((gateway, _mended)) = frail().await else { return };
    gateway.server_until("frail", "CRASHED", |server| server["error_status"] == "CRASHED").await;
    let restarts = |server: &Value| server["runtime"]["restarts"].as_u64().unwrap_or(0);
    let then = restarts(&gateway.server("frail").await);
    let later =
        gateway.server_until("frail", "probed", |server| restarts(server) >= then + 2).await;
    assert_eq!(later["error_status"], "CRASHED", "{later}");
    let history = gateway.history("frail").await;
    assert_eq!(statuses(&history), ["NONE", "ERROR", "CRASHED"], "{history:#?}");
}

#[tokio::test]
async fn a_restart_by_the_operator_starts_it_now() {
    if without_python() {
        return;
    }
    // Left alone, it would be tried again in an hour.
    let gateway = Start::new()
        .settings("[supervision]\nbackoff_min = \"1h\"\nbackoff_max = \"1h\"")
        .run()
        .await;
    let mended = gateway.scratch().join("mended");
    gateway.stdio("frail", &python("exit_at_once.py", &[&mended.display().to_string()])).await;
    let failed =
        gateway.server_until("frail", "in BACKOFF", |server| state(server) == "BACKOFF").await;
    assert_eq!(failed["error_status"], "ERROR", "{failed}");
    std::fs::write(&mended, "").expect("the file");
    let (status, _) = gateway.admin(Method::POST, "mcp-servers/frail/restart", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(gateway.ready("frail").await["error_status"], "NONE");
}

#[tokio::test]
async fn a_restart_of_what_runs_gives_it_a_new_process() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let pid = gateway.server_pid("demo").await;
    let (status, _) = gateway.admin(Method::POST, "mcp-servers/demo/restart", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    gateway
        .server_until("demo", "READY with another pid", |server| {
            state(server) == "READY" && server["runtime"]["pid"] != pid
        })
        .await;
    assert!(!processes::is_alive(pid));
    assert!(client.call("demo__echo", json!({"message": "hi"})).await["result"].is_object());
}

#[tokio::test]
async fn transitions_are_told_as_they_happen() {
    let Some((gateway, mended)) = frail().await else { return };
    let uuid = gateway.server("frail").await["uuid"].as_str().expect("a uuid").to_owned();
    let mut events = gateway.events().await;
    let about = |event: &Value| {
        let text = event.to_string();
        text.contains("\"frail\"") || text.contains(&uuid)
    };
    events.find("CRASHED", SOON, |event| about(event) && event["error_status"] == "CRASHED").await;
    std::fs::write(&mended, "").expect("the file");
    events.find("READY", SOON, |event| about(event) && event["state"] == "READY").await;
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_told_and_the_others_go_on() {
    let gateway = hasty().await;
    gateway.stdio("absent", &["no-such-program-anywhere".to_owned()]).await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let absent =
        gateway.server_until("absent", "failing", |server| server["error_status"] != "NONE").await;
    let told = "command not found: no-such-program-anywhere";
    assert_eq!(absent["runtime"]["last_error"], told, "each thing once: {absent}");
    assert!(client.call("demo__echo", json!({"message": "hi"})).await["result"].is_object());
    let ready =
        gateway.http.get(format!("{}/ready", gateway.base)).send().await.expect("an answer");
    assert_eq!(ready.status(), StatusCode::OK, "one sick upstream does not make the whole sick");
}

#[tokio::test]
async fn an_upstream_that_hangs_in_its_handshake_is_ended_and_retried() {
    if without_python() {
        return;
    }
    let gateway = hasty().await;
    let command = python("hang_init.py", &[]);
    let body = json!({
        "name": "mute", "type": "STDIO", "command": command[0], "args": command[1..], "connect_timeout_ms": 200,
    });
    gateway.create("mcp-servers", body).await;
    let failing =
        gateway.server_until("mute", "failing", |server| server["error_status"] != "NONE").await;
    assert!(failing["last_error"].to_string().contains("handshake timeout"), "{failing}");
    let history = gateway.history("mute").await;
    assert!(history.iter().any(|row| row["reason"] == "handshake_timeout"), "{history:?}");
}

#[tokio::test]
async fn a_missing_variable_is_named_and_the_upstream_starts_when_it_is_there() {
    let Some(()) = (!without_python()).then_some(()) else { return };
    let gateway = Start::new()
        .settings(HASTY)
        .environment("SUITE_SAYS", "resolved from the environment")
        .run()
        .await;
    let command = python("echo_delay.py", &[]);
    let body = |variable: &str| {
        json!({
            "name": "env", "type": "STDIO", "command": command[0], "args": command[1..],
            "env": {"SAID": format!("${{{variable}}}"), "PLAIN": "as written"},
        })
    };
    gateway.create("mcp-servers", body("SUITE_LACKS_THIS")).await;
    let failing =
        gateway.server_until("env", "failing", |server| server["error_status"] != "NONE").await;
    assert!(failing["runtime"]["last_error"].to_string().contains("SUITE_LACKS_THIS"), "{failing}");

    gateway
        .change("mcp-servers/env", json!({"env": {"SAID": "${SUITE_SAYS}", "PLAIN": "as written"}}))
        .await;
    let client = gateway.client_of(&["env"]).await;
    let value = async |name: &str| client.text_of("env__environment", json!({"name": name})).await;
    assert_eq!(value("SAID").await, "resolved from the environment");
    assert_eq!(value("PLAIN").await, "as written");
    // What is not configured does not reach a child: neither our settings nor the operator's shell.
    assert_eq!(value("SUITE_SAYS").await, "(unset)");
    assert_eq!(value("METAMCPD_ADMIN_KEY").await, "(unset)");
}

#[tokio::test]
async fn our_own_secrets_cannot_be_asked_for_as_variables() {
    if without_python() {
        return;
    }
    let gateway = hasty().await;
    let command = python("echo_delay.py", &[]);
    for (name, variable) in [("thief", "METAMCPD_ADMIN_KEY"), ("spy", "METAMCPD__SERVER__BIND")] {
        let body = json!({
            "name": name, "type": "STDIO", "command": command[0], "args": command[1..],
            "env": {"LOOT": format!("${{{variable}}}")},
        });
        let (status, row) = gateway.admin(Method::POST, "mcp-servers", Some(body)).await;
        if status == StatusCode::CREATED {
            let failing = gateway
                .server_until(name, "failing", |server| server["error_status"] != "NONE")
                .await;
            assert!(failing["runtime"]["last_error"].to_string().contains(variable), "{failing}");
        } else {
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{row}");
        }
    }
}

#[tokio::test]
async fn calls_while_an_upstream_is_down_end_soon_with_an_error() {
    let Some((gateway, _mended)) = frail().await else { return };
    gateway.stdio("echo", &python("echo_delay.py", &[])).await;
    gateway.publish("pair", &["frail", "echo"]).await;
    gateway.ready("echo").await;
    let key = gateway.key("suite").await;
    let client: Client = gateway.client("pair", &key).await;
    gateway.server_until("frail", "CRASHED", |server| server["error_status"] == "CRASHED").await;
    let answer =
        within("the answer", Duration::from_secs(5), client.call("frail__hello", json!({}))).await;
    assert!(answer["error"]["code"].is_i64(), "{answer}");
    assert_eq!(client.text_of("echo__echo", json!({"value": "well"})).await, "well");
}

/// A gateway that takes little of what no server should do, with a server that does it on demand.
async fn strict_about(strikes: &str) -> Option<(TestGateway, Client, u32)> {
    if without_python() {
        return None;
    }
    let settings = format!(
        "{HASTY}\n[calls.strikes]\n{strikes}\n[upstream]\nping_timeout = \"300ms\"\n[wire]\nmessage_max = 20000"
    );
    let gateway = Start::new().settings(&settings).run().await;
    gateway.stdio("bad", &python("misbehaving.py", &[])).await;
    gateway.change("mcp-servers/bad", json!({"call_timeout_ms": 150})).await;
    let client = gateway.client_of(&["bad"]).await;
    let pid = gateway.server_pid("bad").await;
    Some((gateway, client, pid))
}

async fn replaced(gateway: &TestGateway, pid: u32, reason: &str) {
    gateway
        .server_until("bad", "READY with another process", |server| {
            state(server) == "READY" && server["runtime"]["pid"] != pid
        })
        .await;
    let history = gateway.history("bad").await;
    assert!(history.iter().any(|one| one["reason"] == reason), "{reason}: {history:#?}");
}

#[tokio::test]
async fn a_server_that_answers_neither_calls_nor_a_ping_is_started_anew() {
    let Some((gateway, client, pid)) = strict_about("timeouts = 3").await else { return };
    client.call("bad__begin", json!({"habit": "mute"})).await;
    client.call("bad__pid", json!({})).await;
    assert_eq!(gateway.server_pid("bad").await, pid, "two may be slow ones");
    let third = client.call("bad__pid", json!({})).await;
    assert_eq!(third["error"]["data"]["reason"], "call_timeout", "{third}");
    replaced(&gateway, pid, "unreachable").await;
    assert!(client.call("bad__pid", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn a_server_that_does_what_the_protocol_does_not_allow_is_started_anew_when_it_is_too_much() {
    for (strikes, harmless, too_much) in [
        (
            "noise = 10\nnoise_max = 40",
            json!({"habit": "noise", "times": 30}),
            json!({"habit": "noise", "times": 30}),
        ),
        (
            "unasked = 20",
            json!({"habit": "unasked", "times": 15}),
            json!({"habit": "unasked", "times": 15}),
        ),
        (
            "oversized = 2\nnoise_max = 0",
            json!({"habit": "huge", "times": 1, "bytes": 30_000}),
            json!({"habit": "huge", "times": 1, "bytes": 30_000}),
        ),
    ] {
        let Some((gateway, client, pid)) = strict_about(strikes).await else { return };
        gateway.change("mcp-servers/bad", json!({"call_timeout_ms": null})).await;
        let answer = client.call("bad__begin", harmless.clone()).await;
        assert!(answer["result"].is_object(), "{strikes}: {answer}");
        let server = gateway.server("bad").await;
        let expected =
            if harmless["habit"] == "noise" { json!(["stdout_noise"]) } else { json!([]) };
        assert_eq!(server["runtime"]["degraded"], expected, "{server}");
        let answer = client.call("bad__begin", too_much).await;
        assert_eq!(answer["error"]["data"]["reason"], "upstream_ended", "{strikes}: {answer}");
        replaced(&gateway, pid, "protocol_error").await;
    }
}

#[tokio::test]
async fn a_server_that_dies_now_and_then_is_shown_as_flapping() {
    let gateway = Start::new().settings(&format!("{HASTY}\nfailures_flapping = 3")).run().await;
    gateway.demo("demo").await;
    for round in 1..=3 {
        let server = gateway.ready("demo").await;
        assert_eq!(server["runtime"]["degraded"], json!([]), "{round}: {server}");
        let pid = gateway.server_pid("demo").await;
        processes::signal(pid, Signal::KILL);
        gateway
            .server_until("demo", "READY with another process", |server| {
                state(server) == "READY" && server["runtime"]["pid"] != pid
            })
            .await;
    }
    let server = gateway.ready("demo").await;
    assert_eq!(server["runtime"]["degraded"], json!(["flapping"]), "{server}");
    assert_eq!(server["error_status"], "NONE", "it is well just now: {server}");
}

#[tokio::test]
async fn what_is_disabled_is_stopped_and_what_is_enabled_again_starts() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let pid = gateway.server_pid("demo").await;
    gateway.change("mcp-servers/demo", json!({"enabled": false})).await;
    let off = gateway.server_until("demo", "DISABLED", |server| state(server) == "DISABLED").await;
    assert_eq!(off["error_status"], "NONE", "{off}");
    wait_until("its process to go", SOON, async || (!processes::is_alive(pid)).then_some(())).await;
    gateway.change("mcp-servers/demo", json!({"enabled": true})).await;
    gateway.ready("demo").await;
}

#[tokio::test]
async fn what_cannot_be_ended_is_shown_so_and_comes_back_once_it_has_gone() {
    let stop = "[upstream.stop]\nstdin_close = \"50ms\"\nterm = \"50ms\"";
    let gateway = Start::new().settings(&format!("{HASTY}\n{stop}")).run().await;
    gateway.demo("demo").await;
    gateway.change("mcp-servers/demo", json!({"connect_timeout_ms": 1000})).await;
    let pid = gateway.server_pid("demo").await;
    // As what hangs in the kernel: whoever is traced has not ended for anybody else before its tracer says so.
    let Some(mut tracer) = traced(processes::parent_of(pid)) else { return };
    let asked = gateway.admin(Method::POST, "mcp-servers/demo/restart", None).await;
    assert_eq!(asked.0, StatusCode::ACCEPTED, "{asked:?}");
    let is_told = |one: &Value| {
        let why = one["runtime"]["last_error"].as_str().unwrap_or_default();
        one["error_status"] != "NONE" && why.contains("does not end")
    };
    let server = gateway.server_until("demo", "shown as held", is_told).await;
    assert_eq!(server["runtime"]["pid"], Value::Null, "nothing is started beside it: {server}");
    tracer.kill().and_then(|()| tracer.wait().map(drop)).expect("the tracer's end");
    gateway.ready("demo").await;
    let history = gateway.history("demo").await;
    assert!(history.iter().any(|one| one["reason"] == "spawn_failed"), "{history:?}");
}

/// A program that traces this process until it is killed. None where that may not be.
fn traced(pid: u32) -> Option<std::process::Child> {
    use std::io::Read;

    const SEIZE: &str = "import ctypes, sys, time\n\
        seized = ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), None, None) == 0\n\
        print('y' if seized else 'n', end='', flush=True)\n\
        time.sleep(100)";
    if without_python() {
        return None;
    }
    let mut command = std::process::Command::new("python3");
    command.args(["-c", SEIZE, &pid.to_string()]).stdout(std::process::Stdio::piped());
    let mut tracer = command.spawn().expect("a tracer");
    let mut word = [0];
    let read = tracer.stdout.as_mut().expect("its stdout").read_exact(&mut word);
    if read.is_ok() && word == *b"y" {
        return Some(tracer);
    }
    eprintln!("SKIPPED what cannot be ended: no process may trace another here");
    tracer.kill().and_then(|()| tracer.wait().map(drop)).expect("the tracer's end");
    None
}
