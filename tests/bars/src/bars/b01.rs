//! B1: nothing survives the daemon, however it is killed and whatever its servers have left on the host.

use std::time::{Duration, Instant};

use evil_mcp::{Character, Fault, dice::Dice, fault::Condition};

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Daemon, SOON, host, until},
};
use rustix::process::Signal;

pub const BAR: Bar = Bar {
    name: "B1",
    about: "no process survives a kill -9 of the daemon",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

const SERVERS: u64 = 3;
const TREE: u64 = 10;
const WITHIN: Duration = Duration::from_secs(1);

/// One kill of so many finds the daemon somewhere in its start.
const EARLY: u64 = 3;
const EARLY_BY: Duration = Duration::from_millis(400);

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let cycles = plan.size(200, 200);
    let mark = format!("orphan-{}-{}", std::process::id(), plan.seed);
    let mut dice = Dice::new(plan.seed);
    let mut daemon = Daemon::start(plan, "").await?;
    let mut admin = daemon.admin().await?;
    for number in 0..SERVERS {
        // Two leave what slips away in every manner, one a chain that may be caught while it grows.
        let fault = if number == 2 { Fault::ForkStorm(TREE) } else { Fault::ForkTree(TREE) };
        let character = Character::good().with(fault).when(Condition::Name(mark.clone()));
        admin.stdio(plan, &format!("hostile{number}"), &character).await?;
    }
    let instance = daemon.instance();
    let whole = usize::try_from(SERVERS * (TREE + 1))?;
    let grown = async || {
        let living = host::belonging("", &mark).len();
        Ok((living >= whole).then_some(()))
    };

    let (mut left, mut killed, mut early) = (0, 0, 0);
    let mut times = Vec::with_capacity(cycles);
    for cycle in 0..cycles {
        if cycle > 0 {
            daemon.begin()?;
        }
        if cycle > 0 && dice.below(EARLY) == 0 {
            tokio::time::sleep(dice.between(Duration::ZERO, EARLY_BY)).await;
            early += 1;
        } else {
            until("the trees to be grown", SOON, grown).await?;
        }
        killed += host::belonging(&instance, &mark).len();
        let began = Instant::now();
        daemon.kill9()?;
        let gone = until("the end of all", WITHIN, async || {
            Ok(host::belonging(&instance, &mark).is_empty().then(|| began.elapsed()))
        })
        .await;
        match gone {
            Ok(took) => times.push(took),
            Err(_) => {
                let survivors = host::belonging(&instance, &mark);
                left += survivors.len();
                for pid in survivors {
                    host::signal(pid, Signal::KILL);
                }
            }
        }
    }
    report.never("processes 1 s after kill -9", left, killed);
    report.percentile("all gone after kill -9", &times, 0.5, Duration::from_millis(200));
    report.percentile("all gone after kill -9", &times, 1.0, WITHIN);
    report.note(format!("{cycles} kills, {early} of them during the start"));
    Ok(())
}
