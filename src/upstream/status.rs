//! What operators see of an upstream: the contract's words for its state, and its transitions.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    lifecycle::{After, State},
    reason::Reason,
};

/// The states of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StateWord {
    Disabled,
    Stopped,
    Starting,
    Ready,
    Backoff,
    NeedsAuth,
    Crashed,
}

/// A report for operators, never an instruction (design decision 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorStatus {
    None,
    /// It failed and is tried again.
    Error,
    /// It failed too often and is probed at a slow pace.
    Crashed,
}

impl StateWord {
    pub const ALL: [Self; 7] = [
        Self::Disabled,
        Self::Stopped,
        Self::Starting,
        Self::Ready,
        Self::Backoff,
        Self::NeedsAuth,
        Self::Crashed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "DISABLED",
            Self::Stopped => "STOPPED",
            Self::Starting => "STARTING",
            Self::Ready => "READY",
            Self::Backoff => "BACKOFF",
            Self::NeedsAuth => "NEEDS_AUTH",
            Self::Crashed => "CRASHED",
        }
    }
}

impl ErrorStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Error => "ERROR",
            Self::Crashed => "CRASHED",
        }
    }
}

impl State {
    /// How the contract shows this state.
    pub fn shown(&self) -> (StateWord, ErrorStatus) {
        match self {
            Self::Disabled => (StateWord::Disabled, ErrorStatus::None),
            Self::Stopped | Self::Ending { .. } => (StateWord::Stopped, ErrorStatus::None),
            Self::Ready { .. } => (StateWord::Ready, ErrorStatus::None),
            Self::Starting { after: After::Nothing } => (StateWord::Starting, ErrorStatus::None),
            Self::Starting { after: After::Failure } => (StateWord::Starting, ErrorStatus::Error),
            // The contract's word for a probe is CRASHED all through.
            Self::Starting { after: After::Crash { .. } } | Self::Crashed { .. } => {
                (StateWord::Crashed, ErrorStatus::Crashed)
            }
            Self::Backoff { .. } => (StateWord::Backoff, ErrorStatus::Error),
            Self::NeedsAuth { .. } => (StateWord::NeedsAuth, ErrorStatus::Error),
        }
    }
}

/// How a process ended. Both are `None` where there was no process, or where nobody could see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExitCode {
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

/// An upstream as it runs. The admin API, the console and the tests all read this one answer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Runtime {
    pub state: StateWord,
    pub reason: Reason,
    /// When it entered this state.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub since: OffsetDateTime,
    pub last_error: Option<String>,
    pub last_exit: Option<ExitCode>,
    /// Workers that were started since the daemon began, the first one not counted.
    pub restarts: u64,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<OffsetDateTime>,
    /// The server's own process, never a helper's.
    pub pid: Option<u32>,
    pub protocol_version: Option<&'static str>,
    /// How many tools it was last seen to offer.
    pub tools: usize,
    /// When its tools were last listed since the daemon began.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub listed_at: Option<OffsetDateTime>,
    /// Why they could not be listed again since then; what was known of them still holds.
    pub list_error: Option<String>,
    /// Its last lines on stderr, with configured secrets hidden.
    pub stderr_tail: Vec<String>,
    #[serde(skip)]
    pub error_status: ErrorStatus,
}

/// One change of state, as it is kept in the history and sent on the event stream.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = TransitionEvent)]
pub struct Transition {
    pub mcp_server_uuid: Uuid,
    /// The upstream's name at that time.
    pub name: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    pub state: StateWord,
    pub error_status: ErrorStatus,
    pub reason: Reason,
    pub message: Option<String>,
    pub exit: Option<ExitCode>,
    pub restarts: u64,
    #[serde(skip)]
    pub stderr_tail: Vec<String>,
}

/// Where a line came out that was no message of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Stderr,
    Stdout,
}

/// A change of an upstream's tools, as it is sent on the event stream and answered to a refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CatalogueChangeEvent)]
pub struct CatalogueChange {
    pub mcp_server_uuid: Uuid,
    /// The upstream's name at that time.
    pub name: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    /// How many tools it offers now.
    pub tools: usize,
    pub added: NameList,
    pub removed: NameList,
    /// Still offered, but not as they were.
    pub changed: NameList,
}

/// Names of tools, as many as are worth reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct NameList {
    /// All of them.
    pub count: usize,
    /// The first of them.
    pub names: Vec<String>,
}

impl CatalogueChange {
    pub fn is_empty(&self) -> bool {
        [&self.added, &self.removed, &self.changed].iter().all(|list| list.count == 0)
    }
}

impl From<&[Box<str>]> for NameList {
    fn from(names: &[Box<str>]) -> Self {
        let shown = names.iter().take(Self::SHOWN_MAX);
        Self { count: names.len(), names: shown.map(|name| name.to_string()).collect() }
    }
}

impl NameList {
    /// An event is to be read by a person; who needs every name asks for the tools.
    pub const SHOWN_MAX: usize = 50;
}
