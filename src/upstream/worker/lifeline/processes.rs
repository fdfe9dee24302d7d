//! Reads the kernel's table of processes: who descends from whom, and who carries our marker.
//!
//! Every answer may be out of date when it is read. It kills nothing and decides nothing; whoever
//! acts on an answer must bear that the process has gone.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// What `/proc/PID/stat` says about one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    /// In clock ticks since the machine started. With the pid it names a process for good,
    /// though the pid be used again.
    pub started: u64,
    /// It has ended, and waits for its parent to ask how.
    pub zombie: bool,
    /// Somebody has stopped it, by SIGSTOP or as a debugger does. It does nothing until it is told to go on.
    pub stopped: bool,
}

/// Names one process for good, though its pid be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub pid: i32,
    pub started: u64,
}

impl From<&Process> for Identity {
    fn from(process: &Process) -> Identity {
        Identity { pid: process.pid, started: process.started }
    }
}

impl Identity {
    /// Whoever has this pid now.
    pub fn of(pid: i32) -> Option<Identity> {
        Process::read(pid).as_ref().map(Identity::from)
    }

    /// What the kernel says of it, for as long as it is there.
    pub fn look(self) -> Option<Process> {
        Process::read(self.pid).filter(|process| Identity::from(process) == self)
    }

    /// Whether it is there, and not merely waiting to be asked how it ended.
    pub fn is_alive(self) -> bool {
        self.look().is_some_and(|process| !process.zombie)
    }
}

impl Process {
    /// `None` when there is no such process (any more).
    pub fn read(pid: i32) -> Option<Process> {
        Process::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Process> {
        // The second field is the program's name in brackets, and may itself contain brackets
        // and blanks: what is told starts behind the last one.
        let (head, tail) = stat.rsplit_once(')')?;
        let pid = head.split_once(' ')?.0.parse().ok()?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse().ok();
        Some(Process {
            pid,
            parent: number(1)?,
            group: number(2)?,
            session: number(3)?,
            started: fields.get(19)?.parse().ok()?,
            zombie: matches!(*fields.first()?, "Z" | "X"),
            stopped: matches!(*fields.first()?, "T" | "t"),
        })
    }
}

/// How many processes the kernel has killed since the machine started, as there was no memory for them:
/// neither in the machine nor in their group. 0 where it does not say.
pub fn oom_kills() -> u64 {
    let counts = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = counts.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Every process that can be seen.
pub fn all() -> Vec<i32> {
    numbers_in(Path::new("/proc"))
}

/// The direct children of `parent`, quickly. The kernel may skip some while others come and go, so
/// whoever must not miss one asks until there is none, or reads the whole table.
pub fn children(parent: i32) -> Vec<i32> {
    let tasks = format!("/proc/{parent}/task");
    let lists = numbers_in(Path::new(&tasks))
        .into_iter()
        .map(|task| fs::read_to_string(format!("{tasks}/{task}/children")));

    let mut found = Vec::new();
    let mut told = false;
    for list in lists.flatten() {
        told = true;
        found.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    // A kernel may be built without these lists. Then the whole table is read instead.
    if !told && Process::read(parent).is_some() {
        found = all()
            .into_iter()
            .filter(|pid| Process::read(*pid).is_some_and(|process| process.parent == parent))
            .collect();
    }
    found
}

/// Children, their children, and so on; without `ancestor` itself. Parents come before children.
pub fn descendants(ancestor: i32) -> Vec<i32> {
    let mut seen = HashSet::from([ancestor]);
    let mut found = Vec::new();
    let mut rest = children(ancestor);
    while let Some(pid) = rest.pop() {
        if seen.insert(pid) {
            found.push(pid);
            rest.extend(children(pid));
        }
    }
    found
}

/// Whether a process shows the marker it was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    Shown,
    Absent,
    /// It has no environment: it is ending, has ended, threw its environment away, or belongs to
    /// somebody else.
    Unreadable,
}

/// Looks for exactly this variable among those the process was started with.
pub fn marker(pid: i32, name: &str, value: &str) -> Marker {
    let wanted = format!("{name}={value}");
    match fs::read(format!("/proc/{pid}/environ")) {
        Ok(variables) if variables.is_empty() => Marker::Unreadable,
        Ok(variables) if variables.split(|byte| *byte == 0).any(|it| it == wanted.as_bytes()) => {
            Marker::Shown
        }
        Ok(_) => Marker::Absent,
        Err(_) => Marker::Unreadable,
    }
}

/// The name a process goes by, at most 15 bytes.
pub fn name(pid: i32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// The numbers of our own open descriptors, with the one the list is read from.
pub fn open_descriptors() -> Vec<i32> {
    numbers_in(Path::new("/proc/self/fd"))
}

fn numbers_in(folder: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_may_contain_what_separates_the_fields() {
        let stat = "77 (a) b (c) Z 5 6 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 4242 0 0";
        let process = Process::parse(stat);
        assert_eq!(
            process,
            Some(Process {
                pid: 77,
                parent: 5,
                group: 6,
                session: 7,
                started: 4242,
                zombie: true,
                stopped: false,
            })
        );
    }

    #[test]
    fn a_line_that_is_cut_short_is_no_process() {
        for stat in ["", "77", "77 (a", "77 (a)", "77 (a) S 1 2", "x (a) S 1 2 3"] {
            assert_eq!(Process::parse(stat), None, "{stat:?}");
        }
    }

    #[test]
    fn we_find_ourselves_among_our_parents_children() {
        let own = std::process::id() as i32;
        let process = Process::read(own);
        assert!(process.is_some_and(|process| !process.zombie && process.pid == own));
        assert!(process.is_some_and(|process| children(process.parent).contains(&own)));
    }
}
