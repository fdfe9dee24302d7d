//! The words that every kind of connection has in common: what a call hears, whose session it is in,
//! and which ids are ours.

use std::sync::Arc;

use super::{CallError, question::Question};
use crate::wire::Frame;

/// What a call hears from its upstream. A reply or a failure ends it.
pub enum Heard {
    Progress(Frame),
    /// Something is asked of the client.
    Asked(Question),
    /// Another notification for the client.
    Said(Frame),
    /// A result or an error, under our own id.
    Reply(Frame),
    Failed(CallError),
}

/// Whose session of the upstream a call belongs to (design decision 8).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SessionKey {
    /// The one that the gateway itself uses, and everyone where the upstream is shared.
    Shared,
    /// Of one client session.
    Client(Arc<str>),
    /// Of one owner, or of one key.
    User(Arc<str>),
}

/// An id or token as we give them out: a number written in digits.
pub fn own_id(raw: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(raw?).ok()?.parse().ok()
}
