//! A remote upstream that closes a stream before all is said: the rest is fetched from where the last event was, at
//! the upstream's own pace (conformance scenario `sse-retry`).

use std::time::Duration;

use serde_json::{Value, json};

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

/// A remote upstream whose standing stream is open, and that has said something by it.
async fn standing(knobs: Knobs) -> (TestGateway, Remote) {
    let settings = "[lists]\ndebounce = \"10ms\"\nrefresh_rest = \"10ms\"\nrefresh_every = \"0s\"";
    let gateway = Start::new().settings(settings).run().await;
    let remote = Remote::start(knobs);
    gateway.remote("remote", &remote.url).await;
    gateway.ready("remote").await;
    let before = remote.seen_of("tools/list").len();
    heard(&remote).await;
    listed(&remote, before + 1).await;
    (gateway, remote)
}

/// Announces a change once somebody hears it.
async fn heard(remote: &Remote) {
    wait_until("the stream to be open", SOON, async || (remote.push(CHANGED) > 0).then_some(()))
        .await;
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
    wait_until("the stream to be asked for again", SOON, async || {
        Some(gets(remote)).filter(|gets| gets.len() >= times)
    })
    .await
}

/// How often the upstream was answered what it asked with this id.
fn answers(remote: &Remote, id: &str) -> usize {
    let is_answer = |seen: &Seen| seen.body["id"] == id && seen.body["result"].is_object();
    remote.seen().into_iter().filter(is_answer).count()
}

async fn answered(remote: &Remote, id: &str) {
    wait_until("the answer", SOON, async || (answers(remote, id) > 0).then_some(())).await;
}

fn question(id: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "ping"})
}

#[tokio::test]
async fn a_standing_stream_that_broke_is_taken_up_where_it_was_and_no_question_counts_twice() {
    let (gateway, remote) = standing(Knobs { stream_ids: true, ..Knobs::default() }).await;
    assert!(remote.push_message(&question("before")) > 0);
    answered(&remote, "before").await;
    let last = gets(&remote).len();
    remote.cut_streams();
    // What is asked while nobody hears it comes after the break.
    assert_eq!(remote.push_message(&question("between")), 0);
    answered(&remote, "between").await;
    let resumed = opened(&remote, last + 1).await;
    assert!(resumed[last].as_deref().is_some_and(|id| id.starts_with("said-")), "{resumed:?}");
    assert_eq!(answers(&remote, "before"), 1, "it came again, and was answered already");
    let duplicates = gateway.metric("metamcpd_upstream_duplicate_events_total").await;
    assert_eq!(duplicates, Some(1.0));
}

#[tokio::test]
async fn the_lists_are_looked_at_after_every_break_since_no_server_has_to_say_anything_again() {
    let alike = Knobs { stream_ids_alike: true, ..Knobs::default() };
    let (gateway, remote) = standing(alike).await;
    let (last, lists) = (gets(&remote).len(), remote.seen_of("tools/list").len());
    remote.cut_streams();
    listed(&remote, lists + 1).await;
    assert_eq!(opened(&remote, last + 1).await[last].as_deref(), Some("alike"));

    // What is said in the same words, and with the same id, is said all the same.
    for _ in 0..2 {
        let lists = remote.seen_of("tools/list").len();
        heard(&remote).await;
        listed(&remote, lists + 1).await;
    }
    let duplicates = gateway.metric("metamcpd_upstream_duplicate_events_total").await;
    assert_eq!(duplicates.unwrap_or_default(), 0.0);
}

#[tokio::test]
async fn the_lists_are_looked_at_before_a_server_has_anything_to_say_by_its_next_stream() {
    for stream_ids in [true, false] {
        let (_gateway, remote) = standing(Knobs { stream_ids, ..Knobs::default() }).await;
        let lists = remote.seen_of("tools/list").len();
        remote.turn(|knobs| knobs.stream_delay = Duration::from_secs(600));
        remote.cut_streams();
        listed(&remote, lists + 1).await;
    }
}

#[tokio::test]
async fn where_the_rest_of_a_standing_stream_is_not_to_be_had_it_is_begun_anew() {
    let (_gateway, remote) = standing(Knobs { stream_ids: true, ..Knobs::default() }).await;
    let (lists, last) = (remote.seen_of("tools/list").len(), gets(&remote).len());
    remote.forget_said();
    remote.cut_streams();
    let anew = opened(&remote, last + 2).await;
    assert!(anew[last].is_some(), "{anew:?}");
    assert_eq!(anew[last + 1], None);
    listed(&remote, lists + 1).await;
}

#[tokio::test]
async fn a_standing_stream_that_our_credential_is_refused_for_is_told_as_that() {
    let (gateway, remote) = standing(Knobs::default()).await;
    remote.turn(|knobs| knobs.stream_refusal = Some((401, "")));
    remote.cut_streams();
    let is_refused = |row: &Value| {
        let said = row["runtime"]["last_error"].as_str().unwrap_or_default();
        said.contains("refused our credential") && said.contains("invalid_token")
    };
    gateway.server_until("remote", "the refusal", is_refused).await;
}

/// A standing stream that is refused so, so often, and then no more; and how often a session was begun for that.
async fn refused(status: u16, words: &'static str, times: usize) -> usize {
    let (_gateway, remote) = standing(Knobs::default()).await;
    let (last, begun) = (gets(&remote).len(), remote.seen_of("initialize").len());
    remote.turn(|knobs| knobs.stream_refusal = Some((status, words)));
    remote.cut_streams();
    opened(&remote, last + times).await;
    remote.turn(|knobs| knobs.stream_refusal = None);
    heard(&remote).await;
    let lists = remote.seen_of("tools/list").len();
    heard(&remote).await;
    listed(&remote, lists + 1).await;
    remote.seen_of("initialize").len() - begun
}

#[tokio::test]
async fn a_standing_stream_that_is_refused_for_another_reason_is_asked_for_again() {
    let begun = tokio::join!(
        refused(403, "", 1),
        refused(400, "no", 1),
        refused(400, "Unsupported MCP-Protocol-Version", 1),
        // It says so of every session.
        refused(404, "", 2),
    );
    assert_eq!(begun, (0, 0, 1, 1));
}
