//! Finds the resources that a result speaks of: a client may ask for any of them, though no list has
//! them (server features, "Resource Links" and "Embedded Resources").

use std::ops::Range;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A result that is longer is not looked through for links alone: they are short, and what is long is
/// contents.
pub const LENGTH_MAX: usize = 256 * 1024;

/// A URI in a response, and where its JSON string stands there, quotes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    pub uri: String,
    pub span: Range<usize>,
}

/// The URIs of the resources that a response links to or embeds, in the content of a tool's result or
/// of a prompt's messages; in their order.
pub fn linked(response: &[u8]) -> Vec<String> {
    if response.len() > LENGTH_MAX {
        return Vec::new();
    }
    spoken_of(response).into_iter().map(|spoken| spoken.uri).collect()
}

/// The URIs of the contents that came of reading a resource, which may be others than the one that
/// was asked for.
pub fn read(response: &[u8]) -> Vec<String> {
    if response.len() > LENGTH_MAX {
        return Vec::new();
    }
    contents_of(response).into_iter().map(|spoken| spoken.uri).collect()
}

/// What [`linked`] finds, with its places, however long the response.
///
/// A search for the word that such a result must hold comes before any reading, so that others pass
/// at the cost of that.
pub fn spoken_of(response: &[u8]) -> Vec<Spoken> {
    if memmem::find(response, br#""resource"#).is_none() {
        return Vec::new();
    }
    let Ok(Response { result }) = serde_json::from_slice(response) else { return Vec::new() };
    let in_messages = result.messages.iter().flat_map(|message| {
        let content = serde_json::from_str(message.get()).map(|Message { content }| content);
        content.map(blocks_of).unwrap_or_default()
    });
    let blocks = result.content.iter().copied().chain(in_messages);
    let uris = blocks.filter_map(|block| {
        let Block { kind, uri, resource } = serde_json::from_str(block.get()).ok()?;
        match &*kind {
            "resource_link" => uri,
            "resource" => serde_json::from_str::<Contents<'_>>(resource?.get()).ok()?.uri,
            _ => None,
        }
    });
    uris.filter_map(|uri| spoken(response, uri)).collect()
}

/// What [`read`] finds, with its places, however long the response; and of an error the URI that it is
/// about.
pub fn read_of(response: &[u8]) -> Vec<Spoken> {
    let contents = contents_of(response);
    if !contents.is_empty() {
        return contents;
    }
    let uri = serde_json::from_slice(response).ok().and_then(|Refusal { error }| error.data?.uri);
    uri.and_then(|uri| spoken(response, uri)).into_iter().collect()
}

fn contents_of(response: &[u8]) -> Vec<Spoken> {
    let Ok(Response { result }) = serde_json::from_slice(response) else { return Vec::new() };
    let uris = result
        .contents
        .iter()
        .filter_map(|contents| serde_json::from_str::<Contents<'_>>(contents.get()).ok()?.uri);
    uris.filter_map(|uri| spoken(response, uri)).collect()
}

/// One block of a prompt's message, or several.
fn blocks_of(content: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(content.get()).unwrap_or_else(|_| vec![content])
}

/// `None` for what is no string.
fn spoken(response: &[u8], token: &RawValue) -> Option<Spoken> {
    let uri = serde_json::from_str(token.get()).ok()?;
    // The token borrows from the response, so the distance of their addresses is its place.
    let start = token.get().as_ptr().addr() - response.as_ptr().addr();
    Some(Spoken { uri, span: start..start + token.get().len() })
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
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Contents<'a> {
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow)]
    error: RefusalError<'a>,
}

#[derive(Deserialize)]
struct RefusalError<'a> {
    #[serde(borrow)]
    data: Option<Contents<'a>>,
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
    fn each_stands_where_it_is_said_to() {
        let link = r#"{"result":{"content":[{"type":"text","text":"u://a"}, {"uri" : "u:\/\/a","type":"resource_link"}],"uri":"u://a","messages":[{"content":[{"type":"resource","resource":{"uri":"u://b"}}]}]}}"#;
        let at = |spoken: &Spoken| link[spoken.span.clone()].to_owned();
        let found = spoken_of(link.as_bytes());
        assert_eq!(found.iter().map(at).collect::<Vec<_>>(), [r#""u:\/\/a""#, r#""u://b""#]);
        assert_eq!(found[0].uri, "u://a");

        let refused = r#"{"id":1,"error":{"code":-32002,"message":"x","data":{"uri":"u://a"}}}"#;
        let found = read_of(refused.as_bytes());
        assert_eq!((&*found[0].uri, &refused[found[0].span.clone()]), ("u://a", r#""u://a""#));
        for odd in [r#"{"error":{"data":"u://a"}}"#, r#"{"error":{"data":{"uri":7}}}"#, "7", ""] {
            assert!(read_of(odd.as_bytes()).is_empty(), "{odd}");
        }
    }

    #[test]
    fn what_is_very_long_is_not_looked_through() {
        let text = "x".repeat(LENGTH_MAX);
        let response = format!(
            r#"{{"result":{{"content":[{{"type":"resource_link","uri":"u://a"}}],"x":"{text}"}}}}"#
        );
        assert!(linked(response.as_bytes()).is_empty() && read(response.as_bytes()).is_empty());
        assert_eq!(spoken_of(response.as_bytes()).len(), 1, "unless its URIs are to be changed");
    }
}
