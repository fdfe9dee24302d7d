//! B25: the cores of the gateway keep their promises under random faults in virtual time, whatever the seed.

use std::process::{Command, Stdio};

use super::{Bar, Run};
use crate::{Outcome, Plan, report::Report};

pub const BAR: Bar = Bar {
    name: "B25",
    about: "the simulation breaks no promise, whatever its seed",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// What the simulation says when it is through: `2000 seeds, 51234 calls, 40123 of them answered, …`.
const THROUGH: &str = " seeds, ";

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let seeds = plan.size(2_000, 10_000);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let words = ["test", "--locked", "--package", "metamcpd", "--lib", "simulation"];
    let ended = Command::new(cargo)
        .args(words)
        .args(["--", "--nocapture"])
        .current_dir(root)
        .env("SEEDS", seeds.to_string())
        // There it would mean one run, told line by line.
        .env_remove("SEED")
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    if !said.contains("test result:") {
        let end: Vec<&str> = told.lines().rev().take(5).collect();
        return Err(format!("the simulation was not run: {end:?}").into());
    }
    let figure = told.lines().find(|line| line.contains(THROUGH));
    let run: usize = match figure.and_then(|line| line.split(' ').next()) {
        Some(count) => count.parse()?,
        None => 0,
    };
    let broken = told.lines().filter(|line| is_broken_promise(line)).count();
    report.never("broken promises", broken.max(usize::from(!ended.status.success())), seeds);
    report.bound("seeds that were not run to their end", (seeds - run.min(seeds)) as f64, 0.0, "");
    report.note(figure.unwrap_or("it did not come to its end").to_owned());
    for line in told.lines().filter(|line| is_broken_promise(line)).take(5) {
        report.note(line.to_owned());
    }
    Ok(())
}

/// Whether it is the name of a run in which something was wrong: `SEED=7: [` or `Cut at point 3: [`.
fn is_broken_promise(line: &str) -> bool {
    let named = line.starts_with("SEED=") || line.contains(" at point ");
    named && line.ends_with(": [")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_is_told_from_other_words() {
        assert!(is_broken_promise("SEED=7: ["));
        assert!(is_broken_promise("Cut at point 3: ["));
        assert!(!is_broken_promise("2000 seeds, 5 calls, 5 of them answered, no promise broken"));
    }
}
