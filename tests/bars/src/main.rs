//! Holds the daemon to its bars: figures of reliability, each with its target, measured under fire.
//!
//! `cargo build --release --workspace && target/release/bars all` takes every bar in its full size;
//! `--short` takes sizes that fit a run of CI. A bar prints each of its figures with its target. The
//! program fails when a promise of safety was broken, of which there is no little, or, with `--short`,
//! when a time was more than three times what it should be: the machine may be busy, but not that busy.
//! What is random comes from a seed that is printed; `SEED=` has the same again.
//!
//! A bar is a file in [`bars`] with a [`bars::Bar`] in it, and a line in [`bars::ALL`]. What bars have in
//! common is in [`rig`].
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its report is what it is for")]

mod bars;
mod report;
mod rig;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

use bars::Bar;
use report::Report;

/// What is said when something of the machine, or of the daemon, is in the way of a bar.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures how reliable the daemon is, and judges it.
#[derive(Debug, Parser)]
#[command(name = "bars")]
struct Options {
    /// The bars: B1, B4, …; `all` of them, or `list` to see which there are.
    #[arg(required = true)]
    bars: Vec<String>,
    /// Sizes that fit a run of CI.
    #[arg(long)]
    short: bool,
    /// The daemon; the one beside this program unless given.
    #[arg(long)]
    daemon: Option<PathBuf>,
    /// A daemon that was built with debug assertions, for the bars that make it panic; that of
    /// `target/debug` unless given.
    #[arg(long)]
    debug_daemon: Option<PathBuf>,
    /// How long the soak lasts, instead of what its size says.
    #[arg(long)]
    minutes: Option<u64>,
}

/// What every bar is told.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whether the sizes are those of CI.
    pub short: bool,
    /// Where everything random comes from.
    pub seed: u64,
    /// The daemon that is measured.
    pub daemon: PathBuf,
    /// The daemon that can be asked to panic. It may be missing.
    pub debug_daemon: PathBuf,
    /// How long the soak lasts, where that was asked for.
    pub minutes: Option<u64>,
    /// The server that misbehaves.
    pub evil: PathBuf,
}

impl Plan {
    /// The size for CI, or the full one.
    pub fn size(&self, short: usize, full: usize) -> usize {
        if self.short { short } else { full }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("bars: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Takes the bars one after the other; whether none of them was broken.
fn run(options: &Options) -> Outcome<bool> {
    if options.bars.iter().any(|name| name == "list") {
        bars::ALL.iter().for_each(|bar| println!("{:4} {}", bar.name, bar.about));
        return Ok(true);
    }
    let wanted = wanted(&options.bars)?;
    let program = std::env::current_exe()?;
    let plan = Plan {
        short: options.short,
        seed: evil_mcp::dice::seed(),
        daemon: options.daemon.clone().unwrap_or_else(|| program.with_file_name("metamcpd")),
        debug_daemon: options
            .debug_daemon
            .clone()
            .unwrap_or_else(|| program.with_file_name("../debug/metamcpd")),
        minutes: options.minutes,
        evil: program.with_file_name("evil-mcp"),
    };
    for needed in [&plan.daemon, &plan.evil] {
        if !needed.is_file() {
            let words = "is missing: cargo build --release --workspace";
            return Err(format!("{} {words}", needed.display()).into());
        }
    }
    rig::host::allow_descriptors()?;
    println!("SEED={}{}", plan.seed, if plan.short { " (short)" } else { "" });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut holds = true;
    for bar in wanted {
        let began = Instant::now();
        let mut report = Report::default();
        // A bar that could not be taken was not held.
        let taken = runtime.block_on((bar.run)(&plan, &mut report));
        report.print(bar.name);
        if let Err(problem) = &taken {
            println!("{:4} could not be taken to its end: {problem}", bar.name);
        }
        let secs = Duration::from_secs(began.elapsed().as_secs());
        println!("{:4} {}, in {secs:?}", bar.name, bar.about);
        holds &= taken.is_ok() && !report.is_broken(plan.short);
    }
    Ok(holds)
}

fn wanted(names: &[String]) -> Outcome<Vec<&'static Bar>> {
    if names.iter().any(|name| name == "all") {
        return Ok(bars::ALL.iter().collect());
    }
    let find = |name: &String| {
        let found = bars::ALL.iter().find(|bar| bar.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("there is no bar {name}; `bars list` shows them").into())
    };
    names.iter().map(find).collect()
}
