//! Ends what no shim guards: the trees of shims that were killed, and what an earlier run of the
//! daemon left behind.
//!
//! It knows our shims by pid and time of start, and touches none of them, nor any process that
//! somebody else in this program waits for.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitpid,
};
use tokio::process::{Child, Command};

use super::SHIM_NAME;
use super::environment::INSTANCE_VARIABLE;
use super::processes::{self, Identity, Marker, Process};

/// How long one round of reaping, and one sweep, may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A shim whose daemon died kills its own tree, and knows it better than a search does.
const SHIM_HEADSTART: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_IN_CHASE: Duration = Duration::from_millis(1);

/// Makes this process the parent of every descendant whose own parent has died.
pub fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Kills what an earlier daemon of this instance left, and returns how many processes that took.
/// To be called at the start, before the first spawn. Blocks, for 2 s at the most.
pub fn sweep(instance: &str) -> usize {
    let began = Instant::now();
    let mut killed = HashSet::new();
    while began.elapsed() < PATIENCE {
        let headstart = began.elapsed() < SHIM_HEADSTART;
        let mut left = false;
        for process in bearers(instance) {
            left = true;
            // One that is stopped kills nothing.
            let is_at_work = headstart && !process.stopped;
            if is_at_work && processes::name(process.pid).as_deref() == Some(SHIM_NAME) {
                continue;
            }
            // What is below it need not carry the marker any more, and is found by descent only as long as this lives.
            let mut tree = tree_of(Identity::from(&process));
            tree.push(Identity::from(&process));
            tree.iter().copied().for_each(kill_exactly);
            killed.extend(tree);
        }
        if !left {
            break;
        }
        thread::sleep(PAUSE);
    }
    killed.len()
}

/// The daemon inherits the tree of a shim that was killed. This finds and ends it.
#[derive(Clone, Debug)]
pub struct OrphanReaper {
    instance: String,
    shims: Arc<Shims>,
}

/// The shims that have been started and not yet been waited for.
#[derive(Debug, Default)]
pub(super) struct Shims {
    known: Mutex<HashSet<Identity>>,
}

/// What had to be ended, and could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survivors {
    /// Processes that still lived when they were looked for.
    pub found: usize,
    /// Those of them that live on, though they were killed.
    pub left: usize,
}

/// What is to be done about one direct child of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Leave,
    Kill,
    Reap,
}

impl OrphanReaper {
    pub(super) fn new(instance: String, shims: Arc<Shims>) -> OrphanReaper {
        OrphanReaper { instance, shims }
    }

    /// Kills and reaps every stray, and returns how many there were. Call it when an ending is
    /// [`Lost`](super::Ending::Lost), and every few seconds: some trees fall apart slowly.
    ///
    /// A process that forks and ends, over and over, is never where one looks, but what it leaves
    /// is; so only two looks in a row that find nothing at all are believed. After 2 s it gives up
    /// until it is called again.
    pub async fn reap_strays(&self) -> usize {
        self.reap_strays_within(PATIENCE).await
    }

    pub(super) async fn reap_strays_within(&self, patience: Duration) -> usize {
        let began = Instant::now();
        let mut reaped = 0;
        let mut clean_looks = 0;
        while clean_looks < 2 && began.elapsed() < patience {
            let pass = self.pass();
            reaped += pass.reaped;
            let is_clean = pass.alive == 0 && pass.reaped == 0;
            clean_looks = if is_clean { clean_looks + 1 } else { 0 };
            tokio::time::sleep(if is_clean { PAUSE } else { PAUSE_IN_CHASE }).await;
        }
        reaped
    }

    /// Kills whatever this daemon has started and still lives, shims among it: to be called when nothing is
    /// wanted of any of them, and nothing starts any more. Takes `patience` at the most.
    pub async fn end_all(&self, patience: Duration) -> Survivors {
        let began = Instant::now();
        let mut found = HashSet::new();
        let mut clean_looks = 0;
        let mut strays = 0;
        while clean_looks < 2 && began.elapsed() < patience {
            let shims: Vec<Identity> = self.shims.lock().iter().copied().collect();
            for shim in shims.into_iter().filter(|shim| shim.is_alive()) {
                let tree = tree_of(shim);
                // A tree that its shim still held is its own affair no more.
                kill_exactly(shim);
                tree.iter().copied().for_each(kill_exactly);
                found.insert(shim);
                found.extend(tree);
            }
            let pass = self.pass();
            strays = pass.alive;
            let is_clean = pass.alive == 0 && !found.iter().any(|one| one.is_alive());
            clean_looks = if is_clean { clean_looks + 1 } else { 0 };
            tokio::time::sleep(PAUSE).await;
        }
        let left = found.iter().filter(|one| one.is_alive()).count().max(strays);
        Survivors { found: found.len().max(left), left }
    }

    fn pass(&self) -> Pass {
        let own = getpid().as_raw_nonzero().get();
        // Zero when our session was begun outside of the container we are in. The system call is
        // not asked, since its wrapper takes zero for impossible.
        let own_session = Process::read(own).map_or(0, |process| process.session);
        // Held to the end: a shim that is being started is not known until the lock is free.
        let mut known = self.shims.lock();
        known.retain(|shim| shim.look().is_some_and(|process| process.parent == own));

        let mut pass = Pass::default();
        // The youngest first, each looked at only when its turn has come: they are the ones that
        // are about to be gone.
        for child in processes::children(own).into_iter().rev().filter_map(Process::read) {
            let is_shim = known.contains(&Identity::from(&child));
            let marker = processes::marker(child.pid, INSTANCE_VARIABLE, &self.instance);
            match verdict(&child, is_shim, marker, own_session) {
                Verdict::Leave => {}
                Verdict::Reap => pass.reaped += usize::from(reap(child.pid)),
                Verdict::Kill => {
                    pass.alive += 1;
                    for pid in processes::descendants(child.pid) {
                        kill(pid);
                    }
                    kill(child.pid);
                }
            }
        }
        pass
    }
}

#[derive(Debug, Default)]
struct Pass {
    alive: usize,
    reaped: usize,
}

impl Shims {
    /// Starts a shim and takes it down before anybody can look for strays.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut known = self.lock();
        let child = command.spawn()?;
        let process = child.id().and_then(|pid| Process::read(i32::try_from(pid).ok()?));
        known.extend(process.as_ref().map(Identity::from));
        Ok(child)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Identity>> {
        // The set is whole between any two statements, so that a panic elsewhere spoils nothing.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every shim begins a session, so that whatever it started is in another one than we are, and
/// whatever this program starts and waits for by itself is in ours. In a container the daemon may
/// also inherit what a person started there: that lives, and shows no marker of ours.
fn verdict(child: &Process, is_shim: bool, marker: Marker, own_session: i32) -> Verdict {
    if is_shim || child.session == own_session {
        return Verdict::Leave;
    }
    match (child.zombie, marker) {
        (true, _) => Verdict::Reap,
        (false, Marker::Shown | Marker::Unreadable) => Verdict::Kill,
        (false, Marker::Absent) => Verdict::Leave,
    }
}

/// Everything alive that carries the marker of `instance`, without ourselves; each is looked at
/// only when it is asked for.
fn bearers(instance: &str) -> impl Iterator<Item = Process> {
    let own = getpid().as_raw_nonzero().get();
    processes::all()
        .into_iter()
        .filter(move |pid| *pid != own)
        .filter(move |pid| processes::marker(*pid, INSTANCE_VARIABLE, instance) == Marker::Shown)
        .filter_map(Process::read)
}

/// All that descends from a process, as long as it is there to be descended from.
pub(super) fn tree_of(ancestor: Identity) -> Vec<Identity> {
    let found = processes::descendants(ancestor.pid).into_iter().filter_map(Identity::of).collect();
    // Else those were somebody else's.
    if ancestor.look().is_some() { found } else { Vec::new() }
}

/// Kills this process and no other, though its pid be used again. Whether it worked is seen by looking.
pub(super) fn kill_exactly(process: Identity) {
    let handle = Pid::from_raw(process.pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    // Whoever the handle is of has the pid for as long as it is the one that is looked at.
    if let Some(Ok(handle)) = handle
        && process.is_alive()
    {
        let _ = pidfd_send_signal(&handle, Signal::KILL);
    }
}

/// Whether there was something to kill.
fn kill(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

fn reap(pid: i32) -> bool {
    let reaped = Pid::from_raw(pid).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
    matches!(reaped, Some(Ok(Some(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_shim_guards_is_touched() {
        let child = |zombie, session| Process {
            pid: 10,
            parent: 1,
            group: 10,
            session,
            started: 1,
            zombie,
            stopped: false,
        };
        use Marker::{Absent, Shown, Unreadable};
        let (alive, dead, ours, theirs) = (false, true, 5, 10);
        let table = [
            // zombie, session, shim, marker
            (alive, theirs, true, Shown, Verdict::Leave),
            (dead, theirs, true, Unreadable, Verdict::Leave),
            (alive, theirs, false, Shown, Verdict::Kill),
            (alive, theirs, false, Unreadable, Verdict::Kill),
            (alive, theirs, false, Absent, Verdict::Leave),
            (dead, theirs, false, Unreadable, Verdict::Reap),
            (alive, ours, false, Shown, Verdict::Leave),
            (alive, ours, false, Absent, Verdict::Leave),
            (dead, ours, false, Unreadable, Verdict::Leave),
        ];
        for (zombie, session, is_shim, marker, wanted) in table {
            let child = child(zombie, session);
            assert_eq!(verdict(&child, is_shim, marker, ours), wanted, "{child:?} {marker:?}");
        }
    }
}
