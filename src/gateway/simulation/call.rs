//! One call of a client: what its handler does for it, and what its client hears.

use std::{cell::Cell, future::pending, rc::Rc, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    client::Client,
    history::{History, Nonce, Outcome},
};
use crate::{
    conductor::relay::{self, Asking},
    session::{Reader, Session},
    upstream::port::{Conversation, Step},
    wire::{Frame, Kind, sse},
};

/// How a client hears of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As one answer.
    Answer,
    /// As a stream, whose connection may break and be taken up again.
    Stream,
    /// As a stream that it leaves for good.
    Leaving,
}

/// What is known of a call by those who take part in it.
pub struct Underway {
    pub client: Rc<Client>,
    pub session: Arc<Session>,
    pub nonce: Nonce,
    /// The client's own id and token, as JSON.
    pub id: String,
    pub token: String,
    /// The progress that was last told of.
    pub progress: Cell<f64>,
}

/// What belongs to a call and is said to its client.
#[derive(Deserialize)]
struct Words {
    #[serde(default)]
    params: Saying,
    result: Option<Echo>,
    error: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
struct Saying {
    message: Option<String>,
}

#[derive(Deserialize)]
struct Echo {
    nonce: Nonce,
}

pub fn said_nonce(frame: &Frame) -> Option<Nonce> {
    let words: Words = serde_json::from_slice(frame.bytes()).ok()?;
    words.params.message?.parse().ok()
}

/// The id and the data of an event, as we write them.
pub fn parts(event: &[u8]) -> (Option<String>, Bytes) {
    let events = sse::Reader::new(1 << 20).push(event).unwrap_or_default();
    events.into_iter().next().map(|one| (one.id, one.data)).unwrap_or_default()
}

impl Underway {
    /// What a handler does whose client takes one answer.
    pub async fn wait_for_the_answer(
        &self,
        mut conversation: Conversation,
        session_ended: impl Fn() -> bool,
    ) {
        loop {
            match conversation.next().await {
                Step::Event(event) => self.hear(&event),
                Step::Asked(question) => question.refuse("nobody can be asked", "unheard"),
                Step::Said(_) => {}
                Step::End(Ok(answer)) => {
                    self.history().is_over(self.nonce);
                    return self.hear(&answer);
                }
                Step::End(Err(error)) => {
                    self.history().is_over(self.nonce);
                    let outcome = Outcome::of(&error, session_ended());
                    return self.history().ends(self.nonce, outcome);
                }
            }
        }
    }

    /// What a handler does whose client reads a stream: the task that collects it.
    pub async fn collect(&self, mut conversation: Conversation, stream: u64) {
        let session = &self.session;
        let abandoned = CancellationToken::new();
        let patience = self.client.stage.sessions.options.question_timeout;
        let mut asked = FuturesUnordered::new();
        let mut absence = Box::pin(session.unread(stream));
        let ended = loop {
            tokio::select! {
                biased;
                step = conversation.next() => match step {
                    Step::Event(event) => drop(session.say(stream, event).await),
                    Step::Asked(question) => {
                        let asking = relay::ask(session, question, patience, abandoned.clone());
                        if let Some(Asking { request, outcome, .. }) = asking {
                            asked.push(outcome);
                            session.say(stream, request).await;
                        }
                    }
                    Step::Said(_) => {}
                    Step::End(ended) => break ended,
                },
                () = &mut absence => {
                    asked = FuturesUnordered::new();
                    absence = Box::pin(session.unread(stream));
                }
                taken_back = next_of(&mut asked) => drop(session.say(stream, taken_back).await),
            }
        };
        self.history().is_over(self.nonce);
        let answer = match ended {
            Ok(answer) => Some(answer),
            Err(error) => {
                abandoned.cancel();
                match Outcome::of(&error, false) {
                    Outcome::TakenBack => None,
                    _ => Some(error.fault().to_bytes(Some(self.id.as_bytes()))),
                }
            }
        };
        relay::see_through_later(session.clone(), asked);
        if let Some(answer) = answer
            && !session.say(stream, answer).await
            && !session.ended.is_cancelled()
        {
            self.history().violated(format!("the answer of call {} had no room", self.nonce));
        }
        session.end_call_stream(stream);
    }

    /// What the client does with its stream.
    pub async fn read(self: Rc<Self>, mut reader: Reader, manner: Manner) {
        let primer = reader.primer().map(|primer| parts(&primer).0);
        let mut last = primer.flatten();
        loop {
            let lasts = self.client.break_after();
            match timeout(lasts, reader.next()).await {
                Ok(Some(event)) => {
                    let (id, data) = parts(&event);
                    last = id.or(last);
                    self.hear(&data);
                    continue;
                }
                Ok(None) => break,
                Err(_broken) => {}
            }
            drop(reader);
            if manner == Manner::Leaving && !self.history().has_ended(self.nonce) {
                return self.history().ends(self.nonce, Outcome::Unheard);
            }
            sleep(self.client.chance.up_to(8_000)).await;
            match self.session.listen(last.as_deref()) {
                Ok(again) => reader = again,
                Err(_unknown) if self.session.ended.is_cancelled() => break,
                Err(_unknown) if self.history().has_ended(self.nonce) => return,
                Err(_unknown) => {
                    let nonce = self.nonce;
                    return self.history().violated(format!("the stream of {nonce} is forgotten"));
                }
            }
        }
        if self.history().has_ended(self.nonce) {
            return;
        }
        let outcome = match self.history().is_without_session(self.nonce) {
            true => Outcome::SessionEnded,
            false => Outcome::TakenBack,
        };
        self.history().ends(self.nonce, outcome);
    }

    /// The client hears something of its call.
    fn hear(&self, data: &Bytes) {
        let (nonce, client) = (self.nonce, self.client.number);
        let Ok(frame) = Frame::parse(data.clone(), 64) else {
            return self.history().violated("a client was sent what is no message");
        };
        match frame.kind() {
            Kind::Request => self.client.hear_question(&self.session, data),
            Kind::Notification => {
                let Some(progress) = frame.progress() else { return };
                let token = frame.token_span().map(|span| frame.get(span).to_vec());
                if token != Some(format!("\"{}\"", self.token).into_bytes()) {
                    self.history().violated(format!("progress of {nonce} has another token"));
                }
                if said_nonce(&frame) != Some(nonce) {
                    self.history()
                        .violated(format!("the progress of another call came to {nonce}"));
                }
                if progress <= self.progress.replace(progress) || self.history().has_ended(nonce) {
                    self.history().violated(format!("progress of {nonce} came out of its order"));
                }
            }
            Kind::Result | Kind::Error => {
                if frame.id() != Some(self.id.as_bytes()) {
                    self.history().violated(format!("the answer to {nonce} has another id"));
                }
                let words: Option<Words> = serde_json::from_slice(data).ok();
                match words.map(|words| (words.result, words.error)) {
                    Some((Some(echo), None)) => {
                        self.history().reaches(client, echo.nonce, "answer");
                        if echo.nonce != nonce {
                            self.history().violated(format!("{nonce} was given another's answer"));
                        }
                        self.history().ends(nonce, Outcome::Answered);
                    }
                    Some((None, Some(error))) => {
                        let outcome = match error["data"]["reason"].as_str() {
                            Some("upstream_unavailable" | "upstream_busy") => Outcome::NotReached,
                            _ => Outcome::Unknown("an error"),
                        };
                        self.history().ends(nonce, outcome);
                    }
                    _ => self.history().violated(format!("the answer to {nonce} is none")),
                }
            }
        }
    }

    fn history(&self) -> &History {
        &self.client.stage.history
    }
}

async fn next_of(asked: &mut FuturesUnordered<relay::Outcome>) -> Bytes {
    loop {
        match asked.next().await {
            Some(Some(taken_back)) => return taken_back,
            Some(None) => {}
            None => return pending().await,
        }
    }
}
