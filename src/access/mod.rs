//! Who a request is made for, and which endpoints that one may use.
//!
//! The room is pure. It is handed what a request carried and the facts about its key, and answers a
//! verdict; looking keys up is left to `identity`, and turning a verdict into HTTP to `endpoint`.

pub mod admission;
pub mod credential;

pub use admission::{EndpointFacts, KeyFacts, KeyKind, Principal, Verdict, admit};
pub use credential::{Offered, Presented, credential};
