//! What one call has to do with tasks, from its sending to its end, and what is changed in its answer.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    attribution::Client,
    exchange::SessionKey,
    link::Caller,
    port::Port,
    tasks::{Owner, Seal, Tasks, json},
};
use crate::wire::{Frame, Kind, Span, codes, task};

/// What a request has to do with tasks.
#[derive(Clone)]
pub enum Concern {
    /// It is to become a task of this owner.
    Creates { owner: Owner, seal: Seal },
    /// It is to become a task that its client does not know of.
    Drives,
    /// It asks how a task is, or has it cancelled.
    Asks(Known),
    /// It waits for the outcome of a task.
    Awaits(Known),
}

/// A task by its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What its owner knows it by; nothing for one that its client does not know of.
    pub shown: Option<Arc<str>>,
    /// What its upstream knows it by.
    pub theirs: Box<str>,
}

impl Port {
    /// The session of the upstream in which to ask after a task, at the word of its owner. `life` is that
    /// of the process that it ends with. `None` where there is no such task: the process has ended, or
    /// what the upstream called so is another's by now.
    pub fn session_of_task(
        &self,
        known: &Known,
        life: Uuid,
        owner: &Owner,
        caller: &Caller<'_>,
    ) -> Option<SessionKey> {
        let made_in = known.shown.as_ref().and_then(|shown| self.tasks.session_of(shown));
        let is_there = |key: &SessionKey| {
            let link = self.current_link(key).filter(|link| link.life() == life);
            link.is_some_and(|link| link.has_session(key))
        };
        let key = match made_in.filter(is_there) {
            Some(made_in) => made_in,
            None => {
                let own = caller.key(self.facts.load().isolation);
                // Without a connection a remote upstream is waited for, and a process has ended.
                let lives = self.current_link(&own).map_or(Uuid::nil(), |link| link.life());
                (life == lives).then_some(own)?
            }
        };
        self.tasks.adopt(&key, known, owner, caller.session).then_some(key)
    }
}

/// A call that has to do with tasks, until it has ended.
pub struct Concerned {
    tasks: Arc<Tasks>,
    key: SessionKey,
    call: u64,
    number: u64,
    concern: Concern,
}

impl Concerned {
    /// To be made before the call is sent under this id of ours, in the session of `key`. `token` is
    /// the client's own for progress.
    pub fn begin(
        tasks: &Arc<Tasks>,
        key: &SessionKey,
        call: u64,
        client: &Client,
        concern: Concern,
        token: Option<Bytes>,
    ) -> Self {
        // What is driven goes on hearing of its progress as the call that it is.
        let token = token.filter(|_| matches!(concern, Concern::Creates { .. }));
        let number = tasks.order(key, call, client, concern.clone(), token);
        Self { tasks: tasks.clone(), key: key.clone(), call, number, concern }
    }

    /// The session of the upstream that it is sent in.
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    /// What to change in the answer, beside its id. Or why it cannot be understood.
    pub fn translate(&self, answer: &Frame) -> Result<Vec<(Span, Bytes)>, String> {
        let Self { tasks, key, .. } = self;
        let mut edits = Vec::new();
        match &self.concern {
            Concern::Drives => {}
            Concern::Creates { .. } => {
                let Some(described) = task::created(answer) else { return Ok(edits) };
                let place = tasks.place(key, &described.id);
                let shown = place.and_then(|place| place.shown).ok_or("its task id is too long")?;
                edits.push((described.id_span, json(&shown)));
            }
            Concern::Asks(known) | Concern::Awaits(known) if answer.kind() == Kind::Error => {
                if refusal(answer) == Some(i64::from(codes::INVALID_PARAMS)) {
                    tasks.is_unknown(key, &known.theirs);
                }
            }
            Concern::Asks(known) => {
                let Some(described) = task::described(answer) else { return Ok(edits) };
                if described.id != known.theirs {
                    return Err("it is about another task".into());
                }
                tasks.saw(key, &described);
                edits.extend(known.shown.as_ref().map(|shown| (described.id_span, json(shown))));
            }
            Concern::Awaits(known) => {
                tasks.ended(key, &known.theirs);
                if let Some(related) = task::related(answer) {
                    edits.push(match &known.shown {
                        Some(shown) => (related.id_span, json(shown)),
                        None => (related.cut, Bytes::new()),
                    });
                }
            }
        }
        Ok(edits)
    }
}

fn refusal(answer: &Frame) -> Option<i64> {
    #[derive(Deserialize)]
    struct Error {
        code: i64,
    }
    serde_json::from_slice::<Error>(&answer.error()?).ok().map(|error| error.code)
}

impl Drop for Concerned {
    fn drop(&mut self) {
        self.tasks.end(&self.key, self.call, self.number, &self.concern);
    }
}
