//! Finds the resources that a result speaks of: a client may ask for any of them, though no list has
//! them (server features, "Resource Links" and "Embedded Resources").

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A result that is longer is not looked through: links are short, and what is long is contents.
pub const LENGTH_MAX: usize = 256 * 1024;

/// The URIs of the resources that a response links to or embeds, in the content of a tool's result or
/// of a prompt's messages; in their order.
///
/// A search for the word that such a result must hold comes before any reading, so that others pass
/// at the cost of that.
pub fn linked(response: &[u8]) -> Vec<String> {
    if response.len() > LENGTH_MAX || memmem::find(response, br#""resource"#).is_none() {
        return Vec::new();
    }
    let Ok(Response { result }) = serde_json::from_slice(response) else { return Vec::new() };
    let in_messages = result.messages.iter().filter_map(|message| {
        let Message { content } = serde_json::from_str(message.get()).ok()?;
        Some(content)
    });
    let blocks = result.content.iter().copied().chain(in_messages);
    let uris = blocks.filter_map(|block| {
        let Block { kind, uri, resource } = serde_json::from_str(block.get()).ok()?;
        match &*kind {
            "resource_link" => uri,
            "resource" => serde_json::from_str::<Contents>(resource?.get()).ok()?.uri,
            _ => None,
        }
    });
    uris.collect()
}

/// The URIs of the contents that came of reading a resource, which may be others than the one that
/// was asked for.
pub fn read(response: &[u8]) -> Vec<String> {
    if response.len() > LENGTH_MAX {
        return Vec::new();
    }
    let Ok(Response { result }) = serde_json::from_slice(response) else { return Vec::new() };
    let uris = result
        .contents
        .iter()
        .filter_map(|contents| serde_json::from_str::<Contents>(contents.get()).ok()?.uri);
    uris.collect()
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    result: Parts<'a>,
}

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow, default)]
    content: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    messages: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    contents: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(rename = "type")]
    kind: String,
    uri: Option<String>,
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Contents {
    uri: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_that_a_result_speaks_of_is_found() {
        for (result, expected) in [
            (
                r#"{"content":[{"type":"resource_link","uri":"u://\u0061","name":"a"}]}"#,
                &["u://a"][..],
            ),
            (
                r#"{"content":[{"type":"resource","resource":{"uri":"u://a","text":""}}]}"#,
                &["u://a"],
            ),
            (
                r#"{"content":[{"type":"text","text":"x"},{"type":"odd","uri":"u://no"},7,
                    {"type":"resource","resource":9},{"type":"resource_link","uri":"u://b"}]}"#,
                &["u://b"],
            ),
            (
                r#"{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"u://c"}}}]}"#,
                &["u://c"],
            ),
            (r#"{"content":[{"type":"text","text":"\"resource_link\""}],"uri":"u://no"}"#, &[]),
            (r#"{"content":"resource"}"#, &[]),
            (r#"["resource"]"#, &[]),
        ] {
            let response = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
            assert_eq!(linked(response.as_bytes()), expected, "{result}");
        }
        assert!(linked(br#"{"error":{"data":"resource"}}"#).is_empty());
        let contents =
            r#"{"result":{"contents":[{"uri":"u://d","text":"x"},{"text":""},{"uri":"u://e"}]}}"#;
        assert_eq!(read(contents.as_bytes()), ["u://d", "u://e"]);
    }

    #[test]
    fn what_is_very_long_is_not_looked_through() {
        let text = "x".repeat(LENGTH_MAX);
        let response = format!(
            r#"{{"result":{{"content":[{{"type":"resource_link","uri":"u://a"}}],"x":"{text}"}}}}"#
        );
        assert!(linked(response.as_bytes()).is_empty() && read(response.as_bytes()).is_empty());
    }
}
