//! A call on its way, and the next try of one that never reached its upstream.
//!
//! A connection that was refused, or did not come about, proves that nothing was executed. So who calls
//! an upstream just while it is started anew waits for it, as who calls a moment later does; within
//! `calls.ready_wait` and what [`super::retries`] allows.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    CallError,
    dice::random,
    exchange::{Heard, SessionKey},
    link::{HeldCaller, Leg},
    pipe::PipeLeg,
    port::{Errand, Facts, Port, outgoing},
};
use crate::wire::{Frame, Span};

/// One call that is with an upstream, or is about to be once more.
pub struct Trip {
    part: Part,
    again: Option<Box<Again>>,
}

enum Part {
    Under(Leg),
    /// What it was under is over, and has given its place back.
    Again(LocalBoxFuture<'static, (Result<Leg, CallError>, Box<Again>)>),
    /// It was taken back, and nothing is heard any more.
    Over,
}

/// All that it takes to send a call once more.
pub struct Again {
    port: Arc<Port>,
    facts: Arc<Facts>,
    frame: Frame,
    edits: Vec<(Span, Bytes)>,
    caller: HeldCaller,
    key: SessionKey,
    cancel: CancellationToken,
    began: Instant,
    attempts: u32,
}

impl Trip {
    pub fn new(leg: Leg) -> Self {
        Self { part: Part::Under(leg), again: None }
    }

    /// Whether it leads to a remote upstream.
    pub fn is_far(&self) -> bool {
        matches!(&self.part, Part::Under(Leg::Remote(_)))
    }

    pub fn repeatable(self, again: Option<Again>) -> Self {
        Self { again: again.map(Box::new), ..self }
    }

    pub fn pipe(&self) -> Option<&PipeLeg> {
        match &self.part {
            Part::Under(Leg::Pipe(leg)) => Some(leg),
            Part::Under(Leg::Remote(_)) | Part::Again(_) | Part::Over => None,
        }
    }

    /// What the upstream says next. Safe to be dropped while it waits; not to be asked again after the
    /// call has ended.
    pub async fn next(&mut self) -> Heard {
        loop {
            match &mut self.part {
                Part::Under(leg) => {
                    let heard = leg.next().await;
                    let Heard::Failed(error) = heard else { return heard };
                    match self.again.take_if(|again| again.may_follow(&error)) {
                        Some(again) => self.part = Part::Again(Box::pin(again.set_out(error))),
                        None => return Heard::Failed(error),
                    }
                }
                Part::Again(setting_out) => match setting_out.await {
                    (Ok(leg), again) => {
                        self.part = Part::Under(leg);
                        self.again = Some(again);
                    }
                    (Err(error), _) => {
                        self.part = Part::Over;
                        return Heard::Failed(error);
                    }
                },
                Part::Over => return std::future::pending().await,
            }
        }
    }

    /// What else is said of a call that was answered by a task. Safe to be dropped while it waits.
    pub async fn aside(&mut self) -> Heard {
        match &mut self.part {
            Part::Under(leg) => leg.aside().await,
            Part::Again(_) | Part::Over => std::future::pending().await,
        }
    }

    pub fn timed_out(&self) {
        match &self.part {
            Part::Under(leg) => leg.timed_out(),
            Part::Again(_) | Part::Over => {}
        }
    }

    /// Takes the request back. One that is on no connection just now is not sent any more.
    pub fn cancel(&mut self, reason: &str) {
        match &mut self.part {
            Part::Under(leg) => leg.cancel(reason),
            Part::Again(_) | Part::Over => self.part = Part::Over,
        }
    }
}

impl Again {
    pub(super) fn new(
        port: Arc<Port>,
        errand: &Errand<'_>,
        frame: Frame,
        edits: Vec<(Span, Bytes)>,
    ) -> Self {
        Self {
            port,
            facts: errand.facts.clone(),
            frame,
            edits,
            caller: HeldCaller::of(errand.caller),
            key: errand.key.clone(),
            cancel: errand.cancel.clone(),
            began: errand.began,
            attempts: 0,
        }
    }

    fn deadline(&self) -> Instant {
        self.began + self.port.options().ready_wait
    }

    /// Whether the call may set out once more after this.
    fn may_follow(&self, error: &CallError) -> bool {
        let retries = &self.port.retries;
        matches!(error, CallError::NotSent { .. })
            && self.attempts < retries.options.attempts_max
            && Instant::now() < self.deadline()
            && retries.take("not_reached")
    }

    /// Sets out once more, after a rest. `first` is what is said if that comes to nothing.
    async fn set_out(
        mut self: Box<Self>,
        first: CallError,
    ) -> (Result<Leg, CallError>, Box<Again>) {
        loop {
            self.attempts = self.attempts.saturating_add(1);
            let until = Instant::now() + self.port.retries.rest(self.attempts, random());
            if until >= self.deadline() {
                return (Err(first), self);
            }
            sleep_until(until).await;
            match self.try_once().await {
                // Nothing has gone out by that. Its supervisor will find out how the upstream is.
                Err(CallError::NotSent { .. } | CallError::CircuitOpen { .. }) => {}
                outcome => return (outcome, self),
            }
        }
    }

    async fn try_once(&self) -> Result<Leg, CallError> {
        let errand = Errand {
            caller: &self.caller.caller(),
            key: self.key.clone(),
            began: self.began,
            cancel: &self.cancel,
            facts: &self.facts,
        };
        let write = |id| outgoing(&self.frame, id, &self.edits);
        self.port.set_out(&errand, None, Uuid::nil(), write).await
    }
}
