//! Asks the operating system for the addresses of names, which may take its time for each.
//!
//! A name is looked up by one thread at most, and all who want it wait for that one. One that was not
//! answered in time is looked up in places of its own from then on, until it is answered, so that names
//! which hang do not keep those waiting that do not. And where the resolver itself fails, the addresses
//! that a name last had serve for a while; that a name does not exist is no failure of the resolver.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::EgressOptions;

/// Asks the operating system.
pub type Ask = fn(&str) -> io::Result<Vec<SocketAddr>>;

pub type Found = Result<Arc<[SocketAddr]>, Failure>;

/// Why there is no address, for all who wait for it.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: io::ErrorKind,
    pub text: String,
    /// Whether nobody has said anything about the name.
    is_of_resolver: bool,
}

/// Clones look up together.
#[derive(Clone, Debug)]
pub struct Lookups(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    patience: Duration,
    keep: Duration,
    names_max: usize,
    ask: Ask,
    /// Each place is a thread until the operating system answers, whether anybody waits for it or not.
    places: Arc<Semaphore>,
    /// Those of names that hang.
    hung_places: Arc<Semaphore>,
    names: Mutex<HashMap<String, Name>>,
}

/// What is known of a name.
#[derive(Debug)]
struct Name {
    /// The lookup that was begun last, and since when.
    asking: Option<(Instant, watch::Receiver<Option<Found>>)>,
    hangs: bool,
    good: Option<(Instant, Arc<[SocketAddr]>)>,
    wanted: Instant,
}

impl Name {
    /// The lookup that is under way. One whose task has ended is not.
    fn under_way(&self) -> Option<&(Instant, watch::Receiver<Option<Found>>)> {
        self.asking.as_ref().filter(|(_, asking)| asking.has_changed().is_ok())
    }
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        let text = error.to_string();
        // All that the standard library tells of EAI_AGAIN is its text. What has a number is an error of the
        // system: no file, no memory, no thread.
        let is_of_resolver = error.kind() == io::ErrorKind::TimedOut
            || error.raw_os_error().is_some()
            || text.contains("Temporary failure");
        Self { kind: error.kind(), text, is_of_resolver }
    }

    fn no_answer(text: &str) -> Self {
        Self { kind: io::ErrorKind::TimedOut, text: text.to_owned(), is_of_resolver: true }
    }
}

impl Lookups {
    pub fn new(options: &EgressOptions, ask: Ask) -> Self {
        Self(Arc::new(Shared {
            patience: options.resolve_timeout,
            keep: options.resolved_keep,
            names_max: options.resolved_max,
            ask,
            places: Arc::new(Semaphore::new(options.resolves_max)),
            hung_places: Arc::new(Semaphore::new(options.resolves_max)),
            names: Mutex::default(),
        }))
    }

    /// The addresses of a name, or those that it last had where nobody answers.
    pub async fn addresses(&self, name: &str) -> Found {
        let (since, mut asking) = self.join(name);
        // Where others have waited in vain already, there is no sense in waiting as long as they did.
        if since.elapsed() >= self.0.patience
            && let Some(good) = self.last_good(name)
        {
            return Ok(good);
        }
        let failure = match timeout(self.0.patience, asking.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => match (*found).clone() {
                Some(Ok(addresses)) => return Ok(addresses),
                Some(Err(failure)) => failure,
                None => Failure::no_answer("no answer"),
            },
            // The thread that it was begun on has ended.
            Ok(Err(_closed)) => Failure::no_answer("it was given up"),
            Err(_elapsed) => {
                metrics::counter!("metamcpd_limit_hit_total", "limit" => "egress.resolve_timeout")
                    .increment(1);
                Failure::no_answer("no answer in time")
            }
        };
        match failure.is_of_resolver.then(|| self.last_good(name)).flatten() {
            Some(good) => Ok(good),
            None => Err(failure),
        }
    }

    /// The lookup of this name that is under way, or a new one.
    fn join(&self, name: &str) -> (Instant, watch::Receiver<Option<Found>>) {
        let now = Instant::now();
        let mut names = self.lock();
        if !names.contains_key(name) {
            self.make_room(&mut names);
            let new = Name { asking: None, hangs: false, good: None, wanted: now };
            names.insert(name.to_owned(), new);
        }
        let (tell, told) = watch::channel(None);
        let Some(known) = names.get_mut(name) else { return (now, told) };
        known.wanted = now;
        if let Some((since, asking)) = known.under_way() {
            return (*since, asking.clone());
        }
        known.asking = Some((now, told.clone()));
        let (lookups, hangs, name) = (self.clone(), known.hangs, name.to_owned());
        tokio::spawn(async move { lookups.look_up(name, hangs, tell).await });
        (now, told)
    }

    /// Forgets the names that were wanted the longest ago, where there are too many.
    fn make_room(&self, names: &mut HashMap<String, Name>) {
        while names.len() >= self.0.names_max.max(1) {
            let free = names.iter().filter(|(_, known)| known.under_way().is_none());
            let oldest = free.min_by_key(|(_, known)| known.wanted).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { return };
            names.remove(&oldest);
        }
    }

    async fn look_up(&self, name: String, hangs: bool, tell: watch::Sender<Option<Found>>) {
        let Shared { patience, ask, places, hung_places, .. } = &*self.0;
        let places = if hangs { hung_places } else { places };
        let found = match timeout(*patience, places.clone().acquire_owned()).await {
            Ok(Ok(mut place)) => {
                let (answer, mut answered) = oneshot::channel();
                let (ask, asked) = (*ask, name.clone());
                let thread = thread::Builder::new().name("resolve".to_owned());
                let started = thread.spawn(move || drop(answer.send(ask(&asked))));
                let answered = match (started, timeout(*patience, &mut answered).await) {
                    (Err(no_thread), _) => Err(no_thread),
                    (Ok(_), Ok(answered)) => {
                        answered.unwrap_or_else(|gone| Err(io::Error::other(gone)))
                    }
                    (Ok(_), Err(_elapsed)) => {
                        self.hangs(&name);
                        if let Ok(another) = hung_places.clone().try_acquire_owned() {
                            place = another;
                        }
                        answered.await.unwrap_or_else(|gone| Err(io::Error::other(gone)))
                    }
                };
                drop(place);
                answered.map(Arc::from).map_err(|error| Failure::of(&error))
            }
            Ok(Err(_)) | Err(_) => {
                metrics::counter!("metamcpd_limit_hit_total", "limit" => "egress.resolves_max")
                    .increment(1);
                Err(Failure::no_answer("too many names are being looked up"))
            }
        };
        self.note(&name, &found);
        tell.send_replace(Some(found));
    }

    fn hangs(&self, name: &str) {
        if let Some(known) = self.lock().get_mut(name) {
            known.hangs = true;
        }
    }

    /// What came of a lookup. Nobody joins it any more.
    fn note(&self, name: &str, found: &Found) {
        let mut names = self.lock();
        let Some(known) = names.get_mut(name) else { return };
        known.asking = None;
        match found {
            Ok(addresses) => {
                known.hangs = false;
                known.good = Some((Instant::now(), addresses.clone()));
            }
            Err(failure) if !failure.is_of_resolver => (known.hangs, known.good) = (false, None),
            Err(_) => {}
        }
    }

    fn last_good(&self, name: &str) -> Option<Arc<[SocketAddr]>> {
        let names = self.lock();
        let (at, addresses) = names.get(name)?.good.as_ref()?;
        let is_kept = at.elapsed() <= self.0.keep && !self.0.keep.is_zero();
        is_kept.then(|| {
            metrics::counter!("metamcpd_stale_addresses_total").increment(1);
            addresses.clone()
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

    use futures_util::future::join_all;

    use super::*;

    fn lookups(patience: u64, resolves_max: usize, ask: Ask) -> Lookups {
        let resolve_timeout = Duration::from_millis(patience);
        let options = EgressOptions { resolve_timeout, resolves_max, ..Default::default() };
        Lookups::new(&options, ask)
    }

    fn here() -> io::Result<Vec<SocketAddr>> {
        Ok(vec!["127.0.0.1:0".parse().unwrap()])
    }

    #[tokio::test]
    async fn names_that_are_slow_take_no_more_threads_than_they_may() {
        static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let lookups = lookups(10_000, 2, |_| {
            MOST.fetch_max(AT_ONCE.fetch_add(1, SeqCst) + 1, SeqCst);
            thread::sleep(Duration::from_millis(20));
            AT_ONCE.fetch_sub(1, SeqCst);
            here()
        });
        let names: Vec<_> = (0..8).map(|number| format!("{number}.example")).collect();
        for found in join_all(names.iter().map(|name| lookups.addresses(name))).await {
            assert_eq!(found.unwrap().len(), 1);
        }
        assert_eq!(MOST.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_who_want_it_at_a_time() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let lookups = lookups(10_000, 8, |_| {
            ASKED.fetch_add(1, SeqCst);
            thread::sleep(Duration::from_millis(50));
            here()
        });
        let all = join_all((0..20).map(|_| lookups.addresses("a.example"))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(ASKED.load(SeqCst), 1);
        lookups.addresses("a.example").await.unwrap();
        assert_eq!(ASKED.load(SeqCst), 2, "what was answered is not remembered for that");
    }

    #[tokio::test]
    async fn names_that_hang_keep_no_other_name_waiting() {
        static RELEASED: AtomicBool = AtomicBool::new(false);
        let lookups = lookups(100, 4, |name| {
            while name.starts_with("dead") && !RELEASED.load(SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            here()
        });
        let dead: Vec<_> = (0..4).map(|number| format!("dead{number}.example")).collect();
        for _ in 0..3 {
            let all = join_all(dead.iter().map(|name| lookups.addresses(name))).await;
            assert!(all.iter().all(Result::is_err));
            assert!(lookups.addresses("good.example").await.is_ok());
        }
        RELEASED.store(true, SeqCst);
        // Once they are answered they are names like any other.
        while lookups.lock().values().any(|known| known.asking.is_some() || known.hangs) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(lookups.addresses(&dead[0]).await.is_ok());
    }

    #[tokio::test]
    async fn where_the_resolver_fails_the_last_addresses_serve_and_where_a_name_is_gone_they_do_not()
     {
        static STATE: AtomicUsize = AtomicUsize::new(0);
        let lookups = lookups(50, 4, |_| match STATE.load(SeqCst) {
            0 => here(),
            1 => Err(io::Error::other(
                "failed to lookup address information: Temporary failure in name resolution",
            )),
            2 => Err(io::Error::from_raw_os_error(11)),
            3 => {
                thread::sleep(Duration::from_millis(300));
                Err(io::ErrorKind::TimedOut.into())
            }
            _ => Err(io::Error::other(
                "failed to lookup address information: Name or service not known",
            )),
        });
        STATE.store(1, SeqCst);
        assert!(lookups.addresses("a.example").await.is_err(), "nothing was found before");
        for state in 0..4 {
            STATE.store(state, SeqCst);
            assert_eq!(lookups.addresses("a.example").await.unwrap().len(), 1, "{state}");
        }
        while lookups.lock().values().any(|known| known.asking.is_some()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for state in [4, 1] {
            STATE.store(state, SeqCst);
            assert!(lookups.addresses("a.example").await.is_err(), "{state}");
        }
    }

    #[tokio::test]
    async fn who_comes_while_a_name_hangs_does_not_wait_for_what_it_last_had() {
        static HANGS: AtomicBool = AtomicBool::new(false);
        let lookups = lookups(200, 4, |_| {
            if HANGS.load(SeqCst) {
                thread::sleep(Duration::from_secs(2));
            }
            here()
        });
        lookups.addresses("a.example").await.unwrap();
        HANGS.store(true, SeqCst);
        lookups.addresses("a.example").await.unwrap();
        let began = Instant::now();
        lookups.addresses("a.example").await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(150), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn no_more_names_are_remembered_than_may_be() {
        let options = EgressOptions { resolved_max: 3, ..Default::default() };
        let lookups = Lookups::new(&options, |_| here());
        for number in 0..10 {
            lookups.addresses(&format!("{number}.example")).await.unwrap();
        }
        let names = lookups.lock();
        assert_eq!(names.len(), 3);
        assert!(names.contains_key("9.example"));
    }
}
