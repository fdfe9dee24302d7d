//! Judges what clients saw of their calls: exactly one outcome each, the right one, and in time.
//!
//! Clients note what they do and see while it happens; afterwards [`check`] looks at all of it, beside
//! what the servers noted that they executed. It is pure: the same history is always judged alike.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

/// What a client noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Since the beginning of the history.
    pub at: Duration,
    pub client: u32,
    /// The call that it concerns, by a number of its own among all calls.
    pub call: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It was begun, with a nonce that no other call has, and an end by which it has to be over.
    Invoke { nonce: u64, deadline: Duration },
    /// It had a result.
    Ok(Payload),
    /// It had an error; this is its reason.
    Fail(String),
    /// Nobody can say what became of it: the connection broke before an answer.
    Info(String),
}

/// What a result held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    Nonce(u64),
    Other(String),
}

/// How a nonce is written in a call, and in the answer to it.
pub fn written(nonce: u64) -> String {
    format!("{nonce:016x}")
}

impl Payload {
    /// What a text says: a nonce where it is one.
    pub fn of(text: &str) -> Payload {
        match u64::from_str_radix(text, 16) {
            Ok(nonce) if text.len() == 16 => Payload::Nonce(nonce),
            _ => Payload::Other(text.chars().take(200).collect()),
        }
    }
}

/// The notes of one client. Those of all clients are joined when all is over.
#[derive(Debug)]
pub struct Notes {
    began: Instant,
    client: u32,
    pub events: Vec<Event>,
}

impl Notes {
    /// `began` is the beginning of the history, the same for all its clients.
    pub fn new(began: Instant, client: u32) -> Notes {
        Notes { began, client, events: Vec::new() }
    }

    pub fn note(&mut self, call: u64, what: What) {
        self.events.push(Event { at: self.began.elapsed(), client: self.client, call, what });
    }

    /// Begins a call that has to be over within `patience`.
    pub fn invoke(&mut self, call: u64, nonce: u64, patience: Duration) {
        let deadline = self.began.elapsed() + patience;
        self.note(call, What::Invoke { nonce, deadline });
    }
}

/// What is demanded of a history.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How much later than its deadline a call may end.
    pub grace: Duration,
    /// Whether clients may be left without an answer, since what they speak to is killed too.
    pub unknown_allowed: bool,
}

/// What is wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// It had no outcome, or none that its client could know of.
    Lost,
    /// It had more than one outcome.
    Repeated,
    /// Its result is that of another call.
    Foreign,
    /// Its result is no call's.
    Garbled,
    /// Its outcome came to a client that did not call.
    Misdelivered,
    /// An outcome of a call that nobody made.
    Uncalled,
    /// It ended after its deadline.
    Late,
    /// It was executed more than once.
    ExecutedTwice,
    /// It had a result, and nobody executed it.
    Invented,
}

/// A call that is not as it has to be, with everything that was noted of it.
#[derive(Clone, Debug)]
pub struct Violation {
    pub wrong: Wrong,
    pub call: u64,
    pub history: Vec<Event>,
}

/// What became of all calls.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub calls: usize,
    pub ok: usize,
    pub failed: usize,
    pub unknown: usize,
    /// The reasons of those that failed, with how many they were; the most frequent first.
    pub reasons: Vec<(String, usize)>,
    pub violations: Vec<Violation>,
}

/// Judges a history. `executed` has the nonces that servers noted, one for each time that they were
/// called; nothing of the kind is known where it is `None`.
pub fn check(history: &[Event], executed: Option<&[u64]>, terms: Terms) -> Verdict {
    let mut calls: HashMap<u64, Vec<&Event>> = HashMap::new();
    let mut owners: HashMap<u64, u64> = HashMap::new();
    for event in history {
        calls.entry(event.call).or_default().push(event);
        if let What::Invoke { nonce, .. } = event.what {
            owners.insert(nonce, event.call);
        }
    }
    let executions = executed.map(|nonces| {
        let mut counts: HashMap<u64, u32> = HashMap::new();
        for nonce in nonces {
            *counts.entry(*nonce).or_default() += 1;
        }
        counts
    });
    let mut verdict = Verdict::default();
    let mut reasons: HashMap<&str, usize> = HashMap::new();
    for (call, mut events) in calls {
        events.sort_by_key(|event| event.at);
        verdict.calls += 1;
        for event in &events {
            match &event.what {
                What::Ok(_) => verdict.ok += 1,
                What::Info(_) => verdict.unknown += 1,
                What::Fail(reason) => {
                    verdict.failed += 1;
                    *reasons.entry(reason).or_default() += 1;
                }
                What::Invoke { .. } => {}
            }
        }
        let found = wrongs(&events, &owners, executions.as_ref(), terms);
        verdict.violations.extend(found.into_iter().map(|wrong| Violation {
            wrong,
            call,
            history: events.iter().map(|event| (*event).clone()).collect(),
        }));
    }
    verdict.reasons =
        reasons.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
    verdict.reasons.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(&other.0)));
    verdict.violations.sort_by_key(|violation| (violation.wrong, violation.call));
    verdict
}

/// What is wrong with one call, whose events are in order.
fn wrongs(
    events: &[&Event],
    owners: &HashMap<u64, u64>,
    executions: Option<&HashMap<u64, u32>>,
    terms: Terms,
) -> Vec<Wrong> {
    let invoked = events.iter().find_map(|event| match event.what {
        What::Invoke { nonce, deadline } => Some((nonce, deadline, event.client)),
        _ => None,
    });
    let Some((nonce, deadline, client)) = invoked else { return vec![Wrong::Uncalled] };
    let mut found = Vec::new();
    let outcomes: Vec<&&Event> =
        events.iter().filter(|event| !matches!(event.what, What::Invoke { .. })).collect();
    let known =
        outcomes.iter().filter(|event| matches!(event.what, What::Ok(_) | What::Fail(_))).count();
    let lost = outcomes.is_empty() || (known == 0 && !terms.unknown_allowed);
    if lost {
        found.push(Wrong::Lost);
    }
    if outcomes.len() > 1 {
        found.push(Wrong::Repeated);
    }
    for outcome in &outcomes {
        match &outcome.what {
            What::Ok(Payload::Nonce(other)) if *other == nonce => {}
            What::Ok(Payload::Nonce(other)) if owners.contains_key(other) => {
                found.push(Wrong::Foreign);
            }
            What::Ok(_) => found.push(Wrong::Garbled),
            _ => {}
        }
        if outcome.client != client {
            found.push(Wrong::Misdelivered);
        }
        if outcome.at > deadline + terms.grace {
            found.push(Wrong::Late);
        }
    }
    if let Some(executions) = executions {
        let times = executions.get(&nonce).copied().unwrap_or(0);
        if times > 1 {
            found.push(Wrong::ExecutedTwice);
        }
        if times == 0 && outcomes.iter().any(|event| matches!(event.what, What::Ok(_))) {
            found.push(Wrong::Invented);
        }
    }
    found
}

impl Verdict {
    /// How many calls have this wrong with them.
    pub fn count(&self, wrongs: &[Wrong]) -> usize {
        self.violations.iter().filter(|violation| wrongs.contains(&violation.wrong)).count()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}: call {}", self.wrong, self.call)?;
        for event in &self.history {
            let what = match &event.what {
                What::Invoke { nonce, deadline } => {
                    format!("invoke {}, to be over by {deadline:?}", written(*nonce))
                }
                What::Ok(Payload::Nonce(nonce)) => format!("ok {}", written(*nonce)),
                What::Ok(Payload::Other(text)) => format!("ok {text:?}"),
                What::Fail(reason) => format!("fail {reason}"),
                What::Info(reason) => format!("info {reason}"),
            };
            writeln!(f, "  {:>12.6?} client {:<3} {what}", event.at, event.client)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
