//! What the bridge has to remember of a conversation to carry it over a restart of the daemon.
//!
//! Pure. Every table here is bounded: by the requests that may be in flight, or by a limit of its own.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::Value;

use crate::wire::{Frame, Kind, message};

/// Requests of the server that may wait for the client's answer. A client that answers none would
/// otherwise make the table grow for ever.
const ASKED_MAX: usize = 1_024;

/// The id of the handshakes that we repeat. No client sees it.
pub const OWN_ID: &[u8] = br#""metamcpd-connect""#;

/// The conversation so far.
#[derive(Debug, Default)]
pub struct Memory {
    /// The client's `initialize`, whose parameters are sent again to a daemon that has forgotten us.
    hello: Option<Frame>,
    /// The methods that announce that what the client has listed may have changed.
    announcements: Vec<&'static str>,
    /// Requests that came from the server, by id, with the session that they came in.
    asked: HashMap<Bytes, u64>,
}

impl Memory {
    pub fn note_hello(&mut self, hello: &Frame) {
        self.hello = Some(hello.clone());
    }

    /// The client's `initialize` under an id of our own. `None` before there was one.
    pub fn hello_again(&self) -> Option<Bytes> {
        let hello = self.hello.as_ref()?;
        let id = hello.id_span()?;
        Some(hello.splice(&mut [(id, OWN_ID)]))
    }

    /// Notes what the server says it announces.
    pub fn note_answer(&mut self, answer: &Frame) {
        self.announcements = announcements_of(answer);
    }

    /// What to tell the client once it has a new session: what was announced meanwhile is lost.
    pub fn announcements(&self) -> Vec<Bytes> {
        self.announcements.iter().map(|method| message::notification(method, b"")).collect()
    }

    /// Notes a request that the server makes in a session.
    pub fn note_asked(&mut self, frame: &Frame, generation: u64) {
        let Some(id) = frame.id().filter(|_| frame.kind() == Kind::Request) else { return };
        if self.asked.len() >= ASKED_MAX {
            self.asked.retain(|_, asked_in| *asked_in == generation);
        }
        if self.asked.len() < ASKED_MAX {
            self.asked.insert(Bytes::copy_from_slice(id), generation);
        }
    }

    /// Whether an answer of the client's is for this session. The ids of servers begin anew with
    /// each session, so an old answer could be taken for that to another request.
    pub fn take_answer(&mut self, answer: &Frame, generation: u64) -> bool {
        let asked_in = answer.id().and_then(|id| self.asked.remove(id));
        asked_in == Some(generation)
    }
}

/// The revision that an answer to `initialize` agrees on.
pub fn version_of(answer: &Frame) -> Option<String> {
    let result: Value = serde_json::from_slice(&answer.result()?).ok()?;
    Some(result.get("protocolVersion")?.as_str()?.to_owned())
}

fn announcements_of(answer: &Frame) -> Vec<&'static str> {
    let result = answer.result().and_then(|result| serde_json::from_slice::<Value>(&result).ok());
    let capabilities = result.as_ref().and_then(|result| result.get("capabilities"));
    let announces = |what: &str| {
        let flag = capabilities.and_then(|all| all.get(what)?.get("listChanged")?.as_bool());
        flag.unwrap_or(false)
    };
    [
        ("tools", "notifications/tools/list_changed"),
        ("prompts", "notifications/prompts/list_changed"),
        ("resources", "notifications/resources/list_changed"),
    ]
    .into_iter()
    .filter(|(what, _)| announces(what))
    .map(|(_, method)| method)
    .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn frame(text: &str) -> Frame {
        Frame::parse(Bytes::copy_from_slice(text.as_bytes()), 64).unwrap()
    }

    #[test]
    fn the_handshake_is_repeated_word_for_word_under_an_id_of_our_own() {
        let mut memory = Memory::default();
        assert_eq!(memory.hello_again(), None);
        memory.note_hello(&frame(
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"a":1.50}}"#,
        ));
        assert_eq!(
            memory.hello_again().unwrap(),
            r#"{"jsonrpc":"2.0","id":"metamcpd-connect","method":"initialize","params":{"a":1.50}}"#
        );
    }

    #[test]
    fn only_what_the_server_announces_is_announced_for_it() {
        for (capabilities, expected) in [
            (r#"{"tools":{"listChanged":true}}"#, vec!["notifications/tools/list_changed"]),
            (r#"{"tools":{"listChanged":false},"prompts":{}}"#, vec![]),
            (
                r#"{"resources":{"listChanged":true},"prompts":{"listChanged":true}}"#,
                vec!["notifications/prompts/list_changed", "notifications/resources/list_changed"],
            ),
            ("{}", vec![]),
        ] {
            let answer = format!(
                r#"{{"jsonrpc":"2.0","id":0,"result":{{"protocolVersion":"2025-06-18","capabilities":{capabilities}}}}}"#
            );
            assert_eq!(announcements_of(&frame(&answer)), expected);
            assert_eq!(version_of(&frame(&answer)).as_deref(), Some("2025-06-18"));
        }
    }

    #[test]
    fn an_answer_to_an_earlier_session_is_not_given_to_the_next() {
        let mut memory = Memory::default();
        let asked = frame(r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#);
        let answer = frame(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        memory.note_asked(&asked, 1);
        assert!(!memory.take_answer(&answer, 2), "asked in the session before");
        memory.note_asked(&asked, 2);
        assert!(memory.take_answer(&answer, 2));
        assert!(!memory.take_answer(&answer, 2), "answered twice");
    }

    #[test]
    fn a_client_that_never_answers_costs_no_more_than_the_limit() {
        let mut memory = Memory::default();
        for id in 0..ASKED_MAX * 2 {
            let asked = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#);
            memory.note_asked(&frame(&asked), 1);
        }
        assert_eq!(memory.asked.len(), ASKED_MAX);
    }
}
