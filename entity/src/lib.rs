//! The shapes of the rows, one file a table, written by hand and without behaviour.
//!
//! Which words a text column may hold is said beside it and held by a constraint of the migration;
//! what the rows mean is the business of the daemon's `store` room.

pub mod json;

pub mod log_entry;

pub mod item;
pub mod item_listing;
pub mod mcp_server;
pub mod oauth_session;
pub mod tool;
pub mod upstream_transition;

pub mod namespace;
pub mod namespace_item_mapping;
pub mod namespace_server_mapping;
pub mod namespace_tool_mapping;
pub mod shown_name;

pub mod api_key;
pub mod config;
pub mod ended_session;
pub mod endpoint;

pub mod account;
pub mod session;
pub mod user;
pub mod verification;

pub mod oauth_access_token;
pub mod oauth_authorization_code;
pub mod oauth_client;
