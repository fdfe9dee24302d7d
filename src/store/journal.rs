//! Writes what has happened behind those to whom it happens.
//!
//! Recording never waits: the queue is bounded, and what finds it full is dropped and counted. One
//! task writes in batches and keeps a batch until the database has taken it. It decides when to
//! write; what a record becomes in the tables is `memory`'s business.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{self, Instant};

use super::Store;
use super::memory::Record;
use crate::failpoint;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How much is held back, and for how long.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalOptions {
    /// Records that wait at most.
    pub capacity: usize,
    /// Records in one transaction at most.
    pub batch: usize,
    /// How long a record waits for others to be written with it.
    #[serde(with = "humantime_serde")]
    pub flush_every: Duration,
    /// Transitions kept for each server.
    pub history_max_per_server: u64,
}

impl Default for JournalOptions {
    fn default() -> JournalOptions {
        JournalOptions {
            capacity: 10_000,
            batch: 500,
            flush_every: Duration::from_millis(250),
            history_max_per_server: 1_000,
        }
    }
}

/// Where to tell what has happened. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    queue: mpsc::Sender<Entry>,
    counts: Arc<Counts>,
    writer: AbortHandle,
    /// What of it is for those records alone that cannot be had again.
    reserved_from: u64,
}

#[derive(Default)]
struct Counts {
    dropped: AtomicU64,
    /// Recorded, and neither written nor dropped.
    unwritten: AtomicU64,
}

enum Entry {
    Record(Box<Record>),
    /// Answered when everything before it is written.
    Flush(oneshot::Sender<()>),
    /// The same, and nothing is taken after it.
    Close(oneshot::Sender<()>),
}

impl Journal {
    /// Has to be called within a tokio runtime, in which the writing is done.
    pub fn start(store: Store, options: JournalOptions) -> Journal {
        let (queue, entries) = mpsc::channel(options.capacity.max(1));
        let reserved_from = u64::try_from(options.capacity / 2).unwrap_or(u64::MAX);
        let counts = Arc::new(Counts::default());
        let writer = Writer { store, options, entries, counts: Arc::clone(&counts) };
        let writer = tokio::spawn(writer.run()).abort_handle();
        Journal { queue, counts, writer, reserved_from }
    }

    /// Never waits. When the queue is full, or closed, the record is dropped and counted.
    pub fn record(&self, record: Record) {
        self.counts.unwritten.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(Entry::Record(Box::new(record))).is_err() {
            self.counts.lose(1);
        }
    }

    /// The same for what may come in floods: it leaves half of the queue to everything else.
    pub fn record_minor(&self, record: Record) {
        if self.counts.unwritten.load(Ordering::Relaxed) < self.reserved_from {
            self.record(record);
        } else {
            self.counts.count_dropped(1);
        }
    }

    /// How many records were dropped since the start.
    #[cfg(test)]
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything recorded so far is written. False when the time was not enough.
    pub async fn flush(&self, timeout: Duration) -> bool {
        self.told(Entry::Flush, timeout).await
    }

    /// Writes everything recorded so far and ends. False when the time was not enough: what was
    /// not written by then is dropped and counted.
    pub async fn close(&self, timeout: Duration) -> bool {
        let is_written = self.told(Entry::Close, timeout).await;
        if !is_written {
            self.writer.abort();
            let lost = self.counts.unwritten.load(Ordering::Relaxed);
            self.counts.lose(lost);
            tracing::error!(lost, "the journal was closed before everything was written");
        }
        is_written
    }

    async fn told(
        &self,
        entry: impl FnOnce(oneshot::Sender<()>) -> Entry,
        timeout: Duration,
    ) -> bool {
        let (done, is_done) = oneshot::channel();
        let entry = entry(done);
        let answer = async { self.queue.send(entry).await.is_ok() && is_done.await.is_ok() };
        time::timeout(timeout, answer).await.unwrap_or(false)
    }
}

impl Counts {
    fn lose(&self, records: u64) {
        self.settle(records);
        self.count_dropped(records);
    }

    fn count_dropped(&self, records: u64) {
        self.dropped.fetch_add(records, Ordering::Relaxed);
        metrics::counter!("metamcpd_journal_dropped_total").increment(records);
    }

    /// Saturating, because a close that gives up may overtake the writer.
    fn settle(&self, records: u64) {
        let settled = |unwritten: u64| unwritten.saturating_sub(records);
        self.unwritten.update(Ordering::Relaxed, Ordering::Relaxed, settled);
    }
}

struct Writer {
    store: Store,
    options: JournalOptions,
    entries: mpsc::Receiver<Entry>,
    counts: Arc<Counts>,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let (batch, end) = self.gather().await;
            let count = batch.len() as u64;
            if AssertUnwindSafe(self.write(batch)).catch_unwind().await.is_err() {
                // Where it happened, the log has already. What of the batch was written, nobody knows.
                tracing::error!(count, "the journal panicked; it goes on with what comes next");
                self.counts.lose(count);
            }
            match end {
                BatchEnd::Full => {}
                // Whoever asked may have given up waiting; nothing is lost by that.
                BatchEnd::Flush(done) => done.send(()).unwrap_or(()),
                BatchEnd::Close(done) => {
                    self.entries.close();
                    done.send(()).unwrap_or(());
                    return;
                }
                BatchEnd::Abandoned => return,
            }
        }
    }

    /// Takes entries until the batch is full, its first record has waited long enough, or somebody
    /// waits for it.
    async fn gather(&mut self) -> (Vec<Record>, BatchEnd) {
        let mut batch = Vec::new();
        let mut deadline: Option<Instant> = None;
        while batch.len() < self.options.batch.max(1) {
            let next = match deadline {
                None => self.entries.recv().await,
                Some(deadline) => match time::timeout_at(deadline, self.entries.recv()).await {
                    Ok(next) => next,
                    Err(_) => return (batch, BatchEnd::Full),
                },
            };
            match next {
                Some(Entry::Record(record)) => {
                    batch.push(*record);
                    deadline.get_or_insert_with(|| Instant::now() + self.options.flush_every);
                }
                Some(Entry::Flush(done)) => return (batch, BatchEnd::Flush(done)),
                Some(Entry::Close(done)) => return (batch, BatchEnd::Close(done)),
                None => return (batch, BatchEnd::Abandoned),
            }
        }
        (batch, BatchEnd::Full)
    }

    /// Returns when the batch is written. A record that can never be written is dropped alone.
    async fn write(&self, batch: Vec<Record>) {
        if !batch.is_empty() {
            failpoint::pass("journal");
        }
        if batch.is_empty() || self.persist(&batch).await {
            return;
        }
        for record in batch.chunks(1) {
            if !self.persist(record).await {
                self.counts.lose(1);
            }
        }
    }

    /// False when the database refuses the records for what they are.
    async fn persist(&self, records: &[Record]) -> bool {
        let mut rest = RETRY_MIN;
        loop {
            match self.store.remember(records, self.options.history_max_per_server).await {
                Ok(()) => {
                    self.counts.settle(records.len() as u64);
                    return true;
                }
                Err(error) if error.is_passing() => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        waiting = self.counts.unwritten.load(Ordering::Relaxed),
                        "the journal waits for the database",
                    );
                    time::sleep(rest).await;
                    rest = (rest * 2).min(RETRY_MAX);
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        records = records.len(),
                        "the journal could not write what has happened",
                    );
                    return false;
                }
            }
        }
    }
}

enum BatchEnd {
    Full,
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
    /// Nobody can record any more.
    Abandoned,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{failure, on_both, on_both_databases, open, process, run};
    use crate::store::{DatabaseOptions, ItemKind, Naming, PageRequest, ShownName};

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(300);

    async fn restarts(store: &Store, server: uuid::Uuid) -> Vec<u64> {
        let page = PageRequest { limit: Some(1_000), cursor: None };
        let page = store.history(server, &page).await.unwrap();
        page.items.into_iter().rev().map(|item| item.restarts).collect()
    }

    #[tokio::test]
    async fn everything_recorded_is_written_in_order() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let options = JournalOptions { batch: 7, ..JournalOptions::default() };
            let journal = Journal::start(store.clone(), options);
            for number in 0..100 {
                journal.record(failure(server, number));
            }
            assert!(journal.flush(LONG).await);
            assert_eq!(restarts(&store, server).await, (0..100).collect::<Vec<_>>());

            journal.record(failure(server, 100));
            assert!(journal.close(LONG).await);
            assert_eq!(restarts(&store, server).await.len(), 101);
            assert_eq!(journal.dropped(), 0);

            journal.record(failure(server, 101));
            assert_eq!(journal.dropped(), 1, "nobody writes any more");
            assert!(!journal.flush(LONG).await);
        })
        .await;
    }

    #[tokio::test]
    async fn a_record_is_written_without_being_asked_for() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let journal = Journal::start(store.clone(), JournalOptions::default());
            journal.record(failure(server, 1));
            while restarts(&store, server).await.is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn what_finds_the_queue_full_is_dropped_and_counted_and_the_rest_outlives_an_outage() {
        on_both_databases(async |options, data_dir| {
            let acquire_timeout = Duration::from_millis(500);
            let store = open(&DatabaseOptions { acquire_timeout, ..options }, data_dir).await;
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let options = JournalOptions { capacity: 10, batch: 5, ..JournalOptions::default() };
            let journal = Journal::start(store.clone(), options);

            let outage = store.write().await.unwrap();
            for number in 0..100 {
                journal.record(failure(server, number));
            }
            let dropped = journal.dropped();
            assert!(dropped >= 80, "{dropped}");
            assert!(!journal.flush(SHORT).await);
            outage.rollback().await.unwrap();

            assert!(journal.flush(LONG).await);
            let written = restarts(&store, server).await;
            assert_eq!(written, (0..100 - dropped).collect::<Vec<_>>());
        })
        .await;
    }

    #[tokio::test]
    async fn a_flood_of_minor_records_leaves_room_for_the_others() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let options = JournalOptions { capacity: 20, batch: 5, ..JournalOptions::default() };
            let journal = Journal::start(store.clone(), options);

            let outage = store.write().await.unwrap();
            for id in 0..100 {
                journal.record_minor(Record::LogsGone { ids: vec![id] });
            }
            assert_eq!(journal.dropped(), 90);
            for number in 0..10 {
                journal.record(failure(server, number));
            }
            assert_eq!(journal.dropped(), 90);
            outage.rollback().await.unwrap();

            assert!(journal.flush(LONG).await);
            assert_eq!(restarts(&store, server).await, (0..10).collect::<Vec<_>>());
        })
        .await;
    }

    #[tokio::test]
    async fn a_close_that_is_not_waited_for_counts_what_is_lost() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let journal = Journal::start(store.clone(), JournalOptions::default());
            let outage = store.write().await.unwrap();
            for number in 0..10 {
                journal.record(failure(server, number));
            }
            assert!(!journal.close(SHORT).await);
            assert_eq!(journal.dropped(), 10);
            outage.rollback().await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn a_record_that_can_never_be_written_is_dropped_alone() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let namespace = crate::store::testing::group("all", &[]);
            let namespace = store.create_namespace(namespace).await.unwrap().uuid;
            let journal = Journal::start(store.clone(), JournalOptions::default());
            let twice = |tool: &str| ShownName {
                server,
                kind: ItemKind::Tool,
                tool_name: tool.to_owned(),
                shown_name: "same".to_owned(),
                naming: Naming::Always,
            };
            journal.record(failure(server, 1));
            let names = vec![twice("a"), twice("b")];
            journal.record(Record::ShownNames { namespace, kind: ItemKind::Tool, names });
            journal.record(failure(server, 2));
            assert!(journal.flush(LONG).await);

            assert_eq!(restarts(&store, server).await, [1, 2]);
            assert_eq!(journal.dropped(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn connections_that_are_cut_are_made_again() {
        on_both_databases(async |options, data_dir| {
            if options.url.is_none() {
                return; // SQLite has none to cut.
            }
            let store = open(&options, data_dir).await;
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let journal = Journal::start(store.clone(), JournalOptions::default());
            let other = open(&options, data_dir).await;
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()";
            run(&other, cut).await.unwrap();

            journal.record(failure(server, 1));

            assert!(journal.flush(LONG).await);
            assert_eq!(restarts(&store, server).await, [1]);
        })
        .await;
    }
}
