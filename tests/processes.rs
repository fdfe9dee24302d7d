//! No process survives the daemon, however it ends and however little its children like to go.

use std::{path::Path, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    SOON, TestGateway, fixtures::without_python, gateway::LEFTOVERS_DIE_WITHIN, processes, python,
    wait_until,
};

/// How many processes the hostile script leaves, itself included.
const HOSTILES: usize = 5;

/// The pids of the hostile tree that are written in its book.
fn pids(book: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(book).expect("the book");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn alive(book: &Path) -> Vec<u32> {
    pids(book).into_iter().filter(|pid| processes::is_alive(*pid)).collect()
}

/// A gateway whose upstream has left processes that do not want to go, and the book of their pids.
async fn hostile() -> Option<(TestGateway, std::path::PathBuf)> {
    if without_python() {
        return None;
    }
    let gateway = TestGateway::start().await;
    let book = gateway.scratch().join("book");
    std::fs::create_dir(&book).expect("the book");
    gateway.stdio("hostile", &python("hostile_tree.py", &[&book.display().to_string()])).await;
    gateway.demo("demo").await;
    gateway.ready("hostile").await;
    gateway.ready("demo").await;
    assert_eq!(alive(&book).len(), HOSTILES);
    Some((gateway, book))
}

async fn all_gone(book: &Path, patience: Duration) {
    let begun = tokio::time::Instant::now();
    while !alive(book).is_empty() {
        assert!(begun.elapsed() < patience, "still alive after {patience:?}: {:?}", alive(book));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn nothing_is_left_after_an_orderly_stop() {
    let Some((mut gateway, book)) = hostile().await else { return };
    let exit = gateway.stop().await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_eq!(alive(&book), [0; 0], "at the daemon's end, not later");
    assert!(gateway.children().is_empty(), "{:?}", gateway.children());
}

#[tokio::test]
async fn nothing_is_left_within_a_second_after_the_daemon_is_killed() {
    let Some((mut gateway, book)) = hostile().await else { return };
    gateway.kill9().await;
    all_gone(&book, LEFTOVERS_DIE_WITHIN).await;
    let left = gateway.leftovers_after(LEFTOVERS_DIE_WITHIN).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_daemon_that_was_killed_starts_again_without_a_manual_step() {
    let Some((mut gateway, book)) = hostile().await else { return };
    gateway.kill9().await;
    gateway.restart().await;
    gateway.ready("demo").await;
    gateway.ready("hostile").await;
    assert!(alive(&book).len() <= HOSTILES, "only the new tree lives: {:?}", alive(&book));
}

/// Each waits for the one before it, for no longer than its turn lasts, and is not failed by that.
#[tokio::test]
async fn many_servers_that_start_together_start_in_turn_and_all_of_them() {
    let gateway = crate::support::gateway::Start::new()
        .settings("[upstream]\nconnect_timeout = \"10s\"\n[upstream.spawns]\nat_once = 1\nturn_max = \"300ms\"")
        .run()
        .await;
    if !without_python() {
        let command = python("hang_init.py", &[]);
        let body =
            json!({"name": "mute", "type": "STDIO", "command": command[0], "args": command[1..]});
        gateway.create("mcp-servers", body).await;
    }
    for number in 0..6 {
        gateway.demo(&format!("demo{number}")).await;
    }
    for number in 0..6 {
        let server = gateway.ready(&format!("demo{number}")).await;
        assert_eq!(server["runtime"]["restarts"], 0, "{server}");
    }
    assert_eq!(gateway.metric("metamcpd_spawns_waiting").await, Some(0.0));
}

#[tokio::test]
async fn deleting_an_upstream_ends_its_whole_tree() {
    let Some((gateway, book)) = hostile().await else { return };
    gateway.remove("mcp-servers/hostile").await;
    all_gone(&book, SOON).await;
    gateway.ready("demo").await;
}

#[tokio::test]
async fn a_server_that_dies_takes_its_tree_along() {
    let Some((gateway, book)) = hostile().await else { return };
    let pid = gateway.server_pid("hostile").await;
    let old = pids(&book);
    processes::signal(pid, Signal::KILL);
    wait_until("the old tree to go", SOON, async || {
        old.iter().all(|pid| !processes::is_alive(*pid)).then_some(())
    })
    .await;
    gateway
        .server_until("hostile", "READY again", |server| {
            server["runtime"]["state"] == "READY" && server["runtime"]["pid"] != pid
        })
        .await;
}

#[tokio::test]
async fn a_helper_that_is_killed_is_a_crash_and_leaves_nothing() {
    let Some((gateway, book)) = hostile().await else { return };
    let pid = gateway.server_pid("hostile").await;
    let old = pids(&book);
    let helper = parent(pid);
    assert_ne!(helper, gateway.pid(), "a helper stands between the daemon and the server");
    processes::signal(helper, Signal::KILL);
    wait_until("the old tree to go", SOON, async || {
        old.iter().all(|pid| !processes::is_alive(*pid)).then_some(())
    })
    .await;
    gateway
        .server_until("hostile", "READY again", |server| {
            server["runtime"]["state"] == "READY" && server["runtime"]["pid"] != pid
        })
        .await;
}

#[tokio::test]
async fn helpers_may_be_killed_over_and_over() {
    let gateway = crate::support::gateway::Start::new()
        .settings("[supervision]\nbackoff_min = \"5ms\"\nbackoff_max = \"5ms\"\nfailures_burst = 1000\nfailures_slow = 1000")
        .run()
        .await;
    gateway.demo("demo").await;
    for _ in 0..20 {
        let pid = gateway.server_pid("demo").await;
        processes::signal(parent(pid), Signal::KILL);
        gateway
            .server_until("demo", "READY again", |server| {
                server["runtime"]["state"] == "READY" && server["runtime"]["pid"] != pid
            })
            .await;
        assert!(!processes::is_alive(pid), "one generation at a time");
    }
    let history = gateway.history("demo").await;
    assert!(history.iter().any(|one| one["reason"] == "guard_lost"), "{history:#?}");
    assert_eq!(gateway.children().len(), 2, "the server and its helper: {:?}", gateway.children());
}

#[tokio::test]
async fn servers_stand_back_for_the_daemon_and_their_helpers_do_not() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let pid = gateway.server_pid("demo").await;
    let score = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it lives");
        text.trim().parse::<i32>().expect("a number")
    };
    let niceness = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        let after_name = stat.rsplit(')').next().expect("a name in parentheses");
        after_name
            .split_whitespace()
            .nth(16)
            .and_then(|text| text.parse::<i32>().ok())
            .expect("a number")
    };
    let helper = parent(pid);
    assert_eq!((score(pid), niceness(pid)), (500, niceness(gateway.pid()).max(5)));
    assert_eq!(score(helper), score(gateway.pid()));
    assert_eq!(niceness(helper), niceness(gateway.pid()));
}

/// In a container that was entered from outside the daemon's session has no number.
#[test]
fn so_it_is_where_the_session_was_begun_outside_of_the_container() {
    let apart = || {
        let mut command = std::process::Command::new("unshare");
        command.args(["--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
        // In there nobody can become the user that PostgreSQL asks for.
        command.env_remove("METAMCPD_TEST_DATABASE");
        command
    };
    let can = apart().arg("true").output().is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("SKIPPED a container within: `unshare` may not make one here");
        return;
    }
    let this = std::env::current_exe().expect("this program");
    let again = ["--exact", "processes::a_helper_that_is_killed_is_a_crash_and_leaves_nothing"];
    let output = apart().arg(this).args(again).output().expect("the test runs again");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

#[tokio::test]
async fn no_zombies_gather_while_a_child_restarts_over_and_over() {
    if without_python() {
        return;
    }
    let gateway = crate::support::gateway::Start::new()
        .settings("[supervision]\nbackoff_min = \"5ms\"\nbackoff_max = \"5ms\"\nfailures_burst = 1000\nfailures_slow = 1000")
        .run()
        .await;
    let never = gateway.scratch().join("never");
    gateway.stdio("frail", &python("exit_at_once.py", &[&never.display().to_string()])).await;
    let restarts = |server: &serde_json::Value| server["runtime"]["restarts"].as_u64().unwrap_or(0);
    gateway.server_until("frail", "restarted ten times", |server| restarts(server) >= 10).await;
    gateway.change("mcp-servers/frail", json!({"enabled": false})).await;
    wait_until("every zombie to be reaped", SOON, async || {
        children_of(gateway.pid()).is_empty().then_some(())
    })
    .await;
}

/// The parent of a process.
fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let after_name = stat.rsplit(')').next().expect("a name in parentheses");
    after_name.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a parent")
}

/// The direct children of a process, zombies included.
fn children_of(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}
