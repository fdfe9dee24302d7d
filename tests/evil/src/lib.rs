//! The kit with which metamcpd is tried: servers, a network and clients' histories that are evil on
//! purpose.
//!
//! - [`fault`] names everything that a server can do wrong, as it is typed and as it is written on a
//!   command line, with the [`value`]s that belong to it; [`character`] is what one server is told to
//!   be. [`offer`] is what a good server answers, and [`script`] what becomes of an answer: all three
//!   decide, and touch nothing.
//! - [`stdio`] plays it as a child process, with what a process can do to its host in [`process`];
//!   [`http`] plays it as a server, in a process of its own or in this one.
//! - [`proxy`] is a network that cuts, stalls and refuses by a seed ([`dice`]).
//! - [`history`] judges what clients saw: exactly one outcome of every call, the right one, in time.

pub mod character;
pub mod dice;
pub mod fault;
pub mod history;
pub mod http;
pub mod offer;
pub mod process;
pub mod proxy;
pub mod script;
pub mod stdio;
pub mod value;

pub use character::Character;
pub use fault::Fault;

/// What is said when a thing cannot be done: by whom it is read, there is nothing to be matched.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
