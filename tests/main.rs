//! The gateway from outside: each chapter proves one behaviour against the real binary, over real
//! sockets, with real processes behind it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by ending"
)]

mod support;

mod access;
mod admin_api;
mod batches;
mod breaking;
mod calls;
mod changed_upstreams;
mod clock_jumps;
mod command_line;
mod confinement;
mod connect;
mod connect_troubles;
mod connections;
mod containers;
mod curation;
mod cut_streams;
mod data_directory;
mod database_faults;
mod doctor;
mod edge_rules;
mod edits_under_load;
mod every_feature;
mod features;
mod fidelity;
mod first_run;
mod host_limits;
mod imports;
mod inspector;
mod journal;
mod leaving;
mod lists;
mod logs;
mod metamcp_faults;
mod misbehaviour;
mod naming;
mod nesting;
mod notification_floods;
mod oauth_session;
mod official_clients;
mod orderly_stop;
mod outcomes;
mod paging;
mod panics;
mod panics_below;
mod processes;
mod refresh;
mod relay;
mod relay_pairs;
mod relay_remote;
mod remote_upstreams;
mod restarted_upstreams;
mod restarts;
mod resting;
mod resumption;
mod revival;
mod runtime_settings;
mod schema_profiles;
mod secrets;
mod session_processes;
mod sessions;
mod slow_readers;
mod slow_upstreams;
mod sse;
mod sse_upstreams;
mod stdio_isolation;
mod stopped_guards;
mod stops_under_load;
mod streamable_http;
mod subscriptions;
mod supervision;
mod tasks;
mod tasks_remote;
mod tidy;
mod tolerance;
mod unread_log;
mod untrusted_upstreams;
mod upstream_credentials;
mod upstream_resumption;
mod upstream_tokens;
mod uri_rewriting;
mod wrong_answers;
