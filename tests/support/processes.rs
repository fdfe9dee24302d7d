//! What the machine's process table says: which processes belong to a gateway's data directory, and
//! whether one still lives. Reads only /proc.

use std::fs;

/// A living process.
#[derive(Clone)]
pub struct Process {
    pub pid: u32,
    pub command: String,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.pid, self.command)
    }
}

/// Every living process that was started for the data directory with this instance id.
pub fn of_instance(instance: &str) -> Vec<Process> {
    let marker = format!("METAMCPD_INSTANCE={instance}").into_bytes();
    pids()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|one| one == marker))
        })
        .filter(|pid| is_alive(*pid))
        .map(|pid| Process { pid, command: command(pid) })
        .collect()
}

/// Whether the process exists and is not merely waiting to be reaped.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name may hold anything, closing parentheses included; the state follows the last one.
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X')))
}

/// The process that has started this one.
pub fn parent_of(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("its parent");
    parent.trim().parse().expect("a number")
}

/// Sends a signal that a test means: the process is a gateway under test or one of its children.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    assert!(signal_if_there(pid, signal), "the process is there to be signalled");
}

/// The same to one that may have ended by itself; whether it was there.
pub fn signal_if_there(pid: u32, signal: rustix::process::Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    match rustix::process::kill_process(pid.expect("a pid"), signal) {
        Ok(()) => true,
        Err(rustix::io::Errno::SRCH) => false,
        Err(error) => panic!("{pid:?} cannot be signalled: {error}"),
    }
}

/// Ends what a failed test left, so that the next one starts on a clean machine.
pub fn sweep(processes: &[Process]) {
    for process in processes {
        let pid = i32::try_from(process.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::KILL)
        {
            eprintln!("could not end {process:?}: {error}");
        }
    }
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn command(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ").trim_end().to_owned()
}
