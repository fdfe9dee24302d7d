//! Reads what a `completion/complete` is about: its `params.ref` (server utilities, "Completion").
//!
//! It is read when it is asked for, since few messages have one.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::frame::{Frame, Span};

/// Where the parts of a reference lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// `ref/prompt` or `ref/resource`.
    pub kind: Option<Span>,
    /// Of a prompt.
    pub name: Option<Span>,
    /// Of a resource or a template.
    pub uri: Option<Span>,
}

impl Frame {
    /// The parts of `params.ref`. `None` where there is none, where it is no object, and where a
    /// part of it stands twice, which no two readers would take alike.
    pub fn reference(&self) -> Option<Reference> {
        #[derive(Deserialize)]
        struct Parts<'a> {
            #[serde(borrow, rename = "type")]
            kind: Option<&'a RawValue>,
            #[serde(borrow)]
            name: Option<&'a RawValue>,
            #[serde(borrow)]
            uri: Option<&'a RawValue>,
        }

        let whole = self.reference_span()?;
        let text = std::str::from_utf8(self.get(whole)).ok()?;
        let Parts { kind, name, uri } = serde_json::from_str(text).ok()?;
        let span = |part: &RawValue| {
            let offset = part.get().as_ptr().addr() - text.as_ptr().addr();
            let start = whole.start + offset as u32;
            Span { start, end: start + part.get().len() as u32 }
        };
        Some(Reference { kind: kind.map(span), name: name.map(span), uri: uri.map(span) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn complete(reference: &str) -> Frame {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{{"ref":{reference}}}}}"#
        );
        Frame::parse(text.into(), 16).unwrap()
    }

    #[test]
    fn the_parts_of_a_reference_are_found_where_they_stand() {
        let frame = complete(r#" { "type":"ref/prompt", "x":{"name":"no"},"name" : "p\u0061" } "#);
        let Reference { kind, name, uri } = frame.reference().unwrap();
        assert_eq!(frame.text(kind.unwrap()).unwrap(), "ref/prompt");
        assert_eq!(frame.get(name.unwrap()), br#""p\u0061""#);
        assert_eq!(uri, None);
        let spliced = frame.splice(&mut [(name.unwrap(), b"\"q\"")]);
        assert!(String::from_utf8(spliced.to_vec()).unwrap().ends_with(r#""name" : "q" } }}"#));
    }

    #[test]
    fn what_is_no_reference_has_no_parts() {
        for reference in [
            "1",
            "[]",
            "null",
            r#""ref/prompt""#,
            r#"{"name":"a","name":"b"}"#,
            r#"{"uri":"a","ur\u0069":"b"}"#,
        ] {
            assert_eq!(complete(reference).reference(), None, "{reference}");
        }
        let other = Frame::parse(r#"{"jsonrpc":"2.0","method":"x","params":{}}"#.into(), 16);
        assert_eq!(other.unwrap().reference(), None);
    }
}
