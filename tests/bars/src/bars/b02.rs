//! B2: a server that ends and starts again, over and over, leaves nothing in the daemon.

use std::time::Duration;

use evil_mcp::{Character, Fault};
use rustix::process::Signal;
use serde_json::json;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Client, Daemon, SOON, Starts, host, publish, until},
};

pub const BAR: Bar = Bar {
    name: "B2",
    about: "crashes and restarts of a child leave no zombie, descriptor or thread",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// So many before anything is counted, for pools and caches.
const WARM_UP: usize = 20;

/// How far the counts may be from what they were.
const SLACK: f64 = 2.0;

/// As many starts as there are ends: the brakes on starts would only make this last.
const SETTINGS: &str = r#"
upstream = { spawns = { per_second = 1000000, burst = 1000000 } }
supervision = { backoff_min = "1ms", backoff_max = "1ms", failures_burst = 1000000, failures_slow = 1000000 }
"#;

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let cycles = plan.size(200, 2_000);
    let daemon = Daemon::start(plan, SETTINGS).await?;
    let mut admin = daemon.admin().await?;
    let starts = Starts::new(&daemon, "evil");
    admin.stdio(plan, "evil", &Character::good().when(starts.condition())).await?;
    let key = publish(&mut admin, &["evil".to_owned()]).await?;
    let mut client = Client::connect(&daemon, "all", &key).await?;
    let pid = daemon.pid();

    let (mut descriptors, mut threads) = (0, 0);
    for cycle in 0..WARM_UP + cycles {
        if cycle == WARM_UP {
            (descriptors, threads) = (host::descriptors(pid), host::threads(pid));
        }
        let child = admin.pid_of("evil").await?;
        if cycle % 2 == 0 {
            host::signal(child, Signal::KILL);
        } else {
            let arguments = json!({"fault": Fault::ExitEvery(1).to_string()});
            client.call("evil__echo", &arguments).await?;
        }
        admin
            .until("evil", SOON, |server| {
                let runtime = &server["runtime"];
                runtime["state"] == "READY" && runtime["pid"] != child
            })
            .await?;
    }
    // Threads of a pool end when they have been idle for a while.
    let settled = until("the threads to end", Duration::from_secs(15), async || {
        Ok((host::threads(pid) as f64 <= threads as f64 + SLACK).then_some(()))
    });
    drop(settled.await);
    let apart = |now: usize, before: usize| now as f64 - before as f64;
    report.never("zombies", host::zombies_of(pid), cycles);
    let grown = apart(host::descriptors(pid), descriptors);
    report.bound("descriptors more than at the start", grown, SLACK, "");
    report.bound("threads more than at the start", apart(host::threads(pid), threads), SLACK, "");
    report.note(format!(
        "{cycles} ends, {} starts; {descriptors} descriptors and {threads} threads at the start",
        starts.pids().len(),
    ));
    Ok(())
}
