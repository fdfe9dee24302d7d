//! The log of what servers wrote, what became of them, and which calls failed: with real children.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    ADMIN_KEY, Client, SOON, TestGateway,
    events::EventStream,
    fixtures::without_python,
    gateway::Start,
    python,
    remote::{Knobs, Remote},
    wait_until, within,
};

impl TestGateway {
    /// Entries, newest first.
    async fn logs(&self, query: &str) -> Vec<Value> {
        self.items(&format!("logs?{query}")).await
    }

    /// The entries of a query, when there are some that are as wanted.
    async fn logs_until(
        &self,
        query: &str,
        what: &str,
        wanted: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        wait_until(what, SOON, async || Some(self.logs(query).await).filter(|found| wanted(found)))
            .await
    }

    async fn watch_logs(&self, query: &str, last: Option<&str>) -> EventStream {
        let mut request = self
            .http
            .get(format!("{}/api/v1/logs?{query}", self.base))
            .bearer_auth(ADMIN_KEY)
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = within("the stream to open", SOON, request.send()).await.expect("a stream");
        assert_eq!(response.status(), StatusCode::OK);
        EventStream::of(response)
    }

    /// A server that writes what it is told to, and a client of it.
    async fn chatty(&self, name: &str) -> Client {
        self.stdio(name, &python("chatty.py", &[])).await;
        self.client_of(&[name]).await
    }
}

fn holds(entries: &[Value], message: &str) -> bool {
    entries.iter().any(|entry| entry["message"] == message)
}

#[tokio::test]
async fn a_line_a_crash_and_the_call_that_it_broke_are_told_and_the_calls_arguments_are_not() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let client = gateway.chatty("chatty").await;
    let began = gateway.logs("limit=1").await[0]["id"].to_string();

    client.call("chatty__write", json!({"text": "\u{1b}[31mERROR\u{1b}[0m: no disk"})).await;
    let answer =
        client.call("chatty__leave", json!({"code": 7, "note": "an-argument-of-the-call"})).await;
    assert_eq!(answer["error"]["data"]["reason"], "upstream_ended", "{answer}");
    client.call("chatty__nothing", json!({})).await;

    let since = format!("since={began}");
    gateway
        .logs_until(&since, "all of it", |found| {
            let has = |kind: &str| found.iter().any(|entry| entry["kind"] == kind);
            has("stderr")
                && has("transition")
                && found.iter().filter(|one| one["kind"] == "call").count() >= 2
        })
        .await;
    let lines = gateway.logs(&format!("{since}&kind=stderr&server=chatty")).await;
    assert!(holds(&lines, "ERROR: no disk") && holds(&lines, "I leave"), "{lines:#?}");
    assert_eq!(gateway.logs(&format!("{since}&kind=stderr&level=error")).await.len(), 1);

    let failed = gateway.logs(&format!("{since}&kind=call&server=chatty")).await;
    let failed = failed.last().expect("the call that failed");
    for (field, value) in [
        ("tool", "leave"),
        ("endpoint", "all"),
        ("reason", "upstream_ended"),
        ("level", "error"),
        ("server", "chatty"),
    ] {
        assert_eq!(failed[field], value, "{failed}");
    }
    let unknown = gateway.logs(&format!("{since}&kind=call&level=warn")).await;
    let unknown = unknown.iter().find(|entry| entry["reason"] == "unknown_tool");
    assert_eq!(unknown.expect("the unknown tool")["tool"], "chatty__nothing");
    let crash = gateway.logs(&format!("{since}&kind=transition&level=warn")).await;
    assert!(
        crash.iter().any(|one| one["message"].to_string().contains("exit code 7")),
        "{crash:#?}"
    );

    let everything = json!(gateway.logs("").await).to_string();
    assert!(!everything.contains("an-argument-of-the-call"), "{everything}");
    assert!(!everything.contains("\\u001b"), "{everything}");
}

#[tokio::test]
async fn a_flood_leaves_the_others_entries_and_holds_up_nobody() {
    if without_python() {
        return;
    }
    const LINES: u64 = 100_000;
    let gateway = TestGateway::start().await;
    for name in ["calm", "loud"] {
        gateway.stdio(name, &python("chatty.py", &[])).await;
    }
    let client = gateway.client_of(&["calm", "loud"]).await;
    client.call("calm__write", json!({"text": "all is well"})).await;
    gateway.logs_until("server=calm&kind=stderr", "the calm line", |found| !found.is_empty()).await;

    let flood = client.call("loud__write", json!({"text": "noise", "times": LINES}));
    let others = async {
        for _ in 0..20 {
            let answer = client.call("calm__write", json!({"text": "still well"})).await;
            assert!(answer.get("result").is_some(), "{answer}");
        }
    };
    let (answer, ()) = within("the flood", SOON * 2, async { tokio::join!(flood, others) }).await;
    assert!(answer.get("result").is_some(), "{answer}");

    // Every line was kept or counted.
    let count = |found: &[Value]| {
        let dropped = found.iter().map(|entry| entry["dropped"].as_u64().unwrap_or(0));
        let lines = found.iter().filter(|entry| entry["level"] == "info").count() as u64;
        dropped.sum::<u64>() + lines
    };
    let query = "server=loud&kind=stderr&limit=500";
    gateway
        .logs_until(query, "the whole flood to be told of", |found| {
            count(found) >= LINES - 500 && found.iter().any(|one| one["dropped"] != 0)
        })
        .await;
    let calm = gateway.logs("server=calm&kind=stderr").await;
    assert!(holds(&calm, "all is well"), "{calm:#?}");
    assert_eq!(calm.len(), 21);
    assert!(!gateway.logs("server=loud&kind=transition").await.is_empty());
    let metrics = gateway.http.get(format!("{}/metrics", gateway.base)).bearer_auth(ADMIN_KEY);
    let metrics = metrics.send().await.expect("metrics").text().await.expect("text");
    assert!(metrics.contains("metamcpd_logs_dropped_total{limit=\"logs.rate\"}"), "{metrics}");
}

#[tokio::test]
async fn a_watcher_that_comes_back_misses_nothing() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let client = gateway.chatty("chatty").await;
    let mut watching = gateway.watch_logs("kind=stderr", None).await;
    // The heartbeat that opens it says that it watches from here on.
    within("its opening", SOON, watching.arrival()).await;
    client.call("chatty__write", json!({"text": "first"})).await;
    let first = watching.expect("the first line", SOON).await;
    assert_eq!(first.event.as_deref(), Some("log"));
    assert_eq!(first.json()["message"], "first");
    drop(watching);

    client.call("chatty__write", json!({"text": "while it was away"})).await;
    let mut watching = gateway.watch_logs("kind=stderr", first.id.as_deref()).await;
    assert_eq!(watching.expect("the second", SOON).await.json()["message"], "while it was away");
    client.call("chatty__write", json!({"text": "third"})).await;
    assert_eq!(watching.expect("the third", SOON).await.json()["message"], "third");
}

#[tokio::test]
async fn the_log_outlives_the_daemon_unless_it_is_not_to() {
    if without_python() {
        return;
    }
    let mut gateway = TestGateway::start().await;
    let client = gateway.chatty("chatty").await;
    client.call("chatty__write", json!({"text": "last night"})).await;
    gateway.logs_until("kind=stderr", "the line", |found| holds(found, "last night")).await;
    let newest = gateway.logs("limit=1").await[0]["id"].as_i64().expect("an id");

    gateway.restart().await;
    let kept = gateway.logs("limit=500").await;
    assert!(holds(&kept, "last night"), "{kept:#?}");
    assert!(holds(&kept, "metamcpd has stopped"), "{kept:#?}");
    assert!(kept[0]["id"].as_i64().expect("an id") > newest);

    gateway.remove("logs").await;
    gateway.kill9().await;
    gateway.restart().await;
    assert!(!holds(&gateway.logs("limit=500").await, "last night"), "what is cleared stays so");

    let mut gateway = Start::new().settings("[logs]\npersist = false\n").run().await;
    let client = gateway.chatty("chatty").await;
    client.call("chatty__write", json!({"text": "last night"})).await;
    gateway.logs_until("kind=stderr", "the line", |found| holds(found, "last night")).await;
    gateway.restart().await;
    assert!(!holds(&gateway.logs("limit=500").await, "last night"));
}

#[tokio::test]
async fn no_secret_is_in_the_log_wherever_it_was_said() {
    if without_python() {
        return;
    }
    const CONFIGURED: &str = "canary-configured-5f2c/91 ab\"";
    const RESOLVED: &str = "canary-resolved-c0de";
    const BEARER: &str = "canary-bearer-91ab";
    let gateway = Start::new().environment("CANARY", RESOLVED).run().await;
    let key = gateway.key("laptop").await;
    let mut command = python("chatty.py", &[]).into_iter();
    let body = json!({
        "name": "chatty", "type": "STDIO", "command": command.next(),
        "args": command.collect::<Vec<_>>(),
        "env": {"TOKEN": CONFIGURED, "OTHER": "${CANARY}"},
    });
    gateway.create("mcp-servers", body).await;
    // One that is refused, so that its errors speak of its credentials if any do.
    let remote = Remote::start(Knobs { bearer: Some("another".to_owned()), ..Knobs::default() });
    let body = json!({
        "name": "remote", "type": "STREAMABLE_HTTP", "url": remote.url, "bearer_token": BEARER,
        "headers": {"X-Secret": BEARER},
    });
    gateway.create("mcp-servers", body).await;
    let client = gateway.client_of(&["chatty"]).await;
    // A change of words must not uncover what is hidden.
    gateway.change("mcp-servers/chatty", json!({"description": "new words"})).await;
    let said = [
        "before $TOKEN after".to_owned(),
        "between ($OTHER) words".to_owned(),
        format!("a key {key} of ours"),
        "Authorization: Bearer canary-unknown-77".to_owned(),
        "password=canary-unknown-77".to_owned(),
    ];
    for text in &said {
        client.call("chatty__write", json!({"text": text})).await;
        client.call("chatty__mumble", json!({"text": text})).await;
    }
    client.call("chatty__leave", json!({"code": 3, "text": "I leave with $OTHER"})).await;
    gateway
        .logs_until("kind=transition&level=warn", "the end", |found| {
            found.iter().any(|entry| entry["message"].to_string().contains("I leave with ***"))
        })
        .await;
    gateway.server_until("remote", "refused", |server| server["error_status"] != "NONE").await;

    let lines = gateway.logs("kind=stderr,stdout&limit=500").await;
    assert!(
        holds(&lines, "before *** after") && holds(&lines, "between (***) words"),
        "{lines:#?}"
    );
    assert!(holds(&lines, "a key sk_mt_*** of ours"), "{lines:#?}");
    assert!(lines.iter().any(|line| line["kind"] == "stdout"), "{lines:#?}");
    let mut seen = json!(gateway.logs("limit=500").await).to_string();
    for path in ["mcp-servers/chatty", "mcp-servers/chatty/history", "mcp-servers/remote/history"] {
        seen += &gateway.get(path).await.to_string();
    }
    seen += &gateway.log();
    for secret in ["canary", "5f2c/91", &key] {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
}

#[tokio::test]
async fn the_log_is_the_operators_alone() {
    let gateway = TestGateway::start().await;
    let key = gateway.key("laptop").await;
    for (key, status) in [(None, 401), (Some(key.as_str()), 403)] {
        for method in [Method::GET, Method::DELETE] {
            let mut request = gateway.http.request(method, format!("{}/api/v1/logs", gateway.base));
            if let Some(key) = key {
                request = request.bearer_auth(key);
            }
            let answer = request.timeout(Duration::from_secs(10)).send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), status);
        }
    }
}
