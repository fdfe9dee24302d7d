//! The table in which the ways stand beside each other.

use std::time::Duration;

use super::load::{Plan, Taken};

/// All rounds of one way.
#[derive(Debug)]
pub struct Row {
    name: &'static str,
    /// Calls a second, by round.
    rates: Vec<f64>,
    /// CPU time of a call in the process between, in µs, by round.
    cpu: Vec<f64>,
    times: Vec<Duration>,
}

impl Row {
    pub fn new(name: &'static str) -> Row {
        Row { name, rates: Vec::new(), cpu: Vec::new(), times: Vec::new() }
    }

    pub fn add(&mut self, taken: Taken, cpu: Option<Duration>) {
        let calls = taken.times.len() as f64;
        self.rates.push(calls / taken.lasted.as_secs_f64());
        self.cpu.extend(cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / calls.max(1.0)));
        self.times.extend(taken.times);
    }

    /// The time within which this part of all calls was answered, in ms.
    fn percentile(&self, sorted: &[Duration], part: f64) -> f64 {
        let index = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// The middle one, which a single bad round does not move.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// How many times the CPU of `base` a call by `name` costs: the median of the rounds' own ratios.
pub fn ratio(rows: &[Row], name: &str, base: &str) -> Option<f64> {
    let cpu = |name| rows.iter().find(|row| row.name == name).map(|row| &row.cpu);
    let ratios: Vec<f64> =
        cpu(name)?.iter().zip(cpu(base)?).map(|(one, other)| one / other).collect();
    median(&ratios)
}

pub fn print(rows: &[Row], plan: &Plan) {
    println!(
        "{} at once, {:?} a round, the rounds' median; CPU is that of the process between",
        plan.connections, plan.lasts
    );
    println!(
        "{:14} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "way", "calls/s", "p50 ms", "p95 ms", "p99 ms", "CPU us"
    );
    for row in rows {
        let mut sorted = row.times.clone();
        sorted.sort_unstable();
        let cpu = median(&row.cpu).map_or("-".to_owned(), |cpu| format!("{cpu:.1}"));
        println!(
            "{:14} {:>9.0} {:>9.2} {:>9.2} {:>9.2} {:>9}",
            row.name,
            median(&row.rates).unwrap_or(f64::NAN),
            row.percentile(&sorted, 0.5),
            row.percentile(&sorted, 0.95),
            row.percentile(&sorted, 0.99),
            cpu,
        );
    }
}
