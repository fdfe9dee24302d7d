//! What an operator changes while calls are under way changes nothing about them but their outcome: each has
//! one, from the upstream that it was for.

use std::{
    cell::Cell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway, client::call, fixtures::without_python, python, wait_until, within,
};

const SERVERS: [&str; 3] = ["alpha", "beta", "gamma"];

/// How many changes are made.
const EDITS: u32 = 30;

/// A small generator, so that a run can be had again by its seed (Marsaglia, "Xorshift RNGs", 2003).
struct Dice(u64);

impl Dice {
    fn seeded() -> Dice {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::try_from(now & 0xffff_ffff).unwrap() | 1);
        eprintln!("SEED={seed}");
        Dice(seed)
    }

    fn below(&mut self, end: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end).unwrap()
    }
}

async fn begin(gateway: &TestGateway, name: &str) -> Value {
    let offers = gateway.scratch().join("offers").display().to_string();
    gateway.stdio(name, &python("named.py", &[name, &offers])).await
}

#[tokio::test]
async fn changes_under_load_lose_no_answer_and_give_none_from_another_upstream() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    std::fs::write(gateway.scratch().join("offers"), "who").unwrap();
    for name in SERVERS {
        begin(&gateway, name).await;
    }
    let client = gateway.client_of(&SERVERS).await;
    let is_over = Cell::new(false);
    let (answered, refused) = (Cell::new(0_u32), Cell::new(0_u32));
    let calls = async |name: &'static str| {
        let tool = format!("{name}__who");
        while !is_over.get() {
            let answer = within("an outcome", SOON, client.call(&tool, json!({}))).await;
            match answer["result"]["content"][0]["text"].as_str() {
                Some(text) => {
                    assert_eq!(text, format!("{name} who"));
                    answered.set(answered.get() + 1);
                }
                None => {
                    assert!(answer["error"]["code"].is_i64(), "{answer}");
                    refused.set(refused.get() + 1);
                    // A refusal costs next to nothing; an upstream has to start between them.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    };
    let edits = async {
        let mut dice = Dice::seeded();
        for _ in 0..EDITS {
            let before = answered.get();
            edit(&gateway, SERVERS[dice.below(3)], dice.below(6)).await;
            // Changes come as fast as there are calls between them.
            wait_until("calls to be answered", SOON, async || {
                (answered.get() >= before + 3).then_some(())
            })
            .await;
        }
        is_over.set(true);
    };
    let all = futures_util::future::join_all(
        SERVERS.into_iter().flat_map(|name| [name, name]).map(calls),
    );
    tokio::join!(all, edits);
    assert!(answered.get() >= 3 * EDITS, "{} answered, {} refused", answered.get(), refused.get());
    for name in SERVERS {
        let text = wait_until("its tool to be back", SOON, async || {
            let answer = client.call(&format!("{name}__who"), json!({})).await;
            answer["result"]["content"][0]["text"].as_str().map(str::to_owned)
        })
        .await;
        assert_eq!(text, format!("{name} who"));
    }
}

/// One change, after which the server is there again under its name.
async fn edit(gateway: &TestGateway, name: &str, what: usize) {
    let path = format!("mcp-servers/{name}");
    match what {
        0 => {
            gateway.change(&path, json!({"enabled": false})).await;
            gateway.change(&path, json!({"enabled": true})).await;
        }
        1 => {
            // Another environment is another process.
            gateway.change(&path, json!({"env": {"ROTATED": name}})).await;
            gateway.change(&path, json!({"env": {}})).await;
        }
        2 => {
            gateway.change(&path, json!({"name": format!("{name}-for-a-while")})).await;
            gateway.change(&format!("{path}-for-a-while"), json!({"name": name})).await;
        }
        3 => {
            gateway.remove(&path).await;
            begin(gateway, name).await;
            let members = SERVERS.map(|server| json!({"server": server, "status": "ACTIVE"}));
            gateway.replace("namespaces/all/servers", json!(members)).await;
        }
        4 => {
            let restarted = gateway.admin(Method::POST, &format!("{path}/restart"), None).await;
            assert_eq!(restarted.0, 202, "{restarted:?}");
        }
        _ => {
            let members = json!([{"server": name, "status": "INACTIVE"}]);
            let of = "namespaces/all/servers";
            gateway.admin(Method::PATCH, of, Some(members)).await;
            let members = json!([{"server": name, "status": "ACTIVE"}]);
            gateway.admin(Method::PATCH, of, Some(members)).await;
        }
    }
}

#[tokio::test]
async fn a_call_that_is_under_way_when_its_server_changes_has_an_outcome() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    for change in [json!({"env": {"A": "1"}}), json!({"enabled": false})] {
        gateway.ready("demo").await;
        let slow = json!({"message": "slow", "delay_ms": 60_000});
        let body = call(json!("slow"), "demo__echo", slow);
        let (reply, ()) = tokio::join!(within("the outcome", SOON, client.post(&body)), async {
            in_flight(&gateway).await;
            gateway.change("mcp-servers/demo", change.clone()).await;
        });
        let answer = reply.answer_to(&json!("slow"));
        // The change may have been faster than the call.
        let reason = answer["error"]["data"]["reason"].as_str().unwrap_or_default();
        assert!(matches!(reason, "upstream_ended" | "upstream_unavailable"), "{change}: {answer}");
    }
}

async fn in_flight(gateway: &TestGateway) {
    wait_until("the call to be under way", SOON, async || {
        let sessions = gateway.items("sessions").await;
        sessions.iter().any(|session| session["in_flight"] != 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_revoked_ends_what_it_has_open_at_once_and_nothing_else() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let other = gateway.client_of(&["demo"]).await;
    for revoke in ["PATCH", "DELETE"] {
        let key = gateway.key("laptop").await;
        let client = gateway.client("all", &key).await;
        let older = gateway.sse_client("all", &key).await;
        let mut streams = [client.listen().await.events, other.listen().await.events];
        let slow = json!({"message": "slow", "delay_ms": 60_000});
        let body = call(json!("slow"), "demo__echo", slow);
        let revoking = async {
            in_flight(&gateway).await;
            match revoke {
                "PATCH" => {
                    drop(gateway.change("api-keys/laptop", json!({"is_active": false})).await)
                }
                _ => gateway.remove("api-keys/laptop").await,
            }
        };
        let (reply, ()) = tokio::join!(within("the outcome", SOON, client.post(&body)), revoking);
        let answer = reply.answer_to(&json!("slow"));
        assert_eq!(answer["error"]["data"]["reason"], "session_ended", "{answer}");
        within("the stream to end", SOON, streams[0].rest()).await;
        within("the older stream to end", SOON, async { older.stream().await.rest().await }).await;
        assert_eq!(refused_as(&client).await, 401);
        assert_eq!(other.text_of("demo__echo", json!({"message": "mine"})).await, "mine");
        if revoke == "PATCH" {
            gateway.remove("api-keys/laptop").await;
        }
    }
}

async fn refused_as(client: &Client) -> u16 {
    client.post(&call(json!(1), "demo__echo", json!({}))).await.status.as_u16()
}
