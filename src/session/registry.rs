//! Every session there is, and who may find it.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use super::{Session, SessionOptions, Via};
use crate::access::Principal;

/// Why no session was begun.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("as many sessions are open as are allowed (`sessions.total_max`)")]
    TooMany,
    #[error("the operating system has no random numbers to give")]
    NoRandomness(#[source] getrandom::Error),
}

/// Called with the id of every session that ends.
type OnEnd = Box<dyn Fn(&Arc<str>) + Send + Sync>;

pub struct Sessions {
    pub options: SessionOptions,
    /// Milliseconds; what the settings say until it is changed at run time.
    lifetime_ms: AtomicU64,
    open: RwLock<HashMap<Arc<str>, Arc<Session>>>,
    on_end: OnEnd,
}

impl Sessions {
    pub fn new(options: SessionOptions, on_end: OnEnd) -> Self {
        let lifetime_ms = AtomicU64::new(millis(options.lifetime));
        Self { options, lifetime_ms, open: RwLock::default(), on_end }
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
    ) -> Result<Arc<Session>, SessionError> {
        self.insert(endpoint, principal, Via::StreamableHttp, None)
    }

    /// Begins a session over SSE, and gives what has to be written to its stream.
    pub fn begin_sse(
        &self,
        endpoint: Uuid,
        principal: Principal,
    ) -> Result<(Arc<Session>, mpsc::Receiver<Bytes>), SessionError> {
        let (outbox, stream) = mpsc::channel(self.options.stream_buffer.max(1));
        let session = self.insert(endpoint, principal, Via::Sse, Some(outbox))?;
        Ok((session, stream))
    }

    fn insert(
        &self,
        endpoint: Uuid,
        principal: Principal,
        via: Via,
        outbox: Option<mpsc::Sender<Bytes>>,
    ) -> Result<Arc<Session>, SessionError> {
        let session =
            Arc::new(Session::new(new_id()?, endpoint, principal, via, &self.options, outbox));
        let evicted = {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            let of_same = open.values().filter(|one| one.principal == session.principal);
            let of_same: Vec<_> = of_same.cloned().collect();
            let evicted = match of_same.len() >= self.options.per_principal_max {
                // One that waits for an answer goes only when all of them do.
                true => {
                    of_same.into_iter().min_by_key(|one| (one.in_flight() > 0, one.last_used()))
                }
                false => None,
            };
            if evicted.is_none() && open.len() >= self.options.total_max {
                metrics::counter!("metamcpd_limit_hit_total", "limit" => "sessions.total_max")
                    .increment(1);
                return Err(SessionError::TooMany);
            }
            open.insert(session.id.clone(), session.clone());
            evicted
        };
        if let Some(evicted) = evicted {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "sessions.per_principal_max")
                .increment(1);
            self.end(&evicted);
        }
        metrics::gauge!("metamcpd_sessions").set(self.count() as f64);
        Ok(session)
    }

    /// The session with this id, for the principal that began it on this endpoint, and for nobody
    /// else.
    pub fn find(
        &self,
        id: &str,
        endpoint: Uuid,
        principal: &Principal,
        via: Via,
    ) -> Option<Arc<Session>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let session = open.get(id)?;
        let is_theirs = session.endpoint == endpoint
            && session.principal == *principal
            && session.via == via
            && !session.ended.is_cancelled();
        is_theirs.then(|| session.clone())
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

    pub fn end(&self, session: &Session) {
        session.ended.cancel();
        let removed = {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            open.remove(&session.id)
        };
        if removed.is_some() {
            (self.on_end)(&session.id);
            metrics::gauge!("metamcpd_sessions").set(self.count() as f64);
        }
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
            is_idle
                || session.ended.is_cancelled()
                || now.saturating_duration_since(session.began) > lifetime
        });
    }

    /// Requests of all sessions that have no outcome yet.
    pub fn in_flight(&self) -> usize {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.values().map(|session| session.in_flight()).sum()
    }

    pub fn count(&self) -> usize {
        self.open.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// 128 random bits in visible ASCII.
fn new_id() -> Result<Arc<str>, SessionError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(SessionError::NoRandomness)?;
    Ok(Arc::from(format!("{:032x}", u128::from_be_bytes(bytes))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use super::*;

    const HERE: Uuid = Uuid::from_u128(1);

    fn sessions() -> (Sessions, Arc<Mutex<Vec<Arc<str>>>>) {
        let options = SessionOptions {
            idle: Duration::from_secs(10),
            lifetime: Duration::from_secs(100),
            per_principal_max: 2,
            total_max: 3,
            in_flight_max: 3,
            heartbeat: Duration::from_secs(1),
            stream_buffer: 2,
            questions_max: 2,
            question_timeout: Duration::from_secs(60),
        };
        let ended: Arc<Mutex<Vec<_>>> = Arc::default();
        let witness = ended.clone();
        let on_end = Box::new(move |id: &Arc<str>| witness.lock().unwrap().push(id.clone()));
        (Sessions::new(options, on_end), ended)
    }

    fn someone(number: u128) -> Principal {
        Principal::Key { uuid: Uuid::from_u128(number), user_id: None }
    }

    #[tokio::test]
    async fn a_session_is_found_by_its_principal_on_its_endpoint_and_by_nobody_else() {
        let (sessions, _) = sessions();
        let session = sessions.begin(HERE, someone(1)).unwrap();
        let find = |endpoint, principal: &Principal, via| {
            sessions.find(&session.id, endpoint, principal, via).is_some()
        };
        assert!(find(HERE, &someone(1), Via::StreamableHttp));
        assert!(!find(HERE, &someone(2), Via::StreamableHttp));
        assert!(!find(HERE, &Principal::Anonymous, Via::StreamableHttp));
        assert!(!find(Uuid::from_u128(2), &someone(1), Via::StreamableHttp));
        assert!(!find(HERE, &someone(1), Via::Sse));
        assert!(sessions.find("", HERE, &someone(1), Via::StreamableHttp).is_none());
        sessions.end(&session);
        assert!(!find(HERE, &someone(1), Via::StreamableHttp));
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_used_session_of_a_principal_makes_room_and_the_total_is_a_limit() {
        let (sessions, ended) = sessions();
        let first = sessions.begin(HERE, someone(1)).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = sessions.begin(HERE, someone(1)).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        first.touch();
        sessions.begin(HERE, someone(1)).unwrap();
        assert_eq!(*ended.lock().unwrap(), std::slice::from_ref(&second.id));
        assert!(second.ended.is_cancelled() && !first.ended.is_cancelled());

        sessions.begin(HERE, someone(2)).unwrap();
        assert!(matches!(sessions.begin(HERE, someone(3)), Err(SessionError::TooMany)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_idle_unless_it_has_a_stream_and_at_its_age_whatever_it_has() {
        let (sessions, _) = sessions();
        let idle = sessions.begin(HERE, someone(1)).unwrap();
        let streaming = sessions.begin(HERE, someone(2)).unwrap();
        streaming.open_stream();
        tokio::time::advance(Duration::from_secs(11)).await;
        sessions.sweep(Instant::now());
        assert!(idle.ended.is_cancelled() && !streaming.ended.is_cancelled());
        tokio::time::advance(Duration::from_secs(100)).await;
        sessions.sweep(Instant::now());
        assert!(streaming.ended.is_cancelled());
        assert_eq!(sessions.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn another_lifetime_holds_for_sessions_that_are_open_already() {
        let (sessions, _) = sessions();
        let session = sessions.begin(HERE, someone(1)).unwrap();
        session.open_stream();
        sessions.set_lifetime(Duration::from_secs(500));
        tokio::time::advance(Duration::from_secs(101)).await;
        sessions.sweep(Instant::now());
        assert!(!session.ended.is_cancelled());
        sessions.set_lifetime(Duration::from_secs(101));
        tokio::time::advance(Duration::from_secs(1)).await;
        sessions.sweep(Instant::now());
        assert!(session.ended.is_cancelled());
    }

    #[tokio::test]
    async fn sessions_are_listed_oldest_first_by_what_does_not_tell_their_ids() {
        let (sessions, _) = sessions();
        let begun: Vec<_> =
            (1..=3).map(|number| sessions.begin(HERE, someone(number)).unwrap()).collect();
        let listed = |sessions: &Sessions| -> Vec<Uuid> {
            sessions.list().iter().map(|session| session.uuid).collect()
        };
        assert_eq!(listed(&sessions), [begun[0].uuid, begun[1].uuid, begun[2].uuid]);
        for session in &begun {
            let uuid = session.uuid.simple().to_string();
            assert!(!uuid.contains(&*session.id) && !session.id.contains(&uuid));
        }
        sessions.end(&begun[1]);
        assert_eq!(listed(&sessions), [begun[0].uuid, begun[2].uuid]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_not_idle_while_a_call_is_under_way_nor_just_after() {
        let (sessions, _) = sessions();
        let session = sessions.begin(HERE, someone(1)).unwrap();
        let call = session.begin(b"1").unwrap();
        tokio::time::advance(Duration::from_secs(11)).await;
        sessions.sweep(Instant::now());
        assert!(!session.ended.is_cancelled(), "a call is under way");
        drop(call);
        tokio::time::advance(Duration::from_secs(5)).await;
        sessions.sweep(Instant::now());
        assert!(!session.ended.is_cancelled(), "the call has only just ended");
        tokio::time::advance(Duration::from_secs(6)).await;
        sessions.sweep(Instant::now());
        assert!(session.ended.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_with_a_call_under_way_makes_room_last() {
        let (sessions, _) = sessions();
        let busy = sessions.begin(HERE, someone(1)).unwrap();
        let _call = busy.begin(b"1").unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let quiet = sessions.begin(HERE, someone(1)).unwrap();
        sessions.begin(HERE, someone(1)).unwrap();
        assert!(quiet.ended.is_cancelled() && !busy.ended.is_cancelled());
    }

    #[tokio::test]
    async fn a_request_is_cancelled_by_its_id_even_if_it_shares_it_and_is_forgotten_when_done() {
        let (sessions, _) = sessions();
        let session = sessions.begin(HERE, someone(1)).unwrap();
        let begin = |id: &[u8]| session.begin(id).unwrap();
        let (first, second) = (begin(b"1"), begin(b"1"));
        let other = begin(b"\"1\"");
        assert!(session.begin(b"4").is_none(), "it has as many as it may");
        drop(first);
        assert!(session.has_in_flight(b"1"));
        session.cancel(b"1");
        assert!(second.cancel.is_cancelled() && !other.cancel.is_cancelled());
        drop(second);
        assert!(!session.has_in_flight(b"1"));
        sessions.end(&session);
        assert!(other.cancel.is_cancelled());
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_loses_its_session_and_not_a_message() {
        let (sessions, _) = sessions();
        let (session, mut stream) = sessions.begin_sse(HERE, someone(1)).unwrap();
        for _ in 0..3 {
            session.push(Bytes::from_static(b"x"));
        }
        assert!(session.ended.is_cancelled());
        assert!(stream.recv().await.is_some() && stream.recv().await.is_some());
    }
}
