//! What waits for one call to hear it, besides its answer. It is bounded, and costs little while
//! nothing comes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::exchange::Heard;

pub struct Inbox {
    waiting: Mutex<Waiting>,
    bell: Notify,
    max: usize,
}

#[derive(Default)]
struct Waiting {
    heard: VecDeque<Heard>,
    is_closed: bool,
}

/// The end that the call hears. When it is dropped, what waits is too, and no more is taken.
pub struct Listening(Arc<Inbox>);

impl Inbox {
    /// At most `max` things wait.
    pub fn new(max: usize) -> (Arc<Self>, Listening) {
        let inbox = Arc::new(Self { waiting: Mutex::default(), bell: Notify::new(), max });
        (inbox.clone(), Listening(inbox))
    }

    /// Whether there was room, and somebody who hears it still.
    pub fn put(&self, heard: Heard) -> bool {
        {
            let mut waiting = self.lock();
            if waiting.is_closed || waiting.heard.len() >= self.max {
                return false;
            }
            waiting.heard.push_back(heard);
        }
        self.bell.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // What waits is whole whenever the lock is free, even after a panic elsewhere.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    /// Safe to be dropped while it waits.
    pub async fn next(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.0.lock().heard.pop_front() {
                return heard;
            }
            self.0.bell.notified().await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let left = {
            let mut waiting = self.0.lock();
            waiting.is_closed = true;
            std::mem::take(&mut waiting.heard)
        };
        // Outside of the lock: a question that is dropped is refused.
        drop(left);
    }
}
