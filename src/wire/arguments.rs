//! The arguments of a call, for the few calls whose arguments are not passed on as they stand.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::frame::{Frame, Span};

impl Frame {
    /// `params.arguments` as they were written, and where. `None` where there are none.
    pub fn arguments(&self) -> Option<(Span, &str)> {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            params: &'a RawValue,
        }
        #[derive(Deserialize)]
        struct Params<'a> {
            #[serde(borrow)]
            arguments: &'a RawValue,
        }

        let text = std::str::from_utf8(self.bytes()).ok()?;
        let Message { params } = serde_json::from_str(text).ok()?;
        // A list would be taken for an object whose members have lost their names.
        let params = params.get();
        let is_object = params.starts_with('{');
        let Params { arguments } = serde_json::from_str(params).ok().filter(|_| is_object)?;
        let arguments = arguments.get();
        let start = (arguments.as_ptr().addr() - text.as_ptr().addr()) as u32;
        Some((Span { start, end: start + arguments.len() as u32 }, arguments))
    }
}

impl Span {
    /// A part of what stands here, counted from its beginning.
    pub fn part(self, of: &Range<usize>) -> Span {
        Span { start: self.start + of.start as u32, end: self.start + of.end as u32 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_arguments_are_those_of_the_call() {
        let call = |params: &str| {
            let text = format!(
                r#"{{"arguments":0,"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#
            );
            Frame::parse(text.into(), 16).unwrap()
        };
        let frame = call(r#"{"_meta":{"arguments":1},"name":"x", "arguments" : {"a": [1.50]} }"#);
        let (span, text) = frame.arguments().unwrap();
        assert_eq!((frame.get(span), text), (&br#"{"a": [1.50]}"#[..], r#"{"a": [1.50]}"#));
        assert_eq!(frame.get(span.part(&(6..12))), b"[1.50]");
        assert_eq!(call("[1]").arguments(), None);
        assert_eq!(call(r#"{"name":"x"}"#).arguments(), None);
    }
}
