//! What happens while the database is away, hangs or comes and goes is remembered: all of it, once, and in
//! order, also by a daemon that is stopped meanwhile.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    SOON, TestGateway, database::Database, events::EventStream, fragile::Fragile, gateway::Start,
    outage::Outage, postgres, processes, skipped, wait_until,
};

/// Little memory, and none of it for the entries of the log, which may be dropped.
const SHORT: &str = "[journal]\ncapacity = 4\nbatch = 2\n[logs]\npersist = false";

/// A change of state, as everybody is told of it.
fn change(told: &Value) -> [Value; 3] {
    ["state", "reason", "restarts"].map(|field| told[field].clone())
}

/// The changes that are told of, until a server has been READY so many times.
async fn told(events: &mut EventStream, readies: usize) -> Vec<[Value; 3]> {
    let mut told = Vec::new();
    let mut left = readies;
    while left > 0 {
        let event = events.expect("a transition", SOON).await;
        if event.event.as_deref() == Some("transition") {
            let one = event.json();
            left -= usize::from(one["state"] == "READY");
            told.push(change(&one));
        }
    }
    told
}

async fn restart(gateway: &TestGateway) {
    let restarts = gateway.metric("metamcpd_transitions_total").await.unwrap_or_default();
    let asked = gateway.admin(Method::POST, "mcp-servers/demo/restart", None).await;
    assert_eq!(asked.0, StatusCode::ACCEPTED, "{asked:?}");
    wait_until("the restart to have begun", SOON, async || {
        let now = gateway.metric("metamcpd_transitions_total").await.unwrap_or_default();
        (now > restarts).then_some(())
    })
    .await;
    gateway.ready("demo").await;
}

/// Waits until the history ends like this, and sees that it has each of them once.
async fn remembered(gateway: &TestGateway, told: &[[Value; 3]]) {
    let history = wait_until("the history to be whole", SOON, async || {
        let path = "mcp-servers/demo/history?limit=200";
        let (status, page) = gateway.admin(Method::GET, path, None).await;
        let items = page["items"].as_array().filter(|_| status == StatusCode::OK)?;
        let history: Vec<_> = items.iter().rev().map(change).collect();
        (history.len() >= told.len() && history.last() == told.last()).then_some(history)
    })
    .await;
    assert_eq!(history, told, "{}", gateway.log());
    assert_eq!(gateway.metric("metamcpd_journal_dropped_total").await, None);
}

#[tokio::test]
async fn what_finds_no_room_in_memory_while_the_database_is_away_waits_in_a_file() {
    for database in Database::all() {
        let start = Start::new().on(database).settings(SHORT);
        let gateway = start.run().await;
        let mut events = gateway.events().await;
        gateway.demo("demo").await;
        gateway.ready("demo").await;
        let outage = Outage::begin(&gateway).await;
        for _ in 0..5 {
            restart(&gateway).await;
        }
        assert!(gateway.metric("metamcpd_journal_spilled_total").await > Some(0.0));
        let file = gateway.data_dir().join("journal.spill");
        let there = std::fs::metadata(&file).expect("the file");
        assert!(there.len() > 0);
        assert_eq!(there.permissions().mode() & 0o777, 0o600);
        outage.end().await;
        let all = told(&mut events, 6).await;
        remembered(&gateway, &all).await;
        wait_until("the file to be empty", SOON, async || {
            (std::fs::metadata(&file).expect("the file").len() == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_a_stop_finds_unwritten_is_written_by_the_next_start_before_anything_is_read() {
    for database in Database::all() {
        let start = Start::new().on(database).settings(SHORT);
        let mut gateway = start.run().await;
        let mut events = gateway.events().await;
        gateway.demo("demo").await;
        let mut client = gateway.client_of(&["demo"]).await;
        let outage = Outage::begin(&gateway).await;
        for _ in 0..3 {
            restart(&gateway).await;
        }
        assert_eq!(client.end().await, StatusCode::NO_CONTENT);
        let all = told(&mut events, 4).await;
        let exit = gateway.stop().await;
        assert_eq!(exit.code, Some(0), "a stop needs no database");
        assert!(gateway.log().contains("left what is not written"), "{}", gateway.log());
        outage.end().await;

        gateway.restart().await;
        client.url = gateway.endpoint_url("all");
        let ended =
            client.post(&crate::support::client::request(json!(1), "ping", json!({}))).await;
        assert_eq!(ended.status, StatusCode::NOT_FOUND, "a session that was ended stays so");
        gateway.ready("demo").await;
        let history: Vec<_> = gateway.history("demo").await.iter().map(change).collect();
        assert_eq!(history[..all.len()], all, "{history:?}");
    }
}

#[tokio::test]
async fn a_start_that_is_killed_before_any_batch_of_what_was_left_goes_on_where_it_came_to() {
    for database in Database::all() {
        // More than one batch of what is left, and less of it is kept than there is.
        let settings =
            format!("{SHORT}\n").replace("batch = 2", "batch = 2\nhistory_max_per_server = 5");
        let start = Start::new().on(database).settings(&settings);
        let mut fragile = Fragile::begin(start).await;
        let mut events = fragile.gateway.events().await;
        fragile.gateway.demo("demo").await;
        fragile.gateway.ready("demo").await;
        let outage = Outage::begin(&fragile.gateway).await;
        for _ in 0..4 {
            restart(&fragile.gateway).await;
        }
        let mut all = told(&mut events, 5).await;
        assert_eq!(fragile.gateway.stop().await.code, Some(0), "a stop needs no database");
        outage.end().await;
        let restarts = all[all.len() - 1][2].clone();
        all.push([json!("STOPPED"), json!("stopping"), restarts]);

        // Each comes one batch further than the one before.
        let left = || std::fs::metadata(fragile.gateway.data_dir().join("journal.spill"));
        assert!(left().expect("the file").len() > 0);
        for kill in 1..=3 {
            fragile.arm_to("journal", "kill 1");
            let exit = fragile.gateway.restart_and_die().await;
            assert_eq!(exit.signal, Some(9), "{kill}: {exit:?}");
        }
        fragile.gateway.restart().await;
        fragile.gateway.ready("demo").await;
        // What this last run has to tell stands behind all that.
        let history: Vec<_> = fragile.gateway.history("demo").await.iter().map(change).collect();
        all.extend_from_slice(&history[history.len() - 2..]);
        assert_eq!(history, all[all.len() - 5..], "{history:?}\n{}", fragile.gateway.log());
        assert_eq!(fragile.gateway.metric("metamcpd_journal_dropped_total").await, None);
    }
}

#[tokio::test]
async fn a_postgresql_that_hangs_again_and_again_in_the_midst_of_writing_has_each_change_once() {
    let Some(cluster) = postgres::cluster_of_its_own() else {
        skipped("postgres", "a PostgreSQL that hangs: no initdb found");
        return;
    };
    let settings = "[database]\nwrite_timeout = \"300ms\"\n[journal]\nflush_every = \"1ms\"";
    let start = Start::new().on_url(&cluster.fresh_database()).settings(settings);
    let gateway = start.run().await;
    let mut events = gateway.events().await;
    gateway.demo("demo").await;
    gateway.ready("demo").await;
    let everybody = |signal| {
        for process in cluster.processes() {
            // Some of them come and go.
            processes::signal_if_there(process, signal);
        }
    };
    // Each at another moment of a transaction.
    let given_up = || gateway.log().matches("the journal waits for the database").count();
    for hang in 0..6_u64 {
        let before = given_up();
        let asked = gateway.admin(Method::POST, "mcp-servers/demo/restart", None);
        let (asked, ()) = tokio::join!(asked, async {
            tokio::time::sleep(Duration::from_millis(hang * 3)).await;
            everybody(Signal::STOP);
        });
        assert_eq!(asked.0, StatusCode::ACCEPTED, "{asked:?}");
        wait_until("a try to be given up", SOON, async || (given_up() > before).then_some(()))
            .await;
        everybody(Signal::CONT);
        gateway.ready("demo").await;
    }
    restart(&gateway).await;
    let all = told(&mut events, 8).await;
    remembered(&gateway, &all).await;
}
