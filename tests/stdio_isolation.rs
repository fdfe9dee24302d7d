//! STDIO servers of which each client session, or each user, has a process to itself: what it asks and
//! says reaches its own client, and nothing of one reaches another.

use std::{collections::BTreeSet, path::PathBuf};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::{Exchange, call},
    gateway::Start,
    isolated::{behind, counting, own_pids},
    wait_until,
};

async fn asking(isolation: &str) -> Option<(TestGateway, String, PathBuf)> {
    let diary = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
    let diary = diary.keep().expect("a file that stays");
    let (gateway, key) =
        behind(Start::new(), isolation, "asking.py", &[&diary.display().to_string()]).await?;
    Some((gateway, key, diary))
}

async fn that_can(gateway: &TestGateway, key: &str, capabilities: Value) -> Client {
    Client::that_can(&gateway.endpoint_url("all"), key, capabilities).await
}

fn everything() -> Value {
    json!({"roots": {"listChanged": true}, "sampling": {}, "elicitation": {"form": {}}})
}

fn elicit(message: &str) -> Value {
    let schema = json!({"type": "object", "properties": {}});
    json!({"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}})
}

/// What the tool was answered.
fn told(outcome: &Value) -> Value {
    let text = outcome["result"]["content"][0]["text"].as_str();
    let text = text.unwrap_or_else(|| panic!("no text: {outcome}"));
    serde_json::from_str::<Value>(text).expect("JSON")["answer"].take()
}

async fn asked(exchange: &mut Exchange) -> Value {
    exchange.events.find("the question", SOON, |one| one["method"].is_string()).await
}

async fn answer(client: &Client, question: &Value, said: &str) {
    let result = json!({"action": "accept", "content": {"said": said}});
    let response = json!({"jsonrpc": "2.0", "id": question["id"], "result": result});
    assert_eq!(client.post(&response.to_string()).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn two_sessions_that_are_asked_at_once_each_hear_and_answer_their_own_question() {
    let Some((gateway, key, _)) = asking("SESSION").await else { return };
    let (a, b) = (that_can(&gateway, &key, everything()), that_can(&gateway, &key, everything()));
    let (a, b) = tokio::join!(a, b);
    // The same id, and the server's own ids are the same too: each process counts from one.
    let mut of_a = a.open(&call(json!(7), "one__ask", elicit("of a"))).await;
    let mut of_b = b.open(&call(json!(7), "one__ask", elicit("of b"))).await;
    let (to_a, to_b) = (asked(&mut of_a).await, asked(&mut of_b).await);
    assert_eq!(
        (&to_a["params"]["message"], &to_b["params"]["message"]),
        (&json!("of a"), &json!("of b"))
    );
    answer(&b, &to_b, "b").await;
    let end = of_b.events.find("the answer", SOON, |one| one["result"].is_object()).await;
    assert_eq!((&end["id"], &told(&end)["result"]["content"]["said"]), (&json!(7), &json!("b")));
    answer(&a, &to_a, "a").await;
    let end = of_a.events.find("the answer", SOON, |one| one["result"].is_object()).await;
    assert_eq!((&end["id"], &told(&end)["result"]["content"]["said"]), (&json!(7), &json!("a")));
    for exchange in [of_a, of_b] {
        let mut exchange = exchange;
        let rest: Vec<_> = exchange.events.rest().await;
        assert!(rest.is_empty(), "{rest:?}");
    }
}

#[tokio::test]
async fn of_a_users_clients_the_one_that_calls_is_asked_and_never_another_users() {
    let Some((gateway, key, _)) = asking("USER").await else { return };
    let other = gateway.key("other").await;
    let (a, also_a, b) = tokio::join!(
        that_can(&gateway, &key, everything()),
        that_can(&gateway, &key, everything()),
        that_can(&gateway, &other, everything()),
    );
    // Two users at once: each its own.
    let mut of_a = a.open(&call(json!(1), "one__ask", elicit("of a"))).await;
    let mut of_b = b.open(&call(json!(1), "one__ask", elicit("of b"))).await;
    let (to_a, to_b) = (asked(&mut of_a).await, asked(&mut of_b).await);
    assert_eq!(
        (&to_a["params"]["message"], &to_b["params"]["message"]),
        (&json!("of a"), &json!("of b"))
    );
    assert_eq!(own_pids(&gateway).await.len(), 2, "one of each user");
    // The same user's other client calls meanwhile, and it is not certain whose that question is.
    let (refused, heard) =
        also_a.call_answering("one__ask", elicit("of also a"), |_| panic!("it is asked")).await;
    assert_eq!((&told(&refused)["error"]["code"], heard.len()), (&json!(-32603), 0));
    assert_eq!(own_pids(&gateway).await.len(), 2);
    answer(&a, &to_a, "a").await;
    answer(&b, &to_b, "b").await;
    for (exchange, said) in [(&mut of_a, "a"), (&mut of_b, "b")] {
        let end = exchange.events.find("the answer", SOON, |one| one["result"].is_object()).await;
        assert_eq!(told(&end)["result"]["content"]["said"], said);
    }
    let who = |one: &Value| one["user"].as_str().is_some_and(|user| user.starts_with("key:"));
    let server = gateway.server("one").await;
    let shown = server["runtime"]["session_processes"].as_array().expect("a list");
    assert!(shown.iter().all(who), "{shown:?}");
    // A client of a user that goes takes nothing from the others.
    a.end().await;
    let accept = |_: &Value| json!({"result": {"action": "accept", "content": {"said": "alone"}}});
    let (answered, _) = also_a.call_answering("one__ask", elicit("alone"), accept).await;
    assert_eq!(told(&answered)["result"]["content"]["said"], "alone");
    assert_eq!(own_pids(&gateway).await.len(), 2);
}

#[tokio::test]
async fn a_session_tells_its_process_what_its_client_can_and_asks_for_roots() {
    let Some((gateway, key, _)) = asking("SESSION").await else { return };
    let declared = async |client: &Client| -> Value {
        serde_json::from_str(&client.text_of("one__declared", json!({})).await).expect("JSON")
    };
    let able = that_can(&gateway, &key, everything()).await;
    let unable = that_can(&gateway, &key, json!({})).await;
    assert_eq!(declared(&able).await["roots"], json!({"listChanged": true}));
    assert_eq!(declared(&unable).await, json!({}));

    let roots = json!({"method": "roots/list", "params": {}});
    let own = |_: &Value| json!({"result": {"roots": [{"uri": "file:///mine"}]}});
    let (answered, heard) = able.call_answering("one__ask", roots.clone(), own).await;
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(told(&answered)["result"], own(&Value::Null)["result"]);
    let (refused, heard) = unable.call_answering("one__ask", roots, own).await;
    assert_eq!((&told(&refused)["error"]["code"], heard.len()), (&json!(-32601), 0));
}

#[tokio::test]
async fn changed_roots_are_told_to_the_clients_own_process_alone() {
    let Some((gateway, key)) = counting("").await else { return };
    let (a, b) = tokio::join!(
        that_can(&gateway, &key, everything()),
        that_can(&gateway, &key, everything()),
    );
    let has_heard = async |client: &Client| {
        client.text_of("one__seen", json!({})).await.contains("notifications/roots/list_changed")
    };
    assert!(!has_heard(&a).await && !has_heard(&b).await);
    a.notify("notifications/roots/list_changed", json!({})).await;
    wait_until("the change", SOON, async || has_heard(&a).await.then_some(())).await;
    assert!(!has_heard(&b).await);
}

#[tokio::test]
async fn each_session_has_a_level_of_its_own_and_its_process_hears_it_before_the_first_call() {
    let Some((gateway, key, diary)) = asking("SESSION").await else { return };
    let (loud, quiet) = (gateway.client("all", &key).await, gateway.client("all", &key).await);
    for (client, level) in [(&loud, "debug"), (&quiet, "error")] {
        let answer = client.request("logging/setLevel", json!({"level": level})).await;
        assert_eq!(answer["result"], json!({}), "{answer}");
    }
    let heard = async |client: &Client| -> Vec<String> {
        let arguments = json!({"levels": ["debug", "error"]});
        let (_, heard) = client.call_answering("one__log", arguments, |_| Value::Null).await;
        heard.iter().filter_map(|one| one["params"]["level"].as_str()).map(str::to_owned).collect()
    };
    let (by_loud, by_quiet) = tokio::join!(heard(&loud), heard(&quiet));
    assert_eq!((by_loud, by_quiet), (vec!["debug".into(), "error".into()], vec!["error".into()]));
    let noted = std::fs::read_to_string(&diary).expect("the diary");
    let noted: BTreeSet<&str> = noted.lines().collect();
    assert_eq!(noted, BTreeSet::from(["\"debug\"", "\"error\""]));
}

#[tokio::test]
async fn a_call_is_taken_back_in_its_own_process_under_the_id_that_this_knows() {
    let Some((gateway, key)) = counting("").await else { return };
    let (a, b) = (gateway.client("all", &key).await, gateway.client("all", &key).await);
    let waiting = call(json!("same"), "one__wait", json!({"marker": "x"}));
    let _of_a = a.open(&waiting).await;
    let _of_b = b.open(&waiting).await;
    let has_begun = async |client: &Client| {
        let seen = client.text_of("one__seen", json!({})).await;
        seen.contains("\\\"wait\\\"").then_some(())
    };
    for client in [&a, &b] {
        wait_until("the call", SOON, async || has_begun(client).await).await;
    }
    a.notify("notifications/cancelled", json!({"requestId": "same"})).await;
    wait_until("the cancellation", SOON, async || {
        (a.text_of("one__stopped", json!({})).await != "[]").then_some(())
    })
    .await;
    assert_eq!(b.text_of("one__stopped", json!({})).await, "[]");
}

#[tokio::test]
async fn a_process_that_a_subscription_needs_is_started_again_and_subscribed() {
    let Some((gateway, key)) = behind(Start::new(), "SESSION", "watched.py", &["one"]).await else {
        return;
    };
    let (a, b) = (gateway.client("all", &key).await, gateway.client("all", &key).await);
    let (mut on_a, mut on_b) = (a.listen().await, b.listen().await);
    let subscribed = a.request("resources/subscribe", json!({"uri": "u://a"})).await;
    assert_eq!(subscribed["result"], json!({}), "{subscribed}");
    let changed =
        async |client: &Client| client.text_of("one__change", json!({"uri": "u://a"})).await;
    assert_eq!((changed(&a).await, changed(&b).await), ("True".into(), "False".into()));
    let before = own_pids(&gateway).await;
    assert!(a.call("one__crash", json!({})).await["error"].is_object());
    wait_until("another process", SOON, async || {
        let now = own_pids(&gateway).await;
        (now.len() == 2 && now != before).then_some(())
    })
    .await;
    wait_until("the subscription", SOON, async || (changed(&a).await == "True").then_some(()))
        .await;
    // That its lists are known by now may be told first.
    let is_update = |message: &Value| message["method"] == "notifications/resources/updated";
    for _ in 0..2 {
        let update = on_a.events.find("an update", SOON, is_update).await;
        assert_eq!(update["params"]["uri"], "u://a", "{update}");
    }
    // The row's restart ends and remakes it too.
    let before = own_pids(&gateway).await;
    let (status, _) = gateway.admin(Method::POST, "mcp-servers/one/restart", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    wait_until("another process", SOON, async || {
        let now = own_pids(&gateway).await;
        (now.len() == 1 && now.is_disjoint(&before)).then_some(())
    })
    .await;
    wait_until("the subscription", SOON, async || (changed(&a).await == "True").then_some(()))
        .await;
    // The other hears nothing of it all: what comes next is what it asked for itself.
    b.request("resources/subscribe", json!({"uri": "u://b"})).await;
    b.text_of("one__change", json!({"uri": "u://b"})).await;
    let update = on_b.events.find("an update", SOON, is_update).await;
    assert_eq!(update["params"]["uri"], "u://b", "{update}");
}
