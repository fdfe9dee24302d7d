//! The command line: what can be asked, and how each answer becomes an exit code.

mod admin;
mod connect;
mod demo_tools;
pub mod demo_upstream;
mod doctor;
mod import;
mod serve;
pub mod shim;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    data_dir::DataDirError, gateway::StartError, import as import_file, settings::BadSettings,
    store::StoreError,
};

/// The exit codes of the contract.
pub mod exit {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NEWER_DATABASE: u8 = 3;
    pub const IN_USE: u8 = 4;
    pub const BAD_SETTINGS: u8 = 64;
    pub const NOT_AVAILABLE: u8 = 69;
}

/// Supervises MCP servers and publishes them, grouped and curated, as endpoints for any MCP client.
#[derive(Debug, Parser)]
#[command(name = "metamcpd", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon.
    Serve(serve::Serve),
    /// What an operator who is locked out needs.
    #[command(subcommand)]
    Admin(admin::Admin),
    /// A small real MCP server on stdio, so that a first run needs nothing else installed.
    DemoUpstream,
    /// Bridges stdio to an endpoint, for clients that only start processes.
    Connect(connect::Connect),
    /// Checks settings, data directory, database, public URL and every upstream, and says what to mend.
    Doctor(doctor::Doctor),
    /// Makes the configuration what a file says. (Not built yet.)
    Apply(Later),
    /// Writes the configuration out. (Not built yet.)
    Export(Later),
    /// Makes the servers of any client's file that are not there yet.
    Import(import::Import),
}

/// Whatever belongs to a command that is not built yet.
#[derive(Debug, clap::Args)]
struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<String>,
}

/// Where the daemon keeps what it remembers.
#[derive(Debug, clap::Args)]
struct Place {
    /// The directory of the database, the keys and the operator's socket.
    #[arg(long, env = "METAMCPD_DATA_DIR", default_value = "data")]
    data_dir: PathBuf,
    /// A file of settings; `config/default.toml` is the manual.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Settings(#[from] BadSettings),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    NotAvailable(String),
    /// What was asked for cannot be meant.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Other(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Settings(_) => exit::BAD_SETTINGS,
            Self::DataDir(DataDirError::InUse(_)) => exit::IN_USE,
            Self::Store(StoreError::NewerSchema { .. })
            | Self::Start(StartError::Store(StoreError::NewerSchema { .. })) => {
                exit::NEWER_DATABASE
            }
            Self::Store(StoreError::Options { .. })
            | Self::Start(
                StartError::Store(StoreError::Options { .. }) | StartError::Telemetry(_),
            ) => exit::BAD_SETTINGS,
            Self::NotAvailable(_) => exit::NOT_AVAILABLE,
            Self::Usage(_) => exit::USAGE,
            Self::DataDir(DataDirError::Unusable { .. })
            | Self::Start(_)
            | Self::Store(_)
            | Self::Other(_) => exit::FAILED,
        }
    }
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Admin(admin) => admin.run(),
        Command::DemoUpstream => {
            demo_upstream::serve_stdio().map_err(|error| Failure::Other(error.to_string()))
        }
        Command::Connect(connect) => connect.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Apply(_) => later("apply"),
        Command::Export(_) => later("export"),
        Command::Import(import) => import.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn later(command: &str) -> Result<(), Failure> {
    Err(Failure::NotAvailable(format!("`metamcpd {command}` is not built in this version")))
}

#[expect(clippy::print_stderr, reason = "a command that fails tells its person why")]
fn complain(failure: &Failure) {
    eprintln!("metamcpd: {failure}");
    let mut said = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        // Some errors have their cause in their own words already.
        let why = error.to_string();
        if !said.contains(&why) {
            eprintln!("  because {why}");
            said = why;
        }
        cause = error.source();
    }
}

/// Prints one fact on stdout, where programs look for it. A reader that has gone is no failure.
fn say(fact: &str) {
    use std::io::Write;
    if let Err(error) = writeln!(std::io::stdout().lock(), "{}", on_one_line(fact)) {
        tracing::debug!(%error, "nobody reads stdout");
    }
}

/// A fact holds names from other people's files: none of them may add a line, or command a terminal.
fn on_one_line(fact: &str) -> std::borrow::Cow<'_, str> {
    if !fact.contains(char::is_control) {
        return fact.into();
    }
    let mut line = String::with_capacity(fact.len());
    for char in fact.chars() {
        match char.is_control() {
            true => line.extend(char.escape_default()),
            false => line.push(char),
        }
    }
    line.into()
}

/// What a client's file says; `-` is stdin. One byte more than may be read is asked for, so that what
/// is too large is refused and not cut.
fn text_of(file: &Path) -> Result<String, String> {
    use std::io::Read;

    let max = import_file::FILE_MAX as u64 + 1;
    let mut bytes = Vec::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().lock().take(max).read_to_end(&mut bytes),
        false => std::fs::File::open(file).and_then(|file| file.take(max).read_to_end(&mut bytes)),
    };
    read.map_err(|error| error.to_string())?;
    let text = import_file::decode(&bytes).map_err(|error| error.to_string())?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_stays_one_line_whatever_it_names() {
        for (fact, line) in [
            ("größe: created", "größe: created"),
            ("a\nb: created", "a\\nb: created"),
            ("\u{1b}[2J\u{9b}", "\\u{1b}[2J\\u{9b}"),
        ] {
            assert_eq!(on_one_line(fact), line);
        }
    }
}
