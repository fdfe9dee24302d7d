//! What one run tells the next about sessions: which of them are over.

use std::{sync::Arc, time::Duration};

use crate::{
    session::{Mark, SessionOptions, Sessions},
    store::{EndedSession, Store, StoreError},
};

/// How often it is looked which tombstones are too old to be needed.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);

/// The sessions that must not be revived. One more than are kept, by which it is seen that there were
/// more.
pub async fn ended_sessions(
    store: &Store,
    options: &SessionOptions,
) -> Result<Vec<Mark>, StoreError> {
    let ended = store.ended_sessions(kept(options)).await?;
    Ok(ended.into_iter().map(|one| Mark { id: one.id, issued: one.issued_at }).collect())
}

pub fn remembered(mark: Mark) -> EndedSession {
    EndedSession { id: mark.id, issued_at: mark.issued }
}

/// Drops what is too old, at a pace. Runs as long as the daemon.
pub async fn forget_old(store: Store, sessions: Arc<Sessions>) {
    loop {
        tokio::time::sleep(FORGET_EVERY).await;
        // An operator may change the lifetime at run time.
        let issued_before = sessions.issued_before();
        let max = kept(&sessions.options);
        if let Err(error) = store.forget_ended_sessions(issued_before, max).await {
            tracing::debug!(%error, "ended sessions are remembered longer than they need be");
        }
    }
}

fn kept(options: &SessionOptions) -> u64 {
    u64::try_from(options.tombstones_max).unwrap_or(u64::MAX).saturating_add(1)
}
