//! What runs as long as the daemon does runs again when it has panicked: no part of us dies in silence.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;

/// How long until it is begun again, so that what always fails does not take all there is.
const REST: Duration = Duration::from_secs(1);

/// Runs `work` for as long as the daemon lives, on this thread.
pub fn tend<F>(what: &'static str, work: impl Fn() -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    actix::spawn(async move {
        loop {
            // Where it happened, the log has already.
            let ended = AssertUnwindSafe(async { work().await }).catch_unwind().await;
            let how = if ended.is_err() { "panicked" } else { "ended" };
            metrics::counter!("metamcpd_tasks_restarted_total", "task" => what).increment(1);
            tracing::error!(task = what, how, "what runs as long as the daemon is begun again");
            tokio::time::sleep(REST).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    #[actix::test]
    async fn what_panics_or_ends_is_begun_again() {
        tokio::time::pause();
        let begun = Rc::new(Cell::new(0));
        let counter = begun.clone();
        tend("test", move || {
            counter.set(counter.get() + 1);
            let turn = counter.get();
            async move {
                assert!(turn != 1, "the first time it panics");
                if turn > 2 {
                    std::future::pending().await
                }
            }
        });
        tokio::time::sleep(REST * 10).await;
        assert_eq!(begun.get(), 3);
    }
}
