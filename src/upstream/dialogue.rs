//! What passes between one session of an upstream and its clients beside calls and their answers.
//!
//! It decides for whom everything is that the upstream says of itself. It knows nothing of what
//! carries the words: a pipe or a remote session hands them in, and does what it is told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    attribution::{Attribution, Cause, Client},
    elicitations::Elicitations,
    exchange::{Heard, SessionKey, own_id},
    inbox::{Inbox, Listening},
    question::{Question, Say},
    subscriptions::Subscriptions,
    task_talk::{About, Read, TaskTalk},
    tasks::Owner,
};
use crate::wire::{Fault, Frame, Kind, Topic, codes, message, task};

/// The limits of a dialogue.
#[derive(Clone, Copy, Debug)]
pub struct DialogueOptions {
    /// How long an upstream may be at work on a call that was taken back.
    pub doubt: Duration,
    /// Messages that wait for one call.
    pub events_max: usize,
    /// Elicitations by URL whose completion may still be announced.
    pub elicitations_max: usize,
}

/// Whose session of the upstream it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The gateway's own, on behalf of nobody.
    Gateway,
    /// Everyone's. It is never asked for roots, which are one client's (design decision 8).
    Everyone,
    /// That of one user, who may have several clients.
    User,
    /// That of one client.
    Client(Client),
}

pub struct Dialogue {
    scope: Scope,
    options: DialogueOptions,
    /// Who wants to hear of what, as far as it is said in this session.
    subscriptions: Option<(Arc<Subscriptions>, SessionKey)>,
    tasks: Option<TaskTalk>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    attribution: Attribution,
    inboxes: HashMap<u64, Arc<Inbox>>,
    /// Questions that have no answer yet, by the upstream's ids.
    asked: HashMap<Bytes, Weak<CancellationToken>>,
    elicitations: Elicitations,
}

/// What is said to a client outside of any call.
pub enum Unasked {
    Question(Question),
    Note(Frame),
    /// A resource that it has subscribed to has changed.
    Updated(Frame),
}

/// What is still to be done about something that an upstream said of itself.
pub enum Aside {
    /// Nothing: it has reached a call, or belongs to nobody.
    Settled,
    /// The upstream is to be told this.
    Say(Bytes),
    ToClient(Client, Unasked),
    /// A resource has changed that these want to hear of.
    Updated(Vec<Client>, Frame),
    /// What has become of a task of this owner, which this client made.
    TaskStatus(Owner, Client, Frame),
    /// It belongs to the upstream as a whole.
    ToAll(Frame),
    /// What it offers has changed.
    ListChanged(Topic),
}

/// What becomes of something that came in a call's own stream.
pub enum InCall {
    /// The call is to hear it.
    Heard(Heard),
    Aside(Aside),
}

impl Dialogue {
    pub fn new(scope: Scope, options: DialogueOptions) -> Self {
        Self { scope, options, subscriptions: None, tasks: None, inner: Mutex::default() }
    }

    /// The same, of an upstream with these subscriptions and in the session of `key`.
    pub fn with_subscriptions(self, all: Arc<Subscriptions>, key: SessionKey) -> Self {
        Self { subscriptions: Some((all, key)), ..self }
    }

    /// The same, of an upstream with these tasks.
    pub fn with_tasks(self, tasks: TaskTalk) -> Self {
        Self { tasks: Some(tasks), ..self }
    }

    /// Of the process that its tasks end with; nil where they may outlive us.
    pub fn life(&self) -> Uuid {
        self.tasks.as_ref().map_or(Uuid::nil(), |tasks| tasks.life)
    }

    /// A call begins. `client` is nobody for the gateway's own.
    pub fn begin(&self, call: u64, client: Option<Client>) -> Listening {
        let (inbox, listening) = Inbox::new(self.options.events_max.max(1));
        let mut inner = self.lock();
        inner.inboxes.insert(call, inbox);
        if let Some(client) = client {
            inner.attribution.begin(call, client);
        }
        listening
    }

    /// It was answered by `reply`.
    pub fn end(&self, call: u64, reply: &Frame) {
        if self.tasks.as_ref().is_some_and(|tasks| tasks.answered(call, reply)) {
            // Its end is that of the task, and [`Dialogue::end_badly`].
            return;
        }
        let mut inner = self.lock();
        inner.inboxes.remove(&call);
        if let Some(client) = inner.attribution.client_of(call) {
            inner.elicitations.asked_for_by(reply, &client, self.options.elicitations_max);
        }
        inner.attribution.end(call);
    }

    /// It was answered by what cannot be taken, or by what has ended since.
    pub fn end_badly(&self, call: u64) {
        let mut inner = self.lock();
        inner.inboxes.remove(&call);
        inner.attribution.end(call);
    }

    /// It was given up without an answer, and the upstream may still be at work on it.
    pub fn give_up(&self, call: u64) {
        let mut inner = self.lock();
        inner.inboxes.remove(&call);
        inner.attribution.give_up(call, Instant::now() + self.options.doubt);
    }

    /// Whether any client's call is with the upstream.
    pub fn has_calls(&self) -> bool {
        self.lock().attribution.has_calls()
    }

    /// Progress goes to the call that the token names, or to the client of the task that it has become.
    pub fn progress(&self, frame: Frame) -> Aside {
        let Read { frame, .. } = self.read(frame);
        let dropped = || {
            metrics::counter!("metamcpd_progress_dropped_total").increment(1);
            Aside::Settled
        };
        let Some(call) = own_id(frame.token_span().map(|span| frame.get(span))) else {
            return dropped();
        };
        let inbox = self.lock().inboxes.get(&call).cloned();
        match (inbox, &self.tasks) {
            (Some(inbox), _) => match inbox.put(Heard::Progress(frame)) {
                true => Aside::Settled,
                false => dropped(),
            },
            (None, Some(tasks)) => match tasks.read_progress(call, frame) {
                Some((place, frame)) => self.say_to(place.client, place.call, frame),
                None => dropped(),
            },
            (None, None) => dropped(),
        }
    }

    /// Takes a request or a notification that came outside of any call.
    pub fn hear(&self, frame: Frame, say: impl FnOnce() -> Say) -> Aside {
        match frame.kind() {
            Kind::Request | Kind::Notification => self.hear_read(self.read(frame), say),
            Kind::Result | Kind::Error => Aside::Settled,
        }
    }

    fn hear_read(&self, read: Read, say: impl FnOnce() -> Say) -> Aside {
        match read.frame.kind() {
            Kind::Request => self.hear_request(read, say),
            Kind::Notification => self.hear_notification(read),
            Kind::Result | Kind::Error => Aside::Settled,
        }
    }

    /// With no name of a task in it that only the upstream knows.
    fn read(&self, frame: Frame) -> Read {
        match &self.tasks {
            Some(tasks) => tasks.read(frame),
            None => Read { frame, about: About::Nothing },
        }
    }

    /// The same of what came in the stream of this call, and so belongs to it for certain, unless it
    /// says that it belongs to somebody else's task.
    pub fn hear_in_call(
        &self,
        client: Option<&Client>,
        frame: Frame,
        say: impl FnOnce() -> Say,
    ) -> InCall {
        let Some(client) = client else { return InCall::Aside(self.hear_in_our_own(frame, say)) };
        let read = self.read(frame);
        let is_ours = match &read.about {
            About::Known { place, .. } => place.client == *client,
            About::Nothing | About::Unknown => true,
        };
        let Read { frame, about } = match is_ours {
            true => read,
            false => return InCall::Aside(self.hear_read(read, say)),
        };
        match (frame.kind(), frame.method().as_deref(), &about) {
            (Kind::Request, Some(method), _)
                if Question::is_one(method) && self.may_ask(method) =>
            {
                match self.question(frame, &about, say) {
                    Ok(question) => {
                        self.note_asked(&question, client);
                        InCall::Heard(Heard::Asked(question))
                    }
                    Err(refusal) => InCall::Aside(Aside::Say(refusal)),
                }
            }
            (Kind::Notification, Some(task::STATUS), About::Known { .. }) => {
                InCall::Heard(Heard::Said(frame))
            }
            (Kind::Notification, Some(method), _) if !is_for_the_gateway(method) => {
                InCall::Heard(Heard::Said(frame))
            }
            _ => InCall::Aside(self.hear_read(Read { frame, about }, say)),
        }
    }

    /// What comes in the stream of a request of the gateway's own is about no client for certain,
    /// whoever calls meanwhile.
    fn hear_in_our_own(&self, frame: Frame, say: impl FnOnce() -> Say) -> Aside {
        let method = frame.method().unwrap_or_default().into_owned();
        match frame.kind() {
            Kind::Request if Question::is_one(&method) => {
                let why = "the gateway asked for itself, so there is no client to ask";
                let fault = Fault { code: codes::INTERNAL_ERROR, message: why.into(), data: None };
                Aside::Say(fault.to_bytes(frame.id()))
            }
            Kind::Notification if !is_for_the_gateway(&method) => dropped(),
            Kind::Request | Kind::Notification | Kind::Result | Kind::Error => {
                self.hear(frame, say)
            }
        }
    }

    /// The upstream's session has ended: nothing that was asked wants an answer any more.
    pub fn close(&self) {
        let asked = std::mem::take(&mut self.lock().asked);
        asked.into_values().filter_map(|asked| asked.upgrade()).for_each(|asked| asked.cancel());
    }

    fn hear_request(&self, Read { frame, about }: Read, say: impl FnOnce() -> Say) -> Aside {
        let id = frame.id().unwrap_or_default();
        let method = frame.method().unwrap_or_default();
        if method == "ping" {
            return Aside::Say(message::reply(id, b"{}"));
        }
        if !Question::is_one(&method) || !self.may_ask(&method) {
            return Aside::Say(Fault::method_not_found(&method).to_bytes(Some(id)));
        }
        drop(method);
        let cause = match (&about, &self.scope) {
            (About::Known { place, .. }, _) => Ok((place.client.clone(), place.call)),
            (About::Unknown, Scope::Client(client)) => Ok((client.clone(), None)),
            (About::Unknown, _) => Err("it belongs to a task that is not known here"),
            (About::Nothing, _) => self.cause(),
        };
        let question = match self.question(frame, &about, say) {
            Ok(question) => question,
            Err(refusal) => return Aside::Say(refusal),
        };
        let (client, call) = match cause {
            Ok(found) => found,
            Err(uncertain) => {
                question.refuse(uncertain, "uncertain");
                return Aside::Settled;
            }
        };
        self.note_asked(&question, &client);
        let inbox = call.and_then(|call| self.lock().inboxes.get(&call).cloned());
        match inbox {
            Some(inbox) => {
                // One that finds no room is refused by being dropped.
                inbox.put(Heard::Asked(question));
                Aside::Settled
            }
            None => Aside::ToClient(client, Unasked::Question(question)),
        }
    }

    fn hear_notification(&self, Read { frame, about }: Read) -> Aside {
        let method = frame.method().unwrap_or_default().into_owned();
        match &*method {
            "notifications/cancelled" => {
                self.withdraw(frame.request_id());
                return Aside::Settled;
            }
            "notifications/elicitation/complete" => {
                let asked = self.lock().elicitations.complete(&frame);
                return match asked {
                    Some(client) => Aside::ToClient(client, Unasked::Note(frame)),
                    None => dropped(),
                };
            }
            "notifications/resources/updated" => {
                let clients = self.subscribers(&frame);
                return match clients.is_empty() {
                    true => dropped(),
                    false => Aside::Updated(clients, frame),
                };
            }
            task::STATUS => {
                let About::Known { place, .. } = about else { return dropped() };
                return match place.owner {
                    Some(owner) => Aside::TaskStatus(owner, place.client, frame),
                    None => self.say_to(place.client, place.call, frame),
                };
            }
            other if is_for_the_gateway(other) => {
                return Topic::changed_by(other).map_or(Aside::Settled, Aside::ListChanged);
            }
            _ => {}
        }
        match (about, &self.scope) {
            (About::Known { place, .. }, _) => {
                return self.say_to(place.client, place.call, frame);
            }
            (About::Nothing, _) | (About::Unknown, Scope::Client(_)) => {}
            (About::Unknown, _) => return dropped(),
        }
        match (self.cause_now(), &self.scope) {
            (Cause::One { client, call }, _) => self.say_to(client, call, frame),
            (Cause::Nobody, Scope::Client(client)) => {
                Aside::ToClient(client.clone(), Unasked::Note(frame))
            }
            // Only what nobody has asked for says nothing about anybody.
            (Cause::Nobody, Scope::Everyone | Scope::Gateway)
                if method == "notifications/message" =>
            {
                Aside::ToAll(frame)
            }
            (Cause::Nobody | Cause::Several, _) => dropped(),
        }
    }

    /// A notification is for this client, and by this call where there is one.
    fn say_to(&self, client: Client, call: Option<u64>, frame: Frame) -> Aside {
        let inbox = call.and_then(|call| self.lock().inboxes.get(&call).cloned());
        match inbox {
            Some(inbox) => match inbox.put(Heard::Said(frame)) {
                true => Aside::Settled,
                false => dropped(),
            },
            None => Aside::ToClient(client, Unasked::Note(frame)),
        }
    }

    /// Who may be meant. A task that is under way is somebody's as a call is: a server that says nothing
    /// of tasks may still be at work on it.
    fn cause_now(&self) -> Cause {
        let cause = self.lock().attribution.cause(Instant::now());
        let at_work = self.tasks.as_ref().map(TaskTalk::at_work_for).unwrap_or_default();
        match (cause, &*at_work) {
            (cause, []) => cause,
            (Cause::Nobody, [client]) => Cause::One { client: client.clone(), call: None },
            (Cause::One { client, call }, [other]) if client == *other => {
                Cause::One { client, call }
            }
            _ => Cause::Several,
        }
    }

    /// Who wants to hear of the resource that has changed.
    fn subscribers(&self, updated: &Frame) -> Vec<Client> {
        let Some((all, key)) = &self.subscriptions else { return Vec::new() };
        let uri = updated.uri_span().and_then(|span| updated.text(span));
        uri.map(|uri| all.subscribers(key, &uri)).unwrap_or_default()
    }

    /// Who is to be asked, and in which call, or why that is not certain.
    fn cause(&self) -> Result<(Client, Option<u64>), &'static str> {
        match (self.cause_now(), &self.scope) {
            (Cause::One { client, call }, _) => Ok((client, call)),
            (Cause::Nobody, Scope::Client(client)) => Ok((client.clone(), None)),
            (Cause::Nobody, _) => Err("no client's call is under way, so there is nobody to ask"),
            (Cause::Several, _) => Err(
                "calls of several clients are under way, and it is not certain which of them this \
                 is about, so none is asked",
            ),
        }
    }

    fn may_ask(&self, method: &str) -> bool {
        self.scope != Scope::Everyone || method != "roots/list"
    }

    /// Notes that it waits for an answer, so that its upstream can take it back. Or why it does not.
    fn question(
        &self,
        frame: Frame,
        about: &About,
        say: impl FnOnce() -> Say,
    ) -> Result<Question, Bytes> {
        let id = Bytes::copy_from_slice(frame.id().unwrap_or_default());
        let mut inner = self.lock();
        inner.asked.retain(|_, asked| asked.strong_count() > 0);
        if inner.asked.contains_key(&id) {
            let why = "a request with this id has no answer yet";
            return Err(Fault::invalid_request(why).to_bytes(Some(&id)));
        }
        let withdrawn = Arc::new(CancellationToken::new());
        inner.asked.insert(id, Arc::downgrade(&withdrawn));
        drop(inner);
        let question = Question::new(frame, say(), withdrawn);
        Ok(match about {
            About::Known { theirs, .. } => question.of_task(theirs),
            About::Nothing | About::Unknown => question,
        })
    }

    fn withdraw(&self, id: Option<&[u8]>) {
        let asked = id.and_then(|id| self.lock().asked.remove(id));
        if let Some(asked) = asked.and_then(|asked| asked.upgrade()) {
            asked.cancel();
        }
    }

    fn note_asked(&self, question: &Question, client: &Client) {
        if let Some(id) = question.elicitation_id() {
            let max = self.options.elicitations_max;
            self.lock().elicitations.note(id, client.clone(), max);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What it holds is whole whenever the lock is free, even after a panic elsewhere.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is not said to clients as it comes: what they are told of it is the gateway's own to say.
fn is_for_the_gateway(method: &str) -> bool {
    matches!(
        method,
        "notifications/cancelled"
            | "notifications/progress"
            | "notifications/elicitation/complete"
            | "notifications/resources/updated"
            | task::STATUS
    ) || method.ends_with("/list_changed")
}

fn dropped() -> Aside {
    metrics::counter!("metamcpd_upstream_notes_dropped_total").increment(1);
    Aside::Settled
}

#[cfg(test)]
#[path = "dialogue_tests.rs"]
mod tests;
