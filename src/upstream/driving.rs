//! Calls a tool that can only be called as a task, for a client that calls it plainly: makes the task,
//! asks how it is at a pace, and answers with what came of it.
//!
//! The client hears what it would hear of any call. It does not know of the task.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    CallError,
    board::Board,
    concern::{Concern, Known},
    exchange::SessionKey,
    link::{Caller, HeldCaller},
    port::{Conversation, Manner, Step},
    question::Patience,
    spec::CallLimits,
};
use crate::wire::{
    Frame, Span, message,
    task::{self, Described, Status},
};

/// The pace where a server says nothing of it.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// How long an upstream may take to hear that a task is not wanted any more.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// A call, whichever way it takes.
#[expect(clippy::large_enum_variant, reason = "nearly all are plain, and whoever has one boxes it")]
pub enum Course {
    Plain(Conversation),
    Driven(Box<Driving>),
}

impl Course {
    /// What comes next. Not to be asked again after [`Step::End`]. Safe to be dropped while it waits.
    pub async fn next(&mut self) -> Step {
        match self {
            Self::Plain(conversation) => conversation.next().await,
            Self::Driven(driving) => driving.next().await,
        }
    }

    /// Takes it back.
    pub fn give_up(&mut self, why: &str) {
        match self {
            Self::Plain(conversation) => conversation.give_up(why),
            Self::Driven(driving) => match driving.task {
                Some(_) => driving.give_up(),
                None => driving.creation.give_up(why),
            },
        }
    }

    /// When it has ended at the latest.
    pub fn ends_by(&self) -> Instant {
        match self {
            Self::Plain(conversation) => conversation.ends_by(),
            Self::Driven(driving) => driving.began + driving.limits.total,
        }
    }
}

pub struct Driving {
    errands: Errands,
    /// The client's own id of its request.
    id: Bytes,
    cancel: CancellationToken,
    limits: CallLimits,
    began: Instant,
    heard: Instant,
    /// Whether the upstream waits for the client.
    patience: Arc<Patience>,
    /// The request that has become the task, which goes on to be told of it.
    creation: Conversation,
    task: Option<Underway>,
}

/// The task, once there is one.
struct Underway {
    every: Duration,
    poll_at: Instant,
    poll: Option<Errand>,
    /// The request for its result, which waits for it.
    result: Option<Errand>,
    /// Why the last thing that was asked of it has failed.
    failed: Option<CallError>,
}

/// What it takes to ask an upstream something of the task.
#[derive(Clone)]
struct Errands {
    board: Arc<Board>,
    caller: HeldCaller,
    key: Option<SessionKey>,
    /// The process that it is in, where it ends with that.
    life: Uuid,
    theirs: Box<str>,
}

impl Driving {
    /// Makes the task. `frame` is the client's plain call, and `edits` what its upstream knows by
    /// other names.
    pub async fn begin(
        board: Arc<Board>,
        frame: Frame,
        mut edits: Vec<(Span, Bytes)>,
        caller: &Caller<'_>,
        cancel: CancellationToken,
    ) -> Result<Self, CallError> {
        let limits = board.port.limits();
        let id = frame.id().map(Bytes::copy_from_slice).unwrap_or_default();
        // Longer than the call may take nobody asks for it.
        if task::augmentation(&frame).is_none() {
            edits.extend(task::augmenting(&frame, limits.total));
        }
        let manner = Manner { concern: Some(Concern::Drives), ..Manner::default() };
        let creation = board.port.call_as(frame, edits, caller, cancel.clone(), manner).await?;
        metrics::counter!("metamcpd_tasks_total", "how" => "driven").increment(1);
        let (now, caller) = (Instant::now(), HeldCaller::of(caller));
        let (key, life) = (creation.key().cloned(), creation.life());
        let errands = Errands { board, caller, key, life, theirs: "".into() };
        let patience = Patience::new();
        let (began, heard, task) = (now, now, None);
        Ok(Self { errands, id, cancel, limits, began, heard, patience, creation, task })
    }

    /// What comes next. Not to be asked again after [`Step::End`]. Safe to be dropped while it waits.
    pub async fn next(&mut self) -> Step {
        loop {
            let Some(task) = &mut self.task else {
                match self.creation.next().await {
                    Step::End(Ok(answer)) => match created(&answer) {
                        Some(described) => self.take_up(&described),
                        // It was carried out at once, or refused.
                        None => return Step::End(Ok(answer)),
                    },
                    // It may overtake the answer, and is then about a task that is not known yet.
                    Step::Said(note) if note.method().as_deref() == Some(task::STATUS) => {}
                    other => return other,
                }
                continue;
            };
            let last = self.began + self.limits.total;
            let silent_since = self.heard.max(self.patience.since());
            let deadline = (silent_since + self.limits.inactivity).min(last);
            let is_polling = task.poll.is_some();
            let step = tokio::select! {
                biased;
                () = self.cancel.cancelled() => {
                    self.give_up();
                    return Step::End(Err(CallError::Cancelled));
                }
                step = self.creation.aside() => self.hear(step),
                step = next_of(&mut task.result) => self.hear_of_result(step),
                step = next_of(&mut task.poll) => self.hear_of_poll(step),
                () = tokio::time::sleep_until(task.poll_at), if !is_polling => {
                    task.poll = Some(self.errands.ask("tasks/get", None));
                    None
                }
                () = tokio::time::sleep_until(deadline) => {
                    let silent_since = self.patience.since();
                    if Instant::now() < last && silent_since > self.heard {
                        self.heard = silent_since;
                        continue;
                    }
                    return Step::End(Err(self.time_out()));
                }
            };
            match step {
                Some(step @ Step::End(_)) => return step,
                // A server that always has something to say does not have longer for its result.
                Some(_) if Instant::now() >= last => return Step::End(Err(self.time_out())),
                Some(step) => return step,
                None => {}
            }
        }
    }

    fn take_up(&mut self, described: &Described) {
        self.errands.theirs = described.id.clone();
        self.heard = Instant::now();
        let every = self.pace(described);
        let poll_at = self.heard + every;
        self.task = Some(Underway { every, poll_at, poll: None, result: None, failed: None });
        self.look_at(described);
    }

    /// What the server asks for, within what we allow, and often enough to be a sign of life.
    fn pace(&self, described: &Described) -> Duration {
        let options = &self.errands.board.port.options().tasks;
        let wanted = described.poll_interval.unwrap_or(POLL_EVERY);
        wanted.min(options.poll_max).min(self.limits.inactivity / 2).max(options.poll_min)
    }

    /// A server that needs something from the client says it to who waits for the result.
    fn look_at(&mut self, described: &Described) {
        let wants_us = |status: Status| status.is_over() || status == Status::InputRequired;
        let Some(task) = &mut self.task else { return };
        if described.status.is_some_and(wants_us) && task.result.is_none() {
            task.result = Some(self.errands.ask("tasks/result", Some(&self.id)));
        }
    }

    /// What is said beside any answer.
    fn hear(&mut self, step: Step) -> Option<Step> {
        match step {
            Step::Event(event) => {
                if self.limits.reset_on_progress {
                    self.heard = Instant::now();
                }
                Some(Step::Event(event))
            }
            Step::Asked(mut question) => {
                self.heard = Instant::now();
                question.keep_waiting(&self.patience);
                Some(Step::Asked(question))
            }
            Step::Said(note) if note.method().as_deref() == Some(task::STATUS) => {
                self.heard = Instant::now();
                let described = task::described(&note)?;
                if described.id == self.errands.theirs {
                    self.look_at(&described);
                }
                None
            }
            Step::Said(note) => {
                self.heard = Instant::now();
                Some(Step::Said(note))
            }
            Step::End(_) => None,
        }
    }

    fn hear_of_poll(&mut self, step: Step) -> Option<Step> {
        let Step::End(outcome) = step else { return self.hear(step) };
        let task = self.task.as_mut()?;
        task.poll = None;
        task.poll_at = Instant::now() + task.every;
        let answer = match outcome {
            Ok(answer) => Frame::parse(answer, usize::MAX).ok()?,
            Err(error) => return self.failed(error),
        };
        let Some(described) = task::described(&answer) else {
            // It does not know the task any more. Whoever waits for the result hears the rest.
            let refusal = answer.splice(&mut [(answer.id_span()?, &self.id)]);
            return task.result.is_none().then_some(Step::End(Ok(refusal)));
        };
        self.heard = Instant::now();
        task.failed = None;
        let every = self.pace(&described);
        if let Some(task) = &mut self.task {
            task.every = every;
            task.poll_at = self.heard + every;
        }
        self.look_at(&described);
        None
    }

    fn hear_of_result(&mut self, step: Step) -> Option<Step> {
        match step {
            Step::End(Err(error)) => {
                self.task.as_mut()?.result = None;
                self.failed(error)
            }
            Step::End(Ok(answer)) => {
                // Or its place would be held for as long as a call may take.
                if let Some(mut poll) = self.task.as_mut()?.poll.take() {
                    poll.give_up("the task is over");
                }
                Some(Step::End(Ok(answer)))
            }
            other => self.hear(other),
        }
    }

    /// Something that was asked of the task has failed. A remote server may still have it, and is asked
    /// again at the pace, for as long as a call may be silent.
    fn failed(&mut self, error: CallError) -> Option<Step> {
        if self.creation.is_by_pipe() {
            return Some(Step::End(Err(self.creation.why_over().unwrap_or(error))));
        }
        self.task.as_mut()?.failed = Some(error);
        None
    }

    fn time_out(&mut self) -> CallError {
        let server = Arc::from(&*self.errands.board.spec().name);
        let CallLimits { inactivity, total, .. } = self.limits;
        let failed = self.task.as_mut().and_then(|task| task.failed.take());
        let error = match failed {
            Some(failed) => failed,
            None if Instant::now() >= self.began + total => {
                CallError::TooLong { server, after: total }
            }
            None => CallError::Inactive { server, after: inactivity },
        };
        self.give_up();
        error
    }

    /// A task is not wanted any more. It is not enough to take back what waits for it (basic, "Tasks",
    /// "Task Cancellation").
    fn give_up(&mut self) {
        let Some(task) = &mut self.task else { return };
        let asked = task.result.iter_mut().chain(&mut task.poll);
        asked.for_each(|errand| errand.give_up("its client does not wait for it any more"));
        let mut cancelling = self.errands.ask("tasks/cancel", None);
        actix::spawn(async move {
            let told = async { while !matches!(cancelling.next().await, Step::End(_)) {} };
            if tokio::time::timeout(CANCEL_PATIENCE, told).await.is_err() {
                cancelling.give_up("the gateway waited long enough");
            }
        });
    }
}

fn created(answer: &Bytes) -> Option<Described> {
    task::created(&Frame::parse(answer.clone(), usize::MAX).ok()?)
}

impl Errands {
    /// Asks the upstream something of the task, as a call of the client's; the result under the
    /// client's own id.
    fn ask(&self, method: &'static str, id: Option<&Bytes>) -> Errand {
        let Self { board, caller, key, life, theirs } = self.clone();
        let params = serde_json::json!({ "taskId": &*theirs }).to_string();
        let request = match id {
            Some(id) => message::request_under(id, method, params.as_bytes()),
            None => message::request(0, method, params.as_bytes()),
        };
        let known = Known { shown: None, theirs };
        let (concern, patience) = match id {
            // How long that may take is looked after here.
            Some(_) => (Concern::Awaits(known), Some(board.port.limits().total)),
            None => (Concern::Asks(known), None),
        };
        let manner = Manner { concern: Some(concern), key, life, patience };
        let beginning = async move {
            let frame = Frame::parse(request, usize::MAX).map_err(|why| CallError::BadAnswer {
                server: Arc::from(&*board.spec().name),
                why: format!("of its task id no request can be made: {why}"),
            })?;
            let cancel = CancellationToken::new();
            board.port.call_as(frame, Vec::new(), &caller.caller(), cancel, manner).await
        };
        Errand::Beginning(Box::pin(beginning))
    }
}

/// Something that is asked of the task.
enum Errand {
    Beginning(LocalBoxFuture<'static, Result<Conversation, CallError>>),
    Begun(Box<Conversation>),
}

impl Errand {
    /// Not to be asked again after [`Step::End`]. Safe to be dropped while it waits.
    async fn next(&mut self) -> Step {
        loop {
            match self {
                Self::Begun(conversation) => return conversation.next().await,
                Self::Beginning(beginning) => match beginning.await {
                    Ok(conversation) => *self = Self::Begun(Box::new(conversation)),
                    Err(error) => return Step::End(Err(error)),
                },
            }
        }
    }

    fn give_up(&mut self, why: &str) {
        if let Self::Begun(conversation) = self {
            conversation.give_up(why);
        }
    }
}

async fn next_of(errand: &mut Option<Errand>) -> Step {
    match errand {
        Some(errand) => errand.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "driving_tests.rs"]
mod tests;
