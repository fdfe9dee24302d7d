//! The cores of the gateway under random faults, in virtual time.
//!
//! The root supervisor, the upstreams' actors with their lifecycles, the ports, the pipes and the
//! sessions are the real ones. Played are the servers, the clients and the operator, each from one
//! seed. Whatever breaks a promise fails the run and names its seed:
//! `SEED=7 cargo test --lib simulation -- --nocapture` tells that run line by line, and
//! `SEEDS=10000` has so many run.

mod call;
mod chance;
mod client;
mod faults;
mod history;
mod operator;
mod server;

use std::{collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, Addr};
use arc_swap::ArcSwap;
use futures_util::{FutureExt, future::join_all};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    conductor::relay,
    fleet::{Drain, Fleet, Roster},
    identity::vault::Vault,
    session::{self, Session, Sessions},
    settings::Settings,
    upstream::{
        UpstreamSpec,
        actor::{Launch, Post},
        dice::Dice,
        port::CallOptions,
        question::Question,
        status::StateWord,
        testing::{self, Deaf},
    },
};
use chance::Chance;
use client::Client;
use faults::{Fault, Faults, Plan};
use history::History;
use operator::Operator;
use server::Server;

const SECOND: Duration = Duration::from_secs(1);

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(60);

/// How long after that every upstream may take to be ready (the bar of the promise).
const RECOVERY_MAX: Duration = Duration::from_secs(300);

/// What everybody in a run has to do with.
struct Stage {
    history: History,
    faults: Faults,
    calls: CallOptions,
    sessions: Arc<Sessions>,
    roster: Roster,
}

impl Stage {
    /// As the conductor does, what an upstream asks outside of any call.
    fn put(&self, session: &str, question: Question) {
        let Some(session) = self.sessions.get(session) else { return };
        let patience = self.sessions.options.question_timeout;
        let asking = relay::ask(&session, question, patience, CancellationToken::new());
        let Some(asking) = asking else { return };
        if session.push(asking.request.clone()) {
            let outcome = relay::while_there_is_a_stream(session.clone(), asking);
            relay::see_through_later(session.clone(), [outcome]);
        }
    }
}

/// What is told of a run.
struct Report {
    violations: Vec<String>,
    lines: Vec<String>,
    calls: usize,
    answered: usize,
    points: usize,
}

fn spec(id: u128, calls: &CallOptions) -> UpstreamSpec {
    let mut spec = testing::spec(id);
    spec.limits.inactivity = calls.timeout;
    spec.limits.total = calls.total;
    spec
}

/// One run, from its seed alone.
fn run(seed: u64, plan: Plan, vault: &Vault) -> Report {
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        match runtime.enable_all().start_paused(true).build() {
            Ok(runtime) => runtime,
            Err(error) => panic!("there is no runtime: {error}"),
        }
    };
    actix::System::with_tokio_rt(runtime).block_on(play(seed, plan, vault))
}

async fn play(seed: u64, plan: Plan, vault: &Vault) -> Report {
    let chance = Chance::new(seed, 0);
    let settings = match Settings::read(None) {
        Ok(settings) => settings,
        Err(error) => panic!("the defaults cannot be used: {error}"),
    };
    let calls = CallOptions {
        timeout: 5 * SECOND,
        total: 20 * SECOND,
        in_flight_max: 4,
        queue_max: 4,
        ..settings.calls.clone()
    };
    let mut options = settings.sessions.clone();
    options.question_timeout = 10 * SECOND;
    let roster = Roster::default();
    let boards = roster.clone();
    let on_end = Box::new(move |session: &Session| {
        for board in boards.load().values() {
            board.port.forget(&session.id);
        }
    });
    let sealer = match vault.sealer(session::PURPOSE) {
        Ok(sealer) => sealer,
        Err(error) => panic!("there is no key: {error}"),
    };
    let sessions = Arc::new(Sessions::new(options, sealer, [], on_end));
    let longest = calls.ready_wait + 2 * calls.queue_wait + calls.total + SECOND;
    let stage = Rc::new(Stage {
        history: History::new(longest, calls.timeout),
        faults: Faults::new(plan),
        calls: calls.clone(),
        sessions: sessions.clone(),
        roster: roster.clone(),
    });

    let wanted: Vec<UpstreamSpec> =
        (1..=3 + chance.below(3)).map(|id| spec(id as u128, &calls)).collect();
    let fleet = fleet(seed, &stage, &settings, &wanted);
    let operator = Operator::new(seed, stage.clone(), fleet.clone(), wanted);
    operator.reconcile().await;

    let clients: Vec<_> =
        (1..=4 + chance.below(4)).map(|number| Client::new(number as u64, seed, &stage)).collect();
    let stop = CancellationToken::new();
    for client in &clients {
        actix::spawn(client.clone().live(stop.clone()));
    }
    if stage.faults.are_on() {
        drop(timeout(TROUBLE, operator.meddle(&clients)).await);
    } else {
        sleep(TROUBLE).await;
    }
    stage.faults.stop();
    stop.cancel();
    operator.repair().await;
    recover(&stage).await;
    // What was begun in trouble ends by its own limits.
    sleep(longest + 3 * stage.sessions.options.question_timeout).await;
    serve_again(&stage, &clients).await;
    stage.history.close();
    rest(&stage, &clients);
    if fleet.send(Drain).await.is_err() {
        stage.history.violated("the root supervisor is dead");
    }
    Report {
        violations: stage.history.violations(),
        lines: stage.history.lines(),
        calls: stage.history.calls(),
        answered: stage.history.answered(),
        points: stage.faults.points(),
    }
}

fn fleet(
    seed: u64,
    stage: &Rc<Stage>,
    settings: &Settings,
    wanted: &[UpstreamSpec],
) -> Addr<Fleet> {
    let number = |id: Uuid| id.as_u128();
    let servers: HashMap<u128, Rc<Server>> =
        wanted.iter().map(|spec| (number(spec.id), Server::new(number(spec.id), seed))).collect();
    let played = stage.clone();
    let launch: Launch = Rc::new(move |post: Post| {
        let server = servers[&number(post.board.id)].clone();
        server.live(played.clone(), post).boxed_local()
    });
    let patience = Arc::new(ArcSwap::from_pointee(settings.supervision.clone()));
    let dice = Chance::new(seed, 999);
    Fleet::new(patience, stage.calls.clone(), launch, Arc::new(Deaf), stage.roster.clone())
        .with_dice(Dice::of(move || dice.fraction()))
        .start()
}

/// Promise 6: an upstream that becomes healthy is used again without a person.
async fn recover(stage: &Stage) {
    let all_ready = async {
        while !stage.roster.load().values().all(|board| board.runtime().state == StateWord::Ready) {
            sleep(SECOND).await;
        }
    };
    if timeout(RECOVERY_MAX, all_ready).await.is_err() {
        for board in stage.roster.load().values() {
            let runtime = board.runtime();
            if runtime.state != StateWord::Ready {
                let (name, state) = (&board.spec().name, runtime.state.as_str());
                stage.history.violated(format!("{name} is {state} long after the last fault"));
            }
        }
    }
}

/// Every place that a call of the troubled time had is free again: as many as may be are under way at
/// once, and all of them are answered.
async fn serve_again(stage: &Rc<Stage>, clients: &[Rc<Client>]) {
    let before = (stage.history.calls(), stage.history.answered());
    let mut boards: Vec<_> = stage.roster.load().values().cloned().collect();
    boards.sort_unstable_by_key(|board| board.id);
    for board in boards {
        let calls = (0..stage.calls.in_flight_max)
            .map(|one| clients[one % clients.len()].clone().call(Some(board.clone()), true));
        join_all(calls).await;
    }
    // A stream may be read a little later than its last word was said.
    sleep(SECOND).await;
    let after = (stage.history.calls(), stage.history.answered());
    if after.0 - before.0 != after.1 - before.1 {
        stage.history.violated("a healthy gateway did not answer every call");
    }
}

/// Nothing is left of what has ended.
fn rest(stage: &Stage, clients: &[Rc<Client>]) {
    for client in clients {
        let session = client.session();
        let left = (session.in_flight(), session.questions.count());
        if left != (0, 0) {
            stage.history.violated(format!("calls and questions are left: {left:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr)]

    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;

    /// Runs that are made unless `SEEDS` says otherwise.
    const SEEDS: u64 = 200;

    fn number(variable: &str) -> Option<u64> {
        std::env::var(variable).ok().map(|text| text.parse().unwrap())
    }

    /// The key of all runs. Where its file lay is of no matter.
    fn vault() -> Vault {
        Vault::open(tempfile::tempdir().unwrap().path()).unwrap()
    }

    fn judge(what: &str, report: &Report) {
        if !report.violations.is_empty() {
            report.lines.iter().for_each(|line| eprintln!("{line}"));
            panic!("{what}: {:#?}", report.violations);
        }
    }

    #[test]
    fn no_seed_breaks_a_promise() {
        let vault = vault();
        let trouble = Plan::Often(8);
        if let Some(seed) = number("SEED") {
            let report = run(seed, trouble, &vault);
            report.lines.iter().for_each(|line| eprintln!("{line}"));
            return judge(&format!("SEED={seed}"), &report);
        }
        let seeds = number("SEEDS").unwrap_or(SEEDS);
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        let next = AtomicU64::new(0);
        let (calls, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let work = || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let report = run(seed, trouble, &vault);
                    judge(&format!("SEED={seed}"), &report);
                    calls.fetch_add(report.calls, Ordering::Relaxed);
                    answered.fetch_add(report.answered, Ordering::Relaxed);
                }
            };
            (0..threads).for_each(|_| drop(scope.spawn(work)));
        });
        let (calls, answered) = (calls.into_inner(), answered.into_inner());
        eprintln!("{seeds} seeds, {calls} calls, {answered} of them answered, no promise broken");
        assert!(answered * 2 > calls, "of {calls} calls only {answered} were answered");
    }

    #[test]
    fn whichever_step_fails_nothing_else_does() {
        let vault = vault();
        for fault in Fault::ALL {
            let mut point = 1;
            loop {
                let report = run(0, Plan::At(point, fault), &vault);
                judge(&format!("{fault:?} at point {point}"), &report);
                // Every fault of so small a run is one of a few kinds of step.
                point += 1 + point / 12;
                if point > report.points {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_seed_tells_the_same_story_each_time() {
        let vault = vault();
        for seed in [3, 4, 5] {
            let told = || run(seed, Plan::Often(8), &vault).lines;
            assert_eq!(told(), told(), "SEED={seed}");
        }
    }
}
