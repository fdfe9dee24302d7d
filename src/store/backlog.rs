//! How much waits to be written: records and their bytes, and what was dropped for want of room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by whoever records and whoever writes.
#[derive(Default)]
pub struct Backlog {
    pub dropped: AtomicU64,
    /// Recorded, and neither written, put aside nor dropped.
    pub unwritten: AtomicU64,
    /// Of what waits in memory, or is being written.
    pub bytes: AtomicU64,
}

/// Bytes of memory that a record takes, until it is written or somewhere else.
pub struct Room {
    counts: Arc<Backlog>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counts.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Backlog {
    /// Room for so many bytes, where there is; for a record that nothing could ever make room for, where
    /// nothing else waits. Asked by one at a time.
    pub fn room(self: &Arc<Self>, bytes: u64, max: u64) -> Option<Room> {
        let taken = self.bytes.load(Ordering::Relaxed);
        if taken > 0 && taken.saturating_add(bytes) > max {
            return None;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Room { counts: Arc::clone(self), bytes })
    }

    pub fn lose(&self, records: u64) {
        self.settle(records);
        self.count_dropped(records);
    }

    pub fn count_dropped(&self, records: u64) {
        if records == 0 {
            return;
        }
        self.dropped.fetch_add(records, Ordering::Relaxed);
        metrics::counter!("metamcpd_journal_dropped_total").increment(records);
    }

    /// Saturating, because a close that gives up may overtake the writer.
    pub fn settle(&self, records: u64) {
        let settled = |unwritten: u64| unwritten.saturating_sub(records);
        self.unwritten.update(Ordering::Relaxed, Ordering::Relaxed, settled);
    }
}
