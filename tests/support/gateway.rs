//! The real binary in a process of its own, with a data directory, a port and an environment of its
//! own. When it is dropped, the test fails if any process of that data directory still lives.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tempfile::TempDir;

use super::{ADMIN_KEY, SOON, client, database::Database, processes, wait_until};

/// How long what a killed daemon leaves may live.
pub const LEFTOVERS_DIE_WITHIN: Duration = Duration::from_secs(1);

/// How a gateway under test is to be started.
#[derive(Debug)]
pub struct Start {
    database: Database,
    url: Option<String>,
    settings: String,
    import: Option<PathBuf>,
    environment: Vec<(String, String)>,
    admin_key: bool,
    /// What a shell does before it becomes the daemon.
    prepared_by: Option<String>,
    log_is_read: bool,
}

/// How the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

#[derive(Debug)]
pub struct TestGateway {
    directory: TempDir,
    start: Start,
    database_url: Option<String>,
    process: Option<Child>,
    facts: Arc<Mutex<Vec<String>>>,
    instance: String,
    /// `http://127.0.0.1:PORT` of the running daemon.
    pub base: String,
    pub http: reqwest::Client,
}

impl Start {
    pub fn new() -> Start {
        Start {
            database: Database::of_this_run(),
            url: None,
            settings: String::new(),
            import: None,
            environment: Vec::new(),
            admin_key: true,
            prepared_by: None,
            log_is_read: true,
        }
    }

    pub fn on(mut self, database: Database) -> Start {
        self.database = database;
        self
    }

    /// On this PostgreSQL, which the test looks after.
    pub fn on_url(mut self, url: &str) -> Start {
        self.url = Some(url.to_owned());
        self
    }

    /// Lines for the settings file.
    pub fn settings(mut self, toml: &str) -> Start {
        self.settings.push_str(toml);
        self.settings.push('\n');
        self
    }

    pub fn import(mut self, file: impl Into<PathBuf>) -> Start {
        self.import = Some(file.into());
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Start {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Has a shell say this first, such as `ulimit -n 256`, and then become the daemon.
    pub fn prepared_by(mut self, words: &str) -> Start {
        self.prepared_by = Some(words.to_owned());
        self
    }

    /// Gives the daemon a stderr that nobody ever reads.
    pub fn with_an_unread_log(mut self) -> Start {
        self.log_is_read = false;
        self
    }

    /// Lets the daemon make its own admin key, as on a person's first run.
    pub fn without_admin_key(mut self) -> Start {
        self.admin_key = false;
        self
    }

    /// Starts the daemon and waits until it says that it is ready.
    pub async fn run(self) -> TestGateway {
        let directory = tempfile::tempdir().expect("a temporary directory");
        self.run_in(directory).await
    }

    /// The same, in a directory whose `data` holds what an earlier daemon left.
    pub async fn run_in(self, directory: TempDir) -> TestGateway {
        let database_url = self.url.clone().or_else(|| self.database.fresh());
        let mut gateway = TestGateway {
            directory,
            start: self,
            database_url,
            process: None,
            facts: Arc::default(),
            instance: String::new(),
            base: String::new(),
            http: client::http(),
        };
        gateway.begin().await;
        gateway
    }
}

impl TestGateway {
    /// A gateway with an empty database and nothing unusual.
    pub async fn start() -> TestGateway {
        Start::new().run().await
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A directory of this test's own, beside the data directory.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The file of settings that the daemon is started with.
    pub fn settings_file(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    /// Other settings, from the next start on.
    pub fn set_settings(&mut self, toml: &str) {
        self.start.settings = format!("{toml}\n");
    }

    pub fn database_url(&self) -> Option<&str> {
        self.database_url.as_deref()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the daemon runs").id()
    }

    /// Kilobytes of memory that the daemon has.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("its status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
        line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a number")
    }

    /// The lines of stdout since the last start.
    pub fn facts(&self) -> Vec<String> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What follows `name` on a line of stdout.
    pub fn fact(&self, name: &str) -> Option<String> {
        let prefix = format!("{name} ");
        self.facts()
            .iter()
            .find_map(|line| line.strip_prefix(&prefix))
            .map(|rest| rest.trim().to_owned())
    }

    pub fn endpoint_url(&self, endpoint: &str) -> String {
        format!("{}/metamcp/{endpoint}/mcp", self.base)
    }

    pub fn sse_url(&self, endpoint: &str) -> String {
        format!("{}/metamcp/{endpoint}/sse", self.base)
    }

    /// The processes that were started for this gateway's upstreams and live.
    pub fn children(&self) -> Vec<processes::Process> {
        processes::of_instance(&self.instance)
    }

    /// What the daemon logged, from its first start on.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default()
    }

    /// The binary with the environment that the daemon gets, for other subcommands.
    pub fn command(&self) -> Command {
        let mut command = binary();
        if let Some(url) = &self.database_url {
            command.env("METAMCPD__DATABASE__URL", url);
        }
        command
    }

    /// Asks the daemon to stop, and waits until it has.
    pub async fn stop(&mut self) -> Exit {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    /// Kills the daemon as the kernel's memory killer would.
    pub async fn kill9(&mut self) -> Exit {
        self.signal(rustix::process::Signal::KILL);
        self.ended().await
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        processes::signal(self.pid(), signal);
    }

    /// Waits until the daemon has ended.
    pub async fn ended(&mut self) -> Exit {
        let mut process = self.process.take().expect("the daemon runs");
        let patience = SOON * 2;
        let status = wait_until("the daemon's end", patience, async || {
            process.try_wait().expect("its status")
        })
        .await;
        Exit { code: status.code(), signal: status.signal() }
    }

    /// Starts the daemon again on the same data; stops it first where it still runs.
    pub async fn restart(&mut self) {
        if self.process.is_some() {
            let exit = self.stop().await;
            assert_eq!(exit.code, Some(0), "an orderly stop: {exit:?}\n{}", self.log());
        }
        self.begin().await;
    }

    /// Starts the daemon again where it is to die before it is ready, and waits until it has.
    pub async fn restart_and_die(&mut self) -> Exit {
        self.spawn();
        self.ended().await
    }

    /// Waits until no process of this data directory is left; the ones that are at the end.
    pub async fn leftovers_after(&self, patience: Duration) -> Vec<processes::Process> {
        let begun = tokio::time::Instant::now();
        loop {
            let left = self.children();
            if left.is_empty() || begun.elapsed() > patience {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn begin(&mut self) {
        self.spawn();
        self.await_ready().await;
        self.base = self.fact("listening").expect("the address it listens on");
        let instance = std::fs::read_to_string(self.data_dir().join("instance"));
        self.instance = instance.expect("the instance id").trim().to_owned();
        assert!(!self.instance.is_empty(), "an instance id");
    }

    fn spawn(&mut self) {
        let root = self.directory.path();
        let config = self.settings_file();
        std::fs::write(&config, &self.start.settings).expect("the settings file");
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(root.join("daemon.log"));
        let mut command = match &self.start.prepared_by {
            None => self.command(),
            Some(words) => prepared(&self.command(), words),
        };
        command.arg("serve").arg("--data-dir").arg(self.data_dir()).arg("--config").arg(&config);
        if let Some(file) = &self.start.import {
            command.arg("--import").arg(file);
        }
        command.env("METAMCPD__SERVER__BIND", "127.0.0.1:0");
        if self.start.admin_key {
            command.env("METAMCPD_ADMIN_KEY", ADMIN_KEY);
        }
        command.envs(self.start.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        match self.start.log_is_read {
            true => command.stderr(log.expect("the log file")),
            // Its other end lives as long as the process is ours.
            false => command.stderr(Stdio::piped()),
        };
        let mut process = command.spawn().expect("the daemon starts");
        let stdout = process.stdout.take().expect("its stdout");
        self.process = Some(process);

        let facts: Arc<Mutex<Vec<String>>> = Arc::default();
        self.facts = Arc::clone(&facts);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                facts.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
    }

    async fn await_ready(&mut self) {
        let begun = tokio::time::Instant::now();
        while !self.facts().iter().any(|line| line == "ready") {
            let process = self.process.as_mut().expect("the daemon runs");
            if let Some(status) = process.try_wait().expect("its status") {
                panic!("the daemon ended before it was ready: {status}\n{}", self.log());
            }
            assert!(begun.elapsed() < SOON * 2, "the daemon is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take()
            && let Err(error) = process.kill().and_then(|()| process.wait().map(drop))
        {
            eprintln!("could not end the daemon: {error}");
        }
        if std::thread::panicking() {
            eprintln!("--- what the daemon logged ---\n{}", last_lines(&self.log(), 60));
        }
        if self.instance.is_empty() {
            return;
        }
        let mut left = self.children();
        for _ in 0..LEFTOVERS_DIE_WITHIN.as_millis() / 20 {
            if left.is_empty() {
                return;
            }
            // Drop cannot await.
            std::thread::sleep(Duration::from_millis(20));
            left = self.children();
        }
        if left.is_empty() {
            return;
        }
        processes::sweep(&left);
        if std::thread::panicking() {
            eprintln!("processes were left behind: {left:?}");
        } else {
            panic!("processes were left behind: {left:?}");
        }
    }
}

/// The binary in an environment that holds nothing of the developer's settings.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metamcpd"));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("METAMCPD"))
    {
        command.env_remove(name);
    }
    command
}

/// The same program, by a shell that says something first and has the same process id.
fn prepared(program: &Command, words: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{words} && exec \"$0\" \"$@\"")).arg(program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
