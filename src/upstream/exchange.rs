//! The words that every kind of connection has in common: what a call hears, whose session it is in,
//! which ids are ours, and what is said to a server that asks something of us.

use std::sync::Arc;

use bytes::Bytes;

use super::CallError;
use crate::wire::{Fault, Frame, Kind, message};

/// What a call hears from its upstream. Progress may come often; one of the others ends it.
pub enum Heard {
    Progress(Frame),
    /// A result or an error, under our own id.
    Reply(Frame),
    Failed(CallError),
}

/// Whose session of the upstream a call belongs to (design decision 8).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SessionKey {
    /// The one that the gateway itself uses, and everyone where the upstream is shared.
    Shared,
    /// Of one client session, or of one owner or key.
    Of(Arc<str>),
}

/// An id or token as we give them out: a number written in digits.
pub fn own_id(raw: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(raw?).ok()?.parse().ok()
}

/// What a server asks of us on its own: pings are answered, and the rest is refused, since the
/// gateway offers it no capabilities in this version.
pub fn answer_to(frame: &Frame) -> Option<Bytes> {
    if frame.kind() != Kind::Request {
        return None;
    }
    let id = frame.id()?;
    let method = frame.method()?;
    Some(match &*method {
        "ping" => message::reply(id, b"{}"),
        other => Fault::method_not_found(other).to_bytes(Some(id)),
    })
}
