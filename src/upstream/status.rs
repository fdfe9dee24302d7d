//! What operators see of an upstream: the contract's words for its state, and its transitions.

use serde::{Deserialize, Serialize, Serializer};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::catalogue::{
    item::{BadItem, Item},
    kind::{Kind, PerKind},
};

use super::{
    degradation::Degradation,
    lifecycle::{After, State},
    own_process::ProcessReport,
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
            Self::Stopped | Self::Idle | Self::Ending { .. } => {
                (StateWord::Stopped, ErrorStatus::None)
            }
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
    /// In what ways it is not as it should be, though it runs.
    pub degraded: Vec<Degradation>,
    /// The server's own process, never a helper's.
    pub pid: Option<u32>,
    pub protocol_version: Option<&'static str>,
    /// How it was last listed; shown as counts, `list_error` and `malformed`.
    #[serde(flatten)]
    #[schema(inline, value_type = Listings)]
    pub listings: PerKind<ListingReport>,
    /// When its tools were last listed since the daemon began.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub listed_at: Option<OffsetDateTime>,
    /// Its last lines on stderr, with configured secrets hidden.
    pub stderr_tail: Vec<String>,
    /// The processes that its clients have to themselves; none but of a STDIO server whose `isolation`
    /// is `SESSION` or `USER`. The state of the server is that of its own process, which is not here.
    pub session_processes: Vec<ProcessReport>,
    #[serde(skip)]
    pub error_status: ErrorStatus,
    /// By what it failed last, and the scope that it asked for then.
    #[serde(skip)]
    pub failed_by: Option<(Reason, Option<String>)>,
}

impl Runtime {
    /// How many tools it was last seen to offer.
    pub fn tools(&self) -> usize {
        self.listings[Kind::Tool].count
    }

    /// Why one of its lists could not be made again, the first of them.
    pub fn list_error(&self) -> Option<&str> {
        self.listings.iter().find_map(|(_, report)| report.error.as_deref())
    }
}

/// How the last listing of one kind went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListingReport {
    /// How many were listed.
    pub count: usize,
    /// Why they could not be listed again since then; what was known of them still holds.
    pub error: Option<String>,
    /// What was left out of the list, and why: the first of them.
    pub malformed: Vec<String>,
}

/// What operators are shown of the listings of all kinds.
#[derive(Serialize, ToSchema)]
pub struct Listings {
    /// How many tools it was last seen to offer.
    tools: usize,
    prompts: usize,
    resources: usize,
    resource_templates: usize,
    /// Why they could not be listed again since then; what was known of them still holds.
    list_error: Option<String>,
    /// What it lists that is left out since it cannot be used, and why.
    malformed: Vec<String>,
}

impl ListingReport {
    /// What is left out of one list is told up to here.
    const MALFORMED_MAX: usize = 20;

    /// Of a list that is remembered.
    pub fn of(list: Option<&Vec<Item>>) -> Self {
        Self { count: list.map_or(0, Vec::len), ..Self::default() }
    }

    pub fn new(kind: Kind, count: usize, dropped: &[BadItem]) -> Self {
        let shown = dropped.iter().take(Self::MALFORMED_MAX);
        let malformed = shown.map(|why| format!("{}: {why}", kind.noun())).collect();
        Self { count, error: None, malformed }
    }
}

impl Serialize for PerKind<ListingReport> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let listings = Listings {
            tools: self[Kind::Tool].count,
            prompts: self[Kind::Prompt].count,
            resources: self[Kind::Resource].count,
            resource_templates: self[Kind::Template].count,
            list_error: self.iter().find_map(|(_, report)| report.error.clone()),
            malformed: self.iter().flat_map(|(_, report)| report.malformed.clone()).collect(),
        };
        listings.serialize(serializer)
    }
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

/// A change of what an upstream offers of one kind, as it is sent on the event stream and answered to
/// a refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CatalogueChangeEvent)]
pub struct CatalogueChange {
    pub mcp_server_uuid: Uuid,
    /// The upstream's name at that time.
    pub name: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    /// `tool`, `prompt`, `resource` or `resource template`.
    pub kind: &'static str,
    /// How many of them it offers now.
    pub count: usize,
    /// How many tools it offers now.
    pub tools: usize,
    pub added: NameList,
    pub removed: NameList,
    /// Still offered, but not as they were.
    pub changed: NameList,
}

/// Names or URIs, as many as are worth reading.
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
    /// An event is to be read by a person; who needs every name asks for the list.
    pub const SHOWN_MAX: usize = 50;
}
