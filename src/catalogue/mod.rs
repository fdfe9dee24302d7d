//! What a namespace offers, as values: tools as they came, the names they are shown under, and the
//! routes from those names back to their upstreams.
//!
//! The room is pure. It asks no upstream, remembers nothing and reads no clock: who calls it brings
//! the lists and the names given earlier, and stores or publishes what it answers.

pub mod changes;
pub mod listing;
pub mod naming;
pub mod routes;
pub mod tool;

mod pairs;
