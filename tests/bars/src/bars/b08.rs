//! B8: clients that are merely there cost little: memory for each that listens, and next to no time.

use std::time::{Duration, Instant};

use evil_mcp::Character;
use futures_util::future::try_join_all;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Client, Daemon, host, host::OWN, publish, stream::Stream},
};

pub const BAR: Bar = Bar {
    name: "B8",
    about: "clients that listen, and sessions that rest, cost little memory and no time",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// KB of memory for each client that listens, its session included.
const PER_CLIENT: f64 = 24.0;

/// How often as many clients come before what they cost is measured, and then.
const FIRST_STEPS: usize = 2;
const STEPS: usize = 3;

/// Bytes by which memory that has settled may still change.
const STILL: u64 = 128 << 10;

/// MB of memory of a daemon with all the resting sessions, and its share of a core.
const RESTING: f64 = 250.0;
const CPU: f64 = 2.0;

/// Clients that connect at once.
const AT_ONCE: usize = 50;

/// All clients are one principal here, whose sessions would make room for each other.
const SETTINGS: &str = r#"
sessions = { per_principal_max = 20000, streams_per_principal_max = 20000 }
"#;

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    listening(plan, report).await?;
    resting(plan, report).await
}

async fn daemon(plan: &Plan) -> Outcome<(Daemon, String)> {
    let daemon = Daemon::start(plan, SETTINGS).await?;
    let mut admin = daemon.admin().await?;
    admin.stdio(plan, "evil", &Character::good()).await?;
    let key = publish(&mut admin, &["evil".to_owned()]).await?;
    Ok((daemon, key))
}

/// As many clients again and again: what a start leaves is given back while the first of them come, so that
/// only what the later ones add tells what each costs.
async fn listening(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let clients = plan.size(200, 500);
    let lasts = Duration::from_secs(plan.size(10, 60) as u64);
    let (daemon, key) = daemon(plan).await?;
    let (mut streams, mut steps) = (Vec::new(), Vec::new());
    for _ in 0..FIRST_STEPS + STEPS {
        streams.extend(listen(&daemon, &key, clients).await?);
        steps.push(settled(daemon.pid()).await?);
    }
    // However long they listen, it is to be no more.
    tokio::time::sleep(lasts).await;
    steps.push(settled(daemon.pid()).await?);
    let ended = streams.iter_mut().filter_map(|stream| stream.has_ended().then_some(())).count();
    report.never("streams that were closed", ended, streams.len());
    let (before, more) = (steps[FIRST_STEPS - 1], clients * STEPS);
    let most = steps[FIRST_STEPS..].iter().max().copied().unwrap_or_default();
    let each = most.saturating_sub(before) as f64 / more as f64 / 1_000.0;
    let what = format!("memory for each of {more} more that listen");
    report.at_most(what, each, PER_CLIENT, "KB");
    let mb: Vec<String> = steps.iter().map(|bytes| format!("{:.1}", *bytes as f64 / 1e6)).collect();
    let mb = mb.join(", ");
    report.note(format!("MB with {clients} more each time, and {lasts:?} later: {mb}"));
    Ok(())
}

/// The memory of a process once it stays as it is for a while, or changes for too long.
async fn settled(pid: u32) -> Outcome<u64> {
    let mut last = [0; 6];
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        last.rotate_left(1);
        last[5] = host::memory(pid, OWN)?;
        let (least, most) = (last.iter().min(), last.iter().max());
        if most.zip(least).is_some_and(|(most, least)| most - least <= STILL) {
            break;
        }
    }
    Ok(last[5])
}

async fn listen(daemon: &Daemon, key: &str, count: usize) -> Outcome<Vec<Stream>> {
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let some = (streams.len()..count.min(streams.len() + AT_ONCE)).map(async |_| {
            let client = Client::connect(daemon, "all", key).await?;
            Stream::open(&client, daemon.port, None).await
        });
        streams.extend(try_join_all(some).await?);
    }
    Ok(streams)
}

async fn resting(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let sessions = plan.size(1_000, 10_000);
    let lasts = Duration::from_secs(plan.size(5, 30) as u64);
    let (daemon, key) = daemon(plan).await?;
    for begun in (0..sessions).step_by(AT_ONCE) {
        // Their connections end, and their sessions do not.
        let some =
            (begun..sessions.min(begun + AT_ONCE)).map(|_| Client::connect(&daemon, "all", &key));
        drop(try_join_all(some).await?);
    }
    let mut admin = daemon.admin().await?;
    let there = admin.metric("metamcpd_sessions").await?;
    report.never(
        "sessions that are not there",
        sessions - (there as usize).min(sessions),
        sessions,
    );

    // What the beginning of sessions left to be written down is done before time is taken.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (cpu, began) = (host::cpu(daemon.pid())?, Instant::now());
    tokio::time::sleep(lasts).await;
    let spent = host::cpu(daemon.pid())?.saturating_sub(cpu);
    let share = spent.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let all = host::memory(daemon.pid(), "VmRSS")? as f64 / 1e6;
    report.at_most(format!("memory with {sessions} sessions that rest"), all, RESTING, "MB");
    report.at_most("CPU of the daemon with them, of a core", share, CPU, "%");
    Ok(())
}
