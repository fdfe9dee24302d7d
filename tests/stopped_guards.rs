//! A guard that somebody has stopped does nothing more. The daemon then ends it, and what it guarded.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::support::{
    SOON, TestGateway,
    fixtures::without_python,
    gateway::{LEFTOVERS_DIE_WITHIN, Start},
    processes, python, wait_until,
};

/// The guard and the server of an upstream, and whatever else lives there.
struct Tree {
    guard: u32,
    server: u32,
    all: Vec<u32>,
}

impl Tree {
    fn is_gone(&self) -> bool {
        !self.all.iter().any(|pid| processes::is_alive(*pid))
    }

    async fn goes_within(&self, patience: Duration) {
        let gone = async || self.is_gone().then_some(());
        wait_until("the old tree to go", patience, gone).await;
    }
}

/// An upstream whose tree does not want to go, and whose guard has been stopped.
async fn behind_a_stopped_guard(settings: &str) -> Option<(TestGateway, Tree)> {
    if without_python() {
        return None;
    }
    let gateway = Start::new().settings(settings).run().await;
    let book = gateway.scratch().join("book");
    std::fs::create_dir(&book).expect("the book");
    gateway.stdio("one", &python("hostile_tree.py", &[&book.display().to_string()])).await;
    gateway.ready("one").await;
    let server = gateway.server_pid("one").await;
    let guard = processes::parent_of(server);
    assert_ne!(guard, gateway.pid(), "a guard stands between the daemon and the server");
    // Some of them can be found by no mark.
    let entries = std::fs::read_dir(&book).expect("the book");
    let pid = |name: std::ffi::OsString| name.to_str().and_then(|name| name.parse().ok());
    let mut all: Vec<u32> = entries.filter_map(|entry| pid(entry.ok()?.file_name())).collect();
    all.push(guard);
    let tree = Tree { guard, server, all };
    assert!(tree.all.len() > gateway.children().len(), "{:?}", tree.all);
    processes::signal(tree.guard, Signal::STOP);
    Some((gateway, tree))
}

async fn is_ready_again(gateway: &TestGateway, old: &Tree) {
    gateway
        .server_until("one", "READY again", |server| {
            server["runtime"]["state"] == "READY" && server["runtime"]["pid"] != old.server
        })
        .await;
    assert!(old.is_gone(), "one generation at a time");
}

const QUICK: &str = "[upstream.stop]\nstdin_close = \"300ms\"\nterm = \"300ms\"";

#[tokio::test]
async fn a_restart_does_not_wait_for_a_guard_that_is_stopped() {
    let Some((gateway, tree)) = behind_a_stopped_guard(QUICK).await else { return };
    gateway.admin(reqwest::Method::POST, "mcp-servers/one/restart", None).await;
    is_ready_again(&gateway, &tree).await;
    assert!(gateway.log().contains("guards a server did not end it"), "{}", gateway.log());
}

#[tokio::test]
async fn a_server_that_dies_under_a_stopped_guard_is_started_again() {
    let Some((gateway, tree)) = behind_a_stopped_guard("").await else { return };
    // What the server has left may hold its stdout open.
    processes::signal(tree.server, Signal::KILL);
    is_ready_again(&gateway, &tree).await;
}

#[tokio::test]
async fn a_server_that_is_deleted_goes_though_its_guard_is_stopped() {
    let Some((gateway, tree)) = behind_a_stopped_guard(QUICK).await else { return };
    gateway.remove("mcp-servers/one").await;
    tree.goes_within(SOON).await;
}

/// With the graces of the defaults, which is what an operator waits for.
#[tokio::test]
async fn an_orderly_end_leaves_nothing_behind_a_stopped_guard() {
    let Some((mut gateway, tree)) = behind_a_stopped_guard("").await else { return };
    let begun = Instant::now();
    let exit = gateway.stop().await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(tree.is_gone(), "at the daemon's end, not later: {:?}", tree.all);
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    assert!(gateway.children().is_empty(), "{:?}", gateway.children());
    assert!(gateway.log().contains("guards a server did not end it"), "{}", gateway.log());
}

/// Nobody is there to end it, until somebody is.
#[tokio::test]
async fn the_next_start_ends_what_a_stopped_guard_outlived_a_killed_daemon_with() {
    let Some((mut gateway, tree)) = behind_a_stopped_guard("").await else { return };
    gateway.kill9().await;
    tokio::time::sleep(LEFTOVERS_DIE_WITHIN).await;
    assert!(!tree.is_gone(), "else this proves nothing");
    gateway.restart().await;
    assert!(tree.is_gone(), "{:?}", tree.all);
    assert!(gateway.log().contains("processes of an earlier run"), "{}", gateway.log());
    is_ready_again(&gateway, &tree).await;
}
