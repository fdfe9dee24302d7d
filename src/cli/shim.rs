//! The guard of one STDIO server, run as a process of its own: `metamcpd shim ORDERS CWD
//! PROGRAM ARGS…`.
//!
//! It starts the server with streams it is handed over its socket, reports what becomes of it, and
//! leaves nothing of the server's process tree alive: not when the server ends, nor when the
//! daemon does. It has one thread, no runtime and no settings, and is not meant for people.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpgrp, getpid,
    getpriority_process, kill_process, kill_process_group, pidfd_open, setpriority_process, setsid,
    wait, waitid, waitpid,
};

use crate::upstream::worker::lifeline::processes::{self, Process};
use crate::upstream::worker::lifeline::{
    Fact, Orders, SHIM_NAME, SHIM_WORD, STREAMS, Step, TERMINATE, become_subreaper, containers,
};

/// The words that follow `shim` are missing, or standard input is not a lifeline: a person.
const EXIT_MISUSED: u8 = 2;
/// The system refused the shim what it needs.
const EXIT_SYSTEM: u8 = 71;

/// Zombies of grandchildren that the server lost are collected this often. Nobody waits for them.
const HOUSEKEEPING: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

const PAUSE_MIN: Duration = Duration::from_micros(250);
/// What cannot be killed, such as a program of another user, is tried again at this pace.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Whether the program was started to be a shim.
pub fn is_wanted(mut args: impl Iterator<Item = OsString>) -> bool {
    args.nth(1).is_some_and(|word| word == SHIM_WORD)
}

/// The whole life of a shim. Returns when nothing of the server's tree is left.
pub fn run_shim() -> ExitCode {
    close_what_was_inherited();
    let Some(order) = Order::from_args(std::env::args_os().skip(2)) else {
        return misused();
    };
    let Ok((line, streams)) = take_lifeline() else {
        return misused();
    };
    match guard(order, line, streams) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_SYSTEM),
    }
}

struct Order {
    orders: Orders,
    /// Empty: stay where the daemon stands.
    cwd: OsString,
    program: OsString,
    args: Vec<OsString>,
}

struct Streams {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

struct Guard {
    line: UnixStream,
    server: Pid,
    told: bool,
}

/// What wakes the shim.
enum Woken {
    Terminate,
    LineCut,
    ServerEnded,
    Idle,
}

impl Order {
    fn from_args(mut args: impl Iterator<Item = OsString>) -> Option<Order> {
        let orders = Orders::from_word(args.next()?.to_str()?)?;
        Some(Order { orders, cwd: args.next()?, program: args.next()?, args: args.collect() })
    }
}

fn guard(order: Order, line: UnixStream, streams: Streams) -> io::Result<()> {
    // A session of its own: a key pressed at the daemon's terminal reaches neither us nor the
    // server, and the server cannot ask for a password there.
    setsid()?;
    become_subreaper()?;
    rustix::thread::set_name(&std::ffi::CString::new(SHIM_NAME)?)?;

    let mut line = line;
    let container = order.orders.container.clone();
    let server = match start(order, streams) {
        Ok(server) => server,
        Err((step, error)) => {
            let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
            return line.write_all(Fact::Refused { step, errno }.to_line().as_bytes());
        }
    };
    let mut guard = Guard { line, server, told: false };
    let watched = guard.watch();
    guard.end_tree();
    if let Some(container) = container {
        containers::end(&container, None);
    }
    watched
}

/// The streams are closed on our side when this returns, so that their ends are the server's ends.
fn start(order: Order, streams: Streams) -> Result<Pid, (Step, io::Error)> {
    if !order.cwd.is_empty() {
        std::env::set_current_dir(&order.cwd).map_err(|error| (Step::Enter, error))?;
    }
    // The server inherits it; the shim is as dear as the daemon, since it is what cleans up. What is open
    // now can still be written when everything else is shut.
    let mut oom_score = OomScore::open();
    if let Some(score) = &mut oom_score {
        score.set(order.orders.treatment.oom_score_adj);
    }
    if let Some(confinement) = &order.orders.confinement {
        confinement.apply().map_err(|error| (Step::Confine, error))?;
    }
    let spawned = Command::new(order.program)
        .args(order.args)
        .stdin(streams.stdin)
        .stdout(streams.stdout)
        .stderr(streams.stderr)
        .process_group(0)
        .spawn();
    if let Some(score) = oom_score {
        score.restore();
    }
    let server = Pid::from_child(&spawned.map_err(|error| (Step::Execute, error))?);
    stand_back(server, order.orders.treatment.niceness);
    Ok(server)
}

/// How readily the kernel ends this process when memory is short. A courtesy: where the system does not
/// allow it, the server runs without.
struct OomScore {
    file: std::fs::File,
    own: String,
}

impl OomScore {
    fn open() -> Option<OomScore> {
        const PLACE: &str = "/proc/self/oom_score_adj";
        let own = std::fs::read_to_string(PLACE).ok()?;
        let file = std::fs::File::options().write(true).open(PLACE).ok()?;
        Some(OomScore { file, own })
    }

    fn set(&mut self, score: i32) {
        let _ = self.file.write_all(score.to_string().as_bytes());
    }

    fn restore(mut self) {
        let _ = self.file.write_all(self.own.trim().as_bytes());
    }
}

/// Nor is this worth a failure. What stands back further already stays there.
fn stand_back(server: Pid, niceness: i32) {
    if getpriority_process(None).is_ok_and(|own| own < niceness) {
        let _ = setpriority_process(Some(server), niceness);
    }
}

impl Guard {
    /// Returns when the tree has to end. The server has not been reaped by then, so that its pid
    /// and its group still belong to it.
    fn watch(&mut self) -> io::Result<()> {
        self.tell(Fact::Started { pid: self.server.as_raw_nonzero().get().unsigned_abs() });
        let server_end = pidfd_open(self.server, PidfdFlags::empty())?;
        loop {
            match self.next(&server_end)? {
                // The group may be empty but for a zombie. Then there is nobody to ask.
                Woken::Terminate => match kill_process_group(self.server, Signal::TERM) {
                    Ok(()) | Err(Errno::SRCH | Errno::PERM) => {}
                    Err(error) => return Err(error.into()),
                },
                Woken::Idle => self.collect_lost_zombies(),
                Woken::LineCut => return Ok(()),
                Woken::ServerEnded => {
                    self.tell_how_it_ended()?;
                    return Ok(());
                }
            }
        }
    }

    fn next(&mut self, server_end: &OwnedFd) -> io::Result<Woken> {
        let (line_ready, server_ended) = {
            let mut watched =
                [PollFd::new(&self.line, PollFlags::IN), PollFd::new(server_end, PollFlags::IN)];
            match poll(&mut watched, Some(&HOUSEKEEPING)) {
                Ok(0) | Err(Errno::INTR) => return Ok(Woken::Idle),
                Ok(_) => (!watched[0].revents().is_empty(), !watched[1].revents().is_empty()),
                Err(error) => return Err(error.into()),
            }
        };
        // The line first: when both have come, the daemon may be dead, and it is then of no use to
        // tell it anything.
        if line_ready {
            let mut word = [0];
            return Ok(match self.line.read(&mut word) {
                Ok(1..) if word[0] == TERMINATE => Woken::Terminate,
                Ok(1..) => Woken::Idle,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Woken::Idle,
                Ok(0) | Err(_) => Woken::LineCut,
            });
        }
        Ok(if server_ended { Woken::ServerEnded } else { Woken::Idle })
    }

    fn tell(&mut self, fact: Fact) {
        // If nobody listens any more the line is cut too, and that is heard where it matters.
        self.told |= self.line.write_all(fact.to_line().as_bytes()).is_ok()
            && matches!(fact, Fact::Exited { .. } | Fact::Signalled { .. });
    }

    fn tell_how_it_ended(&mut self) -> io::Result<()> {
        let asked = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let Some(status) = waitid(WaitId::Pid(self.server), asked)? else { return Ok(()) };
        if let Some(code) = status.exit_status() {
            self.tell(Fact::Exited { code });
        } else if let Some(signal) = status.terminating_signal() {
            self.tell(Fact::Signalled { signal });
        }
        Ok(())
    }

    /// Processes whose parent has died are our children now, and stay zombies until we ask. The
    /// server is left out: its zombie keeps its pid from being used again.
    fn collect_lost_zombies(&self) {
        let own = getpid().as_raw_nonzero().get();
        for child in processes::children(own).into_iter().filter_map(Pid::from_raw) {
            if child == self.server {
                continue;
            }
            // It may live, or not be ours any more. Both are fine, and seen again in 5 s.
            let _ = waitpid(Some(child), WaitOptions::NOHANG);
        }
    }

    /// Kills and reaps until there is not one descendant left.
    ///
    /// A tree may grow while it is felled. The group is killed in one stroke by the kernel; what
    /// left it is found by descent, together with whatever group it leads, again and again: whoever
    /// loses its parent becomes our child, and a process with a SIGKILL pending cannot fork.
    fn end_tree(&mut self) {
        kill_group(self.server.as_raw_nonzero().get());
        let mut pause = PAUSE_MIN;
        let mut seen = HashSet::new();
        while self.reap_the_dead() {
            let found = processes::descendants(getpid().as_raw_nonzero().get());
            let grown = kill_all(&found, &mut seen);
            pause = if grown { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            thread::sleep(pause);
        }
    }

    /// Returns whether any child is left, dead or alive.
    fn reap_the_dead(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.server => self.tell_once(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn tell_once(&mut self, status: WaitStatus) {
        if self.told {
            return;
        }
        if let Some(code) = status.exit_status() {
            self.tell(Fact::Exited { code });
        } else if let Some(signal) = status.terminating_signal() {
            self.tell(Fact::Signalled { signal });
        }
    }
}

/// Returns whether there was one that had not been seen before. A group is killed only when a
/// descendant is in it, and the groups of descendants lie in our session or in one that a
/// descendant began: no stranger can be in them. Our own group holds us, so it is spared.
fn kill_all(found: &[i32], seen: &mut HashSet<(i32, u64)>) -> bool {
    let own_group = getpgrp().as_raw_nonzero().get();
    let mut groups = HashSet::new();
    let mut grown = false;
    for process in found.iter().copied().filter_map(Process::read) {
        grown |= seen.insert((process.pid, process.started));
        if process.zombie {
            continue;
        }
        if process.group != own_group && groups.insert(process.group) {
            kill_group(process.group);
        }
        kill(process.pid);
    }
    grown
}

/// Whether it worked is seen by looking at what is left, not by asking.
fn kill(pid: i32) {
    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
}

fn kill_group(group: i32) {
    let _ = Pid::from_raw(group).map(|group| kill_process_group(group, Signal::KILL));
}

/// Everything of the daemon's is closed by the kernel, but not what the daemon was itself handed
/// by a careless parent. The server must not get it either. Called before anything is opened, so
/// that every descriptor but the standard three is somebody else's.
fn close_what_was_inherited() {
    for descriptor in processes::open_descriptors().into_iter().filter(|number| *number > 2) {
        // The descriptor that the list itself was read from is on it, and closed by now.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Standard input is the lifeline, and the server's streams are the first thing that comes over it.
fn take_lifeline() -> io::Result<(UnixStream, Streams)> {
    let line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut room);
    let mut word = [0];
    recvmsg(&line, &mut [IoSliceMut::new(&mut word)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;

    let mut received = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<OwnedFd>>(),
        _ => Vec::new(),
    });
    match (word[0], received.next(), received.next(), received.next()) {
        (STREAMS, Some(stdin), Some(stdout), Some(stderr)) => {
            Ok((line, Streams { stdin, stdout, stderr }))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn misused() -> ExitCode {
    let words = "metamcpd: `shim` is for the daemon's own use\n";
    match io::stderr().write_all(words.as_bytes()) {
        Ok(()) | Err(_) => ExitCode::from(EXIT_MISUSED),
    }
}
