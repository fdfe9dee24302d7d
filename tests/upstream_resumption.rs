//! A remote upstream that closes the stream of a call before its answer: the rest is fetched from where
//! the last event was, at the upstream's own pace (conformance scenario `sse-retry`).

use std::time::Duration;

use serde_json::json;

use crate::support::{
    Client, SOON, TestGateway,
    gateway::Start,
    remote::{Cuts, Knobs, Remote, Seen},
    wait_until,
};

async fn behind(settings: &str, cuts: Cuts) -> (TestGateway, Remote, Client) {
    let gateway = Start::new().settings(settings).run().await;
    // Without a standing stream every GET is a resumption.
    let knobs = Knobs { streams: false, cuts: Some(cuts), ..Knobs::default() };
    let remote = Remote::start(knobs);
    gateway.remote("remote", &remote.url).await;
    let client = gateway.client_of(&["remote"]).await;
    (gateway, remote, client)
}

/// The calls and the resumptions that the upstream saw, in order.
fn tries(remote: &Remote) -> Vec<Seen> {
    let is_try =
        |seen: &Seen| seen.method() == "tools/call" || seen.header("last-event-id").is_some();
    remote.seen().into_iter().filter(is_try).collect()
}

#[tokio::test]
async fn a_stream_that_ends_early_is_resumed_when_the_upstream_asks_for_it() {
    let cuts = Cuts { times: 1, ids: true, retry: Some(500) };
    let (_gateway, remote, client) = behind("[upstream.resume]\nretry = \"30s\"", cuts).await;

    let text = client.text_of("remote__echo", json!({"value": "after the break"})).await;

    assert_eq!(text, "after the break");
    let tries = tries(&remote);
    assert_eq!(tries.len(), 2, "one call, one resumption: {tries:?}");
    assert_eq!(tries[1].http, "GET");
    assert_eq!(tries[1].header("last-event-id"), Some("event-0"));
    assert_eq!(tries[1].header("accept"), Some("text/event-stream"));
    assert!(tries[1].header("mcp-session-id").is_some());
    let waited = tries[1].at - tries[0].at;
    assert!(waited >= Duration::from_millis(500), "not before `retry`: {waited:?}");
}

#[tokio::test]
async fn a_stream_may_be_closed_any_number_of_times_and_our_own_pace_holds_where_none_is_asked_for()
{
    let cuts = Cuts { times: 7, ids: true, retry: None };
    let settings = "[upstream.resume]\nretry = \"10ms\"\nattempts_max = 1";
    let (_gateway, remote, client) = behind(settings, cuts).await;
    assert_eq!(client.text_of("remote__echo", json!({"value": "at last"})).await, "at last");
    assert_eq!(tries(&remote).len(), 8, "each try brought an event, so none of them counts");
}

#[tokio::test]
async fn a_stream_that_cannot_be_resumed_is_a_failed_call_and_is_never_called_again() {
    for (ids, settings) in [(false, ""), (true, "[upstream.resume]\nattempts_max = 0")] {
        let cuts = Cuts { times: 1, ids, retry: Some(100) };
        let (_gateway, remote, client) = behind(settings, cuts).await;
        let answer = client.call("remote__echo", json!({"value": "lost"})).await;
        assert_eq!(answer["error"]["code"], -32603, "{answer}");
        assert_eq!(answer["error"]["data"]["reason"], "upstream_ended", "{answer}");
        assert_eq!(tries(&remote).len(), 1, "a tool is not called twice for one request");
    }
}

#[tokio::test]
async fn an_upstream_that_no_longer_knows_the_event_fails_the_call_at_once() {
    let cuts = Cuts { times: 1, ids: true, retry: Some(2_000) };
    let (_gateway, remote, client) = behind("", cuts).await;
    let call = client.call("remote__echo", json!({"value": "lost"}));
    let forget = wait_until("the cut", SOON, async || (remote.forget_owed() > 0).then_some(()));
    let (answer, ()) = tokio::join!(call, forget);
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("400"), "{answer}");
}
