//! What the upstream of one call asks of its client, for as long as the call is under way.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use crate::{
    conductor::relay::{self, Asking, Outcome},
    session::Session,
    upstream::question::Question,
};

/// The questions of one call. Those that are open when it is dropped are given up: the client has
/// gone away from the call, and could not be told that it need not answer.
pub struct Askings {
    session: Arc<Session>,
    /// How long the client may take for an answer.
    patience: Duration,
    /// Made by the first, as most calls ask nothing.
    open: Option<FuturesUnordered<Outcome>>,
    /// Our ids of what was asked, those that have their outcome among them.
    asked: Vec<u64>,
    abandoned: CancellationToken,
    /// Why there is no way to ask.
    deaf: Option<&'static str>,
}

impl Askings {
    pub fn new(session: Arc<Session>, patience: Duration) -> Self {
        let abandoned = CancellationToken::new();
        Self { session, patience, open: None, asked: Vec::new(), abandoned, deaf: None }
    }

    /// From now on there is no way to ask.
    pub fn refuse_all(&mut self, why: &'static str) {
        self.deaf = Some(why);
    }

    /// What is asked just now is given up, as nobody is there to answer; our ids of it.
    pub fn give_up(&mut self) -> Vec<u64> {
        let mut given_up = std::mem::take(&mut self.asked);
        given_up.retain(|id| self.session.questions.is_open(*id));
        self.open = None;
        given_up
    }

    /// What the client is to be sent, if it can be asked.
    pub fn begin(&mut self, question: Question) -> Option<Bytes> {
        if let Some(why) = self.deaf {
            question.refuse(why, "unheard");
            return None;
        }
        let asking = relay::ask(&self.session, question, self.patience, self.abandoned.clone());
        let Asking { id, request, outcome } = asking?;
        self.asked.retain(|id| self.session.questions.is_open(*id));
        self.asked.push(id);
        self.open.get_or_insert_default().push(outcome);
        Some(request)
    }

    /// Waits until the client is to be told that it need not answer something any more. Safe to be
    /// dropped while it waits.
    pub async fn next(&mut self) -> Bytes {
        loop {
            let Some(open) = &mut self.open else { return pending().await };
            match open.next().await {
                Some(Some(taken_back)) => return taken_back,
                Some(None) => {}
                None => self.open = None,
            }
        }
    }

    /// The same, where there is something to tell by now.
    pub fn ready(&mut self) -> Option<Bytes> {
        self.next().now_or_never()
    }

    /// The call has ended without an answer, and so does what is asked for it.
    pub fn abandon(&self) {
        self.abandoned.cancel();
    }

    /// The call has ended. What is still asked is seen through without it.
    pub fn outlive_the_call(&mut self) {
        if let Some(open) = self.open.take() {
            relay::see_through_later(self.session.clone(), open);
        }
    }
}
