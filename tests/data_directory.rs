//! What is done to the data directory, and where it lies.

use std::process::Output;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway, database::Database, gateway::Start, processes, wait_until,
};

/// What a subcommand says of this data directory.
async fn asked(gateway: &TestGateway, args: &[&str]) -> (Option<i32>, String) {
    let mut command = gateway.command();
    command.args(args).arg("--data-dir").arg(gateway.data_dir());
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let Output { status, stdout, stderr } = output.expect("a thread").expect("the binary runs");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

async fn made(gateway: &TestGateway, name: &str) -> (StatusCode, Value) {
    let body = json!({"name": name, "type": "STDIO", "command": "true", "enabled": false});
    gateway.admin(Method::POST, "mcp-servers", Some(body)).await
}

#[tokio::test]
async fn a_path_may_be_longer_than_the_address_of_a_socket() {
    let place = tempfile::Builder::new().prefix(&"d".repeat(200)).tempdir().expect("a directory");
    let mut gateway = Start::new().run_in(place).await;
    let (code, said) = asked(&gateway, &["admin", "create-key", "--client"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("api key sk_mt_"), "{said}");
    let (_, said) = asked(&gateway, &["doctor", "--json"]).await;
    assert!(said.contains(&format!("runs at {}", gateway.base)), "{said}");
    let file = gateway.scratch().join("mcp.json");
    std::fs::write(&file, r#"{"mcpServers": {"one": {"command": "true", "disabled": true}}}"#)
        .expect("a file");
    let (code, said) = asked(&gateway, &["import", &file.display().to_string()]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(gateway.server("one").await["name"], "one");
    gateway.restart().await;
    assert_eq!(gateway.stop().await.code, Some(0));
}

/// Whether this signal has its default, both of those that may differ from it.
fn has_default(pid: u32, signal: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    ["SigIgn:", "SigCgt:"].iter().all(|which| {
        let mask = status.lines().find_map(|line| line.strip_prefix(which)).expect("a mask");
        u64::from_str_radix(mask.trim(), 16).expect("a mask") & 1 << (signal - 1) == 0
    })
}

#[tokio::test]
async fn a_limit_of_file_sizes_is_met_as_a_full_disk_is() {
    // In units of 512 bytes, or of 1024.
    let start = Start::new().on(Database::Sqlite).prepared_by("ulimit -f 4000");
    let mut gateway = start.run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let mut refused = None;
    for number in 0..60 {
        let body = json!({"name": format!("s{number}"), "type": "STDIO", "command": "true",
            "args": ["x".repeat(400_000)], "enabled": false});
        let (status, answer) = gateway.admin(Method::POST, "mcp-servers", Some(body)).await;
        if status != StatusCode::CREATED {
            refused = Some((status, answer));
            break;
        }
    }
    let (status, answer) = refused.expect("a limit that is reached");
    assert_eq!((status, &answer["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")));
    serves(&client).await;
    const XFSZ: u32 = 25;
    let server = gateway.server_pid("demo").await;
    for child in [server, processes::parent_of(server)] {
        assert!(has_default(child, XFSZ), "it is the daemon's own way only");
    }
    assert!(!has_default(gateway.pid(), XFSZ));
    assert_eq!(gateway.stop().await.code, Some(0));
}

async fn serves(client: &Client) {
    assert_eq!(client.text_of("demo__echo", json!({"message": "well"})).await, "well");
}

const FILES: [&str; 3] = ["metamcpd.db", "metamcpd.db-wal", "metamcpd.db-shm"];

/// A gateway with an upstream, and a client of it.
async fn embedded() -> (TestGateway, Client) {
    let gateway = Start::new().on(Database::Sqlite).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    (gateway, client)
}

/// Nothing is confirmed that would be lost, and nothing else is the worse for it.
async fn is_refused_while_the_rest_goes_on(gateway: &TestGateway, client: &Client) {
    let (status, answer) = made(gateway, "late").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    let message = answer["message"].as_str().expect("a message");
    assert!(
        message.contains("taken away") && message.contains("start metamcpd again"),
        "{message}"
    );
    let url = format!("{}/ready", gateway.base);
    let ready = gateway.http.get(url).send().await.expect("an answer").text().await;
    let ready: Value = serde_json::from_str(&ready.expect("a body")).expect("JSON");
    assert_eq!((&ready["ready"], &ready["database"]), (&json!(true), &json!("unavailable")));
    serves(client).await;
}

#[tokio::test]
async fn a_database_that_was_deleted_is_as_good_as_away() {
    let (mut gateway, client) = embedded().await;
    for file in FILES {
        std::fs::remove_file(gateway.data_dir().join(file)).expect("a file of the database");
    }
    is_refused_while_the_rest_goes_on(&gateway, &client).await;
    let (code, said) = asked(&gateway, &["admin", "create-key"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("taken away"), "{said}");
    assert!(!gateway.data_dir().join(FILES[0]).exists(), "none is made beside the daemon");
    let (_, said) = asked(&gateway, &["doctor"]).await;
    assert!(said.contains("taken away"), "{said}");
    // Without its socket and its lock, too.
    for file in ["operator.sock", "lock"] {
        std::fs::remove_file(gateway.data_dir().join(file)).expect("a file of the daemon");
    }
    let (code, said) = asked(&gateway, &["admin", "create-key"]).await;
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("another metamcpd is using"), "{said}");
    assert!(!gateway.data_dir().join(FILES[0]).exists(), "none is made beside the daemon");
    assert_eq!(gateway.log().matches("taken away or replaced: calls go on").count(), 1);
    assert_eq!(gateway.stop().await.code, Some(0));
}

#[tokio::test]
async fn so_it_is_with_the_whole_data_directory() {
    let (mut gateway, client) = embedded().await;
    std::fs::remove_dir_all(gateway.data_dir()).expect("the directory goes");
    is_refused_while_the_rest_goes_on(&gateway, &client).await;
    assert_eq!(gateway.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_database_that_is_moved_back_is_well_again_and_lacks_nothing() {
    let (mut gateway, client) = embedded().await;
    let place = |file: &str| gateway.data_dir().join(file);
    let aside = place("aside.db");
    std::fs::rename(place(FILES[0]), &aside).expect("it is moved");
    // Another one in its place is another one.
    std::fs::copy(&aside, place(FILES[0])).expect("a copy");
    is_refused_while_the_rest_goes_on(&gateway, &client).await;
    let restarted = gateway.admin(Method::POST, "mcp-servers/demo/restart", None).await;
    assert_eq!(restarted.0, StatusCode::ACCEPTED, "{restarted:?}");
    gateway.ready("demo").await;

    std::fs::rename(&aside, place(FILES[0])).expect("it is moved back");
    wait_until("changes to be taken again", SOON, async || {
        (made(&gateway, "late").await.0 == StatusCode::CREATED).then_some(())
    })
    .await;
    wait_until("what happened meanwhile to be remembered", SOON, async || {
        let history = gateway.history("demo").await;
        history.iter().any(|one| one["reason"] == "asked").then_some(())
    })
    .await;
    gateway.kill9().await;
    gateway.restart().await;
    assert_eq!(gateway.server("late").await["name"], "late");
}
