//! One question to one client, whatever becomes of either.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use tokio::time::Instant;
use uuid::Uuid;

use super::*;
use crate::{
    access::Principal,
    identity::vault::Vault,
    session::{self, Agreed, ReplayOptions, SessionOptions, Sessions},
    wire::capabilities::ClientCapabilities,
};

const MINUTE: Duration = Duration::from_secs(60);

struct Scene {
    sessions: Sessions,
    session: Arc<Session>,
    /// What the upstream was told.
    told: Arc<Mutex<Vec<String>>>,
    withdrawn: Arc<CancellationToken>,
    abandoned: CancellationToken,
}

fn scene(capabilities: ClientCapabilities) -> Scene {
    let options = SessionOptions {
        idle: MINUTE,
        lifetime: MINUTE,
        per_principal_max: 9,
        total_max: 9,
        in_flight_max: 9,
        in_flight_per_principal_max: 99,
        streams_per_principal_max: 99,
        subscriptions_max: 4,
        heartbeat: MINUTE,
        stream_buffer: 9,
        stream_bytes_max: 9_999,
        questions_max: 1,
        question_timeout: MINUTE,
        away_max: MINUTE / 2,
        revival: false,
        tombstones_max: 1,
        ahead_max: Duration::from_secs(60),
        batch_max: 1,
        replay: ReplayOptions {
            events_max: 9,
            streams_max: 9,
            bytes_max: 9_999,
            total_bytes_max: 9_999,
            window: MINUTE,
            retry: MINUTE,
            retry_spread: Duration::ZERO,
        },
    };
    let vault = Vault::open(tempfile::tempdir().unwrap().path()).unwrap();
    let sealer = vault.sealer(session::PURPOSE).unwrap();
    let sessions = Sessions::new(options, sealer, [], Box::new(|_| {}));
    let agreed = Agreed { version: "2025-11-25", capabilities, profile: Default::default() };
    let session = sessions.begin(Uuid::nil(), Principal::Anonymous, agreed).unwrap();
    let (told, withdrawn, abandoned) = (Arc::default(), Arc::default(), CancellationToken::new());
    Scene { sessions, session, told, withdrawn, abandoned }
}

fn frame(text: &str) -> Frame {
    Frame::parse(Bytes::copy_from_slice(text.as_bytes()), 16).unwrap()
}

impl Scene {
    fn ask(&self) -> Option<Asking> {
        let frame =
            frame(r#"{"jsonrpc":"2.0","id":"u","method":"elicitation/create","params":{}}"#);
        let told = self.told.clone();
        let say = Box::new(move |bytes: Bytes| {
            told.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
        });
        let question = Question::new(frame, say, self.withdrawn.clone());
        ask(&self.session, question, MINUTE, self.abandoned.clone())
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

const CANCELLED: &str = r#"{"jsonrpc":"2.0","id":"u","result":{"action":"cancel"}}"#;

fn takes_back(said: Option<Bytes>) -> bool {
    said.is_some_and(|said| Frame::parse(said, 16).unwrap().request_id() == Some(b"1"))
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_the_question_and_frees_its_place() {
    let scene = scene(ClientCapabilities::ALL);
    let Asking { request, outcome, .. } = scene.ask().unwrap();
    assert_eq!(request, r#"{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{}}"#);
    assert!(scene.ask().is_none(), "it is asked as much as it may be");
    assert!(scene.told()[0].contains("-32603"), "which the other upstream hears at once");
    scene
        .session
        .questions
        .answer(frame(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}"#));
    assert!(outcome.await.is_none());
    assert_eq!(scene.told()[1], r#"{"jsonrpc":"2.0","id":"u","error":{"code":-1,"message":"no"}}"#);
    assert_eq!(scene.session.questions.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cannot_be_asked_is_not_and_its_upstream_hears_so() {
    let scene = scene(ClientCapabilities::default());
    assert!(scene.ask().is_none());
    assert!(scene.told()[0].contains("-32601"), "{:?}", scene.told());
}

#[tokio::test(start_paused = true)]
async fn silence_the_end_of_the_call_and_the_end_of_the_session_are_each_an_outcome() {
    let late = scene(ClientCapabilities::ALL);
    let asking = late.ask().unwrap();
    assert!(takes_back(asking.outcome.await), "the client is told that it is too late");
    assert_eq!(late.told(), [CANCELLED]);

    let given_up = scene(ClientCapabilities::ALL);
    let asking = given_up.ask().unwrap();
    given_up.abandoned.cancel();
    assert!(takes_back(asking.outcome.await));
    assert_eq!(given_up.told(), [CANCELLED]);

    let gone = scene(ClientCapabilities::ALL);
    let asking = gone.ask().unwrap();
    gone.sessions.end(&gone.session);
    assert!(asking.outcome.await.is_none());
    assert_eq!(gone.told(), [CANCELLED]);

    let dropped = scene(ClientCapabilities::ALL);
    drop(dropped.ask().unwrap());
    assert_eq!(dropped.told(), [CANCELLED]);
    assert_eq!(dropped.session.questions.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_by_a_sessions_own_stream_waits_for_a_reader_and_not_for_ever() {
    let deserted = scene(ClientCapabilities::ALL);
    let began = Instant::now();
    let asking = deserted.ask().unwrap();
    assert!(while_there_is_a_stream(deserted.session.clone(), asking).await.is_none());
    assert_eq!(deserted.told(), [CANCELLED]);
    assert_eq!(began.elapsed(), deserted.sessions.options.away_max);

    let read = scene(ClientCapabilities::ALL);
    let _reader = read.session.listen(None).unwrap();
    let asking = read.ask().unwrap();
    let seeing = while_there_is_a_stream(read.session.clone(), asking);
    assert!(takes_back(seeing.await), "it had all the time there was");
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_too_late_sees_nothing_of_a_question_or_that_it_was_taken_back() {
    async fn all_that_is_read(session: &Arc<Session>, after: Option<&str>) -> Vec<String> {
        let mut reader = session.listen(after).unwrap();
        let mut read = Vec::new();
        while let Some(Some(event)) = reader.next().now_or_never() {
            read.push(String::from_utf8(event.to_vec()).unwrap());
        }
        read
    }

    let unseen = scene(ClientCapabilities::ALL);
    let asking = unseen.ask().unwrap();
    assert!(unseen.session.push(asking.request.clone()));
    while_there_is_a_stream(unseen.session.clone(), asking).await;
    assert_eq!(all_that_is_read(&unseen.session, None).await, [""; 0]);

    let seen = scene(ClientCapabilities::ALL);
    let asking = seen.ask().unwrap();
    assert!(seen.session.push(asking.request.clone()));
    let question = all_that_is_read(&seen.session, None).await;
    while_there_is_a_stream(seen.session.clone(), asking).await;
    assert_eq!(seen.told(), [CANCELLED]);
    let rest = all_that_is_read(&seen.session, None).await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert!(rest[0].contains("notifications/cancelled") && rest[0].contains(r#""requestId":1"#));
    // Who did not get it, and asks for it again, gets both.
    let id = question[0].lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let before = id.rsplit_once('-').map(|(stream, _)| format!("{stream}-0")).unwrap();
    let both = [question, rest].concat();
    assert_eq!(all_that_is_read(&seen.session, Some(&before)).await, both);
}

#[tokio::test(start_paused = true)]
async fn what_did_not_reach_the_client_is_answered_for() {
    let scene = scene(ClientCapabilities::ALL);
    let Asking { request, outcome, .. } = scene.ask().unwrap();
    scene.session.questions.lose(&Frame::parse(request, 16).unwrap());
    assert!(outcome.await.is_none());
    assert_eq!(scene.told(), [CANCELLED]);
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_takes_back_the_client_need_not_answer() {
    let scene = scene(ClientCapabilities::ALL);
    let asking = scene.ask().unwrap();
    scene.withdrawn.cancel();
    assert!(takes_back(asking.outcome.await));
    assert!(scene.told().is_empty());
}

#[test]
fn a_client_gets_the_log_messages_that_it_asked_for() {
    let scene = scene(ClientCapabilities::ALL);
    let message = |level: &str| {
        frame(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":1}}}}"#
        ))
    };
    assert!(is_wanted(&scene.session, &message("debug")), "it has not said what it wants");
    scene.session.set_log_level(Level::Warning);
    for (level, wanted) in
        [("debug", false), ("notice", false), ("warning", true), ("alert", true), ("odd", true)]
    {
        assert_eq!(is_wanted(&scene.session, &message(level)), wanted, "{level}");
    }
    let other = frame(r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"level":"debug"}}"#);
    assert!(is_wanted(&scene.session, &other));
}
