//! The resource that a tool names as its user interface, in its `_meta` (the extension MCP Apps): a URI
//! in a tool's definition, which is rewritten with that of the resource.

use bytes::BytesMut;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{item::Item, kind::Kind};

/// The tool with a prefix within the quotes of that URI; `None` where nothing changes. `prefix` tells
/// what stands before a URI where clients see it.
pub fn with_shown_app<'a>(tool: &Item, prefix: impl Fn(&str) -> &'a str) -> Option<Item> {
    let definition = &tool.definition;
    memmem::find(definition, b"resourceUri")?;
    let Tool { meta } = serde_json::from_slice(definition).ok()?;
    let Meta { ui, flat } = serde_json::from_str(meta?.get()).ok()?;
    let nested = ui.and_then(|ui| serde_json::from_str::<Ui<'_>>(ui.get()).ok()?.resource_uri);
    let edit = |token: &RawValue| {
        let uri: String = serde_json::from_str(token.get()).ok()?;
        // The token borrows from the definition, so the distance of their addresses is its place.
        let start = token.get().as_ptr().addr() - definition.as_ptr().addr();
        Some((start + "\"".len(), prefix(&uri))).filter(|(_, prefix)| !prefix.is_empty())
    };
    let mut edits: Vec<(usize, &str)> = nested.into_iter().chain(flat).filter_map(edit).collect();
    if edits.is_empty() {
        return None;
    }
    edits.sort_unstable();
    let (mut shown, mut copied) = (BytesMut::new(), 0);
    for (place, prefix) in edits {
        shown.extend_from_slice(&definition[copied..place]);
        shown.extend_from_slice(prefix.as_bytes());
        copied = place;
    }
    shown.extend_from_slice(&definition[copied..]);
    Item::parse(Kind::Tool, shown.freeze()).ok()
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    ui: Option<&'a RawValue>,
    /// As early drafts have it.
    #[serde(borrow, rename = "ui/resourceUri")]
    flat: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Ui<'a> {
    #[serde(borrow, rename = "resourceUri")]
    resource_uri: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_uri_of_a_tools_interface_is_shown_as_that_of_the_resource() {
        let prefix = |uri: &str| if uri == "ui://a" { "mcp+one+" } else { "" };
        for (definition, expected) in [
            (
                r#"{"name":"t","_meta":{ "ui":{"x":1.0,"resourceUri" : "ui:\/\/a"},"ui/resourceUri":"ui://a"}}"#,
                Some(
                    r#"{"name":"t","_meta":{ "ui":{"x":1.0,"resourceUri" : "mcp+one+ui:\/\/a"},"ui/resourceUri":"mcp+one+ui://a"}}"#,
                ),
            ),
            (
                r#"{"_meta":{"ui":7,"ui/resourceUri":"ui://a"},"name":"t"}"#,
                Some(r#"{"_meta":{"ui":7,"ui/resourceUri":"mcp+one+ui://a"},"name":"t"}"#),
            ),
            (r#"{"name":"t","_meta":{"ui":{"resourceUri":"ui://b"}}}"#, None),
            (r#"{"name":"t","_meta":{"ui":{"resourceUri":7}}}"#, None),
            (r#"{"name":"t","inputSchema":{"resourceUri":"ui://a"}}"#, None),
            (r#"{"name":"t","_meta":null,"x":"resourceUri"}"#, None),
        ] {
            let tool = Item::parse(Kind::Tool, definition.into()).unwrap();
            let shown = with_shown_app(&tool, prefix);
            let bytes = shown.as_ref().map(|tool| std::str::from_utf8(&tool.definition).unwrap());
            assert_eq!(bytes, expected, "{definition}");
            assert!(shown.is_none_or(|tool| tool.key_json() == r#""t""#));
        }
    }
}
