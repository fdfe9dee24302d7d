//! Who gets in: keys where they are wanted, nobody where they are not, and answers from which
//! nobody can learn what exists.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    ADMIN_KEY, Client, TestGateway,
    client::{LATEST, Reply},
};

fn hello() -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": LATEST, "capabilities": {}, "clientInfo": {"name": "suite", "version": "1"},
    }})
    .to_string()
}

/// A handshake with these headers and this query.
async fn knock(
    gateway: &TestGateway,
    endpoint: &str,
    headers: &[(&str, &str)],
    query: &str,
) -> Reply {
    let mut client = Client::new(&format!("{}{query}", gateway.endpoint_url(endpoint)), None);
    client.headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    client.post(&hello()).await
}

/// A gateway with the endpoint `all`, and a key.
async fn guarded() -> (TestGateway, String) {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    gateway.publish("all", &["demo"]).await;
    let key = gateway.key("suite").await;
    (gateway, key)
}

/// The uuid of the key with this name.
async fn key_uuid(gateway: &TestGateway, name: &str) -> String {
    let keys = gateway.items("api-keys").await;
    let row = keys.iter().find(|row| row["name"] == name).expect("the key");
    row["uuid"].as_str().expect("a uuid").to_owned()
}

#[tokio::test]
async fn a_key_opens_an_endpoint_by_either_header() {
    let (gateway, key) = guarded().await;
    let table = [
        ("authorization", format!("Bearer {key}")),
        ("authorization", format!("bearer {key}")),
        ("x-api-key", key.clone()),
    ];
    for (name, value) in &table {
        assert_eq!(
            knock(&gateway, "all", &[(name, value)], "").await.status,
            StatusCode::OK,
            "{name}"
        );
    }
}

#[tokio::test]
async fn no_key_and_a_bad_key_are_401() {
    let (gateway, key) = guarded().await;
    let bearer = |value: &str| format!("Bearer {value}");
    let wrong = [
        bearer("sk_mt_0000000000000000000000000000000000000000000000000000000000000000"),
        bearer(&key[..key.len() - 1]),
        bearer(&key.to_uppercase()),
        bearer(""),
        format!("Basic {key}"),
        bearer(ADMIN_KEY),
    ];
    assert_eq!(knock(&gateway, "all", &[], "").await.status, StatusCode::UNAUTHORIZED);
    for value in &wrong {
        let reply = knock(&gateway, "all", &[("authorization", value)], "").await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{value}");
    }
}

#[tokio::test]
async fn a_key_in_the_query_counts_only_where_the_endpoint_allows_it() {
    let (gateway, key) = guarded().await;
    let query = format!("?api_key={key}");
    assert_eq!(knock(&gateway, "all", &[], &query).await.status, StatusCode::UNAUTHORIZED);
    gateway.change("endpoints/all", json!({"use_query_param_auth": true})).await;
    assert_eq!(knock(&gateway, "all", &[], &query).await.status, StatusCode::OK);
    assert_eq!(knock(&gateway, "all", &[], &format!("?apikey={key}")).await.status, StatusCode::OK);
    assert_eq!(
        knock(&gateway, "all", &[], "?api_key=sk_mt_wrong").await.status,
        StatusCode::UNAUTHORIZED
    );
    assert!(!gateway.log().contains(&key), "a key in a query is in no log");
}

#[tokio::test]
async fn a_key_that_is_switched_off_or_deleted_is_401_at_once_for_open_sessions_too() {
    let (gateway, key) = guarded().await;
    let client = gateway.client("all", &key).await;
    let uuid = key_uuid(&gateway, "suite").await;
    let ping = crate::support::client::request(json!(1), "ping", json!({}));
    gateway.change(&format!("api-keys/{uuid}"), json!({"is_active": false})).await;
    assert_eq!(client.post(&ping).await.status, StatusCode::UNAUTHORIZED);
    gateway.change(&format!("api-keys/{uuid}"), json!({"is_active": true})).await;
    assert_eq!(client.post(&ping).await.status, StatusCode::NOT_FOUND, "its session has ended");
    let client = gateway.client("all", &key).await;
    gateway.remove(&format!("api-keys/{uuid}")).await;
    assert_eq!(client.post(&ping).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_open_endpoint_takes_anyone_and_is_warned_about() {
    let (gateway, key) = guarded().await;
    let body = json!({"name": "open", "namespace": "all", "enable_api_key_auth": false});
    gateway.create("endpoints", body).await;
    let bearer = format!("Bearer {key}");
    let table: [&[(&str, &str)]; 3] =
        [&[], &[("authorization", "Bearer sk_mt_wrong")], &[("authorization", &bearer)]];
    for headers in table {
        assert_eq!(
            knock(&gateway, "open", headers, "").await.status,
            StatusCode::OK,
            "{headers:?}"
        );
    }
    assert!(gateway.log().contains("open"), "an open endpoint is warned about");
}

#[tokio::test]
async fn an_endpoint_is_guarded_unless_someone_says_otherwise() {
    let (gateway, _key) = guarded().await;
    let row = gateway.get("endpoints/all").await;
    assert_eq!(row["enable_api_key_auth"], true, "{row}");
    assert_eq!(row["use_query_param_auth"], false, "{row}");
}

#[tokio::test]
async fn a_key_without_the_right_sees_the_same_as_where_nothing_is() {
    let (gateway, public_key) = guarded().await;
    for user in ["alice", "bob"] {
        gateway.add_user(user).await;
    }
    gateway.create("namespaces", json!({"name": "alices", "user_id": "alice"})).await;
    gateway
        .create("endpoints", json!({"name": "alices", "namespace": "alices", "user_id": "alice"}))
        .await;
    let private = async |name: &str, owner: &str| -> String {
        let row = gateway.create("api-keys", json!({"name": name, "user_id": owner})).await;
        row["key"].as_str().expect("a key").to_owned()
    };
    let alice = private("hers", "alice").await;
    let bob = private("his", "bob").await;
    let outcome = async |endpoint: &str, key: &str| {
        knock(&gateway, endpoint, &[("authorization", &format!("Bearer {key}"))], "").await
    };

    assert_eq!(outcome("alices", &alice).await.status, StatusCode::OK);
    assert_eq!(
        outcome("all", &alice).await.status,
        StatusCode::OK,
        "a private key opens what is public"
    );
    for key in [&public_key, &bob] {
        let foreign = outcome("alices", key).await;
        let nowhere = outcome("no-such-endpoint", key).await;
        assert_eq!(foreign.status, StatusCode::NOT_FOUND);
        // But for the name that was asked for, the two answers are one.
        let unnamed = |reply: &Reply, name: &str| reply.messages.join("\n").replace(name, "NAME");
        assert_eq!(unnamed(&foreign, "alices"), unnamed(&nowhere, "no-such-endpoint"));
        let names = |reply: &Reply| {
            let mut names: Vec<String> = reply.headers.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(names(&foreign), names(&nowhere));
    }
}

#[tokio::test]
async fn the_admin_api_takes_admin_keys_only() {
    let (gateway, key) = guarded().await;
    let (unknown, foreign) =
        ((StatusCode::UNAUTHORIZED, "unauthorized"), (StatusCode::FORBIDDEN, "forbidden"));
    for (credential, refusal) in
        [(None, unknown), (Some("nonsense"), unknown), (Some(key.as_str()), foreign)]
    {
        for (method, path) in
            [(Method::GET, "mcp-servers"), (Method::POST, "api-keys"), (Method::GET, "events")]
        {
            let (status, body) = gateway.admin_as(credential, method.clone(), path, None).await;
            assert_eq!(status, refusal.0, "{method} {path} with {credential:?}");
            assert_eq!(body["code"], refusal.1, "{body}");
        }
    }
}

#[tokio::test]
async fn health_is_public_and_metrics_are_not() {
    let (gateway, key) = guarded().await;
    let get = async |path: &str, key: Option<&str>| {
        let request = gateway.http.get(format!("{}{path}", gateway.base));
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        request.send().await.expect("an answer")
    };
    assert_eq!(get("/health", None).await.status(), StatusCode::OK);
    assert_eq!(get("/ready", None).await.status(), StatusCode::OK);
    for path in ["/health", "/ready"] {
        let head = gateway.http.head(format!("{}{path}", gateway.base)).send().await;
        let head = head.expect("an answer");
        assert_eq!(head.status(), StatusCode::OK, "{path} is asked so by some monitors");
        assert_eq!(head.text().await.expect("no body"), "");
    }
    assert_eq!(get("/metrics", None).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(get("/metrics", Some(&key)).await.status(), StatusCode::FORBIDDEN);
    let metrics = get("/metrics", Some(ADMIN_KEY)).await;
    assert_eq!(metrics.status(), StatusCode::OK);
    let text = metrics.text().await.expect("text");
    assert!(text.contains(r#"metamcpd_upstreams{state="READY"} "#), "{text}");
}

#[tokio::test]
async fn what_is_not_built_yet_says_so() {
    let (gateway, key) = guarded().await;
    let client = gateway
        .http
        .get(format!("{}/metamcp/all/api/openapi.json", gateway.base))
        .bearer_auth(&key);
    assert_eq!(client.send().await.expect("an answer").status(), StatusCode::NOT_IMPLEMENTED);
    for path in ["authorize", "token", "register", "revoke", "introspect"] {
        let answer = gateway.http.post(format!("{}/{path}", gateway.base)).send().await;
        let status = answer.expect("an answer").status();
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{path}");
    }
    for path in ["users", "oauth-clients"] {
        let (status, _) = gateway.admin(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{path}");
    }
    let (status, body): (StatusCode, Value) =
        gateway.admin(Method::GET, "no-such-resource", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    assert_eq!(body["code"], "not_found", "{body}");
}
