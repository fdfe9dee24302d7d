//! By which connection of an upstream a caller goes: the one that all share, a session of its own
//! behind it, or a process of its own (design decision 8).

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    CallError, Reason,
    exchange::SessionKey,
    link::{Caller, Link},
    port::{Facts, Port},
};

impl Port {
    /// The connection for a call of this caller, waited for while there is hope, by who has waited since
    /// `began`.
    ///
    /// Who has a process of its own needs nothing else: it goes on while the upstream's own process is
    /// started anew, and after that has crashed.
    pub(super) async fn way(
        &self,
        facts: &Facts,
        caller: &Caller<'_>,
        key: &SessionKey,
        began: Instant,
        cancel: &CancellationToken,
    ) -> Result<Arc<Link>, CallError> {
        if let Some(pipe) = self.processes.ready(key) {
            return Ok(Arc::new(Link::Pipe(pipe)));
        }
        let link = self.link(facts, began, cancel).await?;
        if !is_of_its_own(&link, key) {
            return Ok(link);
        }
        let declared = caller.declared(facts.isolation);
        let deadline = began + self.options.ready_wait;
        let pipe = self.processes.process(&facts.name, key, declared, deadline).await?;
        Ok(Arc::new(Link::Pipe(pipe)))
    }

    /// The connection to the very process that a task was made in: what the next one calls so is
    /// another's. Nothing is started for it, nor waited for.
    pub(super) fn living(
        &self,
        life: Uuid,
        facts: &Facts,
        key: &SessionKey,
    ) -> Result<Arc<Link>, CallError> {
        let link = self.current_link(key).filter(|link| link.life() == life);
        link.ok_or_else(|| CallError::Ended {
            server: facts.name.clone(),
            reason: Reason::Exited,
            detail: Some("the process that was at work on the task is there no more".into()),
        })
    }

    /// Whether a call with a place among those in flight may go by this connection. One that is being
    /// left for want of calls must not get another; a process of a client's own says so itself.
    pub(super) fn is_present(&self, link: &Arc<Link>, key: &SessionKey) -> bool {
        is_of_its_own(link, key)
            || self.link.load().as_ref().is_some_and(|present| Arc::ptr_eq(present, link))
    }

    /// The connection to the session of this key, if there is one just now.
    pub(super) fn current_link(&self, key: &SessionKey) -> Option<Arc<Link>> {
        if let Some(pipe) = self.processes.ready(key) {
            return Some(Arc::new(Link::Pipe(pipe)));
        }
        self.link.load_full().filter(|link| !is_of_its_own(link, key))
    }
}

/// Whether who has this key has a process of its own. A remote upstream has sessions instead.
fn is_of_its_own(link: &Link, key: &SessionKey) -> bool {
    match (link, key) {
        (Link::Remote(_), _) | (Link::Pipe(_), SessionKey::Shared) => false,
        (Link::Pipe(_), SessionKey::Client(_) | SessionKey::User(_)) => true,
    }
}

#[cfg(test)]
#[path = "isolating_tests.rs"]
mod tests;
