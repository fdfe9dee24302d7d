//! Whose connection a caller goes by, before processes that are played by the test; time is virtual.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;
use crate::{
    access::Principal,
    upstream::{
        Exit, Isolation, Reason,
        concern::Known,
        dialogue::{Dialogue, Scope},
        outlook::{Absence, Outlook},
        own_process::OwnProcess,
        pipe::Pipe,
        port::Step,
        processes::Starter,
        spec::CallLimits,
        status::StateWord,
        task_talk::TaskTalk,
        tasks::Owner,
        testing,
    },
    wire::{Frame, capabilities::ClientCapabilities},
};

/// A key of this number, owned by this user.
fn key(number: u128, user: Option<&str>) -> Principal {
    Principal::Key { uuid: Uuid::from_u128(number), user_id: user.map(str::to_owned) }
}

#[test]
fn a_process_is_one_sessions_or_one_users_as_the_upstream_is_shared() {
    let mary = |number| key(number, Some("mary"));
    for (isolation, one, other, is_same) in [
        (Isolation::Shared, ("s", mary(1)), ("t", key(2, None)), true),
        (Isolation::Session, ("s", mary(1)), ("s", mary(1)), true),
        (Isolation::Session, ("s", mary(1)), ("t", mary(1)), false),
        // Two keys of one user, two sessions of one key, and what looks like another's name.
        (Isolation::User, ("s", mary(1)), ("t", mary(2)), true),
        (Isolation::User, ("s", key(1, None)), ("t", key(1, None)), true),
        (Isolation::User, ("s", key(1, None)), ("t", key(2, None)), false),
        (Isolation::User, ("s", mary(1)), ("t", key(2, Some("ann"))), false),
        (Isolation::User, ("s", mary(1)), ("t", key(1, None)), false),
        (Isolation::User, ("s", key(1, None)), ("t", Principal::Anonymous), false),
    ] {
        let key = |session: &str, principal: &Principal| {
            let session = Arc::from(session);
            let capabilities = ClientCapabilities::ALL;
            let caller = Caller { session: &session, principal, capabilities, log_level: None };
            caller.key(isolation)
        };
        let (one, other) = (key(one.0, &one.1), key(other.0, &other.1));
        assert_eq!(one == other, is_same, "{isolation:?} {one:?} {other:?}");
    }
}

/// What each process is given to read, in the order of their starts.
type Started = Arc<Mutex<Vec<(Arc<Pipe>, mpsc::Receiver<Bytes>)>>>;

/// A port whose clients have processes of their own, which are ready as soon as they are started.
fn port() -> (Arc<Port>, Started) {
    let spec = testing::spec(1);
    let limits = CallLimits { ..spec.limits };
    let facts = Facts {
        name: "a".into(),
        isolation: Isolation::Session,
        limits,
        concurrency_max: None,
        admin: "".into(),
    };
    let port = Port::new(spec.id, facts, testing::calls(), &testing::brakes());
    let started = Started::default();
    let (all, tasks) = (started.clone(), port.tasks.clone());
    let patience = Arc::new(ArcSwap::from_pointee(testing::patience()));
    let start = Box::new(move |own: Arc<OwnProcess>| {
        let talk = TaskTalk::new(tasks.clone(), own.key.clone(), Uuid::now_v7());
        let dialogue = Dialogue::new(Scope::Gateway, testing::calls().dialogue()).with_tasks(talk);
        let (pipe, lines) = Pipe::new("test".into(), 8, Arc::new(dialogue));
        own.ready(pipe.clone());
        all.lock().unwrap().push((pipe, lines));
        true
    });
    port.processes.admit(Starter { max: 8, patience, start });
    port.open(Link::Pipe(testing::pipe(8).0));
    (port, started)
}

async fn call(port: &Port, session: &str) -> Result<Bytes, CallError> {
    let session = Arc::from(session);
    let caller = Caller {
        session: &session,
        principal: &Principal::Anonymous,
        capabilities: ClientCapabilities::ALL,
        log_level: None,
    };
    let request = br#"{"jsonrpc":"2.0","id":"same","method":"tools/call","params":{"name":"t"}}"#;
    let frame = Frame::parse(Bytes::from_static(request), 16).unwrap();
    let mut conversation = port.call(frame, Vec::new(), &caller, CancellationToken::new()).await?;
    let Step::End(outcome) = conversation.next().await else { panic!("an event") };
    outcome
}

fn answers(pipe: &Arc<Pipe>, said: &str) {
    let answer = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"said":"{said}"}}}}"#);
    drop(pipe.hear(Frame::parse(answer.into(), 16).unwrap()));
}

#[actix::test]
async fn the_same_id_of_two_clients_goes_to_two_processes_and_comes_back_to_each() {
    tokio::time::pause();
    let (port, started) = port();
    let answering = async {
        tokio::task::yield_now().await;
        let started = started.lock().unwrap();
        answers(&started[1].0, "of b");
        answers(&started[0].0, "of a");
    };
    let (a, b, ()) = tokio::join!(call(&port, "a"), call(&port, "b"), answering);
    assert_eq!(a.unwrap(), r#"{"jsonrpc":"2.0","id":"same","result":{"said":"of a"}}"#);
    assert_eq!(b.unwrap(), r#"{"jsonrpc":"2.0","id":"same","result":{"said":"of b"}}"#);
}

#[actix::test]
async fn who_has_a_process_is_served_while_the_upstreams_own_is_down_and_who_has_none_is_not() {
    tokio::time::pause();
    let (port, started) = port();
    let answering = async {
        tokio::task::yield_now().await;
        answers(&started.lock().unwrap()[0].0, "first");
    };
    tokio::join!(call(&port, "a"), answering).0.unwrap();
    let absence = Absence {
        state: StateWord::Crashed,
        reason: Reason::Exited,
        detail: None,
        failed_by: None,
    };
    port.close(Outlook::Down(absence));
    let answering = async {
        tokio::task::yield_now().await;
        let answer = Bytes::from_static(br#"{"jsonrpc":"2.0","id":2,"result":{"said":"second"}}"#);
        drop(started.lock().unwrap()[0].0.hear(Frame::parse(answer, 16).unwrap()));
    };
    tokio::join!(call(&port, "a"), answering).0.unwrap();
    assert!(matches!(call(&port, "b").await, Err(CallError::Unavailable { .. })));
    assert_eq!(started.lock().unwrap().len(), 1);
}

#[actix::test]
async fn a_call_that_finds_its_process_closed_is_sent_to_the_next_and_only_there() {
    tokio::time::pause();
    let (port, started) = port();
    let answering = async {
        tokio::task::yield_now().await;
        answers(&started.lock().unwrap()[0].0, "first");
    };
    tokio::join!(call(&port, "a"), answering).0.unwrap();
    let own = port.processes.known(&SessionKey::Client("a".into())).unwrap();
    let ended = CallError::Ended { server: "a".into(), reason: Reason::Exited, detail: None };
    started.lock().unwrap()[0].0.close(ended);
    let ending = async {
        // Until it is known that it has ended, and until its rest is over.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        port.processes.ended(&own, &Exit::of(Reason::Exited));
        while started.lock().unwrap().len() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        answers(&started.lock().unwrap()[1].0, "second");
    };
    let (answer, ()) = tokio::join!(call(&port, "a"), ending);
    assert_eq!(answer.unwrap(), r#"{"jsonrpc":"2.0","id":"same","result":{"said":"second"}}"#);
    let mut started = started.lock().unwrap();
    let read =
        |lines: &mut mpsc::Receiver<Bytes>| std::iter::from_fn(|| lines.try_recv().ok()).count();
    assert_eq!((read(&mut started[0].1), read(&mut started[1].1)), (1, 1));
}

#[actix::test]
async fn a_task_is_found_in_the_process_that_it_was_made_in_by_any_session_of_its_owner() {
    tokio::time::pause();
    let (port, started) = port();
    let answering = async {
        tokio::task::yield_now().await;
        answers(&started.lock().unwrap()[0].0, "first");
    };
    tokio::join!(call(&port, "a"), answering).0.unwrap();
    let life = started.lock().unwrap()[0].0.life();
    let made_in = SessionKey::Client("a".into());
    let owner = Owner { principal: Principal::Anonymous, endpoint: Uuid::nil() };
    let known = Known { shown: Some("shown".into()), theirs: "theirs".into() };
    assert!(port.tasks.adopt(&made_in, &known, &owner, &"a".into()));
    let found_by = |session: &str| {
        let session = Arc::from(session);
        let capabilities = ClientCapabilities::ALL;
        let principal = &Principal::Anonymous;
        let caller = Caller { session: &session, principal, capabilities, log_level: None };
        port.session_of_task(&known, life, &owner, &caller)
    };
    assert_eq!(found_by("a"), Some(made_in.clone()));
    assert_eq!(found_by("b"), Some(made_in.clone()), "another session of its owner");
    port.forget(&"a".into());
    assert_eq!((found_by("a"), found_by("b")), (None, None), "it has ended with its process");
    assert_eq!(started.lock().unwrap().len(), 1, "nothing is started for who asks");
}
