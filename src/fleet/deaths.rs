//! How long an upstream's supervisor that has panicked stays dead: not at all the first time, and longer
//! each time that it does so again at once.

use std::time::Duration;

use tokio::time::Instant;

/// The rest after the second death, which doubles with each further one.
const REST_MIN: Duration = Duration::from_millis(500);

/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(60);

/// Who lived for so long after a death is forgiven it.
const STEADY: Duration = Duration::from_secs(60);

/// The deaths of one supervisor.
#[derive(Clone, Debug, Default)]
pub struct Deaths {
    count: u32,
    /// When the last one was noticed, until it is made up for.
    noticed: Option<Instant>,
    revived: Option<Instant>,
}

impl Deaths {
    /// Whether one that is dead is to be made anew now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if self.noticed.is_none() && self.revived.is_some_and(|at| now - at >= STEADY) {
            self.count = 0;
        }
        let noticed = *self.noticed.get_or_insert(now);
        let doublings = self.count.saturating_sub(1).min(16);
        let rest = match self.count {
            0 => Duration::ZERO,
            _ => REST_MIN.saturating_mul(1 << doublings).min(REST_MAX),
        };
        now >= noticed + rest
    }

    /// It was.
    pub fn revive(&mut self, now: Instant) {
        *self = Self { count: self.count.saturating_add(1), noticed: None, revived: Some(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_dies_again_at_once_rests_longer_each_time_and_who_lived_well_does_not() {
        let mut deaths = Deaths::default();
        let mut now = Instant::now();
        assert!(deaths.is_due(now));
        deaths.revive(now);
        for rest in [500, 1_000, 2_000, 4_000].map(Duration::from_millis) {
            assert!(!deaths.is_due(now));
            assert!(!deaths.is_due(now + rest - Duration::from_millis(1)));
            now += rest;
            assert!(deaths.is_due(now));
            deaths.revive(now);
        }
        now += STEADY;
        assert!(deaths.is_due(now), "it is forgiven");
        for _ in 0..40 {
            deaths.revive(now);
        }
        assert!(!deaths.is_due(now));
        assert!(deaths.is_due(now + REST_MAX), "and it is tried for ever");
    }
}
