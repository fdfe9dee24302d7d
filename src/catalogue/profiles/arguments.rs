//! The way back: what a client put into the one member of a wrapped root is what the tool itself takes.

use std::ops::Range;

use crate::wire::members::{Members, Named};

/// Where, within the text of a call's arguments, those stand that the tool itself takes. `None` where they
/// are not wrapped; what a client sends otherwise is the server's to judge.
pub fn unwrap(arguments: &str, wrapped_in: &str) -> Option<Range<usize>> {
    let Members(members): Named<'_> = serde_json::from_str(arguments).ok()?;
    let [(name, value)] = &*members else { return None };
    let value = value.get();
    if name != wrapped_in || !value.starts_with('{') {
        return None;
    }
    // The value borrows from the arguments, so the distance of their addresses is its place.
    let start = value.as_ptr().addr() - arguments.as_ptr().addr();
    Some(start..start + value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_wrapped_is_unwrapped() {
        for (arguments, inner) in [
            (r#"{"input":{"a": 1.50}}"#, Some(r#"{"a": 1.50}"#)),
            (r#" { "\u0069nput" : {"a":1,"a":2} } "#, Some(r#"{"a":1,"a":2}"#)),
            (r#"{"input":{}}"#, Some("{}")),
            (r#"{"input":"text"}"#, None),
            (r#"{"input":{},"b":1}"#, None),
            (r#"{"input":{},"input":{}}"#, None),
            (r#"{"a":1}"#, None),
            ("{}", None),
            ("null", None),
            ("[]", None),
        ] {
            let found = unwrap(arguments, "input").and_then(|range| arguments.get(range));
            assert_eq!(found, inner, "{arguments}");
        }
    }
}
