//! A PostgreSQL of our own for tests: started once a test binary from the installed programs, on a
//! Unix socket in a temporary directory, with one fresh database for each test.
//!
//! It knows nothing of the daemon. The cluster ends with the process that started it, whatever way
//! that ends: a watchdog reads a pipe that only we hold, and stops and removes everything at its
//! end.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The URL of a new, empty database; None, said loudly, where PostgreSQL is not installed.
///
/// # Panics
/// When it is installed and does not work, or when `METAMCPD_TEST_REQUIRE` asks for `postgres` and
/// it is not installed.
pub fn fresh_database() -> Option<String> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| match programs() {
        Some(programs) => Some(Cluster::start(programs)),
        None => {
            let required = std::env::var("METAMCPD_TEST_REQUIRE").unwrap_or_default();
            assert!(!required.contains("postgres"), "PostgreSQL is required: no initdb found");
            None
        }
    });
    if cluster.is_none() {
        let mut stderr = std::io::stderr().lock();
        std::io::Write::write_all(&mut stderr, b"SKIPPED on PostgreSQL: no initdb found\n").ok();
    }
    cluster.as_ref().map(Cluster::fresh_database)
}

/// A cluster for one test alone, which may do to it what it likes; None where PostgreSQL is not installed.
pub fn cluster_of_its_own() -> Option<Cluster> {
    programs().map(Cluster::start)
}

pub struct Cluster {
    programs: PathBuf,
    directory: PathBuf,
    /// Holds the pipe at whose end everything is stopped.
    _watchdog: Child,
    /// Databases are copied from a template, which is done one at a time.
    making: Mutex<()>,
}

impl Cluster {
    fn start(programs: PathBuf) -> Cluster {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Short: a socket's path may have 107 bytes.
        let name =
            format!("mt-pg-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        let script = directory.with_extension("sh");
        fs::write(&script, WATCHDOG).expect("the watchdog's script can be written");

        let mut command = as_servant();
        command.arg("/bin/sh").arg(&script).arg(&directory).arg(&programs);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command.current_dir("/");
        let mut watchdog = command.spawn().expect("the watchdog starts");

        let mut word = [0; 6];
        let mut stdout = watchdog.stdout.take().expect("its output is piped");
        let heard = stdout.read_exact(&mut word);
        fs::remove_file(&script).ok();
        assert!(heard.is_ok() && &word == b"ready\n", "PostgreSQL did not start: {heard:?}");

        let cluster = Cluster { programs, directory, _watchdog: watchdog, making: Mutex::new(()) };
        cluster.wait_until_it_answers();
        cluster
    }

    fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.run("pg_isready", &["--quiet"]) {
            assert!(Instant::now() < deadline, "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The URL of a new, empty database.
    pub fn fresh_database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(self.run("createdb", &[&name]), "the database {name} cannot be made");
        format!("postgres://postgres@localhost/{name}?host={}", self.directory.display())
    }

    /// The processes of the server, the one that started the others first.
    pub fn processes(&self) -> Vec<u32> {
        let pid = fs::read_to_string(self.directory.join("data/postmaster.pid"));
        let pid = pid.ok().and_then(|text| text.lines().next()?.trim().parse::<u32>().ok());
        let first = pid.expect("the server's process id");
        let children = format!("/proc/{first}/task/{first}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(first).chain(children).collect()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        Command::new(self.programs.join(program))
            .args(["--host", &self.directory.to_string_lossy(), "--username", "postgres"])
            .args(arguments)
            .stdin(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// Makes the cluster, says so, and waits for the end of its input: ours, or that of a process that
/// was killed. It leaves our process group, so that an interrupt from the terminal reaches only us.
const WATCHDOG: &str = r#"
umask 077
directory="$1" programs="$2"
mkdir "$directory" || exit 1
trap '' INT TERM HUP
"$programs/initdb" --pgdata "$directory/data" --username postgres --auth trust \
    --encoding UTF8 --locale C --no-sync --no-instructions >"$directory/log" 2>&1 ||
    { cat "$directory/log" >&2; rm -rf "$directory"; exit 1; }
"$programs/postgres" -D "$directory/data" -k "$directory" -h '' \
    -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200 \
    >>"$directory/log" 2>&1 </dev/null &
echo ready
cat >/dev/null
kill -QUIT $!
wait $!
rm -rf "$directory"
"#;

/// PostgreSQL refuses to run as root, and so runs as the user who came with its package.
fn as_servant() -> Command {
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let mut command = Command::new("setsid");
    if is_root {
        command.args(["runuser", "-u", "postgres", "--"]);
    }
    command
}

/// Where initdb and its siblings are: the newest of the packaged versions, or what PATH names.
fn programs() -> Option<PathBuf> {
    let version = |directory: &Path| -> Option<u32> {
        directory.parent()?.file_name()?.to_str()?.parse().ok()
    };
    let mut packaged: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|directory| directory.join("initdb").exists())
        .collect();
    packaged.sort_by_key(|directory| version(directory));
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).find_map(|directory| {
            let initdb = fs::canonicalize(directory.join("initdb")).ok()?;
            Some(initdb.parent()?.to_owned())
        })
    });
    packaged.pop().or(on_path)
}
