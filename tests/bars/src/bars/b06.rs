//! B6: what one server does to itself does not slow another's calls.
//!
//! A server that floods takes most of a core wherever it runs. So calls are measured with it behind the
//! daemon, and again with the very same beside it, where another reads it: what is between the two is the
//! daemon's.

use std::time::Duration;

use evil_mcp::{Character, Fault, value::Rate};
use serde_json::json;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{
        Admin, Client, Daemon, SOON, Starts,
        beside::{Asked, Beside},
        load::{Weight, paced},
        publish,
        stats::percentile,
    },
};

pub const BAR: Bar = Bar {
    name: "B6",
    about: "a server that crashes, hangs, floods or is heavy does not slow another",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

const CLIENTS: usize = 4;
const EVERY: Duration = Duration::from_millis(10);

/// One that crashes is to go on crashing, and one that hangs or babbles to go on with that: strikes would
/// have it started anew, and the brakes on starts would give the others a rest.
const SETTINGS: &str = r#"
calls = { timeout = "2s", strikes = { timeouts = 0, noise = 0, noise_max = 0, oversized = 0, unasked = 0 } }
upstream = { spawns = { per_second = 1000000, burst = 1000000 } }
supervision = { backoff_min = "50ms", backoff_max = "200ms", failures_burst = 1000000, failures_slow = 1000000 }
"#;

/// A server in trouble, and what is asked of it meanwhile.
struct Trouble {
    name: &'static str,
    faults: Vec<Fault>,
    asked: Option<Asked>,
}

/// How long a call waits for one that hangs.
const HUNG: Duration = Duration::from_secs(2);

fn troubles() -> Vec<Trouble> {
    let trouble = |name, faults, asked| Trouble { name, faults, asked };
    vec![
        trouble("crashing", vec![Fault::ExitAfter(Duration::from_millis(50))], None),
        trouble(
            "hung",
            vec![Fault::Blackhole],
            Some(Asked {
                tool: "echo",
                arguments: json!({}),
                together: 16,
                every: HUNG,
                answers: false,
            }),
        ),
        trouble("babbling", vec![Fault::StdoutFlood(Rate(5_000_000))], None),
        trouble("complaining", vec![Fault::StderrFlood(Rate(20_000_000))], None),
        trouble(
            "announcing",
            vec![
                Fault::FloodListChanged(Rate(2_000)),
                Fault::FloodLog(Rate(2_000)),
                Fault::FloodUpdated(Rate(2_000)),
            ],
            None,
        ),
        trouble(
            "heavy",
            Vec::new(),
            Some(Asked {
                tool: "big",
                // Some bytes of the limit of 16 MiB are for the message around it.
                arguments: json!({"bytes": (16 << 20) - 4_096}),
                together: 1,
                every: Duration::from_millis(500),
                answers: true,
            }),
        ),
    ]
}

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let lasts = Duration::from_secs(plan.size(3, 30) as u64);
    let daemon = Daemon::start(plan, SETTINGS).await?;
    let mut admin = daemon.admin().await?;
    admin.stdio(plan, "well", &Character::good()).await?;
    let key = publish(&mut admin, &["well".to_owned()]).await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(&daemon, "all", &key).await?);
    }
    // Once for the connections, which is not counted.
    paced(&mut clients, "well__echo", EVERY, lasts / 4).await?;
    for trouble in troubles() {
        let name = trouble.name;
        let starts = Starts::new(&daemon, name);
        let character = trouble.faults.iter().cloned().fold(Character::good(), Character::with);
        let alone = paced(&mut clients, "well__echo", EVERY, lasts).await?;

        let noted = character.clone().when(starts.condition());
        let weight = begin(plan, &daemon, &mut admin, &key, &trouble, &noted).await?;
        let before = starts.pids().len();
        let behind = paced(&mut clients, "well__echo", EVERY, lasts).await?;
        let lives = starts.pids().len() - before;
        drop(weight);
        admin.change(&format!("mcp-servers/{name}"), json!({"enabled": false})).await?;
        admin.until(name, SOON, |server| server["runtime"]["pid"].is_null()).await?;

        // The very same beside the daemon, which has nothing to do with it: as many lives, and as many calls.
        let every = lasts / u32::try_from(lives.max(1))?;
        let one = Beside::begin(plan, &character, trouble.asked.clone(), every);
        let beside = paced(&mut clients, "well__echo", EVERY, lasts).await?;
        one.end()?;

        let [alone, behind, beside] = [alone, behind, beside].map(|times| percentile(&times, 0.99));
        let ratio = behind.as_secs_f64() / beside.as_secs_f64();
        report.at_most(format!("p99 with one that is {name}, of that beside it"), ratio, 2.0, "x");
        let more = behind.saturating_sub(beside);
        let at_most = Duration::from_millis(10);
        report.time(format!("p99 with one that is {name}, more than beside it"), more, at_most);
        report.note(format!(
            "{name}: p99 {behind:.1?}, with the same beside the daemon {beside:.1?}, alone {alone:.1?}; {lives} starts",
        ));
    }
    Ok(())
}

/// Makes the server in trouble, in an endpoint of its own, and has it called.
async fn begin(
    plan: &Plan,
    daemon: &Daemon,
    admin: &mut Admin,
    key: &str,
    trouble: &Trouble,
    character: &Character,
) -> Outcome<Option<Weight>> {
    admin.stdio(plan, trouble.name, character).await?;
    admin.publish(trouble.name, &[trouble.name]).await?;
    let Some(asked) = &trouble.asked else { return Ok(None) };
    admin.until_ready(trouble.name).await?;
    let mut clients = Vec::new();
    for _ in 0..asked.together {
        clients.push(Client::connect(daemon, trouble.name, key).await?);
    }
    let tool = format!("{}__{}", trouble.name, asked.tool);
    // A call of one that hangs takes its time by itself.
    let every = if asked.answers { asked.every } else { Duration::ZERO };
    Ok(Some(Weight::begin(clients, &tool, &asked.arguments, every)))
}
