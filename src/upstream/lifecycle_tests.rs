//! The rules of supervision, told as what happens to an upstream.

use std::time::Duration;

use super::{Action, After, Event, Event::*, Lifecycle, Next, Patience, Reason, State, Uptime};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn patience() -> Patience {
    Patience {
        backoff_min: secs(1),
        backoff_max: secs(8),
        failures_burst: 3,
        burst_window: secs(60),
        failures_slow: 6,
        slow_window: secs(900),
        panics_burst: 2,
        failures_flapping: 3,
        probe_every: secs(60),
        probe_every_max: secs(300),
        steady_after: secs(60),
    }
}

/// An upstream whose dice always fall on one half.
struct Story {
    upstream: Lifecycle,
    now: Uptime,
}

impl Story {
    fn begins() -> Self {
        let mut story = Self { upstream: Lifecycle::new(true), now: secs(1_000) };
        assert_eq!(story.hears(StartRequested), [Action::StartWorker]);
        story
    }

    fn hears(&mut self, event: Event) -> Vec<Action> {
        self.upstream.step(event, self.now, 0.5, &patience())
    }

    fn fails(&mut self) -> Vec<Action> {
        self.hears(WorkerEnded(Reason::Exited))
    }

    /// Fails, and waits out the rest it is given.
    fn fails_and_starts_again(&mut self) -> Duration {
        let actions = self.fails();
        let [Action::RemindMe { after }] = actions[..] else { panic!("no rest in {actions:?}") };
        self.now += after;
        assert_eq!(self.hears(TimeCame), [Action::StartWorker]);
        after
    }

    fn crashes(&mut self) {
        while !matches!(self.upstream.state, State::Crashed { .. }) {
            self.fails_and_starts_again_unless_crashed();
        }
    }

    fn fails_and_starts_again_unless_crashed(&mut self) {
        self.fails();
        if let State::Backoff { until } = self.upstream.state {
            self.now = until;
            self.hears(TimeCame);
        }
    }
}

#[test]
fn a_first_start_that_succeeds_has_nothing_behind_it() {
    let mut story = Story::begins();
    assert_eq!(story.upstream.state, State::Starting { after: After::Nothing });
    assert_eq!(story.hears(WorkerReady), [Action::RemindMe { after: secs(60) }]);
    assert_eq!(story.upstream.state, State::Ready { after: After::Nothing });
}

#[test]
fn rests_grow_with_each_failure_and_start_small_again_after_a_steady_time() {
    let mut story = Story::begins();
    assert_eq!(story.fails_and_starts_again(), Duration::from_millis(500));
    assert_eq!(story.fails_and_starts_again(), secs(1));
    assert_eq!(story.upstream.state, State::Starting { after: After::Failure });

    story.hears(WorkerReady);
    story.now += secs(60);
    story.hears(TimeCame);
    assert_eq!(story.fails_and_starts_again(), Duration::from_millis(500));
}

#[test]
fn too_many_failures_in_a_burst_are_a_crash() {
    let mut story = Story::begins();
    for _ in 0..3 {
        story.fails_and_starts_again();
    }
    let since = story.now;
    assert_eq!(story.fails(), [Action::RemindMe { after: secs(60) }]);
    let crashed = State::Crashed { since, until: since + secs(60), probes: 0 };
    assert_eq!(story.upstream.state, crashed);
}

#[test]
fn an_upstream_that_flaps_crashes_like_one_that_never_starts() {
    let mut story = Story::begins();
    for _ in 0..3 {
        story.hears(WorkerReady);
        story.fails_and_starts_again();
    }
    story.hears(WorkerReady);
    story.fails();
    assert!(matches!(story.upstream.state, State::Crashed { .. }));
}

#[test]
fn failures_far_apart_crash_it_when_they_do_not_end() {
    let mut story = Story::begins();
    for _ in 0..6 {
        story.hears(WorkerReady);
        // Long enough for the burst's window, too short to be steady.
        story.now += secs(59);
        story.fails_and_starts_again();
        assert_eq!(story.upstream.state, State::Starting { after: After::Failure }, "not yet");
    }
    story.now += secs(59);
    story.fails();
    assert!(matches!(story.upstream.state, State::Crashed { .. }));
}

#[test]
fn what_is_crashed_is_probed_for_ever_at_a_pace_that_slows_to_a_limit() {
    let mut story = Story::begins();
    story.crashes();
    let mut paces = Vec::new();
    for _ in 0..40 {
        let State::Crashed { until, .. } = story.upstream.state else { panic!() };
        paces.push(until - story.now);
        story.now = until;
        assert_eq!(story.hears(TimeCame), [Action::StartWorker]);
        story.fails();
    }
    assert!(paces[..15].iter().all(|pace| *pace == secs(60)), "{paces:?}");
    assert!(paces.is_sorted());
    assert_eq!(paces[39], secs(300));
}

#[test]
fn a_probe_that_succeeds_heals_and_one_more_failure_too_soon_is_a_crash_again() {
    let mut story = Story::begins();
    story.crashes();
    let State::Crashed { since, until, .. } = story.upstream.state else { panic!() };
    story.now = until;
    story.hears(TimeCame);
    story.hears(WorkerReady);
    assert_eq!(story.upstream.state, State::Ready { after: After::Crash { since, probes: 0 } });
    story.fails();
    assert!(matches!(story.upstream.state, State::Crashed { probes: 1, .. }));
}

#[test]
fn a_probe_that_stays_ready_is_forgiven_everything() {
    let mut story = Story::begins();
    story.crashes();
    story.hears(TimeCame);
    story.hears(WorkerReady);
    story.now += secs(60);
    story.hears(TimeCame);
    assert_eq!(story.upstream.state, State::Ready { after: After::Nothing });
    assert_eq!(story.fails_and_starts_again(), Duration::from_millis(500));
}

#[test]
fn an_operators_restart_starts_at_once_and_forgives() {
    let mut story = Story::begins();
    story.crashes();
    assert_eq!(story.hears(RestartRequested), [Action::StartWorker]);
    assert_eq!(story.upstream.state, State::Starting { after: After::Failure });
    assert_eq!(story.fails_and_starts_again(), Duration::from_millis(500));
}

#[test]
fn a_restart_of_what_runs_ends_it_first() {
    let mut story = Story::begins();
    story.hears(WorkerReady);
    assert_eq!(story.hears(RestartRequested), [Action::EndWorker]);
    assert_eq!(story.hears(WorkerEnded(Reason::Asked)), [Action::StartWorker]);
    assert_eq!(story.upstream.state, State::Starting { after: After::Nothing });
}

#[test]
fn what_only_a_person_can_mend_is_tried_at_a_slow_pace() {
    for reason in [Reason::CommandNotFound, Reason::VariableMissing] {
        let mut story = Story::begins();
        assert_eq!(story.hears(WorkerEnded(reason)), [Action::RemindMe { after: secs(60) }]);
        assert!(matches!(story.upstream.state, State::Backoff { .. }));
    }
    let mut story = Story::begins();
    story.hears(WorkerEnded(Reason::Unauthorized));
    assert!(matches!(story.upstream.state, State::NeedsAuth { .. }));
}

#[test]
fn what_asks_to_be_left_alone_is_and_that_is_no_failure() {
    let mut story = Story::begins();
    for _ in 0..20 {
        // A tenth longer than it asked for, by the dice.
        assert_eq!(story.hears(WorkerThrottled(secs(10))), [Action::RemindMe { after: secs(11) }]);
        assert!(matches!(story.upstream.state, State::Backoff { .. }));
        story.now += secs(11);
        assert_eq!(story.hears(TimeCame), [Action::StartWorker]);
    }
    assert_eq!(story.fails_and_starts_again(), Duration::from_millis(500), "it is its first");
    let least = Action::RemindMe { after: secs(1).mul_f64(1.1) };
    assert_eq!(story.hears(WorkerThrottled(Duration::ZERO)), [least], "never at once");

    let mut story = Story::begins();
    story.crashes();
    story.hears(TimeCame);
    story.hears(WorkerThrottled(secs(10)));
    assert!(matches!(story.upstream.state, State::Crashed { probes: 0, .. }), "nor is it a cure");
}

#[test]
fn what_fails_now_and_then_for_ever_is_flapping_though_it_is_forgiven_each_time() {
    let mut story = Story::begins();
    let mut until = Vec::new();
    for _ in 0..4 {
        story.hears(WorkerReady);
        story.now += secs(90);
        story.hears(TimeCame);
        story.now += secs(10);
        assert_eq!(story.fails_and_starts_again(), Duration::from_millis(500), "it is forgiven");
        until.push(story.upstream.flapping_until(&patience()).map(|until| until - secs(1_000)));
    }
    // Until the third last failure is longer ago than the window.
    let half = Duration::from_millis(500);
    assert_eq!(until, [None, None, Some(secs(1_000)), Some(secs(1_100) + half)]);
    story.hears(RestartRequested);
    assert_eq!(story.upstream.flapping_until(&patience()), None, "an operator has looked at it");
}

#[test]
fn a_stop_is_final_and_late_news_changes_nothing() {
    let mut story = Story::begins();
    story.fails();
    story.hears(StopRequested);
    assert_eq!(story.hears(TimeCame), []);
    assert_eq!(story.upstream.state, State::Stopped);

    let mut story = Story::begins();
    assert_eq!(story.hears(StopRequested), [Action::EndWorker]);
    assert_eq!(story.hears(WorkerReady), []);
    assert_eq!(story.hears(WorkerEnded(Reason::Asked)), []);
    assert_eq!(story.upstream.state, State::Stopped);
}

#[test]
fn what_rests_is_started_by_whoever_needs_it_and_by_an_operator() {
    for wish in [Wanted, StartRequested, RestartRequested] {
        let mut upstream = Lifecycle::new(true);
        let mut hears = |event| upstream.step(event, secs(1), 0.5, &patience());
        assert_eq!(hears(RestRequested), [], "it has never been started");
        assert_eq!(hears(RestRequested), []);
        assert_eq!(hears(TimeCame), []);
        assert_eq!(hears(wish), [Action::StartWorker]);
        assert_eq!(upstream.state, State::Starting { after: After::Nothing });
    }
    for (order, state) in [(StopRequested, State::Stopped), (DisableRequested, State::Disabled)] {
        let mut upstream = Lifecycle::new(true);
        let mut hears = |event| upstream.step(event, secs(1), 0.5, &patience());
        hears(RestRequested);
        assert_eq!(hears(order), []);
        assert_eq!(hears(Wanted), [], "no call starts what is not to run");
        assert_eq!(upstream.state, state);
    }
}

#[test]
fn what_is_ready_goes_to_rest_by_ending_its_worker_and_nothing_else_does() {
    let mut story = Story::begins();
    assert_eq!(story.hears(RestRequested), [], "it is starting");
    story.hears(WorkerReady);
    assert_eq!(story.hears(RestRequested), [Action::EndWorker]);
    assert_eq!(story.upstream.state, State::Ending { then: Next::Rest });
    assert_eq!(story.hears(WorkerEnded(Reason::Asked)), []);
    assert_eq!(story.upstream.state, State::Idle);

    let mut story = Story::begins();
    story.fails();
    assert_eq!(story.hears(RestRequested), []);
    assert!(matches!(story.upstream.state, State::Backoff { .. }), "what fails is tried again");
}

#[test]
fn who_needs_it_while_it_goes_to_rest_gets_the_next_worker() {
    let mut story = Story::begins();
    story.hears(WorkerReady);
    story.hears(RestRequested);
    assert_eq!(story.hears(Wanted), []);
    assert_eq!(story.hears(Wanted), []);
    assert_eq!(story.hears(WorkerEnded(Reason::Asked)), [Action::StartWorker]);
    assert_eq!(story.upstream.state, State::Starting { after: After::Nothing });

    let mut story = Story::begins();
    story.hears(WorkerReady);
    story.hears(RestRequested);
    story.hears(StopRequested);
    assert_eq!(story.hears(Wanted), [], "the daemon is stopping");
    story.hears(WorkerEnded(Reason::Asked));
    assert_eq!(story.upstream.state, State::Stopped);
}

#[test]
fn what_is_disabled_waits_for_the_operator_and_a_start_while_ending_is_kept_in_mind() {
    let mut story = Story::begins();
    story.hears(WorkerReady);
    story.hears(DisableRequested);
    assert_eq!(story.hears(StartRequested), []);
    assert_eq!(story.hears(WorkerEnded(Reason::Asked)), [Action::StartWorker]);

    story.hears(DisableRequested);
    story.hears(WorkerEnded(Reason::Asked));
    assert_eq!(story.upstream.state, State::Disabled);
    assert_eq!(story.hears(RestartRequested), []);
    assert_eq!(story.hears(StartRequested), [Action::StartWorker]);
}

#[test]
fn three_panics_of_our_own_within_a_minute_are_too_many_whatever_a_server_may() {
    let panicked = WorkerEnded(Reason::Panicked);
    let mut story = Story::begins();
    for _ in 0..2 {
        story.hears(panicked.clone());
        let State::Backoff { until } = story.upstream.state else { panic!("too early") };
        story.now = until;
        story.hears(TimeCame);
    }
    let mut patient = story.upstream.clone();
    story.hears(panicked.clone());
    assert!(matches!(story.upstream.state, State::Crashed { .. }));

    // Those of the last hour do not count.
    patient.step(panicked, story.now + secs(61), 0.5, &patience());
    assert!(matches!(patient.state, State::Backoff { .. }));
}

#[test]
fn what_a_panic_interrupts_counts_as_a_start_and_nothing_before_it_is_forgotten() {
    let interrupted = |state: State| {
        let mut upstream = Lifecycle { state, ..Lifecycle::new(true) };
        let is_any = upstream.interrupt();
        (upstream.state, is_any)
    };
    let starting = |after| State::Starting { after };
    let crash = After::Crash { since: secs(1), probes: 2 };
    for (state, after) in [
        (State::Stopped, After::Nothing),
        (State::Ending { then: Next::Start }, After::Nothing),
        (State::Backoff { until: secs(2) }, After::Failure),
        (State::Ready { after: After::Failure }, After::Failure),
        (State::Starting { after: crash }, crash),
    ] {
        assert_eq!(interrupted(state), (starting(after), true));
    }
    let crashed = State::Crashed { since: secs(1), until: secs(9), probes: 2 };
    assert_eq!(interrupted(crashed.clone()), (crashed, false), "no probe was under way");
}

#[test]
fn whatever_an_operator_orders_forgives_what_was_before() {
    let half = Duration::from_millis(500);
    // What runs, or rests, with two failures behind it; all that is forgiven by each of the orders.
    let orders: [&[Event]; 4] = [
        &[WorkerReady, RestartRequested, WorkerEnded(Reason::Asked)],
        &[WorkerReady, DisableRequested, WorkerEnded(Reason::Asked), StartRequested],
        &[WorkerEnded(Reason::Exited), DisableRequested, StartRequested],
        &[WorkerEnded(Reason::Exited), RestartRequested],
    ];
    for order in orders {
        let mut story = Story::begins();
        story.fails_and_starts_again();
        story.fails_and_starts_again();
        for event in order {
            story.hears(event.clone());
        }
        assert_eq!(story.fails_and_starts_again(), half, "{order:?}");
    }

    let panicked = WorkerEnded(Reason::Panicked);
    let mut story = Story::begins();
    for event in [panicked.clone(), TimeCame, panicked.clone(), RestartRequested, panicked] {
        story.hears(event);
    }
    assert!(matches!(story.upstream.state, State::Backoff { .. }), "the two are forgiven");

    let mut story = Story::begins();
    story.crashes();
    assert!(story.upstream.flapping_until(&patience()).is_some());
    story.hears(RestartRequested);
    assert_eq!(story.upstream.flapping_until(&patience()), None);
}

#[test]
fn the_last_order_holds_whatever_was_to_come_of_the_ones_before() {
    use Next::*;
    for (events, then) in [
        ([DisableRequested, RestRequested], Rest),
        ([RestartRequested, DisableRequested], Disable),
        ([RestartRequested, StopRequested], Stop),
        ([DisableRequested, StartRequested], Start),
        ([StopRequested, RestRequested], Stop),
    ] {
        let mut story = Story::begins();
        story.hears(WorkerReady);
        for event in &events {
            story.hears(event.clone());
        }
        assert_eq!(story.upstream.state, State::Ending { then }, "{events:?}");
    }
    let mut refused = Story::begins();
    refused.hears(WorkerEnded(Reason::Unauthorized));
    assert!(refused.upstream.next_attempt().is_some());
    let mut crashed = Story::begins();
    crashed.crashes();
    for mut story in [refused, crashed] {
        story.hears(StopRequested);
        assert_eq!(story.upstream.state, State::Stopped);
        assert_eq!(story.upstream.next_attempt(), None);
    }
}

#[test]
fn a_failure_as_old_as_the_window_still_counts() {
    let mut story = Story::begins();
    let first = story.now;
    for _ in 0..3 {
        story.fails_and_starts_again();
    }
    story.now = first + secs(60);
    story.fails();
    assert!(matches!(story.upstream.state, State::Crashed { .. }));
}

#[test]
fn rests_and_probes_keep_to_their_limits_and_are_not_the_same_for_all() {
    assert_eq!(patience().backoff(10, 1.0), secs(8));
    let probing = |since, patience: &Patience, dice| {
        let state = State::Starting { after: After::Crash { since, probes: 0 } };
        let mut upstream = Lifecycle { state, ..Lifecycle::new(true) };
        upstream.step(WorkerEnded(Reason::Exited), secs(1_000), dice, patience);
        upstream.next_attempt().map(|until| until - secs(1_000))
    };
    assert_eq!(probing(secs(100), &patience(), 0.5), Some(secs(120)), "the early time is over");
    assert_eq!(probing(secs(101), &patience(), 0.5), Some(secs(60)));
    assert_eq!(probing(secs(101), &patience(), 0.0), Some(secs(48)));
    assert_eq!(probing(secs(101), &patience(), 1.0), Some(secs(72)));
    let hasty = Patience { probe_every_max: secs(10), ..patience() };
    assert_eq!(probing(secs(101), &hasty, 0.5), Some(secs(60)), "the pace is the least");
}
