//! The figures of a bar, each with its target, and what follows from them.

use std::time::Duration;

use crate::rig::stats::percentile;

/// How many times its target a time may be on a machine that does other things too.
const TOLERANCE: f64 = 3.0;

/// How a figure is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A promise: broken is broken.
    Safety,
    /// A measure, which a busy machine moves.
    Measure,
}

/// On which side of its target a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    AtMost,
    AtLeast,
}

/// One figure of a bar.
#[derive(Clone, Debug)]
struct Figure {
    what: String,
    value: f64,
    target: f64,
    unit: &'static str,
    /// Of how many, where it is a count.
    of: Option<usize>,
    kind: Kind,
    side: Side,
}

/// What a bar found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
    notes: Vec<String>,
}

impl Report {
    /// A promise that something never happens: how often it did, of how many times that it could have.
    pub fn never(&mut self, what: impl Into<String>, count: usize, of: usize) {
        let (value, of) = (count as f64, Some(of));
        self.add(what, value, 0.0, "", of, Kind::Safety, Side::AtMost);
    }

    /// A promise with a bound.
    pub fn bound(&mut self, what: impl Into<String>, value: f64, at_most: f64, unit: &'static str) {
        self.add(what, value, at_most, unit, None, Kind::Safety, Side::AtMost);
    }

    /// A time that is to be short.
    pub fn time(&mut self, what: impl Into<String>, value: Duration, at_most: Duration) {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        self.add(what, ms(value), ms(at_most), "ms", None, Kind::Measure, Side::AtMost);
    }

    /// A percentile of times; `part` is 0.5 or 0.99.
    pub fn percentile(&mut self, what: &str, times: &[Duration], part: f64, at_most: Duration) {
        let name = format!("{what} p{:.0} (n={})", part * 100.0, times.len());
        self.time(name, percentile(times, part), at_most);
    }

    /// A measure that is to be small.
    pub fn at_most(
        &mut self,
        what: impl Into<String>,
        value: f64,
        target: f64,
        unit: &'static str,
    ) {
        self.add(what, value, target, unit, None, Kind::Measure, Side::AtMost);
    }

    /// A measure that is to be large.
    pub fn at_least(
        &mut self,
        what: impl Into<String>,
        value: f64,
        target: f64,
        unit: &'static str,
    ) {
        self.add(what, value, target, unit, None, Kind::Measure, Side::AtLeast);
    }

    /// Something to know, which is not judged.
    pub fn note(&mut self, words: impl Into<String>) {
        self.notes.push(words.into());
    }

    #[expect(clippy::too_many_arguments, reason = "it makes a record, field by field")]
    fn add(
        &mut self,
        what: impl Into<String>,
        value: f64,
        target: f64,
        unit: &'static str,
        of: Option<usize>,
        kind: Kind,
        side: Side,
    ) {
        self.figures.push(Figure { what: what.into(), value, target, unit, of, kind, side });
    }

    /// Whether a promise is broken, or in a short run a measure is beyond all excuse.
    pub fn is_broken(&self, short: bool) -> bool {
        self.figures.iter().any(|figure| match figure.kind {
            Kind::Safety => !figure.holds(1.0),
            Kind::Measure => short && !figure.holds(TOLERANCE),
        })
    }

    pub fn print(&self, bar: &str) {
        for figure in &self.figures {
            let verdict = match (figure.holds(1.0), figure.kind) {
                (true, _) => "pass",
                (false, Kind::Measure) => "miss",
                (false, Kind::Safety) => "BROKEN",
            };
            println!(
                "{bar:4} {:52} {:>24} {:>16} {verdict}",
                figure.what,
                figure.value(),
                figure.target()
            );
        }
        for note in &self.notes {
            println!("{bar:4} {note}");
        }
    }
}

impl Figure {
    fn holds(&self, tolerance: f64) -> bool {
        match self.side {
            Side::AtMost => self.value <= self.target * tolerance,
            Side::AtLeast => self.value >= self.target / tolerance,
        }
    }

    fn value(&self) -> String {
        match self.of {
            Some(of) => format!("{} of {of}", self.value),
            None => format!("{} {}", rounded(self.value), self.unit),
        }
    }

    fn target(&self) -> String {
        let side = if self.side == Side::AtMost { "<=" } else { ">=" };
        format!("{side} {} {}", rounded(self.target), self.unit)
    }
}

/// Three digits are enough to compare by.
fn rounded(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_is_not_tolerated_and_a_slow_time_is() {
        let mut report = Report::default();
        report.time("slow", Duration::from_secs(2), Duration::from_secs(1));
        assert!(!report.is_broken(true));
        report.time("too slow", Duration::from_secs(4), Duration::from_secs(1));
        assert!(report.is_broken(true));
        assert!(!report.is_broken(false), "a full run reports times and judges safety");

        let mut report = Report::default();
        report.never("lost", 0, 100);
        assert!(!report.is_broken(false));
        report.never("repeated", 1, 100);
        assert!(report.is_broken(false));
    }

    #[test]
    fn what_is_to_be_large_is_judged_the_other_way() {
        let mut report = Report::default();
        report.at_least("answered", 40.0, 90.0, "%");
        assert!(!report.is_broken(true));
        report.at_least("answered", 20.0, 90.0, "%");
        assert!(report.is_broken(true));
    }
}
