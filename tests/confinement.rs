//! What a server of the profile STRICT can and cannot do.

use std::os::unix::fs::PermissionsExt;

use metamcpd::upstream::worker::lifeline::confinement::has_landlock;
use serde_json::{Value, json};

use crate::support::{Client, TestGateway, fixtures::without_python, python};

async fn prying(profile: &str) -> Option<(TestGateway, Client)> {
    if without_python() {
        return None;
    }
    let gateway = TestGateway::start().await;
    let command = python("prying.py", &[]);
    let row = json!({"name": "prying", "type": "STDIO", "command": command[0],
        "args": command[1..], "profile": profile});
    let row = gateway.create("mcp-servers", row).await;
    assert_eq!(row["profile"], profile);
    let client = gateway.client_of(&["prying"]).await;
    Some((gateway, client))
}

async fn facts(client: &Client) -> Value {
    let text = client.text_of("prying__facts", json!({})).await;
    serde_json::from_str(&text).expect("facts")
}

#[tokio::test]
async fn a_strict_server_has_a_home_of_its_own_and_no_more_than_its_share() {
    let Some((gateway, client)) = prying("STRICT").await else { return };
    let facts = facts(&client).await;
    let data = gateway.data_dir().canonicalize().expect("the data directory");
    let uuid = gateway.server("prying").await["uuid"].as_str().expect("a uuid").to_owned();
    let home = data.join("homes").join(uuid);
    assert_eq!(facts["home"], home.display().to_string(), "{facts}");
    assert_eq!(facts["cwd"], facts["home"], "{facts}");
    assert_eq!(facts["tmp"], home.join("tmp").display().to_string(), "{facts}");
    assert_eq!((&facts["core"], &facts["no_new_privs"]), (&json!(0), &json!("1")), "{facts}");
    assert!(facts["files"].as_u64().is_some_and(|files| files <= 4096), "{facts}");
    let mode = home.metadata().expect("its home").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    for place in [home.join("x"), home.join("tmp/x")] {
        let said = client.text_of("prying__write", json!({"path": place})).await;
        assert_eq!(said, "written", "{place:?}");
        let mode = place.metadata().expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "what it writes is nobody else's");
    }
}

#[tokio::test]
async fn a_strict_server_is_kept_from_the_daemon_and_a_standard_one_is_not() {
    if !has_landlock() {
        eprintln!("SKIPPED: the kernel has no Landlock");
        return;
    }
    for (profile, outcome) in [("STRICT", false), ("STANDARD", true)] {
        let Some((gateway, client)) = prying(profile).await else { return };
        let beside = gateway.scratch().join("beside");
        std::fs::write(&beside, "x").expect("a file");
        let data = gateway.data_dir();
        let own_files = std::fs::read_dir(&data).expect("the data directory").flatten();
        let own_files: Vec<_> =
            own_files.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        assert!(own_files.len() >= 2, "{own_files:?}");
        let environ = format!("/proc/{}/environ", gateway.pid());
        let places = own_files.iter().filter(|path| path.metadata().is_ok_and(|it| it.len() > 0));
        for place in places.map(|path| path.display().to_string()).chain([environ]) {
            let said = client.text_of("prying__read", json!({"path": place})).await;
            assert_eq!(said == "read True", outcome, "{profile} {place}: {said}");
        }
        let said = client.text_of("prying__write", json!({"path": beside})).await;
        assert_eq!(said == "written", outcome, "{profile}: {said}");
        // What everybody may read, it may.
        let program = &gateway.server("prying").await["args"][2];
        assert_eq!(client.text_of("prying__read", json!({"path": program})).await, "read True");
    }
}

#[tokio::test]
async fn a_strict_server_ends_with_the_daemon_like_any_other() {
    let Some((mut gateway, client)) = prying("STRICT").await else { return };
    drop(client);
    gateway.kill9().await;
    let left = gateway.leftovers_after(crate::support::gateway::LEFTOVERS_DIE_WITHIN).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn another_profile_is_another_process() {
    let Some((gateway, client)) = prying("STANDARD").await else { return };
    let pid = gateway.server_pid("prying").await;
    gateway.change("mcp-servers/prying", json!({"profile": "STRICT"})).await;
    gateway
        .server_until("prying", "READY with another process", |server| {
            server["runtime"]["state"] == "READY" && server["runtime"]["pid"] != pid
        })
        .await;
    assert_eq!(facts(&client).await["no_new_privs"], "1");
}
