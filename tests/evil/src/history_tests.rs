//! Tests of the judge: every kind of wrong is found, and what is right is left alone.

use super::*;

const TERMS: Terms = Terms { grace: Duration::from_secs(1), unknown_allowed: false };

fn at(secs: u64, client: u32, call: u64, what: What) -> Event {
    Event { at: Duration::from_secs(secs), client, call, what }
}

/// A call with its number for a nonce, by client 1, at 0 s, to be over by 5 s.
fn invoke(call: u64) -> Event {
    at(0, 1, call, What::Invoke { nonce: call, deadline: Duration::from_secs(5) })
}

fn ok(secs: u64, call: u64, nonce: u64) -> Event {
    at(secs, 1, call, What::Ok(Payload::Nonce(nonce)))
}

fn found(history: &[Event], executed: Option<&[u64]>) -> Vec<Wrong> {
    check(history, executed, TERMS).violations.into_iter().map(|one| one.wrong).collect()
}

#[test]
fn what_is_right_is_left_alone() {
    let history =
        [invoke(1), invoke(2), ok(1, 1, 1), at(6, 1, 2, What::Fail("upstream_gone".to_owned()))];
    let verdict = check(&history, Some(&[1, 2]), TERMS);
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    assert_eq!((verdict.calls, verdict.ok, verdict.failed, verdict.unknown), (2, 1, 1, 0));
    assert_eq!(verdict.reasons, [("upstream_gone".to_owned(), 1)]);
}

#[test]
fn a_call_without_an_outcome_is_lost() {
    assert_eq!(found(&[invoke(1)], None), [Wrong::Lost]);
    let broken = at(1, 1, 1, What::Info("reset".to_owned()));
    assert_eq!(found(&[invoke(1), broken.clone()], None), [Wrong::Lost]);
    let tolerant = Terms { unknown_allowed: true, ..TERMS };
    assert!(check(&[invoke(1), broken], None, tolerant).violations.is_empty());
    assert_eq!(check(&[invoke(1)], None, tolerant).violations.len(), 1);
}

#[test]
fn a_second_outcome_is_one_too_many() {
    assert_eq!(found(&[invoke(1), ok(1, 1, 1), ok(2, 1, 1)], None), [Wrong::Repeated]);
    let late_error = at(2, 1, 1, What::Fail("late".to_owned()));
    assert_eq!(found(&[invoke(1), ok(1, 1, 1), late_error], None), [Wrong::Repeated]);
}

#[test]
fn a_result_of_another_call_is_told_from_one_of_none() {
    let history = [invoke(1), invoke(2), ok(1, 1, 2), ok(1, 2, 2)];
    assert_eq!(found(&history, None), [Wrong::Foreign]);
    assert_eq!(found(&[invoke(1), ok(1, 1, 99)], None), [Wrong::Garbled]);
    let words = at(1, 1, 1, What::Ok(Payload::of("sorry")));
    assert_eq!(found(&[invoke(1), words], None), [Wrong::Garbled]);
}

#[test]
fn an_outcome_at_another_client_is_seen() {
    let elsewhere = at(1, 2, 1, What::Ok(Payload::Nonce(1)));
    assert_eq!(found(&[invoke(1), elsewhere], None), [Wrong::Misdelivered]);
    assert_eq!(found(&[ok(1, 1, 1)], None), [Wrong::Uncalled]);
}

#[test]
fn a_call_may_end_a_second_late_and_no_more() {
    assert_eq!(found(&[invoke(1), ok(6, 1, 1)], None), []);
    assert_eq!(found(&[invoke(1), ok(7, 1, 1)], None), [Wrong::Late]);
}

#[test]
fn what_servers_executed_is_counted() {
    let history = [invoke(1), ok(1, 1, 1)];
    assert_eq!(found(&history, Some(&[1])), []);
    assert_eq!(found(&history, Some(&[1, 1])), [Wrong::ExecutedTwice]);
    assert_eq!(found(&history, Some(&[])), [Wrong::Invented]);
    let failed = [invoke(1), at(1, 1, 1, What::Fail("gone".to_owned()))];
    assert_eq!(found(&failed, Some(&[])), [], "what failed may have been executed or not");
}

#[test]
fn the_history_of_what_is_wrong_is_told() {
    let verdict = check(&[invoke(1), ok(1, 1, 1), ok(2, 1, 1)], None, TERMS);
    let told = verdict.violations[0].to_string();
    assert!(told.starts_with("Repeated: call 1\n"), "{told}");
    assert_eq!(told.lines().count(), 4, "{told}");
    assert!(told.contains("ok 0000000000000001"), "{told}");
}

#[test]
fn a_nonce_is_read_as_it_is_written() {
    assert_eq!(Payload::of(&written(42)), Payload::Nonce(42));
    assert_eq!(Payload::of("2a"), Payload::Other("2a".to_owned()));
}
