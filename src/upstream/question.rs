//! What an upstream asks of a client: sampling, elicitation, roots.
//!
//! Each question gets one answer. Whoever holds it answers or refuses it, and one that is dropped
//! has been given up and is refused, so that no upstream waits for a client that has gone.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::tasks::json;
use crate::wire::{
    Fault, Frame,
    capabilities::{Capability, ClientCapabilities},
    codes, message, task,
};

const ROOTS: &str = "roots/list";
const SAMPLING: &str = "sampling/createMessage";
const ELICITATION: &str = "elicitation/create";

/// How an answer is said to the upstream's session that asked. Never waits.
pub type Say = Box<dyn Fn(Bytes) + Send + Sync>;

/// One question, as it came.
pub struct Question {
    frame: Frame,
    say: Say,
    is_answered: bool,
    /// Cancelled when the upstream takes it back or has ended.
    withdrawn: Arc<CancellationToken>,
    /// Of the call that it belongs to.
    patience: Option<Arc<Patience>>,
    /// The task that it belongs to, as its upstream knows it.
    task: Option<Box<str>>,
}

/// Whether a call's upstream waits for its client, and since when it does not.
pub struct Patience {
    answered: Mutex<Instant>,
}

impl Patience {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { answered: Mutex::new(Instant::now()) })
    }

    /// When the last question was answered; now while one is not.
    pub fn since(self: &Arc<Self>) -> Instant {
        match Arc::strong_count(self) {
            0 | 1 => *self.answered.lock().unwrap_or_else(PoisonError::into_inner),
            _asked => Instant::now(),
        }
    }
}

/// What a client must have declared to be asked this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The whole feature.
    Feature(&'static str),
    /// One form of elicitation, or tools in sampling.
    Form(&'static str),
}

impl Question {
    /// Whether this is a method by which clients are asked.
    pub fn is_one(method: &str) -> bool {
        matches!(method, ROOTS | SAMPLING | ELICITATION)
    }

    pub fn new(frame: Frame, say: Say, withdrawn: Arc<CancellationToken>) -> Self {
        Self { frame, say, is_answered: false, withdrawn, patience: None, task: None }
    }

    /// The same, of this task by the name that its upstream has for it.
    pub fn of_task(mut self, theirs: &str) -> Self {
        self.task = Some(theirs.into());
        self
    }

    /// Notes that a call's upstream waits for as long as this is not answered.
    pub fn keep_waiting(&mut self, patience: &Arc<Patience>) {
        self.patience = Some(patience.clone());
    }

    /// The question under an id of ours, which serves as its progress token too. It is not to become a
    /// task of the client's, which upstreams are not told that it could (basic, "Tasks", "Task Support
    /// and Handling").
    pub fn under(&self, id: u64) -> Bytes {
        let id = id.to_string();
        let spans = [self.frame.id_span(), self.frame.meta_token_span()];
        let mut edits: Vec<_> =
            spans.into_iter().flatten().map(|span| (span, id.as_bytes())).collect();
        edits.extend(task::augmentation(&self.frame).map(|cut| (cut, &b""[..])));
        self.frame.splice(&mut edits)
    }

    /// What is missing among what a client declared, if anything is.
    pub fn lacks(&self, declared: ClientCapabilities) -> Option<Lack> {
        let has = |capability| declared.has(capability);
        match self.frame.method().as_deref() {
            Some(ROOTS) => (!has(Capability::Roots)).then_some(Lack::Feature("roots")),
            Some(SAMPLING) if !has(Capability::Sampling) => Some(Lack::Feature("sampling")),
            Some(SAMPLING) => (self.shape().has_tools && !has(Capability::SamplingTools))
                .then_some(Lack::Form("tools in sampling")),
            Some(ELICITATION) => {
                let (form, url) =
                    (has(Capability::ElicitationForm), has(Capability::ElicitationUrl));
                match self.shape().is_by_url {
                    _ if !form && !url => Some(Lack::Feature("elicitation")),
                    true => (!url).then_some(Lack::Form("elicitation by URL")),
                    false => (!form).then_some(Lack::Form("elicitation by form")),
                }
            }
            Some(_) | None => Some(Lack::Feature("this")),
        }
    }

    /// The elicitation by URL that its upstream will say is complete, if it is one.
    pub fn elicitation_id(&self) -> Option<Box<str>> {
        self.shape().elicitation_id
    }

    /// Gives the upstream the client's answer under its own id.
    pub fn answer(mut self, answer: &Frame) {
        if let (Some(span), Some(id)) = (answer.id_span(), self.frame.id()) {
            let related = self.task.as_ref().and_then(|task| task::relating(answer, task));
            let related = related.as_ref().map(|(span, bytes)| (*span, &**bytes));
            let mut edits: Vec<_> = std::iter::once((span, id)).chain(related).collect();
            let bytes = answer.splice(&mut edits);
            self.conclude(bytes, "answered");
        }
    }

    /// Gives the upstream what the client says of its progress, if it asked for that.
    pub fn progress(&self, note: &Frame) {
        let token = self.frame.meta_token_span().map(|span| self.frame.get(span));
        if let (Some(span), Some(token)) = (note.token_span(), token) {
            let theirs = self.task.as_deref().map(json);
            let related = theirs.as_ref().zip(task::related(note));
            let related = related.map(|(theirs, related)| (related.id_span, &**theirs));
            let mut edits: Vec<_> = std::iter::once((span, token)).chain(related).collect();
            (self.say)(note.splice(&mut edits));
        }
    }

    /// The client cannot be asked this.
    pub fn refuse_lack(mut self, lack: Lack) {
        let (code, what) = match lack {
            Lack::Feature(what) => (codes::METHOD_NOT_FOUND, what),
            // "not declared in client capabilities" (elicitation, "Error Handling").
            Lack::Form(what) => (codes::INVALID_PARAMS, what),
        };
        let message = format!("the client does not support {what}");
        self.fail(Fault { code, message, data: None }, "unsupported");
    }

    /// Nobody can be asked, and why.
    pub fn refuse(mut self, why: &str, outcome: &'static str) {
        self.fail(Fault { code: codes::INTERNAL_ERROR, message: why.into(), data: None }, outcome);
    }

    /// It was put to a client, who will not answer it any more. An elicitation has a form for that;
    /// the others have none.
    pub fn give_up(mut self, why: &str, outcome: &'static str) {
        self.leave(why, outcome);
    }

    /// Waits until the upstream does not want an answer any more.
    pub async fn withdrawn(&self) {
        self.withdrawn.cancelled().await;
    }

    /// Says nothing more: the upstream took it back.
    pub fn forget(mut self) {
        self.is_answered = true;
        count("withdrawn");
    }

    fn leave(&mut self, why: &str, outcome: &'static str) {
        match self.frame.method().as_deref() {
            Some(ELICITATION) => {
                let id = self.frame.id().unwrap_or_default();
                self.conclude(message::reply(id, br#"{"action":"cancel"}"#), outcome);
            }
            _ => {
                let code = codes::INTERNAL_ERROR;
                self.fail(Fault { code, message: why.into(), data: None }, outcome);
            }
        }
    }

    fn fail(&mut self, fault: Fault, outcome: &'static str) {
        self.conclude(fault.to_bytes(self.frame.id()), outcome);
    }

    fn conclude(&mut self, answer: Bytes, outcome: &'static str) {
        if !std::mem::replace(&mut self.is_answered, true) {
            count(outcome);
            if !self.withdrawn.is_cancelled() {
                (self.say)(answer);
            }
        }
    }

    fn shape(&self) -> Shape {
        #[derive(Deserialize)]
        struct Message {
            #[serde(default)]
            params: Params,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Params {
            mode: Option<String>,
            elicitation_id: Option<Box<str>>,
            tools: Option<serde::de::IgnoredAny>,
        }
        // What cannot be read is left to the client to refuse.
        let params = serde_json::from_slice::<Message>(self.frame.bytes());
        let params = params.map(|message| message.params).unwrap_or_default();
        Shape {
            is_by_url: params.mode.as_deref() == Some("url"),
            elicitation_id: params.elicitation_id,
            has_tools: params.tools.is_some(),
        }
    }
}

/// What matters of a question's parameters.
struct Shape {
    is_by_url: bool,
    elicitation_id: Option<Box<str>>,
    has_tools: bool,
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.is_answered {
            self.leave("the client has gone", "client_gone");
        }
        if let Some(patience) = &self.patience {
            *patience.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("metamcpd_questions_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
#[path = "question_tests.rs"]
mod tests;
