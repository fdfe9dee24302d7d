//! What clients of older revisions are told in words that they know.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::{
    catalogue::{kind, task_support},
    wire::{Frame, Kind, codes, message, task},
};

/// The first revision that has elicitation by URL.
const HAS_URLS: &str = "2025-11-25";

/// An answer in the words of a revision. An error that asks for a visit to a URL first (-32042) is
/// unknown before 2025-11-25, so there the tool's result is a text with the link.
pub fn worded_for(version: Option<&str>, answer: Bytes) -> Bytes {
    if version.is_none_or(|version| version >= HAS_URLS) {
        return answer;
    }
    let code = codes::URL_ELICITATION_REQUIRED.to_string();
    match memchr::memmem::find(&answer, code.as_bytes()) {
        Some(_) => in_text(&answer).unwrap_or(answer),
        None => answer,
    }
}

/// A list in the words of a revision. That a tool can be called as a task is not said before 2025-11-25,
/// and one that can only be called so is called plainly.
pub fn listed_for(version: Option<&str>, kind: kind::Kind, list: &Bytes) -> Bytes {
    let knows_tasks = version.is_some_and(|version| version >= task::SINCE);
    match kind {
        kind::Kind::Tool if !knows_tasks => task_support::hidden_in(list),
        _ => list.clone(),
    }
}

fn in_text(answer: &Bytes) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Error {
        code: i32,
        message: String,
        #[serde(default)]
        data: Option<Data>,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(default)]
        elicitations: Vec<Elicitation>,
    }
    #[derive(Deserialize)]
    struct Elicitation {
        url: String,
        #[serde(default)]
        message: String,
    }

    let frame = Frame::parse(answer.clone(), usize::MAX).ok()?;
    if frame.kind() != Kind::Error {
        return None;
    }
    let error: Error = serde_json::from_slice(&frame.error()?).ok()?;
    if error.code != codes::URL_ELICITATION_REQUIRED {
        return None;
    }
    let elicitations = error.data.map(|data| data.elicitations).unwrap_or_default();
    let links = elicitations.iter().map(|one| format!("{} {}", one.message, one.url));
    let lines: Vec<String> = std::iter::once(error.message).chain(links).collect();
    let text = lines.join("\n");
    let result = json!({"content": [{"type": "text", "text": text}], "isError": true});
    Some(message::reply(frame.id()?, result.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: &str = r#"{"jsonrpc":"2.0","id":"q","error":{"code":-32042,"message":"sign in first","data":{"elicitations":[{"mode":"url","elicitationId":"e","url":"https://x.example/in","message":"Sign in at"}]}}}"#;

    #[test]
    fn only_clients_that_do_not_know_the_error_get_its_link_as_text() {
        for version in [Some("2025-11-25"), None] {
            assert_eq!(worded_for(version, REQUIRED.into()), REQUIRED);
        }
        for version in ["2024-11-05", "2025-03-26", "2025-06-18"] {
            assert_eq!(
                worded_for(Some(version), REQUIRED.into()),
                r#"{"jsonrpc":"2.0","id":"q","result":{"content":[{"text":"sign in first\nSign in at https://x.example/in","type":"text"}],"isError":true}}"#
            );
        }
    }

    #[test]
    fn only_clients_that_know_tasks_are_told_which_tools_can_be_one() {
        let list = Bytes::from_static(br#"[{"name":"t","execution":{"taskSupport":"required"}}]"#);
        for (version, shown) in [
            (Some("2025-11-25"), &list[..]),
            (Some("2025-06-18"), &br#"[{"name":"t"}]"#[..]),
            (None, br#"[{"name":"t"}]"#),
        ] {
            assert_eq!(listed_for(version, kind::Kind::Tool, &list), shown, "{version:?}");
        }
        assert_eq!(listed_for(None, kind::Kind::Prompt, &list), list);
    }

    #[test]
    fn every_other_answer_is_left_as_it_is() {
        for answer in [
            r#"{"jsonrpc":"2.0","id":1,"result":{"n":-32042}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"-32042"}}"#,
        ] {
            assert_eq!(worded_for(Some("2025-06-18"), answer.into()), answer);
        }
    }
}
