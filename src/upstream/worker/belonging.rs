//! What a connection to a remote upstream is told of the row that it is made for.

use std::sync::Arc;

use uuid::Uuid;

use crate::upstream::{
    Clients, Isolation,
    breaker::Breaker,
    dialogue::{Dialogue, DialogueOptions, Scope},
    exchange::SessionKey,
    log_levels::LogLevels,
    retries::Retries,
    subscriptions::Subscriptions,
    task_talk::TaskTalk,
    tasks::Tasks,
};

/// Whose upstream it is, and who hears of it.
pub struct Belonging {
    pub id: Uuid,
    pub isolation: Isolation,
    pub levels: Arc<LogLevels>,
    pub subscriptions: Arc<Subscriptions>,
    pub tasks: Arc<Tasks>,
    pub clients: Arc<dyn Clients>,
    pub breaker: Arc<Breaker>,
    pub retries: Arc<Retries>,
}

impl Belonging {
    /// Whether something is still to be heard in the session of `key`, though nobody calls. A server
    /// may also forget the tasks of a session with it.
    pub fn expects_something(&self, key: &SessionKey) -> bool {
        self.subscriptions.has(key) || self.tasks.has_work(key)
    }

    /// For the session of `key`.
    pub fn dialogue(&self, key: &SessionKey, options: DialogueOptions) -> Dialogue {
        let scope = match key {
            SessionKey::Shared if self.isolation == Isolation::Shared => Scope::Everyone,
            SessionKey::Shared => Scope::Gateway,
            SessionKey::Client(client) => Scope::Client(client.clone()),
            SessionKey::User(_) => Scope::User,
        };
        // Its tasks may outlive this connection, and the daemon.
        let tasks = TaskTalk::new(self.tasks.clone(), key.clone(), Uuid::nil());
        Dialogue::new(scope, options)
            .with_subscriptions(self.subscriptions.clone(), key.clone())
            .with_tasks(tasks)
    }
}
