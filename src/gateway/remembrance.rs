//! What one run tells the next about sessions: which of them are over.

use std::time::Duration;

use time::OffsetDateTime;

use crate::{
    session::{Mark, SessionOptions},
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

/// Drops what is too old, at once and from then on at a pace. Runs as long as the daemon.
pub async fn forget_old(store: Store, options: SessionOptions) {
    loop {
        let issued_before = OffsetDateTime::now_utc() - options.lifetime;
        if let Err(error) = store.forget_ended_sessions(issued_before, kept(&options)).await {
            tracing::debug!(%error, "ended sessions are remembered longer than they need be");
        }
        tokio::time::sleep(FORGET_EVERY).await;
    }
}

fn kept(options: &SessionOptions) -> u64 {
    u64::try_from(options.tombstones_max).unwrap_or(u64::MAX).saturating_add(1)
}
