//! A server that says far too much unasked: it costs a bounded memory, what is left out is counted, and its
//! lists are read at our pace.

use std::time::Instant;

use evil_mcp::{Character, Fault, value::Rate};
use serde_json::json;

use crate::support::{Client, SOON, TestGateway, client::LATEST, evil, wait_until, within};

const RATE: Rate = Rate(100_000);

/// Kilobytes that a flood may cost.
const COST: u64 = 16_000;

/// Bytes that a process has written, wherever to.
fn written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("what it wrote");
    let count = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    count.and_then(|count| count.parse().ok()).expect("a number")
}

/// Has a server flood until it has said so much more, with another one called meanwhile.
async fn flood(gateway: &TestGateway, client: &Client, bytes: u64) {
    let pid = gateway.server_pid("flood").await;
    let until = written(pid) + bytes;
    let calls = async {
        let mut number = 0;
        while written(pid) < until {
            number += 1;
            let text = number.to_string();
            assert_eq!(client.text_of("calm__echo", json!({"message": text})).await, text);
        }
    };
    within("the flood", SOON * 3, calls).await;
    assert_eq!(gateway.server_pid("flood").await, pid, "it was never started anew");
}

async fn flooded_by(faults: &[Fault]) -> (TestGateway, Client) {
    let gateway = TestGateway::start().await;
    let character = faults.iter().cloned().fold(Character::good(), Character::with);
    gateway.stdio("flood", &evil(&character)).await;
    gateway.demo("calm").await;
    let client = gateway.client_of(&["flood", "calm"]).await;
    (gateway, client)
}

#[tokio::test]
async fn changes_that_are_announced_without_end_are_listed_at_a_pace() {
    // Each listing finds other tools, and is told of.
    let (gateway, client) = flooded_by(&[Fault::FloodListChanged(RATE), Fault::Rugpull]).await;
    let listings =
        async || gateway.items("logs?kind=catalogue&server=flood&limit=500").await.len() as u64;
    let stream = client.listen().await;
    wait_until("the first of them", SOON, async || (listings().await > 2).then_some(())).await;
    let (began, before, memory) = (Instant::now(), listings().await, gateway.memory());
    flood(&gateway, &client, 20_000_000).await;
    wait_until("some listings", SOON, async || (listings().await >= before + 3).then_some(()))
        .await;
    let listed = listings().await - before;
    // `lists.refresh_rest` is a second; one may have begun before, and one have ended since.
    let most = began.elapsed().as_secs() + 2;
    assert!(listed <= most, "{listed} listings in {:?}", began.elapsed());
    let grown = gateway.memory().saturating_sub(memory);
    assert!(grown < COST, "{grown} KB");
    drop(stream);
}

#[tokio::test]
async fn resources_that_change_without_end_and_that_nobody_asked_about_cost_nothing() {
    let (gateway, client) = flooded_by(&[Fault::FloodUpdated(RATE)]).await;
    flood(&gateway, &client, 5_000_000).await;
    let memory = gateway.memory();
    flood(&gateway, &client, 20_000_000).await;
    let grown = gateway.memory().saturating_sub(memory);
    assert!(grown < COST, "{grown} KB");
}

#[tokio::test]
async fn messages_that_nobody_can_take_are_dropped_and_counted() {
    let (gateway, client) = flooded_by(&[Fault::FloodLog(RATE)]).await;
    // It wants everything, and reads nothing.
    let mut deaf = client.again();
    assert_eq!(deaf.initialize(LATEST).await.status, 200);
    deaf.request("logging/setLevel", json!({"level": "debug"})).await;
    let stream = deaf.listen().await;
    flood(&gateway, &client, 10_000_000).await;
    let memory = gateway.memory();
    flood(&gateway, &client, 20_000_000).await;
    let grown = gateway.memory().saturating_sub(memory);
    assert!(grown < COST, "{grown} KB");
    wait_until("what was left out to be counted", SOON, async || {
        let dropped = gateway.metric("metamcpd_session_messages_dropped_total").await;
        dropped.filter(|dropped| *dropped > 1_000.0)
    })
    .await;
    drop(stream);
}
