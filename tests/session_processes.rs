//! The lives of the processes that clients have to themselves of a STDIO server: each begins with a call,
//! one that fails is nobody else's trouble, and none outlives whom it is for.

use std::{collections::BTreeSet, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Client, SOON,
    client::call,
    gateway::{LEFTOVERS_DIE_WITHIN, Start},
    isolated::{behind, counting, gone, own_pids, pid},
    processes, python, wait_until,
};

async fn count(client: &Client) -> String {
    client.text_of("one__echo", json!({"value": "once more"})).await;
    client.text_of("one__count", json!({})).await
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
    // That nothing is left of its tree is known a moment later.
    let none = async || own_pids(&gateway).await.is_empty().then_some(());
    wait_until("no process of a client", SOON, none).await;
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
async fn a_process_that_answers_neither_calls_nor_a_ping_is_ended_and_the_next_call_has_another() {
    let settings = "[calls.strikes]\ntimeouts = 3\n[upstream]\nping_timeout = \"300ms\"\n\
                    [supervision]\nbackoff_min = \"20ms\"\nbackoff_max = \"100ms\"";
    let start = Start::new().settings(settings);
    let Some((gateway, key)) = behind(start, "SESSION", "misbehaving.py", &[]).await else {
        return;
    };
    gateway.change("mcp-servers/one", json!({"call_timeout_ms": 400})).await;
    let (a, b) = (gateway.client("all", &key).await, gateway.client("all", &key).await);
    let (of_a, of_b, own) = (pid(&a).await, pid(&b).await, gateway.server_pid("one").await);
    a.call("one__begin", json!({"habit": "mute"})).await;
    for _ in 0..2 {
        let silent = a.call("one__pid", json!({})).await;
        assert_eq!(silent["error"]["data"]["reason"], "call_timeout", "{silent}");
    }
    gone(&[of_a]).await;
    assert_ne!(pid(&a).await, of_a);
    assert_eq!((pid(&b).await, gateway.server_pid("one").await), (of_b, own), "nobody else's");
}

#[tokio::test]
async fn what_one_process_does_that_it_must_not_is_not_held_against_another() {
    let start = Start::new().settings("[calls.strikes]\nnoise = 10\nnoise_max = 40");
    let Some((gateway, key)) = behind(start, "SESSION", "misbehaving.py", &[]).await else {
        return;
    };
    let (a, b) = (gateway.client("all", &key).await, gateway.client("all", &key).await);
    let (of_a, of_b, own) = (pid(&a).await, pid(&b).await, gateway.server_pid("one").await);
    let loud = |times: u32| json!({"habit": "noise", "times": times});
    assert!(a.call("one__begin", loud(30)).await["result"].is_object());
    let ended = a.call("one__begin", loud(30)).await;
    assert_eq!(ended["error"]["data"]["reason"], "upstream_ended", "{ended}");
    gone(&[of_a]).await;
    let heard = b.call("one__begin", loud(1)).await;
    assert!(heard["result"].is_object(), "{heard}");
    assert_eq!((pid(&b).await, gateway.server_pid("one").await), (of_b, own), "nobody else's");
}
