//! B22: a daemon under a mixed load, while sessions come and go, its configuration is edited and its servers
//! are killed, grows neither in memory nor in descriptors nor in threads, and fails no call without a cause.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::{Duration, Instant},
};

use evil_mcp::{Character, dice::Dice, history::written, http::Server};
use futures_util::future::try_join_all;
use http::Method;
use rustix::process::Signal;
use serde_json::json;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Admin, Client, Daemon, Reply, Starts, host, publish},
};

pub const BAR: Bar = Bar {
    name: "B22",
    about: "under load, churn, edits and kills nothing grows and no call fails without a cause",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

const CLIENTS: u32 = 10;
const PER_SECOND: u32 = 300;

/// How often something is done besides calls.
const CHURN: Duration = Duration::from_millis(500);
const EDIT: Duration = Duration::from_secs(2);
const KILL: Duration = Duration::from_secs(5);

/// Servers that are killed are to be back at once, and never to be given up; sessions that nobody ended
/// are to be as many before as after.
const SETTINGS: &str = r#"
sessions = { idle = "10s" }
supervision = { backoff_min = "20ms", backoff_max = "200ms", failures_burst = 1000000, failures_slow = 1000000 }
"#;

/// The server that is killed, and what a call to it may say meanwhile.
const VICTIM: &str = "victim";
const EXPLAINED: [&str; 3] = ["upstream_ended", "upstream_unavailable", "upstream_busy"];

/// One look at the daemon.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: f64,
    rss: f64,
    descriptors: f64,
    threads: f64,
}

/// What was counted by all who load it.
#[derive(Debug, Default)]
struct Counts {
    calls: Cell<usize>,
    explained: Cell<usize>,
    sessions: Cell<usize>,
    edits: Cell<usize>,
    kills: Cell<usize>,
    unexplained: RefCell<BTreeMap<String, usize>>,
}

impl Counts {
    fn wonder(&self, at: impl Into<String>) {
        *self.unexplained.borrow_mut().entry(at.into()).or_default() += 1;
    }
}

fn more(count: &Cell<usize>) {
    count.set(count.get() + 1);
}

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let sized = Duration::from_secs(plan.size(60, 30 * 60) as u64);
    let lasts = plan.minutes.map_or(sized, |minutes| Duration::from_secs(minutes * 60));
    let pace = Duration::from_secs(plan.size(1, 5) as u64);
    let daemon = Daemon::start(plan, SETTINGS).await?;
    let mut admin = daemon.admin().await?;
    let starts = Starts::new(&daemon, VICTIM);
    let remote = Server::start(Character::good())?;
    admin.stdio(plan, "steady", &Character::good()).await?;
    admin.stdio(plan, VICTIM, &Character::good().when(starts.condition())).await?;
    admin.stdio(plan, "edited", &Character::good()).await?;
    admin.remote("remote", &remote.url).await?;
    let names = ["steady", VICTIM, "remote", "edited"].map(str::to_owned);
    let key = publish(&mut admin, &names).await?;

    let (counts, began) = (Counts::default(), Instant::now());
    let ends = began + lasts;
    let calls =
        (0..CLIENTS).map(|number| call_all(&daemon, &key, number, plan.seed, ends, &counts));
    let churn = come_and_go(&daemon, &key, ends, &counts);
    let edits = edit(&daemon, ends, &counts);
    let kills = kill(plan, &starts, ends, &counts);
    let samples = sample(daemon.pid(), began, ends, pace);
    let (_, (), (), (), samples) =
        futures_util::try_join!(try_join_all(calls), churn, edits, kills, samples)?;

    let n = counts.calls.get();
    let unexplained = counts.unexplained.take();
    report.never("errors without a cause", unexplained.values().sum(), n);
    let rate = n as f64 / lasts.as_secs_f64();
    report.at_least("calls a second, of 300", rate, f64::from(PER_SECOND) * 0.9, "/s");
    report.bound("panics", admin.metric("metamcpd_panics_total").await?, 0.0, "");
    judge(report, &samples);
    report.note(format!(
        "{n} calls in {lasts:.0?}, {} failed beside {} kills; {} sessions, {} edits",
        counts.explained.get(),
        counts.kills.get(),
        counts.sessions.get(),
        counts.edits.get(),
    ));
    for (what, count) in unexplained.iter().take(10) {
        report.note(format!("{count} x {what}"));
    }
    for name in &names {
        admin.until_ready(name).await?;
    }
    Ok(())
}

/// The last third against the one before it; the first is for warming up.
fn judge(report: &mut Report, samples: &[Sample]) {
    let third = samples.len() / 3;
    let (before, last) = (&samples[third..third * 2], &samples[third * 2..]);
    let growth = (mean(last, |one| one.rss) / mean(before, |one| one.rss) - 1.0) * 100.0;
    report.at_most("memory of the last third, more than before", growth, 5.0, "%");
    let slope = slope(&samples[third..]) * 60.0 / f64::from(1 << 20);
    report.at_most("growth of memory since the first third", slope, 1.0, "MiB/min");
    // Whoever comes and goes is there or not at the moment of a look.
    let descriptors = median(last, |one| one.descriptors) - median(before, |one| one.descriptors);
    report.bound("descriptors of the last third, more than before", descriptors, 2.0, "");
    let threads = median(last, |one| one.threads) - median(before, |one| one.threads);
    report.bound("threads of the last third, more than before", threads, 2.0, "");
    if let (Some(first), Some(end)) = (samples.first(), samples.last()) {
        report.note(format!(
            "memory {:.1} to {:.1} MiB, descriptors {} to {}, threads {} to {}, {} looks",
            first.rss / f64::from(1 << 20),
            end.rss / f64::from(1 << 20),
            first.descriptors,
            end.descriptors,
            first.threads,
            end.threads,
            samples.len(),
        ));
    }
}

fn mean(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    samples.iter().map(of).sum::<f64>() / samples.len().max(1) as f64
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut all: Vec<f64> = samples.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// Bytes a second, by the straight line that fits best.
fn slope(samples: &[Sample]) -> f64 {
    let (at, rss) = (mean(samples, |one| one.at), mean(samples, |one| one.rss));
    let along: f64 = samples.iter().map(|one| (one.at - at) * (one.rss - rss)).sum();
    let spread: f64 = samples.iter().map(|one| (one.at - at).powi(2)).sum();
    if spread > 0.0 { along / spread } else { 0.0 }
}

async fn sample(pid: u32, began: Instant, ends: Instant, pace: Duration) -> Outcome<Vec<Sample>> {
    let mut samples = Vec::new();
    while Instant::now() < ends {
        samples.push(Sample {
            at: began.elapsed().as_secs_f64(),
            rss: host::memory(pid, "VmRSS")? as f64,
            descriptors: host::descriptors(pid) as f64,
            threads: host::threads(pid) as f64,
        });
        tokio::time::sleep(pace).await;
    }
    Ok(samples)
}

/// Calls at an even pace, of all servers and of several kinds.
async fn call_all(
    daemon: &Daemon,
    key: &str,
    number: u32,
    seed: u64,
    ends: Instant,
    counts: &Counts,
) -> Outcome<()> {
    let mut client = Client::connect(daemon, "all", key).await?;
    let mut dice = Dice::new(seed ^ u64::from(number));
    let every = Duration::from_secs(1) * CLIENTS / PER_SECOND;
    let mut due = Instant::now() + every * number / CLIENTS;
    while due < ends {
        tokio::time::sleep_until(due.into()).await;
        // What was missed is not made up for all at once.
        due = (due + every).max(Instant::now());
        more(&counts.calls);
        if dice.below(20) == 0 {
            let answer = client.request("tools/list", &json!({})).await;
            match answer {
                Ok(answer) if answer["result"]["tools"].is_array() => {}
                Ok(answer) => counts.wonder(format!("tools/list: {}", answer["error"])),
                Err(problem) => counts.wonder(format!("tools/list: {problem}")),
            }
            continue;
        }
        let server = *dice.pick(&["steady", "steady", "remote", VICTIM]).ok_or("no servers")?;
        let nonce = written(dice.throw());
        let takes = if dice.below(16) == 0 { dice.below(30) } else { 0 };
        let arguments = json!({"nonce": nonce, "ms": takes});
        match client.call(&format!("{server}__echo"), &arguments).await {
            Ok(Reply::Text(text)) if text == nonce => {}
            Ok(Reply::Error(reason)) if server == VICTIM && EXPLAINED.contains(&&*reason) => {
                more(&counts.explained);
            }
            Ok(other) => counts.wonder(format!("{server}: {other:?}")),
            Err(problem) => counts.wonder(format!("{server}: {problem}")),
        }
    }
    Ok(())
}

/// Sessions that begin, are used, and end in order or not at all.
async fn come_and_go(daemon: &Daemon, key: &str, ends: Instant, counts: &Counts) -> Outcome<()> {
    while Instant::now() < ends {
        let mut client = Client::connect(daemon, "all", key).await?;
        more(&counts.sessions);
        for _ in 0..3 {
            if let Err(problem) = client.call("steady__echo", &json!({"nonce": "n"})).await {
                counts.wonder(format!("a new session: {problem}"));
            }
        }
        let (path, headers) = (client.path.clone(), client.headers.clone());
        if !counts.sessions.get().is_multiple_of(4) {
            let ended = client.connection.send(Method::DELETE, &path, &headers, Default::default());
            if !ended.await?.status.is_success() {
                counts.wonder("the end of a session was refused");
            }
        }
        tokio::time::sleep(CHURN).await;
    }
    Ok(())
}

/// Edits of rows that nobody's calls depend on.
async fn edit(daemon: &Daemon, ends: Instant, counts: &Counts) -> Outcome<()> {
    let mut admin = daemon.admin().await?;
    while Instant::now() < ends {
        let number = counts.edits.get();
        more(&counts.edits);
        if let Err(problem) = one_edit(&mut admin, number).await {
            counts.wonder(format!("edit {}: {problem}", number % 4));
        }
        tokio::time::sleep(EDIT).await;
    }
    Ok(())
}

async fn one_edit(admin: &mut Admin, number: usize) -> Outcome<()> {
    match number % 4 {
        0 => {
            let words = json!({"description": format!("edit {number}")});
            admin.change("mcp-servers/edited", words).await?;
        }
        1 => {
            let restarts = json!({"env": {"EDIT": number.to_string()}});
            admin.change("mcp-servers/edited", restarts).await?;
        }
        2 => {
            admin.publish("passing", &["steady", "edited"]).await?;
        }
        _ => {
            admin.ask(Method::DELETE, "endpoints/passing", None).await?;
            admin.ask(Method::DELETE, "namespaces/passing", None).await?;
        }
    }
    Ok(())
}

async fn kill(plan: &Plan, starts: &Starts, ends: Instant, counts: &Counts) -> Outcome<()> {
    while Instant::now() + KILL < ends {
        tokio::time::sleep(KILL).await;
        let living = starts.pids().last().copied().filter(|pid| host::runs(*pid, &plan.evil));
        if living.is_some_and(|pid| host::signal(pid, Signal::KILL)) {
            more(&counts.kills);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_from_noise() {
        let look =
            |at: u32, rss: f64| Sample { at: f64::from(at), rss, descriptors: 9.0, threads: 4.0 };
        let growing: Vec<Sample> = (0..60).map(|at| look(at, 1e6 + f64::from(at) * 1e5)).collect();
        assert!((slope(&growing) - 1e5).abs() < 1.0);
        let mut report = Report::default();
        judge(&mut report, &growing);
        assert!(report.is_broken(true));
        let flat: Vec<Sample> = (0..60).map(|at| look(at, 1e8 + f64::from(at % 2) * 1e4)).collect();
        let mut report = Report::default();
        judge(&mut report, &flat);
        assert!(!report.is_broken(true));
    }
}
