//! Work of some milliseconds that is done on a thread of its own, so that no other call waits for it.
//!
//! What one call takes to a thread that many share, all others wait for. The threads are as many as there
//! are cores, are started when they are needed, and do nothing else: whatever hangs elsewhere, what is
//! begun here comes to its end. A host that gives us no thread costs the others that wait, and nobody a
//! result. Each room that has a thread to share may name it.

use std::{
    any::Any,
    collections::VecDeque,
    io,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

/// Bytes that are read, or copied, where they are: that takes less time than to take them elsewhere and
/// back is worth.
pub const IN_PLACE_MAX: usize = 256 << 10;

/// Pieces of work that wait for a thread. Each holds what it is about; more are done where they are.
const WAITING_MAX: usize = 256;

/// How long a thread waits for more before it ends.
const LINGER: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, Box<dyn Any + Send>>;

/// What comes of work that is done aside. Safe to be dropped; what has not begun is then not done.
#[derive(Debug)]
pub struct Aside<T>(oneshot::Receiver<Outcome<T>>);

/// Begins it; or does it at once, where no thread is to be had.
pub fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Aside<T> {
    static CREW: LazyLock<Arc<Crew>> = LazyLock::new(|| {
        let threads_max = thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Crew::new(threads_max, WAITING_MAX, start))
    });
    begin(&CREW, work)
}

fn begin<T: Send + 'static>(
    crew: &Arc<Crew>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Aside<T> {
    let (tell, told) = oneshot::channel();
    let job = move || {
        if !tell.is_closed() {
            // A panic is contained where the work was asked for.
            drop(tell.send(panic::catch_unwind(AssertUnwindSafe(work))));
        }
    };
    if let Some(job) = crew.take(Box::new(job)) {
        metrics::counter!("metamcpd_work_in_place_total").increment(1);
        job();
    }
    Aside(told)
}

impl<T> Future for Aside<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Ready(Ok(Ok(outcome))) => Poll::Ready(outcome),
            Poll::Ready(Ok(Err(panic))) => panic::resume_unwind(panic),
            // The process ends, and all that waits with it.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// How a thread is started that does this.
type Start = fn(Job) -> io::Result<()>;

/// The threads, and what waits for them.
struct Crew {
    shift: Mutex<Shift>,
    called: Condvar,
    threads_max: usize,
    waiting_max: usize,
    start: Start,
}

#[derive(Default)]
struct Shift {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Crew {
    fn new(threads_max: usize, waiting_max: usize, start: Start) -> Self {
        let (shift, called) = (Mutex::default(), Condvar::new());
        Self { shift, called, threads_max, waiting_max, start }
    }

    /// Takes a job, or gives it back where nobody would do it.
    fn take(self: &Arc<Self>, job: Job) -> Option<Job> {
        let mut shift = self.lock();
        if shift.waiting.len() >= self.waiting_max {
            return Some(job);
        }
        shift.waiting.push_back(job);
        if shift.idle >= shift.waiting.len() {
            self.called.notify_one();
            return None;
        }
        if shift.threads < self.threads_max {
            let crew = self.clone();
            match (self.start)(Box::new(move || crew.work())) {
                Ok(()) => shift.threads += 1,
                Err(error) => tracing::debug!(%error, "no thread is to be had"),
            }
        }
        // One that is busy takes it next.
        if shift.threads > 0 { None } else { shift.waiting.pop_back() }
    }

    fn work(&self) {
        let mut shift = self.lock();
        loop {
            if let Some(job) = shift.waiting.pop_front() {
                drop(shift);
                job();
                shift = self.lock();
                continue;
            }
            shift.idle += 1;
            let waited =
                self.called.wait_timeout_while(shift, LINGER, |shift| shift.waiting.is_empty());
            shift = waited.unwrap_or_else(PoisonError::into_inner).0;
            shift.idle -= 1;
            if shift.waiting.is_empty() {
                shift.threads -= 1;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shift> {
        // Nothing is done under the lock that could leave it half done.
        self.shift.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(work: Job) -> io::Result<()> {
    thread::Builder::new().name("aside".to_owned()).spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use std::{
        panic::AssertUnwindSafe,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use futures_util::{FutureExt, future::join_all};

    use super::*;

    fn crew(threads_max: usize, waiting_max: usize, start: Start) -> Arc<Crew> {
        Arc::new(Crew::new(threads_max, waiting_max, start))
    }

    #[tokio::test]
    async fn its_outcome_comes_back_and_so_does_its_panic() {
        assert_eq!(aside(|| 7).await, 7);
        let panicking = AssertUnwindSafe(aside(|| panic!("this is a test"))).catch_unwind();
        assert!(panicking.await.is_err());
        assert_eq!(aside(|| 8).await, 8, "the thread is as good as before");
    }

    #[tokio::test]
    async fn where_no_thread_is_to_be_had_it_is_done_where_it_is() {
        let poor = crew(4, 4, |_| Err(io::ErrorKind::WouldBlock.into()));
        let here = thread::current().id();
        assert_eq!(begin(&poor, || thread::current().id()).await, here);
        let panicking = AssertUnwindSafe(begin(&poor, || panic!("this is a test"))).catch_unwind();
        assert!(panicking.await.is_err(), "and not before it is asked for");
        assert!(poor.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn what_is_too_much_for_the_threads_is_done_where_it_is() {
        let busy = crew(1, 1, start);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let first = begin(&busy, move || wait.recv().is_ok());
        while !busy.lock().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        let second = begin(&busy, || thread::current().id());
        let third = begin(&busy, || thread::current().id());
        assert_eq!(third.await, thread::current().id());
        drop(go);
        first.await;
        assert_ne!(second.await, thread::current().id());
    }

    #[tokio::test]
    async fn there_are_no_more_threads_than_there_may_be_and_all_is_done_by_them() {
        static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let crew = crew(2, 100, start);
        let works = (0..50).map(|number| {
            begin(&crew, move || {
                MOST.fetch_max(AT_ONCE.fetch_add(1, SeqCst) + 1, SeqCst);
                thread::sleep(Duration::from_millis(1));
                AT_ONCE.fetch_sub(1, SeqCst);
                number
            })
        });
        assert_eq!(join_all(works).await, (0..50).collect::<Vec<_>>());
        assert!(MOST.load(SeqCst) <= 2);
        assert!(crew.lock().threads <= 2);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_begun() {
        let busy = crew(1, 10, start);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let first = begin(&busy, move || wait.recv().is_ok());
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = begun.clone();
        drop(begin(&busy, move || counted.fetch_add(1, SeqCst)));
        drop(go);
        first.await;
        begin(&busy, || ()).await;
        assert_eq!(begun.load(SeqCst), 0);
    }
}
