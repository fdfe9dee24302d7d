//! The root supervisor: an actor for every upstream that is wanted, and a new one for any that
//! panicked.
//!
//! How one upstream is kept alive is its own actor's affair. `plan` decides what is to be done
//! here, and this actor does it.

pub mod deaths;
pub mod plan;

use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use actix::prelude::*;
use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::time::Instant;
use uuid::Uuid;

use crate::failpoint;
use crate::upstream::{
    Listener, UpstreamSpec,
    actor::{Launch, Reconfigure, Restart, SharedPatience, Start, Stop, Upstream},
    board::{Board, Remembered},
    brakes::Brakes,
    dice::Dice,
    port::CallOptions,
};
use deaths::Deaths;
use plan::{Step, plan};

/// How often it is looked for actors that panicked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Every upstream there is, for whoever wants to read it. A change publishes a new map.
pub type Roster = Arc<ArcSwap<HashMap<Uuid, Arc<Board>>>>;

pub struct Fleet {
    patience: SharedPatience,
    calls: CallOptions,
    /// Of all of them together.
    brakes: Brakes,
    launch: Launch,
    dice: Dice,
    listener: Arc<dyn Listener>,
    roster: Roster,
    running: HashMap<Uuid, Addr<Upstream>>,
    /// The last change that each was sent. An actor that panics takes what is in its mailbox with it.
    changed: HashMap<Uuid, UpstreamSpec>,
    /// Of those that panicked.
    deaths: HashMap<Uuid, Deaths>,
    is_draining: bool,
}

// === Messages ===

/// Makes what runs into what is wanted. `remembered` are the last good lists of those that have any;
/// for `tried_before` no first list waits, though they have none. Answers whether it was done: one that
/// panicked is to be given again, and finds what is done already.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct Reconcile {
    pub wanted: Vec<UpstreamSpec>,
    pub remembered: HashMap<Uuid, Remembered>,
    pub tried_before: HashSet<Uuid>,
}

/// The operator's restart of one upstream. Answers whether there is such a one.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct RestartOne(pub Uuid);

/// Stops everything, and answers when all has stopped.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

#[cfg(test)]
#[derive(Message)]
#[rtype(result = "Option<Addr<Upstream>>")]
pub struct AddressOf(pub Uuid);

// === The actor ===

impl Actor for Fleet {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_EVERY, |fleet, _| {
            // Nobody makes this actor anew, so it must not die.
            contained(|| fleet.replace_the_dead());
        });
    }
}

impl Handler<Reconcile> for Fleet {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, reconcile: Reconcile, _: &mut Self::Context) -> Self::Result {
        if self.is_draining {
            return Box::pin(async { true });
        }
        let changes = contained(|| self.reconcile(reconcile));
        // Who asked goes on when the new names and limits can be read from the boards.
        Box::pin(async move {
            let Some(changes) = changes else { return false };
            drop(join_all(changes).await);
            true
        })
    }
}

impl Handler<RestartOne> for Fleet {
    type Result = bool;

    fn handle(&mut self, RestartOne(id): RestartOne, _: &mut Self::Context) -> bool {
        let restarted = contained(|| {
            failpoint::pass("fleet-restart");
            let upstream = self.running.get(&id).filter(|_| !self.is_draining);
            let board = self.roster.load().get(&id).cloned();
            let Some((upstream, board)) = upstream.zip(board) else { return false };
            board.ask_restart();
            // Should it be dead, it is made anew by the next look, and finds the order on its board.
            self.deaths.entry(id).and_modify(Deaths::hurry);
            // An operator's orders are few, and each must arrive.
            upstream.do_send(Restart);
            true
        });
        restarted.unwrap_or(false)
    }
}

impl Handler<Drain> for Fleet {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        self.is_draining = true;
        // Those that are not told end when the daemon does, by their lifelines.
        let stops = contained(|| {
            failpoint::pass("fleet-drain");
            self.running.values().map(|upstream| upstream.send(Stop)).collect::<Vec<_>>()
        });
        Box::pin(async move { drop(join_all(stops.unwrap_or_default()).await) })
    }
}

#[cfg(test)]
impl Handler<AddressOf> for Fleet {
    type Result = Option<Addr<Upstream>>;

    fn handle(&mut self, AddressOf(id): AddressOf, _: &mut Self::Context) -> Self::Result {
        self.running.get(&id).cloned()
    }
}

// === What the handlers share ===

impl Fleet {
    pub fn new(
        patience: SharedPatience,
        calls: CallOptions,
        launch: Launch,
        listener: Arc<dyn Listener>,
        roster: Roster,
    ) -> Self {
        Self {
            patience,
            brakes: Brakes::new(&calls),
            calls,
            launch,
            dice: Dice::default(),
            listener,
            roster,
            running: HashMap::new(),
            changed: HashMap::new(),
            deaths: HashMap::new(),
            is_draining: false,
        }
    }

    /// The same with other dice, which a test may know beforehand.
    #[cfg(test)]
    pub fn with_dice(self, dice: Dice) -> Self {
        Self { dice, ..self }
    }

    /// The changes of upstreams that are to be waited for.
    fn reconcile(
        &mut self,
        Reconcile { wanted, mut remembered, tried_before }: Reconcile,
    ) -> Vec<Request<Upstream, Reconfigure>> {
        failpoint::pass("fleet");
        let mut changes = Vec::new();
        let boards = self.roster.load();
        // What was told last counts, though the one that was told may not have come to it: its successor will.
        let told = |id: &Uuid, board: &Board| match self.changed.get(id) {
            Some(spec) => spec.clone(),
            None => (*board.spec()).clone(),
        };
        let running = boards.iter().map(|(id, board)| (*id, told(id, board))).collect();
        for step in plan(wanted, &running) {
            match step {
                Step::Launch(spec) => {
                    let remembered = remembered.remove(&spec.id).unwrap_or_default();
                    let (calls, listener) = (self.calls.clone(), self.listener.clone());
                    let board = Board::new(spec, remembered, calls, &self.brakes, listener);
                    if tried_before.contains(&board.id) {
                        board.settle_all();
                    }
                    self.launch(Arc::new(board));
                }
                Step::Change(spec) => {
                    // What is changed may be what it dies of.
                    self.deaths.entry(spec.id).and_modify(Deaths::hurry);
                    let upstream = self.running.get(&spec.id);
                    changes.extend(upstream.map(|one| one.send(Reconfigure(spec.clone()))));
                    self.changed.insert(spec.id, spec);
                }
                Step::Remove(id) => self.remove(id),
            }
        }
        changes
    }

    fn supervisor(&self, board: Arc<Board>) -> Upstream {
        let (patience, launch) = (self.patience.clone(), self.launch.clone());
        Upstream::new(board, patience, launch, self.listener.clone()).with_dice(self.dice.clone())
    }

    fn launch(&mut self, board: Arc<Board>) {
        let upstream = self.supervisor(board.clone()).start();
        upstream.do_send(Start);
        self.running.insert(board.id, upstream);
        self.publish(|boards| drop(boards.insert(board.id, board)));
    }

    /// The actor's address lives until its worker has ended, and then no longer.
    fn remove(&mut self, id: Uuid) {
        let board = self.roster.load().get(&id).cloned();
        self.publish(|boards| drop(boards.remove(&id)));
        self.changed.remove(&id);
        self.deaths.remove(&id);
        let Some((upstream, board)) = self.running.remove(&id).zip(board) else { return };
        let successor = self.supervisor(board);
        actix::spawn(async move {
            if upstream.send(Stop).await.is_err() {
                tracing::warn!(%id, "the supervisor of a removed upstream had panicked");
                // Else its clients' own processes would never hear of it.
                contained(|| successor.bury());
            }
        });
    }

    /// actix does not restart an actor that panicked: its address is dead for good.
    fn replace_the_dead(&mut self) {
        failpoint::pass("fleet-look");
        if self.is_draining {
            return;
        }
        let dead: Vec<Uuid> =
            self.running.iter().filter(|(_, one)| !one.connected()).map(|(id, _)| *id).collect();
        for id in dead {
            let Some(board) = self.roster.load().get(&id).cloned() else { continue };
            // One that cannot even be mourned keeps no other from being made anew.
            contained(|| self.replace(id, board));
        }
    }

    fn replace(&mut self, id: Uuid, board: Arc<Board>) {
        let (now, patience) = (Instant::now(), self.patience.load());
        let deaths = self.deaths.entry(id).or_default();
        let is_news = deaths.notice(now, &patience);
        let is_due = deaths.is_due(now, &patience);
        if is_news {
            // How long it stays dead, operators and callers are to know from the first moment on.
            let successor = self.supervisor(board.clone());
            contained(|| successor.mourn());
        }
        if !is_due {
            return;
        }
        self.deaths.entry(id).or_default().revive(now);
        tracing::error!(server = %board.spec().name, "the supervisor of an upstream panicked; it is made anew");
        let upstream = self.supervisor(board).start();
        // To be told once more of what it knows already changes nothing.
        if let Some(spec) = self.changed.get(&id) {
            upstream.do_send(Reconfigure(spec.clone()));
        }
        self.running.insert(id, upstream);
    }

    fn publish(&self, change: impl FnOnce(&mut HashMap<Uuid, Arc<Board>>)) {
        let mut boards = HashMap::clone(&self.roster.load());
        change(&mut boards);
        self.roster.store(Arc::new(boards));
    }
}

/// What `work` answers, unless it panicked. What it has done by then is whole, or is done by the next turn.
fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

#[cfg(test)]
mod tests;
