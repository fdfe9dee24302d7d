//! The vocabulary of the chapters: a gateway under test, its clients, its upstreams, and patience.
//! What is right or wrong is said by the chapters; nothing here asserts about behaviour except that
//! no process is left behind.

pub mod client;
pub mod database;
pub mod events;
pub mod evil;
pub mod exact;
pub mod featured;
pub mod fixtures;
pub mod fragile;
pub mod gateway;
pub mod isolated;
pub mod knobs;
pub mod node;
pub mod operator;
pub mod outage;
pub mod peers;
pub mod postgres;
pub mod processes;
pub mod raw;
pub mod remote;
pub mod remote_tasks;
pub mod scripted;
pub mod shelf;
pub mod sse_client;
pub mod sse_remote;
pub mod stdio_client;
pub mod token_endpoint;
pub mod wait;

pub use client::Client;
pub use evil::evil;
pub use fixtures::python;
pub use gateway::TestGateway;
pub use sse_client::SseClient;
pub use stdio_client::StdioClient;
pub use wait::{wait_until, within};

/// Long enough for anything that has to happen at all on a busy machine with two cores.
pub const SOON: std::time::Duration = std::time::Duration::from_secs(20);

/// The admin key that gateways under test are given.
pub const ADMIN_KEY: &str = "test-admin-key-0123456789-abcdefghijklmnop";

/// Whether a thing the suite needs may be missing on this machine. Says loudly that something is
/// skipped, and fails instead where `METAMCPD_TEST_REQUIRE` lists `need`.
pub fn skipped(need: &str, what: &str) -> bool {
    let required = std::env::var("METAMCPD_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name.trim() == need), "{need} is required: {what}");
    eprintln!("SKIPPED {what}");
    true
}
