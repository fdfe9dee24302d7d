//! The date, where something depends on it: ids outlive a run, and only a date says how old they are.
//!
//! A clock may jump by a day, and back. What it says then is held against the time that has passed since
//! this run began, and of the two whatever refuses nobody and forgets nothing holds.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

pub struct Calendar {
    /// What the clock said, and when.
    began: (OffsetDateTime, Instant),
}

/// The date by the clock, and by the time that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Today {
    clock: OffsetDateTime,
    counted: OffsetDateTime,
}

impl Calendar {
    pub fn new() -> Self {
        Self { began: (OffsetDateTime::now_utc(), Instant::now()) }
    }

    pub fn today(&self) -> Today {
        let (began, since) = self.began;
        Today {
            clock: OffsetDateTime::now_utc(),
            counted: began.saturating_add(signed(since.elapsed())),
        }
    }
}

impl Today {
    /// The date for what is made today: a date in the future makes nothing older than it is.
    pub fn for_new(self) -> OffsetDateTime {
        self.clock.max(self.counted)
    }

    /// How old something is at least.
    pub fn age_of(self, issued: OffsetDateTime) -> Duration {
        Duration::try_from(self.clock.min(self.counted) - issued).unwrap_or(Duration::ZERO)
    }

    /// How far in the future something was issued at least: by a run whose clock was ahead, or seen by one
    /// whose clock is behind.
    pub fn ahead_of(self, issued: OffsetDateTime) -> Duration {
        Duration::try_from(issued - self.clock.max(self.counted)).unwrap_or(Duration::ZERO)
    }

    /// What was issued before is older than `age`, whatever the clock does.
    pub fn before(self, age: Duration) -> OffsetDateTime {
        self.clock.min(self.counted).saturating_sub(signed(age))
    }
}

fn signed(duration: Duration) -> time::Duration {
    time::Duration::try_from(duration).unwrap_or(time::Duration::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HOUR: i64 = 3600;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_000_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_clock_that_jumps_makes_nothing_older_and_has_nothing_forgotten() {
        // An hour into the run, of something that was issued half an hour before.
        for jump in [0, HOUR, -HOUR, 24 * HOUR, -24 * HOUR] {
            let today = Today { clock: at(HOUR + jump), counted: at(HOUR) };
            assert!(today.for_new() >= at(HOUR), "{jump}");
            assert!(today.age_of(at(HOUR / 2)) <= Duration::from_secs(1800), "{jump}");
            assert!(today.before(Duration::from_secs(3600)) <= at(0), "{jump}");
            assert!(today.ahead_of(at(2 * HOUR)) <= Duration::from_secs(3600), "{jump}");
        }
        let today = Today { clock: at(HOUR), counted: at(HOUR) };
        assert_eq!(today.for_new(), at(HOUR));
        assert_eq!(today.age_of(at(0)), Duration::from_secs(3600));
        assert_eq!(today.before(Duration::from_secs(3600)), at(0));
        assert_eq!(today.age_of(at(2 * HOUR)), Duration::ZERO, "it comes from the future");
        assert_eq!(today.ahead_of(at(2 * HOUR)), Duration::from_secs(3600));
        assert_eq!(today.ahead_of(at(0)), Duration::ZERO);
    }

    #[test]
    fn a_machine_that_began_without_a_date_has_one_as_soon_as_it_is_told() {
        let today = Today { clock: at(0), counted: at(-50 * 365 * 24 * HOUR) };
        assert_eq!(today.for_new(), at(0));
    }

    #[test]
    fn no_age_is_too_much() {
        let today = Today { clock: at(0), counted: at(0) };
        assert!(today.before(Duration::MAX) < at(0));
    }
}
