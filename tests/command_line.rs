//! What the command line answers to those who do not get as far as serving, and `admin create-key`.

use std::process::Output;

use reqwest::Method;

use crate::support::{
    ADMIN_KEY, SOON, TestGateway, database::Database, fixtures::without_python, gateway::binary,
    wait_until,
};

fn run(args: &[&str]) -> Output {
    binary().args(args).output().expect("the binary runs")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The key that `admin create-key` printed.
fn printed_key(output: &Output) -> String {
    let text = said(output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let found = text.split_whitespace().find(|word| word.starts_with("sk_mt_"));
    found.unwrap_or_else(|| panic!("no key: {text}")).to_owned()
}

fn create_key(gateway: &TestGateway) -> Output {
    let mut command = gateway.command();
    command.args(["admin", "create-key", "--data-dir"]).arg(gateway.data_dir());
    command.output().expect("the binary runs")
}

#[test]
fn a_command_that_nobody_knows_is_a_usage_error() {
    for args in [&["frobnicate"][..], &["serve", "--no-such-flag"], &[]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", said(&output));
    }
}

#[test]
fn what_is_not_built_yet_says_so() {
    for args in [&["apply", "file"][..], &["export"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(69), "{args:?}: {}", said(&output));
        assert!(!output.stderr.is_empty(), "{args:?} says why");
    }
}

#[test]
fn a_bad_setting_stops_the_start_and_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("config.toml");
    let table = [
        ("[server]\nbind = \"not an address\"", "server.bind"),
        ("[supervision]\nbackoff_min = \"soon\"", "supervision.backoff_min"),
        ("[server]\nbnid = \"127.0.0.1:0\"", "bnid"),
    ];
    for (text, key) in table {
        std::fs::write(&config, text).expect("the file");
        let mut command = binary();
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(directory.path().join("data"));
        let output = command.output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(64), "{text}: {}", said(&output));
        assert!(said(&output).contains(key), "{key} is named: {}", said(&output));
    }
}

#[test]
fn a_setting_of_the_environment_is_named_when_it_is_bad() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = binary();
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(directory.path())
        .env("METAMCPD__SERVER__BIND", "nowhere");
    let output = command.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("server.bind"), "{}", said(&output));
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused() {
    let gateway = TestGateway::start().await;
    let mut command = gateway.command();
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(gateway.data_dir())
        .env("METAMCPD__SERVER__BIND", "127.0.0.1:0");
    let output = command.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert_eq!(
        gateway.http.get(format!("{}/health", gateway.base)).send().await.expect("health").status(),
        200
    );
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    if without_python() {
        return;
    }
    let mut gateway = crate::support::gateway::Start::new().on(Database::Sqlite).run().await;
    gateway.stop().await;
    let insert = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        db.execute(\"insert into seaql_migrations (version, applied_at) values ('m99991231_235959_from_the_future', 0)\")\n\
        db.commit()";
    let file = gateway.data_dir().join("metamcpd.db");
    let done = std::process::Command::new("python3")
        .args(["-c", insert])
        .arg(&file)
        .status()
        .expect("python3");
    assert!(done.success());

    let mut command = gateway.command();
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(gateway.data_dir())
        .env("METAMCPD__SERVER__BIND", "127.0.0.1:0");
    let output = command.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
}

#[tokio::test]
async fn a_key_made_beside_the_running_daemon_works_within_a_second() {
    let gateway = TestGateway::start().await;
    let key = printed_key(&create_key(&gateway));
    wait_until("the key to work", SOON, async || {
        let (status, _) = gateway.admin_as(Some(&key), Method::GET, "mcp-servers", None).await;
        (status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_key_made_while_the_daemon_is_down_works_at_its_next_start() {
    let mut gateway = TestGateway::start().await;
    gateway.stop().await;
    let key = printed_key(&create_key(&gateway));
    assert_ne!(key, ADMIN_KEY);
    gateway.restart().await;
    let (status, body) = gateway.admin_as(Some(&key), Method::GET, "mcp-servers", None).await;
    assert_eq!(status, 200, "{body}");
}
