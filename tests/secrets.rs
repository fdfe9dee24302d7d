//! Secrets go in and never come out: not by the API, not by the logs, not in the files.

use std::path::Path;

use serde_json::json;

use crate::support::{
    TestGateway,
    client::http,
    remote::{Knobs, Remote},
};

const CANARIES: [&str; 3] = ["canary-environment-5f2c", "canary-bearer-91ab", "canary-header-c0de"];

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").map_while(Result::ok) {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            found.push(entry.path());
        }
    }
    found
}

async fn with_canaries() -> (TestGateway, Remote) {
    let gateway = TestGateway::start().await;
    let remote = Remote::start(Knobs { bearer: Some(CANARIES[1].to_owned()), ..Knobs::default() });
    let body = json!({
        "name": "local", "type": "STDIO", "command": "metamcpd", "args": ["demo-upstream"],
        "env": {"TOKEN": CANARIES[0]},
    });
    gateway.create("mcp-servers", body).await;
    let body = json!({
        "name": "remote", "type": "STREAMABLE_HTTP", "url": remote.url, "bearer_token": CANARIES[1],
        "headers": {"X-Secret": CANARIES[2]},
    });
    gateway.create("mcp-servers", body).await;
    gateway.ready("local").await;
    gateway.ready("remote").await;
    (gateway, remote)
}

#[tokio::test]
async fn secrets_are_written_and_never_read_back() {
    let (gateway, _remote) = with_canaries().await;
    let mut paths = vec!["mcp-servers".to_owned(), "logs?limit=500".to_owned()];
    for name in ["local", "remote"] {
        for tail in ["", "/history", "/tools"] {
            paths.push(format!("mcp-servers/{name}{tail}"));
        }
    }
    for path in paths {
        let text = gateway.get(&path).await.to_string();
        for canary in CANARIES {
            assert!(!text.contains(canary), "{canary} in {path}");
        }
    }
    let row = gateway.server("local").await;
    assert!(row["env"].get("TOKEN").is_some(), "that it is set is shown: {row}");
    // A client that writes back what it read must not replace a secret by its mask.
    gateway.change("mcp-servers/remote", json!({"description": "changed"})).await;
    gateway.ready("remote").await;
}

#[tokio::test]
async fn secrets_lie_sealed_in_the_files_and_are_in_no_log() {
    let (mut gateway, _remote) = with_canaries().await;
    let key = gateway.key("laptop").await;
    gateway.stop().await;
    let looked_at = files(gateway.scratch());
    assert!(looked_at.len() >= 4, "{looked_at:?}");
    for file in looked_at {
        let bytes = std::fs::read(&file).expect("a file");
        for secret in CANARIES.into_iter().chain([key.as_str()]) {
            let found = memchr::memmem::find(&bytes, secret.as_bytes()).is_some();
            assert!(!found, "{secret} in {}", file.display());
        }
    }
    gateway.restart().await;
    gateway.ready("remote").await;
}

#[tokio::test]
async fn the_files_of_the_data_directory_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let gateway = TestGateway::start().await;
    for name in ["secret.key", "metamcpd.db"] {
        let file = gateway.data_dir().join(name);
        if let Ok(found) = std::fs::metadata(&file) {
            assert_eq!(found.permissions().mode() & 0o077, 0, "{name}");
        }
    }
    assert!(gateway.data_dir().join("secret.key").is_file());
}

#[tokio::test]
async fn a_key_is_shown_once() {
    let gateway = TestGateway::start().await;
    let key = gateway.key("laptop").await;
    let list = gateway.get("api-keys").await.to_string();
    assert!(list.contains("laptop") && !list.contains(&key), "{list}");
    let text = http()
        .get(format!("{}/metrics", gateway.base))
        .bearer_auth(crate::support::ADMIN_KEY)
        .send()
        .await;
    let text = text.expect("an answer").text().await.expect("text");
    assert!(!text.contains(&key));
}
