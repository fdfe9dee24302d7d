//! Writes what has happened behind those to whom it happens.
//!
//! Recording never waits for the database: the queue is bounded, what finds it full goes into a file,
//! and what finds that full too is dropped and counted. One task writes in batches and keeps a batch
//! until the database has taken it, however often that is tried. It decides when to write; what a
//! record becomes in the tables is `memory`'s business.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::backlog::{Backlog, Room};
use super::record::{Before, Record};
use super::spill::Spill;
use super::{Store, StoreError};
use crate::failpoint;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How often the time of one try doubles, so that a database that is only slow takes a batch in the end.
const DOUBLINGS_MAX: u32 = 4;

/// How long the writer may take to put aside what it holds.
const PUT_ASIDE: Duration = Duration::from_secs(2);

/// How much is held back, and for how long.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalOptions {
    /// Records that wait in memory at most.
    pub capacity: usize,
    /// Bytes of them at most. One that is larger waits there alone.
    pub bytes_max: u64,
    /// Bytes of those that wait in a file. 0: none do.
    pub spill_max: u64,
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
            bytes_max: 32 * 1024 * 1024,
            spill_max: 64 * 1024 * 1024,
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
    counts: Arc<Backlog>,
    spill: Aside,
    /// Cancelled when nothing more is to be waited for.
    give_up: CancellationToken,
    /// Cancelled when the writer has ended.
    over: CancellationToken,
    /// What of it is for those records alone that cannot be had again.
    reserved_from: u64,
    bytes_max: u64,
}

/// The file beside the queue, where there is one.
#[derive(Clone, Default)]
struct Aside {
    spill: Arc<Mutex<Option<Spill>>>,
}

enum Entry {
    Record(Box<Record>, Room),
    /// Answered when everything before it is written.
    Flush(oneshot::Sender<()>),
    /// The same, and nothing is taken after it.
    Close(oneshot::Sender<()>),
}

impl Journal {
    /// Has to be called within a tokio runtime, in which the writing is done. What an earlier run has
    /// left in the file is written first.
    pub fn start(store: Store, options: JournalOptions, spill: Option<Spill>) -> Journal {
        let (queue, entries) = mpsc::channel(options.capacity.max(1));
        let reserved_from = u64::try_from(options.capacity / 2).unwrap_or(u64::MAX);
        let bytes_max = options.bytes_max;
        let counts = Arc::new(Backlog::default());
        let spill = Aside { spill: Arc::new(Mutex::new(spill)) };
        let (give_up, over) = (CancellationToken::new(), CancellationToken::new());
        let writer = Writer {
            store,
            options,
            entries,
            counts: Arc::clone(&counts),
            spill: spill.clone(),
            give_up: give_up.clone(),
            _over: over.clone().drop_guard(),
        };
        tokio::spawn(writer.run_on());
        Journal { queue, counts, spill, give_up, over, reserved_from, bytes_max }
    }

    /// Never waits for the database. What finds neither the queue nor the file with room for it, or
    /// both closed, is dropped and counted.
    pub fn record(&self, record: Record) {
        self.try_record(record);
    }

    /// The same for who has to know; false where it was dropped.
    pub fn try_record(&self, record: Record) -> bool {
        // Held until it has its place, so that what is recorded later never stands before it.
        let mut spill = self.spill.lock();
        let record = Box::new(record);
        let record = match &*spill {
            Some(spill) if !spill.is_empty() => record,
            _ => match self.queue_up(record) {
                Ok(()) => return true,
                Err(record) => record,
            },
        };
        let is_kept = spill.as_mut().is_some_and(|spill| {
            spill.put(&record).unwrap_or_else(|error| {
                tracing::warn!(%error, "what waits for the database could not be put into its file");
                false
            })
        });
        match is_kept {
            true => metrics::counter!("metamcpd_journal_spilled_total").increment(1),
            false => self.counts.count_dropped(1),
        }
        is_kept
    }

    /// Gives it back where the queue has no place for it, or is closed.
    fn queue_up(&self, record: Box<Record>) -> Result<(), Box<Record>> {
        let place = match self.queue.try_reserve() {
            Ok(place) => place,
            Err(mpsc::error::TrySendError::Full(())) => {
                hit("journal.capacity");
                return Err(record);
            }
            Err(mpsc::error::TrySendError::Closed(())) => return Err(record),
        };
        let Some(room) = self.counts.room(record.bytes(), self.bytes_max) else {
            hit("journal.bytes_max");
            return Err(record);
        };
        self.counts.unwritten.fetch_add(1, Ordering::Relaxed);
        place.send(Entry::Record(record, room));
        Ok(())
    }

    /// The same for what may come in floods: it leaves half of the queue to everything else, and the
    /// whole of the file.
    pub fn record_minor(&self, record: Record) {
        let waiting = self.counts.unwritten.load(Ordering::Relaxed);
        let bytes = self.counts.bytes.load(Ordering::Relaxed);
        if waiting < self.reserved_from && bytes < self.bytes_max / 2 && self.spill.is_empty() {
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

    /// Writes everything recorded so far and ends. False when the time was not enough: what was not
    /// written by then is put into the file for the next run, and without one dropped and counted.
    pub async fn close(&self, timeout: Duration) -> bool {
        let is_written = self.told(Entry::Close, timeout).await;
        if !is_written {
            self.give_up.cancel();
            if time::timeout(PUT_ASIDE, self.over.cancelled()).await.is_err() {
                let lost = self.counts.unwritten.load(Ordering::Relaxed);
                self.counts.lose(lost);
                tracing::error!(lost, "the journal was closed before everything was written");
            }
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

fn hit(limit: &'static str) {
    metrics::counter!("metamcpd_limit_hit_total", "limit" => limit).increment(1);
}

impl Aside {
    fn is_empty(&self) -> bool {
        self.lock().as_ref().is_none_or(Spill::is_empty)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Spill>> {
        // A file that a panic has left with half a line is mended by the next that is put.
        self.spill.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    store: Store,
    options: JournalOptions,
    entries: mpsc::Receiver<Entry>,
    counts: Arc<Backlog>,
    spill: Aside,
    give_up: CancellationToken,
    _over: tokio_util::sync::DropGuard,
}

/// What has become of records.
enum Written {
    /// All are written, but for those that can never be.
    AllBut { lost: u64 },
    /// Nobody is to wait for the database any more.
    GivenUp,
}

impl Writer {
    /// Begins again where it panics beside its writing.
    async fn run_on(mut self) {
        while AssertUnwindSafe(self.run()).catch_unwind().await.is_err() {
            let waiting = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
            let held = self.counts.unwritten.load(Ordering::Relaxed).saturating_sub(waiting);
            self.counts.lose(held);
            time::sleep(RETRY_MIN).await;
        }
    }

    async fn run(&mut self) {
        self.write_spilled().await;
        loop {
            let (Batch { records, rooms }, end) = self.gather().await;
            let count = records.len() as u64;
            match self.write(&records, Before::Nothing).await {
                Written::AllBut { lost } => {
                    self.counts.settle(count - lost);
                    self.counts.lose(lost);
                }
                Written::GivenUp => return self.put_aside(records),
            }
            drop((records, rooms));
            let is_written = self.write_spilled().await;
            if self.give_up.is_cancelled() {
                return self.put_aside(Vec::new());
            }
            match end {
                BatchEnd::Full => {}
                // Whoever asked may have given up waiting; nothing is lost by that.
                BatchEnd::Flush(done) if is_written => done.send(()).unwrap_or(()),
                BatchEnd::Flush(_unanswered) => {}
                BatchEnd::Close(done) => {
                    self.put_aside(Vec::new());
                    if is_written {
                        done.send(()).unwrap_or(());
                    }
                    return;
                }
                BatchEnd::Abandoned => return,
            }
        }
    }

    /// Takes entries until the batch is full, its first record has waited long enough, or somebody
    /// waits for it.
    async fn gather(&mut self) -> (Batch, BatchEnd) {
        let mut batch = Batch::default();
        // What is in the file wakes nobody.
        let waits = !self.spill.is_empty();
        let mut deadline = waits.then(|| Instant::now() + RETRY_MAX);
        while batch.records.len() < self.options.batch.max(1) {
            let next = match deadline {
                None => self.entries.recv().await,
                Some(deadline) => match time::timeout_at(deadline, self.entries.recv()).await {
                    Ok(next) => next,
                    Err(_) => return (batch, BatchEnd::Full),
                },
            };
            match next {
                Some(Entry::Record(record, room)) => {
                    if batch.records.is_empty() {
                        deadline = Some(Instant::now() + self.options.flush_every);
                    }
                    batch.records.push(*record);
                    batch.rooms.push(room);
                }
                Some(Entry::Flush(done)) if done.is_closed() => {}
                Some(Entry::Flush(done)) => return (batch, BatchEnd::Flush(done)),
                Some(Entry::Close(done)) => return (batch, BatchEnd::Close(done)),
                None => return (batch, BatchEnd::Abandoned),
            }
        }
        (batch, BatchEnd::Full)
    }

    /// Writes what is in the file until nothing is, but nothing before all that is in the queue, which
    /// is older. False where it cannot be read; it is kept, and tried again.
    async fn write_spilled(&mut self) -> bool {
        loop {
            let portion = match self.spill.lock().as_ref() {
                Some(spill) if !spill.is_empty() && self.has_no_record_queued() => {
                    spill.portion(self.options.batch, self.options.bytes_max)
                }
                _ => return true,
            };
            let portion = match portion {
                Ok(portion) => portion,
                Err(error) => {
                    tracing::error!(%error, "the file of what waits for the database cannot be read");
                    return false;
                }
            };
            // It may have been written by a run that did not come to say so.
            match self.write(&portion.records, Before::Tried).await {
                Written::AllBut { lost } => self.counts.count_dropped(lost + portion.unreadable),
                Written::GivenUp => return false,
            }
            self.spill.lock().as_mut().into_iter().for_each(|spill| spill.done(&portion));
        }
    }

    /// Whether there is none, of a batch that is settled and with the file held.
    fn has_no_record_queued(&self) -> bool {
        self.entries.is_empty() || self.counts.unwritten.load(Ordering::Relaxed) == 0
    }

    /// Returns when the batch is written. A record that can never be written is dropped alone, and so
    /// is all that is written with one at which we panic again and again.
    async fn write(&self, batch: &[Record], mut before: Before) -> Written {
        const TRIES: usize = 2;
        for _ in 0..TRIES {
            let writing = AssertUnwindSafe(self.write_all(batch, before));
            match writing.catch_unwind().await {
                Ok(written) => return written,
                // Where it happened, the log has already.
                Err(_panicked) => tracing::error!("the journal panicked, and goes on"),
            }
            before = Before::Tried;
        }
        Written::AllBut { lost: batch.len() as u64 }
    }

    async fn write_all(&self, batch: &[Record], before: Before) -> Written {
        if batch.is_empty() {
            return Written::AllBut { lost: 0 };
        }
        failpoint::pass("journal");
        match self.persist(batch, 0..batch.len(), before).await {
            Persisted::Yes => return Written::AllBut { lost: 0 },
            Persisted::GivenUp => return Written::GivenUp,
            Persisted::Refused => {}
        }
        let mut lost = 0;
        for index in 0..batch.len() {
            match self.persist(batch, index..index + 1, Before::Tried).await {
                Persisted::Yes => {}
                Persisted::GivenUp => return Written::GivenUp,
                Persisted::Refused => lost += 1,
            }
        }
        Written::AllBut { lost }
    }

    /// Writes some of a batch.
    async fn persist(&self, batch: &[Record], some: Range<usize>, mut before: Before) -> Persisted {
        let (mut rest, mut doublings) = (RETRY_MIN, 0);
        loop {
            let patience = self.store.write_timeout() * (1 << doublings);
            let history_max = self.options.history_max_per_server;
            let writing = self.store.write_down(batch, some.clone(), before, history_max);
            let tried = tokio::select! {
                biased;
                () = self.give_up.cancelled() => return Persisted::GivenUp,
                tried = time::timeout(patience, writing) => tried,
            };
            let error = match tried {
                Ok(Ok(())) => return Persisted::Yes,
                Ok(Err(error)) => error,
                Err(elapsed) => {
                    doublings = (doublings + 1).min(DOUBLINGS_MAX);
                    StoreError::late(elapsed)
                }
            };
            // Also where its answer was an error: what has become of a COMMIT is not always known.
            before = Before::Tried;
            if !error.is_passing() {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    records = some.len(),
                    "the journal could not write what has happened",
                );
                return Persisted::Refused;
            }
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                waiting = self.counts.unwritten.load(Ordering::Relaxed),
                "the journal waits for the database",
            );
            tokio::select! {
                () = self.give_up.cancelled() => return Persisted::GivenUp,
                () = time::sleep(rest) => rest = (rest * 2).min(RETRY_MAX),
            }
        }
    }

    /// Ends, and leaves what is held, and what still came, for the next run.
    fn put_aside(&mut self, mut held: Vec<Record>) {
        // Held from here on, so that nobody is about to find a place in the queue.
        let mut spill = self.spill.lock();
        self.entries.close();
        while let Ok(entry) = self.entries.try_recv() {
            if let Entry::Record(record, _room) = entry {
                held.push(*record);
            }
        }
        let count = held.len() as u64;
        if count == 0 && spill.as_ref().is_none_or(Spill::is_empty) {
            return;
        }
        let lost = match spill.as_mut() {
            Some(spill) => spill.put_first(&held).unwrap_or_else(|error| {
                tracing::error!(%error, "what was not written could not be put into its file");
                count
            }),
            None => count,
        };
        self.counts.settle(count);
        self.counts.count_dropped(lost);
        match lost {
            0 => tracing::warn!(count, "the journal left what is not written to the next start"),
            _ => tracing::error!(lost, "the journal was closed before everything was written"),
        }
    }
}

/// Records that are written together, and the room that they take.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    rooms: Vec<Room>,
}

enum Persisted {
    Yes,
    /// The database refuses the records for what they are.
    Refused,
    GivenUp,
}

enum BatchEnd {
    Full,
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
    /// Nobody can record any more.
    Abandoned,
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
