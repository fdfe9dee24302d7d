//! The rules of a client's own process, by what happens to it; time is a number of seconds.

use super::*;
use crate::upstream::Reason;

const IDLE: u64 = 300;

/// What happens, and after how many seconds.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A call comes, and starts what is to be started.
    Call,
    Ready,
    /// It fails, and something of it is left.
    Lost,
    /// Nothing is left of it.
    Gone,
    Told,
    Sweep,
}
use Event::*;

type Events<'a> = &'a [(u64, Event)];

fn patience() -> Patience {
    let secs = Duration::from_secs;
    Patience {
        backoff_min: secs(10),
        backoff_max: secs(60),
        steady_after: secs(100),
        ..crate::upstream::testing::patience()
    }
}

struct Story {
    berth: Berth<&'static str>,
    began: Instant,
}

impl Story {
    fn of(events: Events) -> Self {
        let began = Instant::now();
        let mut story = Self { berth: Berth::new(began), began };
        for (at, event) in events {
            story.happen(*at, *event);
        }
        story
    }

    fn at(&self, seconds: u64) -> Instant {
        self.began + Duration::from_secs(seconds)
    }

    fn happen(&mut self, at: u64, event: Event) {
        let now = self.at(at);
        let why = Exit::of(Reason::Exited);
        let patience = patience();
        match event {
            Call => {
                if self.berth.ask(now, None) == Answer::Start {
                    self.berth.begin();
                }
            }
            Ready => drop(self.berth.ready("process", now)),
            Lost => self.berth.lose(&why, now, patience.steady_after),
            // The dice show the most that there is.
            Gone => drop(self.berth.ended(&why, now, 1.0, &patience)),
            Told => drop(self.berth.end()),
            Sweep => drop(self.berth.end_if_idle(now, Duration::from_secs(IDLE))),
        }
    }

    /// What a call at this time hears, in a word.
    fn hears(&mut self, at: u64) -> String {
        let now = self.at(at);
        match self.berth.ask(now, None) {
            Answer::Take(process) => process.to_owned(),
            Answer::Start => "start".to_owned(),
            Answer::Wait { start: Some(start) } => format!("wait for {start}"),
            Answer::Wait { start: None } => "wait".to_owned(),
            Answer::Rest { until, .. } => format!("rest {}", (until - now).as_secs()),
            Answer::Failed(_) => "failed".to_owned(),
            Answer::Over => "over".to_owned(),
        }
    }
}

#[test]
fn a_call_takes_starts_or_awaits_the_process_and_one_that_failed_rests() {
    let cases: &[(Events, u64, &str)] = &[
        (&[], 0, "start"),
        (&[(0, Call)], 1, "wait for 1"),
        (&[(0, Call), (1, Ready)], 2, "process"),
        (&[(0, Call), (1, Ready), (2, Lost)], 3, "wait"),
        (&[(0, Call), (1, Ready), (2, Lost), (3, Gone)], 4, "rest 9"),
        (&[(0, Call), (1, Ready), (3, Gone)], 4, "rest 9"),
        (&[(0, Call), (1, Ready), (3, Gone)], 13, "start"),
        (&[(0, Call), (3, Gone)], 4, "rest 9"),
        // Each failure doubles the rest, up to the longest.
        (&[(0, Call), (0, Gone), (20, Call), (20, Gone)], 20, "rest 20"),
        (&[(0, Call), (0, Gone), (20, Call), (21, Ready), (22, Gone)], 22, "rest 20"),
        (&[(0, Call), (0, Gone), (20, Call), (20, Gone), (50, Call), (50, Gone)], 50, "rest 40"),
        // Who was steady is forgiven.
        (&[(0, Call), (0, Gone), (20, Call), (21, Ready), (121, Gone)], 121, "rest 10"),
        (&[(0, Call), (0, Gone), (20, Call), (21, Ready), (120, Gone)], 120, "rest 20"),
        // One that was to end has not failed, however it ends.
        (&[(0, Call), (1, Ready), (2, Told)], 3, "wait"),
        (&[(0, Call), (1, Ready), (2, Told), (3, Gone)], 3, "start"),
        (&[(0, Call), (1, Told), (2, Ready)], 3, "wait"),
        (&[(0, Call), (1, Told), (2, Lost), (3, Gone)], 3, "start"),
        // And what was counted before is forgiven with it.
        (
            &[(0, Call), (0, Gone), (20, Call), (21, Told), (22, Gone), (23, Call), (23, Gone)],
            23,
            "rest 10",
        ),
        // A restart that comes while something is left of a failure forgives it.
        (&[(0, Call), (1, Lost), (2, Told), (3, Gone)], 3, "start"),
    ];
    for (events, at, expected) in cases {
        assert_eq!(Story::of(events).hears(*at), *expected, "{events:?} at {at}");
    }
}

#[test]
fn what_nobody_calls_ends_and_what_somebody_calls_does_not() {
    let cases: &[(Events, Option<Phase>)] = &[
        (&[(0, Call), (1, Ready), (300, Sweep)], Some(Phase::Ready)),
        (&[(0, Call), (1, Ready), (301, Sweep)], Some(Phase::Ending)),
        (&[(0, Call), (1, Ready), (200, Call), (301, Sweep)], Some(Phase::Ready)),
        (&[(0, Call), (400, Sweep)], Some(Phase::Starting)),
        (&[(0, Call), (1, Gone), (400, Sweep)], None),
    ];
    for (events, expected) in cases {
        assert_eq!(Story::of(events).berth.phase(), *expected, "{events:?}");
    }
}

#[test]
fn who_waited_for_a_process_hears_of_its_failure_and_who_comes_later_does_not() {
    let mut story = Story::of(&[(0, Call), (1, Gone)]);
    let now = story.at(1);
    assert_eq!(story.berth.ask(now, Some(1)), Answer::Failed(Exit::of(Reason::Exited)));
    assert_eq!(story.hears(1), "rest 10");
    story.happen(11, Call);
    let now = story.at(12);
    assert_eq!(story.berth.ask(now, Some(2)), Answer::Wait { start: Some(2) });
}

#[test]
fn only_an_empty_place_is_given_up_and_then_another_is_to_be_asked_for() {
    assert!(!Story::of(&[(0, Call)]).berth.retire());
    assert!(!Story::of(&[(0, Call), (1, Ready), (2, Told)]).berth.retire());
    let mut story = Story::of(&[(0, Call), (1, Gone)]);
    let (rested, later) = (story.at(11), story.at(12));
    assert!(!story.berth.is_forgotten(rested) && story.berth.is_forgotten(later));
    assert!(story.berth.retire());
    assert_eq!(story.hears(20), "over");
}
