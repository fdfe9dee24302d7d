//! B6: what one server does to itself does not slow another's calls.

use std::time::Duration;

use evil_mcp::{Character, Fault, value::Rate};
use serde_json::{Value, json};

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{
        Admin, Client, Daemon,
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
    /// Clients that call it, the tool and its arguments, and how often.
    weight: Option<(usize, &'static str, Value, Duration)>,
}

fn troubles() -> Vec<Trouble> {
    vec![
        Trouble {
            name: "crashing",
            faults: vec![Fault::ExitAfter(Duration::from_millis(50))],
            weight: None,
        },
        Trouble {
            name: "hung",
            faults: vec![Fault::Blackhole],
            weight: Some((16, "echo", json!({}), Duration::ZERO)),
        },
        Trouble {
            name: "babbling",
            faults: vec![Fault::StdoutFlood(Rate(5_000_000))],
            weight: None,
        },
        Trouble {
            name: "complaining",
            faults: vec![Fault::StderrFlood(Rate(20_000_000))],
            weight: None,
        },
        Trouble {
            name: "announcing",
            faults: vec![
                Fault::FloodListChanged(Rate(2_000)),
                Fault::FloodLog(Rate(2_000)),
                Fault::FloodUpdated(Rate(2_000)),
            ],
            weight: None,
        },
        Trouble {
            name: "heavy",
            faults: Vec::new(),
            // Some bytes of the limit of 16 MiB are for the message around it.
            weight: Some((
                1,
                "big",
                json!({"bytes": (16 << 20) - 4_096}),
                Duration::from_millis(500),
            )),
        },
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
        let alone = paced(&mut clients, "well__echo", EVERY, lasts).await?;
        let weight = begin(plan, &daemon, &mut admin, &key, &trouble).await?;
        let beside = paced(&mut clients, "well__echo", EVERY, lasts).await?;
        drop(weight);
        let path = format!("mcp-servers/{}", trouble.name);
        admin.change(&path, json!({"enabled": false})).await?;

        let (alone, beside) = (percentile(&alone, 0.99), percentile(&beside, 0.99));
        let ratio = beside.as_secs_f64() / alone.as_secs_f64();
        let name = trouble.name;
        report.at_most(format!("p99 beside one that is {name}, of its own"), ratio, 2.0, "x");
        let more = beside.saturating_sub(alone);
        report.time(
            format!("p99 beside one that is {name}, more"),
            more,
            Duration::from_millis(10),
        );
        report.note(format!("{name}: p99 {beside:.1?}, alone {alone:.1?}"));
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
) -> Outcome<Option<Weight>> {
    let character = trouble.faults.iter().cloned().fold(Character::good(), Character::with);
    admin.stdio(plan, trouble.name, &character).await?;
    admin.publish(trouble.name, &[trouble.name]).await?;
    let Some((count, tool, arguments, every)) = &trouble.weight else { return Ok(None) };
    admin.until_ready(trouble.name).await?;
    let mut clients = Vec::new();
    for _ in 0..*count {
        clients.push(Client::connect(daemon, trouble.name, key).await?);
    }
    let tool = format!("{}__{tool}", trouble.name);
    Ok(Some(Weight::begin(clients, &tool, arguments, *every)))
}
