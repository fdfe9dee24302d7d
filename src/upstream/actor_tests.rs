//! The supervisor, with workers that the test makes; time is virtual.

#![allow(clippy::unwrap_used)]

use std::{
    cell::{Cell, RefCell},
    sync::Mutex,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use tokio::{sync::mpsc, time::sleep};
use uuid::Uuid;

use super::{super::board::Remembered, *};
use crate::{
    access::Principal,
    catalogue::{item::Item, kind::Kind},
    upstream::{
        CallError,
        exchange::SessionKey,
        link::{Caller, Link},
        pipe::Pipe,
        port::Step,
        processes::Starter,
        spec::{Transport, Upkeep},
        status::{CatalogueChange, ErrorStatus, Output, StateWord},
        testing::{brakes, calls, pipe, spec},
    },
    wire::{Frame, capabilities::ClientCapabilities},
};

const SECOND: Duration = Duration::from_secs(1);

fn patience() -> Patience {
    Patience {
        backoff_min: SECOND,
        backoff_max: 8 * SECOND,
        failures_burst: 3,
        burst_window: 60 * SECOND,
        failures_slow: 20,
        slow_window: 900 * SECOND,
        panics_burst: 2,
        failures_flapping: 5,
        probe_every: 60 * SECOND,
        probe_every_max: 300 * SECOND,
        steady_after: 600 * SECOND,
    }
}

#[derive(Default)]
struct Witness {
    seen: Mutex<Vec<(StateWord, ErrorStatus, Reason)>>,
}

impl Listener for Witness {
    fn moved(&self, transition: &Transition) {
        let seen = (transition.state, transition.error_status, transition.reason);
        self.seen.lock().unwrap().push(seen);
    }

    fn listed(&self, _: Uuid, _: Kind, _: &Arc<Vec<Item>>) {}
    fn instructed(&self, _: Uuid, _: Option<&str>) {}

    fn not_listed(&self, _: Uuid, _: &str, _: Kind, _: &str) {}

    fn changed(&self, _: &CatalogueChange) {}

    fn wrote(&self, _: Uuid, _: &str, _: Output, _: &dyn Fn() -> String) {}

    fn lost_process(&self, _: Uuid, _: &str, _: Reason, _: &str) {}
}

/// A supervisor whose first workers fail or panic at once, as told, and whose later ones serve.
struct Stage {
    upstream: Addr<Upstream>,
    board: Arc<Board>,
    patience: SharedPatience,
    witness: Arc<Witness>,
    launches: Rc<Cell<usize>>,
    ends: Rc<RefCell<Option<mpsc::Sender<Exit>>>>,
}

fn stage(fates: &'static [Reason]) -> Stage {
    stage_of(spec(1), Remembered::default(), fates)
}

fn stage_of(spec: UpstreamSpec, remembered: Remembered, fates: &'static [Reason]) -> Stage {
    tokio::time::pause();
    let witness = Arc::new(Witness::default());
    let board = Arc::new(Board::new(spec, remembered, calls(), &brakes(), witness.clone()));
    let launches = Rc::new(Cell::new(0));
    let ends = Rc::new(RefCell::new(None));
    let (counter, handle) = (launches.clone(), ends.clone());
    let launch: Launch = Rc::new(move |post: Post| {
        let fate = fates.get(counter.get()).copied();
        counter.set(counter.get() + 1);
        let (sender, mut end) = mpsc::channel(1);
        handle.replace(Some(sender));
        async move {
            match fate {
                Some(Reason::Panicked) => panic!("this worker was made to panic"),
                Some(reason) => return Exit::of(reason),
                None => {}
            }
            let (pipe, mut lines) = pipe(8);
            let link = Link::Pipe(pipe.clone());
            for kind in Kind::ALL {
                (post.tell)(News::Listed { kind, items: Arc::default(), dropped: Vec::new() });
            }
            (post.tell)(News::Ready { link, version: "2025-11-25", instructions: None });
            let serve = async {
                while let Some(line) = lines.recv().await {
                    answer(&pipe, line);
                }
            };
            let exit = tokio::select! {
                biased;
                () = post.stop.cancelled() => Exit::of(Reason::Asked),
                Some(exit) = end.recv() => exit,
                () = serve => Exit::of(Reason::StdinStalled),
            };
            let (server, detail) = ("u1".into(), None);
            pipe.close(CallError::Ended { server, reason: exit.reason, detail });
            exit
        }
        .boxed_local()
    });
    let patience = Arc::new(ArcSwap::from_pointee(patience()));
    let kept = patience.clone();
    let upstream = Upstream::new(board.clone(), patience, launch, witness.clone()).start();
    Stage { patience: kept, upstream, board, witness, launches, ends }
}

/// Answers a request as it came.
fn answer(pipe: &Arc<Pipe>, line: Bytes) {
    let request = Frame::parse(line, 32).unwrap();
    let id = String::from_utf8(request.id().unwrap().to_vec()).unwrap();
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
    drop(pipe.hear(Frame::parse(answer.into(), 32).unwrap()));
}

impl Stage {
    /// One call, from its sending to its outcome.
    async fn call(&self) -> Result<Bytes, CallError> {
        let session = Arc::from("s");
        let caller = Caller {
            session: &session,
            principal: &Principal::Anonymous,
            capabilities: ClientCapabilities::ALL,
            log_level: None,
        };
        let text = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#;
        let request = Frame::parse(text.into(), 32).unwrap();
        let cancel = CancellationToken::new();
        let mut conversation = self.board.port.call(request, Vec::new(), &caller, cancel).await?;
        match conversation.next().await {
            Step::End(outcome) => outcome,
            Step::Event(_) | Step::Asked(_) | Step::Said(_) => panic!("only an answer"),
        }
    }

    fn state(&self) -> StateWord {
        self.board.runtime().state
    }
}

#[actix::test]
async fn a_worker_that_panics_is_replaced_by_a_fresh_one_and_the_panic_is_named() {
    let stage = stage(&[Reason::Panicked]);
    stage.upstream.send(Start).await.unwrap();
    sleep(2 * SECOND).await;
    assert_eq!((stage.state(), stage.launches.get()), (StateWord::Ready, 2));
    use {ErrorStatus as E, StateWord as S};
    assert_eq!(
        *stage.witness.seen.lock().unwrap(),
        [
            (S::Starting, E::None, Reason::Started),
            (S::Backoff, E::Error, Reason::Panicked),
            (S::Starting, E::Error, Reason::Retry),
            (S::Ready, E::None, Reason::Ready),
        ]
    );
}

#[actix::test]
async fn an_upstream_that_keeps_failing_is_crashed_and_heals_by_its_probe() {
    let stage = stage(&[Reason::Exited; 4]);
    stage.upstream.send(Start).await.unwrap();
    sleep(20 * SECOND).await;
    assert_eq!(stage.state(), StateWord::Crashed);
    assert!(stage.board.is_settled(Kind::Tool));
    sleep(80 * SECOND).await;
    assert_eq!((stage.state(), stage.launches.get()), (StateWord::Ready, 5));
    assert_eq!(stage.board.runtime().last_error.as_deref(), Some("exited"));
}

#[actix::test]
async fn another_patience_holds_from_the_next_failure_on() {
    let stage = stage(&[Reason::Exited; 2]);
    stage.patience.store(Arc::new(patience().with_attempts(1)));
    stage.upstream.send(Start).await.unwrap();
    sleep(SECOND / 10).await;
    assert_eq!((stage.state(), stage.launches.get()), (StateWord::Crashed, 1));
}

#[actix::test]
async fn a_stop_ends_the_worker_and_is_answered_when_it_has_ended() {
    let stage = stage(&[]);
    stage.upstream.send(Start).await.unwrap();
    sleep(SECOND).await;
    stage.upstream.send(Stop).await.unwrap();
    assert_eq!(stage.state(), StateWord::Stopped);
    sleep(7_200 * SECOND).await;
    assert_eq!(stage.launches.get(), 1);
}

#[actix::test]
async fn processes_of_clients_outlive_a_crash_and_end_with_a_stop_that_waits_for_them() {
    let stage = stage(&[]);
    stage.upstream.send(Start).await.unwrap();
    sleep(SECOND).await;
    let (board, key) = (stage.board.clone(), SessionKey::Client("a".into()));
    let processes = &board.port.processes;
    let (patience, start) = (stage.patience.clone(), Box::new(|_| true));
    processes.admit(Starter { max: 1, patience, start });
    processes.begin(&"u".into(), &key, ClientCapabilities::ALL);
    let own = processes.known(&key).unwrap();

    let worker = stage.ends.borrow().clone().unwrap();
    worker.send(Exit::of(Reason::Exited)).await.unwrap();
    sleep(2 * SECOND).await;
    assert_eq!((stage.state(), stage.launches.get()), (StateWord::Ready, 2));
    assert!(!own.stop().is_cancelled());
    assert_eq!(board.runtime().session_processes.len(), 1);

    let stop = own.stop();
    let stopping = stage.upstream.send(Stop);
    tokio::pin!(stopping);
    assert!(tokio::time::timeout(60 * SECOND, &mut stopping).await.is_err());
    assert!(stop.is_cancelled());
    assert_eq!(stage.state(), StateWord::Stopped);
    processes.ended(&own, &Exit::of(Reason::Asked));
    stopping.await.unwrap();
}

#[actix::test]
async fn a_restart_replaces_the_worker_and_news_of_the_old_one_is_dropped() {
    let stage = stage(&[]);
    stage.upstream.send(Start).await.unwrap();
    sleep(SECOND).await;
    let old = stage.ends.borrow().clone().unwrap();
    stage.board.ask_restart();
    stage.upstream.send(Restart).await.unwrap();
    sleep(SECOND).await;
    assert_eq!((stage.state(), stage.launches.get()), (StateWord::Ready, 2));
    assert!(old.send(Exit::of(Reason::Killed)).await.is_err());
    assert_eq!(stage.board.runtime().restarts, 1);
}

#[actix::test]
async fn a_new_name_keeps_the_worker_and_a_new_command_replaces_it() {
    let stage = stage(&[]);
    stage.upstream.send(Start).await.unwrap();
    sleep(SECOND).await;
    let mut renamed = spec(1);
    renamed.name = "b".into();
    stage.upstream.send(Reconfigure(renamed.clone())).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(stage.launches.get(), 1);

    let (args, env) = (vec!["new".to_owned()], Default::default());
    renamed.transport = Transport::Stdio { command: "x".into(), args, env };
    stage.upstream.send(Reconfigure(renamed.clone())).await.unwrap();
    sleep(SECOND).await;
    assert_eq!((stage.state(), stage.launches.get()), (StateWord::Ready, 2));

    renamed.enabled = false;
    stage.upstream.send(Reconfigure(renamed.clone())).await.unwrap();
    sleep(SECOND).await;
    assert_eq!((stage.state(), stage.launches.get()), (StateWord::Disabled, 2));
    renamed.enabled = true;
    stage.upstream.send(Reconfigure(renamed)).await.unwrap();
    sleep(SECOND).await;
    assert_eq!((stage.state(), stage.launches.get()), (StateWord::Ready, 3));
}

// === Rest ===

fn resting_after(idle_stop: Duration, is_lazy: bool) -> UpstreamSpec {
    let upkeep = Upkeep { is_lazy, idle_stop: Some(idle_stop), ..Upkeep::default() };
    UpstreamSpec { upkeep, ..spec(1) }
}

fn known() -> Remembered {
    let mut remembered = Remembered::default();
    remembered.lists[Kind::Tool] = Some(Arc::default());
    remembered
}

#[actix::test]
async fn a_lazy_upstream_is_started_by_its_first_call_and_rests_again_when_none_comes() {
    let stage = stage_of(resting_after(10 * SECOND, true), known(), &[]);
    stage.upstream.send(Start).await.unwrap();
    sleep(60 * SECOND).await;
    assert_eq!((stage.state(), stage.launches.get()), (StateWord::Stopped, 0));
    assert!(stage.board.is_resting() && stage.board.is_settled(Kind::Prompt));

    stage.call().await.unwrap();
    assert_eq!((stage.state(), stage.launches.get()), (StateWord::Ready, 1));
    sleep(9 * SECOND).await;
    stage.call().await.unwrap();
    sleep(9 * SECOND).await;
    assert_eq!(stage.state(), StateWord::Ready, "it is counted from the last call");
    sleep(2 * SECOND).await;
    assert!(stage.board.is_resting());
    assert_eq!(stage.board.runtime().pid, None);
    stage.call().await.unwrap();
    assert_eq!(stage.launches.get(), 2);
    use {ErrorStatus as E, StateWord as S};
    assert_eq!(
        *stage.witness.seen.lock().unwrap(),
        [
            (S::Stopped, E::None, Reason::Idle),
            (S::Starting, E::None, Reason::Wanted),
            (S::Ready, E::None, Reason::Ready),
            (S::Stopped, E::None, Reason::Idle),
            (S::Starting, E::None, Reason::Wanted),
            (S::Ready, E::None, Reason::Ready),
        ]
    );
}

#[actix::test]
async fn a_lazy_upstream_whose_tools_are_unknown_is_started_once_to_list_them() {
    let stage = stage_of(resting_after(10 * SECOND, true), Remembered::default(), &[]);
    stage.upstream.send(Start).await.unwrap();
    sleep(SECOND).await;
    assert_eq!((stage.state(), stage.launches.get()), (StateWord::Ready, 1));
    sleep(20 * SECOND).await;
    assert!(stage.board.is_resting());
}

/// Calls come from everywhere while it goes to rest, and at the very moment of it.
#[actix::test]
async fn no_call_is_lost_to_a_rest() {
    let stage = stage_of(resting_after(SECOND, false), known(), &[]);
    stage.upstream.send(Start).await.unwrap();
    for round in 0..50 {
        let outcomes = join_all((0..3).map(|_| stage.call())).await;
        assert!(outcomes.iter().all(Result::is_ok), "{round}: {outcomes:?}");
        // Around the time that it may go to rest: just before, at it, and just after.
        sleep(SECOND + Duration::from_micros(500) * (round % 9) - Duration::from_millis(2)).await;
    }
    assert!(stage.launches.get() > 10, "it rested between them: {}", stage.launches.get());
}

#[actix::test]
async fn what_is_being_called_does_not_rest_however_long_that_takes() {
    let stage = stage_of(resting_after(SECOND, false), known(), &[]);
    stage.upstream.send(Start).await.unwrap();
    sleep(SECOND / 2).await;
    // A place that is held is a call that the server may be at work on.
    let session = Arc::from("s");
    stage.board.port.subscriptions.subscribe(
        &SessionKey::Shared,
        ClientCapabilities::ALL,
        "u:1",
        &session,
    );
    sleep(60 * SECOND).await;
    assert_eq!(stage.state(), StateWord::Ready, "a client waits to hear of a resource");
    stage.board.port.unsubscribe("u:1", &session);
    sleep(2 * SECOND).await;
    assert!(stage.board.is_resting());
}

#[actix::test]
async fn what_does_not_rest_any_more_is_started_and_what_begins_to_rest_does() {
    let stage = stage_of(resting_after(SECOND, true), known(), &[]);
    stage.upstream.send(Start).await.unwrap();
    sleep(SECOND).await;
    stage.upstream.send(Reconfigure(spec(1))).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(stage.state(), StateWord::Ready);
    sleep(60 * SECOND).await;
    stage.upstream.send(Reconfigure(resting_after(SECOND, false))).await.unwrap();
    sleep(2 * SECOND).await;
    assert!(stage.board.is_resting());
    stage.board.ask_restart();
    stage.upstream.send(Restart).await.unwrap();
    sleep(SECOND / 2).await;
    assert_eq!(stage.state(), StateWord::Ready);
    stage.upstream.send(Stop).await.unwrap();
    assert!(stage.call().await.is_err(), "no call starts what is stopping");
}

// === The first start ===

#[actix::test]
async fn a_first_start_that_may_fetch_its_program_is_given_the_time_for_it() {
    let upkeep = Upkeep { prefetch: Some(300 * SECOND), ..Upkeep::default() };
    let cold = UpstreamSpec { upkeep, ..spec(1) };
    let stage = stage_of(cold.clone(), Remembered::default(), &[Reason::Exited]);
    assert_eq!(stage.board.start_patience(), 300 * SECOND);
    stage.upstream.send(Start).await.unwrap();
    sleep(2 * SECOND).await;
    assert_eq!(stage.state(), StateWord::Ready);
    assert_eq!(stage.board.start_patience(), SECOND, "it is there now");

    let (args, env) = (vec!["new".to_owned()], Default::default());
    let transport = Transport::Stdio { command: "x".into(), args, env };
    stage.upstream.send(Reconfigure(UpstreamSpec { transport, ..cold })).await.unwrap();
    sleep(SECOND).await;
    let seen = stage.witness.seen.lock().unwrap().iter().map(|one| one.2).collect::<Vec<_>>();
    use Reason::*;
    assert_eq!(
        seen,
        [Prefetching, Exited, Prefetching, Ready, Asked, Prefetching, Ready],
        "another program may have to be fetched again"
    );
}

#[actix::test]
async fn a_start_that_had_its_time_to_fetch_gets_no_more_of_it() {
    let upkeep = Upkeep { prefetch: Some(300 * SECOND), ..Upkeep::default() };
    let fates = &[Reason::HandshakeTimeout];
    let stage = stage_of(UpstreamSpec { upkeep, ..spec(1) }, Remembered::default(), fates);
    stage.upstream.send(Start).await.unwrap();
    sleep(SECOND / 100).await;
    assert_eq!(stage.board.start_patience(), SECOND);
}

#[actix::test]
async fn what_an_edit_has_in_the_place_of_a_slow_start_has_all_its_time_to_be_fetched() {
    let upkeep = Upkeep { prefetch: Some(300 * SECOND), ..Upkeep::default() };
    let cold = UpstreamSpec { upkeep, ..spec(1) };
    let stage = stage_of(cold.clone(), Remembered::default(), &[]);
    stage.upstream.send(Start).await.unwrap();
    let (args, env) = (vec!["new".to_owned()], Default::default());
    let transport = Transport::Stdio { command: "x".into(), args, env };
    stage.upstream.do_send(Reconfigure(UpstreamSpec { transport, ..cold }));
    // The time of the one before was over at the same moment.
    stage.upstream.do_send(Ended { generation: 1, exit: Exit::of(Reason::HandshakeTimeout) });
    sleep(SECOND).await;
    let seen = stage.witness.seen.lock().unwrap().clone();
    let starts = seen.iter().filter(|(state, ..)| *state == StateWord::Starting);
    let starts: Vec<Reason> = starts.map(|(_, _, reason)| *reason).collect();
    assert_eq!(starts, [Reason::Prefetching; 2]);
}
