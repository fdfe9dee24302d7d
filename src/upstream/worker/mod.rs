//! The only rooms that touch processes and upstream sockets.
//!
//! A worker is one life of an upstream: from its start to its end, whichever way that comes. It is
//! always fresh, tells its actor what happens, and decides nothing about what happens next.

mod authorizing;
mod belonging;
mod beside;
mod credential;
mod dialects;
mod event_stream;
mod hot_doors;
pub mod lifeline;
mod listing;
mod messages;
mod opening;
mod own_process;
pub mod remote;
pub mod remote_call;
mod remote_delivery;
mod remote_life;
mod remote_session;
mod remote_stream;
mod resubscription;
mod signals;
mod standing;
mod stdio;
mod stdio_streams;
mod throttling;
mod trail;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    CallError, Clients, Exit, Isolation, Reason,
    actor::SharedPatience,
    board::Board,
    conduct::Conduct,
    dialogue::{Aside, DialogueOptions, Scope, Unasked},
    exchange::SessionKey,
    handshake::{self, Introduction},
    link::{Link, bridged},
    lists::ListOptions,
    oauth::{OAuthOptions, TokenKeeper},
    own_process::OwnProcess,
    pipe::Pipe,
    spec::Transport,
};
use crate::{
    catalogue::{
        item::{BadItem, Item},
        kind::Kind,
    },
    egress::Egress,
    wire::{capabilities::ClientCapabilities, message},
};
use lifeline::{
    ChildOptions, Lifeline, SpawnOptions, StopGrace,
    confinement::{Confinement, StrictOptions, has_landlock},
};
pub use listing::Announcements;
use listing::keep_listed;
use remote::Speech;
use trail::ResumeOptions;

/// The limits of `upstream` in the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerOptions {
    /// How long a start, a handshake and a list may each take, unless the row says otherwise.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The same of the first start of a program that may have to be fetched before it runs.
    #[serde(with = "humantime_serde")]
    pub prefetch_timeout: Duration,
    /// How long a server that is stopped has for each of its two goodbyes.
    pub stop: StopGrace,
    /// How many processes are started at once.
    pub spawns: SpawnOptions,
    /// How servers are treated beside the daemon.
    pub children: ChildOptions,
    /// What servers of the profile `STRICT` may take.
    pub strict: StrictOptions,
    /// How long a server may read nothing while something waits for it.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// The pace of asking a remote upstream whether it is still there. Zero: never.
    #[serde(with = "humantime_serde")]
    pub ping_every: Duration,
    /// How long the answer to a ping may take, of a server that left calls without one.
    #[serde(with = "humantime_serde")]
    pub ping_timeout: Duration,
    /// How long an HTTP+SSE server may take to say where messages go.
    #[serde(with = "humantime_serde")]
    pub endpoint_wait: Duration,
    /// Sessions that one remote upstream may hold for our clients.
    pub sessions_max: usize,
    /// Processes that clients may have of one STDIO upstream, beside its own.
    pub processes_max: usize,
    /// After so long without a call, a client's session of a remote upstream is ended, and a process
    /// that a client has to itself.
    #[serde(with = "humantime_serde")]
    pub session_idle: Duration,
    /// How the streams of calls that break off are taken up again.
    pub resume: ResumeOptions,
}

/// What every worker needs, made once at the start of the daemon.
pub struct Workshop {
    pub lifeline: Lifeline,
    pub egress: Egress,
    pub options: WorkerOptions,
    pub lists: ListOptions,
    pub frames: FrameLimits,
    /// Messages that wait for an upstream to read them.
    pub queue_max: usize,
    pub dialogue: DialogueOptions,
    /// Who is told what is said outside of any call.
    pub clients: Arc<dyn Clients>,
    /// Where the daemon keeps what is nobody else's.
    pub data_dir: std::path::PathBuf,
    /// How tokens of upstreams are renewed.
    pub oauth: OAuthOptions,
    /// Where renewed tokens of upstreams are kept.
    pub tokens: Arc<dyn TokenKeeper>,
    /// How long what failed rests.
    pub patience: SharedPatience,
    /// This very program, which a row may call by the name `metamcpd`.
    pub own_exe: std::path::PathBuf,
}

/// The limits of `wire` in the settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameLimits {
    /// Objects and arrays within each other.
    pub depth_max: usize,
    /// Bytes of one message from an upstream: a line, an event or a body.
    pub message_max: usize,
}

impl Workshop {
    /// How the process of an upstream is confined, if it is to be.
    fn confinement(&self, board: &Board) -> Result<Option<Confinement>, Exit> {
        let spec = board.spec();
        if !spec.upkeep.is_strict {
            return Ok(None);
        }
        if !has_landlock() {
            tracing::warn!(server = %spec.name, "the kernel has no Landlock, so that this STRICT server is not kept from the daemon's data");
        }
        let prepared = Confinement::prepare(&self.data_dir, board.id, self.options.strict);
        prepared.map(Some).map_err(|error| {
            Exit::new(Reason::SpawnFailed, format!("its home cannot be made: {error}"))
        })
    }
}

/// What a worker tells its actor.
pub enum News {
    /// The server's own process runs.
    Running { pid: u32 },
    /// Calls may be sent through the link.
    Ready {
        link: Link,
        version: &'static str,
        /// What it says of its use.
        instructions: Option<String>,
    },
    /// It has begun a session anew, and calls go on.
    Reintroduced { version: &'static str, instructions: Option<String> },
    /// All that it offers of one kind.
    Listed {
        kind: Kind,
        items: Arc<Vec<Item>>,
        /// What it lists besides, and why it is left out.
        dropped: Vec<BadItem>,
    },
    /// What it offers of one kind could not be listed, and why. What was known of it holds.
    NotListed { kind: Kind, why: Arc<str> },
}

/// One life of an upstream.
pub struct Assignment {
    pub board: Arc<Board>,
    pub generation: u64,
    pub workshop: Arc<Workshop>,
    pub tell: Box<dyn Fn(News)>,
    /// Cancelled when the worker is to end.
    pub stop: CancellationToken,
    /// The client's place, where it is not the upstream's own life but that of a client's process.
    pub own: Option<Arc<OwnProcess>>,
}

/// Works until the upstream has ended or is told to.
pub async fn work(assignment: Assignment) -> Exit {
    match assignment.board.spec().transport.clone() {
        Transport::Stdio { command, args, env } => {
            stdio::work(&assignment, &command, &args, &env).await
        }
        Transport::StreamableHttp(remote) => {
            remote_life::work(&assignment, &remote, Speech::StreamableHttp).await
        }
        Transport::Sse(remote) => remote_life::work(&assignment, &remote, Speech::Sse).await,
    }
}

/// Says hello, asks for the tools, and opens the port: what comes before the first call.
async fn introduce(assignment: &Assignment, link: &Link) -> Result<(), Exit> {
    let spec = assignment.board.spec();
    let patience = assignment.board.start_patience();
    let answer = match link {
        Link::Pipe(pipe) => greet(assignment, link, pipe, bridged(spec.isolation)).await?,
        Link::Remote(remote) => match tokio::time::timeout(patience, remote.introduce()).await {
            Ok(introduced) => introduced?,
            Err(_elapsed) => return Err(Exit::of(Reason::HandshakeTimeout)),
        },
    };
    note(&assignment.board, &answer);
    listing::first(assignment, link).await?;
    let handshake::Introduction { version, instructions, has_subscriptions, .. } = answer;
    (assignment.tell)(News::Ready { link: link.clone(), version, instructions });
    if has_subscriptions {
        link.subscribe_again(&assignment.board.port.subscriptions);
    }
    Ok(())
}

/// Takes what an upstream says of itself when it has begun a session anew.
fn reintroduce(assignment: &Assignment, remote: &Arc<remote::Remote>, answer: &Introduction) {
    note(&assignment.board, answer);
    remote.unlearn_announcements(answer);
    let (version, instructions) = (answer.version, answer.instructions.clone());
    (assignment.tell)(News::Reintroduced { version, instructions });
}

/// What an upstream says that it can do.
fn note(board: &Board, answer: &Introduction) {
    board.nested.set_is_gateway(answer.is_gateway);
    board.port.set_has_subscriptions(answer.has_subscriptions);
    board.port.set_has_tasks(answer.has_tasks);
    for (kind, offer) in answer.offers.iter() {
        board.refresh[kind].set_is_offered(offer.is_declared);
    }
}

/// Asks a server that left several calls without an answer whether it lives, and returns when it does
/// not say so. A single call that is not answered may be a slow one.
async fn watch_answers(assignment: &Assignment, link: &Link, conduct: &Conduct) -> Exit {
    let board = &assignment.board;
    loop {
        conduct.suspected().await;
        let server: Arc<str> = Arc::from(&*board.spec().name);
        let patience = assignment.workshop.options.ping_timeout;
        // Any answer will do, even one that says that `ping` is unknown.
        if let Err(error) = link.ask(&server, "ping", b"{}", patience).await {
            let detail = format!("several calls had no answer, and a ping has none: {error}");
            return Exit::new(Reason::Unreachable, detail);
        }
    }
}

/// Shakes hands with a process, which is told that so much can be asked for. A process has one session.
async fn greet(
    assignment: &Assignment,
    link: &Link,
    pipe: &Pipe,
    declared: ClientCapabilities,
) -> Result<Introduction, Exit> {
    let spec = assignment.board.spec();
    let server: Arc<str> = Arc::from(&*spec.name);
    let greeting = handshake::initialize_params(declared);
    let answer =
        link.ask(&server, "initialize", &greeting, assignment.board.start_patience()).await;
    let introduction = handshake::introduction(&answer.map_err(handshake_failure)?)?;
    pipe.say(message::notification("notifications/initialized", b""));
    pipe.set_has_logging(introduction.has_logging);
    let key = assignment.key();
    if let Some(level) = assignment.board.port.levels.of(&key) {
        let told = link.set_level(&key, level);
        if assignment.own.is_some() {
            // Its client has been answered long ago, so that its first call finds it in force.
            drop(told.await);
        }
    }
    Ok(introduction)
}

impl Assignment {
    /// Whose session the process has.
    fn key(&self) -> SessionKey {
        self.own.as_ref().map_or(SessionKey::Shared, |own| own.key.clone())
    }

    /// On whose behalf it speaks.
    fn scope(&self) -> Scope {
        match (self.key(), self.board.spec().isolation) {
            (SessionKey::Client(client), _) => Scope::Client(client),
            (SessionKey::User(_), _) => Scope::User,
            (SessionKey::Shared, Isolation::Shared) => Scope::Everyone,
            (SessionKey::Shared, Isolation::Session | Isolation::User) => Scope::Gateway,
        }
    }

    /// Held by whoever has a process in this place.
    fn lease(&self) -> Arc<Semaphore> {
        self.own.as_ref().map_or(&self.board.lease, |own| &own.lease).clone()
    }

    /// Which start this is, as the server is told.
    fn label(&self) -> String {
        let kind = if self.own.is_some() { "own-" } else { "" };
        format!("{}/{kind}{}", self.board.id, self.generation)
    }
}

fn handshake_failure(error: CallError) -> Exit {
    match error {
        CallError::Inactive { .. } => Exit::of(Reason::HandshakeTimeout),
        other => Exit::new(Reason::HandshakeFailed, other.to_string()),
    }
}

/// Does what is left to be done about something that an upstream said of itself.
fn carry_out(
    clients: &dyn Clients,
    server: Uuid,
    aside: Aside,
    changed: &Announcements,
    say: impl FnOnce(Bytes),
) {
    match aside {
        Aside::Settled => {}
        Aside::Say(answer) => say(answer),
        Aside::ToClient(client, unasked) => clients.say(server, &client, unasked),
        Aside::Updated(subscribers, note) => {
            for client in subscribers {
                clients.say(server, &client, Unasked::Updated(note.clone()));
            }
        }
        Aside::TaskStatus(owner, maker, note) => {
            clients.say_to_owner(server, &owner, &maker, &note)
        }
        Aside::ToAll(note) => clients.say_to_all(server, &note),
        Aside::ListChanged(topic) => changed.hear(topic),
    }
}
