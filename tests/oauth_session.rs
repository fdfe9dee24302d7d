//! The OAuth session of an upstream as an operator puts it in, and what is seen of it anywhere.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    gateway::Start,
    token_endpoint::{needs_auth, session, with},
};

#[tokio::test]
async fn nothing_of_the_tokens_is_in_a_log_an_answer_or_a_file() {
    let mut gateway = Start::new().settings("[log]\nlevel = \"trace\"").run().await;
    let (tokens, _remote, client) = with(&gateway).await;
    tokens.expire_all();
    client.text_of("remote__echo", json!({"value": "hi"})).await;
    tokens.expire_all();
    client.text_of("remote__echo", json!({"value": "hi"})).await;
    let mut texts = Vec::new();
    for path in [
        "mcp-servers/remote/oauth-session",
        "mcp-servers/remote",
        "mcp-servers/remote/history",
        "logs?limit=500",
    ] {
        texts.push((path.to_owned(), gateway.get(path).await.to_string()));
    }
    tokens.expire_all();
    tokens.turn(|knobs| knobs.is_void = true);
    client.call("remote__echo", json!({"value": "hi"})).await;
    texts.push(("the row".to_owned(), needs_auth(&gateway).await.to_string()));
    gateway.stop().await;
    texts.push(("the log".to_owned(), gateway.log()));
    for (place, text) in texts {
        assert!(!text.contains("canary"), "in {place}: {text}");
    }
    for file in std::fs::read_dir(gateway.data_dir()).unwrap().map_while(Result::ok) {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        let found = memchr::memmem::find(&bytes, b"canary").is_some();
        assert!(!found, "in {}", file.path().display());
    }
}

#[tokio::test]
async fn a_session_is_put_in_shown_and_taken_away() {
    let gateway = Start::new().settings("[supervision]\nprobe_every = \"1h\"").run().await;
    let (tokens, _remote, _client) = with(&gateway).await;
    let path = "mcp-servers/remote/oauth-session";
    let shown = gateway.get(path).await;
    for (field, expected) in [
        ("token_endpoint", json!(tokens.url)),
        ("client_id", json!("the client")),
        ("client_secret", json!("********")),
        ("token_endpoint_auth_method", json!("client_secret_basic")),
        ("access_token", json!("********")),
        ("refresh_token", json!("********")),
        ("expires_at", json!(null)),
        ("unreadable", json!([])),
    ] {
        assert_eq!(shown[field], expected, "{field} in {shown}");
    }
    let refused = async |path: &str, body: Value| {
        let (status, body) = gateway.admin(Method::PUT, path, Some(body)).await;
        let details = body["details"].as_array().cloned().unwrap_or_default();
        let fields: Vec<_> = details.iter().map(|one| one["field"].to_string()).collect();
        (status.as_u16(), fields.join(" ").replace('"', ""))
    };
    let with = |field: &str, value: Value| {
        let mut body = session(&tokens, None);
        body[field] = value;
        body
    };
    for (field, value) in [
        ("token_endpoint", json!("http://login.example/token")),
        ("client_id", json!("")),
        ("client_secret", json!("********")),
        ("refresh_token", json!("two words")),
        ("access_token", json!("a\nb")),
        ("expires_at", json!("tomorrow")),
        ("expires_in", json!(1_000_000_000)),
        ("resource", json!("here")),
    ] {
        assert_eq!(refused(path, with(field, value)).await, (422, field.to_owned()));
    }
    assert_eq!(refused(path, with("expires_in", json!(60))).await, (422, "expires_at".to_owned()));
    let unknown = refused(path, with("acces_token", json!("x"))).await;
    assert_eq!(unknown, (422, "acces_token".to_owned()));
    assert_eq!(refused("mcp-servers/nobody/oauth-session", session(&tokens, None)).await.0, 404);
    gateway.demo("local").await;
    let local = refused("mcp-servers/local/oauth-session", session(&tokens, None)).await;
    assert_eq!(local, (422, "type".to_owned()));
    let (status, _) = gateway
        .admin(Method::PATCH, "mcp-servers/remote", Some(json!({"bearer_token": "x"})))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(gateway.get(path).await, shown, "nothing of this changed it");

    gateway.remove(path).await;
    needs_auth(&gateway).await;
    let (status, body) = gateway.admin(Method::GET, path, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    let (status, _) = gateway.admin(Method::DELETE, path, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
