//! One call to a remote upstream: its answer as one body, among other messages, or by the stream of its
//! session, and its end, whichever way that comes.
//!
//! It needs no other thread and no task of its own.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use http::{StatusCode, header};

use super::{
    beside,
    event_stream::{Refused, StreamLeg},
    messages::{Kindred, Messages, Read, Unreadable, kindred, read, read_whole},
    opening::is_answer_to,
    remote::Remote,
    remote_delivery::{Delivered, Outgoing, deliver},
    remote_session::{Established, RemoteSession},
    remote_stream::{Events, StreamError},
    throttling::{admit, outcome_of},
};
use crate::{
    aside::{Aside, IN_PLACE_MAX, aside},
    egress::EgressError,
    upstream::{
        CallError, Reason,
        breaker::{Outcome, Pass},
        dialogue::InCall,
        exchange::{Heard, SessionKey, own_id},
        inbox::Listening,
        link::Sending,
        places::Place,
    },
    wire::{Bad, Frame, Kind, message},
};

type Delivery = Pin<Box<dyn Future<Output = Result<Delivered, CallError>>>>;

/// One call to a remote upstream.
pub struct RemoteLeg {
    call: Call,
    /// What comes for it by the session's standing stream.
    listening: Listening,
    is_answered: bool,
    /// Until it is known what the call says of the upstream. The gateway's own say nothing.
    pass: Option<Pass>,
    _place: Option<Place>,
}

/// The request and what comes back on its own connection.
struct Call {
    remote: Arc<Remote>,
    /// Held so that a session is not taken for idle while a call is with it.
    session: Arc<RemoteSession>,
    outgoing: Outgoing,
    part: Part,
    /// Whether it has been sent once more, since its session had been forgotten.
    is_repeated: bool,
    /// A message so long that it is read elsewhere. What follows it waits for it.
    read_aside: Option<Aside<Result<Frame, Bad>>>,
}

/// How far a call has come.
enum Part {
    Sending(Delivery),
    /// The answer is one body, which is being read.
    Whole(Pin<Box<dyn Future<Output = Result<Read, EgressError>>>>),
    /// The answer comes as events.
    Events(Box<Events>),
    /// The answer comes among other documents.
    Messages(Box<Messages>),
    /// The answer comes by the stream of this session.
    Stream(Box<StreamLeg>, Arc<Established>),
    /// It was taken back, and nothing more is heard.
    Over,
}

impl RemoteLeg {
    /// Makes ready to send the request that `write` makes for the id it is given.
    pub fn begin(
        remote: &Arc<Remote>,
        write: impl FnOnce(u64) -> Bytes,
        sending: Sending,
    ) -> Result<Self, CallError> {
        let Sending { key, client, declared, place, .. } = sending;
        let not_sent = || CallError::NotSent { server: remote.server.clone(), detail: None };
        if remote.is_closed() {
            return Err(not_sent());
        }
        let pass = place.as_ref().map(|_| admit(remote)).transpose()?;
        let session = remote.session(&key, declared)?;
        if key == SessionKey::Shared && session.established().is_some_and(|one| one.is_over()) {
            // The worker is about to end by that.
            return Err(not_sent());
        }
        session.touch();
        let id = remote.next_id();
        // Before the request is sent, or what is asked at once would be nobody's.
        let listening = session.dialogue.begin(id, client.clone());
        let outgoing = Outgoing { id, client, message: write(id), is_sent: Arc::default() };
        let sending = deliver(remote.clone(), session.clone(), outgoing.clone(), None);
        let (remote, part) = (remote.clone(), Part::Sending(Box::pin(sending)));
        let call = Call { remote, session, outgoing, part, is_repeated: false, read_aside: None };
        Ok(Self { call, listening, is_answered: false, pass, _place: place })
    }

    pub async fn next(&mut self) -> Heard {
        let remote = self.call.remote.clone();
        let advanced = tokio::select! {
            biased;
            heard = self.listening.next() => return heard,
            advanced = self.call.advance() => advanced,
            why = remote.closed() => Err(why),
        };
        let outcome = match &advanced {
            Ok(Heard::Reply(_)) => Some(Outcome::Success),
            Ok(_) => None,
            Err(error) => Some(outcome_of(error)),
        };
        if let Some(outcome) = outcome
            && let Some(mut pass) = self.pass.take()
        {
            pass.ends(outcome);
        }
        if let Ok(Heard::Reply(reply)) = &advanced {
            self.is_answered = true;
            self.call.session.dialogue.end(self.call.outgoing.id, reply);
            if let Part::Messages(messages) = &mut self.call.part {
                beside::hear_behind(&remote, &self.call.session, messages.ready());
            }
        }
        advanced.unwrap_or_else(|error| Heard::Failed(self.call.as_it_was(error)))
    }

    /// What else the server says of a call that was answered by a task. Safe to be dropped while it
    /// waits.
    pub async fn aside(&mut self) -> Heard {
        match &mut self.call.part {
            Part::Stream(leg, _) => leg.aside().await,
            _ => self.listening.next().await,
        }
    }

    pub fn cancel(&mut self, reason: &str) {
        self.call.cancel(reason);
    }
}

impl Drop for RemoteLeg {
    fn drop(&mut self) {
        let (dialogue, id) = (&self.call.session.dialogue, self.call.outgoing.id);
        match self.is_answered {
            // One that went on as a task has ended now.
            true => dialogue.end_badly(id),
            false => dialogue.give_up(id),
        }
    }
}

impl Call {
    /// Safe to be dropped at any await: what was read stays in `self.part`.
    async fn advance(&mut self) -> Result<Heard, CallError> {
        loop {
            if let Some(reading) = &mut self.read_aside {
                let parsed = reading.await;
                self.read_aside = None;
                if let Some(heard) = self.judge(parsed)? {
                    return Ok(heard);
                }
                continue;
            }
            let parsed = match &mut self.part {
                Part::Sending(delivery) => {
                    let delivered = delivery.await?;
                    self.part = self.part_of(delivered)?;
                    continue;
                }
                Part::Over => return std::future::pending().await,
                Part::Stream(leg, established) => match leg.next().await {
                    Ok(heard) => return Ok(heard),
                    Err(Refused::Failed(error)) => return Err(error),
                    Err(Refused::Forgotten { status }) => {
                        let stale = established.clone();
                        self.repeat(status, stale)?;
                        continue;
                    }
                },
                Part::Whole(body) => {
                    let Read { body, message } = body.await.map_err(|error| match error {
                        EgressError::TooLarge { .. } => self.bad(&error.to_string()),
                        _ => self.broken(error.to_string()),
                    })?;
                    if message.is_err()
                        && let Some(messages) = Messages::of_whole(&body)
                    {
                        self.part = Part::Messages(Box::new(messages));
                        continue;
                    }
                    Some(message)
                }
                Part::Messages(messages) => match messages.next().await {
                    Ok(Some(message)) => self.parse(message),
                    Ok(None) => {
                        return Err(self.broken("it ended without the answer".into()));
                    }
                    Err(Unreadable::Broken(error)) => return Err(self.broken(error.to_string())),
                    Err(error) => return Err(self.bad(&error.to_string())),
                },
                Part::Events(events) => match events.next().await {
                    Ok(message) => self.parse(message),
                    Err(StreamError::Broken(why)) => return Err(self.broken(why)),
                    Err(StreamError::TooLarge(error)) => return Err(self.bad(&error.to_string())),
                },
            };
            let Some(parsed) = parsed else { continue };
            match self.judge(parsed)? {
                Some(heard @ Heard::Reply(_)) => return Ok(heard),
                // Nothing more comes of such a body.
                _ if matches!(self.part, Part::Whole(_)) => {
                    return Err(self.bad("it is a message, and no answer"));
                }
                Some(heard) => return Ok(heard),
                None => {}
            }
        }
    }

    /// The message that these bytes are; `None` where that is found out elsewhere.
    fn parse(&mut self, bytes: Bytes) -> Option<Result<Frame, Bad>> {
        let depth_max = self.remote.frames().depth_max;
        if bytes.len() <= IN_PLACE_MAX {
            return Some(Frame::parse(bytes, depth_max));
        }
        self.read_aside = Some(aside(move || Frame::parse(bytes, depth_max)));
        None
    }

    fn part_of(&self, delivered: Delivered) -> Result<Part, CallError> {
        let response = match delivered {
            Delivered::Streaming(leg, established) => {
                return Ok(Part::Stream(Box::new(leg), established));
            }
            Delivered::Refused(body) => {
                let depth_max = self.remote.frames().depth_max;
                return Ok(Part::Whole(Box::pin(async move { Ok(read(body, depth_max).await) })));
            }
            Delivered::Answered(response) => response,
        };
        let frames = self.remote.frames();
        let max = frames.message_max;
        match kindred(response.headers()) {
            Kindred::Neither(kind) => Err(self.bad(&format!("its content type is `{kind}`"))),
            // Who knows the length beforehand has no more to say later.
            Kindred::Json if response.headers().contains_key(header::CONTENT_LENGTH) => {
                Ok(Part::Whole(Box::pin(read_whole(response.into_body(), frames))))
            }
            Kindred::Json => Ok(Part::Messages(Box::new(Messages::of(response, max)))),
            Kindred::Events => {
                let events = Events::new(&self.remote, &self.session, response.into_body());
                Ok(Part::Events(Box::new(events)))
            }
        }
    }

    /// Sends the request once more, in a new session: the server has executed nothing.
    fn repeat(&mut self, status: StatusCode, stale: Arc<Established>) -> Result<(), CallError> {
        if self.is_repeated {
            let (server, status) = (self.remote.server.clone(), status.as_u16());
            return Err(CallError::HttpStatus { server, status });
        }
        self.is_repeated = true;
        let (remote, session) = (self.remote.clone(), self.session.clone());
        let sending = deliver(remote, session, self.outgoing.clone(), Some(stale));
        self.part = Part::Sending(Box::pin(sending));
        Ok(())
    }

    /// Whether a message is for this call; what is not goes to the worker.
    fn judge(&self, parsed: Result<Frame, Bad>) -> Result<Option<Heard>, CallError> {
        let whole = matches!(self.part, Part::Whole(_));
        let frame = match parsed {
            Ok(frame) => frame,
            Err(error) if whole => return Err(self.bad(&error.to_string())),
            Err(error) => {
                beside::refuse(&self.remote, &self.session, &error);
                return Ok(None);
            }
        };
        let id = self.outgoing.id;
        let is_progress = frame.method().as_deref() == Some("notifications/progress");
        match frame.kind() {
            Kind::Result | Kind::Error if own_id(frame.id()) == Some(id) => {
                Ok(Some(Heard::Reply(frame)))
            }
            Kind::Error if is_answer_to(&frame, id) => {
                let named = message::error(id, &frame.error().unwrap_or_default());
                let named = Frame::parse(named, self.remote.frames().depth_max);
                named
                    .map(|frame| Some(Heard::Reply(frame)))
                    .map_err(|why| self.bad(&why.to_string()))
            }
            Kind::Result | Kind::Error if whole => {
                Err(self.bad("its id is not that of the request"))
            }
            Kind::Result | Kind::Error => {
                metrics::counter!("metamcpd_upstream_unknown_replies_total").increment(1);
                Ok(None)
            }
            Kind::Notification if is_progress => {
                let token = frame.token_span().map(|span| frame.get(span));
                if own_id(token) == Some(id) {
                    return Ok(Some(Heard::Progress(frame)));
                }
                // It may be of a task that another call has become.
                let aside = self.session.dialogue.progress(frame);
                self.remote.carry_out(&self.session, aside);
                Ok(None)
            }
            Kind::Notification | Kind::Request => {
                let (remote, session) = (&self.remote, &self.session);
                let say = || remote.answering(session);
                let client = self.outgoing.client.as_ref();
                match session.dialogue.hear_in_call(client, frame, say) {
                    InCall::Heard(heard) => Ok(Some(heard)),
                    InCall::Aside(aside) => {
                        remote.carry_out(session, aside);
                        Ok(None)
                    }
                }
            }
        }
    }

    fn cancel(&mut self, reason: &str) {
        if let Part::Stream(leg, _) = &mut self.part {
            return leg.cancel(reason);
        }
        let (remote, established) = (self.remote.clone(), self.session.established());
        let message = message::cancelled(self.outgoing.id, reason);
        // Dropping its connection says nothing in this era, and many servers forget by that whom
        // the cancellation is for: so it is dropped when they have been told.
        let held = std::mem::replace(&mut self.part, Part::Over);
        self.read_aside = None;
        actix::spawn(self.remote.tasks.track_future(async move {
            if established.is_some() {
                remote.tell(established.as_deref(), message).await;
            }
            drop(held);
        }));
    }

    /// Of a call that was not sent when its connection ended it is certain that it did nothing.
    fn as_it_was(&self, error: CallError) -> CallError {
        match error {
            CallError::Ended { server, reason, detail }
                if !self.outgoing.is_sent.load(Ordering::Relaxed) =>
            {
                let detail = detail.unwrap_or_else(|| reason.as_str().to_owned());
                CallError::NotSent { server, detail: Some(detail) }
            }
            other => other,
        }
    }

    fn bad(&self, why: &str) -> CallError {
        CallError::BadAnswer { server: self.remote.server.clone(), why: why.into() }
    }

    fn broken(&self, detail: String) -> CallError {
        self.remote.signals.suspect.notify_one();
        let reason = Reason::Unreachable;
        CallError::Ended { server: self.remote.server.clone(), reason, detail: Some(detail) }
    }
}
