//! Sessions as the operator sees and ends them: what ends for their clients, and what nobody learns.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    ADMIN_KEY, SOON, TestGateway,
    client::{call, request},
    wait_until, within,
};

async fn gateway() -> TestGateway {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    gateway.publish("all", &["demo"]).await;
    gateway.ready("demo").await;
    gateway
}

/// Waits until a session has a request under way; the session.
async fn busy(gateway: &TestGateway) -> Value {
    wait_until("a call under way", SOON, async || {
        gateway.items("sessions").await.into_iter().find(|session| session["in_flight"] == 1)
    })
    .await
}

#[tokio::test]
async fn a_session_over_streamable_http_is_shown_and_ended_and_its_call_hears_of_it() {
    let gateway = gateway().await;
    let key = gateway.key("mine").await;
    let client = gateway.client("all", &key).await;
    let id = client.session.clone().expect("a session");
    let endless = call(json!("q"), "demo__long_task", json!({"seconds": 600}));
    let (reply, session) = tokio::join!(client.post(&endless), async {
        let session = busy(&gateway).await;
        gateway.remove(&format!("sessions/{}", session["uuid"].as_str().expect("a uuid"))).await;
        session
    });
    let answer = reply.answer_to(&json!("q"));
    assert_eq!(answer["error"]["data"]["reason"], "session_ended", "{answer}");
    assert_eq!(reply.messages.len(), 1, "one outcome: {reply:?}");
    for (field, expected) in [
        ("endpoint_name", "all"),
        ("api_key_name", "mine"),
        ("transport", "STREAMABLE_HTTP"),
        ("protocol_version", "2025-11-25"),
        ("client_name", "suite"),
        ("client_version", "1"),
    ] {
        assert_eq!(session[field], expected, "{session}");
    }
    assert!(!session.to_string().contains(&id), "what opens it is not shown");
    let after = client.post(&request(json!(1), "ping", json!({}))).await;
    assert_eq!(after.status, StatusCode::NOT_FOUND);
    assert!(gateway.items("sessions").await.is_empty());
}

#[tokio::test]
async fn a_session_over_sse_ends_with_the_outcome_of_its_call_and_then_its_stream() {
    let gateway = gateway().await;
    let key = gateway.key("mine").await;
    let client = gateway.sse_client("all", &key).await;
    let endless = call(json!("q"), "demo__long_task", json!({"seconds": 600}));
    assert_eq!(client.post(&endless).await, StatusCode::ACCEPTED);
    let session = busy(&gateway).await;
    assert_eq!((&session["transport"], &session["streams"]), (&json!("SSE"), &json!(1)));
    let id = client.message_url.split("sessionId=").nth(1).expect("an id");
    assert!(!session.to_string().contains(id), "{session}");
    gateway.remove(&format!("sessions/{}", session["uuid"].as_str().expect("a uuid"))).await;

    let answer = client.heard("the outcome", |message| message["id"] == "q").await;
    assert_eq!(answer["error"]["data"]["reason"], "session_ended", "{answer}");
    let rest = async { client.stream().await.rest().await };
    assert_eq!(within("the end of the stream", SOON, rest).await, []);
    let ping = request(json!(1), "ping", json!({}));
    assert_eq!(client.post(&ping).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_the_api_shows_of_a_session_opens_nothing() {
    let gateway = gateway().await;
    let key = gateway.key("mine").await;
    let client = gateway.client("all", &key).await;
    let session = gateway.items("sessions").await[0].clone();
    let uuid = session["uuid"].as_str().expect("a uuid");
    let mut thief = crate::support::Client::new(&client.url, Some(&key));
    for name in [uuid.to_owned(), uuid.replace('-', "")] {
        thief.session = Some(name);
        let reply = thief.post(&request(json!(1), "ping", json!({}))).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
    }
    let id = client.session.clone().expect("a session");
    for method in [Method::GET, Method::DELETE] {
        let (status, _) = gateway.admin(method, &format!("sessions/{id}"), None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "a client's id is no name for operators");
    }
    let mine = format!("{}/api/v1/sessions", gateway.base);
    let asked = gateway.http.get(mine).bearer_auth(&key).send().await.expect("an answer");
    assert_eq!(asked.status(), StatusCode::FORBIDDEN);
    assert_eq!(client.tools().await.len(), 4, "and the session has gone on");
    assert_ne!(ADMIN_KEY, key);
}
