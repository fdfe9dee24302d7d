//! Why a call to an upstream had no result, and how a client is told.

use std::{sync::Arc, time::Duration};

use super::{port::Facts, reason::Reason, status::StateWord};
use crate::wire::{
    Fault,
    fault::{Blame, Data},
};

/// A call's failure. `server` is the upstream's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("the upstream `{server}` is {} ({}){}; it is tried again by itself", state.as_str(), reason.as_str(), detail_of(detail))]
    Unavailable { server: Arc<str>, state: StateWord, reason: Reason, detail: Option<String> },
    #[error("the upstream `{server}` has as many calls in flight as it is allowed; try again soon")]
    Busy { server: Arc<str> },
    #[error(
        "the upstream `{server}` has all {max} processes that clients may have of it (`upstream.processes_max`); try again when another client has gone"
    )]
    Full { server: Arc<str>, max: usize },
    /// The caller has no process of its own, and cannot be given one now.
    #[error("the upstream `{server}` has no process for this client ({}){}; the next call tries again", reason.as_str(), detail_of(detail))]
    NoProcess { server: Arc<str>, reason: Reason, detail: Option<String> },
    #[error("the upstream `{server}` gave no sign of life for {} s; a longer `call_timeout_ms` of the server would wait", .after.as_secs_f32())]
    Inactive { server: Arc<str>, after: Duration },
    #[error("the upstream `{server}` did not finish within {} s; a longer `call_total_timeout_ms` of the server would wait", .after.as_secs_f32())]
    TooLong { server: Arc<str>, after: Duration },
    /// It broke while the call was with it; whether it did its work is unknown.
    #[error("the upstream `{server}` ended during the call ({}){}", reason.as_str(), detail_of(detail))]
    Ended { server: Arc<str>, reason: Reason, detail: Option<String> },
    /// `admin` is what the URLs of the admin API begin with.
    #[error(
        "the upstream `{server}` wants another credential than the gateway has; an operator gives it one by PUT {admin}/api/v1/mcp-servers/{server}/oauth-session, or its `bearer_token` by PATCH {admin}/api/v1/mcp-servers/{server}"
    )]
    Unauthorized { server: Arc<str>, admin: Arc<str> },
    /// 403: the credential is good, and not good for this. `scope` as the upstream names it.
    #[error("the upstream `{server}` refused the call: {}", want_of(scope.as_deref()))]
    InsufficientScope { server: Arc<str>, scope: Option<String> },
    /// It wants a new access token, and none was to be had. It has executed nothing.
    #[error(
        "the upstream `{server}` wants a new access token, and none was to be had: {why}; it is tried again by itself"
    )]
    NoToken { server: Arc<str>, why: Arc<str> },
    #[error("the upstream `{server}` answered with HTTP status {status}")]
    HttpStatus { server: Arc<str>, status: u16 },
    #[error("the upstream `{server}` gave an answer that cannot be understood: {why}")]
    BadAnswer { server: Arc<str>, why: String },
    /// The client took the request back. It is answered by nothing.
    #[error("the request was cancelled by its client")]
    Cancelled,
    /// It asked to be left alone, so the call did not go to it, or was refused by it.
    #[error("the upstream `{server}` asks to be left alone: {} s more", after.as_secs_f32().ceil())]
    Throttled { server: Arc<str>, after: Duration },
    /// Call after call had failed, so this one did not go to it.
    #[error("call after call to the upstream `{server}` has failed; it is tried again in {} s", after.as_secs_f32().ceil())]
    CircuitOpen { server: Arc<str>, after: Duration },
    /// Certain not to have reached the upstream, so it may be sent again.
    #[error("the upstream `{server}` was not reached{}", detail_of(detail))]
    NotSent { server: Arc<str>, detail: Option<String> },
}

fn detail_of(detail: &Option<String>) -> String {
    detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default()
}

/// What is missing, and what to do about it.
pub fn want_of(scope: Option<&str>) -> String {
    let lacks = match scope {
        Some(scope) => format!("it asks for the scope `{scope}`, which our credential lacks"),
        None => "it asks for a scope that our credential lacks, and does not say which".into(),
    };
    format!(
        "{lacks}; an operator has to give it one that has it, see `bearer_token`, `headers` and `oauth-session`"
    )
}

impl CallError {
    /// The error as the protocol words it.
    pub fn fault(&self) -> Fault {
        let (reason, fault, retry) = match self {
            Self::Unavailable { .. } => ("upstream_unavailable", Blame::Upstream, true),
            Self::Busy { .. } => ("upstream_busy", Blame::Gateway, true),
            Self::Full { .. } => ("upstream_full", Blame::Gateway, true),
            Self::NoProcess { .. } => ("upstream_unavailable", Blame::Upstream, true),
            Self::Inactive { .. } => ("call_timeout", Blame::Upstream, false),
            Self::TooLong { .. } => ("call_total_timeout", Blame::Upstream, false),
            Self::Ended { .. } => ("upstream_ended", Blame::Upstream, false),
            Self::Throttled { .. } => ("upstream_throttled", Blame::Upstream, true),
            Self::CircuitOpen { .. } => ("upstream_circuit_open", Blame::Upstream, true),
            Self::Unauthorized { .. } => ("upstream_unauthorized", Blame::Upstream, false),
            Self::InsufficientScope { .. } => {
                ("upstream_insufficient_scope", Blame::Upstream, false)
            }
            Self::NoToken { .. } => ("upstream_token_unavailable", Blame::Upstream, true),
            Self::HttpStatus { .. } => ("upstream_http_status", Blame::Upstream, false),
            Self::BadAnswer { .. } => ("upstream_bad_answer", Blame::Upstream, false),
            Self::Cancelled => ("cancelled", Blame::Client, false),
            Self::NotSent { .. } => ("upstream_unavailable", Blame::Upstream, true),
        };
        let server = self.server().map(String::from);
        let scope = match self {
            Self::InsufficientScope { scope, .. } => scope.as_deref().map(Box::from),
            _ => None,
        };
        let data = Data { reason, fault, server, retry, uri: None, scope };
        Fault::internal(self.to_string(), data)
    }

    /// That the credential of an upstream is refused.
    pub(super) fn unauthorized(server: Arc<str>) -> Self {
        Self::Unauthorized { server, admin: Arc::default() }
    }

    /// The same of an upstream as it is known now. A connection keeps the name that its
    /// upstream had when it was made, and a renamed one is not connected anew.
    pub(super) fn of(mut self, facts: &Facts) -> Self {
        let name = &facts.name;
        match &mut self {
            Self::Unauthorized { server, admin } => {
                (*server, *admin) = (name.clone(), facts.admin.clone());
            }
            Self::Unavailable { server, .. }
            | Self::Busy { server }
            | Self::Full { server, .. }
            | Self::NoProcess { server, .. }
            | Self::Inactive { server, .. }
            | Self::TooLong { server, .. }
            | Self::Ended { server, .. }
            | Self::InsufficientScope { server, .. }
            | Self::NoToken { server, .. }
            | Self::HttpStatus { server, .. }
            | Self::BadAnswer { server, .. }
            | Self::Throttled { server, .. }
            | Self::CircuitOpen { server, .. }
            | Self::NotSent { server, .. } => *server = name.clone(),
            Self::Cancelled => {}
        }
        self
    }

    fn server(&self) -> Option<&str> {
        match self {
            Self::Unavailable { server, .. }
            | Self::Busy { server }
            | Self::Full { server, .. }
            | Self::NoProcess { server, .. }
            | Self::Inactive { server, .. }
            | Self::TooLong { server, .. }
            | Self::Ended { server, .. }
            | Self::InsufficientScope { server, .. }
            | Self::Unauthorized { server, .. }
            | Self::NoToken { server, .. }
            | Self::HttpStatus { server, .. }
            | Self::BadAnswer { server, .. }
            | Self::Throttled { server, .. }
            | Self::CircuitOpen { server, .. }
            | Self::NotSent { server, .. } => Some(server),
            Self::Cancelled => None,
        }
    }
}
