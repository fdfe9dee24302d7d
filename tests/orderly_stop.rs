//! SIGTERM: accepting ends, calls finish or fail in bounded time, streams end, exit 0.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Client, SOON, TestGateway,
    client::call,
    fixtures::without_python,
    python,
    remote::{Knobs, Remote},
    wait_until, within,
};

async fn echo() -> Option<(TestGateway, Client)> {
    if without_python() {
        return None;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("echo", &python("echo_delay.py", &[])).await;
    let client = gateway.client_of(&["echo"]).await;
    Some((gateway, client))
}

/// Waits until the script has taken so many calls.
async fn taken(client: &Client, calls: &str) {
    wait_until("the call to arrive", SOON, async || {
        (client.text_of("echo__count", json!({})).await == calls).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_call_that_runs_when_the_stop_begins_is_finished() {
    let Some((mut gateway, client)) = echo().await else { return };
    let body = call(json!(1), "echo__echo", json!({"value": "finished", "delay_ms": 1000}));
    let (reply, ()) = tokio::join!(client.post(&body), async {
        taken(&client, "1").await;
        gateway.signal(Signal::TERM);
    });
    assert_eq!(reply.answer_to(&json!(1))["result"]["content"][0]["text"], "finished");
    assert_eq!(gateway.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_call_that_never_ends_is_answered_with_an_error_in_bounded_time() {
    let Some((mut gateway, client)) = echo().await else { return };
    let body = call(json!(1), "echo__wait", json!({}));
    let (reply, ()) =
        tokio::join!(within("the end of the call", SOON * 2, client.post(&body)), async {
            taken(&client, "1").await;
            gateway.signal(Signal::TERM);
        });
    assert!(reply.answer_to(&json!(1))["error"]["code"].is_i64(), "{reply:?}");
    assert_eq!(gateway.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_second_signal_hurries() {
    let Some((mut gateway, client)) = echo().await else { return };
    let body = call(json!(1), "echo__wait", json!({}));
    // In a hurry the gateway may answer or hang up; that it ends is what counts.
    let endless = client.try_open(&body);
    let hurry = async {
        taken(&client, "1").await;
        gateway.signal(Signal::TERM);
        wait_until("the stop to begin", SOON, async || {
            let ready = gateway.http.get(format!("{}/ready", gateway.base)).send().await;
            let serves = ready.is_ok_and(|answer| answer.status() == 200);
            (!serves).then_some(())
        })
        .await;
        gateway.signal(Signal::INT);
    };
    within("the end of the call", SOON, async { tokio::join!(endless, hurry) }).await.0.ok();
    let exit = within("the end", Duration::from_secs(8), gateway.ended()).await;
    assert_eq!((exit.code, exit.signal), (Some(0), None));
}

#[tokio::test]
async fn streams_end_when_the_daemon_stops() {
    let Some((mut gateway, client)) = echo().await else { return };
    let mut stream = client.listen().await;
    let mut events = gateway.events().await;
    gateway.signal(Signal::TERM);
    within("the client's stream to end", SOON, stream.events.rest()).await;
    within("the operator's stream to end", SOON, events.rest()).await;
    assert_eq!(gateway.ended().await.code, Some(0));
}

#[tokio::test]
async fn remote_sessions_are_given_back() {
    let mut gateway = TestGateway::start().await;
    let remote = Remote::start(Knobs::default());
    gateway.remote("remote", &remote.url).await;
    let client = gateway.client_of(&["remote"]).await;
    assert_eq!(client.text_of("remote__echo", json!({"value": "hi"})).await, "hi");
    assert!(remote.sessions() >= 1);
    gateway.stop().await;
    assert_eq!(remote.sessions(), 0, "{} sessions were begun", remote.seen_of("initialize").len());
    assert!(remote.count("DELETE") >= 1);
}

#[tokio::test]
async fn an_idle_daemon_stops_at_once() {
    let mut gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    gateway.ready("demo").await;
    let exit = within("the end", Duration::from_secs(10), gateway.stop()).await;
    assert_eq!(exit.code, Some(0));
}
