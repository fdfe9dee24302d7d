//! One thing that a server offers, as its upstream described it, kept as the bytes that came.
//!
//! Parsing finds the name or URI it is known by and where that stands, so that it can be replaced
//! without touching a byte beside it. What the other fields mean is left to the client, the only one
//! who can use them.

use std::ops::Range;

use bytes::Bytes;
use memchr::memchr2;
use serde_json::value::RawValue;

use super::{
    kind::Kind,
    task_support::{self, TaskSupport},
};
use crate::wire::members::{Members, Named};

/// The longest name the specification allows, in bytes.
pub const NAME_MAX: usize = 128;
/// The longest URI or template, in bytes: what an index of either database can hold.
pub const URI_MAX: usize = 2_048;

/// A tool, prompt, resource or template that can be listed and asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The upstream's own name, URI or template, decoded.
    pub key: Box<str>,
    /// The object as it came. Only line breaks, which JSON allows nowhere but between tokens, have
    /// become spaces, so that it fits on a line of a pipe or of an event.
    pub definition: Bytes,
    /// Where the JSON string that is the key stands inside `definition`, quotes included.
    pub key_span: Range<usize>,
}

/// Why something in a list is none of the things that are listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadItem {
    #[error("it is not a JSON object")]
    NotAnObject,
    #[error("it has no `{field}`")]
    Missing { field: &'static str },
    #[error("it has two fields called `{field}`")]
    Twice { field: &'static str },
    #[error("its `{field}` is not a string")]
    NotText { field: &'static str },
    #[error("its `{field}` is empty")]
    Empty { field: &'static str },
    #[error("its `{field}` has {length} bytes, more than {max}")]
    TooLong { field: &'static str, length: usize, max: usize },
    /// Neither a header nor a PostgreSQL text could carry such a name.
    #[error("its `{field}` holds a control character")]
    Unprintable { field: &'static str },
    /// Found by whoever reads whole lists: a call could only ever reach one of the two.
    #[error("`{key}` was listed before")]
    Repeated { key: Box<str> },
}

impl Item {
    /// Reads one object of a list.
    pub fn parse(kind: Kind, definition: Bytes) -> Result<Item, BadItem> {
        let field = kind.key_field();
        let max = match kind {
            Kind::Tool | Kind::Prompt => NAME_MAX,
            Kind::Resource | Kind::Template => URI_MAX,
        };
        let definition = on_one_line(definition);
        let fields: Named<'_> =
            serde_json::from_slice(&definition).map_err(|_| BadItem::NotAnObject)?;
        let token = fields
            .only(field)
            .map_err(|_| BadItem::Twice { field })?
            .ok_or(BadItem::Missing { field })?
            .get();
        let key: Box<str> = serde_json::from_str(token).map_err(|_| BadItem::NotText { field })?;
        if key.is_empty() {
            return Err(BadItem::Empty { field });
        }
        if key.len() > max {
            return Err(BadItem::TooLong { field, length: key.len(), max });
        }
        if key.chars().any(char::is_control) {
            return Err(BadItem::Unprintable { field });
        }

        // The token borrows from the definition, so the distance of their addresses is its place.
        let start = token.as_ptr().addr() - definition.as_ptr().addr();
        let key_span = start..start + token.len();
        Ok(Item { key, definition, key_span })
    }

    /// The upstream's own key as the JSON string it came as: what a request has to carry back.
    pub fn key_json(&self) -> Bytes {
        self.definition.slice(self.key_span.clone())
    }

    /// Whether a tool can be called as a task.
    pub fn task_support(&self) -> TaskSupport {
        TaskSupport::of(&self.definition)
    }

    /// Makes a tool one that can only be called plainly.
    pub fn forbid_tasks(&mut self) {
        if self.task_support() != TaskSupport::Forbidden
            && let Some(hidden) = task_support::hidden(&self.definition)
            && let Ok(item) = Item::parse(Kind::Tool, hidden)
        {
            *self = item;
        }
    }

    /// The name for programs, which resources and templates have beside their URI.
    pub fn name(&self) -> Option<String> {
        self.text("name")
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
        let Members(fields): Named<'_> = serde_json::from_slice(&self.definition).ok()?;
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

    fn parse(definition: &str) -> Result<Item, BadItem> {
        Item::parse(Kind::Tool, Bytes::copy_from_slice(definition.as_bytes()))
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
            assert_eq!(&*tool.key, "search");
            let token = tool.key_json();
            assert_eq!(serde_json::from_slice::<String>(&token).unwrap(), "search", "{definition}");
        }
    }

    #[test]
    fn the_name_is_decoded_and_its_token_kept() {
        let tool = parse(r#"{"name":"se\u0061rch \"x\""}"#).unwrap();
        assert_eq!(&*tool.key, "search \"x\"");
        assert_eq!(tool.key_json(), r#""se\u0061rch \"x\"""#);
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
        let field = "name";
        let long = "x".repeat(NAME_MAX + 1);
        let long_definition = format!(r#"{{"name":"{long}"}}"#);
        for (definition, why) in [
            ("[]", BadItem::NotAnObject),
            ("", BadItem::NotAnObject),
            ("{", BadItem::NotAnObject),
            ("{\"name\":\"a\nb\"}", BadItem::NotAnObject),
            ("{}", BadItem::Missing { field }),
            (r#"{"name":"a","name":"a"}"#, BadItem::Twice { field }),
            (r#"{"name":"a","n\u0061me":"b"}"#, BadItem::Twice { field }),
            (r#"{"name":7}"#, BadItem::NotText { field }),
            (r#"{"name":null}"#, BadItem::NotText { field }),
            (r#"{"name":"\ud800"}"#, BadItem::NotText { field }),
            (r#"{"name":""}"#, BadItem::Empty { field }),
            (r#"{"name":"a\u0000"}"#, BadItem::Unprintable { field }),
            (r#"{"name":"a\n"}"#, BadItem::Unprintable { field }),
            (&long_definition, BadItem::TooLong { field, length: NAME_MAX + 1, max: NAME_MAX }),
        ] {
            assert_eq!(parse(definition), Err(why), "{definition:?}");
        }
        assert_eq!(
            Item::parse(Kind::Tool, Bytes::from_static(b"{\"name\":\"\xff\"}")),
            Err(BadItem::NotAnObject)
        );
    }

    #[test]
    fn a_name_of_128_bytes_is_allowed() {
        let name = "x".repeat(NAME_MAX);
        assert_eq!(*parse(&format!(r#"{{"name":"{name}"}}"#)).unwrap().key, *name);
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

    #[test]
    fn a_tool_that_can_be_a_task_is_made_one_that_cannot() {
        let mut tool = parse(r#"{"execution":{"taskSupport":"required"},"name":"n"}"#).unwrap();
        assert_eq!(tool.task_support(), TaskSupport::Required);
        tool.forbid_tasks();
        assert_eq!(
            (&*tool.definition, &*tool.key_json()),
            (&br#"{"name":"n"}"#[..], &b"\"n\""[..])
        );
        let definition = r#"{"name":"n","execution":{"taskSupport":"forbidden"}}"#;
        let mut tool = parse(definition).unwrap();
        tool.forbid_tasks();
        assert_eq!(tool.definition, definition);
    }

    #[test]
    fn each_kind_is_known_by_its_own_field() {
        let definition = r#"{"name":"n","uri":"u://\u0061","uriTemplate":"u://{x}","mimeType":7}"#;
        for (kind, key, token) in [
            (Kind::Prompt, "n", r#""n""#),
            (Kind::Resource, "u://a", r#""u://\u0061""#),
            (Kind::Template, "u://{x}", r#""u://{x}""#),
        ] {
            let item = Item::parse(kind, Bytes::from(definition)).unwrap();
            assert_eq!((&*item.key, &*item.key_json()), (key, token.as_bytes()), "{kind:?}");
            assert_eq!(item.definition, definition);
        }
        let nameless = Item::parse(Kind::Resource, Bytes::from(r#"{"name":"n"}"#));
        assert_eq!(nameless, Err(BadItem::Missing { field: "uri" }));
        let uri = "x".repeat(URI_MAX);
        let resource =
            |uri: &str| Item::parse(Kind::Resource, format!(r#"{{"uri":"{uri}"}}"#).into());
        assert_eq!(*resource(&uri).unwrap().key, *uri);
        let length = URI_MAX + 1;
        let refusal = BadItem::TooLong { field: "uri", length, max: URI_MAX };
        assert_eq!(resource(&format!("{uri}x")), Err(refusal));
    }
}
