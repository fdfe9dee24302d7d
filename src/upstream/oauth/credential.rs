//! The tokens of one upstream, shared by all its connections and sessions, so that a hundred requests that
//! find out at once that a token is too old have it renewed once.
//!
//! It lives as long as the row does, and outlives connections.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    Grant, OAuthClient, OAuthOptions, Tokens,
    answer::Answer,
    standing::{Moment, Need, Standing},
};

/// What stands of one grant.
pub struct Credential {
    pub grant: Arc<Grant>,
    epoch: Instant,
    standing: Mutex<Standing>,
    present: ArcSwap<Present>,
    /// Whether no request was accepted with the present token yet.
    is_unproven: AtomicBool,
    turn: tokio::sync::Mutex<()>,
}

/// The token that is sent with requests.
#[derive(Clone)]
pub struct Present {
    pub generation: u64,
    /// `Bearer …`; none where there is no access token yet.
    pub header: Option<HeaderValue>,
}

impl Credential {
    pub fn new(grant: Arc<Grant>) -> Arc<Self> {
        let standing = Standing::new(grant.tokens.clone());
        Arc::new(Self {
            grant,
            epoch: Instant::now(),
            present: ArcSwap::from_pointee(Present::of(&standing)),
            standing: Mutex::new(standing),
            is_unproven: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
        })
    }

    pub fn client(&self) -> &OAuthClient {
        &self.grant.client
    }

    /// The tokens as they stand now.
    pub fn tokens(&self) -> Tokens {
        self.lock().tokens().clone()
    }

    pub fn present(&self) -> Arc<Present> {
        self.present.load_full()
    }

    /// What is to be done: see [`Standing::need`].
    pub fn need(&self, refused: Option<u64>, options: &OAuthOptions) -> Need {
        self.lock().need(refused, self.now(), options)
    }

    /// Why a person has to do something, where the present token is refused.
    pub fn trouble(&self, options: &OAuthOptions) -> Option<Arc<str>> {
        let generation = self.present.load().generation;
        match self.need(Some(generation), options) {
            Need::GivenUp(why) => Some(why),
            Need::Use | Need::Refresh | Need::Rest(_) => None,
        }
    }

    /// A request was accepted with this token.
    pub fn accepted(&self, present: &Present) {
        // Every call comes by here, and nearly always there is nothing to say.
        if self.is_unproven.load(Ordering::Relaxed) {
            let mut standing = self.lock();
            standing.accepted(present.generation);
            self.is_unproven.store(standing.is_unproven(), Ordering::Relaxed);
        }
    }

    /// Takes note of what came of a refresh, and has it used from now on.
    pub fn settle(&self, answer: Answer, options: &OAuthOptions) {
        let now = self.now();
        let mut standing = self.lock();
        standing.settle(answer, now, options);
        self.is_unproven.store(standing.is_unproven(), Ordering::Relaxed);
        self.present.store(Arc::new(Present::of(&standing)));
    }

    /// Waits for the right to ask for new tokens, which one has at a time.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Another session has taken its place.
    pub fn retire(&self) {
        self.lock().retire();
    }

    /// A person asks that it be tried again.
    pub fn forgive(&self) {
        let mut standing = self.lock();
        standing.forgive();
        self.is_unproven.store(false, Ordering::Relaxed);
    }

    fn now(&self) -> Moment {
        Moment { uptime: self.epoch.elapsed(), wall: OffsetDateTime::now_utc() }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        // Whole between any two statements.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    fn of(standing: &Standing) -> Self {
        let header = standing.tokens().access_token.as_ref().and_then(|token| {
            let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
            header.set_sensitive(true);
            Some(header)
        });
        Self { generation: standing.generation(), header }
    }
}
