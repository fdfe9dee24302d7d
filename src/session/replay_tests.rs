//! What a stream holds, for whom, and what goes when there is no room.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const OPTIONS: ReplayOptions = ReplayOptions {
    events_max: 3,
    streams_max: 2,
    bytes_max: 100,
    total_bytes_max: 1_000,
    window: Duration::from_secs(60),
    retry: Duration::from_secs(1),
    retry_spread: Duration::ZERO,
};

fn replay() -> (Replay, Held, Instant) {
    let held = Held::default();
    (Replay::new(0xabc, OPTIONS, held.clone()), held, Instant::now())
}

fn say(replay: &mut Replay, stream: u64, text: &'static str) -> Pushed {
    replay.push(stream, Bytes::from_static(text.as_bytes()), Weight::Light, Instant::now())
}

fn ask(replay: &mut Replay, stream: u64, text: &'static str) -> Pushed {
    replay.push(stream, Bytes::from_static(text.as_bytes()), Weight::Heavy, Instant::now())
}

/// Everything that is there for a reader, and whether that was all for ever.
fn read(replay: &mut Replay, stream: u64, reader: u64) -> (Vec<String>, bool) {
    let mut said = Vec::new();
    loop {
        match replay.next(stream, reader) {
            Next::Said(_, message) => said.push(String::from_utf8(message.to_vec()).unwrap()),
            Next::Wait => return (said, false),
            Next::Over => return (said, true),
        }
    }
}

#[test]
fn an_id_names_its_stream_and_its_place_and_is_read_again() {
    let id = EventId { epoch: 0xfeed_beef, stream: 7, place: 42 };
    assert_eq!(id.to_string(), "feedbeef-7-42");
    assert_eq!(EventId::parse(&id.to_string()), Some(id));
    for text in ["", "7-42", "x-7-42", "feed-7-42-1", "feed--42", "feed-7-", "1ffffffff-1-1"] {
        assert_eq!(EventId::parse(text), None, "{text}");
    }
}

#[test]
fn a_client_that_comes_back_gets_the_rest_of_its_stream_and_of_no_other() {
    let (mut replay, _, now) = replay();
    let (mine, other) = (replay.begin(), replay.begin());
    let reader = replay.attach(mine, None).unwrap();
    for text in ["a1", "a2"] {
        say(&mut replay, mine, text);
    }
    ask(&mut replay, other, "b1");
    say(&mut replay, STANDING, "s1");
    let Next::Said(first, _) = replay.next(mine, reader) else { panic!("nothing was said") };
    assert_eq!(read(&mut replay, mine, reader), (vec!["a2".into()], false));

    let (stream, place) = replay.place_of(&first).unwrap();
    let again = replay.attach(stream, Some(place)).unwrap();
    assert_eq!(read(&mut replay, mine, reader), (vec![], true), "the newest reader has it");
    assert_eq!(read(&mut replay, mine, again), (vec!["a2".into()], false), "replayed");
    replay.push_last(mine, Bytes::from_static(b"a3"), now);
    replay.end(mine, now);
    assert_eq!(read(&mut replay, mine, again), (vec!["a3".into()], true), "and it goes on");
}

#[test]
fn an_id_of_another_run_or_of_a_stream_that_is_gone_names_nothing() {
    let (mut replay, _, _) = replay();
    let stream = replay.begin();
    let id = replay.cursor(stream);
    assert!(replay.place_of(&id).is_some());
    assert!(replay.place_of(&EventId { epoch: 1, ..id }).is_none());
    assert!(replay.place_of(&EventId { stream: 9, ..id }).is_none());
    assert!(replay.attach(9, None).is_none());
}

#[test]
fn what_was_sent_goes_first_and_then_notifications_and_requests_never_silently() {
    let (mut replay, _, _) = replay();
    ask(&mut replay, STANDING, "q1");
    say(&mut replay, STANDING, "n1");
    say(&mut replay, STANDING, "n2");
    assert_eq!(ask(&mut replay, STANDING, "q2"), Pushed::Taken, "a notification made room");
    assert_eq!(ask(&mut replay, STANDING, "q3"), Pushed::Taken);
    assert_eq!(ask(&mut replay, STANDING, "q4"), Pushed::Full, "it is known to be lost");
    assert_eq!(say(&mut replay, STANDING, "n3"), Pushed::Full);
    let reader = replay.attach(STANDING, None).unwrap();
    let (said, _) = read(&mut replay, STANDING, reader);
    assert_eq!(said, ["q1", "q2", "q3"]);
    assert_eq!(ask(&mut replay, STANDING, "q4"), Pushed::Taken, "what was sent made room");
}

#[test]
fn whoever_reads_is_waited_for_and_takes_one_message_of_any_size() {
    let (mut replay, held, _) = replay();
    let stream = replay.begin();
    let reader = replay.attach(stream, None).unwrap();
    for text in ["1", "2", "3"] {
        assert_eq!(say(&mut replay, stream, text), Pushed::Taken);
    }
    assert_eq!(say(&mut replay, stream, "4"), Pushed::Later);
    assert_eq!(read(&mut replay, stream, reader).0, ["1", "2", "3"]);
    let large = Bytes::from(vec![b'x'; 500]);
    let push =
        |replay: &mut Replay| replay.push(stream, large.clone(), Weight::Heavy, Instant::now());
    assert_eq!(push(&mut replay), Pushed::Taken);
    assert_eq!(push(&mut replay), Pushed::Later, "one at a time");
    assert_eq!(held.load(Ordering::Relaxed), 500);
    replay.detach(stream, reader);
    assert_eq!(push(&mut replay), Pushed::Full, "and none for who is away");
    drop(replay);
    assert_eq!(held.load(Ordering::Relaxed), 0);
}

#[test]
fn bytes_are_counted_over_all_streams_and_all_sessions() {
    let (mut replay, held, _) = replay();
    let (first, second) = (replay.begin(), replay.begin());
    let ninety = Bytes::from(vec![b'x'; 90]);
    let push = |replay: &mut Replay, stream| {
        replay.push(stream, ninety.clone(), Weight::Heavy, Instant::now())
    };
    assert_eq!(push(&mut replay, first), Pushed::Taken);
    assert_eq!(push(&mut replay, second), Pushed::Full);
    let reader = replay.attach(first, None).unwrap();
    assert_eq!(read(&mut replay, first, reader).0.len(), 1);
    assert_eq!(push(&mut replay, second), Pushed::Taken, "what another stream has sent goes");
    held.fetch_add(950, Ordering::Relaxed);
    assert_eq!(say(&mut replay, STANDING, "short"), Pushed::Full, "others hold too much");
}

#[test]
fn of_calls_that_have_ended_only_the_last_few_are_kept() {
    let (mut replay, held, now) = replay();
    let ended: Vec<u64> = (0..4)
        .map(|_| {
            let stream = replay.begin();
            ask(&mut replay, stream, "x");
            replay.end(stream, now);
            stream
        })
        .collect();
    let running = replay.begin();
    let is_kept = |replay: &Replay, stream: u64| {
        replay.place_of(&EventId { epoch: 0xabc, stream, place: 0 }).is_some()
    };
    let kept: Vec<bool> = ended.iter().map(|stream| is_kept(&replay, *stream)).collect();
    assert_eq!(kept, [false, false, false, true]);
    assert!(is_kept(&replay, running) && is_kept(&replay, STANDING));
    assert_eq!(held.load(Ordering::Relaxed), 1);
}

#[test]
fn time_takes_what_nobody_came_for_and_says_so() {
    let (mut replay, held, now) = replay();
    let (unread, reading, running) = (replay.begin(), replay.begin(), replay.begin());
    for stream in [unread, reading, running, STANDING] {
        assert_eq!(ask(&mut replay, stream, "x"), Pushed::Taken);
    }
    replay.end(unread, now);
    replay.end(reading, now);
    let reader = replay.attach(reading, None).unwrap();
    assert_eq!(replay.forget(now + Duration::from_secs(59)), Lost::default());
    let lost = replay.forget(now + Duration::from_secs(70));
    assert_eq!(lost, Lost { answers: 1, messages: 2 });
    assert!(replay.attach(unread, None).is_none() && replay.attach(running, None).is_some());
    assert_eq!(read(&mut replay, reading, reader), (vec!["x".into()], true));
    assert_eq!(held.load(Ordering::Relaxed), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_events_id_names_that_event_alone(
        epoch: u32, stream: u64, place: u64, at in any::<prop::sample::Index>(), letter in "[0-9a-f-]",
    ) {
        let id = EventId { epoch, stream, place };
        let text = id.to_string();
        prop_assert_eq!(EventId::parse(&text), Some(id));
        let at = at.index(text.len());
        let mut other = text.clone();
        other.replace_range(at..=at, &letter);
        // Whatever it names then, it says so itself: zeros before a number do not count.
        if let Some(named) = EventId::parse(&other) {
            let part = |part: &str| match part.trim_start_matches('0') {
                "" => "0".to_owned(),
                digits => digits.to_owned(),
            };
            let plain: Vec<String> = other.split('-').map(part).collect();
            prop_assert_eq!(named.to_string(), plain.join("-"));
            prop_assert_eq!(named == id, plain.join("-") == text);
        }
    }

    #[test]
    fn no_text_at_all_is_a_panic(text in "([0-9a-fA-F+ -]|.){0,40}") {
        if let Some(named) = EventId::parse(&text) {
            prop_assert_eq!(EventId::parse(&named.to_string()), Some(named));
        }
    }
}

#[test]
fn who_comes_back_for_an_answer_that_is_gone_hears_so_also_while_its_stream_goes_on() {
    let (mut replay, _, _) = replay();
    let stream = replay.begin();
    let reader = replay.attach(stream, None).unwrap();
    ask(&mut replay, stream, "first");
    read(&mut replay, stream, reader);
    replay.detach(stream, reader);
    replay.shed();
    ask(&mut replay, stream, "second");
    assert!(replay.attach(stream, Some(0)).is_none(), "it has not had the first");
    let reader = replay.attach(stream, Some(1)).unwrap();
    assert_eq!(read(&mut replay, stream, reader).0, ["second"]);
}

#[test]
fn what_was_sent_is_let_go_where_memory_is_short_and_what_was_not_stays() {
    let (mut replay, held, now) = replay();
    let (over, unread) = (replay.begin(), replay.begin());
    let reader = replay.attach(STANDING, None).unwrap();
    say(&mut replay, STANDING, "sent");
    assert_eq!(read(&mut replay, STANDING, reader).0, ["sent"]);
    say(&mut replay, STANDING, "waits");
    let caller = replay.attach(over, None).unwrap();
    ask(&mut replay, over, "answer");
    replay.end(over, now);
    assert_eq!(read(&mut replay, over, caller), (vec!["answer".to_owned()], true));
    replay.detach(over, caller);
    ask(&mut replay, unread, "nobody had it");
    replay.end(unread, now);
    replay.shed();
    assert_eq!(held.load(Ordering::Relaxed), "waits".len() + "nobody had it".len());
    assert!(replay.attach(over, Some(0)).is_none(), "whoever asks for it hears that it is gone");
    assert_eq!(read(&mut replay, STANDING, reader).0, ["waits"]);
    let late = replay.attach(unread, None).unwrap();
    assert_eq!(read(&mut replay, unread, late), (vec!["nobody had it".to_owned()], true));
}

#[test]
fn a_question_that_is_taken_back_is_gone_where_it_was_not_sent_and_nothing_is_missed_then() {
    let (mut replay, held, now) = replay();
    let stream = replay.begin();
    let push = |replay: &mut Replay, text: &'static str, weight: Weight| {
        assert_eq!(
            replay.push(stream, Bytes::from_static(text.as_bytes()), weight, now),
            Pushed::Taken
        );
    };
    push(&mut replay, "first", Weight::Heavy);
    push(&mut replay, "question", Weight::Question(7));
    push(&mut replay, "last", Weight::Heavy);
    assert!(!replay.take_back(stream, 8), "it is another one");
    assert!(!replay.take_back(STANDING, 7), "it is on another stream");
    assert!(replay.take_back(stream, 7));
    assert!(!replay.take_back(stream, 7));
    assert_eq!(held.load(Ordering::Relaxed), "firstlast".len());
    let reader = replay.attach(stream, Some(0)).unwrap();
    assert_eq!(read(&mut replay, stream, reader).0, ["first", "last"]);
    push(&mut replay, "sent", Weight::Question(9));
    read(&mut replay, stream, reader);
    assert!(!replay.take_back(stream, 9), "its client may have it");
}
