//! The processes of an upstream's clients, with a room that starts them played by the test; time is
//! virtual.

#![allow(clippy::unwrap_used)]

use std::{cell::RefCell, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::upstream::{
    berth::Phase,
    lifecycle::Patience,
    testing::{self, pipe},
};

const SECOND: Duration = Duration::from_secs(1);

/// What was started, in order, and what each that is ready is given to read.
struct Stage {
    processes: Arc<Processes>,
    started: Arc<Mutex<Vec<Arc<OwnProcess>>>>,
    read: RefCell<Vec<mpsc::Receiver<Bytes>>>,
}

type Found = Result<Arc<Pipe>, CallError>;

fn stage(max: usize) -> Stage {
    tokio::time::pause();
    stage_in_virtual_time(max)
}

fn stage_in_virtual_time(max: usize) -> Stage {
    let stage =
        Stage { processes: Arc::default(), started: Arc::default(), read: RefCell::default() };
    stage.admit(max);
    stage
}

impl Stage {
    fn admit(&self, max: usize) {
        let started = self.started.clone();
        let patience =
            Patience { backoff_min: 4 * SECOND, backoff_max: 60 * SECOND, ..testing::patience() };
        let patience = Arc::new(ArcSwap::from_pointee(patience));
        let start = Box::new(move |own| {
            started.lock().unwrap().push(own);
            true
        });
        self.processes.admit(Starter { max, patience, start });
    }

    /// A call of this client, which waits five seconds for what need not be waited for longer.
    fn call(&self, client: &str) -> JoinHandle<Found> {
        let (processes, key) = (self.processes.clone(), key(client));
        actix::spawn(async move {
            let deadline = Instant::now() + 5 * SECOND;
            processes.process(&"u".into(), &key, ClientCapabilities::ALL, deadline).await
        })
    }

    fn nth(&self, n: usize) -> Arc<OwnProcess> {
        self.started.lock().unwrap()[n].clone()
    }

    fn starts(&self) -> usize {
        self.started.lock().unwrap().len()
    }

    fn ready(&self, n: usize) -> Arc<Pipe> {
        let (pipe, lines) = pipe(8);
        self.read.borrow_mut().push(lines);
        self.nth(n).ready(pipe.clone());
        pipe
    }

    fn dies(&self, n: usize) {
        self.processes.ended(&self.nth(n), &Exit::of(Reason::Exited));
    }
}

fn key(client: &str) -> SessionKey {
    SessionKey::Client(client.into())
}

async fn a_moment() {
    sleep(Duration::from_millis(1)).await;
}

fn is_same(found: Found, pipe: &Arc<Pipe>) -> bool {
    Arc::ptr_eq(&found.unwrap(), pipe)
}

#[actix::test]
async fn each_client_has_its_own_and_all_its_calls_wait_for_the_same() {
    let stage = stage(8);
    let (a, also_a, b) = (stage.call("a"), stage.call("a"), stage.call("b"));
    // Longer than a call waits for anything but a start.
    sleep(60 * SECOND).await;
    assert_eq!(stage.starts(), 2);
    let (pipe_of_a, pipe_of_b) = (stage.ready(0), stage.ready(1));
    assert!(is_same(a.await.unwrap(), &pipe_of_a) && is_same(also_a.await.unwrap(), &pipe_of_a));
    assert!(is_same(b.await.unwrap(), &pipe_of_b));
    assert!(is_same(stage.call("b").await.unwrap(), &pipe_of_b));
    assert!(stage.processes.ready(&SessionKey::Shared).is_none());
    let states: Vec<_> = stage.processes.report().iter().map(|one| one.state).collect();
    assert_eq!((stage.starts(), &*states), (2, &[Phase::Ready; 2][..]));
}

#[actix::test]
async fn a_start_that_fails_fails_every_call_that_waited_once_and_is_rested_from() {
    let stage = stage(8);
    let calls = [stage.call("a"), stage.call("a")];
    a_moment().await;
    stage.dies(0);
    for call in calls {
        let error = call.await.unwrap().err().unwrap();
        assert!(matches!(error, CallError::NoProcess { reason: Reason::Exited, .. }), "{error}");
    }
    assert_eq!(stage.starts(), 1);
    // The first rest is four seconds at most, so a call sits it out.
    let later = stage.call("a");
    sleep(5 * SECOND).await;
    assert_eq!(stage.starts(), 2);
    let pipe = stage.ready(1);
    assert!(is_same(later.await.unwrap(), &pipe));
}

#[actix::test]
async fn a_process_that_keeps_crashing_is_not_started_for_every_call() {
    let stage = stage(8);
    // Ten minutes of a call a second, to a process that dies as soon as it is called.
    let mut died = 0;
    for _ in 0..600 {
        let call = stage.call("a");
        sleep(SECOND).await;
        while stage.starts() > died {
            stage.ready(died);
            a_moment().await;
            stage.dies(died);
            died += 1;
        }
        call.abort();
    }
    assert!((10..60).contains(&stage.starts()), "{} starts", stage.starts());
    // Nobody else rests for that.
    let other = stage.call("b");
    a_moment().await;
    let pipe = stage.ready(died);
    assert!(is_same(other.await.unwrap(), &pipe));
}

#[actix::test]
async fn there_are_no_more_than_there_may_be_and_a_place_is_free_when_nothing_is_left() {
    let stage = stage(1);
    let first = stage.call("a");
    a_moment().await;
    stage.ready(0);
    assert!(first.await.unwrap().is_ok());
    let refused = || stage.call("b");
    assert_eq!(
        refused().await.unwrap().err(),
        Some(CallError::Full { server: "u".into(), max: 1 })
    );
    let stop = stage.nth(0).stop();
    stage.processes.forget(&key("a"));
    assert!(stop.is_cancelled());
    assert_eq!(stage.processes.report()[0].state, Phase::Ending);
    assert!(refused().await.unwrap().is_err(), "it is not gone yet");
    stage.processes.ended(&stage.nth(0), &Exit::of(Reason::Asked));
    assert!(stage.processes.report().is_empty());
    let second = stage.call("b");
    a_moment().await;
    let pipe = stage.ready(1);
    assert!(is_same(second.await.unwrap(), &pipe));
}

#[actix::test]
async fn who_stops_the_upstream_ends_all_and_none_is_started_before_it_is_back() {
    tokio::time::pause();
    for event in [Event::StopRequested, Event::DisableRequested, Event::RestartRequested] {
        let stage = stage_in_virtual_time(8);
        let calls = [stage.call("a"), stage.call("b")];
        a_moment().await;
        stage.ready(0);
        a_moment().await;
        let stops = [stage.nth(0).stop(), stage.nth(1).stop()];
        // What happens to the upstream's own process is none of theirs.
        stage.processes.notice(&Event::WorkerEnded(Reason::Exited));
        stage.processes.notice(&Event::TimeCame);
        assert!(stops.iter().all(|stop| !stop.is_cancelled()));
        stage.processes.notice(&event);
        assert!(stops.iter().all(CancellationToken::is_cancelled), "{event:?}");
        let at_rest = stage.processes.at_rest();
        tokio::pin!(at_rest);
        assert!(futures_util::poll!(&mut at_rest).is_pending());
        stage.dies(0);
        stage.processes.ended(&stage.nth(1), &Exit::of(Reason::Asked));
        at_rest.await;
        let [first, second] = calls;
        assert!(first.await.unwrap().is_ok(), "it was ready before");
        let not_sent = CallError::NotSent { server: "u".into(), detail: None };
        assert_eq!(second.await.unwrap().err(), Some(not_sent.clone()));
        assert_eq!(stage.call("a").await.unwrap().err(), Some(not_sent));
        stage.admit(8);
        let again = stage.call("a");
        a_moment().await;
        let pipe = stage.ready(2);
        assert!(is_same(again.await.unwrap(), &pipe));
    }
}

#[actix::test]
async fn the_next_of_a_key_waits_until_nothing_is_left_of_the_one_before() {
    let stage = stage(8);
    let first = stage.call("a");
    a_moment().await;
    stage.ready(0);
    assert!(first.await.unwrap().is_ok());
    sleep(300 * SECOND).await;
    assert!(!stage.nth(0).end_if_idle(301 * SECOND) && stage.nth(0).end_if_idle(300 * SECOND));
    let next = stage.call("a");
    a_moment().await;
    assert_eq!(stage.starts(), 1);
    stage.processes.ended(&stage.nth(0), &Exit::of(Reason::Asked));
    a_moment().await;
    assert_eq!(stage.starts(), 2);
    let pipe = stage.ready(1);
    assert!(is_same(next.await.unwrap(), &pipe));
    // One that will not go is not waited for for ever.
    sleep(300 * SECOND).await;
    assert!(stage.nth(1).end_if_idle(SECOND));
    assert!(matches!(stage.call("a").await.unwrap(), Err(CallError::NoProcess { .. })));
}
