//! The sessions that have ended, for as long as their ids could still be presented.
//!
//! An id says by itself that it is good; that its session is over, only this says. It never forgets
//! one for lack of room: what goes takes everything of its age with it, and none of that is revived.

use std::collections::BTreeSet;

use time::OffsetDateTime;
use uuid::Uuid;

/// What an ended session is known by: the random part of its id, and when that was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub issued: OffsetDateTime,
    pub id: Uuid,
}

#[derive(Debug)]
pub struct Tombstones {
    /// By age, the oldest first.
    marks: BTreeSet<Mark>,
    /// Of what was issued until then, nothing is known any more.
    unknown_until: Option<OffsetDateTime>,
    max: usize,
}

impl Tombstones {
    /// `known` may be more than `max`, in any order.
    pub fn new(max: usize, known: impl IntoIterator<Item = Mark>) -> Self {
        let mut tombstones = Self { marks: BTreeSet::new(), unknown_until: None, max: max.max(1) };
        known.into_iter().for_each(|mark| tombstones.add(mark));
        tombstones
    }

    pub fn add(&mut self, mark: Mark) {
        self.marks.insert(mark);
        while self.marks.len() > self.max
            && let Some(oldest) = self.marks.pop_first()
        {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "sessions.tombstones_max")
                .increment(1);
            self.unknown_until = self.unknown_until.max(Some(oldest.issued));
        }
    }

    /// Whether the session is over, or may be.
    pub fn holds(&self, mark: &Mark) -> bool {
        self.unknown_until.is_some_and(|until| mark.issued <= until) || self.marks.contains(mark)
    }

    /// Drops those whose ids are too old to be presented.
    pub fn forget(&mut self, issued_before: OffsetDateTime) {
        self.marks = self.marks.split_off(&Mark { issued: issued_before, id: Uuid::nil() });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn mark(seconds: i64) -> Mark {
        let issued = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        Mark { issued, id: Uuid::from_u128(seconds.unsigned_abs().into()) }
    }

    #[test]
    fn who_is_buried_stays_so_until_the_id_is_too_old() {
        let mut tombstones = Tombstones::new(8, [mark(10)]);
        tombstones.add(mark(20));
        assert!(tombstones.holds(&mark(10)) && tombstones.holds(&mark(20)));
        assert!(!tombstones.holds(&mark(15)));
        assert!(!tombstones.holds(&Mark { id: Uuid::nil(), ..mark(10) }), "of the same second");
        tombstones.forget(mark(15).issued);
        assert!(!tombstones.holds(&mark(10)) && tombstones.holds(&mark(20)));
    }

    #[test]
    fn with_more_than_there_is_room_for_nothing_that_has_ended_is_taken_for_living() {
        let mut tombstones = Tombstones::new(2, [mark(30), mark(10), mark(20)]);
        assert!(tombstones.holds(&mark(10)), "it was dropped, and is over all the same");
        assert!(tombstones.holds(&mark(5)), "nobody knows about what is older");
        assert!(!tombstones.holds(&mark(15)));
        tombstones.add(mark(40));
        assert!(tombstones.holds(&mark(20)) && tombstones.holds(&mark(15)));
        assert!(!tombstones.holds(&mark(25)));
    }
}
