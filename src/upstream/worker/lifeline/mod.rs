//! Starts and ends a STDIO server together with everything it starts itself.
//!
//! A server runs under a shim: this very binary, executed again, which owns the server's process
//! tree and kills all of it when its socket to the daemon closes, however the daemon ended, or
//! when the server itself ends. The server's standard streams are its own; no byte passes through
//! the shim. When to start and when to stop is decided elsewhere, and so is what is read and
//! written. A container, which is another daemon's child, is ended through that daemon (`containers`).

mod brakes;
pub mod confinement;
pub mod containers;
pub mod environment;
mod orders;
mod orphans;
pub mod processes;
mod report;
mod stopping;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

pub use brakes::{SpawnOptions, Turn};
pub use environment::{BadWord, child_environment};
pub use orders::{ChildOptions, Orders};
pub use orphans::{OrphanReaper, Survivors, become_subreaper, sweep};
pub use report::{Ending, Fact, Report, ServerExit, SpawnError, Step};
pub use stopping::{LifelineGuard, StopGrace, Stopped, stop};

use brakes::Brakes;
use confinement::Confinement;
use orphans::Shims;

/// The word after the program's name that makes it a shim.
pub const SHIM_WORD: &str = "shim";

/// How a shim is called in a list of processes; the kernel keeps 15 bytes.
pub const SHIM_NAME: &str = "metamcpd-shim";

/// Sent over the lifeline: the server's three streams come with this byte.
pub const STREAMS: u8 = b'S';

/// Sent over the lifeline: ask the server's process group to end.
pub const TERMINATE: u8 = b'T';

/// How to start servers so that none outlives us. Clones share what they have started.
#[derive(Clone, Debug)]
pub struct Lifeline {
    exe: PathBuf,
    instance: String,
    shims: Arc<Shims>,
    brakes: Arc<Brakes>,
    children: ChildOptions,
    /// How many files a server may have open; what we may, if `None`.
    files: Option<Rlimit>,
}

/// One server to start.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Which upstream it is for and which start this is; shown to the server and in `ps e`.
    pub label: &'a str,
    /// A path, or a name to be looked up in the child's own `PATH`.
    pub program: &'a str,
    pub args: &'a [String],
    /// The complete environment: nothing is inherited. See [`child_environment`].
    pub env: &'a BTreeMap<String, String>,
    /// Where it stands; where the daemon stands if `None`.
    pub cwd: Option<&'a Path>,
    /// What it may not do.
    pub confinement: Option<&'a Confinement>,
}

/// A shim that has been started. Whether the server could be, its report tells.
#[derive(Debug)]
pub struct Spawned {
    /// The shim's process, and the server's streams. It ends when the whole tree has.
    pub child: Child,
    pub guard: LifelineGuard,
    pub report: Report,
    /// To be dropped when the start is over, whichever way: the next one may then begin.
    pub turn: Turn,
}

impl Lifeline {
    /// `exe` is this program, usually `/proc/self/exe`, which stays right when the file is
    /// replaced. `instance` is the id of the data directory.
    pub fn new(exe: PathBuf, instance: String, spawns: SpawnOptions) -> Lifeline {
        let (brakes, children) = (Arc::new(Brakes::new(spawns)), ChildOptions::default());
        Lifeline { exe, instance, shims: Arc::default(), brakes, children, files: None }
    }

    /// Gives servers this limit of open files rather than our own.
    pub fn with_files(self, files: Rlimit) -> Lifeline {
        Lifeline { files: Some(files), ..self }
    }

    /// The same for servers that are treated like this.
    pub fn treating(self, children: ChildOptions) -> Lifeline {
        Lifeline { children, ..self }
    }

    /// Starts a shim, and has it start the server, when its turn has come. Dropping the future before
    /// that starts nothing.
    pub async fn spawn(&self, launch: &Launch<'_>) -> Result<Spawned, SpawnError> {
        environment::check_words(launch.program, launch.args, launch.env)?;
        let turn = self.brakes.turn().await;
        self.spawn_now(launch, turn)
    }

    fn spawn_now(&self, launch: &Launch<'_>, turn: Turn) -> Result<Spawned, SpawnError> {
        let shim_error = |source| SpawnError::Shim { source };
        let (ours, theirs) = UnixStream::pair().map_err(shim_error)?;
        let (server_stdin, stdin) = io::pipe().map_err(shim_error)?;
        let (stdout, server_stdout) = io::pipe().map_err(shim_error)?;
        let (stderr, server_stderr) = io::pipe().map_err(shim_error)?;
        let server_streams =
            [OwnedFd::from(server_stdin), server_stdout.into(), server_stderr.into()];
        ours.set_nonblocking(true).map_err(shim_error)?;
        let listening = ours.try_clone().map_err(shim_error)?;
        let listening = tokio::net::UnixStream::from_std(listening).map_err(shim_error)?;

        let (mut command, is_contained) = self.shim_command(launch, theirs);
        let mut child = self.shims.spawn(&mut command).map_err(shim_error)?;
        // The shim starts nothing before it has the streams, so that this is the server's limit too.
        self.limit_files(&child);
        let guard = LifelineGuard::new(ours, &child, self.orphan_reaper(), is_contained);
        send_streams(guard.line(), &server_streams).map_err(shim_error)?;
        drop(server_streams);

        child.stdin = Some(ChildStdin::from_std(OwnedFd::from(stdin).into()).map_err(shim_error)?);
        child.stdout =
            Some(ChildStdout::from_std(OwnedFd::from(stdout).into()).map_err(shim_error)?);
        child.stderr =
            Some(ChildStderr::from_std(OwnedFd::from(stderr).into()).map_err(shim_error)?);

        let cwd = launch.cwd.map(Path::to_path_buf).unwrap_or_default();
        let report = Report::new(listening, launch.program.to_owned(), cwd);
        Ok(Spawned { child, guard, report, turn })
    }

    fn limit_files(&self, shim: &Child) {
        let pid = shim.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let (Some(pid), Some(files)) = (pid, &self.files) else { return };
        if let Err(error) = prlimit(Some(pid), Resource::Nofile, *files) {
            tracing::debug!(%error, "a server may open as many files as we may");
        }
    }

    /// What kills the trees of shims that were themselves killed. One is enough for a daemon.
    pub fn orphan_reaper(&self) -> OrphanReaper {
        OrphanReaper::new(self.instance.clone(), self.shims.clone())
    }

    fn shim_command(&self, launch: &Launch<'_>, control: UnixStream) -> (Command, bool) {
        let contained =
            containers::labelled(launch.program, launch.args, &self.instance, launch.label);
        let (args, container) = contained.unzip();
        let is_contained = container.is_some();
        let confinement = launch.confinement.cloned();
        let orders = Orders { treatment: self.children, confinement, container };
        let mut command = Command::new(&self.exe);
        command
            .arg0(SHIM_NAME)
            .arg(SHIM_WORD)
            .arg(orders.to_word())
            .arg(launch.cwd.unwrap_or(Path::new("")))
            .arg(launch.program)
            .args(args.as_deref().unwrap_or(launch.args))
            .env_clear()
            .envs(launch.env)
            .env(environment::INSTANCE_VARIABLE, &self.instance)
            .env(environment::UPSTREAM_VARIABLE, launch.label)
            .stdin(Stdio::from(OwnedFd::from(control)))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        (command, is_contained)
    }
}

fn send_streams(line: &UnixStream, streams: &[OwnedFd; 3]) -> io::Result<()> {
    let borrowed = streams.each_ref().map(AsFd::as_fd);
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut room);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(line, &[IoSlice::new(&[STREAMS])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
