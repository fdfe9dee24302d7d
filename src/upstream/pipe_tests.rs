//! The pipe, against a server that is played by the test.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::upstream::dialogue::{DialogueOptions, Scope};
use crate::upstream::reason::Reason;

const SECOND: Duration = Duration::from_secs(1);

fn pipe() -> (Arc<Pipe>, mpsc::Receiver<Bytes>) {
    let dialogue = DialogueOptions { doubt: SECOND, events_max: 2, elicitations_max: 2 };
    Pipe::new("a".into(), 2, Arc::new(Dialogue::new(Scope::Everyone, dialogue)))
}

async fn begin(pipe: &Arc<Pipe>) -> Result<PipeLeg, CallError> {
    begin_for(pipe, "someone").await
}

async fn begin_for(pipe: &Arc<Pipe>, client: &str) -> Result<PipeLeg, CallError> {
    let write = |id| message::request(id, "tools/call", b"{}");
    pipe.begin(write, Some(client.into()), None, SECOND, SECOND).await
}

fn is_settled(aside: Aside) -> bool {
    matches!(aside, Aside::Settled)
}

fn frame(text: String) -> Frame {
    Frame::parse(text.into(), 16).unwrap()
}

fn reply(id: u64, result: &str) -> Frame {
    frame(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

fn progress(token: &str) -> Frame {
    frame(format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
    ))
}

fn ask(id: &str) -> Frame {
    frame(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{{}}}}"#))
}

fn ended() -> CallError {
    CallError::Ended { server: "a".into(), reason: Reason::Exited, detail: None }
}

#[tokio::test]
async fn answers_find_their_calls_in_whatever_order_they_come() {
    let (pipe, mut lines) = pipe();
    let (mut first, mut second) = (begin(&pipe).await.unwrap(), begin(&pipe).await.unwrap());
    assert_eq!(lines.recv().await.unwrap(), message::request(1, "tools/call", b"{}"));

    pipe.hear(reply(2, r#""b""#));
    pipe.hear(reply(1, r#""a""#));

    let Heard::Reply(answer) = first.next().await else { panic!() };
    assert_eq!(answer.result().unwrap(), r#""a""#);
    let Heard::Reply(answer) = second.next().await else { panic!() };
    assert_eq!(answer.result().unwrap(), r#""b""#);
}

#[tokio::test]
async fn progress_is_told_before_the_answer_and_a_flood_of_it_is_dropped() {
    let (pipe, _lines) = pipe();
    let mut leg = begin(&pipe).await.unwrap();
    for _ in 0..5 {
        pipe.hear(progress("1"));
    }
    pipe.hear(progress("\"1\""));
    pipe.hear(progress("7"));
    pipe.hear(reply(1, "{}"));
    pipe.hear(progress("1"));

    assert!(matches!(leg.next().await, Heard::Progress(_)));
    assert!(matches!(leg.next().await, Heard::Progress(_)));
    assert!(matches!(leg.next().await, Heard::Reply(_)));
}

#[tokio::test]
async fn answers_that_nobody_waits_for_reach_nobody() {
    let (pipe, _lines) = pipe();
    let mut leg = begin(&pipe).await.unwrap();
    assert!(is_settled(pipe.hear(reply(9, "{}"))));
    assert!(is_settled(pipe.hear(frame(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#.into()))));
    pipe.hear(reply(1, r#""first""#));
    pipe.hear(reply(1, r#""second""#));
    let Heard::Reply(answer) = leg.next().await else { panic!() };
    assert_eq!(answer.result().unwrap(), r#""first""#);
}

#[tokio::test]
async fn the_end_of_the_server_ends_every_call_once_and_takes_no_more() {
    let (pipe, _lines) = pipe();
    let mut leg = begin(&pipe).await.unwrap();
    pipe.close(ended());
    pipe.close(CallError::Cancelled);
    let Heard::Failed(error) = leg.next().await else { panic!() };
    assert_eq!(error, ended());
    assert_eq!(leg.why_over(), Some(ended()), "by what came first");
    assert!(matches!(begin(&pipe).await, Err(CallError::NotSent { .. })));
}

#[tokio::test]
async fn a_cancelled_call_tells_the_server_our_id_and_hears_nothing_more() {
    let (pipe, mut lines) = pipe();
    let mut leg = begin(&pipe).await.unwrap();
    lines.recv().await.unwrap();
    leg.cancel("enough");
    leg.cancel("enough");
    let told = frame(String::from_utf8(lines.recv().await.unwrap().to_vec()).unwrap());
    assert_eq!(told.request_id(), Some(&b"1"[..]));
    assert!(lines.try_recv().is_err());
    assert!(is_settled(pipe.hear(reply(1, "{}"))));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_makes_calls_busy_and_not_the_heap_large() {
    let (pipe, _lines) = pipe();
    let _first = begin(&pipe).await.unwrap();
    let _second = begin(&pipe).await.unwrap();
    assert!(matches!(begin(&pipe).await, Err(CallError::Busy { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_left_behind_is_taken_back_when_its_time_is_over() {
    let (pipe, mut lines) = pipe();
    drop(begin(&pipe).await.unwrap());
    lines.recv().await.unwrap();
    pipe.expire(Instant::now());
    assert!(lines.try_recv().is_err(), "its client may have gone, but its time is not over");
    tokio::time::advance(SECOND).await;
    pipe.expire(Instant::now());
    assert!(lines.try_recv().is_ok());
}

#[tokio::test]
async fn what_is_for_no_call_is_given_back() {
    let (pipe, _lines) = pipe();
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#,
    ] {
        assert!(!is_settled(pipe.hear(frame(text.into()))));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_while_one_client_calls_is_asked_in_its_newest_call() {
    let (pipe, mut lines) = pipe();
    let mut first = begin_for(&pipe, "a").await.unwrap();
    let mut second = begin_for(&pipe, "a").await.unwrap();
    lines.recv().await.unwrap();
    lines.recv().await.unwrap();
    assert!(is_settled(pipe.hear(ask(r#""x""#))));
    let Heard::Asked(question) = second.next().await else { panic!() };
    question.answer(&reply(1, r#"{"action":"accept"}"#));
    assert_eq!(
        lines.recv().await.unwrap(),
        r#"{"jsonrpc":"2.0","id":"x","result":{"action":"accept"}}"#
    );
    pipe.hear(reply(1, "{}"));
    assert!(matches!(first.next().await, Heard::Reply(_)));
}

#[tokio::test(start_paused = true)]
async fn what_may_be_about_either_of_two_clients_is_asked_of_neither() {
    let (pipe, mut lines) = pipe();
    let (_a, b) = (begin_for(&pipe, "a").await.unwrap(), begin_for(&pipe, "b").await.unwrap());
    lines.recv().await.unwrap();
    lines.recv().await.unwrap();
    assert!(is_settled(pipe.hear(ask("1"))));
    let refusal = frame(String::from_utf8(lines.recv().await.unwrap().to_vec()).unwrap());
    assert_eq!((refusal.kind(), refusal.id()), (Kind::Error, Some(&b"1"[..])));

    // Who took a call back may still be meant for a while.
    let mut b = b;
    b.cancel("enough");
    lines.recv().await.unwrap();
    pipe.hear(ask("2"));
    assert!(lines.try_recv().is_ok(), "it was refused at once");
    tokio::time::advance(SECOND).await;
    pipe.hear(ask("3"));
    assert!(lines.try_recv().is_err(), "now it can only be about the other");
}

#[tokio::test]
async fn a_question_whose_client_has_gone_is_answered_at_once() {
    let (pipe, mut lines) = pipe();
    let leg = begin(&pipe).await.unwrap();
    lines.recv().await.unwrap();
    pipe.hear(ask("1"));
    assert!(lines.try_recv().is_err());
    drop(leg);
    let cancelled = r#"{"jsonrpc":"2.0","id":1,"result":{"action":"cancel"}}"#;
    assert_eq!(lines.try_recv().unwrap(), cancelled);
    pipe.hear(ask("1"));
    assert_eq!(lines.try_recv().unwrap(), cancelled, "and so is one that comes after it went");
}

#[tokio::test]
async fn an_answer_waits_for_a_server_that_does_not_read_just_now() {
    let (pipe, mut lines) = pipe();
    let (first, second) = (begin(&pipe).await.unwrap(), begin(&pipe).await.unwrap());
    pipe.hear(ask("1"));
    // The queue is full when the question is refused.
    drop((first, second));
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(lines.recv().await.unwrap());
    }
    assert_eq!(told[2], r#"{"jsonrpc":"2.0","id":1,"result":{"action":"cancel"}}"#);
}

#[tokio::test]
async fn a_server_that_is_refused_faster_than_it_reads_does_not_make_the_heap_large() {
    let (pipe, mut lines) = pipe();
    let asked = 4 * ANSWERS_OWED_MAX;
    for id in 0..asked {
        assert!(is_settled(pipe.hear(ask(&id.to_string()))), "nobody calls, so nobody is asked");
    }
    let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(alive <= ANSWERS_OWED_MAX, "{alive} answers wait");
    for _ in 0..ANSWERS_OWED_MAX {
        assert!(lines.recv().await.unwrap().windows(6).any(|bytes| bytes == b"-32603"));
    }
    pipe.hear(ask("\"later\""));
    let later = async { while !lines.recv().await.unwrap().windows(5).any(|b| b == b"later") {} };
    tokio::time::timeout(SECOND, later).await.unwrap();
}

#[tokio::test]
async fn what_the_server_takes_back_or_leaves_behind_needs_no_answer() {
    let (pipe, mut lines) = pipe();
    let mut leg = begin(&pipe).await.unwrap();
    lines.recv().await.unwrap();
    pipe.hear(ask("1"));
    pipe.hear(ask("2"));
    let Heard::Asked(first) = leg.next().await else { panic!() };
    let Heard::Asked(second) = leg.next().await else { panic!() };
    let cancelled =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    pipe.hear(frame(cancelled.into()));
    first.withdrawn().await;
    pipe.close(ended());
    second.withdrawn().await;
    drop((first, second));
    assert!(lines.try_recv().is_err());
}

#[tokio::test]
async fn an_id_that_was_not_given_yet_was_never_asked() {
    let (pipe, _lines) = pipe();
    let _leg = begin(&pipe).await.unwrap();
    pipe.hear(reply(1, "{}"));
    pipe.hear(reply(1, "{}"));
    assert_eq!(pipe.unasked(), 0, "it may come once more");
    pipe.hear(reply(2, "{}"));
    assert_eq!(pipe.unasked(), 1);
}

#[tokio::test]
async fn what_is_over_is_with_nobody_and_what_somebody_waits_for_is_not_over() {
    let (pipe, mut lines) = pipe();
    let late = Instant::now() + 60 * SECOND;
    let leg = begin(&pipe).await.unwrap();
    lines.recv().await.unwrap();
    pipe.expire(late);
    assert!(pipe.has_calls() && lines.try_recv().is_err(), "its client waits");
    drop(leg);
    assert!(pipe.has_calls());
    pipe.expire(late);
    assert!(!pipe.has_calls() && lines.try_recv().is_ok());

    let mut leg = begin(&pipe).await.unwrap();
    pipe.refuse(2, "it is too long");
    assert!(!pipe.has_calls());
    assert!(matches!(leg.next().await, Heard::Failed(CallError::BadAnswer { .. })));
}
