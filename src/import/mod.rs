//! Reads the files in which MCP clients keep their servers: `mcp.json` in all its shapes, Codex's
//! TOML, exports of other gateways.
//!
//! One bad entry fails alone and says why; what is left out of a good one is said too. The room
//! opens no file, resolves no variable and stores nothing: it turns a text into values.

mod text;
mod tree;

mod file;

mod dialects;
mod entry;
mod fields;
mod names;
mod references;
mod timeouts;

use std::{collections::BTreeMap, fmt, time::Duration};

pub use file::read;
pub use text::{BadFile, FILE_MAX, decode};

/// Everything a file holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Imported {
    /// In the order of the file.
    pub entries: Vec<Entry>,
    /// About the file as a whole.
    pub warnings: Vec<Warning>,
}

/// One server of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as the file has it.
    pub name: String,
    pub outcome: Result<ImportedServer, Refusal>,
    pub warnings: Vec<Warning>,
}

/// A server that can be created. It holds secrets, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ImportedServer {
    /// Letters, digits, `_` and `-`; without `__`, and no uuid.
    pub name: String,
    pub description: Option<String>,
    pub transport: Transport,
    pub enabled: bool,
    /// How long a call may stay silent, where the file says so.
    pub call_timeout: Option<Duration>,
    /// How long it may take to start, where the file says so.
    pub connect_timeout: Option<Duration>,
}

/// How the server is reached.
#[derive(Clone, PartialEq, Eq)]
pub enum Transport {
    Stdio { command: String, args: Vec<String>, env: BTreeMap<String, String> },
    StreamableHttp(Remote),
    Sse(Remote),
}

#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    /// With the scheme `http` or `https`, as it was written.
    pub url: String,
    pub headers: BTreeMap<String, String>,
    pub bearer_token: Option<String>,
    /// As it stands there; whether it is PEM is the store's to say.
    pub ca_certificates: Option<String>,
}

/// Why an entry is not imported. It never repeats a value that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}; accepted: {accepted}")]
pub struct Refusal {
    /// The field as the file has it, such as `env.TOKEN`; `name` is the entry's own name.
    pub field: String,
    pub reason: String,
    pub accepted: String,
}

/// Something that was left out or understood in a way the writer may not have meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub field: String,
    pub text: String,
}

impl Refusal {
    fn new(
        field: impl Into<String>,
        reason: impl Into<String>,
        accepted: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), reason: reason.into(), accepted: accepted.into() }
    }
}

impl Warning {
    fn new(field: impl Into<String>, text: impl Into<String>) -> Self {
        Self { field: field.into(), text: text.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.field, self.text)
    }
}

impl fmt::Debug for ImportedServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ImportedServer").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod corpus_tests;
