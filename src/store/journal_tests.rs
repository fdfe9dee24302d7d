//! What is recorded, on both databases, whatever becomes of them.

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
        let journal = Journal::start(store.clone(), options, None);
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
        let journal = Journal::start(store.clone(), JournalOptions::default(), None);
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
        let journal = Journal::start(store.clone(), options, None);

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
async fn what_waits_in_the_file_is_written_after_the_queue_also_where_a_flush_has_given_up() {
    on_both_databases(async |options, data_dir| {
        let acquire_timeout = Duration::from_millis(500);
        let store = open(&DatabaseOptions { acquire_timeout, ..options }, data_dir).await;
        let server = store.create_server(process("files")).await.unwrap().uuid;
        let options = JournalOptions { capacity: 10, ..JournalOptions::default() };
        let spill = Spill::open(data_dir, options.spill_max).unwrap();
        let journal = Journal::start(store.clone(), options, Some(spill));

        let outage = store.write().await.unwrap();
        let mut number = 0;
        let mut record = || {
            journal.record(failure(server, number));
            number += 1;
        };
        (0..3).for_each(|_| record());
        assert!(!journal.flush(SHORT).await);
        (0..5).for_each(|_| record());
        assert!(!journal.flush(SHORT).await);
        (0..20).for_each(|_| record());
        assert!(!journal.spill.is_empty());
        outage.rollback().await.unwrap();

        assert!(journal.flush(LONG).await);
        assert_eq!(restarts(&store, server).await, (0..28).collect::<Vec<_>>());
        assert!(journal.spill.is_empty());
        assert_eq!(journal.dropped(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_minor_records_leaves_room_for_the_others() {
    on_both(async |store| {
        let server = store.create_server(process("files")).await.unwrap().uuid;
        let options = JournalOptions { capacity: 20, batch: 5, ..JournalOptions::default() };
        let journal = Journal::start(store.clone(), options, None);

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
        let journal = Journal::start(store.clone(), JournalOptions::default(), None);
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
async fn a_file_that_cannot_be_read_is_kept_and_read_again() {
    on_both_databases(async |options, data_dir| {
        let store = open(&options, data_dir).await;
        let server = store.create_server(process("files")).await.unwrap().uuid;
        let options = JournalOptions::default();
        let mut spill = Spill::open(data_dir, options.spill_max).unwrap();
        assert!(spill.put(&failure(server, 1)).unwrap());
        let file = data_dir.join("unreadable");
        let readable = spill.by(std::fs::File::create(file).unwrap());
        let journal = Journal::start(store.clone(), options, Some(spill));
        assert!(!journal.flush(LONG).await);
        assert_eq!(journal.dropped(), 0);
        journal.spill.lock().as_mut().unwrap().by(readable);
        // Nobody has to ask.
        while restarts(&store, server).await.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(journal.flush(LONG).await);
        assert_eq!(restarts(&store, server).await, [1]);
    })
    .await;
}

#[tokio::test]
async fn what_is_recorded_behind_a_close_is_left_to_the_next_run_or_counted() {
    on_both_databases(async |options, data_dir| {
        let store = open(&options, data_dir).await;
        let server = store.create_server(process("files")).await.unwrap().uuid;
        for (has_file, first, dropped) in [(false, 1, 1), (true, 3, 0)] {
            let options = JournalOptions::default();
            let spill = has_file.then(|| Spill::open(data_dir, options.spill_max).unwrap());
            let journal = Journal::start(store.clone(), options.clone(), spill);
            // Nothing is taken from the queue before we wait, so the second record stands behind the close.
            journal.record(failure(server, first));
            let (done, is_done) = oneshot::channel();
            assert!(journal.queue.try_send(Entry::Close(done)).is_ok());
            journal.record(failure(server, first + 1));
            is_done.await.unwrap();
            journal.over.cancelled().await;
            assert_eq!(journal.dropped(), dropped);
            assert_eq!(journal.counts.unwritten.load(Ordering::Relaxed), 0);
            drop(journal);

            let spill = Spill::open(data_dir, options.spill_max).unwrap();
            let next = Journal::start(store.clone(), options, Some(spill));
            assert!(next.close(LONG).await);
        }
        assert_eq!(restarts(&store, server).await, [1, 3, 4]);
    })
    .await;
}

#[tokio::test]
async fn a_record_that_can_never_be_written_is_dropped_alone() {
    on_both(async |store| {
        let server = store.create_server(process("files")).await.unwrap().uuid;
        let namespace = crate::store::testing::group("all", &[]);
        let namespace = store.create_namespace(namespace).await.unwrap().uuid;
        let journal = Journal::start(store.clone(), JournalOptions::default(), None);
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
        let journal = Journal::start(store.clone(), JournalOptions::default(), None);
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

#[tokio::test]
async fn what_is_too_many_bytes_for_memory_goes_into_the_file_and_one_that_is_alone_never_does() {
    on_both_databases(async |options, data_dir| {
        let acquire_timeout = Duration::from_millis(500);
        let store = open(&DatabaseOptions { acquire_timeout, ..options }, data_dir).await;
        let server = store.create_server(process("files")).await.unwrap().uuid;
        let long = |number| {
            let mut record = failure(server, number);
            if let Record::Transition { message, .. } = &mut record {
                *message = Some("x".repeat(1_000));
            }
            record
        };
        let (options, size) = (JournalOptions::default(), long(0).bytes());
        let options = JournalOptions { bytes_max: 3 * size, ..options };
        let spill = Spill::open(data_dir, options.spill_max).unwrap();
        let journal = Journal::start(store.clone(), options.clone(), Some(spill));
        let outage = store.write().await.unwrap();
        (0..3).for_each(|number| journal.record(long(number)));
        assert!(journal.spill.is_empty());
        journal.record_minor(Record::LogsGone { ids: vec![1] });
        assert_eq!(journal.dropped(), 1, "they are to crowd out nothing else");
        (3..7).for_each(|number| journal.record(long(number)));
        assert!(!journal.spill.is_empty());
        assert!(!journal.flush(SHORT).await);
        assert_eq!(journal.counts.bytes.load(Ordering::Relaxed), 3 * size);
        outage.rollback().await.unwrap();
        assert!(journal.flush(LONG).await);
        assert_eq!(restarts(&store, server).await, (0..7).collect::<Vec<_>>());
        assert_eq!(journal.counts.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(journal.dropped(), 1);
        assert!(journal.close(LONG).await);

        let options = JournalOptions { bytes_max: 1, spill_max: 0, ..options };
        let journal = Journal::start(store.clone(), options, None);
        for number in 7..9 {
            journal.record(long(number));
            assert!(journal.flush(LONG).await);
        }
        assert_eq!(journal.dropped(), 0);
        assert!(journal.close(LONG).await);
    })
    .await;
}

#[tokio::test]
async fn a_kill_at_any_point_of_writing_down_the_file_writes_nothing_twice_and_loses_nothing() {
    const RECORDS: u64 = 9;
    on_both_databases(async |options, data_dir| {
        let store = open(&options, data_dir).await;
        // Less is kept than is written at once, so that much is pushed out again at once.
        for (batch, next_batch, history_max) in [(3, 3, 2), (3, 5, 2), (4, 9, 2), (2, 2, 100)] {
            let options = |batch| JournalOptions {
                batch,
                history_max_per_server: history_max,
                ..JournalOptions::default()
            };
            for kill in 0.. {
                let name = format!("files-{batch}-{next_batch}-{kill}");
                let server = store.create_server(process(&name)).await.unwrap().uuid;
                let mut spill = Spill::open(data_dir, MANY).unwrap();
                (0..RECORDS)
                    .for_each(|number| assert!(spill.put(&failure(server, number)).unwrap()));
                // As the writer does it: a portion is written down, and that is noted.
                let mut steps = 0;
                while steps < kill && !spill.is_empty() {
                    let portion = spill.portion(batch, MANY).unwrap();
                    let (records, all) = (&portion.records, 0..portion.records.len());
                    store.write_down(records, all, Before::Tried, history_max).await.unwrap();
                    steps += 1;
                    if steps < kill {
                        spill.done(&portion);
                        steps += 1;
                    }
                }
                drop(spill);
                let spill = Spill::open(data_dir, MANY).unwrap();
                let next = Journal::start(store.clone(), options(next_batch), Some(spill));
                assert!(next.close(LONG).await);
                let all: Vec<u64> = (RECORDS.saturating_sub(history_max)..RECORDS).collect();
                assert_eq!(restarts(&store, server).await, all, "{name}");
                assert_eq!(next.dropped(), 0);
                if steps < kill {
                    break;
                }
            }
        }
    })
    .await;
}

const MANY: u64 = 1 << 20;
