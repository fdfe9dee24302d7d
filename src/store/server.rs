//! The shape of a server as the rest of the daemon knows it, and of what may be asked about it.
//!
//! Rows become servers here and nowhere else; what makes one valid is `server_rules`' business.

use std::collections::BTreeMap;
use std::time::Duration;

use entity::mcp_server::Model;
use time::OffsetDateTime;
use uuid::Uuid;

use super::error::StoreError;
use super::sealing;
use super::upkeep::{Upkeep, UpkeepPatch};
use super::words::{ErrorStatus, Isolation, Protocol, ServerKind};
use crate::identity::secret::Secret;
use crate::identity::vault::Vault;

/// A configured MCP server with the last report on its health.
///
/// It holds secrets, and so it cannot be serialised.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub uuid: Uuid,
    pub name: String,
    pub description: Option<String>,
    pub kind: ServerKind,
    pub command: Option<String>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, Secret>,
    pub url: Option<String>,
    pub bearer_token: Option<Secret>,
    pub headers: BTreeMap<String, Secret>,
    /// Header of the client to header of the upstream.
    pub forward_headers: BTreeMap<String, String>,
    /// PEM: the authorities that it has to be trusted by. None for those that the machine trusts.
    pub ca_certificates: Option<String>,
    /// The secrets that do not open any more, in the manner of `env.TOKEN`. They are missing above.
    pub unreadable: Vec<String>,
    pub enabled: bool,
    pub isolation: Isolation,
    pub protocol: Protocol,
    pub timeouts: Timeouts,
    pub upkeep: Upkeep,
    /// None for what is public.
    pub user_id: Option<String>,
    pub error_status: ErrorStatus,
    /// Why it is not `NONE`.
    pub error_reason: Option<String>,
    /// Since when it is what it is.
    pub error_at: Option<OffsetDateTime>,
    /// The last failure's text, exit and output; they stay when the server has healed.
    pub last_error: Option<String>,
    pub last_exit_code: Option<i32>,
    pub last_exit_signal: Option<i32>,
    pub stderr_tail: Option<String>,
    /// When its tools were last listed; None when they never were.
    pub tools_listed_at: Option<OffsetDateTime>,
    /// What it says of its use.
    pub instructions: Option<String>,
    pub created_at: OffsetDateTime,
    /// When its configuration was last changed. Reports do not count.
    pub updated_at: OffsetDateTime,
}

/// Where a server differs from the settings; None follows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Option<Duration>,
    /// Without a sign of life from a call.
    pub call: Option<Duration>,
    /// For a call as a whole.
    pub call_total: Option<Duration>,
}

/// A server to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewServer {
    pub name: String,
    pub description: Option<String>,
    pub kind: ServerKind,
    pub command: Option<String>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, Secret>,
    pub url: Option<String>,
    pub bearer_token: Option<Secret>,
    pub headers: BTreeMap<String, Secret>,
    pub forward_headers: BTreeMap<String, String>,
    pub ca_certificates: Option<String>,
    pub enabled: bool,
    /// None for the default of its kind: SHARED for STDIO, SESSION for the others.
    pub isolation: Option<Isolation>,
    pub protocol: Protocol,
    pub timeouts: Timeouts,
    pub upkeep: Upkeep,
    pub user_id: Option<String>,
}

/// What is to change: None leaves a field as it is, `Some(None)` clears it. A map or a list is
/// replaced as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerPatch {
    pub name: Option<String>,
    pub description: Option<Option<String>>,
    pub kind: Option<ServerKind>,
    pub command: Option<Option<String>>,
    pub args: Option<Vec<String>>,
    pub env: Option<BTreeMap<String, Secret>>,
    pub url: Option<Option<String>>,
    pub bearer_token: Option<Option<Secret>>,
    pub headers: Option<BTreeMap<String, Secret>>,
    pub forward_headers: Option<BTreeMap<String, String>>,
    pub ca_certificates: Option<Option<String>>,
    pub enabled: Option<bool>,
    pub isolation: Option<Isolation>,
    pub protocol: Option<Protocol>,
    pub connect_timeout: Option<Option<Duration>>,
    pub call_timeout: Option<Option<Duration>>,
    pub call_total_timeout: Option<Option<Duration>>,
    pub upkeep: UpkeepPatch,
    pub user_id: Option<Option<String>>,
}

/// Which servers are asked for; every field that is given has to match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerFilter {
    pub name: Option<String>,
    pub kind: Option<ServerKind>,
    pub error_status: Option<ErrorStatus>,
    pub enabled: Option<bool>,
    pub isolation: Option<Isolation>,
    pub protocol: Option<Protocol>,
    /// `Some(None)` asks for what is public.
    pub user_id: Option<Option<String>>,
}

impl ServerFilter {
    /// Whether a server that is in memory is asked for.
    pub fn matches(&self, server: &Server) -> bool {
        self.name.as_ref().is_none_or(|name| *name == server.name)
            && self.kind.is_none_or(|kind| kind == server.kind)
            && self.error_status.is_none_or(|status| status == server.error_status)
            && self.enabled.is_none_or(|enabled| enabled == server.enabled)
            && self.isolation.is_none_or(|isolation| isolation == server.isolation)
            && self.protocol.is_none_or(|protocol| protocol == server.protocol)
            && self.user_id.as_ref().is_none_or(|user_id| *user_id == server.user_id)
    }
}

impl NewServer {
    /// A server with nothing set but its name and kind.
    pub fn new(name: impl Into<String>, kind: ServerKind) -> NewServer {
        NewServer {
            name: name.into(),
            description: None,
            kind,
            command: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            url: None,
            bearer_token: None,
            headers: BTreeMap::new(),
            forward_headers: BTreeMap::new(),
            ca_certificates: None,
            enabled: true,
            isolation: None,
            protocol: Protocol::Auto,
            timeouts: Timeouts::default(),
            upkeep: Upkeep::default(),
            user_id: None,
        }
    }

    /// Judges it as making it would, without making it.
    ///
    /// # Errors
    /// `Invalid` with every problem that was found.
    pub fn check(&self) -> Result<(), StoreError> {
        super::server_rules::check(self)
    }

    pub(super) fn isolation(&self) -> Isolation {
        self.isolation.unwrap_or(match self.kind {
            ServerKind::Stdio => Isolation::Shared,
            ServerKind::Sse | ServerKind::StreamableHttp => Isolation::Session,
        })
    }
}

impl ServerPatch {
    /// The server as it would be, to be judged as a whole.
    pub(super) fn applied_to(&self, server: &Server) -> NewServer {
        let patch = self.clone();
        let kind = patch.kind.unwrap_or(server.kind);
        let changes_kind = kind != server.kind;
        // A command means nothing to a remote server, nor a URL or a certificate to a process: when the kind
        // changes, what belonged to the old one goes with it unless it is named.
        let inherits_command = !changes_kind || kind == ServerKind::Stdio;
        let inherits_url = !changes_kind || kind != ServerKind::Stdio;
        NewServer {
            name: patch.name.unwrap_or_else(|| server.name.clone()),
            description: patch.description.unwrap_or_else(|| server.description.clone()),
            kind,
            command: patch
                .command
                .unwrap_or_else(|| server.command.clone().filter(|_| inherits_command)),
            args: patch.args.unwrap_or_else(|| server.args.clone()),
            env: patch.env.unwrap_or_else(|| server.env.clone()),
            url: patch.url.unwrap_or_else(|| server.url.clone().filter(|_| inherits_url)),
            bearer_token: patch.bearer_token.unwrap_or_else(|| server.bearer_token.clone()),
            headers: patch.headers.unwrap_or_else(|| server.headers.clone()),
            forward_headers: patch
                .forward_headers
                .unwrap_or_else(|| server.forward_headers.clone()),
            ca_certificates: patch
                .ca_certificates
                .unwrap_or_else(|| server.ca_certificates.clone().filter(|_| inherits_url)),
            enabled: patch.enabled.unwrap_or(server.enabled),
            isolation: Some(patch.isolation.unwrap_or(server.isolation)),
            protocol: patch.protocol.unwrap_or(server.protocol),
            timeouts: Timeouts {
                connect: patch.connect_timeout.unwrap_or(server.timeouts.connect),
                call: patch.call_timeout.unwrap_or(server.timeouts.call),
                call_total: patch.call_total_timeout.unwrap_or(server.timeouts.call_total),
            },
            upkeep: patch.upkeep.applied_to(server.upkeep, kind),
            user_id: patch.user_id.unwrap_or_else(|| server.user_id.clone()),
        }
    }
}

pub(super) fn server_of(row: Model, vault: &Vault) -> Result<Server, StoreError> {
    let uuid = row.uuid;
    let upkeep = Upkeep::of(&row)?;
    let mut unreadable = Vec::new();
    let env = sealing::open_map(vault, uuid, "env", row.env, &mut unreadable);
    let headers = sealing::open_map(vault, uuid, "headers", row.headers, &mut unreadable);
    let bearer_token = row
        .bearer_token
        .and_then(|text| sealing::open(vault, uuid, "bearer_token", None, text, &mut unreadable));
    Ok(Server {
        uuid,
        name: row.name,
        description: row.description,
        kind: ServerKind::stored("mcp_servers.type", &row.r#type)?,
        command: row.command,
        args: row.args.0,
        env,
        url: row.url,
        bearer_token,
        headers,
        forward_headers: row.forward_headers.0,
        ca_certificates: row.ca_certificates,
        unreadable,
        enabled: row.enabled,
        isolation: Isolation::stored("mcp_servers.isolation", &row.isolation)?,
        protocol: Protocol::stored("mcp_servers.protocol", &row.protocol)?,
        timeouts: Timeouts {
            connect: duration_of(row.connect_timeout_ms),
            call: duration_of(row.call_timeout_ms),
            call_total: duration_of(row.call_total_timeout_ms),
        },
        upkeep,
        user_id: row.user_id,
        error_status: ErrorStatus::stored("mcp_servers.error_status", &row.error_status)?,
        error_reason: row.error_reason,
        error_at: row.error_at,
        last_error: row.last_error,
        last_exit_code: row.last_exit_code,
        last_exit_signal: row.last_exit_signal,
        stderr_tail: row.stderr_tail,
        tools_listed_at: row.tools_listed_at,
        instructions: row.instructions,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

/// Milliseconds as a column keeps them.
pub(super) fn millis_of(duration: Option<Duration>) -> Option<i64> {
    duration.map(|duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

pub(super) fn duration_of(millis: Option<i64>) -> Option<Duration> {
    millis.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis)
}
