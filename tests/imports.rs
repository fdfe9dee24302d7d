//! The three doors of an import beside `serve --import`: the command with and without a daemon, and
//! the admin API. All of them say what became of each entry, and a dry run says it and writes nothing.

use std::{path::Path, process::Output};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, TestGateway, fixtures, gateway::Start};

/// A file of which each entry has another fate.
const FILE: &str = r#"{
    // Comments and trailing commas are what people's files hold.
    "mcpServers": {
        "demo": {"command": "metamcpd", "args": ["demo-upstream"]},
        "my server": {"command": "metamcpd", "args": ["demo-upstream"], "autoApprove": ["echo"]},
        "neither": {"args": ["no command, no url"]},
    },
}"#;

fn outcomes(answer: &Value) -> Vec<(&str, &str)> {
    let items = answer["items"].as_array().unwrap_or_else(|| panic!("no items: {answer}"));
    items
        .iter()
        .map(|row| {
            (row["name"].as_str().unwrap_or_default(), row["outcome"].as_str().unwrap_or_default())
        })
        .collect()
}

/// Posts a file as its text.
async fn post(gateway: &TestGateway, query: &str, kind: &str, text: &str) -> (StatusCode, Value) {
    let url = format!("{}/api/v1/import{query}", gateway.base);
    let request = gateway.http.post(url).bearer_auth(ADMIN_KEY);
    let request = request.header("content-type", kind).body(text.to_owned());
    let response = request.send().await.expect("the gateway answers");
    let status = response.status();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

async fn servers(gateway: &TestGateway) -> Vec<String> {
    let rows = gateway.items("mcp-servers").await;
    rows.iter().filter_map(|row| row["name"].as_str().map(str::to_owned)).collect()
}

fn run(gateway: &TestGateway, file: &Path, more: &[&str]) -> Output {
    let mut command = gateway.command();
    command.arg("import").arg(file).arg("--data-dir").arg(gateway.data_dir()).args(more);
    command.output().expect("the binary runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn each_entry_of_a_posted_file_has_its_outcome_and_a_second_time_changes_nothing() {
    let gateway = TestGateway::start().await;
    let (status, dry) = post(&gateway, "?dry_run=true&namespace=team", "text/plain", FILE).await;
    assert_eq!(status, 200, "{dry}");
    let expected = [("demo", "created"), ("my server", "created"), ("neither", "failed")];
    assert_eq!((outcomes(&dry), &dry["dry_run"]), (expected.to_vec(), &json!(true)));
    assert_eq!(servers(&gateway).await, Vec::<String>::new(), "a dry run writes nothing");
    assert!(gateway.items("namespaces").await.is_empty());

    let (status, done) = post(&gateway, "?namespace=team", "application/json", FILE).await;
    assert_eq!((status, outcomes(&done)), (StatusCode::OK, expected.to_vec()), "{done}");
    assert_eq!(done["items"][1]["server"], "my-server");
    assert_eq!(done["items"][1]["warnings"][0]["field"], "name");
    assert_eq!(done["items"][2]["details"][0]["field"], "command");
    let place = json!({"name": "team", "outcome": "created"});
    assert_eq!((&done["namespace"], &done["endpoint"]), (&place, &place));
    // But for the word that it is dry, it said the very same.
    let mut same = dry;
    same["dry_run"] = json!(false);
    assert_eq!(same, done);

    gateway.ready("my-server").await;
    let key = gateway.key("suite").await;
    let tools = gateway.client("team", &key).await.tools().await;
    assert!(tools.contains(&"my-server__echo".to_owned()), "{tools:?}");

    let (_, again) = post(&gateway, "?namespace=team", "application/json", FILE).await;
    let expected = [("demo", "exists"), ("my server", "exists"), ("neither", "failed")];
    assert_eq!(outcomes(&again), expected);
    assert_eq!(again["endpoint"]["outcome"], "exists");
    assert_eq!(servers(&gateway).await, ["demo", "my-server"]);
}

#[tokio::test]
async fn an_export_of_metamcp_keeps_its_tokens_and_what_differs_here_is_said() {
    let gateway = TestGateway::start().await;
    gateway.stdio("a", &["other".to_owned()]).await;
    let file = fixtures::directory().join("import/metamcp_export.json");
    let text = std::fs::read_to_string(file).expect("the file");
    let (status, done) = post(&gateway, "", "application/json", &text).await;
    assert_eq!(status, 200, "{done}");
    let expected = [("a", "exists"), ("b", "created"), ("c", "created"), ("has__two", "created")];
    assert_eq!(outcomes(&done), expected);
    assert!(done["items"][0]["warnings"].to_string().contains("command"), "{done}");
    assert_eq!(done["namespace"], Value::Null, "none was asked for");
    let remote = gateway.server("b").await;
    assert!(
        !remote["bearer_token"].is_null() && !remote.to_string().contains("secret"),
        "{remote}"
    );
    assert_eq!(gateway.server("has_two").await["type"], "STDIO");
}

#[tokio::test]
async fn toml_is_read_too_and_what_cannot_be_read_is_refused_with_its_place() {
    let gateway = TestGateway::start().await;
    let file = fixtures::directory().join("import/codex.toml");
    let text = std::fs::read_to_string(file).expect("the file");
    let (status, done) = post(&gateway, "", "application/toml", &text).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(gateway.server("context7").await["connect_timeout_ms"], 20_000);

    let large = format!("{{{}}}", " ".repeat(17 * 1024 * 1024));
    for (query, kind, text, status, code) in [
        ("", "application/json", "{\n\"mcpServers\": {", 400, "bad_request"),
        ("", "application/json", "{}", 400, "bad_request"),
        ("", "text/plain", "name: yaml\nmcpServers:\n", 400, "bad_request"),
        ("", "multipart/form-data; boundary=x", FILE, 415, "unsupported_media_type"),
        ("", "application/json", &*large, 413, "too_large"),
        ("?namespace=no%20name", "application/json", FILE, 422, "invalid"),
        ("?dryrun=true", "application/json", FILE, 400, "bad_request"),
    ] {
        let (found, answer) = post(&gateway, query, kind, text).await;
        assert_eq!((found.as_u16(), &answer["code"]), (status, &json!(code)), "{query}: {answer}");
    }
    assert!(!servers(&gateway).await.contains(&"demo".to_owned()), "nothing came of those");
    let (status, _) = gateway.admin_as(None, Method::POST, "import", Some(json!({}))).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn the_command_gives_a_file_to_the_running_daemon() {
    let gateway = TestGateway::start().await;
    let file = gateway.scratch().join("mcp.json");
    std::fs::write(&file, FILE).expect("the file");

    let dry = run(&gateway, &file, &["--dry-run", "--namespace", "team"]);
    assert!(said(&dry).contains("demo: would be created"), "{}", said(&dry));
    assert!(servers(&gateway).await.is_empty());

    let done = run(&gateway, &file, &["--namespace", "team"]);
    let text = said(&done);
    for line in [
        "demo: created",
        "my server as my-server: created",
        "neither: failed: command",
        "namespace team: created",
        "endpoint team: created",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    assert_eq!(done.status.code(), Some(1), "an entry failed, and a script sees it");
    gateway.ready("demo").await;
    assert!(said(&run(&gateway, &file, &[])).contains("demo: exists"));
}

#[tokio::test]
async fn the_command_opens_the_database_where_no_daemon_runs() {
    let mut gateway = Start::new().run().await;
    gateway.stop().await;
    let file = gateway.scratch().join("mcp.json");
    std::fs::write(&file, r#"{"demo": {"command": "metamcpd", "args": ["demo-upstream"]}}"#)
        .expect("the file");
    let done = run(&gateway, &file, &["--namespace", "default"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    gateway.restart().await;
    gateway.ready("demo").await;
    assert_eq!(gateway.fact("endpoint"), Some(gateway.endpoint_url("default")));
}

#[tokio::test]
async fn a_dry_run_where_no_daemon_runs_says_the_same_and_makes_nothing() {
    let mut gateway = TestGateway::start().await;
    gateway.stop().await;
    let file = gateway.scratch().join("mcp.json");
    std::fs::write(&file, FILE).expect("the file");
    let none = gateway.scratch().join("none");
    let dry = |data: &Path| {
        let mut command = crate::support::gateway::binary();
        command.arg("import").arg(&file).args(["--dry-run", "--namespace", "team", "--data-dir"]);
        if let Some(url) = gateway.database_url().filter(|_| data != none) {
            command.env("METAMCPD__DATABASE__URL", url);
        }
        said(&command.arg(data).output().expect("the binary runs"))
    };
    let first = dry(&none);
    assert!(first.contains("demo: would be created"), "{first}");
    assert!(first.contains("endpoint team: would be created"), "{first}");
    assert!(!none.exists(), "there was no data directory, and there is none");
    assert_eq!(dry(&gateway.data_dir()), first, "nor is anything in this one");

    let done = said(&run(&gateway, &file, &["--namespace", "team"]));
    assert_eq!(done.replace(": created", ": would be created"), first);
    let again = dry(&gateway.data_dir());
    assert!(again.contains("demo: exists") && again.contains("endpoint team: exists"), "{again}");
}

#[tokio::test]
async fn only_servers_that_are_new_are_said_to_be_in_no_namespace() {
    let gateway = TestGateway::start().await;
    let file = gateway.scratch().join("mcp.json");
    std::fs::write(&file, FILE).expect("the file");
    let hint = "give --namespace";
    assert!(said(&run(&gateway, &file, &["--dry-run"])).contains(hint));
    assert!(!said(&run(&gateway, &file, &["--namespace", "team"])).contains(hint));
    let again = said(&run(&gateway, &file, &[]));
    assert!(again.contains("demo: exists") && !again.contains(hint), "{again}");
}

#[tokio::test]
async fn a_file_in_another_encoding_is_read_or_refused_with_a_word() {
    let gateway = TestGateway::start().await;
    let file = gateway.scratch().join("mcp.json");
    // As PowerShell writes what is redirected.
    let wide: Vec<u8> = "\u{feff}{\"mcpServers\": {\"wide\": {\"command\": \"x\"}}}\r\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    std::fs::write(&file, &wide).expect("the file");
    assert!(said(&run(&gateway, &file, &["--dry-run"])).contains("wide: would be created"));
    std::fs::write(&file, b"{\"mcpServers\": {\"gr\xf6\xdfe\": {\"command\": \"x\"}}}")
        .expect("it");
    let refused = run(&gateway, &file, &["--dry-run"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("UTF-8"), "{refused:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_refused_before_anyone_is_asked() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("mcp.json");
    for (text, word) in
        [(Some("{\n\"a\" 1}"), "line 2"), (Some("{}"), "mcpServers"), (None, "mcp.json")]
    {
        if let Some(text) = text {
            std::fs::write(&file, text).expect("the file");
        } else {
            std::fs::remove_file(&file).expect("the file");
        }
        let mut command = crate::support::gateway::binary();
        command.arg("import").arg(&file).arg("--data-dir").arg(place.path().join("data"));
        let output = command.output().expect("the binary runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(word), "{told}");
        assert!(!place.path().join("data").exists());
    }
}

#[test]
fn every_file_of_the_corpus_is_checked() {
    let judged = include_str!("../src/import/corpus_tests.rs");
    let files = std::fs::read_dir(fixtures::directory().join("import")).expect("the corpus");
    let names: Vec<String> = files
        .map(|file| file.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.len() >= 25, "{names:?}");
    let unjudged: Vec<&String> =
        names.iter().filter(|name| !judged.contains(&format!("\"{name}\""))).collect();
    assert!(unjudged.is_empty(), "{unjudged:?}");
}
