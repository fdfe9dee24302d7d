//! The fleet, with workers that do nothing but serve; time is virtual.

#![allow(clippy::unwrap_used)]

use std::{cell::Cell, rc::Rc};

use futures_util::FutureExt;
use tokio::time::sleep;

use super::*;
use crate::upstream::{
    Exit, Reason,
    actor::{Panic, Post},
    lifecycle::Patience,
    link::Link,
    outlook::Outlook,
    status::{ErrorStatus, StateWord},
    testing::{Deaf, calls, pipe, spec},
    worker::News,
};

const SECOND: Duration = Duration::from_secs(1);

fn patience() -> Patience {
    Patience {
        backoff_min: SECOND,
        backoff_max: SECOND,
        failures_burst: 9,
        burst_window: SECOND,
        failures_slow: 9,
        slow_window: SECOND,
        panics_burst: 2,
        failures_flapping: 5,
        probe_every: SECOND,
        probe_every_max: SECOND,
        steady_after: SECOND,
    }
}

fn fleet() -> (Addr<Fleet>, Roster, Rc<Cell<usize>>) {
    fleet_with(patience())
}

fn fleet_with(patience: Patience) -> (Addr<Fleet>, Roster, Rc<Cell<usize>>) {
    tokio::time::pause();
    let launches = Rc::new(Cell::new(0));
    let counter = launches.clone();
    let launch: Launch = Rc::new(move |post: Post| {
        counter.set(counter.get() + 1);
        async move {
            let (pipe, _) = pipe(1);
            let link = Link::Pipe(pipe);
            (post.tell)(News::Ready { link, version: "2025-11-25", instructions: None });
            post.stop.cancelled().await;
            Exit::of(Reason::Asked)
        }
        .boxed_local()
    });
    let roster = Roster::default();
    let patience = Arc::new(ArcSwap::from_pointee(patience));
    let fleet = Fleet::new(patience, calls(), launch, Arc::new(Deaf), roster.clone());
    (fleet.start(), roster, launches)
}

fn wanting(ids: &[u128]) -> Reconcile {
    let wanted = ids.iter().map(|id| spec(*id)).collect();
    Reconcile { wanted, remembered: HashMap::new(), tried_before: HashSet::new() }
}

#[actix::test]
async fn what_is_wanted_runs_and_what_is_not_does_not() {
    let (fleet, roster, launches) = fleet();
    fleet.send(wanting(&[1, 2])).await.unwrap();
    sleep(SECOND).await;
    let first = roster.load().get(&Uuid::from_u128(1)).cloned().unwrap();
    assert_eq!(first.runtime().state, StateWord::Ready);

    fleet.send(wanting(&[2, 3])).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(first.runtime().state, StateWord::Stopped);
    assert_eq!(roster.load().len(), 2);
    assert_eq!(launches.get(), 3, "the one that stayed was not touched");
}

#[actix::test]
async fn a_supervisor_that_panics_is_made_anew_and_its_upstream_is_ready_again() {
    let (fleet, roster, launches) = fleet();
    fleet.send(wanting(&[1])).await.unwrap();
    sleep(SECOND).await;
    let id = Uuid::from_u128(1);
    let doomed = fleet.send(AddressOf(id)).await.unwrap().unwrap();
    assert!(doomed.send(Panic).await.is_err());
    sleep(3 * SECOND).await;
    let board = roster.load().get(&id).cloned().unwrap();
    assert_eq!((board.runtime().state, launches.get()), (StateWord::Ready, 2));
    assert!(matches!(board.port.outlook(), Outlook::Up));
    assert_eq!(
        board.runtime().last_error.as_deref(),
        Some("panicked; the supervisor of this upstream panicked")
    );
}

#[actix::test]
async fn a_supervisor_that_panics_again_and_again_is_given_up_until_somebody_asks() {
    let long = 60 * SECOND;
    let patience =
        Patience { burst_window: long, steady_after: long, probe_every: long, ..patience() };
    let (fleet, roster, launches) = fleet_with(patience);
    fleet.send(wanting(&[1])).await.unwrap();
    let id = Uuid::from_u128(1);
    let board = roster.load().get(&id).cloned().unwrap();
    for _ in 0..3 {
        sleep(3 * SECOND).await;
        assert_eq!(board.runtime().state, StateWord::Ready);
        let doomed = fleet.send(AddressOf(id)).await.unwrap().unwrap();
        assert!(doomed.send(Panic).await.is_err());
    }
    sleep(3 * SECOND).await;
    let runtime = board.runtime();
    assert_eq!((runtime.state, launches.get()), (StateWord::Crashed, 3));
    assert_eq!(runtime.restarts, 2, "the count goes on");
    assert!(fleet.send(RestartOne(id)).await.unwrap());
    sleep(SECOND).await;
    assert_eq!((board.runtime().state, launches.get()), (StateWord::Ready, 4));
}

#[actix::test]
async fn a_change_that_a_supervisor_panics_over_holds_for_the_next_one() {
    let (fleet, roster, launches) = fleet();
    fleet.send(wanting(&[1])).await.unwrap();
    sleep(SECOND).await;
    let id = Uuid::from_u128(1);
    let doomed = fleet.send(AddressOf(id)).await.unwrap().unwrap();
    doomed.do_send(Panic);
    let mut off = wanting(&[1]);
    off.wanted[0].enabled = false;
    fleet.send(off).await.unwrap();
    sleep(3 * SECOND).await;
    let board = roster.load().get(&id).cloned().unwrap();
    assert!(!board.spec().enabled);
    assert_eq!((board.runtime().state, launches.get()), (StateWord::Disabled, 1));
}

/// Has a supervisor panic, and others behind it at the same moment are lost with it.
async fn kill(fleet: &Addr<Fleet>, id: Uuid) {
    let doomed = fleet.send(AddressOf(id)).await.unwrap().unwrap();
    assert!(doomed.send(Panic).await.is_err());
}

#[actix::test]
async fn a_restart_that_is_ordered_while_the_supervisor_is_dead_is_done_by_the_next_one() {
    let long = 60 * SECOND;
    let patience = Patience {
        burst_window: long,
        steady_after: long,
        probe_every: long,
        backoff_min: long,
        backoff_max: long,
        ..patience()
    };
    let (fleet, roster, launches) = fleet_with(patience);
    fleet.send(wanting(&[1])).await.unwrap();
    let id = Uuid::from_u128(1);
    let board = roster.load().get(&id).cloned().unwrap();
    // It would rest for up to a minute after each.
    for round in 1..=3 {
        sleep(SECOND).await;
        assert_eq!((board.runtime().state, launches.get()), (StateWord::Ready, round));
        if round == 2 {
            // One that is about to panic takes the order with it.
            fleet.send(AddressOf(id)).await.unwrap().unwrap().do_send(Panic);
        } else {
            kill(&fleet, id).await;
        }
        assert!(fleet.send(RestartOne(id)).await.unwrap());
    }
    sleep(SECOND).await;
    assert_eq!((board.runtime().state, launches.get()), (StateWord::Ready, 4));
    sleep(long).await;
    assert_eq!(launches.get(), 4, "each order is done once");
}

#[actix::test]
async fn what_was_changed_while_the_supervisor_was_dead_and_changed_back_is_as_it_was() {
    let (fleet, roster, launches) = fleet();
    fleet.send(wanting(&[1])).await.unwrap();
    sleep(SECOND).await;
    let id = Uuid::from_u128(1);
    kill(&fleet, id).await;
    let mut off = wanting(&[1]);
    off.wanted[0].enabled = false;
    fleet.send(off).await.unwrap();
    fleet.send(wanting(&[1])).await.unwrap();
    sleep(3 * SECOND).await;
    let board = roster.load().get(&id).cloned().unwrap();
    assert!(board.spec().enabled);
    assert_eq!((board.runtime().state, launches.get()), (StateWord::Ready, 2));
}

#[actix::test]
async fn a_supervisor_that_never_lives_has_its_upstream_crashed_until_it_does() {
    let long = 60 * SECOND;
    let patience =
        Patience { burst_window: long, steady_after: long, probe_every: long, ..patience() };
    let (fleet, roster, launches) = fleet_with(patience);
    fleet.send(wanting(&[1])).await.unwrap();
    sleep(SECOND).await;
    let id = Uuid::from_u128(1);
    let board = roster.load().get(&id).cloned().unwrap();
    // As one that panics before it has said a word, each time.
    let mut told = Vec::new();
    for _ in 0..40 {
        let living = fleet.send(AddressOf(id)).await.unwrap().unwrap();
        if living.connected() {
            living.do_send(Panic);
        }
        sleep(LOOK_EVERY).await;
        let runtime = board.runtime();
        told.push((runtime.state, runtime.error_status, runtime.since));
    }
    told.dedup();
    let (state, status, _) = told.last().unwrap();
    assert_eq!((*state, *status), (StateWord::Crashed, ErrorStatus::Crashed));
    assert_eq!(board.runtime().reason, Reason::Panicked);
    let crashed = told.iter().filter(|(state, ..)| *state == StateWord::Crashed).count();
    assert_eq!(crashed, 1, "{told:?}");
    assert!(launches.get() <= 3, "{told:?}");
    // It lives, and its probe is due.
    sleep(2 * long).await;
    assert_eq!(board.runtime().state, StateWord::Ready);
    assert_eq!(board.runtime().error_status, ErrorStatus::None);
}

#[actix::test]
async fn who_is_removed_while_its_supervisor_is_dead_has_come_to_rest() {
    let (fleet, roster, _) = fleet();
    fleet.send(wanting(&[1])).await.unwrap();
    sleep(SECOND).await;
    let id = Uuid::from_u128(1);
    let board = roster.load().get(&id).cloned().unwrap();
    kill(&fleet, id).await;
    fleet.send(wanting(&[])).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(board.runtime().state, StateWord::Stopped);
    assert!(matches!(board.port.outlook(), Outlook::Down(_)));
    assert!(board.at_rest().now_or_never().is_some());
}

#[actix::test]
async fn a_drain_ends_everything_and_starts_nothing_more() {
    let (fleet, roster, launches) = fleet();
    fleet.send(wanting(&[1, 2])).await.unwrap();
    sleep(SECOND).await;
    fleet.send(Drain).await.unwrap();
    fleet.send(wanting(&[1, 2, 3])).await.unwrap();
    sleep(3 * SECOND).await;
    assert!(roster.load().values().all(|board| board.runtime().state == StateWord::Stopped));
    assert_eq!(launches.get(), 2);
}
