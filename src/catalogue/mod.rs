//! What a namespace offers, as values: tools, prompts, resources and templates as they came, the names
//! they are shown under, what an operator changed about them, and the routes from those names back to
//! their upstreams.
//!
//! The room is pure. It asks no upstream, remembers nothing and reads no clock: who calls it brings
//! the lists and the names given earlier, and stores or publishes what it answers.

pub mod apps;
pub mod changes;
pub mod curation;
pub mod instructions;
pub mod item;
pub mod kind;
pub mod links;
pub mod listing;
pub mod naming;
pub mod overrides;
pub mod pages;
pub mod profiles;
pub mod resources;
pub mod routes;
pub mod task_support;
pub mod template;
pub mod uris;

#[cfg(test)]
mod table_tests;
