//! What a process can do to the host that runs it: processes that do not want to go, memory, time.
//!
//! Everything that stays behind ends by itself after [`LINGERS`], so that a test which fails leaves
//! nothing for ever.

use std::{
    fs,
    hint::black_box,
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{getpid, kill_process, setsid};

use crate::{Outcome, value::Exit};

/// How long a process lives that was left behind.
pub const LINGERS: Duration = Duration::from_secs(600);

/// The variable by which a process knows that it was made deaf already.
const DEAF: &str = "EVIL_DEAF";

/// What a shell does so that the program which it becomes ignores these signals: they stay ignored over
/// `exec`.
const DEAFENED: &str = r#"trap "" TERM HUP INT; exec "$0" "$@""#;

/// Ends this process now.
#[expect(clippy::disallowed_methods, reason = "to end without a word is what it was told to")]
pub fn end(how: Exit) -> ! {
    match how {
        Exit::Code(code) => std::process::exit(i32::from(code)),
        Exit::Signal(signal) => {
            kill_process(getpid(), signal).ok();
            // A signal that was ignored, or that only stops, leaves it here.
            linger()
        }
    }
}

/// Does nothing for as long as what is left behind may live.
pub fn linger() -> ! {
    thread::sleep(LINGERS);
    end_quietly()
}

#[expect(clippy::disallowed_methods, reason = "there may be threads that never end")]
fn end_quietly() -> ! {
    std::process::exit(0)
}

/// Becomes a process that ignores signals, with the same arguments; does nothing where it is one.
pub fn deafen() -> Outcome<()> {
    if std::env::var_os(DEAF).is_some() {
        return Ok(());
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", DEAFENED]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    Err(command.env(DEAF, "1").exec().into())
}

/// Becomes one that lives and says no more: with its stdin, or stdout, given back.
pub fn fall_silent(input: bool, output: bool) -> Outcome<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("linger");
    if input {
        command.stdin(Stdio::null());
    }
    if output {
        command.stdout(Stdio::null());
    }
    Err(command.exec().into())
}

/// Leaves `count` processes that bear `mark` on their command line, in every way in which a process can
/// slip from who started it.
pub fn tree(count: u64, mark: &str) -> Outcome<()> {
    const WAYS: &[&[&str]] = &[
        &["deaf"],
        &["deaf", "session"],
        &["deaf", "session", "orphan"],
        &["deaf", "session", "orphan", "nameless"],
        &["session", "holding"],
    ];
    for number in 0..count {
        let ways = WAYS[usize::try_from(number).unwrap_or(0) % WAYS.len()];
        start(ways, mark)?;
    }
    Ok(())
}

/// Starts a process that starts a process, and so on: `count` in all.
pub fn storm(count: u64, mark: &str) -> Outcome<()> {
    match count {
        0 => Ok(()),
        count => start(&["session", &format!("storm={}", count - 1)], mark),
    }
}

/// Starts one process that lingers. `orphan` makes it nobody's child, `nameless` takes its environment,
/// and one that is `holding` keeps our stdout open.
fn start(ways: &[&str], mark: &str) -> Outcome<()> {
    let program = std::env::current_exe()?;
    let mut command = match ways.contains(&"deaf") {
        true => {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", DEAFENED]).arg(program);
            command
        }
        false => Command::new(program),
    };
    command
        .arg("linger")
        .arg(format!("mark={mark}"))
        .args(ways.iter().filter(|way| **way != "deaf"));
    command.stdin(Stdio::null()).stderr(Stdio::null());
    if !ways.contains(&"holding") {
        command.stdout(Stdio::null());
    }
    if ways.contains(&"nameless") {
        command.env_clear();
    }
    let mut child = command.spawn()?;
    // One that makes itself an orphan ends at once; the others are never waited for.
    if ways.contains(&"orphan") {
        child.wait()?;
    }
    Ok(())
}

/// The life of a process that was left behind: `evil-mcp linger …`.
pub fn lingering(ways: &[String]) -> Outcome<ExitCode> {
    let said = |word: &str| ways.iter().any(|way| way == word);
    let mark = ways.iter().find_map(|way| way.strip_prefix("mark=")).unwrap_or_default();
    if said("session") {
        // It fails in the leader of a group, who has to be left behind as he is.
        setsid().ok();
    }
    if said("orphan") {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["linger", "session"]).arg(format!("mark={mark}")).spawn()?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(left) = ways.iter().find_map(|way| way.strip_prefix("storm=")) {
        storm(left.parse()?, mark)?;
    }
    linger()
}

/// Fills memory and keeps it.
pub fn eat_memory(bytes: u64) {
    thread::spawn(move || {
        // Not zeros: the kernel would give none for them.
        let eaten = vec![0xa5_u8; usize::try_from(bytes).unwrap_or(usize::MAX)];
        black_box(&eaten);
        thread::sleep(LINGERS);
        drop(eaten);
    });
}

/// Keeps so many threads busy for good.
pub fn eat_time(threads: u64) {
    for _ in 0..threads {
        thread::spawn(|| {
            let mut number = 0_u64;
            loop {
                number = black_box(number.wrapping_add(1));
            }
        });
    }
}

/// The environment, name by name, in order.
pub fn environment() -> Vec<String> {
    let mut lines: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    lines.sort();
    lines
}

/// The open descriptors and what they are.
pub fn descriptors() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let mut lines: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            // The one by which this very list is read is gone when it is looked at.
            let target = fs::read_link(&path).ok()?;
            Some(format!("{} {}", path.file_name()?.to_string_lossy(), target.display()))
        })
        .filter(|line| !line.ends_with(&format!("/proc/{}/fd", std::process::id())))
        .collect();
    lines.sort();
    lines
}
