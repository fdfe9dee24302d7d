//! What is remembered, and how it is kept where the database does not take it yet.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::ended_sessions::EndedSession;
use super::items::ListedItem;
use super::oauth_sessions::Sealed;
use super::shown_names::ShownName;
use super::tools::ListedTool;
use super::words::{ErrorStatus, ItemKind};
use crate::logs::entry::LogEntry;

/// Something that has happened and is to be remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A server went to another state.
    Transition {
        server: Uuid,
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
        state: String,
        error_status: ErrorStatus,
        reason: String,
        message: Option<String>,
        exit_code: Option<i32>,
        exit_signal: Option<i32>,
        restarts: u64,
        stderr_tail: Option<String>,
    },
    /// A server has listed all its tools, in this order.
    Tools {
        server: Uuid,
        listed: Vec<ListedTool>,
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
    },
    /// A server has listed all it offers of another kind, in this order.
    Items {
        server: Uuid,
        kind: ItemKind,
        listed: Vec<ListedItem>,
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
    },
    /// A server says this of its use.
    Instructions { server: Uuid, text: Option<String> },
    /// These are all the names of a kind that a namespace has given.
    ShownNames { namespace: Uuid, kind: ItemKind, names: Vec<ShownName> },
    /// An entry of the log, and the ids of those that made room for it.
    Log {
        #[serde(with = "shared")]
        entry: Arc<LogEntry>,
        gone: Vec<i64>,
    },
    /// These entries of the log are not to be kept any more.
    LogsGone { ids: Vec<i64> },
    /// An MCP session is over, and is not to be revived.
    SessionEnded(EndedSession),
    /// The tokens of an OAuth session were renewed. They are sealed, wherever this waits.
    OAuthTokens { session: Uuid, sealed: Sealed },
}

impl Record {
    /// About how many bytes of memory it takes: what it says, and something for each piece of that.
    pub(super) fn bytes(&self) -> u64 {
        const PIECE: usize = 64;
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let bytes = match self {
            Self::Transition { state, reason, message, stderr_tail, .. } => {
                state.len() + reason.len() + optional(message) + optional(stderr_tail)
            }
            Self::Tools { listed, .. } => {
                let tool = |tool: &ListedTool| {
                    let ListedTool { name, title, description, input_schema_json, definition } =
                        tool;
                    let said = optional(title) + optional(description);
                    PIECE + name.len() + said + input_schema_json.len() + definition.len()
                };
                listed.iter().map(tool).sum()
            }
            Self::Items { listed, .. } => {
                listed.iter().map(|item| PIECE + item.key.len() + item.definition.len()).sum()
            }
            Self::Instructions { text, .. } => optional(text),
            Self::ShownNames { names, .. } => {
                names.iter().map(|name| PIECE + name.tool_name.len() + name.shown_name.len()).sum()
            }
            Self::Log { entry, gone } => PIECE + entry.said.message.len() + 8 * gone.len(),
            Self::LogsGone { ids } => 8 * ids.len(),
            Self::OAuthTokens { sealed, .. } => {
                sealed.iter().map(|(name, text)| PIECE + name.len() + text.len()).sum()
            }
            Self::SessionEnded(_) => 0,
        };
        u64::try_from(PIECE + bytes).unwrap_or(u64::MAX)
    }
}

/// An entry that others hold too, as the entry.
mod shared {
    use super::{Arc, Deserialize, LogEntry, Serialize};

    pub fn serialize<S: serde::Serializer>(
        entry: &Arc<LogEntry>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        entry.as_ref().serialize(to)
    }

    pub fn deserialize<'a, D: serde::Deserializer<'a>>(from: D) -> Result<Arc<LogEntry>, D::Error> {
        LogEntry::deserialize(from).map(Arc::new)
    }
}

/// What became of a batch before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// It was never tried.
    Nothing,
    /// It was tried, and nobody knows whether it was written.
    Tried,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{failure, listed, listed_item, no_one};
    use crate::store::{Naming, now};

    #[test]
    fn every_record_is_read_back_from_a_line_as_it_was() {
        let (server, at) = (no_one(), now());
        let said = crate::logs::entry::Said::new(
            crate::logs::entry::Level::Warn,
            crate::logs::entry::Kind::Stderr,
            None,
            "line\nbreak".to_owned(),
        );
        let records = [
            failure(server, 1),
            Record::Tools { server, listed: vec![listed("a")], at },
            Record::Items { server, kind: ItemKind::Prompt, listed: vec![listed_item("p")], at },
            Record::Instructions { server, text: None },
            Record::ShownNames {
                namespace: server,
                kind: ItemKind::Tool,
                names: vec![ShownName {
                    server,
                    kind: ItemKind::Tool,
                    tool_name: "a".to_owned(),
                    shown_name: "files__a".to_owned(),
                    naming: Naming::Always,
                }],
            },
            Record::Log { entry: Arc::new(LogEntry { id: 7, at, said }), gone: vec![1, 2] },
            Record::LogsGone { ids: vec![3] },
            Record::SessionEnded(EndedSession { id: server, issued_at: at }),
            Record::OAuthTokens {
                session: server,
                sealed: [("access_token".to_owned(), "sealed:v1:a".to_owned())].into(),
            },
        ];
        for record in records {
            let line = serde_json::to_string(&record).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
            // What is counted of it is neither much less nor much more than what it says.
            assert!((64..64 + 2 * line.len() as u64).contains(&record.bytes()), "{line}");
        }
    }

    #[test]
    fn whatever_of_a_record_is_long_is_counted() {
        let (server, at, long) = (no_one(), now(), "x".repeat(1_000));
        let mut failed = failure(server, 1);
        if let Record::Transition { message, .. } = &mut failed {
            *message = Some(long.clone());
        }
        let tool = ListedTool { description: Some(long.clone()), ..listed("a") };
        let mut item = listed_item("p");
        item.definition = long.clone();
        let said = crate::logs::entry::Said::new(
            crate::logs::entry::Level::Warn,
            crate::logs::entry::Kind::Stderr,
            None,
            long.clone(),
        );
        let entry = Arc::new(LogEntry { id: 7, at, said });
        for record in [
            failed,
            Record::Tools { server, listed: vec![tool], at },
            Record::Items { server, kind: ItemKind::Prompt, listed: vec![item], at },
            Record::Instructions { server, text: Some(long) },
            Record::Log { entry, gone: Vec::new() },
            Record::LogsGone { ids: vec![1; 125] },
        ] {
            assert!((1_000..2_000).contains(&record.bytes()), "{record:?}");
        }
    }
}
