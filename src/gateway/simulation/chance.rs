//! Where everything random in a run comes from: one number, the seed.
//!
//! Everyone draws from a stream of their own, so that who is woken first changes nobody's fate.

use std::{cell::Cell, time::Duration};

/// One stream of random numbers (SplitMix64).
pub struct Chance(Cell<u64>);

impl Chance {
    /// `whose` tells the streams of one seed apart.
    pub fn new(seed: u64, whose: u64) -> Self {
        let mixed =
            seed.wrapping_mul(0xa076_1d64_78bd_642f) ^ whose.wrapping_mul(0xe703_7ed1_a0b4_28db);
        let chance = Self(Cell::new(mixed));
        // Neighbouring seeds begin alike; after the first number they have nothing in common.
        chance.number();
        chance
    }

    fn number(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..count`.
    pub fn below(&self, count: usize) -> usize {
        let count = u64::try_from(count.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.number() % count).unwrap_or_default()
    }

    /// In `0.0..1.0`.
    pub fn fraction(&self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True so many times in a thousand.
    pub fn in_thousand(&self, times: usize) -> bool {
        self.below(1_000) < times
    }

    /// So many milliseconds, or fewer.
    pub fn up_to(&self, milliseconds: usize) -> Duration {
        Duration::from_millis(u64::try_from(self.below(milliseconds + 1)).unwrap_or_default())
    }
}
