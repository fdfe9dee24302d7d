//! The pipe, against a server that is played by the test.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::upstream::reason::Reason;

const SECOND: Duration = Duration::from_secs(1);

fn pipe() -> (Arc<Pipe>, mpsc::Receiver<Bytes>) {
    Pipe::new("a".into(), 2, 2)
}

async fn begin(pipe: &Arc<Pipe>) -> Result<PipeLeg, CallError> {
    pipe.begin(|id| message::request(id, "tools/call", b"{}"), None, SECOND, SECOND).await
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
    assert!(pipe.hear(reply(9, "{}")).is_none());
    assert!(pipe.hear(frame(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#.into())).is_none());
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
    assert!(pipe.hear(reply(1, "{}")).is_none());
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
        assert!(pipe.hear(frame(text.into())).is_some());
    }
}
