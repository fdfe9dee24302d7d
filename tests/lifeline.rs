//! No process survives us: servers and their trees, started and ended through the real binary.
//!
//! Every test marks its processes with an instance of its own, and finds them by that mark. What
//! this does not cover: programs of other users, and what a server asks another daemon to run.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use futures_util::FutureExt;
use metamcpd::upstream::worker::lifeline::processes::{self, Marker, Process};
use metamcpd::upstream::worker::lifeline::{
    self, Ending, Launch, Lifeline, ServerExit, SpawnError, SpawnOptions, Spawned, StopGrace,
    Stopped, sweep,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

/// Set for the copy of this program that plays a daemon, and names its instance.
const DAEMON_OF: &str = "LIFELINE_TEST_DAEMON_OF";
const TREE_OF: &str = "LIFELINE_TEST_TREE_OF";

/// Each of these is a server that tries to leave something behind. `$READY` is appended when the
/// tree is as bad as it is going to be.
const TREES: [(&str, &str); 4] = [
    (
        "a tree that ignores TERM",
        "trap '' TERM; sleep 100 & sh -c 'sleep 100 & sleep 101' & echo ready; while :; do sleep 100; done",
    ),
    (
        "a tree that leaves the group and forks twice",
        "trap '' TERM
         (setsid sh -c 'trap \"\" TERM; setsid sleep 100 & sleep 101' &)
         (setsid sh -c '(setsid sleep 100 &)'; sleep 102 &)
         echo ready; while :; do sleep 100; done",
    ),
    ("a storm of forks", "echo ready; while :; do (setsid sh -c 'sleep 100 & sleep 101' &); done"),
    (
        "a process that is always somebody else",
        r#"exec python3 -c '
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    end = time.time() + 15
    while time.time() < end:
        if os.fork() != 0:
            os._exit(0)
        os.setsid()
print("ready", flush=True)
time.sleep(100)
'"#,
    ),
];

fn exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_metamcpd"))
}

fn lifeline(instance: &str) -> Lifeline {
    Lifeline::new(exe(), instance.to_owned(), SpawnOptions::FREE)
}

fn instance() -> String {
    Uuid::now_v7().to_string()
}

fn environment() -> BTreeMap<String, String> {
    lifeline::child_environment(env::vars(), &BTreeMap::new())
}

fn spawn(instance: &str, program: &str, args: &[&str]) -> Spawned {
    spawn_in(instance, program, args, None)
}

fn spawn_in(instance: &str, program: &str, args: &[&str], cwd: Option<&Path>) -> Spawned {
    let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
    let env = environment();
    let launch =
        Launch { label: "test/1", program, args: &args, env: &env, cwd, confinement: None };
    // Without brakes there is nothing to wait for.
    lifeline(instance).spawn(&launch).now_or_never().unwrap().unwrap()
}

fn shell(instance: &str, script: &str) -> Spawned {
    spawn(instance, "sh", &["-c", &script.replace('\n', " ; ").replace("; ;", ";")])
}

/// A tree's script has several lines, which no argument may have: it comes from a file.
fn tree(instance: &str, script: &str) -> (Spawned, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tree.sh");
    fs::write(&file, script).unwrap();
    (spawn(instance, "sh", &[file.to_str().unwrap()]), folder)
}

async fn says_ready(spawned: &mut Spawned) {
    let mut word = [0; 6];
    spawned.child.stdout.as_mut().unwrap().read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ready\n");
}

/// Everything of an instance that is alive, the shims too. A process that moves on by forking may
/// be missed, but not its shim, which ends only when nothing is left under it.
fn alive(instance: &str) -> Vec<i32> {
    processes::all()
        .into_iter()
        .filter(|pid| processes::marker(*pid, "METAMCPD_INSTANCE", instance) == Marker::Shown)
        .collect()
}

fn assert_nothing_is_left(instance: &str, patience: Duration) {
    let began = Instant::now();
    while !alive(instance).is_empty() {
        if began.elapsed() > patience {
            let left: Vec<_> = alive(instance)
                .into_iter()
                .map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")))
                .collect();
            assert_eq!(sweep(instance), 0, "left after {patience:?}: {left:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[expect(clippy::print_stderr, reason = "a test that proves less than it could has to say so")]
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIPPED in part: there is no python3 on this machine");
    }
    found
}

fn trees() -> impl Iterator<Item = (&'static str, &'static str)> {
    let python = has_python();
    TREES.into_iter().filter(move |(_, script)| python || !script.contains("python3"))
}

// === Starting ===

#[tokio::test]
async fn bytes_pass_unchanged_in_both_directions_and_the_streams_are_apart() {
    let instance = instance();
    let mut spawned = spawn(&instance, "sh", &["-c", "cat; echo oops >&2"]);
    let sent: Vec<u8> = (0..=255).cycle().take(300_000).collect();

    let mut stdin = spawned.child.stdin.take().unwrap();
    let mut stdout = spawned.child.stdout.take().unwrap();
    let mut stderr = spawned.child.stderr.take().unwrap();
    let (mut received, mut complaint) = (Vec::new(), Vec::new());
    let (written, read, complained) = tokio::join!(
        async {
            stdin.write_all(&sent).await?;
            stdin.shutdown().await?;
            drop(stdin);
            std::io::Result::Ok(())
        },
        stdout.read_to_end(&mut received),
        stderr.read_to_end(&mut complaint),
    );

    written.and(read).and(complained).unwrap();
    assert!(received == sent);
    assert_eq!(complaint, b"oops\n");
    assert_eq!(
        spawned.report.exit().await,
        Ending::Exited(ServerExit { code: Some(0), signal: None })
    );
}

#[tokio::test]
async fn the_pid_is_the_servers_own_and_it_sees_only_what_it_was_given() {
    let instance = instance();
    let mut spawned = spawn_in(&instance, "cat", &[], Some(Path::new("/usr")));
    let pid = spawned.report.pid().await.unwrap();

    // Until an answer has come, it may still be loading itself.
    spawned.child.stdin.as_mut().unwrap().write_all(b"x").await.unwrap();
    spawned.child.stdout.as_mut().unwrap().read_exact(&mut [0]).await.unwrap();

    let open: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(open, BTreeSet::from(["0", "1", "2"].map(String::from)));

    let found = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let found: BTreeMap<String, String> = found
        .split_terminator('\0')
        .map(|variable| variable.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut wanted = environment();
    wanted.insert("METAMCPD_INSTANCE".into(), instance.clone());
    wanted.insert("METAMCPD_UPSTREAM".into(), "test/1".into());
    assert_eq!(found, wanted);

    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/usr"));
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "cat\n");
    let server = Process::read(pid as i32).unwrap();
    assert_eq!(server.group, server.pid);
    assert_ne!(server.session, Process::read(std::process::id() as i32).unwrap().session);
}

#[tokio::test]
async fn what_cannot_be_started_is_told_by_its_cause() {
    let instance = instance();
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    fs::write(&text, "no program").unwrap();

    let missing = spawn(&instance, "no-such-program-anywhere", &[]).report.pid().await;
    assert!(
        matches!(missing, Err(SpawnError::NotFound { ref program }) if program == "no-such-program-anywhere")
    );

    let forbidden = spawn(&instance, text.to_str().unwrap(), &[]).report.pid().await;
    assert!(matches!(forbidden, Err(SpawnError::NotPermitted { .. })), "{forbidden:?}");

    let nowhere = folder.path().join("nowhere");
    let homeless = spawn_in(&instance, "cat", &[], Some(&nowhere)).report.pid().await;
    assert!(
        matches!(homeless, Err(SpawnError::WorkingDirectory { ref path, .. }) if *path == nowhere),
        "{homeless:?}"
    );
    assert!(homeless.unwrap_err().is_lasting());
    assert_nothing_is_left(&instance, Duration::from_secs(1));
}

#[tokio::test]
async fn a_line_break_in_an_argument_is_refused_before_anything_starts() {
    let env = environment();
    let args = ["a\nb".to_owned()];
    let launch = Launch {
        label: "test/1",
        program: "cat",
        args: &args,
        env: &env,
        cwd: None,
        confinement: None,
    };
    let refused = lifeline(&instance()).spawn(&launch).await;
    assert!(matches!(refused, Err(SpawnError::BadWord(_))));
}

// === Ending ===

#[tokio::test]
async fn how_a_server_ended_is_reported() {
    let instance = instance();
    let table = [
        ("exit 0", ServerExit { code: Some(0), signal: None }),
        ("exit 37", ServerExit { code: Some(37), signal: None }),
        ("kill -KILL $$", ServerExit { code: None, signal: Some(9) }),
        ("kill -SEGV $$", ServerExit { code: None, signal: Some(11) }),
    ];
    for (script, wanted) in table {
        let mut spawned = shell(&instance, script);
        assert!(spawned.report.pid().await.is_ok());
        assert_eq!(spawned.report.exit().await, Ending::Exited(wanted), "{script}");
        assert!(spawned.child.wait().await.unwrap().success());
    }
}

#[tokio::test]
async fn when_a_server_ends_its_tree_ends_and_its_streams_close() {
    let instance = instance();
    let mut spawned = shell(&instance, "setsid sleep 100 & sleep 101 & exit 3");
    let mut rest = Vec::new();

    spawned.child.stdout.as_mut().unwrap().read_to_end(&mut rest).await.unwrap();
    assert_eq!(
        spawned.report.exit().await,
        Ending::Exited(ServerExit { code: Some(3), signal: None })
    );
    assert!(spawned.child.wait().await.unwrap().success());
    assert_eq!(alive(&instance), Vec::<i32>::new());
}

#[tokio::test]
async fn dropping_the_guard_kills_every_tree() {
    for (what, script) in trees() {
        let instance = instance();
        let (mut spawned, _folder) = tree(&instance, script);
        says_ready(&mut spawned).await;

        drop(spawned.guard);
        assert_eq!(
            spawned.report.exit().await,
            Ending::Exited(ServerExit { code: None, signal: Some(9) }),
            "{what}"
        );
        let reaped = tokio::time::timeout(Duration::from_secs(5), spawned.child.wait()).await;
        assert!(reaped.unwrap().unwrap().success(), "{what}");
        assert_eq!(alive(&instance), Vec::<i32>::new(), "{what}");
    }
}

#[tokio::test]
async fn a_server_is_stopped_no_harder_than_it_needs() {
    let grace =
        StopGrace { stdin_close: Duration::from_millis(300), term: Duration::from_millis(300) };
    let table = [
        ("echo ready; cat", Stopped::ByItself),
        ("echo ready; while :; do sleep 0.01; done", Stopped::OnTerm),
        ("trap '' TERM; echo ready; while :; do sleep 0.01; done", Stopped::Killed),
    ];
    for (script, wanted) in table {
        let instance = instance();
        let mut spawned = shell(&instance, script);
        says_ready(&mut spawned).await;

        let began = Instant::now();
        let stopped = lifeline::stop(&mut spawned.child, &mut spawned.guard, grace).await;
        assert_eq!(stopped, wanted, "{script}");
        assert!(began.elapsed() < Duration::from_millis(1_600), "{:?}", began.elapsed());
        assert_eq!(alive(&instance), Vec::<i32>::new(), "{script}");
    }
}

// === The daemon's own death ===

#[test]
fn kill_9_of_the_daemon_leaves_nothing_within_a_second() {
    for (what, script) in trees() {
        for _ in 0..3 {
            let instance = instance();
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("tree.sh");
            fs::write(&file, script).unwrap();
            let mut daemon = play_daemon(&instance, &file);

            while !folder.path().join("ready").exists() {
                assert!(daemon.try_wait().unwrap().is_none(), "the daemon ended early: {what}");
                thread::sleep(Duration::from_millis(5));
            }
            assert!(!alive(&instance).is_empty(), "{what}");
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            assert_nothing_is_left(&instance, Duration::from_secs(1));
        }
    }
}

#[test]
fn kill_9_of_the_daemon_while_it_starts_servers_leaves_nothing() {
    for after in [0, 3, 10, 30, 60, 100] {
        let instance = instance();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tree.sh");
        fs::write(&file, TREES[1].1).unwrap();
        let mut daemon = play_daemon(&instance, &file);
        thread::sleep(Duration::from_millis(after));
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert_nothing_is_left(&instance, Duration::from_secs(1));
    }
}

fn play_daemon(instance: &str, tree: &Path) -> std::process::Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_daemon_that_is_killed", "--nocapture"])
        .env(DAEMON_OF, instance)
        .env(TREE_OF, tree)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Run as a program of its own by the tests that kill a daemon; otherwise it proves nothing and returns.
#[tokio::test]
async fn the_daemon_that_is_killed() {
    let (Ok(instance), Ok(tree)) = (env::var(DAEMON_OF), env::var(TREE_OF)) else { return };
    let mut servers: Vec<Spawned> =
        (0..3).map(|_| spawn(&instance, "sh", &[tree.as_str()])).collect();
    for server in &mut servers {
        says_ready(server).await;
    }
    fs::write(Path::new(&tree).with_file_name("ready"), "").unwrap();
    std::future::pending::<()>().await;
}

// === When the shim itself is killed ===

/// Run as a program of its own, because the whole program becomes a subreaper.
#[test]
fn the_tree_of_a_killed_shim_is_ended_by_the_daemon() {
    for (what, script) in trees() {
        let instance = instance();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tree.sh");
        fs::write(&file, script).unwrap();
        let daemon = Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_daemon_that_loses_a_shim", "--nocapture"])
            .env(DAEMON_OF, &instance)
            .env(TREE_OF, &file)
            .output()
            .unwrap();
        assert!(daemon.status.success(), "{what}: {}", String::from_utf8_lossy(&daemon.stderr));
        assert_nothing_is_left(&instance, Duration::from_secs(1));
    }
}

/// Run as a program of its own by the test above; otherwise it proves nothing and returns.
#[tokio::test]
async fn the_daemon_that_loses_a_shim() {
    let (Ok(instance), Ok(tree)) = (env::var(DAEMON_OF), env::var(TREE_OF)) else { return };
    lifeline::become_subreaper().unwrap();
    let lifeline = lifeline(&instance);
    let reaper = lifeline.orphan_reaper();
    let env = environment();
    let args = [tree];
    let launch = Launch {
        label: "test/1",
        program: "sh",
        args: &args,
        env: &env,
        cwd: None,
        confinement: None,
    };
    let mut lost = lifeline.spawn(&launch).await.unwrap();
    let cat = Launch { program: "cat", args: &[], ..launch };
    let mut healthy = lifeline.spawn(&cat).await.unwrap();
    says_ready(&mut lost).await;
    // Somebody else's children, one alive and one dead, are none of the reaper's business.
    let mut strangers = [stranger("exec sleep 100"), stranger("exit")];
    while !Process::read(strangers[1].id() as i32).unwrap().zombie {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(reaper.reap_strays().await, 0);

    assert!(lost.report.pid().await.is_ok());
    lost.child.start_kill().unwrap();
    assert_eq!(lost.report.exit().await, Ending::Lost);
    lost.child.wait().await.unwrap();
    assert!(reaper.reap_strays().await > 0);
    // What moves on by forking leaves its dead behind, and would be seen by them.
    tokio::time::sleep(Duration::from_millis(100)).await;

    let own = std::process::id() as i32;
    let left: Vec<Process> = processes::all()
        .into_iter()
        .filter_map(Process::read)
        .filter(|process| process.parent == own)
        .collect();
    assert_eq!(left.len(), 3, "the healthy shim and the strangers, but: {left:?}");
    assert!(healthy.report.pid().await.is_ok());
    healthy.child.stdin.as_mut().unwrap().write_all(b"x").await.unwrap();
    healthy.child.stdout.as_mut().unwrap().read_exact(&mut [0]).await.unwrap();
    strangers[0].kill().unwrap();
    for stranger in &mut strangers {
        stranger.wait().unwrap();
    }
}

fn stranger(script: &str) -> std::process::Child {
    // No stream of ours: whoever reads this program's output must not wait for a stranger's end.
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_sweep_ends_only_what_carries_the_instance() {
    let (ours, theirs) = (instance(), instance());
    let abandon = |instance: &str| {
        Command::new("sh")
            .args(["-c", "(setsid sleep 100 &)"])
            .env("METAMCPD_INSTANCE", instance)
            .status()
            .unwrap()
    };
    abandon(&ours);
    abandon(&ours);
    abandon(&theirs);
    while alive(&ours).len() + alive(&theirs).len() < 3 {
        thread::sleep(Duration::from_millis(2));
    }

    assert_eq!(sweep(&ours), 2);
    assert_eq!(alive(&ours), Vec::<i32>::new());
    assert_eq!(alive(&theirs).len(), 1);
    assert_eq!(sweep(&theirs), 1);
}
