//! One call from its sending to its one outcome: what its client hears of it, and how long it may take.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    CallError,
    again::Trip,
    concern::Concerned,
    conduct::Conduct,
    exchange::{Heard, SessionKey},
    pipe::PipeLeg,
    port::Facts,
    question::{Patience, Question},
    spec::CallLimits,
};
use crate::{
    aside::{Aside, IN_PLACE_MAX, aside},
    wire::{Frame, Span},
};

/// What a client hears of its call, ready to be sent to it.
pub enum Step {
    /// Progress; more will follow.
    Event(Bytes),
    /// Something is asked of the client; more will follow.
    Asked(Question),
    /// Another notification; more will follow.
    Said(Frame),
    /// The response, or why there is none. Nothing follows.
    End(Result<Bytes, CallError>),
}

/// One call from its sending to its one outcome.
pub struct Conversation {
    leg: Trip,
    request: Frame,
    facts: Arc<Facts>,
    conduct: Arc<Conduct>,
    cancel: CancellationToken,
    began: Instant,
    heard: Instant,
    progress: f64,
    /// Whether the upstream waits for the client, which is no silence of its own.
    patience: Arc<Patience>,
    concerned: Option<Concerned>,
    /// The answer, which is so long that it is made ready elsewhere.
    answer: Option<Aside<Bytes>>,
}

impl Conversation {
    pub(super) fn new(
        leg: Trip,
        request: Frame,
        facts: Arc<Facts>,
        conduct: Arc<Conduct>,
        cancel: CancellationToken,
        concerned: Option<Concerned>,
    ) -> Self {
        let now = Instant::now();
        Self {
            leg,
            request,
            facts,
            conduct,
            cancel,
            began: now,
            heard: now,
            progress: f64::NEG_INFINITY,
            patience: Patience::new(),
            concerned,
            answer: None,
        }
    }

    /// The session of the upstream that a call which has to do with tasks is in.
    pub fn key(&self) -> Option<&SessionKey> {
        self.concerned.as_ref().map(Concerned::key)
    }

    /// Whether what it is a call of ends with its connection.
    pub fn is_by_pipe(&self) -> bool {
        self.leg.pipe().is_some()
    }

    /// Of the process that what it is a call of ends with; nil where that may outlive us.
    pub fn life(&self) -> Uuid {
        self.leg.pipe().map_or(Uuid::nil(), PipeLeg::life)
    }

    /// Why that process has ended, if it has.
    pub fn why_over(&self) -> Option<CallError> {
        self.leg.pipe().and_then(PipeLeg::why_over)
    }

    /// What else is said of a call that was answered by a task. It never ends. Safe to be dropped while
    /// it waits.
    pub async fn aside(&mut self) -> Step {
        loop {
            match self.leg.aside().await {
                Heard::Progress(frame) => {
                    if let Some(event) = self.restore_token(&frame) {
                        return Step::Event(event);
                    }
                }
                Heard::Asked(question) => return Step::Asked(question),
                Heard::Said(frame) => return Step::Said(frame),
                Heard::Reply(_) | Heard::Failed(_) => {}
            }
        }
    }

    /// When it has ended at the latest.
    pub fn ends_by(&self) -> Instant {
        self.began + self.facts.limits.total
    }

    /// Takes the request back.
    pub fn give_up(&mut self, why: &str) {
        self.leg.cancel(why);
    }

    /// What comes next. Not to be asked again after [`Step::End`]. Safe to be dropped while it waits.
    pub async fn next(&mut self) -> Step {
        loop {
            if let Some(answer) = &mut self.answer {
                // It has come, and no time is counted any more.
                return Step::End(Ok(answer.await));
            }
            let last = self.ends_by();
            let silent_since = self.heard.max(self.patience.since());
            let deadline = (silent_since + self.facts.limits.inactivity).min(last);
            let heard = tokio::select! {
                biased;
                () = self.cancel.cancelled() => {
                    self.leg.cancel("the client cancelled the request");
                    return Step::End(Err(CallError::Cancelled));
                }
                heard = self.leg.next() => heard,
                () = tokio::time::sleep_until(deadline) => {
                    let silent_since = self.patience.since();
                    if Instant::now() < last && silent_since > self.heard {
                        self.heard = silent_since;
                        continue;
                    }
                    return Step::End(Err(self.time_out()));
                }
            };
            let is_answer = matches!(heard, Heard::Reply(_) | Heard::Failed(_));
            if !is_answer && Instant::now() >= last {
                // A server that always has something to say does not have longer for its answer.
                return Step::End(Err(self.time_out()));
            }
            match heard {
                Heard::Progress(frame) => {
                    if self.facts.limits.reset_on_progress {
                        self.heard = Instant::now();
                    }
                    if let Some(event) = self.restore_token(&frame) {
                        return Step::Event(event);
                    }
                }
                Heard::Asked(mut question) => {
                    self.heard = Instant::now();
                    question.keep_waiting(&self.patience);
                    return Step::Asked(question);
                }
                Heard::Said(frame) => {
                    self.heard = Instant::now();
                    return Step::Said(frame);
                }
                Heard::Reply(frame) => {
                    let edits = match self.edits_of(&frame) {
                        Ok(edits) => edits,
                        Err(error) => return Step::End(Err(error)),
                    };
                    let length = frame.bytes().len();
                    let restore = move || {
                        let edits = edits.iter().map(|(span, bytes)| (*span, &**bytes));
                        frame.splice(&mut edits.collect::<Vec<_>>())
                    };
                    if length <= IN_PLACE_MAX {
                        return Step::End(Ok(restore()));
                    }
                    self.answer = Some(aside(restore));
                }
                Heard::Failed(error) => return Step::End(Err(error.of(&self.facts))),
            }
        }
    }

    fn time_out(&mut self) -> CallError {
        let server = self.facts.name.clone();
        let CallLimits { inactivity, total, .. } = self.facts.limits;
        let error = if Instant::now() >= self.began + total {
            CallError::TooLong { server, after: total }
        } else {
            CallError::Inactive { server, after: inactivity }
        };
        self.conduct.timed_out();
        self.leg.timed_out();
        self.leg.cancel("the request timed out");
        error
    }

    /// Progress has to increase (basic/utilities/progress), and only who gave a token gets it.
    fn restore_token(&mut self, frame: &Frame) -> Option<Bytes> {
        let progress = frame.progress()?;
        if progress <= self.progress {
            return None;
        }
        self.progress = progress;
        let token = self.request.get(self.request.meta_token_span()?);
        Some(frame.splice(&mut [(frame.token_span()?, token)]))
    }

    /// What of an answer is the client's: its id, and what it calls its tasks.
    fn edits_of(&self, frame: &Frame) -> Result<Vec<(Span, Bytes)>, CallError> {
        let bad = |why| CallError::BadAnswer { server: self.facts.name.clone(), why };
        if let Some(why) = frame.wrong() {
            return Err(bad(why.into()));
        }
        let (Some(span), Some(id)) = (frame.id_span(), self.request.id_span()) else {
            return Err(bad("it has no id".into()));
        };
        let mut edits = vec![(span, self.request.slice(id))];
        if let Some(concerned) = &self.concerned {
            edits.extend(concerned.translate(frame).map_err(bad)?);
        }
        Ok(edits)
    }
}
