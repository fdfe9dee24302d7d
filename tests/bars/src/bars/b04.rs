//! B4: every call has exactly one outcome, its own, in time, while eight servers are killed, cut off and
//! hung without an end; and no call is ever executed twice.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use evil_mcp::{
    Character,
    dice::{Dice, mixed},
    fault::Condition,
    history::{Event, Notes, Payload, Terms, What, Wrong, check, written},
    proxy::{Ending, Order, Schedule},
};
use futures_util::future::try_join_all;
use rustix::process::Signal;
use serde_json::json;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Admin, Client, Daemon, Reply, Starts, host, publish, remote::Remote},
};

pub const BAR: Bar = Bar {
    name: "B4",
    about: "every call has exactly one outcome while its servers are killed, cut and hung",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

const CLIENTS: usize = 64;
const OF_A_KIND: usize = 4;

/// `calls.total` of the settings: by then a call is over.
const DEADLINE: Duration = Duration::from_secs(6);
const GRACE: Duration = Duration::from_secs(1);

/// How long a client waits before it calls an answer lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often something happens to a server.
const PACE: Duration = Duration::from_millis(250);

/// Servers are to come back at once, and never to be given up: this is about calls. Calls that are held
/// back from a server which fails, and starts that wait, would spare the servers much of what happens to
/// them; and only this bar is to start one anew, so that what is counted is what it did.
const SETTINGS: &str = r#"
calls = { timeout = "3s", total = "6s", ready_wait = "1s", queue_wait = "1s", breaker = { failures = 0 }, strikes = { timeouts = 0, unasked = 0 } }
upstream = { spawns = { per_second = 1000000, burst = 1000000 } }
supervision = { backoff_min = "20ms", backoff_max = "200ms", failures_burst = 1000000, failures_slow = 1000000 }
"#;

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let calls = plan.size(100_000, 1_000_000) as u64;
    let daemon = Daemon::start(plan, SETTINGS).await?;
    let mut admin = daemon.admin().await?;
    let journal = daemon.scratch().join("executed");
    let noting = Character::good().when(Condition::Journal(journal.clone()));

    let mut names = Vec::new();
    let mut children = Vec::new();
    let mut remotes = Vec::new();
    for number in 0..OF_A_KIND {
        let starts = Starts::new(&daemon, &format!("child{number}"));
        let character = noting.clone().when(starts.condition());
        names.push(format!("child{number}"));
        admin.stdio(plan, &format!("child{number}"), &character).await?;
        children.push(starts);

        let schedule = Schedule::Seeded { seed: plan.seed ^ number as u64, bad: 0 };
        let remote = Remote::start(plan, noting.clone(), schedule)?;
        names.push(format!("remote{number}"));
        admin.remote(&format!("remote{number}"), &remote.url()).await?;
        remotes.push(remote);
    }
    let key = publish(&mut admin, &names).await?;

    let tools: Vec<String> = names.iter().map(|name| format!("{name}__echo")).collect();
    let given = AtomicU64::new(0);
    let began = Instant::now();
    let chaos = Chaos::begin(plan, children, remotes);
    let clients = (0..CLIENTS).map(async |number| {
        let client = Client::connect(&daemon, "all", &key).await?;
        call_all(client, number as u32, plan.seed, &tools, &given, calls, began).await
    });
    let histories = try_join_all(clients).await?;
    let took = began.elapsed();
    let (happened, _remotes) = chaos.end()?;

    let history: Vec<Event> = histories.into_iter().flatten().collect();
    let executed = executed(&std::fs::read_to_string(&journal)?);
    let terms = Terms { grace: GRACE, unknown_allowed: false };
    let verdict = check(&history, Some(&executed), terms);
    let n = verdict.calls;
    report.never("calls without an outcome", verdict.count(&[Wrong::Lost]), n);
    report.never("calls with more than one outcome", verdict.count(&[Wrong::Repeated]), n);
    let crossed = [Wrong::Foreign, Wrong::Garbled, Wrong::Misdelivered, Wrong::Uncalled];
    report.never("outcomes of another call or client", verdict.count(&crossed), n);
    report.never("calls executed twice", verdict.count(&[Wrong::ExecutedTwice]), n);
    report.never("results of calls that nobody executed", verdict.count(&[Wrong::Invented]), n);
    report.never("calls that ended after deadline + 1 s", verdict.count(&[Wrong::Late]), n);
    let good = verdict.ok as f64 * 100.0 / n.max(1) as f64;
    report.at_least("calls with a result, amid all that", good, 50.0, "%");
    let alive = admin.metric("metamcpd_panics_total").await?;
    report.bound("panics", alive, 0.0, "");
    report.note(format!(
        "{n} calls in {took:.0?} by {CLIENTS} clients, {happened}; {} failed: {:?}",
        verdict.failed, verdict.reasons,
    ));
    for violation in verdict.violations.iter().take(5) {
        report.note(violation.to_string());
    }
    recovered(&mut admin, &names, report).await
}

/// Once it is quiet every server has to be back without help.
async fn recovered(admin: &mut Admin, names: &[String], report: &mut Report) -> Outcome<()> {
    let mut away = 0;
    for name in names {
        away += usize::from(admin.until_ready(name).await.is_err());
    }
    report.never("servers that did not come back", away, names.len());
    Ok(())
}

/// The nonces that servers noted.
fn executed(journal: &str) -> Vec<u64> {
    journal.lines().filter_map(|line| u64::from_str_radix(line, 16).ok()).collect()
}

/// Calls as fast as it is answered, until as many calls were `given` out as there are to be.
async fn call_all(
    mut client: Client,
    number: u32,
    seed: u64,
    tools: &[String],
    given: &AtomicU64,
    calls: u64,
    began: Instant,
) -> Outcome<Vec<Event>> {
    let mut notes = Notes::new(began, number);
    let mut dice = Dice::new(seed ^ u64::from(number) << 32);
    loop {
        let call = given.fetch_add(1, Ordering::Relaxed);
        if call >= calls {
            return Ok(notes.events);
        }
        let tool = dice.pick(tools).ok_or("no tools")?;
        // One of eight takes a while, so that what happens finds calls under way.
        let takes = if dice.below(8) == 0 { dice.below(40) } else { 0 };
        let nonce = mixed(seed ^ call);
        let arguments = json!({"nonce": written(nonce), "ms": takes});
        notes.invoke(call, nonce, DEADLINE);
        let asked = tokio::time::timeout(PATIENCE, client.calls(tool, &arguments)).await;
        match asked {
            Ok(Ok(replies)) => {
                for reply in replies {
                    notes.note(
                        call,
                        match reply {
                            Reply::Text(text) => What::Ok(Payload::of(&text)),
                            Reply::Error(reason) => What::Fail(reason),
                        },
                    );
                }
            }
            Ok(Err(problem)) => notes.note(call, What::Info(problem.to_string())),
            Err(_) => {
                notes.note(call, What::Info(format!("no answer in {PATIENCE:?}")));
                client.connection.close();
            }
        }
    }
}

/// What happens to the servers, by a thread of its own.
struct Chaos {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Outcome<(String, Vec<Remote>)>>,
}

impl Chaos {
    fn begin(plan: &Plan, children: Vec<Starts>, remotes: Vec<Remote>) -> Chaos {
        let over = Arc::new(AtomicBool::new(false));
        let (until, evil, seed) = (Arc::clone(&over), plan.evil.clone(), plan.seed);
        let thread = thread::spawn(move || rage(seed, &evil, &children, remotes, &until));
        Chaos { over, thread }
    }

    /// Ends it; what happened, and the remote servers, which have to stay until they were found again.
    fn end(self) -> Outcome<(String, Vec<Remote>)> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the chaos panicked")?
    }
}

/// The process of a child, if it has one just now.
fn living(child: &Starts, evil: &Path) -> Option<u32> {
    child.pids().last().copied().filter(|pid| host::runs(*pid, evil))
}

fn rage(
    seed: u64,
    evil: &Path,
    children: &[Starts],
    mut remotes: Vec<Remote>,
    over: &AtomicBool,
) -> Outcome<(String, Vec<Remote>)> {
    let mut dice = Dice::new(seed);
    let (mut kills, mut cuts, mut hangs) = (0_u32, 0_u32, 0_u32);
    while !over.load(Ordering::Relaxed) {
        thread::sleep(dice.between(PACE / 2, PACE * 3 / 2));
        let victim = usize::try_from(dice.below(OF_A_KIND as u64))?;
        let hang = dice.between(Duration::from_millis(20), Duration::from_millis(400));
        match dice.below(8) {
            0..3 => {
                let Some(pid) = living(&children[victim], evil) else { continue };
                kills += u32::from(host::signal(pid, Signal::KILL));
            }
            3 => {
                let Some(pid) = living(&children[victim], evil) else { continue };
                hangs += u32::from(host::signal(pid, Signal::STOP));
                thread::sleep(hang);
                host::signal(pid, Signal::CONT);
            }
            4 => {
                remotes[victim].kill9()?;
                kills += 1;
            }
            5 => {
                let ending = if dice.below(2) == 0 { Ending::Close } else { Ending::Reset };
                remotes[victim].network.end_all(ending);
                cuts += 1;
            }
            6 => {
                remotes[victim].network.order(Order::Refuse);
                remotes[victim].network.end_all(Ending::Reset);
                thread::sleep(hang);
                remotes[victim].network.order(Order::Pass);
                cuts += 1;
            }
            _ => {
                remotes[victim].network.order(Order::Stall);
                thread::sleep(hang);
                remotes[victim].network.order(Order::Pass);
                hangs += 1;
            }
        }
    }
    Ok((format!("{kills} kills, {cuts} cuts, {hangs} hangs"), remotes))
}
