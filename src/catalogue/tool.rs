//! One tool as its upstream described it, kept as the bytes that came.
//!
//! Parsing finds the name and where it stands, so that it can be replaced without touching a byte
//! beside it. What the other fields mean is left to the client, the only one who can use them.

use std::ops::Range;

use bytes::Bytes;
use memchr::memchr2;
use serde_json::value::RawValue;

use super::pairs::Pairs;

/// The longest name the specification allows, in bytes.
pub const NAME_MAX: usize = 128;

/// A tool that can be listed and called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The upstream's own name, decoded.
    pub name: Box<str>,
    /// The tool object as it came. Only line breaks, which JSON allows nowhere but between tokens,
    /// have become spaces, so that it fits on a line of a pipe or of an event.
    pub definition: Bytes,
    /// Where the JSON string that is the name stands inside `definition`, quotes included.
    pub name_span: Range<usize>,
}

/// Why something in a list of tools is not a tool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTool {
    #[error("a tool is not a JSON object")]
    NotAnObject,
    #[error("a tool has no name")]
    NameMissing,
    #[error("a tool has two fields called name")]
    NameTwice,
    #[error("the name of a tool is not a string")]
    NameNotText,
    #[error("the name of a tool is empty")]
    NameEmpty,
    #[error("the name of a tool has {length} bytes, more than {NAME_MAX}")]
    NameTooLong { length: usize },
    /// Neither a header nor a PostgreSQL text could carry such a name.
    #[error("the name of a tool holds a control character")]
    NameUnprintable,
    /// Found by whoever reads whole lists: a call could only ever reach one of the two.
    #[error("the tool `{name}` was listed before")]
    Repeated { name: Box<str> },
}

impl Tool {
    /// Reads one tool object.
    pub fn parse(definition: Bytes) -> Result<Tool, BadTool> {
        let definition = on_one_line(definition);
        let fields: Pairs<'_> =
            serde_json::from_slice(&definition).map_err(|_| BadTool::NotAnObject)?;
        let token =
            fields.only("name").map_err(|_| BadTool::NameTwice)?.ok_or(BadTool::NameMissing)?.get();
        let name: Box<str> = serde_json::from_str(token).map_err(|_| BadTool::NameNotText)?;
        if name.is_empty() {
            return Err(BadTool::NameEmpty);
        }
        if name.len() > NAME_MAX {
            return Err(BadTool::NameTooLong { length: name.len() });
        }
        if name.chars().any(char::is_control) {
            return Err(BadTool::NameUnprintable);
        }

        // The token borrows from the definition, so the distance of their addresses is its place.
        let start = token.as_ptr().addr() - definition.as_ptr().addr();
        let name_span = start..start + token.len();
        Ok(Tool { name, definition, name_span })
    }

    /// The upstream's own name as the JSON string it came as: what a call has to carry back.
    pub fn name_json(&self) -> Bytes {
        self.definition.slice(self.name_span.clone())
    }

    /// The title for people, where there is one.
    pub fn title(&self) -> Option<String> {
        self.text("title")
    }

    /// The description for models, where there is one.
    pub fn description(&self) -> Option<String> {
        self.text("description")
    }

    /// The schema of the arguments, as JSON text; `None` where the upstream gave none.
    pub fn input_schema(&self) -> Option<&str> {
        self.field("inputSchema").map(RawValue::get)
    }

    fn text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.field(key)?.get()).ok()
    }

    /// The value of `key`; the last one where it came twice, as most readers would have it.
    fn field(&self, key: &str) -> Option<&RawValue> {
        let Pairs(fields) = serde_json::from_slice(&self.definition).ok()?;
        fields.into_iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

/// Inside a string a raw line break is not JSON, and parsing refuses it; so every one that a valid
/// definition holds is mere white space, and a space in its place moves nothing.
fn on_one_line(definition: Bytes) -> Bytes {
    let trimmed = definition.slice_ref(definition.trim_ascii());
    if memchr2(b'\n', b'\r', &trimmed).is_none() || !is_json(&trimmed) {
        return trimmed;
    }
    trimmed.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(text).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(definition: &str) -> Result<Tool, BadTool> {
        Tool::parse(Bytes::copy_from_slice(definition.as_bytes()))
    }

    #[test]
    fn the_span_is_that_of_the_top_level_name() {
        for definition in [
            r#"{"name":"search"}"#,
            r#"{"inputSchema":{"properties":{"name":"other"}},"name":"search","title":"name"}"#,
            r#"  {"name" :	"search"  , "x":1.00}  "#,
            r#"{"name":"search"}"#,
            "{\n  \"a\": 1,\r\n  \"name\": \"search\"\n}",
        ] {
            let tool = parse(definition).unwrap();
            assert_eq!(&*tool.name, "search");
            let token = tool.name_json();
            assert_eq!(serde_json::from_slice::<String>(&token).unwrap(), "search", "{definition}");
        }
    }

    #[test]
    fn the_name_is_decoded_and_its_token_kept() {
        let tool = parse(r#"{"name":"se\u0061rch \"x\""}"#).unwrap();
        assert_eq!(&*tool.name, "search \"x\"");
        assert_eq!(tool.name_json(), r#""se\u0061rch \"x\"""#);
    }

    #[test]
    fn every_byte_but_line_breaks_is_kept() {
        let definition =
            r#"{"z":1.50,"name":"n","a":{"$ref":"\u00e9é"},"big":12345678901234567890123}"#;
        assert_eq!(parse(definition).unwrap().definition, definition);

        let tool = parse("{\"name\":\n\"n\",\r\n\"a\":1}").unwrap();
        assert_eq!(tool.definition, "{\"name\": \"n\",  \"a\":1}");
    }

    #[test]
    fn what_is_no_tool_is_refused_with_its_reason() {
        let long = "x".repeat(NAME_MAX + 1);
        let long_definition = format!(r#"{{"name":"{long}"}}"#);
        for (definition, why) in [
            ("[]", BadTool::NotAnObject),
            ("", BadTool::NotAnObject),
            ("{", BadTool::NotAnObject),
            ("{\"name\":\"a\nb\"}", BadTool::NotAnObject),
            ("{}", BadTool::NameMissing),
            (r#"{"name":"a","name":"a"}"#, BadTool::NameTwice),
            (r#"{"name":"a","n\u0061me":"b"}"#, BadTool::NameTwice),
            (r#"{"name":7}"#, BadTool::NameNotText),
            (r#"{"name":null}"#, BadTool::NameNotText),
            (r#"{"name":"\ud800"}"#, BadTool::NameNotText),
            (r#"{"name":""}"#, BadTool::NameEmpty),
            (r#"{"name":"a\u0000"}"#, BadTool::NameUnprintable),
            (r#"{"name":"a\n"}"#, BadTool::NameUnprintable),
            (&long_definition, BadTool::NameTooLong { length: NAME_MAX + 1 }),
        ] {
            assert_eq!(parse(definition), Err(why), "{definition:?}");
        }
        assert_eq!(
            Tool::parse(Bytes::from_static(b"{\"name\":\"\xff\"}")),
            Err(BadTool::NotAnObject)
        );
    }

    #[test]
    fn a_name_of_128_bytes_is_allowed() {
        let name = "x".repeat(NAME_MAX);
        assert_eq!(*parse(&format!(r#"{{"name":"{name}"}}"#)).unwrap().name, *name);
    }

    #[test]
    fn the_other_fields_are_read_on_demand() {
        let tool = parse(
            r#"{"name":"n","title":"T\u00e9","description":"d","inputSchema":{"type": "object"}}"#,
        )
        .unwrap();
        assert_eq!(tool.title().as_deref(), Some("Té"));
        assert_eq!(tool.description().as_deref(), Some("d"));
        assert_eq!(tool.input_schema(), Some(r#"{"type": "object"}"#));

        let bare = parse(r#"{"name":"n","title":null,"description":3}"#).unwrap();
        assert_eq!((bare.title(), bare.description(), bare.input_schema()), (None, None, None));
    }
}
