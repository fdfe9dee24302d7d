//! What the kernel says about processes (proc(5)). Reads only, but for signals that a bar means.

use std::{fs, path::Path, time::Duration};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::Outcome;

/// Sends a signal to a process that a bar started, or had started; whether it was there.
pub fn signal(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Allows this process, and the daemons that it starts, as many descriptors as it may have: a client is
/// one here and one there.
pub fn allow_descriptors() -> Outcome<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Every process of the host.
pub fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The fields of a process's `stat` behind its name: the state, the parent, and so on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; what is counted stands behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

/// Whether a process lives, and is not merely waiting to be reaped.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| !matches!(fields[0].as_str(), "Z" | "X"))
}

/// Whether a process runs this program. A number that was noted may be another's by now.
pub fn runs(pid: u32, program: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|running| running == program)
}

/// The living processes that were started for a data directory, or that bear a mark as an argument.
pub fn belonging(instance: &str, mark: &str) -> Vec<u32> {
    let marked = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| {
            let word = String::from_utf8_lossy(word);
            !mark.is_empty() && word.split_once('=').is_some_and(|(_, value)| value == mark)
        })
    };
    let started = |pid: u32| {
        let variable = format!("METAMCPD_INSTANCE={instance}").into_bytes();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        !instance.is_empty() && environment.split(|byte| *byte == 0).any(|one| one == variable)
    };
    pids().into_iter().filter(|pid| (marked(*pid) || started(*pid)) && is_alive(*pid)).collect()
}

/// How many children of a process have ended and were not reaped.
pub fn zombies_of(parent: u32) -> usize {
    let is_one = |pid: &u32| {
        stat(*pid).is_some_and(|fields| {
            fields[0] == "Z" && fields.get(1).is_some_and(|one| *one == parent.to_string())
        })
    };
    pids().iter().filter(|pid| is_one(pid)).count()
}

fn entries(directory: String) -> usize {
    fs::read_dir(Path::new(&directory)).map_or(0, Iterator::count)
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    entries(format!("/proc/{pid}/fd"))
}

pub fn threads(pid: u32) -> usize {
    entries(format!("/proc/{pid}/task"))
}

/// CPU time of a process and all its threads so far.
pub fn cpu(pid: u32) -> Outcome<Duration> {
    let fields = stat(pid).ok_or("no such process")?;
    let ticks =
        |index: usize| -> Outcome<u64> { Ok(fields.get(index).ok_or("a short line")?.parse()?) };
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_micros((ticks(11)? + ticks(12)?) * 1_000_000 / per_second))
}

/// What of the memory of a process is its own: the rest are pages of its program, which come and go with
/// what of it runs, and tell nothing of what something costs.
pub const OWN: &str = "RssAnon";

/// A size of a process from its `status`, in bytes: `VmRSS`, or `VmHWM` for the most it ever had.
pub fn memory(pid: u32, field: &str) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let prefix = format!("{field}:");
    let line = status.lines().find_map(|line| line.strip_prefix(&prefix));
    let kilobytes = line.and_then(|line| line.split_ascii_whitespace().next()).ok_or("no size")?;
    Ok(kilobytes.parse::<u64>()? * 1_024)
}
