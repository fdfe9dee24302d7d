//! Waiting for a condition, never for a while.

use std::time::Duration;

use tokio::time::Instant;

/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// Asks `probe` until it has an answer; fails the test when `patience` has passed without one.
pub async fn wait_until<T>(
    what: &str,
    patience: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(begun.elapsed() < patience, "waited {patience:?} in vain for {what}");
        tokio::time::sleep(GLANCE).await;
    }
}

/// The outcome of `work`; fails the test when it takes longer than `patience`.
pub async fn within<T>(what: &str, patience: Duration, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(patience, work).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("{what} took longer than {patience:?}"),
    }
}
