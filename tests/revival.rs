//! What becomes of a session when the daemon ends: it goes on in the next run, for who began it and
//! for nobody else, and one that has ended stays ended.

use reqwest::StatusCode;
use serde_json::json;

use crate::support::{
    Client, SOON, TestGateway,
    client::{LATEST, request},
    gateway::Start,
    within,
};

async fn demo(settings: &str) -> (TestGateway, Client) {
    let gateway = Start::new().settings(settings).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    (gateway, client)
}

/// The same client after the daemon has moved to another port: it knows its session and nothing else
/// has happened to it.
fn moved(client: &Client, gateway: &TestGateway) -> Client {
    client.at(&gateway.endpoint_url("all"))
}

fn ping() -> String {
    request(json!(1), "ping", json!({}))
}

#[tokio::test]
async fn a_client_that_never_begins_again_is_served_after_a_stop_and_after_a_kill() {
    let (mut gateway, client) = demo("").await;
    for kills in [false, true, true] {
        if kills {
            gateway.kill9().await;
        }
        gateway.restart().await;
        gateway.ready("demo").await;
        let client = moved(&client, &gateway);
        let said = client.text_of("demo__echo", json!({"message": "still me"})).await;
        assert!(said.contains("still me"), "the very request that revives it is answered");
        let mut stream = client.listen().await;
        assert_eq!(stream.status, StatusCode::OK);
        within("the first byte", SOON, stream.events.arrival()).await.expect("an open stream");
    }
}

#[tokio::test]
async fn a_stream_or_an_end_can_be_what_comes_first_after_a_restart() {
    let (mut gateway, client) = demo("").await;
    gateway.restart().await;
    let client = moved(&client, &gateway);
    assert_eq!(client.listen().await.status, StatusCode::OK);

    gateway.restart().await;
    let client = moved(&client, &gateway);
    assert_eq!(client.end().await, StatusCode::NO_CONTENT);
    assert_eq!(client.post(&ping()).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nobody_else_revives_a_session_and_nobody_can_tell_it_from_an_unknown_one() {
    let (mut gateway, client) = demo("").await;
    gateway.publish("second", &["demo"]).await;
    let other_key = gateway.key("other").await;
    gateway.restart().await;
    gateway.ready("demo").await;

    let mut thief = Client::new(&gateway.endpoint_url("all"), Some(&other_key));
    thief.session = client.session.clone();
    let stolen = thief.post(&ping()).await;
    assert_eq!(thief.listen().await.status, StatusCode::NOT_FOUND);
    assert_eq!(thief.end().await, StatusCode::NOT_FOUND);
    thief.session = Some("no-such-session".to_owned());
    let unknown = thief.post(&ping()).await;
    assert_eq!(stolen.status, StatusCode::NOT_FOUND);
    assert_eq!(stolen.json()["error"]["code"], -32001, "{stolen:?}");
    assert_eq!(stolen.face(), unknown.face());

    let mut elsewhere = moved(&client, &gateway);
    elsewhere.url = gateway.endpoint_url("second");
    assert_eq!(elsewhere.post(&ping()).await.status, StatusCode::NOT_FOUND);
    let mut keyless = moved(&client, &gateway);
    keyless.headers.clear();
    assert_eq!(keyless.post(&ping()).await.status, StatusCode::UNAUTHORIZED);

    let owner = moved(&client, &gateway);
    assert_eq!(owner.post(&ping()).await.status, StatusCode::OK, "the owner's is still there");
}

#[tokio::test]
async fn an_ended_session_stays_ended_whatever_ends_the_daemon() {
    let (mut gateway, client) = demo("").await;
    let key = gateway.key("another").await;
    let killed = gateway.client("all", &key).await;
    assert_eq!(client.end().await, StatusCode::NO_CONTENT);
    // What was confirmed is not lost, however soon the end comes.
    gateway.kill9().await;
    gateway.restart().await;
    let gone = moved(&client, &gateway);
    assert_eq!(gone.post(&ping()).await.status, StatusCode::NOT_FOUND);
    assert_eq!(gone.listen().await.status, StatusCode::NOT_FOUND);
    assert_eq!(moved(&killed, &gateway).post(&ping()).await.status, StatusCode::OK);

    gateway.restart().await;
    assert_eq!(moved(&client, &gateway).post(&ping()).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_made_room_and_what_was_idle_too_long_does_not_return() {
    let settings = "[sessions]\nper_principal_max = 1\nidle = \"1s\"";
    let (mut gateway, evicted) = demo(settings).await;
    let mut idle = Client::new(&gateway.endpoint_url("all"), None);
    idle.headers = evicted.headers.clone();
    idle.initialize(LATEST).await;
    assert_eq!(evicted.post(&ping()).await.status, StatusCode::NOT_FOUND);
    crate::support::wait_until("the end of an idle session", SOON, async || {
        gateway.metric("metamcpd_sessions").await.filter(|open| *open == 0.0)
    })
    .await;
    gateway.restart().await;
    for client in [&evicted, &idle] {
        assert_eq!(moved(client, &gateway).post(&ping()).await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn with_revival_off_a_session_ends_with_its_run_and_its_client_begins_a_new_one() {
    let (mut gateway, client) = demo("[sessions]\nrevival = false").await;
    gateway.restart().await;
    gateway.ready("demo").await;
    let mut moved = moved(&client, &gateway);
    let refused = moved.post(&ping()).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (StatusCode::NOT_FOUND, &json!(-32001))
    );
    // The stale id goes along, as some clients send it, and is of no account.
    moved.initialize(LATEST).await;
    assert!(moved.text_of("demo__echo", json!({"message": "new"})).await.contains("new"));
}

#[tokio::test]
async fn many_that_come_back_at_once_revive_one_session_and_each_gets_its_answer() {
    let (mut gateway, client) = demo("").await;
    gateway.kill9().await;
    gateway.restart().await;
    gateway.ready("demo").await;
    let client = moved(&client, &gateway);
    let calls = (0..32).map(|number| {
        let message = format!("number {number}");
        let client = &client;
        async move {
            let said = client.text_of("demo__echo", json!({"message": message})).await;
            assert!(said.contains(&message), "{said}");
        }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(gateway.metric("metamcpd_sessions_revived_total").await, Some(1.0));
}
