//! Keeps one upstream alive, by doing whatever its [`Lifecycle`] asks.
//!
//! The worker is a task we join rather than an actor we address: a joined task reports its panics,
//! while an actix actor that panics only disappears. No rule of supervision belongs in this file.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix::prelude::*;
use arc_swap::ArcSwap;
use futures_util::future::LocalBoxFuture;
use time::OffsetDateTime;
use tokio::{
    task::{AbortHandle, JoinError},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Exit, Listener, Reason, UpstreamSpec,
    board::{Board, Supervised},
    dice::Dice,
    lifecycle::{Action, Event, Lifecycle, Patience, State},
    outlook::outlook,
    status::{Runtime, Transition},
    worker::News,
};
use crate::failpoint;

/// Makes a fresh worker for each start, so that a restart never inherits a broken state.
pub type Launch = Rc<dyn Fn(Post) -> LocalBoxFuture<'static, Exit>>;

/// How patient we are with those that fail, which may change while they run.
pub type SharedPatience = Arc<ArcSwap<Patience>>;

/// What a worker is given.
pub struct Post {
    pub board: Arc<Board>,
    pub generation: u64,
    pub tell: Box<dyn Fn(News)>,
    /// Cancelled when it is to end.
    pub stop: CancellationToken,
}

pub struct Upstream {
    pub(super) board: Arc<Board>,
    patience: SharedPatience,
    launch: Launch,
    dice: Dice,
    pub(super) listener: Arc<dyn Listener>,
    pub(super) lifecycle: Lifecycle,
    /// Counts workers. News of an earlier one is out of date and is dropped.
    generation: u64,
    worker: Option<Worker>,
    reminder: Option<SpawnHandle>,
    /// When it is looked next whether it may rest.
    pub(super) rest_look: Option<SpawnHandle>,
    /// What the clock of the lifecycle counts from.
    epoch: Instant,
}

/// Ends its task with itself, should the actor panic.
struct Worker {
    stop: CancellationToken,
    task: AbortHandle,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === Messages ===

/// Begins its life, or goes on after a stop.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Start;

/// Ends the worker, and answers when it has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop;

/// The operator's wish, where it is noted on the board: what was counted is forgiven, and it starts now.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Restart;

/// The row has changed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reconfigure(pub UpstreamSpec);

/// Told by a worker to its own supervisor.
#[derive(Message)]
#[rtype(result = "()")]
struct Heard {
    generation: u64,
    news: News,
}

/// Told by the end of a worker's task.
#[derive(Message)]
#[rtype(result = "()")]
struct Ended {
    generation: u64,
    exit: Exit,
}

/// A reminder has come due.
#[derive(Message)]
#[rtype(result = "()")]
struct TimeCame;

/// Makes the actor panic, as a defect of ours would.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub struct Panic;

// === The actor ===

impl Actor for Upstream {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        failpoint::pass("upstream-begins");
        self.heed_calls(ctx);
        // The reminder of one that panicked went with it.
        if let Some(until) = self.lifecycle.next_attempt() {
            self.remind(until.saturating_sub(self.epoch.elapsed()), ctx);
        }
        self.restart_if_asked(ctx);
    }
}

impl Handler<Start> for Upstream {
    type Result = ();

    fn handle(&mut self, _: Start, ctx: &mut Self::Context) {
        failpoint::pass("upstream-start");
        if self.board.spec().enabled {
            self.begin(Reason::Started, ctx);
        }
    }
}

impl Handler<Stop> for Upstream {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) -> Self::Result {
        failpoint::pass("upstream-stop");
        self.step(Event::StopRequested, Exit::of(Reason::Stopping), ctx);
        let board = self.board.clone();
        Box::pin(async move { board.at_rest().await })
    }
}

impl Handler<Restart> for Upstream {
    type Result = ();

    fn handle(&mut self, _: Restart, ctx: &mut Self::Context) {
        failpoint::pass("upstream-restart");
        self.restart_if_asked(ctx);
    }
}

impl Handler<Reconfigure> for Upstream {
    type Result = ();

    fn handle(&mut self, Reconfigure(new): Reconfigure, ctx: &mut Self::Context) {
        failpoint::pass("upstream-change");
        let old = self.board.spec();
        self.board.set_spec(new.clone());
        match (old.enabled, new.enabled) {
            (true, false) => {
                self.step(Event::DisableRequested, Exit::of(Reason::Disabled), ctx);
            }
            (false, true) => self.begin(Reason::Asked, ctx),
            (true, true) if old.needs_restart_for(&new) => {
                self.step(Event::RestartRequested, Exit::of(Reason::Asked), ctx);
            }
            (true, true) => {
                if self.lifecycle.state == State::Idle
                    && !new.upkeep.is_lazy
                    && new.upkeep.idle_stop.is_none()
                {
                    self.begin(Reason::Asked, ctx);
                }
                self.watch_for_rest(ctx);
            }
            (false, false) => {}
        }
    }
}

impl Handler<Heard> for Upstream {
    type Result = ();

    fn handle(&mut self, Heard { generation, news }: Heard, ctx: &mut Self::Context) {
        failpoint::pass("upstream-news");
        if generation == self.generation {
            self.hear(news, ctx);
        }
    }
}

impl Handler<Ended> for Upstream {
    type Result = ();

    fn handle(&mut self, Ended { generation, exit }: Ended, ctx: &mut Self::Context) {
        failpoint::pass("upstream-end");
        if generation == self.generation {
            self.worker = None;
            self.board.set_working(false);
            let is_starting = matches!(self.lifecycle.state, State::Starting { .. });
            // One that is being ended may not be what would be fetched now.
            if is_starting && exit.reason == Reason::HandshakeTimeout {
                self.board.set_is_fetched(true);
            }
            let rest = self.board.port.breaker.throttled_for();
            let event = match exit.reason {
                Reason::Throttled => Event::WorkerThrottled(rest.unwrap_or_default()),
                reason => Event::WorkerEnded(reason),
            };
            self.step(event, exit, ctx);
        }
    }
}

impl Handler<TimeCame> for Upstream {
    type Result = ();

    fn handle(&mut self, _: TimeCame, ctx: &mut Self::Context) {
        failpoint::pass("upstream-time");
        self.step(Event::TimeCame, Exit::of(Reason::Retry), ctx);
    }
}

#[cfg(test)]
impl Handler<Panic> for Upstream {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        // As `panic!` does, without a backtrace on stderr.
        std::panic::resume_unwind(Box::new("as the test asked"));
    }
}

// === What the handlers share ===

impl Upstream {
    /// Goes on from where an earlier one of this board has left it.
    pub fn new(
        board: Arc<Board>,
        patience: SharedPatience,
        launch: Launch,
        listener: Arc<dyn Listener>,
    ) -> Self {
        let before = board.supervised();
        let Supervised { lifecycle, epoch, generation } = before.unwrap_or_else(|| Supervised {
            lifecycle: Lifecycle::new(board.spec().enabled),
            epoch: Instant::now(),
            generation: 0,
        });
        Self {
            board,
            patience,
            launch,
            dice: Dice::default(),
            listener,
            lifecycle,
            generation,
            worker: None,
            reminder: None,
            rest_look: None,
            epoch,
        }
    }

    /// The same with other dice.
    pub fn with_dice(self, dice: Dice) -> Self {
        Self { dice, ..self }
    }

    /// Says of one that has panicked, and was never started again, what has become of its upstream: what was
    /// interrupted counts as a start that failed. So one that panics before it can say anything itself is
    /// given up like any other.
    pub fn mourn(mut self) {
        self.mourn_it();
    }

    /// The same of one whose upstream is not wanted any more.
    pub fn bury(mut self) {
        self.mourn_it();
        self.move_on(Event::StopRequested, Exit::of(Reason::Stopping));
    }

    fn mourn_it(&mut self) {
        self.board.set_working(false);
        let is_enabled = self.board.spec().enabled;
        if (is_enabled || self.lifecycle.state != State::Disabled) && self.lifecycle.interrupt() {
            let exit = Exit::new(Reason::Panicked, "the supervisor of this upstream panicked");
            self.move_on(Event::WorkerEnded(exit.reason), exit);
        }
        if !is_enabled {
            // It was being disabled: nobody is left to tell that its worker has ended.
            self.move_on(Event::DisableRequested, Exit::of(Reason::Disabled));
        }
    }

    /// Whoever orders a restart notes it first, so it is done even where this very actor has panicked
    /// before it came to that.
    fn restart_if_asked(&mut self, ctx: &mut Context<Self>) {
        if self.board.take_restart() {
            // Whoever asks for that has done something about its credential, too, for all we know.
            if let Some(credential) = self.board.credential() {
                credential.forgive();
            }
            self.step(Event::RestartRequested, Exit::of(Reason::Asked), ctx);
        }
    }

    /// Takes one step, does what it asks for, and reports it. `cause` says why.
    pub(super) fn step(&mut self, event: Event, cause: Exit, ctx: &mut Context<Self>) {
        for action in self.move_on(event, cause) {
            match action {
                Action::StartWorker => self.start_worker(ctx),
                Action::EndWorker => self.end_worker(),
                Action::RemindMe { after } => self.remind(after, ctx),
            }
        }
    }

    /// Takes one step and reports it. What is to be done then.
    fn move_on(&mut self, event: Event, cause: Exit) -> Vec<Action> {
        self.board.port.processes.notice(&event);
        let before = self.lifecycle.state.clone();
        let now = self.epoch.elapsed();
        let actions = self.lifecycle.step(event, now, self.dice.roll(), &self.patience.load());
        let after = self.lifecycle.state.clone();
        self.note_for_successor();
        // That the worker has ended is no news of its own: why it was to end has been told.
        let is_known =
            matches!((&before, &after), (State::Ending { .. }, State::Stopped | State::Idle));
        let is_steady = matches!((&before, &after), (State::Ready { .. }, State::Ready { .. }));
        let starts = actions.contains(&Action::StartWorker);
        let cause = match (&before, &after) {
            _ if starts && self.board.may_have_to_be_fetched() => Exit::of(Reason::Prefetching),
            (State::Ending { .. }, State::Disabled) => Exit::of(Reason::Disabled),
            (State::Ending { .. }, State::Starting { .. }) => Exit::of(self.board.runtime().reason),
            _ => cause,
        };
        if is_known {
            let runtime = Runtime { pid: None, ..self.board.runtime() };
            self.board.set_runtime(runtime);
        }
        if after != before && !is_steady && !is_known {
            self.report(&after, cause, now, starts);
        }
        actions
    }

    fn report(&mut self, state: &State, cause: Exit, now: Duration, starts: bool) {
        let (word, error_status) = state.shown();
        let at = OffsetDateTime::now_utc();
        let mut runtime = self.board.runtime();
        let is_failure = cause.reason.is_failure();
        // It may quote what the server said.
        let describe = || self.board.stderr.hidden(&cause.describe(&self.board.stderr));
        let message = is_failure.then(describe);
        if word != runtime.state {
            runtime.since = at;
        }
        runtime.state = word;
        runtime.error_status = error_status;
        runtime.reason = cause.reason;
        runtime.next_attempt_at =
            self.lifecycle.next_attempt().map(|until| at + until.saturating_sub(now));
        if let Some(message) = &message {
            runtime.last_error = Some(message.clone());
            runtime.failed_by = Some((cause.reason, cause.scope.clone()));
        }
        if cause.code.is_some() {
            runtime.last_exit = cause.code;
        }
        if !matches!(state, State::Ready { .. }) {
            runtime.protocol_version = None;
            if !matches!(state, State::Ending { .. }) {
                runtime.pid = None;
            }
            self.board.port.close(outlook(state, &runtime));
        }
        if starts {
            runtime.restarts = self.generation;
        }
        if !matches!(state, State::Starting { .. } | State::Ready { .. } | State::Ending { .. }) {
            self.board.settle_all();
        }
        if is_failure {
            let until = self.lifecycle.flapping_until(&self.patience.load());
            let until = until.map(|until| self.epoch + until);
            self.board.port.conduct.set_flapping_until(until);
        }
        let transition = Transition {
            mcp_server_uuid: self.board.id,
            name: self.board.spec().name.clone(),
            at,
            state: word,
            error_status,
            reason: cause.reason,
            message,
            exit: cause.code,
            restarts: runtime.restarts,
            stderr_tail: if is_failure { runtime.stderr_tail.clone() } else { Vec::new() },
        };
        self.board.set_runtime(runtime);
        tracing::info!(
            server = %transition.name, state = word.as_str(), reason = transition.reason.as_str(),
            message = transition.message.as_deref(), "upstream `{}` is {}", transition.name, word.as_str(),
        );
        self.listener.moved(&transition);
    }

    /// What one that is made anew after a panic goes on from.
    fn note_for_successor(&self) {
        let (lifecycle, epoch) = (self.lifecycle.clone(), self.epoch);
        self.board.set_supervised(Supervised { lifecycle, epoch, generation: self.generation });
    }

    fn start_worker(&mut self, ctx: &mut Context<Self>) {
        self.generation += 1;
        self.note_for_successor();
        self.board.stderr.begin();
        self.board.port.conduct.begin();
        let generation = self.generation;
        let stop = CancellationToken::new();
        let owner = ctx.address();
        // News are facts for the worker's own supervisor: few, and none may be lost.
        let tell = Box::new(move |news| owner.do_send(Heard { generation, news }));
        let post = Post { board: self.board.clone(), generation, tell, stop: stop.clone() };
        let task = actix::spawn((self.launch)(post));
        self.worker = Some(Worker { stop, task: task.abort_handle() });
        self.board.set_working(true);
        let report_end = async move { exit_of(task.await) }
            .into_actor(self)
            .map(move |exit, _, ctx| ctx.notify(Ended { generation, exit }));
        ctx.spawn(report_end);
    }

    fn end_worker(&mut self) {
        if let Some(worker) = &self.worker {
            worker.stop.cancel();
        }
    }

    fn remind(&mut self, after: Duration, ctx: &mut Context<Self>) {
        if let Some(earlier) = self.reminder.take() {
            ctx.cancel_future(earlier);
        }
        self.reminder = Some(ctx.notify_later(TimeCame, after));
    }
}

fn exit_of(joined: Result<Exit, JoinError>) -> Exit {
    match joined {
        Ok(exit) => exit,
        Err(error) if error.is_panic() => {
            Exit::new(Reason::Panicked, "the worker of this upstream panicked")
        }
        Err(_aborted) => Exit::of(Reason::Asked),
    }
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
