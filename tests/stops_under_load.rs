//! SIGTERM while clients call and new ones come: what was taken is answered, who comes is told so, and
//! nothing that was to be remembered is lost. And what the other signals do.

use std::{cell::Cell, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Client, SOON, TestGateway,
    client::{LATEST, call, http},
    raw::Raw,
    wait_until, within,
};

const CALLERS: usize = 8;

/// What became of one caller's calls.
#[derive(Default)]
struct Fate {
    answered: Cell<usize>,
    /// Told that the daemon stops.
    told: Cell<usize>,
    /// Neither answered nor refused before anything was sent.
    lost: Cell<usize>,
}

#[tokio::test]
async fn every_call_that_was_taken_is_answered_and_nothing_is_forgotten() {
    let mut gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    gateway.publish("all", &["demo"]).await;
    gateway.ready("demo").await;
    let key = gateway.key("suite").await;
    let mut clients = Vec::new();
    for _ in 0..CALLERS {
        clients.push(gateway.client("all", &key).await);
    }
    let fate = Fate::default();
    let calls = async |client: &Client| {
        for number in 0.. {
            let value = format!("{number}");
            let delay = number * 37 % 10 * 40;
            let arguments = json!({"message": value, "delay_ms": delay});
            let body = call(json!(number), "demo__echo", arguments);
            match within("an outcome", SOON, client.try_open(&body)).await {
                Ok(mut exchange) => {
                    let said = exchange.events.rest().await;
                    let answers = said.iter().map(|event| event.json());
                    let Some(answer) = answers.into_iter().find(|one| one["id"] == number) else {
                        fate.lost.set(fate.lost.get() + 1);
                        return;
                    };
                    if answer["error"]["data"]["reason"] == "stopping" {
                        fate.told.set(fate.told.get() + 1);
                        return;
                    }
                    assert_eq!(answer["result"]["content"][0]["text"], value, "{answer}");
                    fate.answered.set(fate.answered.get() + 1);
                }
                Err(refused) if refused.is_connect() => return,
                Err(_) => {
                    fate.lost.set(fate.lost.get() + 1);
                    return;
                }
            }
        }
    };
    let newcomers = async {
        wait_until("the load", SOON, async || (fate.answered.get() >= 100).then_some(())).await;
        // So that there is something to wait for, and a while to come in.
        let slow = json!({"message": "slow", "delay_ms": 2500});
        let mut long = clients[0].again();
        assert_eq!(long.initialize(LATEST).await.status, 200);
        let told = async {
            let before = fate.answered.get();
            wait_until("the slow call to be sent", SOON, async || {
                (fate.answered.get() >= before + 20).then_some(())
            })
            .await;
            gateway.signal(Signal::TERM);
            let ready = format!("{}/ready", gateway.base);
            wait_until("a newcomer to hear that it is not ready", SOON, async || {
                let answer = http().get(&ready).send().await.expect("an answer");
                (answer.status() == 503).then_some(())
            })
            .await;
            let refused = Client::new(&clients[0].url, Some(&key)).initialize(LATEST).await;
            assert_eq!(refused.status, 503, "{refused:?}");
            assert!(refused.header("retry-after").is_some());
        };
        let (answer, ()) = tokio::join!(long.text_of("demo__echo", slow), told);
        assert_eq!(answer, "slow");
    };
    let callers = futures_util::future::join_all(clients.iter().map(calls));
    tokio::join!(callers, newcomers);
    assert_eq!(gateway.ended().await.code, Some(0));
    let (answered, told, lost) = (fate.answered.get(), fate.told.get(), fate.lost.get());
    assert_eq!(lost, 0, "{answered} answered, {told} told that it stops");

    gateway.restart().await;
    let history = gateway.history("demo").await;
    assert!(history.iter().any(|one| one["reason"] == "stopping"), "{history:?}");
    let said = gateway.items("logs?kind=gateway&limit=10").await;
    assert!(said.iter().any(|one| one["message"] == "metamcpd has stopped"), "{said:?}");
}

#[tokio::test]
async fn sighup_has_the_rows_read_again_and_ends_nothing() {
    let mut gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    gateway.write_behind_its_back("update api_keys set is_active = false").await;
    assert_eq!(client.text_of("demo__echo", json!({"message": "still"})).await, "still");
    gateway.signal(Signal::HUP);
    wait_until("the key to be refused", SOON, async || {
        let reply = client.post(&call(json!(1), "demo__echo", json!({"message": "x"}))).await;
        (reply.status == 401).then_some(())
    })
    .await;
    wait_until("a word about it", SOON, async || {
        gateway.log().contains("the rows were read again").then_some(())
    })
    .await;
    assert_eq!(gateway.stop().await.code, Some(0));
}

#[tokio::test]
async fn sigquit_stops_in_a_hurry_and_in_order() {
    let mut gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let body = call(json!(1), "demo__echo", json!({"message": "slow", "delay_ms": 600_000}));
    let (reply, ()) = tokio::join!(within("an outcome", SOON, client.post(&body)), async {
        wait_until("the call to be under way", SOON, async || {
            let sessions = gateway.items("sessions").await;
            sessions.iter().any(|session| session["in_flight"] != 0).then_some(())
        })
        .await;
        gateway.signal(Signal::QUIT);
    });
    let answer = reply.answer_to(&json!(1));
    assert_eq!(answer["error"]["data"]["reason"], "stopping", "{answer}");
    let exit = within("the end", Duration::from_secs(12), gateway.ended()).await;
    assert_eq!((exit.code, exit.signal), (Some(0), None));
}

#[tokio::test]
async fn hundreds_of_clients_come_back_at_once_after_a_restart() {
    let mut gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let first = gateway.client_of(&["demo"]).await;
    let started = gateway.history("demo").await.len();
    let key = first.headers[0].1.clone();
    gateway.restart().await;
    gateway.ready("demo").await;
    let path = "/metamcp/all/mcp";
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": LATEST, "capabilities": {}, "clientInfo": {"name": "herd", "version": "1"},
    }})
    .to_string();
    let comes = async || {
        let mut raw = Raw::connect(&gateway).await;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {key}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{hello}",
            raw.address,
            hello.len(),
        );
        raw.send(&request).await;
        raw.rest().await
    };
    let herd = futures_util::future::join_all((0..300).map(|_| comes())).await;
    // As many as one key may have sessions; the others made room, and were served all the same.
    let served = herd.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
    assert_eq!(served, 300, "{:?}", herd.iter().find(|answer| !answer.starts_with("HTTP/1.1 200")));
    let starts = gateway.history("demo").await.len() - started;
    assert!(starts <= 6, "one upstream for all of them: {starts} transitions");
}
