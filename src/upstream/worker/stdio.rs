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
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    process::{ChildStderr, ChildStdin},
    sync::OwnedSemaphorePermit,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_process_stream::ProcessChunkStream;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Assignment, News, introduce, keep_listed,
    lifeline::{
        self, Ending, Launch, LifelineGuard, Report, SpawnError, StopGrace, Stopped, Turn,
        child_environment,
    },
    own_process::{self, Scribe},
    stdio_streams::{Hearer, Unheard, WriteEnd, has_more, read_stderr, read_stdout, write_stdin},
    watch_answers,
};
use crate::upstream::{
    CallError, Exit, Reason, dialogue::Dialogue, link::Link, pipe::Pipe, status::ExitCode,
    task_talk::TaskTalk, variables::resolve,
};

/// How soon what does not end is killed once more.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How long the report of a server's end may follow the end of its stdout.
const REPORT_PATIENCE: Duration = Duration::from_millis(250);

/// How long its last words, on stdout and on stderr, may each follow its end.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(100);

/// How long they may go on, where somebody else goes on speaking on its stdout.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// How long what it was answered last may take to be written to it. That it reads nothing is not to make its
/// end longer than `upstream.stop` says by much.
const FAREWELL_PATIENCE: Duration = Duration::from_millis(400);

/// Why nothing is started beside what nobody can end, such as a process that hangs in the kernel.
const STILL_THERE: &str = "what is left of its earlier process was killed and does not end, and two are never \
    run at once: see what holds it (`ps -o pid,stat,wchan,cmd`)";

/// Why more is not known of the end of a server whose guard is stopped, or hangs.
const UNREPORTED: &str = "the server has ended, and the process that guards it does not say how";

pub async fn work(
    assignment: &Assignment,
    command: &str,
    args: &[String],
    env: &BTreeMap<String, String>,
) -> Exit {
    let board = &assignment.board;
    let oom_kills = lifeline::processes::oom_kills();
    let starting = async {
        // The process of an earlier generation must be gone before the next one starts.
        match timeout(board.start_patience(), assignment.lease().acquire_owned()).await {
            Ok(Ok(lease)) => start(assignment, command, args, env, lease).await,
            Ok(Err(_closed)) => Err(Exit::of(Reason::SpawnFailed)),
            Err(_elapsed) => Err(Exit::new(Reason::SpawnFailed, STILL_THERE)),
        }
    };
    let started = tokio::select! {
        biased;
        // A start may have to wait for that, and for its turn. One that is under way is ended by its
        // lifeline.
        () = assignment.stop.cancelled() => return Exit::of(Reason::Asked),
        started = starting => started,
    };
    let (mut server, turn, pid) = match started {
        Ok(started) => started,
        Err(exit) => return exit,
    };
    let name: Arc<str> = Arc::from(&*board.spec().name);
    let key = assignment.key();
    let tasks = &board.port.tasks;
    let talk = TaskTalk::new(tasks.clone(), key.clone(), Uuid::new_v4());
    let dialogue = Dialogue::new(assignment.scope(), assignment.workshop.dialogue)
        .with_subscriptions(board.port.subscriptions.clone(), key.clone())
        .with_tasks(talk);
    let queue_max = assignment.workshop.queue_max;
    let (pipe, queue) = Pipe::new(name.clone(), queue_max, Arc::new(dialogue));
    let conduct = own_process::conduct(assignment, &pipe);
    let closer = Closer { pipe: pipe.clone(), server: name };
    let changed = &board.port.processes.changed;
    let scribe = Scribe::of(assignment);
    let (Some(stdin), Some(stderr), Some(child)) =
        (server.streams.0.take(), server.streams.1.take(), server.child.as_mut())
    else {
        return Exit::new(Reason::SpawnFailed, "its streams are not there");
    };
    // Were it left unread, a server that complains much would stand still one day.
    let unread = CancellationToken::new();
    let mut errors = Task::spawn({
        let (unread, reading) = (unread.clone(), read_stderr(stderr, scribe.clone()));
        async move {
            if AssertUnwindSafe(reading).catch_unwind().await.is_err() {
                unread.cancel();
            }
        }
    });
    let mut writer =
        Task::spawn(write_stdin(stdin, queue, assignment.workshop.options.write_timeout));

    let link = Link::Pipe(pipe.clone());
    let serve = async {
        if let Some(own) = &assignment.own {
            return Err(own_process::serve(assignment, own, &pipe, &conduct, turn).await);
        }
        let introduced = introduce(assignment, &link).await;
        drop(turn);
        introduced?;
        own_process::admit(assignment);
        let exit = tokio::select! {
            exit = keep_listed(assignment, &link, changed) => exit,
            exit = watch_answers(assignment, &link, &conduct) => exit,
        };
        Err::<Infallible, Exit>(exit)
    };
    let struck = RefCell::default();
    let (struck, conduct) = (&struck, &*conduct);
    let hearer = Hearer { assignment, pipe: &pipe, conduct, changed, struck, scribe: &scribe };
    let mut unheard = Unheard::new(assignment.workshop.frames.message_max);
    let died = async {
        match &server.guard {
            Some(guard) => guard.death_of(pid).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        biased;
        () = assignment.stop.cancelled() => Ended::Told,
        ending = server.report.exit() => Ended::Reported(ending),
        () = read_stdout(child, &mut unheard, server.stdout_end.as_ref(), &hearer) => {
            Ended::Silent
        },
        end = &mut writer.handle => match end {
            Ok(WriteEnd::Stalled) => Ended::Stalled,
            Ok(WriteEnd::Closed | WriteEnd::Finished) => Ended::Silent,
            Err(_panicked) => Ended::Failed(panicked("writes to")),
        },
        () = unread.cancelled() => Ended::Failed(panicked("reads from")),
        Err(exit) = serve => Ended::Failed(exit),
        () = died => Ended::Unreported,
    };
    let exit = match ended {
        Ended::Silent if struck.borrow().is_some() => {
            struck.take().unwrap_or(Exit::of(Reason::ProtocolError))
        }
        Ended::Told => Exit::of(Reason::Asked),
        Ended::Failed(exit) => exit,
        Ended::Stalled => Exit::of(Reason::StdinStalled),
        Ended::Reported(ending) => exit_of(ending, oom_kills),
        Ended::Silent => match timeout(REPORT_PATIENCE, server.report.exit()).await {
            Ok(ending) => exit_of(ending, oom_kills),
            Err(_elapsed) => Exit::of(Reason::StdoutClosed),
        },
        Ended::Unreported => match timeout(REPORT_PATIENCE, server.report.exit()).await {
            Ok(ending) => exit_of(ending, oom_kills),
            Err(_elapsed) => Exit::new(Reason::GuardLost, UNREPORTED),
        },
    };
    if exit.reason == Reason::Asked {
        // What it was answered last, before its stdin is closed.
        drop(timeout(FAREWELL_PATIENCE, pipe.is_written()).await);
    }
    drop(writer);
    if !matches!(exit.reason, Reason::Asked | Reason::StdinStalled) {
        // The news of its end can overtake what it answered just before.
        let stdout_end = server.stdout_end.as_ref();
        {
            let mut rest = pin!(read_stdout(child, &mut unheard, stdout_end, &hearer));
            let over = Instant::now() + LAST_WORDS_MAX;
            // What it wrote is in the pipe; a busy machine may leave us no time to have read it yet.
            while timeout(LAST_WORDS_PATIENCE, &mut rest).await.is_err()
                && Instant::now() < over
                && stdout_end.is_some_and(has_more)
            {}
        }
        // A long one may still be looked at.
        unheard.hear_out(&hearer).await;
    }
    if exit.reason != Reason::Asked {
        drop(timeout(LAST_WORDS_PATIENCE, &mut errors.handle).await);
    }
    scribe.lose(&exit, &assignment.workshop);
    closer.close(exit.reason, Some(scribe.describe(&exit)));
    tasks.forget(&key);
    let exit = server.end(assignment, exit).await;
    drop(errors);
    exit
}

/// What nobody can catch, and the kernel uses when memory is short.
const SIGKILL: i32 = 9;

/// Why the worker has come to its end.
enum Ended {
    Told,
    Silent,
    /// Its process has ended, and its guard has not said so yet.
    Unreported,
    Stalled,
    Reported(Ending),
    Failed(Exit),
}

fn panicked(does: &str) -> Exit {
    Exit::new(Reason::Panicked, format!("what {does} this server panicked"))
}

/// `oom_kills` is how often the kernel had killed for want of memory when the server was started.
fn exit_of(ending: Ending, oom_kills: u64) -> Exit {
    match ending {
        Ending::Lost => Exit::of(Reason::GuardLost),
        Ending::Exited(exit) => {
            let reason = if exit.signal.is_some() { Reason::Killed } else { Reason::Exited };
            let code = ExitCode { code: exit.code, signal: exit.signal };
            // The kernel's count names nobody, so that this is as much as can be said.
            let is_likely =
                exit.signal == Some(SIGKILL) && lifeline::processes::oom_kills() > oom_kills;
            let detail = is_likely.then(|| "most likely by the kernel, for want of memory".into());
            Exit { detail, code: Some(code), ..Exit::of(reason) }
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
) -> Result<(Server, Turn, u32), Exit> {
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
    Ok((server, spawned.turn, pid))
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
        if let (Some(child), Some(guard)) =
            (self.child.as_mut().and_then(ProcessChunkStream::child_mut), self.guard.as_mut())
        {
            let stopped = lifeline::stop(child, guard, grace).await;
            let server = &*assignment.board.spec().name;
            match stopped {
                Stopped::StillDying => tracing::warn!(
                    server,
                    "what is left of its process tree was killed and does not end; it is tried again"
                ),
                Stopped::ByItself | Stopped::OnTerm | Stopped::Killed => {
                    tracing::debug!(server, ?stopped, "the process tree has ended");
                }
            }
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
        let (child, guard, lease) = (self.child.take(), self.guard.take(), self.lease.take());
        let (Some(mut child), Some(mut guard)) = (child, guard) else { return };
        guard.cut();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Some(shim) = child.child_mut() {
                    while guard.fell(shim).await == Stopped::StillDying {
                        sleep(TRY_AGAIN).await;
                    }
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
