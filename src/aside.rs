//! Work of some milliseconds that is done on a thread of its own, so that no other call waits for it.
//!
//! What one call takes to a thread that many share, all others wait for. Each room that has a thread to
//! share may name it.

use std::{
    panic,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::JoinHandle;

/// Bytes that are read, or copied, where they are: that takes less time than to take them elsewhere and
/// back is worth.
pub const IN_PLACE_MAX: usize = 256 << 10;

/// What comes of work that is done aside. Safe to be dropped; the work is then done for nothing.
#[derive(Debug)]
pub struct Aside<T>(JoinHandle<T>);

/// Begins it.
pub fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Aside<T> {
    Aside(tokio::task::spawn_blocking(work))
}

impl<T> Future for Aside<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Ready(Ok(outcome)) => Poll::Ready(outcome),
            // A panic is contained where the work was asked for.
            Poll::Ready(Err(error)) => match error.try_into_panic() {
                Ok(panic) => panic::resume_unwind(panic),
                // The runtime ends, and all that waits with it.
                Err(_cancelled) => Poll::Pending,
            },
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn its_outcome_comes_back_and_so_does_its_panic() {
        assert_eq!(aside(|| 7).await, 7);
        let panicking = AssertUnwindSafe(aside(|| panic!("this is a test"))).catch_unwind();
        assert!(panicking.await.is_err());
    }
}
