//! Several messages in one body (JSON-RPC 2.0, section 6), which MCP knows until 2025-03-26.
//!
//! Each is read by itself, so that one bad message fails alone. Whether a batch is allowed at all is
//! decided by whoever knows the session.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::frame::{Bad, Frame};

/// Whether the body is an array, and so no single message.
pub fn is_batch(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

/// The messages of a batch of at most `max`, in order.
///
/// # Errors
/// The body is no array, an empty one, or one of more than `max`.
pub fn split(body: &Bytes, depth_max: usize, max: usize) -> Result<Vec<Result<Frame, Bad>>, Bad> {
    let invalid = |why: String| Bad::Invalid { why, id: None };
    let messages: Vec<&RawValue> =
        serde_json::from_slice(body).map_err(|error| Bad::Json(error.to_string()))?;
    if messages.is_empty() {
        return Err(invalid("a batch must not be empty".into()));
    }
    if messages.len() > max {
        return Err(invalid(format!("a batch has at most {max} messages (`sessions.batch_max`)")));
    }
    let parse =
        |message: &RawValue| Frame::parse(body.slice_ref(message.get().as_bytes()), depth_max);
    Ok(messages.into_iter().map(parse).collect())
}

/// Messages as one array.
pub fn join(messages: &[Bytes]) -> Bytes {
    let mut joined =
        Vec::with_capacity(messages.iter().map(|one| one.len() + 1).sum::<usize>() + 1);
    joined.push(b'[');
    for (place, message) in messages.iter().enumerate() {
        if place > 0 {
            joined.push(b',');
        }
        joined.extend_from_slice(message);
    }
    joined.push(b']');
    joined.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wire::Kind;

    fn kinds(body: &'static str) -> Result<Vec<Option<Kind>>, Bad> {
        let messages = split(&Bytes::from_static(body.as_bytes()), 8, 3)?;
        Ok(messages.into_iter().map(|message| message.ok().map(|frame| frame.kind())).collect())
    }

    #[test]
    fn each_message_is_read_by_itself() {
        let body =
            r#" [ {"jsonrpc":"2.0","id":1,"method":"a"} , {"jsonrpc":"2.0","method":"b"}, 7 ]"#;
        assert_eq!(kinds(body).unwrap(), [Some(Kind::Request), Some(Kind::Notification), None]);
        assert_eq!(kinds(r#"[[]]"#).unwrap(), [None], "a batch within a batch is no message");
        let deep = r#"[{"jsonrpc":"2.0","id":1,"result":[[[[[[[[0]]]]]]]]},{"jsonrpc":"2.0","method":"b"}]"#;
        assert_eq!(kinds(deep).unwrap(), [None, Some(Kind::Notification)]);
    }

    #[test]
    fn what_is_no_batch_is_refused_as_a_whole() {
        for body in ["[", "[1,]", "{}", "[\"\u{1}\"]"] {
            assert!(matches!(kinds(body), Err(Bad::Json(_))), "{body}");
        }
        for body in ["[]", "[1,2,3,4]"] {
            assert!(matches!(kinds(body), Err(Bad::Invalid { .. })), "{body}");
        }
    }

    #[test]
    fn a_batch_is_told_from_a_message_by_its_first_character() {
        assert!(is_batch(b" \r\n[1]") && is_batch(b"["));
        assert!(!is_batch(b"") && !is_batch(br#"{"a":[1]}"#) && !is_batch(br#""[""#));
    }

    #[test]
    fn what_is_joined_is_split_again() {
        let messages: Vec<Bytes> = ["{\"a\":1}", "[2]"].map(Bytes::from).to_vec();
        assert_eq!(join(&messages), "[{\"a\":1},[2]]");
        assert_eq!(join(&[]), "[]");
    }
}
