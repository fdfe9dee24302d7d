//! One upstream MCP server: kept alive, spoken to, and reported on.
//!
//! `lifecycle` decides and `actor` obeys; `port` carries calls past the actor; `worker` is the only
//! room that touches processes and upstream sockets. Beside the upstream's own process, `processes` are
//! those that clients have to themselves, and `isolating` finds each caller's. It knows no database: what happens is told to
//! a [`Listener`].

pub mod actor;
mod again;
mod attribution;
mod berth;
pub mod board;
pub mod brakes;
pub mod breaker;
mod call_error;
mod call_options;
pub mod concern;
pub mod conduct;
mod conversation;
mod degradation;
pub mod dialogue;
pub mod dice;
pub mod driving;
mod ejections;
mod elicitations;
pub mod exchange;
pub mod handshake;
mod hearing;
mod inbox;
mod isolating;
pub mod lifecycle;
pub mod link;
pub mod lists;
mod log_levels;
pub mod nesting;
pub mod oauth;
pub mod outlook;
pub mod own_process;
pub mod pipe;
mod places;
pub mod port;
pub mod processes;
pub mod question;
pub mod reason;
pub mod refresh;
mod rest;
pub mod retries;
pub mod runners;
pub mod spec;
pub mod status;
pub mod subscribing;
pub mod subscriptions;
mod tail;
pub mod task_talk;
pub mod tasks;
#[cfg(test)]
pub mod testing;
pub mod variables;
pub mod worker;

use std::sync::Arc;

use uuid::Uuid;

pub use call_error::CallError;
pub use reason::Reason;
pub use spec::{Isolation, UpstreamSpec};

use crate::{
    catalogue::{item::Item, kind::Kind},
    wire::Frame,
};
use dialogue::Unasked;
use status::{CatalogueChange, ExitCode, Output, Transition};
use tail::StderrTail;
use tasks::Owner;

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub reason: Reason,
    /// What there is to say beyond the reason, for operators.
    pub detail: Option<String>,
    /// How the process ended, if there was one.
    pub code: Option<ExitCode>,
    /// What our credential lacks, where that is the reason and the upstream says so.
    pub scope: Option<String>,
}

impl Exit {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::of(reason) }
    }

    pub fn of(reason: Reason) -> Self {
        Self { reason, detail: None, code: None, scope: None }
    }

    /// Our credential has not the rights that it would need.
    pub fn for_want_of(scope: Option<String>) -> Self {
        let detail = call_error::want_of(scope.as_deref());
        Self { scope, ..Self::new(Reason::InsufficientScope, detail) }
    }

    /// In words: what happened, the detail, and what the process wrote last where that may say why.
    pub fn describe(&self, stderr: &StderrTail) -> String {
        self.describe_with(stderr.last_words())
    }

    /// The same with the last words of a process whose tail is not the upstream's.
    pub fn describe_with(&self, last_words: Option<String>) -> String {
        let ended_by_itself = matches!(self.reason, Reason::Exited | Reason::Killed);
        let ended = self.code.filter(|_| ended_by_itself);
        let what = match ended.map(|exit| (exit.code, exit.signal)) {
            Some((Some(code), _)) => format!("exit code {code}"),
            Some((None, Some(signal))) => format!("signal {signal}"),
            // How it ended when it was made to end says nothing of why.
            Some((None, None)) | None => self.reason.as_str().replace('_', " "),
        };
        let last_words = last_words.filter(|_| self.reason.is_of_the_process());
        let last_words = last_words.map(|line| format!("it last wrote: {line}"));
        // A detail that begins with the reason's own words needs them no second time.
        let is_said = self.detail.as_ref().is_some_and(|detail| detail.starts_with(&what));
        let parts = [Some(what).filter(|_| !is_said), self.detail.clone(), last_words];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// Who takes to clients what an upstream says to them outside of any call. Never waits.
pub trait Clients: Send + Sync {
    /// To the client of one session.
    fn say(&self, server: Uuid, session: &str, unasked: Unasked);
    /// A log message that is about no client, to all who may see the upstream and want it.
    fn say_to_all(&self, server: Uuid, note: &Frame);
    /// What has become of a task, to its owner's clients.
    fn say_to_owner(&self, server: Uuid, owner: &Owner, maker: &str, note: &Frame);
    /// Whether the client of this session listens to what comes outside of any call.
    fn is_listening(&self, session: &str) -> bool;
    /// The name that operators know this session by.
    fn public_name(&self, session: &str) -> Option<Uuid>;
}

/// Who is told what happens to upstreams. Never waits.
pub trait Listener: Send + Sync {
    fn moved(&self, transition: &Transition);
    fn listed(&self, server: Uuid, kind: Kind, items: &Arc<Vec<Item>>);
    /// What it says of its use differs from what was known.
    fn instructed(&self, server: Uuid, instructions: Option<&str>);
    /// What it offers of a kind could not be listed; what was known of it still holds.
    fn not_listed(&self, server: Uuid, name: &str, kind: Kind, why: &str);
    /// What it offers differs from what was known.
    fn changed(&self, change: &CatalogueChange);
    /// Its process has written a line, in which secrets are hidden already. However many there are,
    /// they come from the one task that reads them.
    /// `readable` makes the line as it may be read. That costs more than the line itself, so it is asked
    /// only of what is kept.
    fn wrote(&self, server: Uuid, name: &str, output: Output, readable: &dyn Fn() -> String);
    /// A process that a client has to itself has ended by itself, or was not started, and why.
    fn lost_process(&self, server: Uuid, name: &str, reason: Reason, what: &str);
}
