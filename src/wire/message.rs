//! The messages that the gateway writes itself, as bytes.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

/// The answer to the request with this id. `result` is JSON.
pub fn reply(id: &[u8], result: &[u8]) -> Bytes {
    reply_of(id, &[result])
}

/// The same, of a result in parts, so that a large one is copied once.
pub fn reply_of(id: &[u8], result: &[&[u8]]) -> Bytes {
    let length: usize = result.iter().map(|part| part.len()).sum();
    let mut bytes = BytesMut::with_capacity(id.len() + length + 40);
    bytes.put_slice(br#"{"jsonrpc":"2.0","id":"#);
    bytes.put_slice(id);
    bytes.put_slice(br#","result":"#);
    for part in result {
        bytes.put_slice(part);
    }
    bytes.put_u8(b'}');
    bytes.freeze()
}

/// An error under this id. `error` is JSON.
pub fn error(id: u64, error: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(error.len() + 64);
    bytes.put_slice(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":"#).as_bytes());
    bytes.put_slice(error);
    bytes.put_u8(b'}');
    bytes.freeze()
}

/// A request of our own. `params` is JSON.
pub fn request(id: u64, method: &str, params: &[u8]) -> Bytes {
    request_under(id.to_string().as_bytes(), method, params)
}

/// The same under an id that is given as it is written.
pub fn request_under(id: &[u8], method: &str, params: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(id.len() + method.len() + params.len() + 64);
    bytes.put_slice(br#"{"jsonrpc":"2.0","id":"#);
    bytes.put_slice(id);
    bytes.put_slice(format!(r#","method":"{method}","params":"#).as_bytes());
    bytes.put_slice(params);
    bytes.put_u8(b'}');
    bytes.freeze()
}

/// A notification of our own. `params` is JSON, and left out when empty.
pub fn notification(method: &str, params: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(method.len() + params.len() + 48);
    bytes.put_slice(format!(r#"{{"jsonrpc":"2.0","method":"{method}""#).as_bytes());
    if !params.is_empty() {
        bytes.put_slice(br#","params":"#);
        bytes.put_slice(params);
    }
    bytes.put_u8(b'}');
    bytes.freeze()
}

/// Tells the receiver to give up the request that we gave this id
/// (basic/utilities/cancellation).
pub fn cancelled(id: u64, reason: &str) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        request_id: u64,
        reason: &'a str,
    }
    // A number and a string cannot fail to be written.
    let params = serde_json::to_vec(&Params { request_id: id, reason }).unwrap_or_default();
    notification("notifications/cancelled", &params)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wire::{Frame, Kind};

    #[test]
    fn what_is_written_can_be_read() {
        for (bytes, kind) in [
            (reply(b"\"a\"", b"{}"), Kind::Result),
            (error(7, br#"{"code":1,"message":""}"#), Kind::Error),
            (request(7, "ping", b"{}"), Kind::Request),
            (notification("notifications/initialized", b""), Kind::Notification),
            (cancelled(7, "the client gave \"up\""), Kind::Notification),
        ] {
            assert_eq!(Frame::parse(bytes, 8).unwrap().kind(), kind);
        }
        let frame = Frame::parse(cancelled(7, "x"), 8).unwrap();
        assert_eq!(frame.request_id(), Some(&b"7"[..]));
    }
}
