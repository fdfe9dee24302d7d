//! Streams that break, streams side by side, and what a client gets when it comes back: to disconnect
//! is not to cancel.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::{Exchange, request},
    events::{Arrival, Event},
    gateway::Start,
    peers::{self, Sdk},
    wait_until, within,
};

async fn demo(settings: &str) -> (TestGateway, Client) {
    let gateway = Start::new().settings(settings).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    (gateway, client)
}

/// A call that reports each of its steps with this token.
fn steps(id: &str, seconds: f64, steps: u64) -> String {
    let arguments = json!({"seconds": seconds, "steps": steps});
    let params = json!({
        "name": "demo__long_task", "arguments": arguments, "_meta": {"progressToken": id},
    });
    request(json!(id), "tools/call", params)
}

/// The id of the next event that says something, and what it says.
async fn next(exchange: &mut Exchange) -> (String, Value) {
    let event = exchange.events.expect("an event", SOON).await;
    let message = event.json();
    (event.id.expect("its id"), message)
}

async fn first(exchange: &mut Exchange) -> Arrival {
    within("the first byte", SOON, exchange.events.arrival()).await.expect("an open stream")
}

#[tokio::test]
async fn a_stream_is_primed_for_clients_that_know_what_that_is_and_for_no_others() {
    let (_gateway, client) = demo("").await;
    for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut client = client.again();
        client.initialize(version).await;
        let mut standing = client.listen().await;
        let mut call = client.open(&steps("p", 0.1, 2)).await;
        for stream in [&mut standing, &mut call] {
            let is_primed = match first(stream).await {
                Arrival::Event(event) => {
                    assert!(event.id.is_some() && event.data.is_empty(), "{event:?}");
                    let retry = event.retry.as_deref().and_then(|retry| retry.parse::<u64>().ok());
                    assert!(retry.is_some_and(|retry| (1000..3000).contains(&retry)), "{retry:?}");
                    true
                }
                Arrival::Comment => false,
            };
            assert_eq!(is_primed, version == "2025-11-25", "{version}");
        }
        assert!(!next(&mut call).await.0.is_empty(), "ids are for everyone");
    }
}

#[tokio::test]
async fn a_call_whose_client_lost_its_connection_goes_on_and_the_rest_is_fetched() {
    let (_gateway, client) = demo("").await;
    let mut broken = client.open(&steps("a", 1.0, 5)).await;
    let (last, report) = next(&mut broken).await;
    assert_eq!(report["params"]["progress"], 1.0);
    drop(broken);

    let mut back = client.listen_after(&last).await;
    assert_eq!(back.status, StatusCode::OK);
    let rest: Vec<Value> =
        within("the rest", SOON, back.events.rest()).await.iter().map(Event::json).collect();
    let reports: Vec<f64> =
        rest.iter().filter_map(|message| message["params"]["progress"].as_f64()).collect();
    assert_eq!(reports, [2.0, 3.0, 4.0, 5.0], "each once, and in order");
    let answer = rest.last().expect("an answer");
    assert_eq!(answer["id"], "a");
    assert!(answer["result"].is_object(), "{answer}");

    // What was said is still there for who asks again from further back.
    let mut again = client.listen_after(&last).await;
    assert_eq!(within("the same", SOON, again.events.rest()).await.len(), rest.len());
}

#[tokio::test]
async fn a_client_that_comes_back_late_gets_its_answer_and_one_that_does_not_is_counted() {
    let settings = "[sessions.replay]\nwindow = \"1s\"";
    let (gateway, client) = demo(settings).await;
    // Long enough to be gone before the answer is there.
    let mut broken = client.open(&steps("a", 4.0, 2)).await;
    let (last, _) = next(&mut broken).await;
    drop(broken);
    wait_until("the answer to be dropped", SOON, async || {
        gateway.metric("metamcpd_answers_dropped_total").await.filter(|count| *count > 0.0)
    })
    .await;
    assert_eq!(client.listen_after(&last).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(client.request("ping", json!({})).await["result"], json!({}), "the session goes on");
}

#[tokio::test]
async fn an_answer_that_is_too_large_to_be_kept_is_an_error_and_not_silence() {
    let settings = "[sessions.replay]\nbytes_max = 2000";
    let (_gateway, client) = demo(settings).await;
    let large = json!({
        "name": "demo__echo", "arguments": {"message": "x".repeat(900), "repeat": 5, "delay_ms": 50},
        "_meta": {"progressToken": 1},
    });
    let body = request(json!("large"), "tools/call", large);
    let read_along = client.post(&body).await;
    assert!(read_along.answer_to(&json!("large"))["result"].is_object(), "who reads gets it whole");

    let mut broken = client.open(&body).await;
    let (last, _) = next(&mut broken).await;
    drop(broken);
    let mut back = client.listen_after(&last).await;
    let answer = back.events.find("an answer", SOON, |message| message["id"] == "large").await;
    // Who is back before the answer is there reads along again.
    if answer["result"].is_null() {
        assert_eq!(answer["error"]["data"]["reason"], "answer_not_kept", "{answer}");
    }
}

#[tokio::test]
async fn streams_side_by_side_keep_apart_and_so_do_their_resumptions() {
    let (_gateway, client) = demo("").await;
    let mut standing = client.listen().await;
    first(&mut standing).await;
    let (mut one, mut two) =
        tokio::join!(async { client.open(&steps("one", 1.0, 4)).await }, async {
            client.open(&steps("two", 1.0, 4)).await
        });
    let mut ids = BTreeSet::new();
    let (last, report) = next(&mut one).await;
    assert_eq!(report["params"]["progressToken"], "one");
    ids.insert(last.clone());
    drop(one);
    let mut one = client.listen_after(&last).await;
    for (exchange, token) in [(&mut one, "one"), (&mut two, "two")] {
        for event in within("the rest", SOON, exchange.events.rest()).await {
            let message = event.json();
            assert!(
                message["id"] == token || message["params"]["progressToken"] == token,
                "{message} on the stream of {token}"
            );
            assert!(ids.insert(event.id.expect("an id")), "an id is used once");
        }
    }
    assert_eq!(ids.len(), 10, "four reports and an answer each");
    let ping = client.request("ping", json!({})).await;
    assert_eq!(ping["result"], json!({}));
}

#[tokio::test]
async fn a_newer_standing_stream_replaces_the_older_and_has_everything_that_was_not_told() {
    let (gateway, client) = demo("").await;
    let mut old = client.listen().await;
    first(&mut old).await;
    let mut new = client.listen().await;
    assert_eq!(new.status, StatusCode::OK, "never 409");
    first(&mut new).await;
    within("the end of the old one", SOON, old.events.rest()).await;

    // Nobody is told while no stream is open; the next one tells it.
    drop(new);
    let tools = gateway.items("namespaces/all/tools").await;
    let uuid = tools[0]["uuid"].as_str().expect("a uuid").to_owned();
    gateway.change(&format!("namespaces/all/tools/{uuid}"), json!({"status": "INACTIVE"})).await;
    let mut late = client.listen().await;
    let event = late.events.expect("the announcement", SOON).await;
    assert_eq!(event.json()["method"], "notifications/tools/list_changed");
    let mut again = client.listen_after(&event.id.expect("an id")).await;
    let next = tokio::time::timeout(std::time::Duration::from_millis(300), again.events.next());
    assert!(next.await.is_err(), "what was received is not told again");
}

#[tokio::test]
async fn an_event_that_nobody_knows_is_refused_and_one_of_an_earlier_run_is_not_taken_for_another()
{
    let (mut gateway, client) = demo("").await;
    let mut standing = client.listen().await;
    let Arrival::Event(standing) = first(&mut standing).await else { panic!("it is primed") };
    let mut call = client.open(&steps("a", 0.5, 5)).await;
    let (of_call, _) = next(&mut call).await;
    for text in ["nonsense", "1-1-1"] {
        assert_eq!(client.listen_after(text).await.status, StatusCode::BAD_REQUEST, "{text}");
    }
    gateway.kill9().await;
    gateway.restart().await;
    let mut moved = Client::new(&gateway.endpoint_url("all"), None);
    moved.headers = client.headers.clone();
    moved.session = client.session.clone();
    let _other_call = moved.open(&steps("b", 1.0, 5)).await;
    assert_eq!(moved.listen_after(&of_call).await.status, StatusCode::BAD_REQUEST);
    let standing = standing.id.expect("an id");
    assert_eq!(moved.listen_after(&standing).await.status, StatusCode::OK, "it is opened anew");
}

#[tokio::test]
async fn the_typescript_sdk_resumes_by_itself() {
    resumes_by_itself(Sdk::TypeScript).await;
}

#[tokio::test]
async fn the_python_sdk_resumes_by_itself() {
    resumes_by_itself(Sdk::Python).await;
}

async fn resumes_by_itself(sdk: Sdk) {
    if peers::are_missing() {
        return;
    }
    let (gateway, _client) = demo("").await;
    let key = gateway.key("sdk").await;
    let arguments = json!({"seconds": 1, "steps": 5}).to_string();
    let args = [&*gateway.endpoint_url("all"), &key, "demo__long_task", &arguments];
    let seen = peers::said_by(sdk, "resume", &args).await;
    assert_eq!(seen["cuts"], 1, "{seen}");
    assert!(seen["resumed"].as_array().is_some_and(|ids| ids.len() == 1), "{seen}");
    let steps = seen["steps"].as_array().expect("steps").iter().map(Value::as_f64);
    assert!(steps.eq([1.0, 2.0, 3.0, 4.0, 5.0].map(Some)), "{seen}");
    assert!(seen["text"].as_str().is_some_and(|text| text.contains("5 steps")), "{seen}");
}
