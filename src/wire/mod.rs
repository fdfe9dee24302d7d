//! JSON-RPC and its framings, as bytes in and bytes out.
//!
//! Everything here is a function on values: no sockets, no actors, no clock. What a message means
//! to the gateway is decided by the rooms above.

pub mod arguments;
pub mod batch;
pub mod capabilities;
pub mod challenge;
pub mod codes;
mod depth;
pub mod documents;
pub mod era;
pub mod fault;
mod form;
pub mod frame;
pub mod gathered;
pub mod level;
pub mod lines;
pub mod members;
pub mod message;
pub mod object;
pub mod reference;
pub mod sse;
pub mod task;
pub mod topic;
pub mod torn;

pub use fault::Fault;
pub use frame::{Bad, Frame, Kind, Span};
pub use reference::Reference;
pub use topic::{ListCounts, Topic};
