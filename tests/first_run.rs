//! A person's first minutes: one command, an endpoint, a key, a snippet; and the same command again.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::support::{
    Client, SseClient, TestGateway,
    gateway::{Start, binary},
    processes,
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples/mcp.json");

async fn first_run() -> TestGateway {
    Start::new().without_admin_key().import(EXAMPLE).run().await
}

/// How many rows each list of the admin API has.
async fn rows(gateway: &TestGateway, admin_key: &str) -> Vec<usize> {
    let mut counts = Vec::new();
    for path in ["mcp-servers", "namespaces", "endpoints", "api-keys"] {
        let (status, list) =
            gateway.admin_as(Some(admin_key), reqwest::Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {list}");
        counts.push(list["items"].as_array().map_or(0, Vec::len));
    }
    counts
}

#[tokio::test]
async fn the_first_run_prints_all_that_a_client_needs() {
    let gateway = first_run().await;
    let url = gateway.fact("endpoint").expect("an endpoint");
    let key = gateway.fact("api key").expect("a key");
    assert_eq!(url, gateway.endpoint_url("default"));
    assert!(key.starts_with("sk_mt_"), "{key}");
    assert_eq!(gateway.facts().last().map(String::as_str), Some("ready"));
    let snippet = gateway.facts().join("\n");
    assert!(snippet.matches(&url).count() >= 2, "a snippet names the endpoint: {snippet}");

    let client = Client::connect(&url, Some(&key)).await;
    let tools = client.tools().await;
    for tool in ["demo__current_time", "demo__echo", "demo__long_task"] {
        assert!(tools.contains(&tool.to_owned()), "{tools:?}");
    }
    assert!(
        client
            .text_of("demo__echo", json!({"message": "first words"}))
            .await
            .contains("first words")
    );
}

#[tokio::test]
async fn the_first_endpoint_also_speaks_sse() {
    let gateway = first_run().await;
    let key = gateway.fact("api key").expect("a key");
    let client = SseClient::connect(&gateway.sse_url("default"), Some(&key)).await;
    assert!(client.tools().await.contains(&"demo__echo".to_owned()));
    let answer = client.call(json!("é-1"), "demo__echo", json!({"message": "by SSE"})).await;
    assert!(
        answer["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains("by SSE"))
    );
}

#[tokio::test]
async fn the_printed_admin_key_is_the_operator() {
    let gateway = first_run().await;
    let key = gateway.fact("admin key").expect("an admin key");
    let (status, list) =
        gateway.admin_as(Some(&key), reqwest::Method::GET, "mcp-servers", None).await;
    assert_eq!(status, 200, "{list}");
    assert_eq!(list["items"][0]["name"], "demo");
}

#[test]
fn a_first_start_that_finds_its_port_taken_makes_no_key_that_nobody_saw() {
    let place = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let serve = || {
        let mut command = binary();
        command.args(["serve", "--import", EXAMPLE, "--data-dir"]).arg(place.path().join("data"));
        command.env("METAMCPD__SERVER__BIND", taken.local_addr().expect("its address").to_string());
        command
    };
    let refused = serve().output().expect("the binary runs");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{why}");
    assert!(why.contains("server.bind"), "{why}");

    let mut daemon = serve()
        .env("METAMCPD__SERVER__BIND", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let said = BufReader::new(daemon.stdout.take().expect("its stdout"));
    let facts: Vec<String> =
        said.lines().map_while(Result::ok).take_while(|fact| fact != "ready").collect();
    processes::signal(daemon.id(), rustix::process::Signal::TERM);
    assert!(daemon.wait().expect("its end").success());
    for key in ["api key sk_mt_", "admin key sk_mt_"] {
        assert!(facts.iter().any(|fact| fact.starts_with(key)), "{facts:?}");
    }
}

#[tokio::test]
async fn the_same_command_again_changes_nothing() {
    let mut gateway = first_run().await;
    let key = gateway.fact("api key").expect("a key");
    let admin_key = gateway.fact("admin key").expect("an admin key");
    let before = rows(&gateway, &admin_key).await;

    gateway.restart().await;

    let fresh_keys: Vec<String> =
        gateway.facts().into_iter().filter(|fact| fact.contains("sk_mt_")).collect();
    assert!(fresh_keys.is_empty(), "a later start shows no key: {fresh_keys:?}");
    assert_eq!(gateway.fact("endpoint"), Some(gateway.endpoint_url("default")));
    assert_eq!(rows(&gateway, &admin_key).await, before);
    let client = Client::connect(&gateway.endpoint_url("default"), Some(&key)).await;
    assert!(client.tools().await.contains(&"demo__echo".to_owned()));
}

#[tokio::test]
async fn one_bad_entry_of_an_import_fails_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("mcp.json");
    let text = r#"{
        // Comments and trailing commas are what people's files hold.
        "mcpServers": {
            "good": {"command": "metamcpd", "args": ["demo-upstream"]},
            "neither": {"args": ["no command, no url"]},
            "both": {"command": "true", "url": "http://127.0.0.1:1/mcp"},
            "off": {"command": "metamcpd", "args": ["demo-upstream"], "disabled": true},
        },
    }"#;
    std::fs::write(&file, text).expect("the file");
    let gateway = Start::new().import(&file).run().await;

    gateway.ready("good").await;
    let names: Vec<Value> =
        gateway.items("mcp-servers").await.iter().map(|row| row["name"].clone()).collect();
    assert!(names.contains(&json!("good")) && names.contains(&json!("off")), "{names:?}");
    assert!(!names.contains(&json!("neither")) && !names.contains(&json!("both")), "{names:?}");
    assert_eq!(gateway.server("off").await["enabled"], false);
    let said = gateway.log() + &gateway.facts().join("\n");
    for name in ["neither", "both"] {
        assert!(said.contains(name), "{name} is refused with a word");
    }
}

#[tokio::test]
async fn an_import_of_another_clients_shape_makes_the_same_servers() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("mcp.json");
    let text = r#"{"servers": {"ours": {"type": "stdio", "command": "metamcpd", "args": ["demo-upstream"]}}}"#;
    std::fs::write(&file, text).expect("the file");
    let gateway = Start::new().import(&file).run().await;
    assert_eq!(gateway.ready("ours").await["type"], "STDIO");
}

#[tokio::test]
async fn an_import_that_grew_adds_what_is_new_and_keeps_what_was_changed_by_hand() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("mcp.json");
    let entry = r#"{"command": "metamcpd", "args": ["demo-upstream"]}"#;
    std::fs::write(&file, format!(r#"{{"mcpServers": {{"one": {entry}}}}}"#)).expect("the file");
    let mut gateway = Start::new().import(&file).run().await;
    let uuid = gateway.ready("one").await["uuid"].clone();
    gateway.change("mcp-servers/one", json!({"description": "by hand"})).await;

    std::fs::write(&file, format!(r#"{{"mcpServers": {{"one": {entry}, "two": {entry}}}}}"#))
        .expect("the file");
    gateway.restart().await;

    gateway.ready("two").await;
    let one = gateway.server("one").await;
    assert_eq!((&one["uuid"], &one["description"]), (&uuid, &json!("by hand")));
    let key = gateway.key("suite").await;
    let tools = gateway.client("default", &key).await.tools().await;
    assert!(tools.contains(&"two__echo".to_owned()), "{tools:?}");
}
