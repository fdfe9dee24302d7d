//! Remote upstreams that fail call after call, or ask to be left alone.

use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    gateway::Start,
    remote::{Knobs, Remote},
    wait_until,
};

/// A breaker that takes fractions of a second where it usually takes minutes.
const HASTY: &str = "[calls.breaker]\nfailures = 3\nopen = \"400ms\"\nopen_max = \"400ms\"";

async fn hasty() -> (TestGateway, Remote, Client) {
    let gateway = Start::new().settings(HASTY).run().await;
    let remote = Remote::start(Knobs::default());
    gateway.remote("remote", &remote.url).await;
    let client = gateway.client_of(&["remote"]).await;
    (gateway, remote, client)
}

async fn reason(client: &Client) -> String {
    let answer = client.call("remote__echo", json!({"value": "hi"})).await;
    answer["error"]["data"]["reason"].as_str().unwrap_or("none").to_owned()
}

#[tokio::test]
async fn an_upstream_that_fails_call_after_call_is_spared_and_probed_until_it_is_well() {
    let (gateway, remote, client) = hasty().await;
    remote.turn(|knobs| knobs.trouble = Some((500, None)));
    for _ in 0..3 {
        assert_eq!(reason(&client).await, "upstream_http_status");
    }
    assert_eq!(reason(&client).await, "upstream_circuit_open");
    let server = gateway.server("remote").await;
    assert_eq!(server["runtime"]["degraded"], json!(["circuit_open"]), "{server}");
    assert_eq!(
        (&server["runtime"]["state"], &server["runtime"]["restarts"]),
        (&json!("READY"), &json!(0))
    );
    assert_eq!(remote.seen_of("tools/call").len(), 3, "what is held back does not reach it");

    // A probe that fails keeps it open, one that succeeds closes it.
    wait_until("a probe", SOON, async || {
        (reason(&client).await == "upstream_http_status").then_some(())
    })
    .await;
    assert_eq!(reason(&client).await, "upstream_circuit_open");
    remote.turn(|knobs| knobs.trouble = None);
    wait_until("its recovery", SOON, async || (reason(&client).await == "none").then_some(()))
        .await;
    let server = gateway.server("remote").await;
    assert_eq!(server["runtime"]["degraded"], json!([]), "{server}");
    assert!(
        gateway.metric("metamcpd_circuits_opened_total").await.is_some_and(|count| count >= 2.0)
    );
}

#[tokio::test]
async fn an_upstream_that_asks_to_be_left_alone_is_and_its_calls_hear_for_how_long() {
    let (gateway, remote, client) = hasty().await;
    remote.turn(|knobs| knobs.trouble = Some((429, Some(120))));
    let answer = client.call("remote__echo", json!({"value": "hi"})).await;
    assert_eq!(answer["error"]["data"]["reason"], "upstream_throttled", "{answer}");
    assert_eq!(answer["error"]["data"]["retry"], true, "{answer}");
    assert!(answer["error"]["message"].to_string().contains("120 s"), "{answer}");
    for _ in 0..5 {
        assert_eq!(reason(&client).await, "upstream_throttled");
    }
    assert_eq!(remote.seen_of("tools/call").len(), 1, "it is left alone");
    let server = gateway.server("remote").await;
    assert_eq!(server["runtime"]["degraded"], json!(["throttled"]), "{server}");
    let (state, status) = (&server["runtime"]["state"], &server["error_status"]);
    assert_eq!((state, status), (&json!("READY"), &json!("NONE")), "that is no failure");
}

#[tokio::test]
async fn a_call_that_is_put_off_for_a_moment_is_sent_again_once_and_one_that_failed_never() {
    let (_gateway, remote, client) = hasty().await;
    let answers = [(429, Some(0), 2), (503, Some(0), 1), (503, None, 1), (500, Some(0), 1)];
    for (status, after, times) in answers {
        let before = remote.seen_of("tools/call").len();
        remote.turn(|knobs| knobs.trouble = Some((status, after)));
        let answer: Value = client.call("remote__echo", json!({"value": "hi"})).await;
        assert!(answer["error"].is_object(), "{answer}");
        let sent = remote.seen_of("tools/call").len() - before;
        assert_eq!(sent, times, "{status} {after:?}: {answer}");
    }
    remote.turn(|knobs| knobs.trouble = Some((429, Some(1))));
    let mend = async {
        let before = remote.seen_of("tools/call").len();
        wait_until("the call", SOON, async || {
            (remote.seen_of("tools/call").len() > before).then_some(())
        })
        .await;
        remote.turn(|knobs| knobs.trouble = None);
    };
    let call = async { reason(&client).await };
    let (reason, ()) = tokio::join!(call, mend);
    assert_eq!(reason, "none", "it waited a second, and was carried out");
}

#[tokio::test]
async fn when_many_fail_together_half_of_them_are_spared_and_of_one_alone_its_calls_are() {
    let settings = "[calls.breaker]\nfailures = 3\nopen = \"60s\"";
    let gateway = Start::new().settings(settings).run().await;
    let names = ["one", "two", "three", "four"];
    let remotes = names.map(|_| Remote::start(Knobs::default()));
    for (name, remote) in names.iter().zip(&remotes) {
        gateway.remote(name, &remote.url).await;
    }
    let client = gateway.client_of(&names).await;
    for remote in &remotes {
        remote.turn(|knobs| knobs.trouble = Some((500, None)));
    }
    let mut last = Vec::new();
    for name in names {
        for _ in 0..3 {
            client.call(&format!("{name}__echo"), json!({"value": "hi"})).await;
        }
        let answer = client.call(&format!("{name}__echo"), json!({"value": "hi"})).await;
        last.push(answer["error"]["data"]["reason"].as_str().unwrap_or("none").to_owned());
    }
    let (open, closed) = ("upstream_circuit_open", "upstream_http_status");
    assert_eq!(last, [open, open, closed, closed], "two of four");
    let limit = "metamcpd_limit_hit_total{limit=\"calls.breaker.ejected_percent_max\"}";
    assert_eq!(gateway.metric(limit).await, Some(2.0), "each says so once");
    // One that goes is not counted any more, and there is room for one of the three others.
    gateway.remove("mcp-servers/one").await;
    gateway.remove("mcp-servers/two").await;
    wait_until("room for another", SOON, async || {
        let answer = client.call("three__echo", json!({"value": "hi"})).await;
        (answer["error"]["data"]["reason"] == open).then_some(())
    })
    .await;
}

#[tokio::test]
async fn calls_are_sent_again_no_more_often_than_they_may_be() {
    let settings =
        format!("{HASTY}\n[calls.retries]\npercent_max = 0\nwindow_min = 2\nwindow = \"1h\"");
    let gateway = Start::new().settings(&settings).run().await;
    let remote = Remote::start(Knobs::default());
    gateway.remote("remote", &remote.url).await;
    let client = gateway.client_of(&["remote"]).await;
    remote.turn(|knobs| knobs.trouble = Some((429, Some(0))));
    for times in [2, 2, 1, 1] {
        let before = remote.seen_of("tools/call").len();
        assert_eq!(reason(&client).await, "upstream_throttled");
        assert_eq!(remote.seen_of("tools/call").len() - before, times);
    }
    let limit = "metamcpd_limit_hit_total{limit=\"calls.retries.percent_max\"}";
    assert_eq!(gateway.metric(limit).await, Some(2.0));
}
