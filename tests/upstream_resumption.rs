//! A remote upstream that closes a stream before all is said: the rest is fetched from where the last event was, at
//! the upstream's own pace (conformance scenario `sse-retry`).

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

const CHANGED: &str = "notifications/tools/list_changed";

/// A remote upstream whose standing stream has ids, and that has said something by it.
async fn standing() -> (TestGateway, Remote) {
    let settings = "[lists]\ndebounce = \"10ms\"\nrefresh_rest = \"10ms\"\nrefresh_every = \"0s\"";
    let gateway = Start::new().settings(settings).run().await;
    let remote = Remote::start(Knobs { stream_ids: true, ..Knobs::default() });
    gateway.remote("remote", &remote.url).await;
    gateway.ready("remote").await;
    wait_until("the stream to be open", SOON, async || (remote.push(CHANGED) > 0).then_some(()))
        .await;
    listed(&remote, 2).await;
    (gateway, remote)
}

async fn listed(remote: &Remote, times: usize) {
    wait_until("the tools to be listed", SOON, async || {
        (remote.seen_of("tools/list").len() >= times).then_some(())
    })
    .await;
}

/// The GETs so far, by the event after which each wants to go on.
fn gets(remote: &Remote) -> Vec<Option<String>> {
    let gets = remote.seen().into_iter().filter(|seen| seen.http == "GET");
    gets.map(|seen| seen.header("last-event-id").map(str::to_owned)).collect()
}

async fn opened(remote: &Remote, times: usize) -> Vec<Option<String>> {
    wait_until("the stream to be open again", SOON, async || {
        Some(gets(remote)).filter(|gets| gets.len() >= times)
    })
    .await
}

#[tokio::test]
async fn a_standing_stream_that_broke_is_taken_up_where_it_was_and_nothing_is_looked_at_for_that() {
    let (gateway, remote) = standing().await;
    let (pushed, lists) = (remote.seen().len(), remote.seen_of("tools/list").len());
    let last = opened(&remote, 1).await.len();
    remote.cut_streams();
    let resumed = opened(&remote, last + 1).await;
    assert!(resumed[last].as_deref().is_some_and(|id| id.starts_with("said-")), "{resumed:?}");
    assert!(remote.seen().len() > pushed);

    // What is said while nobody hears it comes after the break, and what was heard before it does not count.
    remote.cut_streams();
    assert_eq!(remote.push(CHANGED), 0);
    listed(&remote, lists + 1).await;
    assert_eq!(opened(&remote, last + 2).await.len(), last + 2);
    let duplicates = gateway.metric("metamcpd_upstream_duplicate_events_total").await;
    assert!(duplicates.is_some_and(|count| count >= 2.0), "{duplicates:?}");
    // Once for what was said, and not for either break.
    assert_eq!(remote.seen_of("tools/list").len(), lists + 1);
}

#[tokio::test]
async fn where_the_rest_of_a_standing_stream_is_not_to_be_had_the_lists_are_looked_at_again() {
    let (_gateway, remote) = standing().await;
    let (lists, last) = (remote.seen_of("tools/list").len(), opened(&remote, 1).await.len());
    remote.forget_said();
    remote.cut_streams();
    let anew = opened(&remote, last + 2).await;
    assert!(anew[last].is_some(), "{anew:?}");
    assert_eq!(anew[last + 1], None);
    listed(&remote, lists + 1).await;
}
