//! B7: a list does not wait for a server that is dead or hangs, and has the tools of all others.

use std::time::{Duration, Instant};

use evil_mcp::{Character, Fault, fault::Condition, value::Exit};
use futures_util::future::try_join_all;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Client, Daemon, SOON, host, publish, stats::percentile},
};

pub const BAR: Bar = Bar {
    name: "B7",
    about: "a list with one of twenty servers dead or hung is whole but for it, and quick",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

const SERVERS: usize = 20;

/// Clients that ask for a cold list at once.
const AT_ONCE: usize = 50;

/// A list of the servers whose tools are in it.
fn listed(answer: &Value, servers: &[String]) -> usize {
    let tools = answer["result"]["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let has = |server: &String| {
        let name = json!(format!("{server}__echo"));
        tools.iter().any(|tool| tool["name"] == name)
    };
    servers.iter().filter(|server| has(server)).count()
}

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let daemon = Daemon::start(plan, "").await?;
    let mut admin = daemon.admin().await?;
    let good: Vec<String> = (0..SERVERS).map(|number| format!("good{number}")).collect();
    for name in &good {
        admin.stdio(plan, name, &Character::good()).await?;
    }
    let key = publish(&mut admin, &good).await?;
    let others = &good[1..];

    // Cold: of the twentieth nothing was ever known.
    let rounds = plan.size(2, 10);
    let (mut cold, mut incomplete) = (Vec::new(), 0);
    for round in 0..rounds {
        let fault = match round % 2 {
            0 => Fault::HangInit,
            _ => Fault::ExitNow(Exit::Code(1)),
        };
        let name = format!("sick{round}");
        admin.stdio(plan, &name, &Character::good().with(fault)).await?;
        let members: Vec<&str> = others.iter().map(String::as_str).chain([name.as_str()]).collect();
        admin.publish(&name, &members).await?;
        let asked = (0..AT_ONCE).map(async |_| {
            let mut client = Client::connect(&daemon, &name, &key).await?;
            let began = Instant::now();
            let answer = client.request("tools/list", &json!({})).await?;
            Outcome::Ok((began.elapsed(), listed(&answer, others)))
        });
        for (took, count) in try_join_all(asked).await? {
            cold.push(took);
            incomplete += usize::from(count < others.len());
        }
        admin.change(&format!("mcp-servers/{name}"), json!({"enabled": false})).await?;
    }
    report.never("cold lists without all of the 19 others", incomplete, cold.len());
    report.percentile("cold list", &cold, 0.99, Duration::from_millis(2_200));

    // Warm: it was well once, and now it hangs.
    let switch = daemon.scratch().join("sick");
    let character = Character::good().with(Fault::HangInit).when(Condition::While(switch.clone()));
    admin.stdio(plan, "turncoat", &character).await?;
    let child = admin.pid_of("turncoat").await?;
    let members: Vec<String> = others.iter().cloned().chain(["turncoat".to_owned()]).collect();
    let names: Vec<&str> = members.iter().map(String::as_str).collect();
    admin.publish("warm", &names).await?;
    let mut healthy = Client::connect(&daemon, "all", &key).await?;
    let mut sick = Client::connect(&daemon, "warm", &key).await?;
    sick.request("tools/list", &json!({})).await?;
    std::fs::write(&switch, "")?;
    host::signal(child, Signal::KILL);
    admin.until("turncoat", SOON, |server| server["runtime"]["state"] != "READY").await?;

    let (mut well, mut ill, mut incomplete) = (Vec::new(), Vec::new(), 0);
    let asked = plan.size(500, 500);
    for _ in 0..asked {
        for (client, times, servers) in
            [(&mut healthy, &mut well, &good), (&mut sick, &mut ill, &members)]
        {
            let began = Instant::now();
            let answer = client.request("tools/list", &json!({})).await?;
            times.push(began.elapsed());
            incomplete += usize::from(listed(&answer, servers) < SERVERS);
        }
    }
    report.never("warm lists without all of the 20", incomplete, asked * 2);
    let (well, ill) = (percentile(&well, 0.99), percentile(&ill, 0.99));
    let ratio = ill.as_secs_f64() / well.as_secs_f64();
    report.at_most("warm list p99, of that of healthy servers", ratio, 1.5, "x");
    report.note(format!("warm p99 {ill:.1?}, of healthy servers {well:.1?}, n={asked} each"));
    Ok(())
}
