//! A client that is played: when it calls, leaves, comes back and answers.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Stage,
    call::{Manner, Underway, parts, said_nonce},
    chance::Chance,
    history::{Outcome, nonce_of},
    server::{How, Order, request},
};
use crate::{
    access::Principal,
    session::{Agreed, Session},
    upstream::{board::Board, link::Caller},
    wire::{Frame, Kind, capabilities::ClientCapabilities, message},
};

const HERE: Uuid = Uuid::from_u128(1);

pub struct Client {
    pub number: u64,
    pub chance: Chance,
    pub stage: Rc<Stage>,
    session: RefCell<Arc<Session>>,
    calls: Cell<u64>,
}

impl Client {
    pub fn new(number: u64, seed: u64, stage: &Rc<Stage>) -> Rc<Self> {
        let session = RefCell::new(begin_session(number, stage));
        let chance = Chance::new(seed, number);
        let client =
            Rc::new(Self { number, chance, stage: stage.clone(), session, calls: Cell::new(0) });
        client.listen();
        client
    }

    /// Calls now and then until it is told to stop.
    pub async fn live(self: Rc<Self>, stop: CancellationToken) {
        loop {
            let rest = self.chance.up_to(3_000);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(rest) => {}
            }
            if self.stage.faults.are_on() && self.chance.in_thousand(20) {
                self.begin_anew();
            }
            actix::spawn(self.clone().call(None, false));
        }
    }

    /// The session ends, as its client or an operator wants, and the client begins another.
    pub fn begin_anew(self: &Rc<Self>) {
        let old = self.session.borrow().clone();
        self.stage.history.say(format!("the session of client {} ends", self.number));
        self.stage.history.session_ended(self.number);
        self.stage.sessions.end(&old);
        self.session.replace(begin_session(self.number, &self.stage));
        self.listen();
    }

    pub fn session(&self) -> Arc<Session> {
        self.session.borrow().clone()
    }

    /// Reads the standing stream of the session that it has now, as well as it can.
    fn listen(self: &Rc<Self>) {
        let (client, session) = (self.clone(), self.session());
        actix::spawn(async move {
            let mut last = None;
            while !session.ended.is_cancelled() {
                let Ok(mut reader) = session.listen(last.as_deref()) else { return };
                let patience = client.break_after();
                let reading = async {
                    while let Some(event) = reader.next().await {
                        let (id, data) = parts(&event);
                        last = id.or(last.take());
                        client.hear_question(&session, &data);
                    }
                };
                if timeout(patience, reading).await.is_ok() {
                    return;
                }
                drop(reader);
                sleep(client.chance.up_to(4_000)).await;
            }
        });
    }

    /// One call, to `board` or to any; `well` when nothing is to go wrong by the client's own doing.
    pub async fn call(self: Rc<Self>, board: Option<Arc<Board>>, well: bool) {
        let number = self.calls.get() + 1;
        self.calls.set(number);
        let Some(board) = board.or_else(|| self.any_board()) else { return };
        let well = well || !self.stage.faults.are_on();
        let nonce = nonce_of(self.number, number);
        let session = self.session();
        let manner = match self.chance.below(20) {
            0 if !well => Manner::Leaving,
            0..=8 => Manner::Stream,
            _ => Manner::Answer,
        };
        let order = Order {
            nonce,
            think: u64::try_from(self.chance.below(2_000)).unwrap_or_default(),
            progress: u64::try_from(self.chance.below(4)).unwrap_or_default(),
            asks: manner != Manner::Answer && self.chance.in_thousand(300),
            how: match well {
                true => How::Plainly,
                false => How::ALL[self.chance.below(How::ALL.len())],
            },
        };
        // Every client gives the same ids and tokens.
        let id = match number.is_multiple_of(2) {
            true => number.to_string(),
            false => format!("\"a{number}\""),
        };
        let underway = Rc::new(Underway {
            client: self.clone(),
            session: session.clone(),
            nonce,
            token: format!("t{number}"),
            id,
            progress: Cell::new(f64::NEG_INFINITY),
        });
        self.stage.history.begins(nonce);
        let Ok(in_flight) = session.begin(underway.id.as_bytes()) else {
            return self.stage.history.ends(nonce, Outcome::NotReached);
        };
        if !well && self.chance.in_thousand(150) {
            self.take_back_later(&underway);
        }
        let text = request(&underway.id, &underway.token, &order);
        let Ok(frame) = Frame::parse(text, 64) else {
            return self.stage.history.violated("the simulation made what is no message");
        };
        let caller = Caller {
            session: &session.id,
            principal: &session.principal,
            capabilities: session.capabilities(),
            log_level: None,
        };
        let cancel = in_flight.cancel.clone();
        match board.port.call(frame, Vec::new(), &caller, cancel).await {
            Err(error) => {
                self.stage.history.is_over(nonce);
                self.stage.history.ends(nonce, Outcome::of(&error, in_flight.is_orphaned()));
            }
            Ok(conversation) if manner == Manner::Answer => {
                underway.wait_for_the_answer(conversation, || in_flight.is_orphaned()).await;
            }
            Ok(conversation) => {
                let stream = session.begin_call_stream();
                match session.read_call_stream(stream) {
                    Some(reader) => {
                        actix::spawn(underway.clone().read(reader, manner));
                    }
                    None => self.stage.history.violated("a stream cannot be read"),
                }
                underway.collect(conversation, stream).await;
            }
        }
    }

    fn take_back_later(self: &Rc<Self>, underway: &Rc<Underway>) {
        let (client, underway, after) = (self.clone(), underway.clone(), self.chance.up_to(2_500));
        actix::spawn(async move {
            sleep(after).await;
            if !client.stage.history.has_ended(underway.nonce) {
                client.stage.history.is_taken_back(underway.nonce);
                underway.session.cancel(underway.id.as_bytes());
            }
        });
    }

    fn any_board(&self) -> Option<Arc<Board>> {
        let boards = self.stage.roster.load();
        let mut ids: Vec<_> = boards.keys().copied().collect();
        ids.sort_unstable();
        let id = ids.get(self.chance.below(ids.len()))?;
        boards.get(id).cloned()
    }

    /// How long its next connection lasts.
    pub fn break_after(&self) -> Duration {
        match self.stage.faults.are_on() && self.chance.in_thousand(400) {
            true => self.chance.up_to(2_000),
            false => Duration::from_secs(3_600),
        }
    }

    /// Answers a question after a while, or never.
    pub fn hear_question(self: &Rc<Self>, session: &Arc<Session>, data: &Bytes) {
        let Ok(frame) = Frame::parse(data.clone(), 64) else { return };
        if frame.kind() != Kind::Request {
            return;
        }
        if let Some(nonce) = said_nonce(&frame) {
            self.stage.history.reaches(self.number, nonce, "question");
        }
        let is_ignored = self.stage.faults.are_on() && self.chance.in_thousand(200);
        let rest = self.chance.up_to(3_000);
        let (session, id) = (session.clone(), frame.id().map(Bytes::copy_from_slice));
        actix::spawn(async move {
            sleep(rest).await;
            let id = id.filter(|_| !is_ignored).unwrap_or_default();
            let answer = message::reply(&id, br#"{"action":"accept","content":{}}"#);
            if let Ok(answer) = Frame::parse(answer, 64) {
                session.questions.answer(answer);
            }
        });
    }
}

fn begin_session(number: u64, stage: &Stage) -> Arc<Session> {
    let principal = Principal::Key { uuid: Uuid::from_u128(number.into()), user_id: None };
    let agreed = Agreed {
        version: "2025-11-25",
        capabilities: ClientCapabilities::ALL,
        profile: Default::default(),
    };
    match stage.sessions.begin(HERE, principal, agreed) {
        Ok(session) => session,
        Err(error) => panic!("a session could not be begun: {error}"),
    }
}
