//! What an upstream is to be: the row of `mcp_servers` as the rooms of the running daemon know it.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::oauth::Grant;
use crate::egress::Authorities;

/// One upstream as the operator wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSpec {
    pub id: Uuid,
    pub name: String,
    pub enabled: bool,
    pub transport: Transport,
    pub isolation: Isolation,
    pub limits: CallLimits,
    /// How long a handshake and a list may take.
    pub connect_timeout: Duration,
    /// Whether `${VAR}` may be resolved: only for what the operator owns (design decision 13).
    pub may_use_variables: bool,
    pub upkeep: Upkeep,
}

/// When an upstream runs, and how much it is given to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Whether it is started by the first call rather than with the daemon, once its tools are known.
    pub is_lazy: bool,
    /// Whether its process is confined.
    pub is_strict: bool,
    /// After so long without a call its worker is ended until the next one.
    pub idle_stop: Option<Duration>,
    /// Calls that it may have in flight, where the settings do not say that.
    pub concurrency_max: Option<usize>,
    /// How long its first start may take, where that may have to fetch a program.
    pub prefetch: Option<Duration>,
}

/// How an upstream is reached. Secrets are in here, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Transport {
    Stdio { command: String, args: Vec<String>, env: BTreeMap<String, String> },
    StreamableHttp(Remote),
    Sse(Remote),
}

/// Where a remote upstream is, and what is sent to it with every request.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    pub url: String,
    pub bearer_token: Option<String>,
    pub headers: BTreeMap<String, String>,
    /// PEM: the authorities that it has to be trusted by, and no others. None for those that the machine
    /// trusts.
    pub ca_certificates: Option<String>,
    /// The OAuth session that an operator has put in. Its token goes before any other.
    pub oauth: Option<Arc<Grant>>,
}

/// Who shares an upstream's process or session (design decision 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Isolation {
    /// Everyone: one process or session, requests multiplexed by our own ids.
    Shared,
    /// One for each client session.
    Session,
    /// One for each owner, or for each key that has no owner.
    User,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Without a sign of life.
    pub inactivity: Duration,
    /// In all, whatever progress is reported.
    pub total: Duration,
    /// Whether progress is such a sign.
    pub reset_on_progress: bool,
}

impl UpstreamSpec {
    /// Whether a change from this to `new` needs a new process or connection. What only changes
    /// how it is shown or timed does not.
    pub fn needs_restart_for(&self, new: &Self) -> bool {
        self.transport != new.transport
            || self.isolation != new.isolation
            || self.may_use_variables != new.may_use_variables
            || self.upkeep.is_strict != new.upkeep.is_strict
    }

    /// The OAuth session that it is reached with.
    pub fn grant(&self) -> Option<&Arc<Grant>> {
        match &self.transport {
            Transport::Stdio { .. } => None,
            Transport::StreamableHttp(remote) | Transport::Sse(remote) => remote.oauth.as_ref(),
        }
    }

    /// Every configured value that must never be shown, longest first, so that replacing one does
    /// not uncover the rest of another.
    pub fn secrets(&self) -> Vec<&str> {
        /// Shorter values are ordinary words, and hiding them would hide the log itself.
        const LENGTH_MIN: usize = 6;
        let mut secrets: Vec<&str> = match &self.transport {
            Transport::Stdio { env, .. } => env.values().map(String::as_str).collect(),
            Transport::StreamableHttp(remote) | Transport::Sse(remote) => {
                let own = remote.headers.values().chain(&remote.bearer_token).map(String::as_str);
                own.chain(remote.oauth.iter().flat_map(|grant| grant.secrets())).collect()
            }
        };
        secrets.retain(|secret| secret.len() >= LENGTH_MIN && !secret.contains("${"));
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }
}

impl Transport {
    /// What is to be said at `now` of the authorities that it names, if they will not do, or not for long.
    pub fn authorities_complaint(&self, now: OffsetDateTime) -> Option<String> {
        match self {
            Self::Stdio { .. } => None,
            Self::StreamableHttp(remote) | Self::Sse(remote) => {
                Authorities::complaint(remote.ca_certificates.as_deref()?, now)
            }
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stdio { .. } => "STDIO",
            Self::StreamableHttp(_) => "STREAMABLE_HTTP",
            Self::Sse(_) => "SSE",
        })
    }
}
