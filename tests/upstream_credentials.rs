//! Remote upstreams that refuse our credential: what they want instead is told to whoever can mend it, and
//! nothing is sent twice.

use evil_mcp::{Character, Fault, http::Server};
use serde_json::{Value, json};

use crate::support::{
    TestGateway,
    scripted::{Said, Scripted, answer},
};

/// A refusal with its `WWW-Authenticate`.
fn refusal(status: &str, challenge: &str) -> Said {
    let head = format!("{status}\r\nWWW-Authenticate: {challenge}");
    Said::whole(answer(&head, "text/plain", b"no"))
}

#[tokio::test]
async fn a_scope_that_our_credential_lacks_is_told_to_the_client_and_in_the_log() {
    let gateway = TestGateway::start().await;
    let server = Scripted::start(|_| {
        let challenge = "Basic realm=\"a, b\", Bearer error=\"insufficient_scope\", \
                         scope=\"files:read \u{202e}files:write\", error_description=\"Ask for more\"";
        refusal("403 Forbidden", challenge)
    });
    gateway.remote("s", &server.url).await;
    let client = gateway.client_of(&["s"]).await;
    let said = client.call("s__t", json!({})).await;
    let (message, data) = (&said["error"]["message"], &said["error"]["data"]);
    assert_eq!(data["reason"], "upstream_insufficient_scope", "{said}");
    assert_eq!(data["fault"], "upstream", "{said}");
    assert_eq!(data["retry"], false, "{said}");
    // The one that turns the direction of writing is no scope.
    assert_eq!(data["scope"], "files:read", "{said}");
    let words = "it asks for the scope `files:read`, which our credential lacks";
    assert!(message.as_str().is_some_and(|message| message.contains(words)), "{said}");
    assert_eq!(server.calls(), 1, "it is sent once");

    let entries = gateway.items("logs?kind=call&server=s").await;
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(entry["reason"], "upstream_insufficient_scope", "{entry}");
    assert!(entry["message"].as_str().is_some_and(|message| message.contains(words)), "{entry}");

    // For everything else it is as good as ever.
    assert_eq!(gateway.server("s").await["runtime"]["state"], "READY");
    client.call("s__t", json!({})).await;
    assert_eq!(server.calls(), 2, "the next call is tried");
}

#[tokio::test]
async fn a_handshake_and_a_list_that_want_another_scope_say_which() {
    let gateway = TestGateway::start().await;
    for (name, fault) in [("hello", Fault::Closed(403)), ("list", Fault::ListStatus(403))] {
        let server = Server::start(Character::good().with(fault)).expect("a server");
        gateway.remote(name, &server.url).await;
        let needs_auth = |row: &Value| row["runtime"]["state"] == "NEEDS_AUTH";
        let row = gateway.server_until(name, "its want of a scope", needs_auth).await;
        assert_eq!(row["error_status"], "ERROR", "{row}");
        assert_eq!(row["error_reason"], "insufficient_scope", "{row}");
        let why = row["runtime"]["last_error"].as_str().unwrap_or_default();
        assert!(why.contains("it asks for the scope `more`"), "{name}: {why}");
        // Its tools are not known, so a call by its name goes the way of what is not listed.
        gateway
            .create("namespaces", json!({"name": name, "servers": [name], "naming": "NEVER"}))
            .await;
        gateway.create("endpoints", json!({"name": name, "namespace": name})).await;
        let key = gateway.key(name).await;
        let said = gateway.client(name, &key).await.call("t", json!({})).await;
        let data = &said["error"]["data"];
        assert_eq!(data["reason"], "upstream_insufficient_scope", "{said}");
        assert_eq!(data["scope"], "more", "{said}");
    }
}

#[tokio::test]
async fn a_list_that_wants_another_credential_says_so() {
    let gateway = TestGateway::start().await;
    let server = Server::start(Character::good().with(Fault::ListStatus(401))).expect("a server");
    gateway.remote("s", &server.url).await;
    let needs_auth = |row: &Value| row["runtime"]["state"] == "NEEDS_AUTH";
    let row = gateway.server_until("s", "its want of a credential", needs_auth).await;
    assert_eq!(row["error_reason"], "unauthorized", "{row}");
    let why = row["runtime"]["last_error"].as_str().unwrap_or_default();
    assert!(why.contains("/api/v1/mcp-servers/s/oauth-session"), "{row}");
}

#[tokio::test]
async fn what_a_401_says_stands_in_the_last_error() {
    let gateway = TestGateway::start().await;
    let server = Scripted::start(|_| {
        let challenge =
            "Bearer error=\"invalid_token\", error_description=\"The token is \u{202e}old\"";
        refusal("401 Unauthorized", challenge)
    });
    gateway.remote("s", &server.url).await;
    let client = gateway.client_of(&["s"]).await;
    let said = client.call("s__t", json!({})).await;
    assert_eq!(said["error"]["data"]["reason"], "upstream_unauthorized", "{said}");
    let needs_auth = |row: &Value| row["runtime"]["state"] == "NEEDS_AUTH";
    let row = gateway.server_until("s", "its want of a credential", needs_auth).await;
    let why = row["runtime"]["last_error"].as_str().unwrap_or_default();
    assert!(why.ends_with("it says: invalid_token (The token is old)"), "{why}");
    assert_eq!(server.calls(), 1);
}
