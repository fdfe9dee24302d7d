//! What rests are spread by, so that upstreams which failed together do not return together.

use std::rc::Rc;

/// Rolls numbers in `0.0..1.0`. Nothing secret depends on them.
#[derive(Clone)]
pub struct Dice(Rc<dyn Fn() -> f64>);

impl Dice {
    /// Dice that somebody else rolls.
    pub fn of(roll: impl Fn() -> f64 + 'static) -> Self {
        Self(Rc::new(roll))
    }

    pub fn roll(&self) -> f64 {
        (self.0)()
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::of(random)
    }
}

/// A number of the usual dice.
pub fn random() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_no_entropy) => 0.5,
    }
}
