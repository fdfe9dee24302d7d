//! How long what panicked stays dead: not at all the first time, and longer each time that it does so
//! again at once. It is made anew for ever.

use std::time::Duration;

use tokio::time::Instant;

use crate::upstream::lifecycle::Patience;

/// The deaths of one actor that somebody makes anew.
#[derive(Clone, Debug, Default)]
pub struct Deaths {
    count: u32,
    /// When the last one was noticed, until it is made up for.
    noticed: Option<Instant>,
    revived: Option<Instant>,
}

impl Deaths {
    /// It is dead. Whether that is news.
    ///
    /// Who lived for `steady_after` since it was made anew is forgiven what was before.
    pub fn notice(&mut self, now: Instant, patience: &Patience) -> bool {
        if self.noticed.is_some() {
            return false;
        }
        if self.revived.is_some_and(|at| now.saturating_duration_since(at) >= patience.steady_after)
        {
            self.count = 0;
        }
        self.noticed = Some(now);
        true
    }

    /// Whether one that was noticed to be dead is to be made anew now. The rest after the second death is
    /// `backoff_min`, and doubles up to `backoff_max`; nobody else rests with it, so no dice are rolled.
    pub fn is_due(&self, now: Instant, patience: &Patience) -> bool {
        let doublings = self.count.saturating_sub(1).min(16);
        let rest = match self.count {
            0 => Duration::ZERO,
            _ => patience.backoff_min.saturating_mul(1 << doublings).min(patience.backoff_max),
        };
        self.noticed.is_some_and(|noticed| now >= noticed + rest)
    }

    /// It was.
    pub fn revive(&mut self, now: Instant) {
        *self = Self { count: self.count.saturating_add(1), noticed: None, revived: Some(now) };
    }

    /// Somebody has changed what it may have died of: the next rest is a first one.
    pub fn hurry(&mut self) {
        self.count = 0;
    }

    /// Whether it has died since it was last steady, so that one more death is no news.
    pub fn is_burst(&self) -> bool {
        self.count > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEADY: Duration = Duration::from_secs(60);

    fn patience() -> Patience {
        Patience {
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(3),
            steady_after: STEADY,
            ..crate::upstream::testing::patience()
        }
    }

    #[test]
    fn who_dies_again_at_once_rests_longer_each_time_and_who_lived_well_does_not() {
        let (mut deaths, patience) = (Deaths::default(), patience());
        let mut now = Instant::now();
        assert!(!deaths.is_due(now, &patience), "it lives");
        assert!(deaths.notice(now, &patience) && !deaths.notice(now, &patience));
        assert!(deaths.is_due(now, &patience) && !deaths.is_burst());
        deaths.revive(now);
        for rest in [500, 1_000, 2_000, 3_000, 3_000].map(Duration::from_millis) {
            assert!(deaths.notice(now, &patience) && deaths.is_burst());
            assert!(!deaths.is_due(now, &patience));
            assert!(!deaths.is_due(now + rest - Duration::from_millis(1), &patience));
            now += rest;
            assert!(deaths.is_due(now, &patience));
            deaths.revive(now);
        }
        now += STEADY - Duration::from_millis(1);
        let mut unsteady = deaths.clone();
        assert!(unsteady.notice(now, &patience));
        assert!(!unsteady.is_due(now, &patience));
        unsteady.hurry();
        assert!(unsteady.is_due(now, &patience), "somebody has changed it");
        now += Duration::from_millis(1);
        assert!(deaths.notice(now, &patience));
        assert!(deaths.is_due(now, &patience), "it is forgiven");
    }

    #[test]
    fn no_number_of_deaths_is_too_much_to_count() {
        let (mut deaths, patience, now) = (Deaths::default(), patience(), Instant::now());
        for _ in 0..40 {
            deaths.revive(now);
        }
        assert!(deaths.notice(now, &patience));
        assert!(!deaths.is_due(now, &patience));
        assert!(deaths.is_due(now + patience.backoff_max, &patience), "and it is tried for ever");
    }
}
