//! STDIO servers of which each client session, or each user, has a process to itself: nothing of one
//! reaches another, one that fails is nobody else's trouble, and none outlives whom it is for.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::{Exchange, call},
    fixtures::without_python,
    gateway::{LEFTOVERS_DIE_WITHIN, Start},
    processes, python, wait_until,
};

/// The server `one` of this script behind the endpoint `all`, and a key.
async fn behind(
    start: Start,
    isolation: &str,
    script: &str,
    args: &[&str],
) -> Option<(TestGateway, String)> {
    if without_python() {
        return None;
    }
    let gateway = start.run().await;
    let command = python(script, args);
    let (program, args) = command.split_first().expect("a program");
    let row = json!({"name": "one", "type": "STDIO", "command": program, "args": args,
        "isolation": isolation});
    gateway.create("mcp-servers", row).await;
    gateway.publish("all", &["one"]).await;
    gateway.ready("one").await;
    let key = gateway.key("suite").await;
    Some((gateway, key))
}

async fn counting(settings: &str) -> Option<(TestGateway, String)> {
    behind(Start::new().settings(settings), "SESSION", "echo_delay.py", &[]).await
}

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

async fn pid(client: &Client) -> u32 {
    client.text_of("one__pid", json!({})).await.parse().expect("a pid")
}

async fn count(client: &Client) -> String {
    client.text_of("one__echo", json!({"value": "once more"})).await;
    client.text_of("one__count", json!({})).await
}

/// The pids of the processes that clients have to themselves, as the operator is shown them.
async fn own_pids(gateway: &TestGateway) -> BTreeSet<u32> {
    let server = gateway.server("one").await;
    let processes = server["runtime"]["session_processes"].as_array().cloned().unwrap_or_default();
    processes.iter().filter_map(|one| one["pid"].as_u64()?.try_into().ok()).collect()
}

async fn gone(pids: &[u32]) {
    wait_until(&format!("the end of {pids:?}"), SOON, async || {
        pids.iter().all(|pid| !processes::is_alive(*pid)).then_some(())
    })
    .await;
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
async fn what_a_process_knows_is_its_sessions_and_a_crash_is_nobody_elses() {
    let Some((gateway, key)) = counting("").await else { return };
    let (a, b) = (gateway.client("all", &key).await, gateway.client("all", &key).await);
    assert_eq!(
        (count(&a).await, count(&a).await, count(&b).await),
        ("1".into(), "2".into(), "1".into())
    );
    let (of_a, of_b, own) = (pid(&a).await, pid(&b).await, gateway.server_pid("one").await);
    assert_eq!(own_pids(&gateway).await, BTreeSet::from([of_a, of_b]));
    assert_eq!(BTreeSet::from([of_a, of_b, own]).len(), 3);

    // A call of the other is under way all the time.
    let waiting = call(json!(1), "one__echo", json!({"value": "unharmed", "delay_ms": 800}));
    let mut waiting = b.open(&waiting).await;
    let pending = a.open(&call(json!(1), "one__wait", json!({"marker": "x"}))).await;
    let ended = a.call("one__exit", json!({"code": 3})).await;
    assert_eq!(ended["error"]["data"]["reason"], "upstream_ended", "{ended}");
    assert!(
        ended["error"]["message"].as_str().is_some_and(|it| it.contains("exit code 3")),
        "{ended}"
    );
    let mut pending = pending;
    let rest = pending.events.rest().await;
    let errors: Vec<Value> = rest.iter().map(|one| one.json()).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["error"]["data"]["reason"], "upstream_ended");
    let unharmed = waiting.events.find("its answer", SOON, |one| one["id"] == 1).await;
    assert_eq!(unharmed["result"]["content"][0]["text"], "unharmed");

    // The next call has a new process, which knows nothing of the last.
    assert_eq!(count(&a).await, "1");
    assert_ne!(pid(&a).await, of_a);
    assert_eq!((count(&b).await, pid(&b).await), ("3".into(), of_b));
    let server = gateway.server("one").await;
    let runtime = &server["runtime"];
    assert_eq!(
        (&runtime["state"], &runtime["restarts"], &runtime["pid"]),
        (&json!("READY"), &json!(0), &json!(own))
    );
    assert_eq!(server["error_status"], "NONE");
    let logged = gateway.items("logs?kind=process").await;
    let message = logged[0]["message"].as_str().unwrap_or_default();
    assert!(message.contains(&of_a.to_string()) && message.contains("exit code 3"), "{logged:?}");
    let session = gateway
        .items("sessions")
        .await
        .into_iter()
        .find(|session| message.contains(session["uuid"].as_str().expect("a uuid")));
    assert!(session.is_some(), "it names no session: {message}");
    assert_eq!(gateway.metric("metamcpd_session_processes_failed_total").await, Some(1.0));
    assert_eq!(gateway.metric("metamcpd_session_processes").await, Some(2.0));
}

#[tokio::test]
async fn a_crash_of_the_servers_own_process_leaves_those_of_clients_alone() {
    let Some((gateway, key)) = counting("").await else { return };
    let client = gateway.client("all", &key).await;
    count(&client).await;
    let (own, before) = (gateway.server_pid("one").await, pid(&client).await);
    processes::signal(own, rustix::process::Signal::KILL);
    gateway.server_until("one", "failed", |one| !one["runtime"]["last_error"].is_null()).await;
    assert_eq!((count(&client).await, pid(&client).await), ("2".into(), before));
    gateway
        .server_until("one", "another process", |one| {
            one["runtime"]["state"] == "READY" && one["runtime"]["pid"] != own
        })
        .await;
    assert_eq!((count(&client).await, pid(&client).await), ("3".into(), before));
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
async fn a_session_for_which_there_is_no_room_is_told_so_and_has_it_when_another_has_gone() {
    let Some((gateway, key)) = counting("[upstream]\nprocesses_max = 1").await else { return };
    let (a, b) = (gateway.client("all", &key).await, gateway.client("all", &key).await);
    let of_a = pid(&a).await;
    let refused = b.call("one__pid", json!({})).await;
    assert_eq!(refused["error"]["data"]["reason"], "upstream_full", "{refused}");
    assert!(refused["error"]["message"].as_str().is_some_and(|it| it.contains("processes_max")));
    assert_eq!(pid(&a).await, of_a, "nothing is taken from who has one");
    a.end().await;
    gone(&[of_a]).await;
    let of_b = wait_until("room", SOON, async || {
        let answer = b.call("one__pid", json!({})).await;
        answer["result"]["content"][0]["text"].as_str()?.parse::<u32>().ok()
    })
    .await;
    // An operator who ends a session ends its process too.
    let session = &gateway.items("sessions").await[0];
    gateway.remove(&format!("sessions/{}", session["uuid"].as_str().expect("a uuid"))).await;
    gone(&[of_b]).await;
    assert!(own_pids(&gateway).await.is_empty());
}

#[tokio::test]
async fn a_process_that_nobody_calls_ends_and_is_made_anew_on_use() {
    let Some((gateway, key)) = counting("[upstream]\nsession_idle = \"400ms\"").await else {
        return;
    };
    let client = gateway.client("all", &key).await;
    assert_eq!(count(&client).await, "1");
    let before = pid(&client).await;
    gone(&[before]).await;
    assert_eq!(count(&client).await, "1");
    // A call that takes longer than that keeps its process.
    let kept = pid(&client).await;
    let answer = client.text_of("one__echo", json!({"value": "long", "delay_ms": 1500})).await;
    assert_eq!((answer.as_str(), pid(&client).await), ("long", kept));
    assert_eq!(gateway.metric("metamcpd_session_processes_failed_total").await, None);
}

#[tokio::test]
async fn a_first_call_waits_as_long_as_its_process_takes_to_start() {
    let start = Start::new().settings("[calls]\nready_wait = \"50ms\"");
    let Some((gateway, key)) = behind(start, "SESSION", "slow_start.py", &["0.5"]).await else {
        return;
    };
    let client = gateway.client("all", &key).await;
    assert_eq!(client.text_of("one__late", json!({})).await, "here at last");
}

#[tokio::test]
async fn one_that_does_not_start_in_time_fails_its_calls_and_rests() {
    let Some((gateway, key)) = behind(Start::new(), "SESSION", "slow_start.py", &["0"]).await
    else {
        return;
    };
    // The row's own process is up; another would take too long.
    let command = python("slow_start.py", &["0"]);
    let marker = gateway.scratch().join("started");
    let script = format!(
        "if [ -e {0} ]; then sleep 600; fi; : > {0}; exec {1}",
        marker.display(),
        command.join(" ")
    );
    let change = json!({"command": "sh", "args": ["-c", script], "connect_timeout_ms": 3000});
    gateway.change("mcp-servers/one", change).await;
    gateway
        .server_until("one", "ready by the new command", |one| {
            one["runtime"]["state"] == "READY" && marker.exists()
        })
        .await;
    let client = gateway.client("all", &key).await;
    let (first, second) =
        tokio::join!(client.call("one__late", json!({})), client.call("one__late", json!({})));
    for answer in [first, second] {
        let error = &answer["error"];
        assert_eq!(error["data"]["reason"], "upstream_unavailable", "{answer}");
        assert!(
            error["message"].as_str().is_some_and(|it| it.contains("handshake_timeout")),
            "{answer}"
        );
    }
    // It is counted when nothing is left of it.
    wait_until("the count", SOON, async || {
        let failed = gateway.metric("metamcpd_session_processes_failed_total").await;
        failed.inspect(|failed| assert_eq!(*failed, 1.0))
    })
    .await;
    assert_eq!(gateway.server("one").await["runtime"]["state"], "READY");
}

#[tokio::test]
async fn a_row_that_is_restarted_switched_off_or_deleted_takes_all_its_processes_with_it() {
    let Some((gateway, key)) = counting("").await else { return };
    let (a, b) = (gateway.client("all", &key).await, gateway.client("all", &key).await);
    let all = async |clients: [&Client; 2]| [pid(clients[0]).await, pid(clients[1]).await];
    let before = all([&a, &b]).await;
    let (status, _) = gateway.admin(Method::POST, "mcp-servers/one/restart", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    gone(&before).await;
    let before = all([&a, &b]).await;
    gateway.change("mcp-servers/one", json!({"enabled": false})).await;
    gone(&before).await;
    let refused = a.call("one__pid", json!({})).await;
    assert!(refused["error"].is_object(), "{refused}");
    gateway.change("mcp-servers/one", json!({"enabled": true})).await;
    gateway.ready("one").await;
    let before = all([&a, &b]).await;
    // All share one process from now on.
    gateway.change("mcp-servers/one", json!({"isolation": "SHARED"})).await;
    gone(&before).await;
    gateway.ready("one").await;
    let [of_a, of_b] = all([&a, &b]).await;
    assert_eq!((of_a, own_pids(&gateway).await.len()), (of_b, 0));
    gateway.change("mcp-servers/one", json!({"isolation": "SESSION"})).await;
    gateway.ready("one").await;
    all([&a, &b]).await;
    assert!(gateway.children().len() >= 3);
    gateway.remove("mcp-servers/one").await;
    wait_until("the end of all", SOON, async || gateway.children().is_empty().then_some(())).await;
}

#[tokio::test]
async fn no_process_of_a_session_outlives_the_daemon_however_it_ends() {
    let Some((mut gateway, key)) = counting("").await else { return };
    for is_killed in [true, false] {
        for _ in 0..3 {
            pid(&gateway.client("all", &key).await).await;
        }
        assert_eq!(own_pids(&gateway).await.len(), 3);
        // Each with its guard, and the server's own.
        assert!(gateway.children().len() >= 4);
        let patience = match is_killed {
            true => {
                gateway.kill9().await;
                LEFTOVERS_DIE_WITHIN
            }
            false => {
                gateway.stop().await;
                Duration::ZERO
            }
        };
        let left = gateway.leftovers_after(patience).await;
        assert!(left.is_empty(), "{left:?}");
        gateway.restart().await;
        gateway.ready("one").await;
    }
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
    for _ in 0..2 {
        let update = on_a.events.expect("an update", SOON).await.json();
        assert_eq!(update["params"]["uri"], "u://a");
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
    assert_eq!(on_b.events.expect("an update", SOON).await.json()["params"]["uri"], "u://b");
}
