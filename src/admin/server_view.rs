//! An MCP server as the operator sees it: its row, and how it runs. The running daemon's word wins
//! over the last report in the row. Secrets are shown as a mask and never as themselves.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    identity::secret::Secret,
    store::{
        ErrorStatus, Isolation, Profile, Protocol, Server, ServerKind, StartMode, is_reference,
    },
    upstream::{
        board::Board,
        status::{self, Runtime},
    },
};

/// What stands where a secret is.
pub const MASK: &str = "********";

/// A row of `mcp_servers` with what runs of it.
#[derive(Serialize, ToSchema)]
#[schema(as = McpServer)]
pub struct ServerView {
    uuid: Uuid,
    name: String,
    description: Option<String>,
    r#type: ServerKind,
    command: Option<String>,
    args: Vec<String>,
    /// Values are `********`, except those that are exactly one `${VAR}`.
    env: BTreeMap<String, String>,
    url: Option<String>,
    /// `********` when there is one.
    bearer_token: Option<&'static str>,
    /// Values are `********`, except those that are exactly one `${VAR}`.
    headers: BTreeMap<String, String>,
    /// Header of the client to header of the upstream.
    forward_headers: BTreeMap<String, String>,
    /// PEM: the authorities that it has to be trusted by; null for those that the machine trusts.
    ca_certificates: Option<String>,
    /// Secrets that no longer open, in the manner of `env.TOKEN`: the key file is another one. They
    /// have to be set again.
    unreadable: Vec<String>,
    enabled: bool,
    isolation: Isolation,
    protocol: Protocol,
    /// Null follows the settings, here and in the other two.
    connect_timeout_ms: Option<u64>,
    call_timeout_ms: Option<u64>,
    call_total_timeout_ms: Option<u64>,
    /// Whether it is started with the daemon, or by the first call.
    start: StartMode,
    /// After so long without a call it is stopped until the next one; null: never.
    idle_stop_ms: Option<u64>,
    /// Calls that it may have in flight; null follows the settings.
    concurrency_max: Option<u32>,
    /// What its process may do.
    profile: Profile,
    /// Null for what is public.
    user_id: Option<String>,
    error_status: ErrorStatus,
    /// Why it is not `NONE`.
    error_reason: Option<String>,
    /// Since when it is what it is.
    #[serde(with = "time::serde::rfc3339::option")]
    error_at: Option<OffsetDateTime>,
    /// The last failure stays when the server has healed.
    last_error: Option<String>,
    last_exit_code: Option<i32>,
    last_exit_signal: Option<i32>,
    stderr_tail: Option<String>,
    /// When its tools were last listed.
    #[serde(with = "time::serde::rfc3339::option")]
    tools_listed_at: Option<OffsetDateTime>,
    /// What it says of its use.
    instructions: Option<String>,
    /// How it runs; null while the daemon does not know it yet.
    runtime: Option<Runtime>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl ServerView {
    pub fn new(server: Server, board: Option<&Board>) -> Self {
        let millis = |duration: Option<std::time::Duration>| {
            duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
        };
        let view = Self {
            uuid: server.uuid,
            name: server.name,
            description: server.description,
            r#type: server.kind,
            command: server.command,
            args: server.args,
            env: masked(&server.env),
            url: server.url,
            bearer_token: server.bearer_token.is_some().then_some(MASK),
            headers: masked(&server.headers),
            forward_headers: server.forward_headers,
            ca_certificates: server.ca_certificates,
            unreadable: server.unreadable,
            enabled: server.enabled,
            isolation: server.isolation,
            protocol: server.protocol,
            connect_timeout_ms: millis(server.timeouts.connect),
            call_timeout_ms: millis(server.timeouts.call),
            call_total_timeout_ms: millis(server.timeouts.call_total),
            start: server.upkeep.start,
            idle_stop_ms: millis(server.upkeep.idle_stop),
            concurrency_max: server.upkeep.concurrency_max,
            profile: server.upkeep.profile,
            user_id: server.user_id,
            error_status: server.error_status,
            error_reason: server.error_reason,
            error_at: server.error_at,
            last_error: server.last_error,
            last_exit_code: server.last_exit_code,
            last_exit_signal: server.last_exit_signal,
            stderr_tail: server.stderr_tail,
            tools_listed_at: server.tools_listed_at,
            instructions: server.instructions,
            runtime: None,
            created_at: server.created_at,
            updated_at: server.updated_at,
        };
        match board {
            Some(board) => view.running_as(board.runtime()),
            None => view,
        }
    }

    pub fn error_status(&self) -> ErrorStatus {
        self.error_status
    }

    fn running_as(mut self, runtime: Runtime) -> Self {
        let error_status = match runtime.error_status {
            status::ErrorStatus::None => ErrorStatus::None,
            status::ErrorStatus::Error => ErrorStatus::Error,
            status::ErrorStatus::Crashed => ErrorStatus::Crashed,
        };
        if error_status != self.error_status {
            self.error_status = error_status;
            self.error_at = Some(runtime.since);
        }
        self.error_reason = match error_status {
            ErrorStatus::None => None,
            ErrorStatus::Error | ErrorStatus::Crashed => Some(runtime.reason.as_str().to_owned()),
        };
        if let Some(last_error) = &runtime.last_error {
            self.last_error = Some(last_error.clone());
        }
        if let Some(exit) = runtime.last_exit {
            (self.last_exit_code, self.last_exit_signal) = (exit.code, exit.signal);
        }
        self.runtime = Some(runtime);
        self
    }
}

/// A reference names a secret without being one.
fn masked(secrets: &BTreeMap<String, Secret>) -> BTreeMap<String, String> {
    let shown = |value: &Secret| match is_reference(value.expose()) {
        true => value.expose().to_owned(),
        false => MASK.to_owned(),
    };
    secrets.iter().map(|(name, value)| (name.clone(), shown(value))).collect()
}
