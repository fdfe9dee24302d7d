//! `metamcpd connect`: stdio on one side, an endpoint on the other, for clients that only start
//! processes.
//!
//! Messages pass byte for byte, both ways and at once. The bridge keeps what the client must not
//! notice: sessions, streams, and a daemon that restarts. What is sent again is only what certainly
//! nobody has executed; everything else that fails is answered with its cause.
//!
//! `failure` and `memory` decide; `streamable` and `event_stream` speak one transport each; `sessions`
//! begins, renews and ends; `bridge` hears the client.

mod bridge;
mod caller;
mod event_stream;
mod failure;
mod memory;
mod sessions;
mod streamable;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use url::Url;

pub use failure::Failure;

use crate::{egress::Egress, wire::Frame};
use bridge::Bridge;
use memory::Memory;

/// Objects and arrays within each other, as `wire.depth_max` has it for the daemon.
const DEPTH_MAX: usize = 512;

/// Messages that wait for the client to read them before the streams have to wait too.
const OUT_MAX: usize = 32;

/// How long one handshake may take. Most clients give up after a minute.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(30);

/// How long a message without an answer may take to be received.
const TELL_PATIENCE: Duration = Duration::from_secs(5);

/// How long an answer is waited for that the client has cancelled: it may be on its way.
const CANCELLED_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last lines may take to be read by the client.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a bridge is made from.
pub struct Options {
    /// An endpoint's URL, for either transport.
    pub url: Url,
    /// Sent with every request; the key among them.
    pub headers: HeaderMap,
    /// Whether to speak HTTP+SSE (2024-11-05) from the start.
    pub sse: bool,
    /// Requests of the client that may be without an answer.
    pub in_flight_max: usize,
    /// Bytes of one message, either way.
    pub message_max: usize,
    /// How long a request waits for an endpoint that is away.
    pub away_max: Duration,
    /// How long what is in flight may take once the client has closed our input.
    pub linger: Duration,
}

/// Carries messages until the client closes `stdin`, or `stop` says so, or no session can ever be
/// begun, which is the only failure.
pub async fn run<R, W>(
    options: Options,
    egress: &Egress,
    stdin: R,
    stdout: W,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (out, lines) = mpsc::channel(OUT_MAX);
    let mut writer = tokio::spawn(write(stdout, lines));
    let bridge = Bridge::new(options, egress, out)?;
    let hearing = async {
        bridge.listen(stdin).await;
        bridge.finish().await;
    };
    tokio::select! {
        () = hearing => {}
        () = bridge.hopeless.cancelled() => {}
        () = stop => {}
        // Nobody reads our answers any more.
        _ = &mut writer => {}
    }
    bridge.end().await;
    let hopeless = bridge.why_hopeless();
    drop(bridge);
    if !writer.is_finished() && timeout(LAST_WORDS, writer).await.is_err() {
        tracing::debug!("the client did not read the last lines");
    }
    hopeless.map_or(Ok(()), Err)
}

/// Writes one message a line, and nothing else.
async fn write<W: AsyncWrite + Unpin>(mut stdout: W, mut lines: mpsc::Receiver<Bytes>) {
    while let Some(line) = lines.recv().await {
        let written = async {
            stdout.write_all(&line).await?;
            stdout.write_all(b"\n").await?;
            stdout.flush().await
        };
        if let Err(error) = written.await {
            tracing::debug!(%error, "the client is gone");
            return;
        }
    }
}

/// What hears the server's own words within one session.
#[derive(Clone)]
struct Ear {
    out: mpsc::Sender<Bytes>,
    memory: Arc<Mutex<Memory>>,
    generation: u64,
}

impl Ear {
    /// Hands a message on to the client, as soon as it reads.
    async fn hear(&self, frame: Frame) {
        {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.note_asked(&frame, self.generation);
        }
        if self.out.send(frame.bytes().clone()).await.is_err() {
            tracing::trace!("the client is gone");
        }
    }
}

/// The rests between attempts, each twice the last up to a limit.
struct Pause {
    next: Duration,
    max: Duration,
}

impl Default for Pause {
    /// The limit keeps a restart short.
    fn default() -> Self {
        Self { next: Duration::from_millis(100), max: Self::MAX }
    }
}

impl Pause {
    const MAX: Duration = Duration::from_secs(2);

    /// For what only a person can mend: it may take days, and is no reason to knock all the while.
    fn patient() -> Self {
        Self { max: Duration::from_secs(60), ..Self::default() }
    }

    async fn rest(&mut self) {
        sleep(self.next).await;
        self.next = (self.next * 2).min(self.max);
    }

    /// Whether the rest ends before `deadline`.
    fn fits(&self, deadline: Instant) -> bool {
        Instant::now() + self.next < deadline
    }
}
