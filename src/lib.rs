//! The gateway, room by room, in the order in which a stranger reads it.
//!
//! Arrows between rooms run one way, from the end of this list to its beginning; a test holds them.
//!
//! - The pure rooms know no actor, no runtime, no database and no clock: [`wire`] (JSON-RPC and its
//!   framings as bytes), [`catalogue`] (tools, their names, routes), [`access`] (who may come in),
//!   [`import`] (other clients' files), [`logs`] (what is kept of what happened, and what is hidden).
//! - [`egress`] is the one door for outbound connections. [`upstream`] keeps one server alive and
//!   speaks to it; it knows no database and no client. [`identity`] knows keys and secrets, and no
//!   database. [`store`] is the only room that names one.
//! - [`fleet`] supervises all upstreams, [`namespace`] merges them, [`session`] is a client's
//!   conversation. None of them knows HTTP as it is served.
//! - [`connect`] is the other end: an endpoint's client, for those who speak stdio only.
//! - [`conductor`] makes what the rows say into what runs, and takes to clients what upstreams ask.
//! - [`operator`] is the operator's own door, [`admin`] serves operators by HTTP and imports as he
//!   does, [`endpoint`] serves MCP and knows neither.
//! - [`doctor`] examines an installation, running or not.
//! - [`gateway`] builds all of it and drains it; [`cli`] is what people type. [`settings`],
//!   [`telemetry`] and [`data_dir`] are read by those two only, and by the doctor. [`failpoint`] is where
//!   tests have any of them panic, and [`aside`] where what takes long is done.

pub mod access;
pub mod catalogue;
pub mod import;
pub mod logs;
pub mod wire;

pub mod egress;
pub mod identity;
pub mod store;
pub mod upstream;

pub mod fleet;
pub mod namespace;
pub mod session;

pub mod connect;

pub mod conductor;

pub mod operator;

pub mod admin;
pub mod endpoint;

pub mod doctor;

pub mod aside;
pub mod cli;
pub mod data_dir;
pub mod failpoint;
pub mod gateway;
pub mod settings;
pub mod telemetry;
