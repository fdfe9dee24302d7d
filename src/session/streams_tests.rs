//! What reaches a client, on which stream, and what happens when it does not read.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::{
    access::Principal,
    session::{Agreed, Sessions, questions::Said, registry},
    wire::message,
};

fn sessions() -> Sessions {
    registry::tests::sessions().0
}

fn session(sessions: &Sessions, version: &'static str) -> Arc<Session> {
    let agreed = Agreed { version, capabilities: Default::default(), profile: Default::default() };
    sessions.begin(Uuid::nil(), Principal::Anonymous, agreed).unwrap()
}

fn note(number: u32) -> Bytes {
    message::notification("notifications/message", format!(r#"{{"data":{number}}}"#).as_bytes())
}

fn question(number: u64) -> Bytes {
    message::request(number, "elicitation/create", b"{}")
}

/// The event's message, or nothing where none comes.
async fn next(reader: &mut Reader) -> Option<Bytes> {
    let event = timeout(Duration::from_millis(10), reader.next()).await.ok()??;
    let mut events = sse::Reader::new(10_000).push(&event).unwrap();
    Some(events.remove(0).data)
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_waits_for_a_stream_and_is_told_on_the_newest_one_only() {
    let sessions = sessions();
    let session = session(&sessions, "2025-06-18");
    assert!(session.push(note(1)) && session.push(question(2)));
    let mut first = session.listen(None).unwrap();
    assert_eq!(next(&mut first).await, Some(note(1)));

    let mut second = session.listen(None).unwrap();
    assert_eq!(first.next().await, None, "the newer one replaces it");
    assert_eq!(next(&mut second).await, Some(question(2)));
    assert!(session.push(note(3)));
    assert_eq!(next(&mut second).await, Some(note(3)));
    assert_eq!(next(&mut second).await, None);
    drop(first);
    assert!(session.has_stream());
    drop(second);
    assert!(!session.has_stream());
}

#[tokio::test(start_paused = true)]
async fn a_buffer_that_is_full_drops_notifications_and_says_of_a_request_that_it_failed() {
    let sessions = sessions();
    let session = session(&sessions, "2025-11-25");
    for number in 0..6 {
        assert!(session.push(note(number)), "an older one makes room");
    }
    for number in 0..4 {
        assert!(session.push(question(number)));
    }
    assert!(!session.push(question(9)), "whoever asked has to know");
    let mut reader = session.listen(None).unwrap();
    for number in 0..4 {
        assert_eq!(next(&mut reader).await, Some(question(number)));
    }
    sessions.end(&session);
    assert!(!session.push(note(1)), "nobody will hear it");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_client_that_reads_slowly_and_not_for_one_that_has_left() {
    let sessions = sessions();
    let session = session(&sessions, "2025-06-18");
    let stream = session.begin_call_stream();
    let mut reader = session.read_call_stream(stream).unwrap();
    for number in 0..4 {
        assert!(session.say(stream, note(number)).await);
    }
    let say = session.say(stream, note(4));
    tokio::pin!(say);
    assert!(timeout(Duration::from_secs(1), &mut say).await.is_err(), "it waits");
    assert_eq!(next(&mut reader).await, Some(note(0)));
    assert!(say.await);

    let say = session.say(stream, note(5));
    tokio::pin!(say);
    assert!(timeout(Duration::from_secs(1), &mut say).await.is_err(), "it waits again");
    drop(reader);
    assert!(say.await, "nobody reads, so the oldest makes room");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_finds_no_room_on_the_stream_of_a_call_is_answered_for() {
    let sessions = sessions();
    let session = session(&sessions, "2025-11-25");
    let stream = session.begin_call_stream();
    for number in 100..104 {
        assert!(session.say(stream, question(number)).await);
    }
    let (mut kept, mut lost) =
        (session.questions.begin().unwrap(), session.questions.begin().unwrap());
    assert!(!session.say(stream, question(lost.id)).await, "nobody reads");
    let said = timeout(Duration::from_secs(1), lost.next()).await;
    assert!(matches!(said, Ok(Said::Unheard)));
    assert!(timeout(Duration::from_secs(1), kept.next()).await.is_err(), "nothing of it was lost");
    assert_eq!(session.questions.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_stream_does_not_listen_but_for_a_moment_after_it_broke() {
    let sessions = sessions();
    let session = session(&sessions, "2025-11-25");
    assert!(!session.is_listening());
    let reader = session.listen(None).unwrap();
    let away_max = sessions.options.away_max;
    tokio::time::advance(away_max * 2).await;
    assert!(session.is_listening());
    drop(reader);
    tokio::time::advance(away_max).await;
    assert!(session.is_listening(), "it may come back");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!session.is_listening());
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_an_id_to_come_back_with_where_the_client_knows_what_that_is() {
    let sessions = sessions();
    let old = session(&sessions, "2025-06-18");
    assert!(old.listen(None).unwrap().primer().is_none());
    let new = session(&sessions, "2025-11-25");
    let stream = new.begin_call_stream();
    let primer = new.read_call_stream(stream).unwrap().primer().unwrap();
    let primer = sse::Reader::new(1_000).push(&primer).unwrap().remove(0);
    assert_eq!((primer.retry, primer.data.is_empty()), (Some(1_000), true));

    assert!(new.say(stream, note(1)).await);
    new.end_call_stream(stream);
    let mut back = new.listen(primer.id.as_deref()).unwrap();
    assert_eq!(next(&mut back).await, Some(note(1)));
    assert_eq!(back.next().await, None, "that was all of this call");
    assert!(!back.is_standing());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_not_known_is_an_error_unless_it_is_of_the_standing_stream() {
    let sessions = sessions();
    let session = session(&sessions, "2025-11-25");
    for text in ["", "nonsense", "1-7-1"] {
        assert!(session.listen(Some(text)).is_err(), "{text}");
    }
    assert!(session.listen(Some("1-0-99")).is_ok_and(|reader| reader.is_standing()));
    let stream = session.begin_call_stream();
    let primer = session.read_call_stream(stream).unwrap().primer().unwrap();
    let id = sse::Reader::new(1_000).push(&primer).unwrap().remove(0).id.unwrap();
    session.end_call_stream(stream);
    assert!(session.listen(Some(&id)).is_ok());
    session.forget_old(Instant::now() + Duration::from_secs(61));
    assert!(session.listen(Some(&id)).is_err(), "it was kept long enough");
}
