//! What a call through the gateway costs, beside a direct connection and beside nginx.
//!
//! `cargo build --release --workspace && target/release/bench-gateway` measures; `--short` only sees
//! that everything works. The ways are taken in turn, round after round, in one run: only so can they
//! be compared on a machine that does other things too. It prints and judges no time; a wrong answer
//! ends it with an error.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its report is what it is for")]

mod gateway;
mod load;
mod nginx;
mod peers;
mod process;
mod report;
mod stdio;

use std::time::Duration;

use clap::Parser;

use load::{Plan, Target};
use process::Usage;
use report::Row;

/// Measures calls through the gateway, directly, and through nginx, in turn.
#[derive(Debug, Parser)]
#[command(name = "bench-gateway")]
struct Options {
    /// How often each way is taken.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that each way is loaded in a round.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Connections, or calls at once over stdio.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// A smoke run: everything once, for a moment.
    #[arg(long)]
    short: bool,
    /// The upstream itself: this program, executed again.
    #[arg(long, hide = true)]
    upstream: bool,
}

/// What is said when something of the machine is in the way.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let options = Options::parse();
    if options.upstream {
        return peers::serve();
    }
    let (rounds, seconds) =
        if options.short { (1, 0.3) } else { (options.rounds, options.seconds) };
    let plan =
        Plan { lasts: Duration::from_secs_f64(seconds), connections: options.connections.max(1) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(rounds, &plan))
}

/// One way from a client to a tool.
enum Way {
    Http { name: &'static str, target: Target, middle: Option<u32> },
    Stdio { name: &'static str, server: stdio::Server },
}

async fn measure(rounds: usize, plan: &Plan) -> Outcome<()> {
    let upstream = peers::start()?;
    let nginx = nginx::start(upstream.port)?;
    if nginx.is_none() {
        println!("SKIPPED nginx: it is not installed, so there is nothing to compare with");
    }
    let gateway = gateway::start(upstream.port).await?;
    let pid = gateway.pid();

    let mut ways = vec![Way::Http {
        name: "HTTP direct",
        target: Target::direct(upstream.port),
        middle: None,
    }];
    if let Some(nginx) = &nginx {
        let target = Target::direct(nginx.port);
        ways.push(Way::Http { name: "HTTP nginx", target, middle: Some(nginx.worker()?) });
    }
    let to_http = gateway.target("http__echo").await?;
    ways.push(Way::Http { name: "HTTP gateway", target: to_http, middle: Some(pid) });
    ways.push(Way::Stdio { name: "STDIO direct", server: stdio::Server::start().await? });
    let to_stdio = gateway.target("stdio__echo").await?;
    ways.push(Way::Http { name: "STDIO gateway", target: to_stdio, middle: Some(pid) });
    let lists = gateway.target("").await?;
    ways.push(Way::Http { name: "lists gateway", target: lists, middle: Some(pid) });

    // Once for the connections, the sessions and the caches, which is not counted.
    let warm_up = Plan { lasts: plan.lasts / 5, ..*plan };
    let mut rows: Vec<Row> = Vec::new();
    let at_rest = process::resident(pid)?;
    for round in 0..=rounds {
        for (index, way) in ways.iter_mut().enumerate() {
            let plan = if round == 0 { &warm_up } else { plan };
            let (name, middle) = match way {
                Way::Http { name, middle, .. } => (*name, *middle),
                Way::Stdio { name, .. } => (*name, None),
            };
            let before = middle.map(Usage::of).transpose()?;
            let taken = match way {
                Way::Http { target, .. } => load::run(target, plan).await?,
                Way::Stdio { server, .. } => server.run(plan).await?,
            };
            let after = middle.map(Usage::of).transpose()?;
            let cpu = before.zip(after).map(|(before, after)| after.since(&before));
            if round == 0 {
                rows.push(Row::new(name));
            } else {
                rows[index].add(taken, cpu);
            }
        }
    }
    report::print(&rows, plan);
    println!(
        "memory of the gateway: {} MB at rest, {} MB after all rounds",
        at_rest / 1_000_000,
        process::resident(pid)? / 1_000_000,
    );
    if let Some(nginx) = &nginx {
        let resident = process::resident(nginx.worker()?)?;
        println!("memory of nginx's worker: {} MB", resident / 1_000_000);
    }
    if let Some(ratio) = report::ratio(&rows, "HTTP gateway", "HTTP nginx") {
        println!("CPU of a call through the gateway: {ratio:.2} times nginx's");
    }
    gateway.stop()?;
    Ok(())
}
