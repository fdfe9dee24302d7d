//! The end of one server: asked for as the protocol asks, and taken where that is not enough.
//!
//! What ends the tree is its shim. A shim that does not do it, such as one that somebody has stopped, is
//! itself killed, and the daemon ends what it guarded: known by descent as long as the shim lives, and
//! afterwards adopted. It decides nothing about what comes after.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::time::timeout;

use super::TERMINATE;
use super::orphans::{OrphanReaper, kill_exactly, tree_of};
use super::processes::{Identity, Process};

/// How long a shim may take to end the tree, before it is killed itself.
const SHIM_PATIENCE: Duration = Duration::from_secs(1);

/// The same where it has to end a container, which takes another daemon its time.
const CONTAINER_PATIENCE: Duration = Duration::from_secs(5);

/// How long what a killed shim has left is waited for, before the wait itself is given up.
const REST_PATIENCE: Duration = Duration::from_millis(500);

/// How often it is looked whether a shim has been stopped, and what is left of its tree.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Holds a server's life: when it is dropped, the whole tree is killed.
#[derive(Debug)]
pub struct LifelineGuard {
    line: UnixStream,
    /// Nobody, if it had ended before it could be looked at.
    shim: Option<Identity>,
    /// Whatever of the tree lived when its shim was killed, and lives still.
    left: Vec<Identity>,
    reaper: OrphanReaper,
    patience: Duration,
}

/// How long a server may take to end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopGrace {
    /// After its input has been closed, which is how the protocol says goodbye.
    #[serde(with = "humantime_serde")]
    pub stdin_close: Duration,
    /// After SIGTERM.
    #[serde(with = "humantime_serde")]
    pub term: Duration,
}

/// What it took to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It left when its input closed.
    ByItself,
    OnTerm,
    Killed,
    /// Something in its tree cannot be killed, or not by us. [`LifelineGuard::fell`] may be tried again.
    StillDying,
}

impl Default for StopGrace {
    fn default() -> Self {
        StopGrace { stdin_close: Duration::from_secs(3), term: Duration::from_secs(2) }
    }
}

impl LifelineGuard {
    pub(super) fn new(
        line: UnixStream,
        shim: &Child,
        reaper: OrphanReaper,
        is_contained: bool,
    ) -> LifelineGuard {
        let shim = shim.id().and_then(|pid| Identity::of(pid.cast_signed()));
        let patience = if is_contained { CONTAINER_PATIENCE } else { SHIM_PATIENCE };
        LifelineGuard { line, shim, left: Vec::new(), reaper, patience }
    }

    pub(super) fn line(&self) -> &UnixStream {
        &self.line
    }

    /// Asks the server's process group to end, by SIGTERM. An error means that the shim has gone.
    pub fn terminate(&mut self) -> io::Result<()> {
        self.line.write_all(&[TERMINATE])
    }

    /// Has the shim kill the tree, which takes it a moment.
    pub fn cut(&mut self) {
        // The report listens on the same socket, so that closing our handle would not end it.
        if let Err(error) = self.line.shutdown(Shutdown::Write) {
            tracing::debug!(%error, "the lifeline was already cut");
        }
    }

    /// Kills the tree: by its shim, and by ourselves where that has not done it in time. What is left after
    /// that is killed once more by every further call. `shim` is the one that this guard is of.
    pub async fn fell(&mut self, shim: &mut Child) -> Stopped {
        self.cut();
        let began = Instant::now();
        while !is_reaped_within(LOOK_EVERY, shim).await {
            if began.elapsed() < self.patience && !self.is_shim_stopped() {
                continue;
            }
            tracing::warn!(
                shim = shim.id(),
                "the process that guards a server did not end it and is killed: it was stopped, or hangs",
            );
            self.left.extend(self.shim.map(tree_of).unwrap_or_default());
            // By our own handle of it: its pid is its own until we have asked how it ended.
            if let Err(error) = shim.start_kill() {
                tracing::debug!(%error, "it has ended meanwhile");
            }
            if !is_reaped_within(REST_PATIENCE, shim).await {
                return Stopped::StillDying;
            }
            let ended = self.end_what_is_left().await;
            if ended == Stopped::Killed {
                // What was forked meanwhile is ours now.
                self.reaper.reap_strays_within(REST_PATIENCE).await;
            }
            return ended;
        }
        self.end_what_is_left().await
    }

    async fn end_what_is_left(&mut self) -> Stopped {
        let began = Instant::now();
        loop {
            // One may have forked before it was killed.
            let grown: Vec<Identity> = self.left.iter().copied().flat_map(tree_of).collect();
            self.left.extend(grown);
            self.left.iter().copied().for_each(kill_exactly);
            self.left.retain(|one| one.is_alive());
            self.left.sort_unstable_by_key(|one| one.pid);
            self.left.dedup();
            match self.left.is_empty() {
                true => return Stopped::Killed,
                false if began.elapsed() > REST_PATIENCE => return Stopped::StillDying,
                false => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    fn is_shim_stopped(&self) -> bool {
        self.shim.and_then(Identity::look).is_some_and(|process| process.stopped)
    }

    /// Waits for the end of the server's own process, of which a shim that is stopped says nothing. `pid` is
    /// what the shim has said. Waits for ever where the kernel cannot be asked, or the shim is gone.
    pub async fn death_of(&self, pid: u32) {
        #[expect(
            deprecated,
            reason = "what it is said to lack, an `OwnedFd` has: one descriptor for good"
        )]
        let watched = self.handle_of(pid.cast_signed()).and_then(|it| AsyncFd::new(it).ok());
        match watched {
            Some(handle) if handle.readable().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }

    fn handle_of(&self, pid: i32) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
        // A server's pid is its own for as long as its shim has not asked how it ended.
        let is_guarded = |server: &Process| self.shim.is_some_and(|it| it.pid == server.parent);
        Process::read(pid).as_ref().is_some_and(is_guarded).then_some(handle)
    }
}

impl Drop for LifelineGuard {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Ends a server as the protocol asks, and by force when that is not enough: input closed, SIGTERM
/// to its group, then everything that is left killed. Takes at most the two graces and 2 s, and 6 s where
/// there is a container to be ended.
///
/// The caller must have dropped the server's input, if it had taken it from `child`.
pub async fn stop(child: &mut Child, guard: &mut LifelineGuard, grace: StopGrace) -> Stopped {
    drop(child.stdin.take());
    if is_reaped_within(grace.stdin_close, child).await {
        return Stopped::ByItself;
    }
    // One that is stopped passes nothing on.
    if !guard.is_shim_stopped()
        && guard.terminate().is_ok()
        && is_reaped_within(grace.term, child).await
    {
        return Stopped::OnTerm;
    }
    guard.fell(child).await
}

/// A wait that fails can only mean that there is nothing left to wait for.
async fn is_reaped_within(patience: Duration, child: &mut Child) -> bool {
    timeout(patience, child.wait()).await.is_ok()
}
