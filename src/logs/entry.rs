//! One entry of the log, and the words in it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// How bad it is. The order is that of badness.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// What it tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A line that a STDIO server wrote on stderr.
    Stderr,
    /// A line that it wrote on stdout, and that was no message of the protocol.
    Stdout,
    /// A server went to another state.
    Transition,
    /// A process that a client has to itself has failed, while its server goes on.
    Process,
    /// A call had no result.
    Call,
    /// A server's tools could not be listed.
    List,
    /// A server's tools are not what they were.
    Catalogue,
    /// The daemon itself.
    Gateway,
}

/// Something that has happened. Never holds a call's arguments or its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// Only grows, over restarts too.
    pub id: i64,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    #[serde(flatten)]
    pub said: Said,
}

/// What an entry says, before it has an id and a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Said {
    pub level: Level,
    pub kind: Kind,
    /// The server that it is about.
    pub mcp_server_uuid: Option<Uuid>,
    /// The name of that server at that time.
    pub server: Option<String>,
    /// For people: secrets are hidden, and control characters are made harmless.
    pub message: String,
    /// The state that a server went to.
    pub state: Option<String>,
    /// Why, as a word from the lists in the manual.
    pub reason: Option<String>,
    /// The tool that was called, by the server's own name for it.
    pub tool: Option<String>,
    /// The endpoint that it was called by.
    pub endpoint: Option<String>,
    /// So many entries of this server and kind before this one were left out, since they came too
    /// fast.
    pub dropped: u64,
}

/// The server that an entry is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub uuid: Uuid,
    pub name: &'a str,
}

impl Said {
    pub fn new(level: Level, kind: Kind, about: Option<About<'_>>, message: String) -> Self {
        Self {
            level,
            kind,
            mcp_server_uuid: about.map(|about| about.uuid),
            server: about.map(|about| about.name.to_owned()),
            message,
            state: None,
            reason: None,
            tool: None,
            endpoint: None,
            dropped: 0,
        }
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let texts = [&self.server, &self.state, &self.reason, &self.tool, &self.endpoint];
        let texts = texts.into_iter().flatten().map(String::len);
        size_of::<LogEntry>() + self.message.len() + texts.sum::<usize>()
    }
}

impl Level {
    pub const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The level of this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// The level of a line that a program wrote, by its own word for it; `Info` without one.
    ///
    /// A STDIO server has stderr alone to log on (MCP 2025-11-25, transports), so that a line there
    /// is no error by itself.
    pub fn of_line(line: &str) -> Self {
        /// A level stands at the beginning of a line, after a time and a name at most.
        const BEGINNING: usize = 100;
        let end = line.floor_char_boundary(BEGINNING);
        let words = line[..end].split(|char: char| !char.is_ascii_alphanumeric());
        words.filter_map(Self::of_word).next().unwrap_or(Self::Info)
    }

    /// Words in capitals are levels wherever they stand; in small letters they may be anything,
    /// unless they can be nothing else.
    fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "ERROR" | "FATAL" | "CRITICAL" | "PANIC" | "Traceback" | "Error" | "panicked"
            | "fatal" => Self::Error,
            "WARN" | "WARNING" | "Warning" => Self::Warn,
            "INFO" | "NOTICE" => Self::Info,
            "DEBUG" | "TRACE" => Self::Debug,
            // `TypeError: …`, `ValueError: …`, `java.lang.NullPointerException: …`
            other if other.ends_with("Error") || other.ends_with("Exception") => Self::Error,
            _ => return None,
        })
    }
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Stderr,
        Self::Stdout,
        Self::Transition,
        Self::Process,
        Self::Call,
        Self::List,
        Self::Catalogue,
        Self::Gateway,
    ];

    /// The kind of this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stderr => "stderr",
            Self::Stdout => "stdout",
            Self::Transition => "transition",
            Self::Process => "process",
            Self::Call => "call",
            Self::List => "list",
            Self::Catalogue => "catalogue",
            Self::Gateway => "gateway",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_level_that_it_names_itself() {
        for (line, level) in [
            ("[2026-01-01T00:00:00Z] ERROR cannot connect", Level::Error),
            ("Traceback (most recent call last):", Level::Error),
            ("TypeError: x is not a function", Level::Error),
            ("thread 'main' panicked at src/main.rs:1", Level::Error),
            ("WARNING:root:slow", Level::Warn),
            ("2026-01-01 INFO 0 ERROR lines so far", Level::Info),
            ("DEBUG:asyncio:Using selector", Level::Debug),
            ("server running on stdio", Level::Info),
            ("the errors of yesterday", Level::Info),
            ("", Level::Info),
        ] {
            assert_eq!(Level::of_line(line), level, "{line}");
        }
        let late = format!("{}ERROR", "é".repeat(60));
        assert_eq!(Level::of_line(&late), Level::Info);
    }

    #[test]
    fn words_are_the_same_as_text_and_as_json() {
        for level in Level::ALL {
            assert_eq!(serde_json::json!(level), level.as_str());
            assert_eq!(Level::named(level.as_str()), Some(level));
        }
        for kind in Kind::ALL {
            assert_eq!(serde_json::json!(kind), kind.as_str());
            assert_eq!(Kind::named(kind.as_str()), Some(kind));
        }
        assert!(Level::Debug < Level::Info && Level::Info < Level::Warn);
        assert!(Level::Warn < Level::Error);
    }
}
