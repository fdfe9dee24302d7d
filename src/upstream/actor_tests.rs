//! The supervisor, with workers that the test makes; time is virtual.

#![allow(clippy::unwrap_used)]

use std::{
    cell::{Cell, RefCell},
    sync::Mutex,
};

use futures_util::FutureExt;
use tokio::{sync::mpsc, time::sleep};
use uuid::Uuid;

use super::{super::board::Remembered, *};
use crate::{
    catalogue::{item::Item, kind::Kind},
    upstream::{
        exchange::SessionKey,
        link::Link,
        processes::Starter,
        spec::Transport,
        status::{ErrorStatus, Output, StateWord},
        testing::{calls, pipe, spec},
    },
    wire::capabilities::ClientCapabilities,
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

    fn wrote(&self, _: Uuid, _: &str, _: Output, _: &str) {}

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
    tokio::time::pause();
    let witness = Arc::new(Witness::default());
    let board = Arc::new(Board::new(spec(1), Remembered::default(), calls(), witness.clone()));
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
            let link = Link::Pipe(pipe(1).0);
            (post.tell)(News::Listed {
                kind: Kind::Tool,
                items: Arc::default(),
                dropped: Vec::new(),
            });
            (post.tell)(News::Ready { link, version: "2025-11-25", instructions: None });
            tokio::select! {
                () = post.stop.cancelled() => Exit::of(Reason::Asked),
                Some(exit) = end.recv() => exit,
            }
        }
        .boxed_local()
    });
    let patience = Arc::new(ArcSwap::from_pointee(patience()));
    let kept = patience.clone();
    let upstream = Upstream::new(board.clone(), patience, launch, witness.clone(), false).start();
    Stage { patience: kept, upstream, board, witness, launches, ends }
}

impl Stage {
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
