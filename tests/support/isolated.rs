//! A STDIO server that its clients do not share, and the processes that they have of it.

use std::collections::BTreeSet;

use serde_json::json;

use super::{
    Client, SOON, TestGateway, fixtures::without_python, gateway::Start, processes, python,
    wait_until,
};

/// The server `one` of this script behind the endpoint `all`, and a key.
pub async fn behind(
    start: Start,
    isolation: &str,
    script: &str,
    args: &[&str],
) -> Option<(TestGateway, String)> {
    if without_python() {
        return None;
    }
    let gateway = start.run().await;
    let command = python(script, args);
    let (program, args) = command.split_first().expect("a program");
    let row = json!({"name": "one", "type": "STDIO", "command": program, "args": args,
        "isolation": isolation});
    gateway.create("mcp-servers", row).await;
    gateway.publish("all", &["one"]).await;
    gateway.ready("one").await;
    let key = gateway.key("suite").await;
    Some((gateway, key))
}

/// The same with a script that counts the calls of its process.
pub async fn counting(settings: &str) -> Option<(TestGateway, String)> {
    behind(Start::new().settings(settings), "SESSION", "echo_delay.py", &[]).await
}

/// The pid of the process that serves this client.
pub async fn pid(client: &Client) -> u32 {
    client.text_of("one__pid", json!({})).await.parse().expect("a pid")
}

/// The pids of the processes that clients have to themselves, as the operator is shown them.
pub async fn own_pids(gateway: &TestGateway) -> BTreeSet<u32> {
    let server = gateway.server("one").await;
    let processes = server["runtime"]["session_processes"].as_array().cloned().unwrap_or_default();
    processes.iter().filter_map(|one| one["pid"].as_u64()?.try_into().ok()).collect()
}

/// Waits until none of these processes lives.
pub async fn gone(pids: &[u32]) {
    wait_until(&format!("the end of {pids:?}"), SOON, async || {
        pids.iter().all(|pid| !processes::is_alive(*pid)).then_some(())
    })
    .await;
}
