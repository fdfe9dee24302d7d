//! What becomes of an answer on its way out, where the server misbehaves: a list of steps, which the
//! transports then play.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    fault::Fault,
    value::{Exit, Rate},
};

/// Bytes of an announcement, beside what it says.
const ANNOUNCED: usize = 4_096;

/// One thing that a transport is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send a message, framed as messages are.
    Say(Vec<u8>),
    /// Send a message, framed, at this pace.
    Dribble(Vec<u8>, Rate),
    /// Send bytes, without a frame.
    Blurt(Vec<u8>),
    /// Begin a line of so many bytes, and never end it.
    Babble(u64),
    /// Say so many messages for the log, at an even pace.
    Announce(u64),
    Rest(Duration),
    CloseOutput,
    CloseInput,
    End(Exit),
}

/// The steps of answering the call of this number with `answer`, a whole message.
pub fn script(faults: &[Fault], number: u64, id: &Value, answer: &Value) -> Vec<Step> {
    let mut steps = Vec::new();
    for fault in faults {
        match fault {
            Fault::ExitEvery(every) if number.is_multiple_of((*every).max(1)) => {
                return vec![Step::End(Exit::Signal(rustix::process::Signal::KILL))];
            }
            Fault::CloseStdout => return vec![Step::CloseOutput],
            Fault::CloseStdin => return vec![Step::CloseInput],
            Fault::LateReply(after) => steps.push(Step::Rest(*after)),
            Fault::Garbage(lines) => {
                steps.extend((0..*lines).map(|n| {
                    Step::Blurt(format!("npm notice line {n} of no importance\n").into_bytes())
                }));
            }
            Fault::ProgressSpoof(tokens) => {
                steps.extend((0..*tokens).map(|token| Step::Say(encoded(&progress(token)))));
            }
            Fault::Ask(questions) => {
                steps.extend((0..*questions).map(|n| Step::Say(encoded(&question(number, n)))));
            }
            _ => {}
        }
    }
    steps.extend(last_words(faults, id, answer));
    steps.extend(faults.iter().filter_map(|fault| match fault {
        Fault::Announce(count) => Some(Step::Announce(*count)),
        _ => None,
    }));
    steps
}

/// How the answer itself is said, if it is said.
fn last_words(faults: &[Fault], id: &Value, answer: &Value) -> Vec<Step> {
    let mut answer = answer.clone();
    let mut times = 1;
    let (mut before, mut after) = (&b""[..], &b""[..]);
    let mut pace = None;
    for fault in faults {
        match fault {
            Fault::Blackhole => return Vec::new(),
            Fault::DupReply => times = 2,
            Fault::WrongId => answer["id"] = json!(4_000_000_000_u64),
            Fault::IdTypeChange => answer["id"] = changed(id),
            Fault::ErrorWithoutId => {
                let error = json!({"code": -32603, "message": "something went wrong"});
                answer = json!({"jsonrpc": "2.0", "error": error});
            }
            Fault::NoResult => answer = json!({"jsonrpc": "2.0", "id": id}),
            Fault::HugeLine(bytes) => {
                let size = usize::try_from(bytes.0).unwrap_or(usize::MAX);
                answer["result"] = json!({"content": [{"type": "text", "text": "x".repeat(size)}]});
            }
            Fault::Deep(levels) => {
                let bytes = deep(&answer, usize::try_from(*levels).unwrap_or(0));
                return vec![Step::Say(bytes)];
            }
            Fault::InvalidUtf8 => {
                let mut bytes = encoded(&answer);
                // Inside the last text of the answer, or at least inside the message.
                let place = bytes.iter().rposition(|byte| *byte == b'"').unwrap_or(0);
                bytes.splice(place..place, [0xff, 0xfe, 0xc0]);
                return vec![Step::Say(bytes)];
            }
            Fault::NoNewline(bytes) => return vec![Step::Babble(bytes.0)],
            Fault::PartialLine => {
                let mut bytes = encoded(&answer);
                bytes.truncate(bytes.len() / 2);
                return vec![Step::Blurt(bytes), Step::End(Exit::Code(0))];
            }
            Fault::Bom => before = b"\xef\xbb\xbf",
            Fault::Crlf => after = b"\r",
            Fault::Drip(rate) => pace = Some(*rate),
            _ => {}
        }
    }
    let bytes = [before, &encoded(&answer), after].concat();
    let step = match pace {
        Some(rate) => Step::Dribble(bytes, rate),
        None => Step::Say(bytes),
    };
    vec![step; times]
}

pub fn encoded(message: &Value) -> Vec<u8> {
    message.to_string().into_bytes()
}

/// The id in the other type.
fn changed(id: &Value) -> Value {
    match id {
        Value::String(text) => text.parse::<u64>().map_or(json!(0), |number| json!(number)),
        other => json!(other.to_string()),
    }
}

/// The answer with a result of arrays in arrays. Written by hand: no parser would make it.
fn deep(answer: &Value, levels: usize) -> Vec<u8> {
    let mut envelope = answer.clone();
    envelope["result"] = json!({"content": [], "structuredContent": {"deep": "@"}});
    let nest = [vec![b'['; levels], vec![b']'; levels]].concat();
    let nest = String::from_utf8(nest).unwrap_or_default();
    envelope.to_string().replace("\"@\"", &nest).into_bytes()
}

fn progress(token: u64) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/progress",
        "params": {"progressToken": token, "progress": 1, "message": "spoofed"}})
}

/// A message for the log with its number, its time in microseconds since 1970, and as much besides as a
/// message of some substance has.
pub fn announcement(number: u64, at: u128) -> Vec<u8> {
    let data = json!({"number": number, "at": at.to_string(), "rest": "x".repeat(ANNOUNCED)});
    let params = json!({"level": "info", "data": data});
    encoded(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params}))
}

/// A question to the client that is being answered.
fn question(call: u64, number: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": format!("q-{call}-{number}"), "method": "sampling/createMessage",
        "params": {"messages": [], "maxTokens": 1}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(fault: Fault) -> Vec<Step> {
        let answer = json!({"jsonrpc": "2.0", "id": 7, "result": {"content": []}});
        script(&[fault], 1, &json!(7), &answer)
    }

    fn only(steps: &[Step]) -> Value {
        match steps {
            [Step::Say(bytes)] => serde_json::from_slice(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_are_confused_in_every_way() {
        assert_eq!(only(&said(Fault::IdTypeChange))["id"], "7");
        assert_ne!(only(&said(Fault::WrongId))["id"], 7);
        assert_eq!(only(&said(Fault::ErrorWithoutId)).get("id"), None);
        assert_eq!(said(Fault::DupReply).len(), 2);
        assert_eq!(said(Fault::Blackhole), []);
    }

    #[test]
    fn bytes_are_spoilt_in_every_way() {
        let of = |fault| match &said(fault)[0] {
            Step::Say(bytes) | Step::Blurt(bytes) => bytes.clone(),
            other => panic!("{other:?}"),
        };
        assert!(String::from_utf8(of(Fault::InvalidUtf8)).is_err());
        assert!(of(Fault::Bom).starts_with(b"\xef\xbb\xbf{"));
        assert!(of(Fault::Crlf).ends_with(b"}\r"));
        assert!(serde_json::from_slice::<Value>(&of(Fault::PartialLine)).is_err());
        assert!(serde_json::from_slice::<Value>(&of(Fault::Deep(1_000))).is_err());
        assert_eq!(of(Fault::Deep(1_000)).iter().filter(|byte| **byte == b'[').count(), 1_001);
    }

    #[test]
    fn what_is_announced_comes_after_the_answer() {
        let steps = said(Fault::Announce(3));
        assert!(matches!(steps[..], [Step::Say(_), Step::Announce(3)]), "{steps:?}");
        let message: Value = serde_json::from_slice(&announcement(2, 7)).unwrap();
        assert_eq!(message["params"]["data"]["number"], 2);
        assert_eq!(message["params"]["data"]["at"], "7");
    }

    #[test]
    fn only_every_nth_call_kills() {
        let answer = json!({"jsonrpc": "2.0", "id": 7, "result": {}});
        let killed = |number| {
            let steps = script(&[Fault::ExitEvery(3)], number, &json!(7), &answer);
            matches!(steps[..], [Step::End(_)])
        };
        assert_eq!(
            (1..7).map(killed).collect::<Vec<bool>>(),
            [false, false, true, false, false, true]
        );
    }
}
