//! The ring as tables of what comes in and what is still there.

use time::{Duration, macros::datetime};

use super::*;

const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
const ONE: Uuid = Uuid::from_u128(1);
const TWO: Uuid = Uuid::from_u128(2);

fn options() -> LogOptions {
    LogOptions {
        entries_max: 1_000,
        bytes_max: 1 << 20,
        per_source_max: 1_000,
        message_max: 100,
        burst: 1_000_000,
        rate: 10,
        buffer: 1,
        persist: false,
    }
}

fn at(seconds: i64) -> OffsetDateTime {
    NOON + Duration::seconds(seconds)
}

fn said(server: Uuid, kind: Kind, message: &str) -> Said {
    let name = if server == ONE { "one" } else { "two" };
    Said::new(Level::Info, kind, Some(About { uuid: server, name }), message.to_owned())
}

fn messages(ring: &Ring, filter: &Filter) -> Vec<String> {
    ring.all(filter).iter().map(|entry| entry.said.message.clone()).collect()
}

fn of(server: Uuid) -> Filter {
    Filter { server: Some(server), ..Filter::default() }
}

#[test]
fn ids_only_grow_whatever_the_clock_does() {
    let mut ring = Ring::new(options());
    let times = [0, 0, 5, -60, 1];
    let ids = times.map(|time| {
        ring.take(at(time), said(ONE, Kind::Call, "x")).entry.map_or(0, |entry| entry.id)
    });
    assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");

    let last = ring.last_id();
    let mut next_run = Ring::new(options());
    let kept = ring.all(&Filter::default());
    assert!(next_run.restore(kept.iter().map(|entry| (**entry).clone()).collect()).is_empty());
    let entry = next_run.take(at(-3_600), said(ONE, Kind::Call, "y")).entry;
    assert!(entry.is_some_and(|entry| entry.id > last));
}

#[test]
fn a_server_that_floods_leaves_the_others_entries_and_its_own_transitions() {
    let mut ring = Ring::new(LogOptions { per_source_max: 10, burst: 50, ..options() });
    ring.take(at(0), said(TWO, Kind::Stderr, "two writes"));
    ring.take(at(0), said(ONE, Kind::Transition, "one has failed"));
    ring.take(at(0), said(ONE, Kind::Call, "a call has failed"));
    let (mut taken, mut gone) = (0, 0);
    for number in 0..100_000 {
        let outcome = ring.take(at(1), said(ONE, Kind::Stderr, &number.to_string()));
        taken += usize::from(outcome.entry.is_some());
        gone += outcome.gone.len();
    }
    assert_eq!((taken, gone), (50, 40), "a burst, of which the last ten are kept");
    assert_eq!(messages(&ring, &of(TWO)), ["two writes"]);
    let kept = messages(&ring, &of(ONE));
    assert_eq!(kept[..2], ["one has failed", "a call has failed"]);
    assert_eq!(kept[2..].len(), 10);

    // What was left out is told by the next entry, once.
    let next = ring.take(at(2), said(ONE, Kind::Stderr, "calm")).entry;
    assert_eq!(next.map(|entry| entry.said.dropped), Some(100_000 - 50));
    let next = ring.take(at(3), said(ONE, Kind::Stderr, "calm")).entry;
    assert_eq!(next.map(|entry| entry.said.dropped), Some(0));
}

#[test]
fn what_was_left_out_at_the_end_of_a_flood_is_told_although_nothing_follows() {
    let mut ring = Ring::new(LogOptions { burst: 1, rate: 1, ..options() });
    for _ in 0..5 {
        ring.take(at(0), said(ONE, Kind::Stderr, "x"));
    }
    assert!(ring.settle(at(0)).is_empty(), "not while it floods");
    let told = ring.settle(at(10));
    let told: Vec<_> = told.into_iter().filter_map(|taken| taken.entry).collect();
    assert_eq!(told.len(), 1);
    let Said { dropped, level, kind, server, message, .. } = &told[0].said;
    assert_eq!((*dropped, *level, *kind), (4, Level::Warn, Kind::Stderr));
    assert_eq!(server.as_deref(), Some("one"));
    assert!(message.contains("logs.rate"), "{message}");
    assert!(ring.settle(at(20)).is_empty());
}

#[test]
fn when_all_is_full_the_largest_source_makes_room() {
    let mut ring = Ring::new(LogOptions { entries_max: 10, ..options() });
    for number in 0..9 {
        ring.take(at(number), said(ONE, Kind::Stderr, &number.to_string()));
    }
    let mut gone = Vec::new();
    for number in 0..4 {
        gone.extend(ring.take(at(10), said(TWO, Kind::Stderr, &number.to_string())).gone);
    }
    assert_eq!(gone.iter().map(|(_, limit)| *limit).collect::<Vec<_>>(), [Limit::Entries; 3]);
    assert_eq!(messages(&ring, &of(ONE)), ["3", "4", "5", "6", "7", "8"]);
    assert_eq!(messages(&ring, &of(TWO)), ["0", "1", "2", "3"]);
}

#[test]
fn memory_is_bounded_too() {
    let long = "x".repeat(100);
    let bytes = said(ONE, Kind::Stderr, &long).bytes();
    let mut ring = Ring::new(LogOptions { bytes_max: bytes * 3, ..options() });
    ring.take(at(0), said(TWO, Kind::Stderr, ""));
    for number in 0..10 {
        let taken = ring.take(at(number), said(ONE, Kind::Stderr, &long));
        assert!(taken.gone.iter().all(|(_, limit)| *limit == Limit::Bytes));
    }
    assert_eq!(messages(&ring, &of(ONE)).len(), 2);
    assert_eq!(messages(&ring, &of(TWO)).len(), 1);
    let cut = ring.take(at(11), said(ONE, Kind::Call, &"é".repeat(100))).entry;
    assert_eq!(cut.map(|entry| entry.said.message.len()), Some(100 + '…'.len_utf8()));
}

#[test]
fn a_filter_asks_for_server_level_kind_and_time() {
    let mut ring = Ring::new(options());
    let mut ids = Vec::new();
    for (time, server, kind, level) in [
        (0, ONE, Kind::Stderr, Level::Debug),
        (1, ONE, Kind::Call, Level::Error),
        (2, TWO, Kind::Transition, Level::Warn),
        (3, TWO, Kind::Stderr, Level::Info),
    ] {
        let taken = ring.take(at(time), Said { level, ..said(server, kind, &time.to_string()) });
        ids.extend(taken.entry.map(|entry| entry.id));
    }
    let all = Filter::default();
    for (filter, expected) in [
        (all.clone(), &["0", "1", "2", "3"][..]),
        (of(ONE), &["0", "1"]),
        (Filter { level: Some(Level::Warn), ..all.clone() }, &["1", "2"]),
        (Filter { level: Some(Level::Debug), ..all.clone() }, &["0", "1", "2", "3"]),
        (Filter { kinds: vec![Kind::Stderr], ..all.clone() }, &["0", "3"]),
        (Filter { kinds: vec![Kind::Call, Kind::Transition], ..all.clone() }, &["1", "2"]),
        (Filter { since: Some(Since::Time(at(2))), ..all.clone() }, &["2", "3"]),
        (Filter { since: Some(Since::Entry(ids[2])), ..all.clone() }, &["3"]),
        (Filter { level: Some(Level::Error), ..of(TWO) }, &[]),
    ] {
        assert_eq!(messages(&ring, &filter), expected, "{filter:?}");
    }
    assert_eq!(ring.server("two"), Some(TWO));
    assert_eq!(ring.server(&ONE.to_string()), Some(ONE));
    assert_eq!(ring.server("three"), None);
}

#[test]
fn pages_go_back_in_time_without_a_gap_while_new_entries_come() {
    let mut ring = Ring::new(options());
    for number in 0..5 {
        ring.take(at(number), said(ONE, Kind::Stderr, &number.to_string()));
    }
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let (page, more) = ring.page(&Filter::default(), before, 2);
        seen.extend(page.iter().map(|entry| entry.said.message.clone()));
        before = page.last().map(|entry| entry.id);
        ring.take(at(9), said(TWO, Kind::Stderr, "new"));
        if !more {
            break;
        }
    }
    assert_eq!(seen, ["4", "3", "2", "1", "0"]);
}

#[test]
fn clearing_forgets_one_server_or_all_and_frees_what_they_took() {
    let mut ring = Ring::new(options());
    ring.take(at(0), said(ONE, Kind::Stderr, "x"));
    ring.take(at(0), said(TWO, Kind::Stderr, "y"));
    assert_eq!(ring.clear(Some(ONE)).len(), 1);
    assert_eq!(messages(&ring, &Filter::default()), ["y"]);
    let last = ring.last_id();
    assert_eq!(ring.clear(None).len(), 1);
    assert_eq!((ring.bytes, ring.sources.len(), ring.last_id()), (0, 0, last));
}

#[test]
fn what_an_earlier_run_has_kept_is_taken_up_within_the_limits_of_this_one() {
    let mut ring = Ring::new(options());
    for number in 0..6 {
        ring.take(at(number), said(ONE, Kind::Stderr, &number.to_string()));
    }
    let kept: Vec<_> = ring.all(&Filter::default()).iter().map(|one| (**one).clone()).collect();
    let mut next = Ring::new(LogOptions { per_source_max: 4, ..options() });
    let gone = next.restore(kept.clone());
    assert_eq!(gone, [(kept[0].id, Limit::PerSource), (kept[1].id, Limit::PerSource)]);
    assert_eq!(messages(&next, &Filter::default()), ["2", "3", "4", "5"]);
}

#[test]
fn whether_an_entry_comes_too_fast_is_known_before_it_is_made() {
    let mut ring = Ring::new(LogOptions { burst: 2, rate: 1, ..options() });
    let about = || Some(About { uuid: ONE, name: "one" });
    let admitted: Vec<bool> = (0..4).map(|_| ring.admits(at(0), Kind::Stderr, about())).collect();
    assert_eq!(admitted, [true, true, false, false]);
    // Forgotten meanwhile.
    ring.clear(Some(ONE));
    let taken = ring.take_admitted(at(0), said(ONE, Kind::Stderr, "x"));
    assert!(taken.entry.is_some_and(|entry| entry.said.dropped == 0));
    assert!(!ring.admits(at(0), Kind::Stderr, about()));
    assert!(ring.admits(at(1), Kind::Stderr, about()));
    let taken = ring.take_admitted(at(1), said(ONE, Kind::Stderr, "y"));
    assert!(taken.entry.is_some_and(|entry| entry.said.dropped == 1));
}
