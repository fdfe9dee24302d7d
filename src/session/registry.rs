//! Every session there is, and who may find it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Agreed, Session, SessionOptions, Start, Via,
    calendar::Calendar,
    outbox::{Outbox, Outgoing, outbox},
    replay::Held,
    sealed::{Claims, PrincipalDigest},
    tombstones::{Mark, Tombstones},
};
use crate::{
    access::Principal,
    identity::{sealer::Sealer, vault::VaultError},
};

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is none with this id, or not for who presents it. Nobody is told which.
    #[error("there is no such session")]
    Unknown,
    #[error("as many sessions are open as are allowed (`sessions.total_max`)")]
    TooMany,
    #[error("memory is short (`server.memory_soft_max`)")]
    MemoryIsShort,
    #[error("the gateway is stopping")]
    Closed,
    #[error("no id could be made")]
    NoId(#[source] VaultError),
}

/// Called with every session that ends, and not with those that the next run may revive.
type OnEnd = Box<dyn Fn(&Session) + Send + Sync>;

pub struct Sessions {
    pub options: SessionOptions,
    sealer: Sealer,
    /// Milliseconds; what the settings say until it is changed at run time.
    lifetime_ms: AtomicU64,
    open: RwLock<HashMap<Arc<str>, Arc<Session>>>,
    tombstones: Mutex<Tombstones>,
    calendar: Calendar,
    is_closed: AtomicBool,
    memory_is_short: AtomicBool,
    /// What all sessions keep for clients that may come back, in bytes.
    held: Held,
    on_end: OnEnd,
}

type Open<'a> = RwLockWriteGuard<'a, HashMap<Arc<str>, Arc<Session>>>;

impl Sessions {
    /// `ended` are the sessions of earlier runs that must not be revived.
    pub fn new(
        options: SessionOptions,
        sealer: Sealer,
        ended: impl IntoIterator<Item = Mark>,
        on_end: OnEnd,
    ) -> Self {
        let lifetime_ms = AtomicU64::new(millis(options.lifetime));
        let tombstones = Mutex::new(Tombstones::new(options.tombstones_max, ended));
        Self {
            options,
            sealer,
            lifetime_ms,
            open: RwLock::default(),
            tombstones,
            calendar: Calendar::new(),
            is_closed: AtomicBool::new(false),
            memory_is_short: AtomicBool::new(false),
            held: Held::default(),
            on_end,
        }
    }

    /// Changes how long a session may live, for those that are open too.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.lifetime_ms.store(millis(lifetime), Ordering::Relaxed);
    }

    pub fn lifetime(&self) -> Duration {
        Duration::from_millis(self.lifetime_ms.load(Ordering::Relaxed))
    }

    /// Begins a session over Streamable HTTP.
    pub fn begin(
        &self,
        endpoint: Uuid,
        principal: Principal,
        agreed: Agreed,
    ) -> Result<Arc<Session>, SessionError> {
        self.begin_by(Via::StreamableHttp, endpoint, principal, Some(agreed), None)
    }

    /// Begins a session over SSE, and gives what has to be written to its stream.
    pub fn begin_sse(
        &self,
        endpoint: Uuid,
        principal: Principal,
    ) -> Result<(Arc<Session>, Outgoing), SessionError> {
        let SessionOptions { stream_buffer, stream_bytes_max, .. } = self.options;
        let (outbox, stream) = outbox(stream_buffer, stream_bytes_max);
        let session = self.begin_by(Via::Sse, endpoint, principal, None, Some(outbox))?;
        Ok((session, stream))
    }

    fn begin_by(
        &self,
        via: Via,
        endpoint: Uuid,
        principal: Principal,
        agreed: Option<Agreed>,
        outbox: Option<Outbox>,
    ) -> Result<Arc<Session>, SessionError> {
        let now = self.calendar.today().for_new();
        let issued = now.replace_nanosecond(0).unwrap_or(now);
        let claims =
            Claims { principal: PrincipalDigest::of(&principal), endpoint, via, agreed, issued };
        let token = self.sealer.seal(&claims.to_bytes()).map_err(SessionError::NoId)?;
        let start = Start {
            id: token.text.into(),
            mark: Mark { id: token.mark, issued },
            endpoint,
            principal,
            via,
            agreed,
            age: Duration::ZERO,
            outbox,
            load: Arc::default(),
        };
        self.insert(start, self.write())
    }

    fn insert(&self, mut start: Start, mut open: Open<'_>) -> Result<Arc<Session>, SessionError> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(SessionError::Closed);
        }
        if self.memory_is_short.load(Ordering::Relaxed) {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "server.memory_soft_max")
                .increment(1);
            return Err(SessionError::MemoryIsShort);
        }
        let of_same = open.values().filter(|one| one.principal == start.principal);
        let of_same: Vec<_> = of_same.cloned().collect();
        if let Some(another) = of_same.first() {
            start.load = another.load.clone();
        }
        let session = Arc::new(Session::new(start, &self.options, self.held.clone()));
        let evicted = match of_same.len() >= self.options.per_principal_max {
            // One that waits for an answer goes only when all of them do.
            true => of_same.into_iter().min_by_key(|one| (one.in_flight() > 0, one.last_used())),
            false => None,
        };
        if evicted.is_none() && open.len() >= self.options.total_max {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "sessions.total_max")
                .increment(1);
            return Err(SessionError::TooMany);
        }
        open.insert(session.id.clone(), session.clone());
        drop(open);
        if let Some(evicted) = evicted {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "sessions.per_principal_max")
                .increment(1);
            self.end(&evicted);
        }
        metrics::gauge!("metamcpd_sessions").set(self.count() as f64);
        Ok(session)
    }

    /// The session with this id, for the principal that began it on this endpoint, and for nobody
    /// else. One of an earlier run is revived by that.
    pub fn find(
        &self,
        id: &str,
        endpoint: Uuid,
        principal: &Principal,
        via: Via,
    ) -> Result<Arc<Session>, SessionError> {
        let found = {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            open.get(id).cloned()
        };
        match found {
            None if via == Via::StreamableHttp && self.options.revival => {
                self.revive(id, endpoint, principal)
            }
            None => Err(SessionError::Unknown),
            Some(session) => {
                let is_theirs = session.endpoint == endpoint
                    && session.principal == *principal
                    && session.via == via
                    && !session.ended.is_cancelled();
                is_theirs.then_some(session).ok_or(SessionError::Unknown)
            }
        }
    }

    /// The session with this id, for what concerns it on behalf of its own client.
    pub fn get(&self, id: &str) -> Option<Arc<Session>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(id).filter(|session| !session.ended.is_cancelled()).cloned()
    }

    /// Every session that `wants` names.
    pub fn all_where(&self, wants: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.values().filter(|session| wants(session)).cloned().collect()
    }

    /// Takes an id at its word, since nobody else could have made it.
    fn revive(
        &self,
        id: &str,
        endpoint: Uuid,
        principal: &Principal,
    ) -> Result<Arc<Session>, SessionError> {
        let opened = self.sealer.open(id).ok_or(SessionError::Unknown)?;
        let claims = Claims::from_bytes(&opened.plain).ok_or(SessionError::Unknown)?;
        let mark = Mark { id: opened.mark, issued: claims.issued };
        let today = self.calendar.today();
        let age = today.age_of(claims.issued);
        let ahead = today.ahead_of(claims.issued);
        let is_theirs = claims.endpoint == endpoint
            && claims.principal == PrincipalDigest::of(principal)
            && claims.via == Via::StreamableHttp
            && age <= self.lifetime();
        let Some(agreed) = claims.agreed.filter(|_| is_theirs) else {
            return Err(SessionError::Unknown);
        };
        // Such a one would be new again at each restart, until its day has come: when it began is known to
        // nobody. Its client begins another.
        if ahead > self.options.ahead_max {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "sessions.ahead_max")
                .increment(1);
            return Err(SessionError::Unknown);
        }
        let open = self.write();
        // Of several requests that come at once, one revives it and the others find it.
        if let Some(session) = open.get(id) {
            let is_over = session.ended.is_cancelled();
            return if is_over { Err(SessionError::Unknown) } else { Ok(session.clone()) };
        }
        // Asked with the lock held, under which whoever ends a session buries it.
        if self.lock_tombstones().holds(&mark) {
            return Err(SessionError::Unknown);
        }
        let start = Start {
            id: id.into(),
            mark,
            endpoint,
            principal: principal.clone(),
            via: Via::StreamableHttp,
            agreed: Some(agreed),
            age,
            outbox: None,
            load: Arc::default(),
        };
        let session = self.insert(start, open)?;
        metrics::counter!("metamcpd_sessions_revived_total").increment(1);
        tracing::debug!(session = %session.short(), "a session of an earlier run goes on");
        Ok(session)
    }

    /// Ends a session for good: no restart brings it back.
    pub fn end(&self, session: &Session) {
        session.ended.cancel();
        let removed = {
            let mut open = self.write();
            if session.via == Via::StreamableHttp {
                self.lock_tombstones().add(session.mark);
            }
            open.remove(&session.id)
        };
        if removed.is_some() {
            (self.on_end)(session);
            metrics::gauge!("metamcpd_sessions").set(self.count() as f64);
        }
    }

    /// Lets go of all sessions at the end of a run, to be revived by the next one; begins no more.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let sessions = std::mem::take(&mut *self.write());
        sessions.into_values().for_each(|session| session.ended.cancel());
    }

    /// Every session, the oldest first.
    pub fn list(&self) -> Vec<Arc<Session>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let live = open.values().filter(|session| !session.ended.is_cancelled());
        let mut live: Vec<_> = live.cloned().collect();
        drop(open);
        live.sort_unstable_by_key(|session| session.uuid);
        live
    }

    /// Ends every session that `is_over` names.
    pub fn end_where(&self, is_over: impl Fn(&Session) -> bool) {
        for session in self.all_where(is_over) {
            self.end(&session);
        }
    }

    /// Ends the sessions whose time is over. Called at a pace by the gateway.
    pub fn sweep(&self, now: Instant) {
        let lifetime = self.lifetime();
        self.end_where(|session| {
            let is_idle = !session.has_stream()
                && session.in_flight() == 0
                && now.saturating_duration_since(session.last_used()) > self.options.idle;
            is_idle || session.ended.is_cancelled() || session.age(now) > lifetime
        });
        let open: Vec<_> = {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            open.values().cloned().collect()
        };
        open.iter().for_each(|session| session.forget_old(now));
        metrics::gauge!("metamcpd_replay_bytes").set(self.held.load(Ordering::Relaxed) as f64);
        self.lock_tombstones().forget(self.issued_before());
    }

    /// While memory is short no session begins, and none of an earlier run goes on.
    pub fn set_memory_is_short(&self, is_short: bool) {
        self.memory_is_short.store(is_short, Ordering::Relaxed);
    }

    /// Lets go of what is kept in case that a connection breaks.
    pub fn shed(&self) {
        self.all_where(|_| true).iter().for_each(|session| session.shed());
    }

    /// Ids that were issued before are too old to be presented.
    pub fn issued_before(&self) -> OffsetDateTime {
        self.calendar.today().before(self.lifetime())
    }

    /// Requests of all sessions that have no outcome yet.
    pub fn in_flight(&self) -> usize {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.values().map(|session| session.in_flight()).sum()
    }

    fn write(&self) -> Open<'_> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_tombstones(&self) -> std::sync::MutexGuard<'_, Tombstones> {
        self.tombstones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self) -> usize {
        self.open.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "registry_tests.rs"]
pub mod tests;
