//! The processes that the clients of one STDIO upstream have to themselves (`isolation` `SESSION` and
//! `USER`), beside the one that is the upstream's own.
//!
//! They belong to the row, and not to the upstream's own process: should that crash, each of them goes
//! on with its client. A process is started by the first call that needs it; what starts it is given by
//! the worker, whose room alone touches processes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    CallError, Exit, Reason,
    actor::SharedPatience,
    berth::Answer,
    dice,
    exchange::SessionKey,
    lifecycle::Event,
    own_process::{OwnProcess, ProcessReport},
    pipe::Pipe,
    worker::Announcements,
};
use crate::wire::capabilities::ClientCapabilities;

const GAUGE: &str = "metamcpd_session_processes";

/// The processes of one upstream's clients.
pub struct Processes {
    table: Mutex<HashMap<SessionKey, Arc<OwnProcess>>>,
    /// How many there are, from their start until nothing is left of them.
    living: watch::Sender<usize>,
    /// Counts them, so that each has a name of its own.
    started: AtomicU64,
    /// Who starts them, for as long as any may be started.
    starter: ArcSwapOption<Starter>,
    /// What any process of the upstream has said of changes in its lists.
    pub changed: Announcements,
}

/// How processes are started, and within what limits.
pub struct Starter {
    /// How many there may be.
    pub max: usize,
    pub patience: SharedPatience,
    /// Starts one, and tells whether that was possible. Told by [`OwnProcess::ready`] and
    /// [`Processes::ended`] what has become of it.
    pub start: Box<dyn Fn(Arc<OwnProcess>) -> bool + Send + Sync>,
}

impl Default for Processes {
    fn default() -> Self {
        Self {
            table: Mutex::default(),
            living: watch::channel(0).0,
            started: AtomicU64::new(0),
            starter: ArcSwapOption::empty(),
            changed: Announcements::default(),
        }
    }
}

impl Processes {
    /// From now on processes may be started.
    pub fn admit(&self, starter: Starter) {
        self.starter.store(Some(Arc::new(starter)));
    }

    /// The process of this key, where it is ready. It counts as used by this.
    pub fn ready(&self, key: &SessionKey) -> Option<Arc<Pipe>> {
        let own = self.known(key)?;
        let mut process = None;
        own.berth.send_if_modified(|berth| {
            berth.touch(Instant::now());
            process = berth.process();
            false
        });
        process
    }

    /// The place of this key. To find that there can be none costs next to nothing.
    pub fn known(&self, key: &SessionKey) -> Option<Arc<OwnProcess>> {
        if *key == SessionKey::Shared || self.starter.load().is_none() {
            return None;
        }
        self.lock().get(key).cloned()
    }

    /// The process of this key, started if need be and waited for: for as long as its start takes,
    /// and until `deadline` for the end of a rest, or of the process before.
    pub async fn process(
        &self,
        server: &Arc<str>,
        key: &SessionKey,
        declared: ClientCapabilities,
        deadline: Instant,
    ) -> Result<Arc<Pipe>, CallError> {
        let failed = |why: Exit| CallError::NoProcess {
            server: server.clone(),
            reason: why.reason,
            detail: why.detail,
        };
        loop {
            let own = self.place(key, declared);
            let mut changes = own.berth.subscribe();
            let mut awaited = None;
            loop {
                let patient_until = match self.ask(server, &own, awaited)? {
                    Answer::Take(pipe) => return Ok(pipe),
                    Answer::Failed(why) => return Err(failed(why)),
                    Answer::Rest { until, why } if until > deadline => return Err(failed(why)),
                    Answer::Rest { until, .. } => Some(until),
                    Answer::Over | Answer::Start => break,
                    // How long a start may take, whoever starts it knows.
                    Answer::Wait { start: start @ Some(_) } => {
                        awaited = awaited.or(start);
                        None
                    }
                    Answer::Wait { start: None } if Instant::now() >= deadline => {
                        let detail = "the one before is still ending";
                        return Err(failed(Exit::new(Reason::SpawnFailed, detail)));
                    }
                    Answer::Wait { start: None } => Some(deadline),
                };
                let patience = async {
                    match patient_until {
                        Some(until) => sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { break },
                    () = patience => {}
                }
            }
        }
    }

    /// Starts the process of this key if there is none, and nothing is in the way.
    pub fn begin(&self, server: &Arc<str>, key: &SessionKey, declared: ClientCapabilities) {
        let own = self.place(key, declared);
        if let Err(error) = self.ask(server, &own, None) {
            tracing::warn!(%error, "a process that has subscriptions was not started again");
        }
    }

    /// What a call is to do. What it is to start is started by this.
    fn ask(
        &self,
        server: &Arc<str>,
        own: &Arc<OwnProcess>,
        awaited: Option<u64>,
    ) -> Result<Answer<Arc<Pipe>>, CallError> {
        let mut outcome = Ok(Answer::Over);
        let mut begun = None;
        own.berth.send_if_modified(|berth| {
            outcome = Ok(berth.ask(Instant::now(), awaited));
            if !matches!(outcome, Ok(Answer::Start)) {
                return false;
            }
            match self.find_room(server) {
                Ok(starter) => {
                    let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
                    own.begin(number);
                    outcome = Ok(Answer::Wait { start: Some(berth.begin()) });
                    begun = Some(starter);
                    true
                }
                Err(error) => {
                    outcome = Err(error);
                    false
                }
            }
        });
        if let Some(starter) = begun
            && !(starter.start)(own.clone())
        {
            self.ended(own, &Exit::new(Reason::SpawnFailed, "the daemon is stopping"));
        }
        outcome
    }

    /// Takes the place of one more.
    fn find_room(&self, server: &Arc<str>) -> Result<Arc<Starter>, CallError> {
        let server = server.clone();
        let Some(starter) = self.starter.load_full() else {
            return Err(CallError::NotSent { server, detail: None });
        };
        let has_room = self.living.send_if_modified(|living| {
            let has_room = *living < starter.max;
            *living += usize::from(has_room);
            has_room
        });
        if !has_room {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "upstream.processes_max")
                .increment(1);
            return Err(CallError::Full { server, max: starter.max });
        }
        metrics::gauge!(GAUGE).increment(1.0);
        Ok(starter)
    }

    /// Nothing is left of a process. When another may be started in its place, if it has failed.
    pub fn ended(&self, own: &Arc<OwnProcess>, exit: &Exit) -> Option<Instant> {
        let starter = self.starter.load_full();
        let mut table = self.lock();
        let mut rest = None;
        own.berth.send_modify(|berth| {
            match &starter {
                Some(starter) => {
                    rest =
                        berth.ended(exit, Instant::now(), dice::random(), &starter.patience.load());
                }
                // All were to end, so this one was.
                None => berth.clear(),
            }
            // One that ended as it was told has left nothing to be remembered.
            if rest.is_none() {
                berth.retire();
            }
        });
        if rest.is_none() && table.get(&own.key).is_some_and(|known| Arc::ptr_eq(known, own)) {
            table.remove(&own.key);
        }
        drop(table);
        self.living.send_modify(|living| *living = living.saturating_sub(1));
        metrics::gauge!(GAUGE).decrement(1.0);
        rest
    }

    /// A client session has gone, and its process with it.
    pub fn forget(&self, key: &SessionKey) {
        let mut table = self.lock();
        let is_vacant = table.get(key).is_some_and(|own| !own.end());
        if is_vacant {
            table.remove(key);
        }
    }

    /// What happens to the upstream: whoever stops it, or starts it anew, means these processes too.
    pub fn notice(&self, event: &Event) {
        use Event::*;
        match event {
            StopRequested | DisableRequested | RestartRequested => self.end_all(),
            // A crash or a rest of the upstream's own process is not theirs.
            StartRequested | RestRequested | Wanted | WorkerReady | WorkerEnded(_)
            | WorkerThrottled(_) | TimeCame => {}
        }
    }

    /// Ends all of them, and starts no more before they are admitted again.
    fn end_all(&self) {
        self.starter.store(None);
        self.lock().retain(|_, own| own.end());
    }

    /// Waits until nothing is left of any.
    pub async fn at_rest(&self) {
        let mut living = self.living.subscribe();
        drop(living.wait_for(|living| *living == 0).await);
    }

    /// Those that there are, oldest first.
    pub fn report(&self) -> Vec<ProcessReport> {
        let mut all: Vec<_> =
            self.lock().values().filter_map(|own| Some((own.number(), own.report()?))).collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, report)| report).collect()
    }

    fn place(&self, key: &SessionKey, declared: ClientCapabilities) -> Arc<OwnProcess> {
        let mut table = self.lock();
        if let Some(own) = table.get(key) {
            return own.clone();
        }
        let now = Instant::now();
        let steady_after = self.starter.load().as_ref().map(|one| one.patience.load().steady_after);
        let since = now.checked_sub(steady_after.unwrap_or_default()).unwrap_or(now);
        table.retain(|_, own| !own.berth.borrow().is_forgotten(since) || !own.retire());
        let own = Arc::new(OwnProcess::new(key.clone(), declared));
        table.insert(key.clone(), own.clone());
        own
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, Arc<OwnProcess>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;
