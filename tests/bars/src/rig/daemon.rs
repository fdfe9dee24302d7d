//! The daemon under fire: a process with a data directory of its own.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Admin, SOON, host, until};
use crate::{Outcome, Plan};

/// The admin key that the daemon is given.
pub const ADMIN_KEY: &str = "bars-admin-key-0123456789-abcdefghijklmnop";

/// A daemon. It is killed when this is dropped, and what it left with it.
#[derive(Debug)]
pub struct Daemon {
    program: PathBuf,
    directory: TempDir,
    process: Option<Child>,
    /// Variables that it is given besides, or instead.
    pub environment: Vec<(String, String)>,
    facts: Arc<Mutex<Vec<String>>>,
    pub port: u16,
}

impl Daemon {
    /// Starts one with these settings, beside what bars need, and waits until it serves.
    pub async fn start(plan: &Plan, settings: &str) -> Outcome<Daemon> {
        let mut daemon = Daemon::new(plan, settings)?;
        daemon.begin()?;
        daemon.ready().await?;
        Ok(daemon)
    }

    /// One that does not run yet.
    pub fn new(plan: &Plan, settings: &str) -> Outcome<Daemon> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("config.toml"), settings)?;
        let program = plan.daemon.clone();
        let (environment, facts) = (Vec::new(), Arc::default());
        Ok(Daemon { program, directory, process: None, environment, facts, port: 0 })
    }

    /// Starts it, and waits for nothing.
    pub fn begin(&mut self) -> Outcome<()> {
        let root = self.directory.path();
        let log = OpenOptions::new().create(true).append(true).open(root.join("daemon.log"))?;
        let mut command = Command::new(&self.program);
        let settings =
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("METAMCPD"));
        for (name, _) in settings {
            command.env_remove(name);
        }
        let mut process = command
            .arg("serve")
            .arg("--data-dir")
            .arg(root.join("data"))
            .arg("--config")
            .arg(root.join("config.toml"))
            .env("METAMCPD__SERVER__BIND", "127.0.0.1:0")
            .env("METAMCPD__LOG__LEVEL", "warn")
            .env("METAMCPD_ADMIN_KEY", ADMIN_KEY)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let stdout = process.stdout.take().ok_or("the daemon has no stdout")?;
        self.process = Some(process);
        let facts: Arc<Mutex<Vec<String>>> = Arc::default();
        self.facts = Arc::clone(&facts);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                facts.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(())
    }

    /// Waits until it serves.
    pub async fn ready(&mut self) -> Outcome<()> {
        until("the daemon to be ready", SOON, async || {
            if let Some(status) = self.process.as_mut().ok_or("it does not run")?.try_wait()? {
                return Err(format!("the daemon ended: {status}\n{}", self.last_words()).into());
            }
            Ok(self.facts().iter().any(|line| line == "ready").then_some(()))
        })
        .await?;
        let facts = self.facts();
        let listening = facts.iter().find_map(|line| line.strip_prefix("listening "));
        let port = listening.and_then(|url| url.rsplit(':').next()?.parse().ok());
        self.port = port.ok_or("it does not say where it listens")?;
        Ok(())
    }

    /// The lines of its stdout so far.
    pub fn facts(&self) -> Vec<String> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub async fn admin(&self) -> Outcome<Admin> {
        Admin::new(self.port)
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    /// A directory for a bar's own files.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The id by which processes of this data directory are known; empty before the first start.
    pub fn instance(&self) -> String {
        let file = self.directory.path().join("data/instance");
        std::fs::read_to_string(file).unwrap_or_default().trim().to_owned()
    }

    /// Kills it as the kernel's memory killer would.
    pub fn kill9(&mut self) -> Outcome<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) -> Outcome<ExitStatus> {
        host::signal(self.pid(), Signal::TERM);
        self.ended(SOON * 2).await
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self, patience: Duration) -> Outcome<ExitStatus> {
        let mut process = self.process.take().ok_or("it does not run")?;
        let ended = until("the daemon's end", patience, async || Ok(process.try_wait()?)).await;
        if ended.is_err() {
            process.kill()?;
            process.wait()?;
        }
        ended
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("daemon.log"));
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.kill9());
        let instance = self.instance();
        // What is left is a bar's finding, which it has counted by now.
        for pid in host::belonging(&instance, "") {
            host::signal(pid, Signal::KILL);
        }
    }
}
