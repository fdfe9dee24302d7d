//! What an operator reads of what has happened, bounded, and what is hidden from him.
//!
//! It decides what is kept and what makes room, what a filter means, and which parts of a text are
//! secrets. It knows no clock and no task: times come with the entries, and who writes them down,
//! keeps them over a restart or streams them is decided above.

pub mod entry;
pub mod hiding;
pub mod ring;

use std::fmt;

use serde::Deserialize;

/// The limits of `logs` in the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogOptions {
    /// Entries kept in all.
    pub entries_max: usize,
    /// Bytes of their texts in all.
    pub bytes_max: usize,
    /// Entries kept of one server from one kind of source.
    pub per_source_max: usize,
    /// Bytes of one message.
    pub message_max: usize,
    /// Entries that one source may make at once.
    pub burst: u32,
    /// Entries a second that one source may make for long.
    pub rate: u32,
    /// Entries that a slow watcher may be behind.
    pub buffer: usize,
    /// Whether they are kept over a restart.
    pub persist: bool,
}

/// Why an entry is not, or no longer, kept: the setting that was in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    Rate,
    PerSource,
    Entries,
    Bytes,
}

impl Limit {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "logs.rate",
            Self::PerSource => "logs.per_source_max",
            Self::Entries => "logs.entries_max",
            Self::Bytes => "logs.bytes_max",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
