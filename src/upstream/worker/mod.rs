//! The only rooms that touch processes and upstream sockets.
//!
//! A worker is one life of an upstream: from its start to its end, whichever way that comes. It is
//! always fresh, tells its actor what happens, and decides nothing about what happens next.

mod belonging;
mod dialects;
mod event_stream;
pub mod lifeline;
mod listing;
mod messages;
mod opening;
pub mod remote;
pub mod remote_call;
mod remote_life;
mod remote_session;
mod remote_stream;
mod resubscription;
mod standing;
mod stdio;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    CallError, Clients, Exit, Isolation, Reason,
    board::Board,
    dialogue::{Aside, DialogueOptions, Unasked},
    exchange::SessionKey,
    handshake,
    link::{Link, bridged},
    lists::ListOptions,
    spec::Transport,
};
use crate::{
    catalogue::{
        item::{BadItem, Item},
        kind::Kind,
    },
    egress::Egress,
};
use lifeline::{Lifeline, StopGrace};
use listing::{Announcements, keep_listed};
use remote::Speech;
use remote_stream::ResumeOptions;

/// The limits of `upstream` in the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerOptions {
    /// How long a start, a handshake and a list may each take, unless the row says otherwise.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long a server that is stopped has for each of its two goodbyes.
    pub stop: StopGrace,
    /// How long a server may read nothing while something waits for it.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// The pace of asking a remote upstream whether it is still there. Zero: never.
    #[serde(with = "humantime_serde")]
    pub ping_every: Duration,
    /// How long an HTTP+SSE server may take to say where messages go.
    #[serde(with = "humantime_serde")]
    pub endpoint_wait: Duration,
    /// Sessions that one remote upstream may hold for our clients.
    pub sessions_max: usize,
    /// After so long without a call, a client's session of a remote upstream is ended.
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
    let server: Arc<str> = Arc::from(&*spec.name);
    let patience = spec.connect_timeout;
    let answer = match link {
        Link::Pipe(pipe) => {
            // A process has one session, which all its clients share.
            let greeting = handshake::initialize_params(bridged(Isolation::Shared));
            let answer = link.ask(&server, "initialize", &greeting, patience).await;
            let answer = answer.map_err(handshake_failure)?;
            let introduction = handshake::introduction(&answer)?;
            pipe.say(crate::wire::message::notification("notifications/initialized", b""));
            pipe.set_has_logging(introduction.has_logging);
            if let Some(level) = assignment.board.port.levels.of(&SessionKey::Shared) {
                link.set_level(&SessionKey::Shared, level);
            }
            introduction
        }
        Link::Remote(remote) => match tokio::time::timeout(patience, remote.introduce()).await {
            Ok(introduced) => introduced?,
            Err(_elapsed) => return Err(Exit::of(Reason::HandshakeTimeout)),
        },
    };
    assignment.board.nested.set_is_gateway(answer.is_gateway);
    assignment.board.port.set_has_subscriptions(answer.has_subscriptions);
    assignment.board.port.set_has_tasks(answer.has_tasks);
    listing::first(assignment, link, &answer.offers).await?;
    let handshake::Introduction { version, instructions, has_subscriptions, .. } = answer;
    (assignment.tell)(News::Ready { link: link.clone(), version, instructions });
    if has_subscriptions {
        link.subscribe_again(&assignment.board.port.subscriptions);
    }
    Ok(())
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
