//! Takes lines from whoever logs, and writes them from a thread of its own: a reader that does not read
//! holds up that thread and nobody else. What finds the queue full is lost and counted.

use std::{
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{self, Receiver, SyncSender, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use crate::failpoint;

/// Bytes that are written at once, or a little more.
const BATCH: usize = 64 * 1024;

/// How long the end of the program waits for the reader of the log.
const LAST_WORD_WAIT: Duration = Duration::from_secs(1);

/// How often it is tried to put the end into a full queue.
const GLANCE: Duration = Duration::from_millis(5);

/// How long until a writer that panicked is begun again.
const REST: Duration = Duration::from_millis(100);

/// Where lines are given up to be written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sink {
    queue: SyncSender<Order>,
}

/// Writes what is left when it is dropped, or gives it up after a while.
#[derive(Debug)]
pub struct LastWord {
    queue: SyncSender<Order>,
}

#[derive(Debug)]
enum Order {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    End(SyncSender<()>),
}

/// Begins to write. `lines` wait at most.
pub fn start(out: impl Write + Send + 'static, lines: usize) -> io::Result<(Sink, LastWord)> {
    let (queue, orders) = mpsc::sync_channel(lines.max(1));
    thread::Builder::new().name("log".to_owned()).spawn(move || keep_writing(out, &orders))?;
    Ok((Sink { queue: queue.clone() }, LastWord { queue }))
}

impl Sink {
    /// Never waits.
    pub fn line(&self, line: Vec<u8>) {
        if self.queue.try_send(Order::Line(line)).is_err() {
            lose(1);
        }
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let until = Instant::now() + LAST_WORD_WAIT;
        let (done, is_done) = mpsc::sync_channel(1);
        let mut end = Order::End(done);
        while let Err(mpsc::TrySendError::Full(refused)) = self.queue.try_send(end) {
            if Instant::now() >= until {
                return;
            }
            end = refused;
            thread::sleep(GLANCE);
        }
        // An error says that nobody reads. There is nobody to tell.
        is_done.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or(());
    }
}

/// Whoever reads the log goes on reading it when its writer has panicked.
fn keep_writing(mut out: impl Write, orders: &Receiver<Order>) {
    let mut lines = 0;
    while catch_unwind(AssertUnwindSafe(|| write(&mut out, orders, &mut lines))).is_err() {
        lose(lines);
        thread::sleep(REST);
    }
}

/// `lines`: those that were taken and are not written yet.
fn write(mut out: impl Write, orders: &Receiver<Order>, lines: &mut u64) {
    let mut batch = Vec::new();
    while let Ok(first) = orders.recv() {
        *lines = 0;
        let mut next = Ok(first);
        let end = loop {
            match next {
                Ok(Order::Line(line)) => {
                    *lines += 1;
                    batch.extend_from_slice(&line);
                }
                Ok(Order::End(done)) => break Some(done),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break None,
            }
            if batch.len() >= BATCH {
                break None;
            }
            next = orders.try_recv();
        };
        failpoint::pass("sink");
        if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
            // The reader has gone. It may be the first of several.
            lose(*lines);
        }
        *lines = 0;
        batch.clear();
        if let Some(done) = end {
            return done.send(()).unwrap_or(());
        }
    }
}

fn lose(lines: u64) {
    metrics::counter!("metamcpd_log_lines_dropped_total").increment(lines);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, Mutex};

    use super::*;

    /// Writes nothing until it is let go.
    struct Slow {
        gate: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.gate.recv().unwrap_or(());
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_and_what_was_taken_is_written_in_order() {
        let (open, gate) = mpsc::channel();
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (sink, last_word) = start(Slow { gate, written: written.clone() }, 10).unwrap();
        for number in 0..1000 {
            sink.line(format!("{number}\n").into_bytes());
        }
        drop(open);
        drop(last_word);
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let numbers: Vec<u32> = written.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.len() >= 10 && numbers.len() < 1000, "{}", numbers.len());
        assert!(numbers.is_sorted(), "{written}");
    }

    #[test]
    fn a_reader_that_never_reads_does_not_hold_up_the_end() {
        let (_open, gate) = mpsc::channel();
        let (sink, last_word) = start(Slow { gate, written: Arc::default() }, 4).unwrap();
        for _ in 0..100 {
            sink.line(b"x\n".to_vec());
        }
        let begun = Instant::now();
        drop(last_word);
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
