//! A server that is played: what its worker does from its start to its end, and what it answers.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, interval, sleep},
};

use super::{Stage, chance::Chance, faults::Fault, history::Nonce};
use crate::{
    catalogue::kind::Kind,
    upstream::{
        CallError, Exit, Reason,
        actor::Post,
        dialogue::{Aside, Dialogue, Scope, Unasked},
        exchange::SessionKey,
        link::Link,
        pipe::Pipe,
        worker::News,
    },
    wire::{Frame, Kind as FrameKind, message},
};

/// How long a server that hangs is put up with before its worker ends it.
const HANG_MAX: Duration = Duration::from_secs(10);

/// What a client wants of its call.
#[derive(Clone, Debug, Deserialize)]
pub struct Order {
    pub nonce: Nonce,
    /// Milliseconds before the answer.
    pub think: u64,
    /// Reports of progress before the answer.
    pub progress: u64,
    /// Whether the client is asked something in between.
    pub asks: bool,
    pub how: How,
}

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum How {
    Plainly,
    Twice,
    Never,
    /// Under an id that nobody has, and then under the right one.
    UnderAWrongIdFirst,
    /// Under the right number as a string, and then as it should.
    AsAStringFirst,
    /// Whether it was cancelled or not.
    EvenIfCancelled,
}

impl How {
    pub const ALL: [Self; 6] = [
        Self::Plainly,
        Self::Twice,
        Self::Never,
        Self::UnderAWrongIdFirst,
        Self::AsAStringFirst,
        Self::EvenIfCancelled,
    ];
}

/// A server over all its lives.
pub struct Server {
    pub id: u128,
    chance: Chance,
    /// How many of its processes run.
    alive: Cell<u32>,
    lives: Cell<u64>,
}

/// What one life of a server holds.
struct Life {
    server: Rc<Server>,
    stage: Rc<Stage>,
    pipe: Arc<Pipe>,
    /// Which call each of our ids is, while it has no answer.
    open: RefCell<HashMap<u64, (Nonce, bool)>>,
    /// Questions that wait for an answer, by the server's ids.
    asked: RefCell<HashMap<String, oneshot::Sender<()>>>,
}

/// Counts a process while it runs.
struct Alive<'a>(&'a Server);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.alive.set(self.0.alive.get() - 1);
    }
}

/// Ends the calls of a pipe, even when the worker panics.
struct Closer(Arc<Pipe>);

impl Drop for Closer {
    fn drop(&mut self) {
        let reason = Reason::Panicked;
        self.0.close(CallError::Ended { server: "a".into(), reason, detail: None });
    }
}

impl Server {
    pub fn new(id: u128, seed: u64) -> Rc<Self> {
        let chance = Chance::new(seed, 1_000 + u64::try_from(id).unwrap_or_default());
        Rc::new(Self { id, chance, alive: Cell::new(0), lives: Cell::new(0) })
    }

    /// One life, as a worker would lead it.
    pub async fn live(self: Rc<Self>, stage: Rc<Stage>, post: Post) -> Exit {
        let Ok(_lease) = post.board.lease.clone().acquire_owned().await else {
            return Exit::of(Reason::SpawnFailed);
        };
        self.alive.set(self.alive.get() + 1);
        let _alive = Alive(&self);
        if self.alive.get() > 1 {
            stage.history.violated(format!("two processes of u{} run at once", self.id));
        }
        self.lives.set(self.lives.get() + 1);
        stage.history.say(format!("u{} begins its life {}", self.id, self.lives.get()));
        let exit = self.clone().work(&stage, &post).await;
        stage.history.say(format!("u{} ends: {:?}", self.id, exit.reason));
        // A process takes a while to be gone.
        sleep(self.chance.up_to(50)).await;
        exit
    }

    async fn work(self: Rc<Self>, stage: &Rc<Stage>, post: &Post) -> Exit {
        sleep(Duration::from_millis(20) + self.chance.up_to(200)).await;
        match stage.faults.point(&self.chance) {
            Some(Fault::Dies) => return Exit::of(Reason::Exited),
            Some(Fault::Panics) => panic(),
            Some(Fault::Hangs) => {
                return tokio::select! {
                    biased;
                    () = post.stop.cancelled() => Exit::of(Reason::Asked),
                    () = sleep(HANG_MAX) => Exit::of(Reason::HandshakeTimeout),
                };
            }
            None => {}
        }
        let options = stage.calls.dialogue();
        let dialogue = Dialogue::new(Scope::Everyone, options)
            .with_subscriptions(post.board.port.subscriptions.clone(), SessionKey::Shared);
        let name = Arc::from(&*post.board.spec().name);
        let (pipe, mut queue) = Pipe::new(name, stage.calls.queue_max, Arc::new(dialogue));
        let _closer = Closer(pipe.clone());
        let life = Rc::new(Life {
            server: self.clone(),
            stage: stage.clone(),
            pipe: pipe.clone(),
            open: RefCell::default(),
            asked: RefCell::default(),
        });
        let (kind, items, dropped) = (Kind::Tool, Arc::default(), Vec::new());
        (post.tell)(News::Listed { kind, items, dropped });
        let link = Link::Pipe(pipe.clone());
        (post.tell)(News::Ready { link, version: "2025-11-25", instructions: None });
        let exit = tokio::select! {
            biased;
            () = post.stop.cancelled() => Exit::of(Reason::Asked),
            exit = life.serve(&mut queue) => exit,
        };
        let server = Arc::from(&*post.board.spec().name);
        pipe.close(CallError::Ended { server, reason: exit.reason, detail: None });
        exit
    }
}

/// As a defect of ours would, but without a word on stderr.
fn panic() -> ! {
    std::panic::resume_unwind(Box::new("the simulation made this worker panic"))
}

impl Life {
    async fn serve(self: &Rc<Self>, queue: &mut mpsc::Receiver<Bytes>) -> Exit {
        let mut work = JoinSet::new();
        let mut look = interval(Duration::from_secs(1));
        let fault = loop {
            tokio::select! {
                biased;
                line = queue.recv() => {
                    let Some(line) = line else { break Fault::Dies };
                    if let Some(fault) = self.fault() {
                        break fault;
                    }
                    self.read(line, &mut work);
                }
                Some(done) = work.join_next(), if !work.is_empty() => {
                    if let Ok(Some(fault)) = done {
                        break fault;
                    }
                }
                _ = look.tick() => self.pipe.expire(Instant::now()),
            }
        };
        match fault {
            Fault::Dies => Exit::of(Reason::Killed),
            Fault::Panics => panic(),
            Fault::Hangs => {
                work.abort_all();
                sleep(HANG_MAX).await;
                Exit::of(Reason::StdinStalled)
            }
        }
    }

    fn fault(&self) -> Option<Fault> {
        self.stage.faults.point(&self.server.chance)
    }

    fn read(self: &Rc<Self>, line: Bytes, work: &mut JoinSet<Option<Fault>>) {
        let Ok(frame) = Frame::parse(line, 64) else {
            return self.stage.history.violated("a server was sent what is no message");
        };
        match frame.kind() {
            FrameKind::Request => {
                let id = frame.id().and_then(number);
                let order = serde_json::from_slice::<Request>(frame.bytes()).ok();
                let (Some(id), Some(order)) = (id, order.map(|one| one.params.arguments)) else {
                    return self
                        .stage
                        .history
                        .violated("a server was sent a request without sense");
                };
                self.stage.history.is_executed(order.nonce, self.server.id);
                self.open.borrow_mut().insert(id, (order.nonce, false));
                work.spawn_local(self.clone().carry_out(id, order));
            }
            FrameKind::Notification => {
                let id = frame.request_id().and_then(number);
                if let Some((nonce, is_cancelled)) =
                    id.and_then(|id| self.open.borrow().get(&id).copied())
                {
                    if is_cancelled {
                        self.stage.history.violated(format!("call {nonce} was cancelled twice"));
                    }
                    self.stage.history.is_cancelled_upstream(nonce);
                    self.open.borrow_mut().insert(id.unwrap_or_default(), (nonce, true));
                }
            }
            FrameKind::Result | FrameKind::Error => {
                let id = frame.id().map(|id| String::from_utf8_lossy(id).into_owned());
                let id = id.unwrap_or_default();
                let asked = self.asked.borrow_mut().remove(&id);
                match asked {
                    Some(asked) => drop(asked.send(())),
                    None => self.stage.history.violated(format!("{id} was answered again")),
                }
            }
        }
    }

    /// Carries a call out. A fault on the way is the server's.
    async fn carry_out(self: Rc<Self>, id: u64, order: Order) -> Option<Fault> {
        let Order { nonce, think, progress, asks, how } = order;
        let pause = Duration::from_millis(think / (progress + 1));
        for step in 1..=progress {
            sleep(pause).await;
            self.say(format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{id},"progress":{step},"message":"{nonce}"}}}}"#
            ));
        }
        if asks {
            let question = format!("\"q{nonce}\"");
            let (answer, answered) = oneshot::channel();
            self.asked.borrow_mut().insert(question.clone(), answer);
            self.say(format!(
                r#"{{"jsonrpc":"2.0","id":{question},"method":"elicitation/create","params":{{"message":"{nonce}","requestedSchema":{{}}}}}}"#
            ));
            let patience = self.stage.sessions.options.question_timeout + Duration::from_secs(60);
            match tokio::time::timeout(patience, answered).await {
                Ok(_answered) => {}
                Err(_elapsed) => {
                    self.stage.history.violated(format!("the question {question} has no answer"));
                }
            }
        }
        sleep(pause).await;
        if let Some(fault) = self.fault() {
            return Some(fault);
        }
        let is_cancelled = self.open.borrow().get(&id).is_some_and(|(_, cancelled)| *cancelled);
        if how == How::Never || (is_cancelled && how != How::EvenIfCancelled) {
            return None;
        }
        let id = id.to_string();
        let answer =
            |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"nonce":{nonce}}}}}"#);
        match how {
            How::UnderAWrongIdFirst => self.say(answer(&format!("9{id}"))),
            How::AsAStringFirst => self.say(answer(&format!("\"{id}\""))),
            _ => {}
        }
        self.say(answer(&id));
        if how == How::Twice {
            self.say(answer(&id));
        }
        None
    }

    /// Says something to the gateway, which does about it what a worker would.
    fn say(&self, text: String) {
        let Ok(frame) = Frame::parse(text.into(), 64) else {
            return self.stage.history.violated("the simulation said what is no message");
        };
        match self.pipe.hear(frame) {
            Aside::Say(answer) => self.pipe.say(answer),
            Aside::ToClient(client, Unasked::Question(question)) => {
                self.stage.put(&client, question);
            }
            Aside::ToClient(..)
            | Aside::Updated(..)
            | Aside::TaskStatus(..)
            | Aside::ToAll(_)
            | Aside::ListChanged(_) => {
                self.stage.history.violated("what a call said was taken for something else");
            }
            Aside::Settled => {}
        }
    }
}

#[derive(Deserialize)]
struct Request {
    params: Params,
}

#[derive(Deserialize)]
struct Params {
    arguments: Order,
}

fn number(raw: &[u8]) -> Option<u64> {
    std::str::from_utf8(raw).ok()?.parse().ok()
}

/// The call that a client makes for `order`.
pub fn request(id: &str, token: &str, order: &Order) -> Bytes {
    let Order { nonce, think, progress, asks, how } = order;
    let params = format!(
        r#"{{"name":"t","arguments":{{"nonce":{nonce},"think":{think},"progress":{progress},"asks":{asks},"how":"{how:?}"}},"_meta":{{"progressToken":"{token}"}}}}"#
    );
    let numbered = message::request(0, "tools/call", params.as_bytes());
    let text = String::from_utf8_lossy(&numbered).replacen("\"id\":0", &format!("\"id\":{id}"), 1);
    text.into()
}
