//! Sessions in virtual time: who finds them, what ends them, and what a restart brings back.

#![allow(clippy::unwrap_used)]

use std::{path::Path, sync::Mutex, time::Duration};

use bytes::Bytes;

use super::*;
use crate::{
    identity::vault::Vault,
    session::{PURPOSE, TooMany},
    wire::capabilities::ClientCapabilities,
};

const HERE: Uuid = Uuid::from_u128(1);

const AGREED: Agreed = Agreed {
    version: "2025-06-18",
    capabilities: ClientCapabilities::ALL,
    profile: crate::catalogue::profiles::Profile::Gemini,
};

/// What ended, in order.
pub type Ended = Arc<Mutex<Vec<Mark>>>;

fn options() -> SessionOptions {
    SessionOptions {
        idle: Duration::from_secs(10),
        lifetime: Duration::from_secs(100),
        per_principal_max: 2,
        total_max: 3,
        in_flight_max: 3,
        in_flight_per_principal_max: 4,
        streams_per_principal_max: 2,
        subscriptions_max: 4,
        heartbeat: Duration::from_secs(1),
        stream_buffer: 2,
        stream_bytes_max: 9_999,
        questions_max: 2,
        question_timeout: Duration::from_secs(60),
        away_max: Duration::from_secs(60),
        revival: true,
        tombstones_max: 100,
        ahead_max: Duration::from_secs(90),
        batch_max: 3,
        replay: crate::session::ReplayOptions {
            events_max: 4,
            streams_max: 4,
            bytes_max: 1_000,
            total_bytes_max: 10_000,
            window: Duration::from_secs(60),
            retry: Duration::from_secs(1),
            retry_spread: Duration::ZERO,
        },
    }
}

/// A run of the daemon whose key lies in `dir`.
fn run(dir: &Path, options: SessionOptions, before: &[Mark]) -> (Sessions, Ended) {
    let sealer = Vault::open(dir).unwrap().sealer(PURPOSE).unwrap();
    let ended = Ended::default();
    let witness = ended.clone();
    let on_end = Box::new(move |session: &Session| witness.lock().unwrap().push(session.mark));
    (Sessions::new(options, sealer, before.to_vec(), on_end), ended)
}

pub fn sessions() -> (Sessions, Ended) {
    run(tempfile::tempdir().unwrap().path(), options(), &[])
}

fn someone(number: u128) -> Principal {
    Principal::Key { uuid: Uuid::from_u128(number), user_id: None }
}

#[tokio::test]
async fn a_session_is_found_by_its_principal_on_its_endpoint_and_by_nobody_else() {
    let (sessions, _) = sessions();
    let session = sessions.begin(HERE, someone(1), AGREED).unwrap();
    let find = |endpoint, principal: &Principal, via| {
        sessions.find(&session.id, endpoint, principal, via).is_ok()
    };
    assert!(find(HERE, &someone(1), Via::StreamableHttp));
    assert!(!find(HERE, &someone(2), Via::StreamableHttp));
    assert!(!find(HERE, &Principal::Anonymous, Via::StreamableHttp));
    assert!(!find(Uuid::from_u128(2), &someone(1), Via::StreamableHttp));
    assert!(!find(HERE, &someone(1), Via::Sse));
    assert!(sessions.find("", HERE, &someone(1), Via::StreamableHttp).is_err());
    sessions.end(&session);
    assert!(!find(HERE, &someone(1), Via::StreamableHttp));
}

#[tokio::test(start_paused = true)]
async fn the_least_used_session_of_a_principal_makes_room_and_the_total_is_a_limit() {
    let (sessions, ended) = sessions();
    let first = sessions.begin(HERE, someone(1), AGREED).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    let second = sessions.begin(HERE, someone(1), AGREED).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    first.touch();
    sessions.begin(HERE, someone(1), AGREED).unwrap();
    assert_eq!(*ended.lock().unwrap(), [second.mark]);
    assert!(second.ended.is_cancelled() && !first.ended.is_cancelled());

    sessions.begin(HERE, someone(2), AGREED).unwrap();
    assert!(matches!(sessions.begin(HERE, someone(3), AGREED), Err(SessionError::TooMany)));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_idle_unless_it_has_a_stream_and_at_its_age_whatever_it_has() {
    let (sessions, _) = sessions();
    let idle = sessions.begin(HERE, someone(1), AGREED).unwrap();
    let streaming = sessions.begin(HERE, someone(2), AGREED).unwrap();
    streaming.open_stream();
    tokio::time::advance(Duration::from_secs(11)).await;
    sessions.sweep(Instant::now());
    assert!(idle.ended.is_cancelled() && !streaming.ended.is_cancelled());
    tokio::time::advance(Duration::from_secs(100)).await;
    sessions.sweep(Instant::now());
    assert!(streaming.ended.is_cancelled());
    assert_eq!(sessions.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn another_lifetime_holds_for_sessions_that_are_open_already() {
    let (sessions, _) = sessions();
    let session = sessions.begin(HERE, someone(1), AGREED).unwrap();
    session.open_stream();
    sessions.set_lifetime(Duration::from_secs(500));
    tokio::time::advance(Duration::from_secs(101)).await;
    sessions.sweep(Instant::now());
    assert!(!session.ended.is_cancelled());
    sessions.set_lifetime(Duration::from_secs(101));
    tokio::time::advance(Duration::from_secs(1)).await;
    sessions.sweep(Instant::now());
    assert!(session.ended.is_cancelled());
}

#[tokio::test]
async fn sessions_are_listed_oldest_first_by_what_does_not_tell_their_ids() {
    let (sessions, _) = sessions();
    let begun: Vec<_> =
        (1..=3).map(|number| sessions.begin(HERE, someone(number), AGREED).unwrap()).collect();
    let listed = |sessions: &Sessions| -> Vec<Uuid> {
        sessions.list().iter().map(|session| session.uuid).collect()
    };
    assert_eq!(listed(&sessions), [begun[0].uuid, begun[1].uuid, begun[2].uuid]);
    for session in &begun {
        let uuid = session.uuid.simple().to_string();
        assert!(!uuid.contains(&*session.id) && !session.id.contains(&uuid));
    }
    sessions.end(&begun[1]);
    assert_eq!(listed(&sessions), [begun[0].uuid, begun[2].uuid]);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_not_idle_while_a_call_is_under_way_nor_just_after() {
    let (sessions, _) = sessions();
    let session = sessions.begin(HERE, someone(1), AGREED).unwrap();
    let call = session.begin(b"1").unwrap();
    tokio::time::advance(Duration::from_secs(11)).await;
    sessions.sweep(Instant::now());
    assert!(!session.ended.is_cancelled(), "a call is under way");
    drop(call);
    tokio::time::advance(Duration::from_secs(5)).await;
    sessions.sweep(Instant::now());
    assert!(!session.ended.is_cancelled(), "the call has only just ended");
    tokio::time::advance(Duration::from_secs(6)).await;
    sessions.sweep(Instant::now());
    assert!(session.ended.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_session_with_a_call_under_way_makes_room_last() {
    let (sessions, _) = sessions();
    let busy = sessions.begin(HERE, someone(1), AGREED).unwrap();
    let _call = busy.begin(b"1").unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    let quiet = sessions.begin(HERE, someone(1), AGREED).unwrap();
    sessions.begin(HERE, someone(1), AGREED).unwrap();
    assert!(quiet.ended.is_cancelled() && !busy.ended.is_cancelled());
}

#[tokio::test]
async fn a_request_is_cancelled_by_its_id_even_if_it_shares_it_and_is_forgotten_when_done() {
    let (sessions, _) = sessions();
    let session = sessions.begin(HERE, someone(1), AGREED).unwrap();
    let begin = |id: &[u8]| session.begin(id).unwrap();
    let (first, second) = (begin(b"1"), begin(b"1"));
    let other = begin(b"\"1\"");
    assert!(session.begin(b"4").is_err(), "it has as many as it may");
    drop(first);
    assert!(session.has_in_flight(b"1"));
    session.cancel(b"1");
    assert!(second.cancel.is_cancelled() && !other.cancel.is_cancelled());
    drop(second);
    assert!(!session.has_in_flight(b"1"));
    sessions.end(&session);
    assert!(other.cancel.is_cancelled());
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_session_and_not_a_message() {
    let (sessions, _) = sessions();
    let (session, mut stream) = sessions.begin_sse(HERE, someone(1)).unwrap();
    for _ in 0..3 {
        session.push(Bytes::from_static(b"{}"));
    }
    assert!(session.ended.is_cancelled());
    assert!(stream.recv().await.is_some() && stream.recv().await.is_some());
}

#[tokio::test]
async fn a_session_goes_on_in_the_next_run_with_what_was_agreed_on() {
    let dir = tempfile::tempdir().unwrap();
    let (before, ended) = run(dir.path(), options(), &[]);
    let session = before.begin(HERE, someone(1), AGREED).unwrap();
    assert!(session.id.len() < 128 && session.id.bytes().all(|byte| byte.is_ascii_graphic()));
    before.close();
    assert!(session.ended.is_cancelled());
    assert!(ended.lock().unwrap().is_empty(), "the end of a run is not the end of its sessions");
    assert!(matches!(before.begin(HERE, someone(1), AGREED), Err(SessionError::Closed)));

    let (after, _) = run(dir.path(), options(), &[]);
    for (endpoint, principal, via) in [
        (Uuid::from_u128(2), someone(1), Via::StreamableHttp),
        (HERE, someone(2), Via::StreamableHttp),
        (HERE, Principal::Anonymous, Via::StreamableHttp),
        (HERE, someone(1), Via::Sse),
    ] {
        let refused = after.find(&session.id, endpoint, &principal, via);
        assert!(matches!(refused, Err(SessionError::Unknown)), "{endpoint} {principal:?} {via:?}");
    }
    assert_eq!(after.count(), 0, "whoever has no right to it leaves no trace");
    let revived = after.find(&session.id, HERE, &someone(1), Via::StreamableHttp).unwrap();
    assert_eq!((&revived.id, revived.version()), (&session.id, Some("2025-06-18")));
    assert_eq!(revived.capabilities(), ClientCapabilities::ALL);
    let again = after.find(&session.id, HERE, &someone(1), Via::StreamableHttp).unwrap();
    assert!(Arc::ptr_eq(&revived, &again));

    let stranger = tempfile::tempdir().unwrap();
    let (elsewhere, _) = run(stranger.path(), options(), &[]);
    assert!(elsewhere.find(&session.id, HERE, &someone(1), Via::StreamableHttp).is_err());
    let off = SessionOptions { revival: false, ..options() };
    let (off, _) = run(dir.path(), off, &[]);
    assert!(off.find(&session.id, HERE, &someone(1), Via::StreamableHttp).is_err());
}

#[tokio::test]
async fn a_session_that_has_ended_is_not_revived_in_this_run_or_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (before, ended) = run(dir.path(), options(), &[]);
    let session = before.begin(HERE, someone(1), AGREED).unwrap();
    let find = |sessions: &Sessions| {
        sessions.find(&session.id, HERE, &someone(1), Via::StreamableHttp).is_ok()
    };
    assert!(find(&before));
    before.end(&session);
    assert!(!find(&before));
    let marks = ended.lock().unwrap().clone();
    assert_eq!(marks, [session.mark]);
    let (after, _) = run(dir.path(), options(), &marks);
    assert!(!find(&after));
    let (forgetful, _) = run(dir.path(), options(), &[]);
    assert!(find(&forgetful), "only the tombstone says so");
}

#[tokio::test]
async fn sessions_over_sse_and_ids_that_are_too_old_are_not_revived() {
    let dir = tempfile::tempdir().unwrap();
    let (before, _) = run(dir.path(), options(), &[]);
    let (by_sse, _stream) = before.begin_sse(HERE, someone(1)).unwrap();
    by_sse.agree_on(AGREED);
    let (after, _) = run(dir.path(), options(), &[]);
    for via in [Via::Sse, Via::StreamableHttp] {
        assert!(after.find(&by_sse.id, HERE, &someone(1), via).is_err(), "{via:?}");
    }

    let issued_ago = |seconds: i64| {
        let issued = OffsetDateTime::now_utc() - time::Duration::seconds(seconds);
        let (endpoint, via) = (HERE, Via::StreamableHttp);
        let principal = PrincipalDigest::of(&someone(1));
        let claims = Claims { principal, endpoint, via, agreed: Some(AGREED), issued };
        after.sealer.seal(&claims.to_bytes()).unwrap().text
    };
    let find = |id: &str| after.find(id, HERE, &someone(1), Via::StreamableHttp);
    assert!(find(&issued_ago(102)).is_err());
    assert!(find(&issued_ago(-60)).is_ok(), "the clock was set back");
    assert!(find(&issued_ago(-95)).is_err(), "it would outlive every restart");
    let old = find(&issued_ago(60)).unwrap();
    assert!(old.age(Instant::now()) >= Duration::from_secs(60), "its age goes on counting");
}

#[tokio::test]
async fn a_revived_session_keeps_to_the_limits() {
    let dir = tempfile::tempdir().unwrap();
    let (before, _) = run(dir.path(), options(), &[]);
    let begin = |number| before.begin(HERE, someone(number), AGREED).unwrap();
    let (first, second, third) = (begin(1), begin(2), begin(3));
    let tight = SessionOptions { total_max: 2, ..options() };
    let (after, _) = run(dir.path(), tight, &[]);
    let find =
        |session: &Session| after.find(&session.id, HERE, &session.principal, Via::StreamableHttp);
    assert!(find(&first).is_ok() && find(&second).is_ok());
    assert!(matches!(find(&third), Err(SessionError::TooMany)));
}

#[tokio::test]
async fn all_sessions_of_one_principal_share_what_they_may_have_under_way() {
    let (sessions, _) = sessions();
    let [one, two] = [1, 1].map(|key| sessions.begin(HERE, someone(key), AGREED).unwrap());
    let other = sessions.begin(HERE, someone(2), AGREED).unwrap();
    let mut calls: Vec<_> = [b"1", b"2"].iter().map(|id| one.begin(*id).unwrap()).collect();
    calls.extend([b"1", b"2"].iter().map(|id| two.begin(*id).unwrap()));
    assert_eq!(two.begin(b"3").err(), Some(TooMany::OfPrincipal(4)));
    assert!(other.begin(b"1").is_ok(), "somebody else has no less for it");
    calls.pop();
    assert!(two.begin(b"3").is_ok());
}

#[tokio::test]
async fn a_principal_has_so_many_streams_and_may_replace_each() {
    let (sessions, _) = sessions();
    let [one, two] = [1, 1].map(|key| sessions.begin(HERE, someone(key), AGREED).unwrap());
    one.open_stream();
    one.open_stream();
    assert_eq!(two.has_room_for_stream(), Err(TooMany::Streams(2)));
    assert_eq!(one.has_room_for_stream(), Ok(()), "it would replace one of its own");
    one.close_stream();
    assert_eq!(two.has_room_for_stream(), Ok(()));
}
