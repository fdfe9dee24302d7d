//! `metamcpd doctor`: what is wrong is found, named and given its cure, whether a daemon runs or not,
//! and nothing is changed by looking.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, SOON, TestGateway, gateway::Start, processes, wait_until};

/// What the doctor found, and its exit code.
#[derive(Debug)]
struct Examination {
    findings: Vec<Value>,
    code: Option<i32>,
}

impl Examination {
    /// The findings about one thing.
    fn about(&self, thing: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["about"] == thing).collect()
    }

    /// Whether something is said of this thing with this severity and these words.
    fn has(&self, severity: &str, thing: &str, words: &str) -> bool {
        let says = |finding: &&Value| {
            finding["severity"] == severity
                && finding["what"].as_str().is_some_and(|what| what.contains(words))
        };
        self.about(thing).iter().any(says)
    }
}

fn run(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metamcpd"));
    command.args(args).env_remove("METAMCPD_ADMIN_KEY").stdin(Stdio::null());
    command.envs(environment.iter().copied());
    command.output().expect("the doctor runs")
}

async fn examine(
    data_dir: &Path,
    config: Option<&Path>,
    environment: &[(&str, &str)],
) -> Examination {
    let mut args = vec!["doctor".to_owned(), "--json".to_owned()];
    args.extend(["--data-dir".to_owned(), data_dir.display().to_string()]);
    if let Some(config) = config {
        args.extend(["--config".to_owned(), config.display().to_string()]);
    }
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let output = tokio::task::spawn_blocking(move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        run(&args, &environment)
    });
    let output = output.await.expect("the doctor runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains(ADMIN_KEY), "no secret is told");
    let findings: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a finding")).collect();
    for finding in &findings {
        assert_eq!(finding["cure"].is_null(), finding["severity"] == "ok", "{finding}");
    }
    Examination { findings, code: output.status.code() }
}

/// The settings that a gateway under test was started with, for a doctor that looks at the same.
async fn examine_same(gateway: &TestGateway, environment: &[(&str, &str)]) -> Examination {
    let mut environment = environment.to_vec();
    environment.extend(gateway.database_url().map(|url| ("METAMCPD__DATABASE__URL", url)));
    examine(&gateway.data_dir(), Some(&gateway.settings_file()), &environment).await
}

#[tokio::test]
async fn a_healthy_daemon_is_found_healthy() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    gateway.publish("all", &["demo"]).await;
    gateway.ready("demo").await;
    let seen = examine_same(&gateway, &[]).await;
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.has("ok", "daemon", &gateway.base), "{seen:?}");
    assert!(seen.has("ok", "database", "answers"), "{seen:?}");
    assert!(seen.has("ok", "public url", "leads to this daemon"), "{seen:?}");
    assert!(seen.has("ok", "public url", "asks for a key"), "{seen:?}");
    assert!(seen.has("ok", "upstream `demo`", "READY"), "{seen:?}");
}

#[tokio::test]
async fn a_running_daemons_troubles_are_told_with_their_cures() {
    let gateway = TestGateway::start().await;
    gateway.stdio("lost", &["no-such-program-anywhere".to_owned()]).await;
    gateway.create("namespaces", json!({"name": "open", "servers": ["lost"]})).await;
    let open = json!({"name": "open", "namespace": "open", "enable_api_key_auth": false});
    gateway.create("endpoints", open).await;
    gateway.server_until("lost", "failing", |server| server["error_status"] != "NONE").await;
    let seen = examine_same(&gateway, &[]).await;
    assert_eq!(seen.code, Some(1), "{seen:?}");
    assert!(seen.has("error", "upstream `lost`", "command_not_found"), "{seen:?}");
    assert!(seen.has("warning", "endpoint `open`", "without a key"), "{seen:?}");
}

#[tokio::test]
async fn a_public_url_that_leads_elsewhere_is_found() {
    let other = TestGateway::start().await;
    let settings = format!("[server]\npublic_url = \"{}\"", other.base);
    let gateway = Start::new().settings(&settings).run().await;
    let seen = examine_same(&gateway, &[]).await;
    assert_eq!(seen.code, Some(1), "{seen:?}");
    assert!(seen.has("error", "public url", "another metamcpd"), "{seen:?}");
}

#[tokio::test]
async fn a_daemon_at_rest_is_examined_by_what_its_next_start_would_find() {
    let mut gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    gateway.stdio("lost", &["no-such-program-anywhere".to_owned()]).await;
    let needy = json!({
        "name": "needy", "type": "STDIO", "command": "true", "env": {"TOKEN": "${NEEDED_TOKEN}"},
    });
    gateway.create("mcp-servers", needy).await;
    let port = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.local_addr().expect("its address").port()
    };
    gateway.remote("away", &format!("http://127.0.0.1:{port}/mcp")).await;
    gateway.remote("forbidden", "http://169.254.169.254/latest").await;
    gateway.stop().await;

    let seen = examine_same(&gateway, &[]).await;
    assert_eq!(seen.code, Some(1), "{seen:?}");
    assert!(seen.has("warning", "daemon", "none runs"), "{seen:?}");
    assert!(seen.has("ok", "database", "up to date"), "{seen:?}");
    assert!(seen.has("ok", "upstream `demo`", "metamcpd"), "{seen:?}");
    assert!(seen.has("error", "upstream `lost`", "no-such-program-anywhere"), "{seen:?}");
    assert!(seen.has("error", "upstream `needy`", "NEEDED_TOKEN"), "{seen:?}");
    assert!(seen.has("error", "upstream `away`", &port.to_string()), "{seen:?}");
    assert!(seen.has("error", "upstream `forbidden`", "169.254.169.254"), "{seen:?}");

    let seen = examine_same(&gateway, &[("NEEDED_TOKEN", "canary-of-the-doctor")]).await;
    assert!(seen.has("ok", "upstream `needy`", "true"), "{seen:?}");
    assert!(!format!("{seen:?}").contains("canary-of-the-doctor"), "{seen:?}");
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_is_told_from_one_that_is_not_there() {
    let gateway = TestGateway::start().await;
    processes::signal(gateway.pid(), rustix::process::Signal::STOP);
    let seen = examine_same(&gateway, &[]).await;
    processes::signal(gateway.pid(), rustix::process::Signal::CONT);
    assert_eq!(seen.code, Some(1), "{seen:?}");
    assert!(seen.has("error", "daemon", "does not answer"), "{seen:?}");
    wait_until("the daemon to go on", SOON, async || {
        let health = gateway.http.get(format!("{}/health", gateway.base)).send().await;
        health.is_ok().then_some(())
    })
    .await;
}

#[tokio::test]
async fn looking_makes_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("none");
    let seen = examine(&data, None, &[]).await;
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.has("warning", "data directory", "does not exist"), "{seen:?}");
    assert!(!data.exists());
}

#[tokio::test]
async fn bad_settings_are_named_and_end_with_64() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("settings.toml");
    std::fs::write(&file, "[server]\nbnid = \"x\"").expect("the file");
    let seen = examine(place.path(), Some(&file), &[]).await;
    assert_eq!(seen.code, Some(64), "{seen:?}");
    assert!(seen.has("error", "settings", "bnid"), "{seen:?}");
    let seen = examine(place.path(), None, &[("METAMCPD_ADMIN_KEY", "short")]).await;
    assert!(seen.has("error", "settings", "METAMCPD_ADMIN_KEY"), "{seen:?}");
}

#[test]
fn people_are_told_in_words() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().display().to_string();
    let output = run(&["doctor", "--data-dir", &data], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("ok      settings: "), "{text}");
    assert!(text.contains("warning daemon: none runs"), "{text}");
    assert!(text.contains("\n        -> start it: metamcpd serve"), "{text}");
}
