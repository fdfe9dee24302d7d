//! What a restart of the daemon keeps: everything that was configured, and what clients hold.

use serde_json::{Value, json};

use crate::support::{SOON, TestGateway, wait_until};

/// A row without what is only true of one run.
fn lasting(mut row: Value) -> Value {
    if let Some(fields) = row.as_object_mut() {
        fields.remove("runtime");
        fields.remove("tools_listed_at");
        fields.remove("updated_at");
        // How the stop of the last run went, and the port of this one.
        fields.remove("last_exit_code");
        fields.remove("urls");
    }
    row
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let mut gateway = TestGateway::start().await;
    let body = json!({
        "name": "demo", "type": "STDIO", "command": "metamcpd", "args": ["demo-upstream"],
        "description": "with every field", "env": {"A": "1", "B": "2"}, "call_timeout_ms": 12345,
    });
    gateway.create("mcp-servers", body).await;
    gateway.create("mcp-servers", json!({"name": "off", "type": "STREAMABLE_HTTP", "url": "http://127.0.0.1:1/mcp", "enabled": false})).await;
    // What it says of its use is written down behind.
    gateway.server_until("demo", "known", |server| server["instructions"].is_string()).await;
    gateway.create("namespaces", json!({"name": "team", "description": "n", "naming": "ON_CONFLICT", "servers": ["demo", "off"]})).await;
    gateway
        .create(
            "endpoints",
            json!({"name": "team-tools", "namespace": "team", "use_query_param_auth": true}),
        )
        .await;
    let key = gateway.key("laptop").await;
    let before = everything(&gateway).await;
    let client = gateway.client("team-tools", &key).await;
    let tools = client.tools().await;
    let past = gateway.history("demo").await.len();

    gateway.restart().await;

    gateway.ready("demo").await;
    assert_eq!(everything(&gateway).await, before);
    let again = gateway.client("team-tools", &key).await;
    assert_eq!(again.tools().await, tools);
    assert!(gateway.history("demo").await.len() > past, "the history goes on");
}

#[tokio::test]
async fn a_killed_daemon_loses_nothing_that_it_had_confirmed() {
    let mut gateway = TestGateway::start().await;
    for number in 0..10 {
        gateway.demo(&format!("demo{number}")).await;
    }
    gateway.publish("all", &["demo0"]).await;
    let key = gateway.key("suite").await;
    gateway.kill9().await;
    gateway.restart().await;
    assert_eq!(gateway.items("mcp-servers").await.len(), 10);
    gateway.ready("demo0").await;
    assert!(!gateway.client("all", &key).await.tools().await.is_empty());
}

#[tokio::test]
async fn every_enabled_upstream_is_tried_again_whatever_its_last_status_was() {
    if crate::support::fixtures::without_python() {
        return;
    }
    let settings = "[supervision]\nbackoff_min = \"10ms\"\nbackoff_max = \"10ms\"\nfailures_burst = 2\n\
        burst_window = \"30s\"\nprobe_every = \"1h\"\nprobe_every_max = \"1h\"";
    let mut gateway = crate::support::gateway::Start::new().settings(settings).run().await;
    let mended = gateway.scratch().join("mended");
    let command = crate::support::python("exit_at_once.py", &[&mended.display().to_string()]);
    gateway.stdio("frail", &command).await;
    gateway.server_until("frail", "CRASHED", |server| server["error_status"] == "CRASHED").await;
    std::fs::write(&mended, "").expect("the file");
    gateway.restart().await;
    gateway.ready("frail").await;
}

async fn everything(gateway: &TestGateway) -> Vec<Value> {
    let mut rows = Vec::new();
    for path in ["mcp-servers", "namespaces", "endpoints", "api-keys", "mcp-servers/demo/tools"] {
        // What the run itself writes, it writes behind.
        wait_until(path, SOON, async || (!gateway.items(path).await.is_empty()).then_some(()))
            .await;
        rows.extend(gateway.items(path).await.into_iter().map(lasting));
    }
    rows
}
