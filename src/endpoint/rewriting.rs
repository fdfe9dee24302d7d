//! Gives clients the URIs that they know, where an upstream has spoken of resources: in links and
//! embedded resources of tools' results and of prompts, and in what came of a reading.
//!
//! Only the URIs themselves are touched, and only in namespaces that rewrite any. What stands in texts
//! is nobody's to change.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::{routing::Asked, tasks};
use crate::{
    catalogue::links::{self, Spoken},
    namespace::published::Published,
};

/// What an answer is to.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub asked: Asked,
    /// The upstream that gave it.
    pub server: Uuid,
    /// What it was asked for, as it knows it.
    pub key: &'a str,
    /// Whether the client asked for that behind a prefix of ours.
    pub by_prefix: bool,
}

/// The answer as its client is to have it. Takes note of what it speaks of and no list has.
pub fn shown(published: &Published, origin: Origin<'_>, answer: Bytes) -> Bytes {
    let Origin { asked, server, key, by_prefix } = origin;
    if !published.rewrites() {
        for uri in asked.links_in(&answer) {
            published.learn(&uri, server);
        }
        return answer;
    }
    let spoken = match asked {
        Asked::Tool | Asked::Prompt | Asked::Task(tasks::Request::Result) => {
            links::spoken_of(&answer)
        }
        Asked::Resource => links::read_of(&answer),
        Asked::Completion | Asked::Subscription | Asked::Unsubscription | Asked::Task(_) => {
            Vec::new()
        }
    };
    let mut edits: Vec<(Range<usize>, &str)> = Vec::new();
    for Spoken { uri, span } in spoken {
        // What a client has asked for is answered by the word that it asked with.
        let prefix = match by_prefix && uri == key {
            true => published.own_prefix(server),
            false => published.prefix_of(server, &uri),
        };
        match prefix {
            "" => published.learn(&uri, server),
            prefix => edits.push((span, prefix)),
        }
    }
    with_prefixes(answer, edits)
}

/// Puts each prefix within the quotes of the JSON string that stands there.
fn with_prefixes(answer: Bytes, mut edits: Vec<(Range<usize>, &str)>) -> Bytes {
    if edits.is_empty() {
        return answer;
    }
    edits.sort_by_key(|(span, _)| span.start);
    let growth: usize = edits.iter().map(|(_, prefix)| prefix.len()).sum();
    let mut shown = BytesMut::with_capacity(answer.len() + growth);
    let mut copied = 0;
    for (span, prefix) in edits {
        let inside = span.start + 1;
        shown.extend_from_slice(&answer[copied..inside]);
        shown.extend_from_slice(prefix.as_bytes());
        copied = inside;
    }
    shown.extend_from_slice(&answer[copied..]);
    shown.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_spans_are_touched() {
        let answer = Bytes::from_static(br#"{ "a":"u:\/\/x","b" : "u://y" ,"c":"u://x"}"#);
        let edits = vec![(22..29, "mcp+two+"), (6..15, "mcp+one+")];
        let shown = with_prefixes(answer.clone(), edits);
        assert_eq!(shown, r#"{ "a":"mcp+one+u:\/\/x","b" : "mcp+two+u://y" ,"c":"u://x"}"#);
        assert_eq!(with_prefixes(answer.clone(), Vec::new()), answer);
    }
}
