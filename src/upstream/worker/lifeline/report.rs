//! What a shim tells the daemon about the server it started, and how the daemon hears it.
//!
//! One fact a line, over the same socket whose other direction is the lifeline. It decides
//! nothing about restarts; silence is itself a fact, [`Ending::Lost`].

use std::io;
use std::path::PathBuf;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;

use super::environment::BadWord;

/// How the server's own process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerExit {
    /// What it returned, where it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Exited(ServerExit),
    /// The shim ended without a word: it was killed, and what it guarded may be running still.
    Lost,
}

/// Why a server was not started. The first five are the configuration's fault, and trying again
/// changes nothing until somebody mends it.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error(transparent)]
    BadWord(#[from] BadWord),
    #[error("command not found: {program}")]
    NotFound { program: String },
    #[error("not allowed to execute {program}")]
    NotPermitted { program: String },
    #[error("cannot enter the working directory {path}")]
    WorkingDirectory { path: PathBuf, source: io::Error },
    #[error("the server cannot be confined as its profile asks")]
    NotConfined { source: io::Error },
    #[error("cannot execute {program}")]
    NotExecutable { program: String, source: io::Error },
    #[error("the machine has no room for another process")]
    Exhausted { source: io::Error },
    #[error("cannot start the process that guards the server")]
    Shim { source: io::Error },
    #[error("the process that guards the server ended before it had started it")]
    ShimLost,
}

impl SpawnError {
    /// Whether only a change of the configuration or of the machine's files can help.
    pub fn is_lasting(&self) -> bool {
        match self {
            SpawnError::BadWord(_)
            | SpawnError::NotFound { .. }
            | SpawnError::NotPermitted { .. }
            | SpawnError::WorkingDirectory { .. }
            | SpawnError::NotExecutable { .. } => true,
            SpawnError::NotConfined { .. }
            | SpawnError::Exhausted { .. }
            | SpawnError::Shim { .. }
            | SpawnError::ShimLost => false,
        }
    }
}

/// One line of a shim's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    Started { pid: u32 },
    Refused { step: Step, errno: i32 },
    Exited { code: i32 },
    Signalled { signal: i32 },
}

/// What the shim was doing when the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Enter,
    Confine,
    Execute,
}

/// Hears what becomes of one server. For one listener at a time; dropping it ends nothing.
#[derive(Debug)]
pub struct Report {
    lines: Lines<BufReader<UnixStream>>,
    program: String,
    cwd: PathBuf,
}

impl Fact {
    pub fn to_line(self) -> String {
        match self {
            Fact::Started { pid } => format!("started {pid}\n"),
            Fact::Refused { step: Step::Enter, errno } => format!("not-entered {errno}\n"),
            Fact::Refused { step: Step::Confine, errno } => format!("not-confined {errno}\n"),
            Fact::Refused { step: Step::Execute, errno } => format!("not-executed {errno}\n"),
            Fact::Exited { code } => format!("exited {code}\n"),
            Fact::Signalled { signal } => format!("signalled {signal}\n"),
        }
    }

    fn from_line(line: &str) -> Option<Fact> {
        let (word, number) = line.split_once(' ')?;
        Some(match word {
            "started" => Fact::Started { pid: number.parse().ok()? },
            "not-entered" => Fact::Refused { step: Step::Enter, errno: number.parse().ok()? },
            "not-confined" => Fact::Refused { step: Step::Confine, errno: number.parse().ok()? },
            "not-executed" => Fact::Refused { step: Step::Execute, errno: number.parse().ok()? },
            "exited" => Fact::Exited { code: number.parse().ok()? },
            "signalled" => Fact::Signalled { signal: number.parse().ok()? },
            _ => return None,
        })
    }
}

impl Report {
    pub(super) fn new(line: UnixStream, program: String, cwd: PathBuf) -> Report {
        Report { lines: BufReader::new(line).lines(), program, cwd }
    }

    /// Waits until the server runs, and returns the pid of its own process. Ask once, and first.
    pub async fn pid(&mut self) -> Result<u32, SpawnError> {
        match self.next().await {
            Some(Fact::Started { pid }) => Ok(pid),
            Some(Fact::Refused { step, errno }) => Err(self.refusal(step, errno)),
            Some(Fact::Exited { .. } | Fact::Signalled { .. }) | None => Err(SpawnError::ShimLost),
        }
    }

    /// Waits until the server has ended. The rest of its tree is being ended when this returns;
    /// it is gone when the shim has been reaped.
    pub async fn exit(&mut self) -> Ending {
        loop {
            match self.next().await {
                Some(Fact::Started { .. }) => {}
                Some(Fact::Exited { code }) => {
                    return Ending::Exited(ServerExit { code: Some(code), signal: None });
                }
                Some(Fact::Signalled { signal }) => {
                    return Ending::Exited(ServerExit { code: None, signal: Some(signal) });
                }
                Some(Fact::Refused { .. }) | None => return Ending::Lost,
            }
        }
    }

    /// A broken line and a broken socket mean what silence means.
    async fn next(&mut self) -> Option<Fact> {
        let line = self.lines.next_line().await.ok()??;
        Fact::from_line(&line)
    }

    fn refusal(&self, step: Step, errno: i32) -> SpawnError {
        let source = io::Error::from_raw_os_error(errno);
        let program = self.program.clone();
        if matches!(step, Step::Enter) {
            return SpawnError::WorkingDirectory { path: self.cwd.clone(), source };
        }
        if matches!(step, Step::Confine) {
            return SpawnError::NotConfined { source };
        }
        match source.kind() {
            io::ErrorKind::NotFound => SpawnError::NotFound { program },
            io::ErrorKind::PermissionDenied => SpawnError::NotPermitted { program },
            // EAGAIN is what a fork answers at a limit of processes.
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => {
                SpawnError::Exhausted { source }
            }
            _ => SpawnError::NotExecutable { program, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_survives_its_line() {
        let facts = [
            Fact::Started { pid: 4_000_000_000 },
            Fact::Refused { step: Step::Enter, errno: 2 },
            Fact::Refused { step: Step::Confine, errno: 1 },
            Fact::Refused { step: Step::Execute, errno: 13 },
            Fact::Exited { code: 0 },
            Fact::Exited { code: 255 },
            Fact::Signalled { signal: 9 },
        ];
        for fact in facts {
            assert_eq!(Fact::from_line(fact.to_line().trim_end()), Some(fact));
        }
    }

    #[test]
    fn a_line_that_is_no_fact_is_not_guessed_at() {
        for line in ["", "started", "started x", "started -1", "ended 3", "exited 3 4"] {
            assert_eq!(Fact::from_line(line), None, "{line:?}");
        }
    }
}
