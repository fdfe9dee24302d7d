//! What tools are called in front, in each of a namespace's three modes.

use serde_json::json;

use crate::support::{Client, SOON, TestGateway, wait_until};

/// Two upstreams with the same tools behind one endpoint, in a mode.
async fn twins(naming: &str) -> (TestGateway, Client) {
    let gateway = TestGateway::start().await;
    gateway.demo("left").await;
    gateway.demo("right").await;
    gateway
        .create(
            "namespaces",
            json!({"name": "twins", "naming": naming, "servers": ["left", "right"]}),
        )
        .await;
    gateway.create("endpoints", json!({"name": "twins", "namespace": "twins"})).await;
    gateway.ready("left").await;
    gateway.ready("right").await;
    let key = gateway.key("suite").await;
    let client = gateway.client("twins", &key).await;
    (gateway, client)
}

fn echoes(tools: &[String]) -> Vec<&str> {
    tools.iter().map(String::as_str).filter(|name| name.contains("echo")).collect()
}

#[tokio::test]
async fn always_puts_the_servers_name_in_front() {
    let (_gateway, client) = twins("ALWAYS").await;
    assert_eq!(echoes(&client.tools().await), ["left__echo", "right__echo"]);
    for tool in ["left__echo", "right__echo"] {
        assert!(client.call(tool, json!({"message": "hi"})).await["result"].is_object());
    }
    assert_eq!(client.call("echo", json!({"message": "hi"})).await["error"]["code"], -32602);
}

#[tokio::test]
async fn on_conflict_the_earlier_keeps_its_name_for_ever() {
    let (gateway, client) = twins("ON_CONFLICT").await;
    assert_eq!(echoes(&client.tools().await), ["echo", "right__echo"]);
    gateway
        .replace("namespaces/twins/servers", json!([{"server": "right"}, {"server": "left"}]))
        .await;
    wait_until("the new order", SOON, async || {
        (echoes(&client.tools().await) == ["right__echo", "echo"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn never_hides_the_later() {
    let (_gateway, client) = twins("NEVER").await;
    assert_eq!(echoes(&client.tools().await), ["echo"]);
    assert!(client.call("echo", json!({"message": "hi"})).await["result"].is_object());
    assert_eq!(client.call("right__echo", json!({"message": "hi"})).await["error"]["code"], -32602);
}

#[tokio::test]
async fn a_mode_that_changes_is_seen_without_a_restart() {
    let (gateway, client) = twins("NEVER").await;
    gateway.change("namespaces/twins", json!({"naming": "ALWAYS"})).await;
    wait_until("the new names", SOON, async || {
        (echoes(&client.tools().await) == ["left__echo", "right__echo"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_name_that_would_be_too_long_is_cut_and_still_called() {
    let gateway = TestGateway::start().await;
    let name = "a-server-whose-name-is-much-longer-than-it-should-be";
    gateway.demo(name).await;
    let client = gateway.client_of(&[name]).await;
    let tools = client.tools().await;
    assert!(tools.iter().all(|tool| tool.len() <= 48), "{tools:?}");
    let echo = tools.iter().find(|tool| tool.contains("echo")).expect("the end of a name stays");
    assert!(client.text_of(echo, json!({"message": "found me"})).await.contains("found me"));
}
