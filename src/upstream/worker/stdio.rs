//! A server as a child process: its three streams, and its end.
//!
//! What is said over the pipe is `pipe`'s affair; how the process tree is started and killed is
//! `lifeline`'s. Here the two are joined, each stream in a task of its own, so that none can hold
//! up another.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    convert::Infallible,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{ChildStderr, ChildStdin},
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_process_stream::{Item, ProcessChunkStream};
use tokio_stream::StreamExt;
use uuid::Uuid;

use super::{
    Assignment, News, carry_out, introduce, keep_listed,
    lifeline::{
        self, Ending, Launch, LifelineGuard, Report, SpawnError, StopGrace, Turn, child_environment,
    },
    listing::Announcements,
    own_process::{self, Scribe},
    watch_answers,
};
use crate::{
    upstream::{
        CallError, Exit, Reason,
        board::Board,
        conduct::Offence,
        dialogue::Dialogue,
        link::Link,
        pipe::Pipe,
        status::{ExitCode, Output},
        task_talk::TaskTalk,
        variables::resolve,
    },
    wire::{
        Frame,
        lines::{Line, Lines, without_lead},
    },
};

/// How often it is looked whether stdout was closed, and which calls nobody waits for any more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the report of a server's end may follow the end of its stdout.
const REPORT_PATIENCE: Duration = Duration::from_millis(250);

/// How long its last words, on stdout and on stderr, may each follow its end.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(100);

pub async fn work(
    assignment: &Assignment,
    command: &str,
    args: &[String],
    env: &BTreeMap<String, String>,
) -> Exit {
    let board = &assignment.board;
    // The process of an earlier generation must be gone before the next one starts.
    let Ok(lease) = assignment.lease().acquire_owned().await else {
        return Exit::of(Reason::SpawnFailed);
    };
    let starting = start(assignment, command, args, env, lease);
    let started = tokio::select! {
        biased;
        // A start may have to wait for its turn. One that is under way is ended by its lifeline.
        () = assignment.stop.cancelled() => return Exit::of(Reason::Asked),
        started = starting => started,
    };
    let (mut server, turn) = match started {
        Ok(started) => started,
        Err(exit) => return exit,
    };
    let name: Arc<str> = Arc::from(&*board.spec().name);
    let key = assignment.key();
    let talk = TaskTalk::new(board.port.tasks.clone(), key.clone(), Uuid::new_v4());
    let dialogue = Dialogue::new(assignment.scope(), assignment.workshop.dialogue)
        .with_subscriptions(board.port.subscriptions.clone(), key)
        .with_tasks(talk);
    let queue_max = assignment.workshop.queue_max;
    let (pipe, queue) = Pipe::new(name.clone(), queue_max, Arc::new(dialogue));
    let closer = Closer { pipe: pipe.clone(), server: name };
    let changed = &board.port.processes.changed;
    let scribe = Scribe::of(assignment);
    let (Some(stdin), Some(stderr), Some(child)) =
        (server.streams.0.take(), server.streams.1.take(), server.child.as_mut())
    else {
        return Exit::new(Reason::SpawnFailed, "its streams are not there");
    };
    let mut errors = Task::spawn(read_stderr(stderr, scribe.clone()));
    let mut writer =
        Task::spawn(write_stdin(stdin, queue, assignment.workshop.options.write_timeout));

    let link = Link::Pipe(pipe.clone());
    let serve = async {
        if let Some(own) = &assignment.own {
            return Err(own_process::serve(assignment, own, &pipe, turn).await);
        }
        let introduced = introduce(assignment, &link).await;
        drop(turn);
        introduced?;
        own_process::admit(assignment);
        let exit = tokio::select! {
            exit = keep_listed(assignment, &link, changed) => exit,
            exit = watch_answers(assignment, &link) => exit,
        };
        Err::<Infallible, Exit>(exit)
    };
    let struck = RefCell::default();
    let hearer = Hearer { assignment, pipe: &pipe, changed, struck: &struck, scribe: &scribe };
    let mut lines = Lines::new(assignment.workshop.frames.message_max);
    let ended = tokio::select! {
        biased;
        () = assignment.stop.cancelled() => Ended::Told,
        ending = server.report.exit() => Ended::Reported(ending),
        () = read_stdout(child, &mut lines, server.stdout_end.as_ref(), &hearer) => Ended::Silent,
        end = &mut writer.handle => match end {
            Ok(WriteEnd::Stalled) => Ended::Stalled,
            Ok(WriteEnd::Closed | WriteEnd::Finished) | Err(_) => Ended::Silent,
        },
        Err(exit) = serve => Ended::Failed(exit),
    };
    let exit = match ended {
        Ended::Silent if struck.borrow().is_some() => {
            struck.take().unwrap_or(Exit::of(Reason::ProtocolError))
        }
        Ended::Told => Exit::of(Reason::Asked),
        Ended::Failed(exit) => exit,
        Ended::Stalled => Exit::of(Reason::StdinStalled),
        Ended::Reported(ending) => exit_of(ending),
        Ended::Silent => match timeout(REPORT_PATIENCE, server.report.exit()).await {
            Ok(ending) => exit_of(ending),
            Err(_elapsed) => Exit::of(Reason::StdoutClosed),
        },
    };
    if exit.reason == Reason::Asked {
        // What it was answered last, before its stdin is closed.
        drop(timeout(LAST_WORDS_PATIENCE, pipe.is_written()).await);
    }
    drop(writer);
    if !matches!(exit.reason, Reason::Asked | Reason::StdinStalled) {
        // The news of its end can overtake what it answered just before.
        let stdout_end = server.stdout_end.as_ref();
        let rest = read_stdout(child, &mut lines, stdout_end, &hearer);
        drop(timeout(LAST_WORDS_PATIENCE, rest).await);
    }
    if exit.reason != Reason::Asked {
        drop(timeout(LAST_WORDS_PATIENCE, &mut errors.handle).await);
    }
    scribe.lose(&exit, &assignment.workshop);
    closer.close(exit.reason, Some(scribe.describe(&exit)));
    let exit = server.end(assignment, exit).await;
    drop(errors);
    exit
}

/// Why the worker has come to its end.
enum Ended {
    Told,
    Silent,
    Stalled,
    Reported(Ending),
    Failed(Exit),
}

fn exit_of(ending: Ending) -> Exit {
    match ending {
        Ending::Lost => Exit::of(Reason::GuardLost),
        Ending::Exited(exit) => {
            let reason = if exit.signal.is_some() { Reason::Killed } else { Reason::Exited };
            let code = ExitCode { code: exit.code, signal: exit.signal };
            Exit { reason, detail: None, code: Some(code) }
        }
    }
}

// === Start and end ===

async fn start(
    assignment: &Assignment,
    command: &str,
    args: &[String],
    env: &BTreeMap<String, String>,
    lease: OwnedSemaphorePermit,
) -> Result<(Server, Turn), Exit> {
    let (board, workshop) = (&assignment.board, &assignment.workshop);
    let allowed = board.spec().may_use_variables;
    let mut configured = BTreeMap::new();
    for (name, value) in env {
        let resolved = resolve(value, allowed, |name| std::env::var(name).ok())
            .map_err(|error| Exit::new(error.reason(), format!("env `{name}`: {error}")))?;
        if resolved != *value {
            board.stderr.hide_value(&resolved);
        }
        configured.insert(name.clone(), resolved);
    }
    let own = workshop.own_exe.to_string_lossy();
    // A first run has nothing but this binary, which need not be on the PATH.
    let program = if command == "metamcpd" { &*own } else { command };
    let confinement = workshop.confinement(board)?;
    if let Some(confinement) = &confinement {
        confinement.settle(&mut configured);
    }
    let environment = child_environment(std::env::vars(), &configured);
    let label = assignment.label();
    let cwd = confinement.as_ref().map(|confinement| confinement.home.as_path());
    let confinement = confinement.as_ref();
    let launch = Launch { label: &label, program, args, env: &environment, cwd, confinement };
    let spawned = workshop.lifeline.spawn(&launch).await.map_err(not_started)?;
    let mut child = spawned.child;
    let streams = (child.stdin.take(), child.stderr.take());
    let stdout_end =
        child.stdout.as_ref().and_then(|stdout| stdout.as_fd().try_clone_to_owned().ok());
    let mut server = Server {
        child: Some(ProcessChunkStream::from(child)),
        streams,
        stdout_end,
        guard: Some(spawned.guard),
        report: spawned.report,
        lease: Some(lease),
    };
    let patience = board.start_patience();
    let pid = match timeout(patience, server.report.pid()).await {
        Ok(Ok(pid)) => pid,
        Ok(Err(error)) => return Err(not_started(error)),
        Err(_elapsed) => return Err(Exit::new(Reason::SpawnFailed, "it took too long to start")),
    };
    (assignment.tell)(News::Running { pid });
    Ok((server, spawned.turn))
}

fn not_started(error: SpawnError) -> Exit {
    let reason = match &error {
        SpawnError::NotFound { .. } => Reason::CommandNotFound,
        SpawnError::NotPermitted { .. } | SpawnError::NotExecutable { .. } => {
            Reason::CommandNotExecutable
        }
        SpawnError::BadWord(_) | SpawnError::WorkingDirectory { .. } => Reason::ConfigInvalid,
        SpawnError::NotConfined { .. }
        | SpawnError::Exhausted { .. }
        | SpawnError::Shim { .. }
        | SpawnError::ShimLost => Reason::SpawnFailed,
    };
    Exit::new(reason, error.to_string())
}

/// A running server. However this value ends, the process tree does too, and the lease is given
/// back only when the tree is gone.
struct Server {
    child: Option<ProcessChunkStream>,
    streams: (Option<ChildStdin>, Option<ChildStderr>),
    /// A second handle of its stdout, to see it closed: the chunk stream tells of the end of the
    /// process only.
    stdout_end: Option<OwnedFd>,
    guard: Option<LifelineGuard>,
    report: Report,
    lease: Option<OwnedSemaphorePermit>,
}

impl Server {
    /// Ends what is left of the tree, and says how the server ended if nobody has seen it yet.
    async fn end(mut self, assignment: &Assignment, mut exit: Exit) -> Exit {
        let configured = assignment.workshop.options.stop;
        let grace = match exit.reason {
            Reason::Asked => configured,
            // It has ended, or cannot be talked to any more.
            _ => StopGrace { stdin_close: Duration::ZERO, ..configured },
        };
        drop(std::mem::take(&mut self.streams));
        let guard = self.guard.take();
        if let (Some(child), Some(guard)) =
            (self.child.as_mut().and_then(ProcessChunkStream::child_mut), guard)
        {
            let stopped = lifeline::stop(child, guard, grace).await;
            tracing::debug!(server = %assignment.board.spec().name, ?stopped, "the process tree has ended");
        }
        if exit.code.is_none()
            && let Ok(Ending::Exited(ending)) = timeout(REPORT_PATIENCE, self.report.exit()).await
        {
            exit.code = Some(ExitCode { code: ending.code, signal: ending.signal });
        }
        exit
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Closing the lifeline has the tree killed; the next generation waits until it is.
        drop(self.guard.take());
        let (child, lease) = (self.child.take(), self.lease.take());
        if let (Some(mut child), Ok(runtime)) = (child, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                if let Some(shim) = child.child_mut() {
                    drop(shim.wait().await);
                }
                drop(lease);
            });
        }
    }
}

// === The streams ===

/// A task that ends with this value.
struct Task<T> {
    handle: JoinHandle<T>,
}

impl<T: 'static> Task<T> {
    fn spawn(work: impl Future<Output = T> + 'static) -> Self {
        Self { handle: actix::spawn(work) }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Ends the calls of a pipe, even when the worker is aborted or panics.
struct Closer {
    pipe: Arc<Pipe>,
    server: Arc<str>,
}

impl Closer {
    fn close(&self, reason: Reason, detail: Option<String>) {
        self.pipe.close(CallError::Ended { server: self.server.clone(), reason, detail });
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.close(Reason::Panicked, None);
    }
}

/// Reads until the server has closed its stdout or ended, or has done too much of what it must not.
async fn read_stdout(
    child: &mut ProcessChunkStream,
    lines: &mut Lines,
    stdout_end: Option<&OwnedFd>,
    hearer: &Hearer<'_>,
) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            item = child.next() => match item {
                Some(Item::Stdout(chunk)) => {
                    let mut heard = 0;
                    for line in lines.push(chunk) {
                        hearer.hear(line);
                        heard += 1;
                        if hearer.struck.borrow().is_some() {
                            return;
                        }
                    }
                    give_way(heard).await;
                }
                Some(Item::Stderr(_)) => {}
                Some(Item::Done(_)) | None => return,
            },
            _ = look.tick() => {
                hearer.pipe.expire(Instant::now());
                if stdout_end.is_some_and(is_closed) {
                    return;
                }
            }
        }
    }
}

/// Gives others their turn after many lines. A server that never stops would have more than a hundred
/// pieces read before that: so much may a task read at once, however long each piece takes.
async fn give_way(lines: usize) {
    /// What comes of calls by the dozen is worth no detour.
    const AT_ONCE_MAX: usize = 16;
    if lines > AT_ONCE_MAX {
        tokio::task::yield_now().await;
    }
}

/// Whether everyone who could write into the pipe has gone and everything was read.
fn is_closed(stdout: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(stdout, PollFlags::IN)];
    let ready = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    let flags = fds[0].revents();
    ready.is_ok() && flags.contains(PollFlags::HUP) && !flags.contains(PollFlags::IN)
}

/// What the lines of a server's stdout are taken to.
struct Hearer<'a> {
    assignment: &'a Assignment,
    pipe: &'a Arc<Pipe>,
    changed: &'a Announcements,
    /// Why the server has to be started anew, once that is so.
    struck: &'a RefCell<Option<Exit>>,
    scribe: &'a Scribe,
}

impl Hearer<'_> {
    fn hear(&self, line: Line) {
        let Assignment { board, workshop, .. } = self.assignment;
        let frames = workshop.frames;
        let noise = |what: String| {
            metrics::counter!("metamcpd_upstream_noise_total").increment(1);
            self.scribe.wrote(Output::Stdout, &what);
            self.strike(Offence::Noise);
        };
        let frame = match line {
            Line::TooLong(torn) => {
                let (bytes, max) = (torn.bytes, frames.message_max);
                let why = format!(
                    "a line of {bytes} bytes is over the limit of {max} (`wire.message_max`)"
                );
                if let Some(id) = torn.id() {
                    self.pipe.refuse(id, &why);
                }
                self.strike(Offence::Oversized);
                return noise(why);
            }
            Line::Whole(line) => match Frame::parse(line.clone(), frames.depth_max)
                .or_else(|_| Frame::parse(without_lead(&line), frames.depth_max))
            {
                Ok(frame) => frame,
                Err(_no_message) => return noise(beginning(&line, board)),
            },
        };
        let unasked = self.pipe.unasked();
        let aside = self.pipe.hear(frame);
        if self.pipe.unasked() > unasked {
            self.strike(Offence::Unasked);
        }
        let say = |answer| self.pipe.say(answer);
        carry_out(&*workshop.clients, board.id, aside, self.changed, say);
    }

    fn strike(&self, offence: Offence) {
        if let Some(exit) = self.assignment.board.port.conduct.offends(offence) {
            self.struck.borrow_mut().get_or_insert(exit);
        }
    }
}

/// Enough of a line to recognise it. What is secret is hidden first: a part of it would not be found.
fn beginning(line: &[u8], board: &Board) -> String {
    const BYTES_MAX: usize = 4 * 1024;
    const LENGTH_MAX: usize = 300;
    let line = String::from_utf8_lossy(&line[..line.len().min(BYTES_MAX)]);
    board.stderr.hidden(&line).chars().take(LENGTH_MAX).collect()
}

/// Why nothing more is written.
enum WriteEnd {
    Finished,
    /// The server reads nothing.
    Stalled,
    /// The server has closed its stdin.
    Closed,
}

/// Writes what is queued, as many messages at once as are there.
async fn write_stdin(
    mut stdin: ChildStdin,
    mut queue: mpsc::Receiver<Bytes>,
    patience: Duration,
) -> WriteEnd {
    /// Enough to fill a pipe's buffer with one write.
    const BATCH_MAX: usize = 64 * 1024;
    let mut batch = Vec::new();
    while let Some(mut line) = queue.recv().await {
        loop {
            batch.extend_from_slice(&line);
            batch.push(b'\n');
            if batch.len() >= BATCH_MAX {
                break;
            }
            match queue.try_recv() {
                Ok(next) => line = next,
                Err(_none_waiting) => break,
            }
        }
        match timeout(patience, stdin.write_all(&batch)).await {
            Ok(Ok(())) => {}
            Ok(Err(_closed)) => return WriteEnd::Closed,
            Err(_elapsed) => return WriteEnd::Stalled,
        }
        batch.clear();
        batch.shrink_to(BATCH_MAX);
    }
    WriteEnd::Finished
}

/// Always drained, so that a server which floods it is never held up by us.
async fn read_stderr(mut stderr: impl AsyncRead + Unpin, scribe: Scribe) {
    const LINE_MAX: usize = 8 * 1024;
    let mut lines = Lines::new(LINE_MAX);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let mut read = 0;
        for line in lines.push(Bytes::copy_from_slice(&buffer[..count])) {
            read += 1;
            match line {
                Line::Whole(line) => scribe.wrote(Output::Stderr, &String::from_utf8_lossy(&line)),
                Line::TooLong(torn) => {
                    scribe.wrote(Output::Stderr, &format!("[a line of {} bytes]", torn.bytes));
                }
            }
        }
        give_way(read).await;
    }
}

#[cfg(test)]
#[path = "stdio_tests.rs"]
mod tests;
