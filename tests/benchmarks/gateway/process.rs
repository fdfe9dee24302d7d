//! The program under load, and what a process has used, as the kernel counts it (proc(5)).

use std::{fs, path::PathBuf, time::Duration};

use super::Outcome;

/// The daemon that lies beside this program, where one build puts both.
pub fn program() -> Outcome<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("metamcpd");
    match program.is_file() {
        true => Ok(program),
        false => Err("there is no metamcpd here: cargo build --release --workspace".into()),
    }
}

/// CPU time of a process and all its threads.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    cpu: Duration,
}

impl Usage {
    /// User and system time so far.
    pub fn of(pid: u32) -> Outcome<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in brackets may hold anything; what is counted stands behind it.
        let (_, fields) = stat.rsplit_once(')').ok_or("no such process")?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let ticks = |index: usize| -> Outcome<u64> {
            Ok(fields.get(index).ok_or("a short line")?.parse()?)
        };
        let per_second = rustix::param::clock_ticks_per_second();
        let ticks = ticks(11)? + ticks(12)?;
        Ok(Usage { cpu: Duration::from_micros(ticks * 1_000_000 / per_second) })
    }

    pub fn since(&self, before: &Usage) -> Duration {
        self.cpu.saturating_sub(before.cpu)
    }
}

/// Bytes of memory that a process has in use.
pub fn resident(pid: u32) -> Outcome<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_ascii_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kilobytes.parse::<usize>()? * 1024)
}

/// The first child of a process.
pub fn child_of(pid: u32) -> Outcome<Option<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_ascii_whitespace().next().map(str::parse).transpose()?)
}
