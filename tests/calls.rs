//! Calls through one shared STDIO process: nobody gets another's answer, bytes stay as they are,
//! and cancellation, progress and timeouts reach the right side.

use std::time::Duration;

use evil_mcp::{Character, http::Server};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::{call, request},
    evil,
    fixtures::without_python,
    python, wait_until, within,
};

/// A gateway with the echoing script named `echo`, and a client with a session.
async fn echo() -> Option<(TestGateway, Client)> {
    if without_python() {
        return None;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("echo", &python("echo_delay.py", &[])).await;
    let client = gateway.client_of(&["echo"]).await;
    Some((gateway, client))
}

/// The messages that the script was sent, oldest first.
async fn seen(client: &Client) -> Vec<Value> {
    let lines: Vec<String> =
        serde_json::from_str(&client.text_of("echo__seen", json!({})).await).expect("a list");
    lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn a_hundred_calls_with_the_same_id_each_get_their_own_answer() {
    let Some((_gateway, client)) = echo().await else { return };
    // Delays that put the answers in quite another order than the calls.
    let calls = (0..100_u64).map(|number| {
        let value = format!("value {number}");
        let body =
            call(json!(1), "echo__echo", json!({"value": value, "delay_ms": number * 37 % 101}));
        let client = &client;
        async move { (value, client.post(&body).await) }
    });
    for (value, reply) in join_all(calls).await {
        let answer = reply.answer_to(&json!(1));
        assert_eq!(answer["result"]["content"][0]["text"], value.as_str(), "{answer}");
        assert_eq!(reply.messages.len(), 1, "{reply:?}");
    }
    assert_eq!(client.text_of("echo__count", json!({})).await, "100");
}

#[tokio::test]
async fn results_of_megabytes_come_whole_and_those_beside_them_too() {
    let gateway = TestGateway::start().await;
    let server = Server::start(Character::good()).expect("a server");
    gateway.stdio("child", &evil(&Character::good())).await;
    gateway.remote("remote", &server.url).await;
    let client = gateway.client_of(&["child", "remote"]).await;
    let asked = [("child", 3_000_000), ("remote", 2_999_999), ("child", 262_145), ("remote", 9)];
    let calls = (0..4).flat_map(|_| asked).map(|(server, bytes)| {
        let body = call(json!(1), &format!("{server}__big"), json!({"bytes": bytes}));
        let client = &client;
        async move { (bytes, client.post(&body).await.answer_to(&json!(1))) }
    });
    for (bytes, answer) in join_all(calls).await {
        let text = answer["result"]["content"][0]["text"].as_str().expect("a text");
        assert!(text.len() == bytes && text.bytes().all(|byte| byte == b'x'), "{}", text.len());
    }
}

#[tokio::test]
async fn two_clients_share_the_process_and_not_their_answers() {
    let Some((gateway, first)) = echo().await else { return };
    let key = gateway.key("second").await;
    let second = gateway.client("all", &key).await;
    let ask = |client: &'_ Client, name: &'static str| {
        let bodies: Vec<String> = (0..25_u64)
            .map(|number| {
                let arguments =
                    json!({"value": format!("{name} {number}"), "delay_ms": number % 7 * 10});
                call(json!(number), "echo__echo", arguments)
            })
            .collect();
        let (http, url, headers, session) = (
            client.http.clone(),
            client.url.clone(),
            client.headers.clone(),
            client.session.clone(),
        );
        async move {
            let mut other = Client::new(&url, None);
            (other.http, other.headers, other.session) = (http, headers, session);
            let replies = join_all(bodies.iter().map(|body| other.post(body))).await;
            for (number, reply) in replies.iter().enumerate() {
                let answer = reply.answer_to(&json!(number));
                assert_eq!(answer["result"]["content"][0]["text"], format!("{name} {number}"));
            }
        }
    };
    tokio::join!(ask(&first, "first"), ask(&second, "second"));
    assert_eq!(
        first.text_of("echo__pid", json!({})).await,
        second.text_of("echo__pid", json!({})).await
    );
}

#[tokio::test]
async fn what_an_upstream_says_arrives_byte_for_byte() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("odd", &python("odd_bytes.py", &[])).await;
    let client = gateway.client_of(&["odd"]).await;
    let fixture = |name| {
        let text = std::fs::read_to_string(crate::support::fixtures::directory().join(name))
            .expect("the fixture");
        text.trim_end().to_owned()
    };

    let list = client.post(&request(json!(1), "tools/list", json!({}))).await.messages.remove(0);
    let said = fixture("odd_list.json");
    // Each tool as it came, but for its name.
    let tool = said.trim_start_matches('[').split(" , ").next().expect("the first tool");
    let renamed = tool.replace(r#""name":"odd""#, r#""name":"odd__odd""#);
    assert!(list.contains(&renamed), "{renamed}\nis not in\n{list}");

    let result = client.post(&call(json!(2), "odd__odd", json!({}))).await.messages.remove(0);
    let said = fixture("odd_result.json");
    assert!(result.contains(&said), "{said}\nis not in\n{result}");
}

#[tokio::test]
async fn what_a_client_says_arrives_byte_for_byte() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("odd", &python("odd_bytes.py", &[])).await;
    let client = gateway.client_of(&["odd"]).await;
    let arguments = r#"{"big":12345678901234567890123,"huge":1e400,"one":1.0,"dup":1,"dup":2,"t":"caf\u00e9 \/ é 😀 \u2028","z":[ ],"a":{ "k" : null}}"#;
    let extra = r#""x-unknown":{"b":2,"a":1}"#;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{{"name":"odd__weigh","arguments":{arguments},{extra}}}}}"#
    );
    let answer = client.post(&body).await.answer_to(&json!(9));
    let line = answer["result"]["content"][0]["text"].as_str().expect("the line").to_owned();
    assert!(line.contains(arguments), "{line}");
    assert!(line.contains(extra), "{line}");
    assert!(line.contains(r#""name":"weigh""#), "the upstream's own name: {line}");
}

#[tokio::test]
async fn a_cancellation_reaches_the_upstream_under_its_own_id_and_nothing_more_is_said() {
    let Some((_gateway, client)) = echo().await else { return };
    // Another call first, so that the ids on the two sides cannot be equal by chance.
    client.text_of("echo__pid", json!({})).await;
    let waiting = call(json!("client-id"), "echo__wait", json!({"marker": "cancel me"}));
    let (reply, ()) = tokio::join!(client.post(&waiting), async {
        let sent = |message: &&Value| message["params"]["arguments"]["marker"] == "cancel me";
        wait_until("the call to arrive", SOON, async || {
            seen(&client).await.iter().find(sent).cloned()
        })
        .await;
        let cancel = json!({"requestId": "client-id", "reason": "enough"});
        client.notify("notifications/cancelled", cancel).await;
    });
    assert!(reply.messages.iter().all(|text| !text.contains("client-id")), "{reply:?}");

    let stopped = wait_until("the upstream to stop", SOON, async || {
        let ids: Vec<Value> =
            serde_json::from_str(&client.text_of("echo__stopped", json!({})).await).ok()?;
        ids.first().cloned()
    })
    .await;
    let sent = seen(&client).await;
    let own_id = &sent
        .iter()
        .find(|message| message["params"]["arguments"]["marker"] == "cancel me")
        .expect("the call")["id"];
    let cancels: Vec<&Value> =
        sent.iter().filter(|message| message["method"] == "notifications/cancelled").collect();
    assert_eq!(cancels.len(), 1, "{cancels:?}");
    assert_eq!(&cancels[0]["params"]["requestId"], own_id);
    assert_eq!(&stopped, own_id);
    assert_ne!(own_id, "client-id");
    assert_eq!(client.text_of("echo__echo", json!({"value": "next"})).await, "next");
}

#[tokio::test]
async fn a_cancellation_of_something_unknown_is_ignored() {
    let Some((_gateway, client)) = echo().await else { return };
    for id in [json!("never"), json!(4711)] {
        client.notify("notifications/cancelled", json!({"requestId": id})).await;
    }
    assert_eq!(client.text_of("echo__echo", json!({"value": "on"})).await, "on");
    let cancels = seen(&client)
        .await
        .into_iter()
        .filter(|message| message["method"] == "notifications/cancelled");
    assert_eq!(cancels.count(), 0);
}

#[tokio::test]
async fn progress_carries_the_clients_token_with_its_type() {
    let Some((_gateway, client)) = echo().await else { return };
    let one = |token: Value, id: i64| {
        let arguments = json!({"count": 4, "delay_ms": 15});
        let params = json!({"name": "echo__steps", "arguments": arguments, "_meta": {"progressToken": token, "own": [1]}});
        let body = request(json!(id), "tools/call", params);
        let client = &client;
        async move { (token, id, client.post(&body).await) }
    };
    // The same token, once as a number and once as text, at the same time.
    let (number, text) = tokio::join!(one(json!(5), 1), one(json!("5"), 2));
    for (token, id, reply) in [number, text] {
        let messages: Vec<Value> =
            reply.messages.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
        let (last, notes) = messages.split_last().expect("messages");
        assert_eq!(last["id"], id);
        assert_eq!(notes.len(), 4, "{reply:?}");
        for (step, note) in (1..).zip(notes) {
            assert_eq!(note["params"]["progressToken"], token);
            assert_eq!(
                (&note["params"]["progress"], &note["params"]["total"]),
                (&json!(step), &json!(4))
            );
            assert_eq!(note["params"]["message"], format!("step {step}"));
        }
    }
    let metas: Vec<Value> = seen(&client)
        .await
        .into_iter()
        .map(|message| message["params"]["_meta"].clone())
        .filter(|meta| meta["own"] == json!([1]))
        .collect();
    assert_eq!(metas.len(), 2, "the rest of _meta goes along");
    assert_ne!(metas[0]["progressToken"], metas[1]["progressToken"]);
}

#[tokio::test]
async fn progress_is_shown_while_the_call_runs_and_not_after_it() {
    let Some((_gateway, client)) = echo().await else { return };
    let params = json!({"name": "echo__steps", "arguments": {"count": 40, "delay_ms": 50}, "_meta": {"progressToken": "t"}});
    let mut exchange = client.open(&request(json!(1), "tools/call", params)).await;
    let first = exchange.events.expect("the first progress", SOON).await;
    assert_eq!(first.json()["params"]["progress"], 1, "{first:?}");
    client.notify("notifications/cancelled", json!({"requestId": 1})).await;
    let rest = within("the stream to end", SOON, exchange.events.rest()).await;
    assert!(rest.len() < 39, "a cancelled call ends early: {}", rest.len());
    assert!(rest.iter().all(|event| event.json().get("result").is_none()), "{rest:?}");
}

#[tokio::test]
async fn a_call_that_is_silent_for_too_long_ends_with_an_error_and_is_cancelled_upstream() {
    let Some((gateway, client)) = echo().await else { return };
    gateway.change("mcp-servers/echo", json!({"call_timeout_ms": 300})).await;
    gateway.ready("echo").await;
    let answer = within("the timeout", SOON, client.call("echo__wait", json!({}))).await;
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    wait_until("the cancellation to arrive", SOON, async || {
        seen(&client)
            .await
            .iter()
            .any(|message| message["method"] == "notifications/cancelled")
            .then_some(())
    })
    .await;
    assert_eq!(
        gateway.server("echo").await["runtime"]["state"],
        "READY",
        "a slow call is no crash"
    );
}

#[tokio::test]
async fn progress_extends_a_call_up_to_its_total() {
    let Some((gateway, client)) = echo().await else { return };
    gateway
        .change("mcp-servers/echo", json!({"call_timeout_ms": 500, "call_total_timeout_ms": 2000}))
        .await;
    gateway.ready("echo").await;
    let steps = |count: u64| {
        let arguments = json!({"count": count, "delay_ms": 100});
        json!({"name": "echo__steps", "arguments": arguments, "_meta": {"progressToken": "t"}})
    };
    let alive = within("the call", SOON, client.request("tools/call", steps(10))).await;
    assert!(alive["result"].is_object(), "{alive}");
    let endless = within("the total", SOON, client.request("tools/call", steps(1000))).await;
    assert_eq!(endless["error"]["code"], -32603, "{endless}");
}

#[tokio::test]
async fn one_slow_upstream_does_not_delay_anothers_calls() {
    let Some((gateway, client)) = echo().await else { return };
    gateway.stdio("other", &python("echo_delay.py", &[])).await;
    gateway
        .replace("namespaces/all/servers", json!([{"server": "echo"}, {"server": "other"}]))
        .await;
    gateway.ready("other").await;
    wait_until("the new tools", SOON, async || {
        client.tools().await.contains(&"other__echo".to_owned()).then_some(())
    })
    .await;
    let slow = join_all(
        (0..50).map(|_| client.call("echo__echo", json!({"value": "slow", "delay_ms": 4000}))),
    );
    let fast = async {
        within("the fast calls", Duration::from_secs(3), async {
            for number in 0..20 {
                let value = number.to_string();
                assert_eq!(client.text_of("other__echo", json!({"value": value})).await, value);
            }
        })
        .await;
    };
    let (answers, ()) = tokio::join!(slow, fast);
    assert!(answers.iter().all(|answer| answer["result"].is_object()));
}

#[tokio::test]
async fn an_upstream_that_pings_is_answered_and_one_that_asks_for_roots_is_refused() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("ping", &python("ping_me.py", &[])).await;
    let client = gateway.client_of(&["ping"]).await;
    let answers = wait_until("all answers", SOON, async || {
        let answers: Vec<Value> =
            serde_json::from_str(&client.text_of("ping__answers", json!({})).await).ok()?;
        (answers.len() == 4).then_some(answers)
    })
    .await;
    let to = |id: Value| answers.iter().find(|answer| answer["id"] == id).expect("an answer");
    assert_eq!(to(json!("are-you-there"))["result"], json!({}));
    assert!(to(json!(77))["error"]["code"].is_i64(), "{answers:?}");
    // One for each of those that have no id which an answer could have.
    let unnamed = answers.iter().filter(|answer| answer["id"].is_null());
    let codes: Vec<&Value> = unnamed.map(|answer| &answer["error"]["code"]).collect();
    assert_eq!(codes, [-32600, -32600], "{answers:?}");
}

#[tokio::test]
async fn noise_on_stdout_is_skipped() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    // Longer than any line that is kept whole.
    gateway.stdio("garbage", &python("garbage.py", &["80000000"])).await;
    let client = gateway.client_of(&["garbage"]).await;
    assert_eq!(client.text_of("garbage__echo", json!({"value": "clear"})).await, "clear");
    let answer = within(
        "an answer",
        SOON * 2,
        client.call("garbage__loud", json!({"value": "after the noise"})),
    )
    .await;
    assert!(answer.get("result").is_some() || answer.get("error").is_some(), "{answer}");
    gateway.ready("garbage").await;
    assert_eq!(client.text_of("garbage__echo", json!({"value": "still"})).await, "still");
}
