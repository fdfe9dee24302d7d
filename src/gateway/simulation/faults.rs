//! What goes wrong in a run, and when.

use std::cell::Cell;

use super::chance::Chance;

/// What happens to a server at one point of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its process is gone.
    Dies,
    /// Our own worker of it panics.
    Panics,
    /// It reads and says nothing any more.
    Hangs,
}

impl Fault {
    pub const ALL: [Self; 3] = [Self::Dies, Self::Panics, Self::Hangs];
}

/// By which rule things go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Never,
    /// At any point, so many times in a thousand.
    Often(usize),
    /// At this point and no other, the first being 1.
    At(usize, Fault),
}

/// Counts the points at which something can go wrong.
pub struct Faults {
    plan: Cell<Plan>,
    points: Cell<usize>,
}

impl Faults {
    pub fn new(plan: Plan) -> Self {
        Self { plan: Cell::new(plan), points: Cell::new(0) }
    }

    /// Comes by a point. What goes wrong there, if anything does.
    pub fn point(&self, chance: &Chance) -> Option<Fault> {
        self.points.set(self.points.get() + 1);
        match self.plan.get() {
            Plan::Never => None,
            Plan::Often(times) => {
                let strikes = chance.in_thousand(times);
                let fault = Fault::ALL[chance.below(Fault::ALL.len())];
                strikes.then_some(fault)
            }
            Plan::At(point, fault) => (point == self.points.get()).then_some(fault),
        }
    }

    /// Whether anything may still go wrong, so that everybody may misbehave.
    pub fn are_on(&self) -> bool {
        matches!(self.plan.get(), Plan::Often(_))
    }

    pub fn stop(&self) {
        self.plan.set(Plan::Never);
    }

    /// How many points there were.
    pub fn points(&self) -> usize {
        self.points.get()
    }
}
