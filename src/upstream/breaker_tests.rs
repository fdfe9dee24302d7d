//! The circuit, told the time and the dice, and breakers that share their room.

use super::{Outcome::*, *};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const OPTIONS: BreakerOptions = BreakerOptions {
    failures: 3,
    failures_percent: 50,
    window_calls: 8,
    window: secs(30),
    open: secs(5),
    open_max: secs(20),
    ejected_percent_max: 50,
    retry_after_max: secs(300),
    retry_wait: secs(1),
};

/// A circuit whose dice spread nothing.
struct Story {
    circuit: Circuit,
    now: Uptime,
}

impl Story {
    fn begins() -> Self {
        Self { circuit: Circuit::new(), now: secs(1_000) }
    }

    fn admits(&mut self) -> Admission {
        self.circuit.admit(self.now, &OPTIONS)
    }

    fn ends(&mut self, is_probe: bool, outcome: Outcome) -> bool {
        let settled = self.circuit.settle(is_probe, outcome, self.now, || 0.5, &OPTIONS, || true);
        settled == Settled::Opened
    }

    fn opens(&mut self) {
        for _ in 0..3 {
            self.ends(false, Failure);
        }
        assert!(self.circuit.is_open());
    }
}

#[test]
fn failures_in_a_row_open_it_and_one_success_between_them_does_not() {
    let mut story = Story::begins();
    for outcome in [Failure, Failure, Success, Failure, Failure, Neither] {
        assert_eq!(story.admits(), Admission::Pass);
        assert!(!story.ends(false, outcome));
    }
    assert!(story.ends(false, Failure));
    assert_eq!(story.admits(), Admission::Open(secs(5)));
}

#[test]
fn half_of_many_calls_open_it_though_none_fail_in_a_row() {
    let mut story = Story::begins();
    for _ in 0..3 {
        assert!(!story.ends(false, Failure) && !story.ends(false, Success));
    }
    assert!(!story.ends(false, Failure), "seven are too few to tell by");
    // What is longer ago than the window is forgotten.
    story.now += secs(31);
    assert!(!story.ends(false, Success) && !story.ends(false, Failure));
    for _ in 0..2 {
        assert!(!story.ends(false, Success) && !story.ends(false, Failure));
    }
    assert!(!story.ends(false, Success));
    assert!(story.ends(false, Failure));
}

#[test]
fn a_thousand_calls_later_a_failure_counts_no_more() {
    let mut story = Story::begins();
    let calls = |times: usize, of: &'static [Outcome]| std::iter::repeat_n(of, times).flatten();
    let many = calls(250, &[Failure, Success, Success, Success]).chain(calls(1000, &[Success]));
    let many = many.chain(calls(300, &[Failure, Success]));
    for outcome in many {
        assert!(!story.ends(false, *outcome));
    }
}

#[test]
fn one_call_probes_it_while_the_others_wait_and_its_outcome_decides() {
    let mut story = Story::begins();
    story.opens();
    story.now += secs(5);
    assert_eq!(story.admits(), Admission::Probe);
    assert!(matches!(story.admits(), Admission::Open(_)));
    // Calls that began before it was opened say nothing of how it is now.
    assert!(!story.ends(false, Failure) && !story.ends(false, Success));
    assert!(matches!(story.admits(), Admission::Open(_)));
    assert!(!story.ends(true, Success));
    assert_eq!(story.admits(), Admission::Pass);
}

#[test]
fn each_probe_that_fails_doubles_the_rest_up_to_a_limit_and_a_success_begins_anew() {
    let mut story = Story::begins();
    story.opens();
    for rest in [5, 10, 20, 20] {
        assert_eq!(story.admits(), Admission::Open(secs(rest)));
        story.now += secs(rest);
        assert_eq!(story.admits(), Admission::Probe);
        assert!(story.ends(true, Failure));
    }
    story.now += secs(20);
    story.admits();
    story.ends(true, Success);
    story.opens();
    assert_eq!(story.admits(), Admission::Open(secs(5)));
}

#[test]
fn a_probe_that_is_taken_back_leaves_its_place_to_the_next_call() {
    let mut story = Story::begins();
    story.opens();
    story.now += secs(5);
    assert_eq!(story.admits(), Admission::Probe);
    assert!(!story.ends(true, Neither));
    assert_eq!(story.admits(), Admission::Probe);
}

#[test]
fn a_probe_that_takes_long_does_not_hold_back_the_others_for_as_long() {
    let mut story = Story::begins();
    story.opens();
    story.now += secs(5);
    assert_eq!(story.admits(), Admission::Probe);
    assert_eq!(story.admits(), Admission::Open(secs(1)));
    story.now += Duration::from_millis(4_700);
    assert_eq!(story.admits(), Admission::Open(Duration::from_millis(300)));
    story.now += Duration::from_millis(300);
    assert_eq!(story.admits(), Admission::Probe);
    assert!(matches!(story.admits(), Admission::Open(_)));
    assert!(!story.ends(true, Success));
    assert_eq!(story.admits(), Admission::Pass);
    assert!(!story.ends(true, Failure), "the first has its word too, as any other call");
    assert_eq!(story.admits(), Admission::Pass);
}

#[test]
fn what_asks_to_be_left_alone_is_for_so_long_and_is_not_taken_for_ill() {
    let mut story = Story::begins();
    story.circuit.throttle(secs(10), story.now, &OPTIONS);
    story.circuit.throttle(secs(4), story.now, &OPTIONS);
    assert_eq!(story.admits(), Admission::Throttled(secs(10)));
    assert!(!story.circuit.is_open());
    story.now += secs(10);
    assert_eq!(story.admits(), Admission::Pass);
    story.circuit.throttle(secs(100_000), story.now, &OPTIONS);
    assert_eq!(story.admits(), Admission::Throttled(secs(300)), "no longer than we say");
    story.circuit.forgive();
    assert!(matches!(story.admits(), Admission::Throttled(_)), "a new connection is no excuse");
}

#[test]
fn what_is_open_and_asks_to_be_left_alone_is_left_alone_for_as_long_as_it_asks() {
    let mut story = Story::begins();
    story.opens();
    story.circuit.throttle(secs(60), story.now, &OPTIONS);
    assert_eq!(story.admits(), Admission::Throttled(secs(60)));
}

#[test]
fn those_that_open_together_are_not_tried_together_and_no_number_of_calls_is_too_many() {
    let mut story = Story::begins();
    for _ in 0..2 * RECENT_MAX {
        story.ends(false, Success);
    }
    assert_eq!(story.circuit.recent.ended.len(), RECENT_MAX);
    for (dice, rest) in [(0.0, secs(4)), (1.0, secs(6))] {
        let mut circuit = Circuit::new();
        for _ in 0..3 {
            circuit.settle(false, Failure, secs(1), || dice, &OPTIONS, || true);
        }
        assert_eq!(circuit.admit(secs(1), &OPTIONS), Admission::Open(rest));
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_says_how_long_and_makes_room_when_it_is_forgiven_or_gone() {
    let ejections = Arc::new(Ejections::new(50));
    let one = |id| Breaker::new(Uuid::from_u128(id), OPTIONS, ejections.clone());
    let (a, b, c) = (one(1), one(2), one(3));
    assert_eq!(a.throttle(secs(400)), (secs(300), false));
    assert_eq!(b.throttle(secs(1)), (secs(1), true));
    assert!(!b.throttle(Duration::from_millis(1_001)).1);
    [&a, &b, &c].iter().for_each(|breaker| breaker.joins());
    let fail = |breaker: &Arc<Breaker>| {
        for _ in 0..3 {
            breaker.settle(false, Failure);
        }
        breaker.is_open()
    };
    assert!(fail(&a) && !fail(&b), "one of three");
    a.forgive();
    assert!(fail(&b) && !fail(&c));
    drop(a);
    drop(b);
    assert!(fail(&c), "it is alone");
}

#[test]
fn one_that_may_not_open_says_so_once_lets_calls_through_and_opens_when_it_may() {
    let mut circuit = Circuit::new();
    let mut settle = |outcome, may_open: bool| {
        circuit.settle(false, outcome, secs(1), || 0.5, &OPTIONS, || may_open)
    };
    assert_eq!(settle(Failure, false), Settled::Unmoved);
    assert_eq!(settle(Failure, false), Settled::Unmoved);
    assert_eq!(settle(Failure, false), Settled::MayNotOpen);
    assert_eq!(settle(Failure, false), Settled::Unmoved, "it was said");
    assert_eq!(settle(Success, false), Settled::Unmoved);
    for _ in 0..2 {
        settle(Failure, false);
    }
    assert_eq!(settle(Failure, false), Settled::MayNotOpen, "that is another time");
    assert_eq!(circuit.admit(secs(1), &OPTIONS), Admission::Pass);
    let settled = circuit.settle(false, Failure, secs(1), || 0.5, &OPTIONS, || true);
    assert_eq!(settled, Settled::Opened);
}

#[test]
fn breakers_know_of_each_other_and_one_that_has_closed_makes_room() {
    let ejections = Arc::new(Ejections::new(50));
    let options = BreakerOptions { open: Duration::ZERO, open_max: Duration::ZERO, ..OPTIONS };
    let one = |id| Breaker::new(Uuid::from_u128(id), options, ejections.clone());
    let (a, b) = (one(1), one(2));
    a.joins();
    b.joins();
    let end = |breaker: &Arc<Breaker>, outcome| {
        breaker.admit().unwrap_or_else(|_| panic!()).ends(outcome)
    };
    for breaker in [&a, &b] {
        (0..3).for_each(|_| end(breaker, Failure));
    }
    assert!(a.is_open() && !b.is_open());
    end(&a, Success);
    assert!(!a.is_open());
    end(&b, Failure);
    assert!(b.is_open());
}

#[test]
fn it_can_be_switched_off() {
    let options = BreakerOptions { failures: 0, ..OPTIONS };
    let mut circuit = Circuit::new();
    for _ in 0..100 {
        let settled = circuit.settle(false, Failure, secs(1), || 0.5, &options, || true);
        assert_eq!(settled, Settled::Unmoved);
    }
    assert_eq!(circuit.admit(secs(1), &OPTIONS), Admission::Pass);
}
