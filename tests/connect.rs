//! `metamcpd connect`: a client that only starts processes has the endpoint as if it were its own
//! process, whatever happens to the daemon meanwhile.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    SOON, StdioClient, TestGateway,
    gateway::{Start, binary},
    processes,
    remote::{Answers, Knobs, Remote},
    wait_until,
};

/// A gateway that has the same port after a restart.
async fn on_a_fixed_port() -> TestGateway {
    let port = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.local_addr().expect("its address").port()
    };
    Start::new().environment("METAMCPD__SERVER__BIND", &format!("127.0.0.1:{port}")).run().await
}

/// An endpoint `all` over the server `demo`; its key.
async fn with_demo(gateway: &TestGateway) -> String {
    gateway.demo("demo").await;
    gateway.publish("all", &["demo"]).await;
    gateway.ready("demo").await;
    gateway.key("suite").await
}

fn echo(message: &str) -> Value {
    json!({"name": "demo__echo", "arguments": {"message": message}})
}

#[tokio::test]
async fn both_served_transports_are_one_process_to_the_client() {
    let gateway = TestGateway::start().await;
    let key = with_demo(&gateway).await;
    for url in [gateway.endpoint_url("all"), gateway.sse_url("all")] {
        let mut client = StdioClient::connect(&url, &key).await;
        let list = client.request("tools/list", json!({})).await;
        assert!(list.to_string().contains("demo__echo"), "{url}: {list}");
        assert!(client.text_of("demo__echo", json!({"message": "é"})).await.contains('é'), "{url}");
        client.close();
        assert_eq!(client.ended().await, Some(0), "{url}: {}", client.stderr());
        assert_eq!(client.stderr(), "", "{url}: nothing to tell");
    }
}

#[tokio::test]
async fn the_older_transport_can_be_asked_for() {
    let gateway = TestGateway::start().await;
    let key = with_demo(&gateway).await;
    // The other way round it would fail: a query hides how the path ends.
    let url = format!("{}?a=b", gateway.sse_url("all"));
    let mut client = StdioClient::start(&[&url, "--sse"], Some(&key));
    client.shake().await;
    assert!(client.text_of("demo__echo", json!({"message": "sse"})).await.contains("sse"));
}

#[tokio::test]
async fn requests_do_not_wait_for_each_other_and_progress_comes_before_its_answer() {
    let gateway = TestGateway::start().await;
    let key = with_demo(&gateway).await;
    for url in [gateway.endpoint_url("all"), gateway.sse_url("all")] {
        let mut client = StdioClient::connect(&url, &key).await;
        let slow = json!({
            "name": "demo__long_task", "arguments": {"seconds": 2, "steps": 4},
            "_meta": {"progressToken": "p"},
        });
        let slow = client.ask("tools/call", slow).await;
        let quick = client.ask("tools/call", echo("quick")).await;
        let (mut order, mut steps) = (Vec::new(), 0);
        while order.len() < 2 {
            let message: Value = serde_json::from_str(&client.line().await).expect("JSON");
            match message["id"].as_i64() {
                Some(id) => order.push(id),
                None if message["method"] == "notifications/progress" => {
                    assert_eq!(message["params"]["progressToken"], "p");
                    steps += 1;
                }
                None => {}
            }
        }
        assert_eq!(order, [quick, slow], "{url}");
        assert!(steps >= 3, "{url}: {steps} reports");
    }
}

#[tokio::test]
async fn a_cancelled_call_has_no_answer_and_the_session_goes_on() {
    let gateway = TestGateway::start().await;
    let key = with_demo(&gateway).await;
    for url in [gateway.endpoint_url("all"), gateway.sse_url("all")] {
        let mut client = StdioClient::connect(&url, &key).await;
        let long = json!({
            "name": "demo__long_task", "arguments": {"seconds": 30, "steps": 60},
            "_meta": {"progressToken": 1},
        });
        let long = client.ask("tools/call", long).await;
        client.heard("progress", |message| message["method"] == "notifications/progress").await;
        let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": long}});
        client.send(&cancelled.to_string()).await;
        let after = client.ask("tools/call", echo("after")).await;
        let next = client.heard("an answer", |message| message["id"].is_i64()).await;
        assert_eq!(next["id"], after, "{url}: {next}");
        client.close();
        assert_eq!(client.ended().await, Some(0));
        let late = client.rest().await;
        let answer = format!(r#""id":{long}"#);
        assert!(!late.iter().any(|line| line.contains(&answer)), "{url}: {late:?}");
    }
}

#[tokio::test]
async fn bytes_pass_as_they_are_and_big_messages_too() {
    let gateway = TestGateway::start().await;
    let key = with_demo(&gateway).await;
    let mut client = StdioClient::connect(&gateway.endpoint_url("all"), &key).await;
    // An id that no float holds, and a megabyte of text.
    let big = "x".repeat(1_000_000);
    let line = format!(
        r#"{{"id":"a\u002fb 12345678901234567890","jsonrpc":"2.0","method":"tools/call","params":{{"name":"demo__echo","arguments":{{"message":"{big}"}}}}}}"#
    );
    client.send(&line).await;
    let answer = client.line().await;
    assert!(answer.contains(r#""id":"a\u002fb 12345678901234567890""#), "{}", &answer[..200]);
    assert!(answer.len() > 1_000_000 && answer.contains(&big));
}

#[tokio::test]
async fn what_is_no_message_is_answered_and_harms_nothing() {
    let gateway = TestGateway::start().await;
    let key = with_demo(&gateway).await;
    let mut client = StdioClient::connect(&gateway.endpoint_url("all"), &key).await;
    client.send("this is no JSON").await;
    let refused = client.heard("a refusal", |message| message["error"].is_object()).await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&Value::Null, &json!(-32700)));
    assert!(client.text_of("demo__echo", json!({"message": "on"})).await.contains("on"));
}

#[tokio::test]
async fn requests_that_are_piped_in_are_answered_before_the_end() {
    let gateway = TestGateway::start().await;
    let key = with_demo(&gateway).await;
    let mut client = StdioClient::start(&[&gateway.endpoint_url("all")], Some(&key));
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "pipe", "version": "1"}});
    let hello = client.ask("initialize", hello).await;
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    let call = client.ask("tools/call", echo("piped")).await;
    client.close();
    assert!(client.answer_to(hello).await["result"].is_object());
    assert!(client.answer_to(call).await.to_string().contains("piped"));
    assert_eq!(client.ended().await, Some(0), "{}", client.stderr());
}

#[tokio::test]
async fn a_bad_key_ends_the_bridge_with_a_word_and_is_never_shown() {
    let gateway = TestGateway::start().await;
    with_demo(&gateway).await;
    let bad = "sk_mt_not_a_key_of_this_gateway_0123456789";
    for url in [gateway.endpoint_url("all"), gateway.sse_url("all")] {
        let mut client = StdioClient::start(&[&url, "--api-key", bad, "--log", "debug"], None);
        let answer = client.request("initialize", json!({})).await;
        assert_eq!(answer["error"]["data"]["reason"], "connect_unauthorized", "{url}: {answer}");
        assert_eq!(client.ended().await, Some(1), "{url}");
        let told = client.stderr();
        assert!(told.contains("401") && !told.contains(bad), "{url}: {told}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_ends_the_bridge_with_a_word() {
    let gateway = TestGateway::start().await;
    let key = with_demo(&gateway).await;
    let mut client = StdioClient::start(&[&gateway.endpoint_url("none")], Some(&key));
    let answer = client.request("initialize", json!({})).await;
    assert_eq!(answer["error"]["data"]["reason"], "connect_no_endpoint", "{answer}");
    assert_eq!(client.ended().await, Some(1));
    assert!(client.stderr().contains("404"), "{}", client.stderr());
}

#[tokio::test]
async fn headers_are_sent_with_their_variables_and_the_key_as_a_bearer_token() {
    let remote = Remote::start(Knobs::default());
    let mut command = tokio::process::Command::from(binary());
    command.args(["connect", &remote.url, "--header", "X-Team=${TEAM_OF_THE_SUITE}"]);
    command.env("TEAM_OF_THE_SUITE", "blue").env("METAMCP_API_KEY", "sk_mt_of_the_suite");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut bridge = command.kill_on_drop(true).spawn().expect("the bridge starts");
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18"}});
    let mut stdin = bridge.stdin.take().expect("its stdin");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, format!("{hello}\n").as_bytes())
        .await
        .expect("it reads");
    let seen = wait_until("the handshake", SOON, async || remote.seen_of("initialize").pop()).await;
    assert_eq!(seen.header("x-team"), Some("blue"));
    assert_eq!(seen.header("authorization"), Some("Bearer sk_mt_of_the_suite"));
}

#[tokio::test]
async fn a_usage_that_cannot_be_meant_is_refused_at_once() {
    for args in [&["ftp://x/mcp"][..], &["http://x/mcp", "--header", "nothing"], &["nowhere"], &[]]
    {
        let output = binary().arg("connect").args(args).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn a_daemon_that_was_killed_and_restarted_is_used_again_without_the_client() {
    for path in ["mcp", "sse"] {
        let mut gateway = on_a_fixed_port().await;
        let key = with_demo(&gateway).await;
        let url = format!("{}/metamcp/all/{path}", gateway.base);
        let mut client = StdioClient::connect(&url, &key).await;
        assert!(client.text_of("demo__echo", json!({"message": "one"})).await.contains("one"));

        gateway.kill9().await;
        // Nobody has this one, so it waits for the daemon.
        let waiting = client.ask("tools/call", echo("two")).await;
        gateway.restart().await;

        let answer = client.answer_to(waiting).await;
        assert!(answer.to_string().contains("two"), "{path}: {answer}\n{}", client.stderr());
        assert!(client.text_of("demo__echo", json!({"message": "three"})).await.contains("three"));
        client.close();
        assert_eq!(client.ended().await, Some(0));
    }
}

#[tokio::test]
async fn a_call_that_was_under_way_when_the_daemon_died_is_answered_and_not_repeated() {
    for path in ["mcp", "sse"] {
        let mut gateway = on_a_fixed_port().await;
        let key = with_demo(&gateway).await;
        let url = format!("{}/metamcp/all/{path}", gateway.base);
        let mut client = StdioClient::connect(&url, &key).await;
        let slow = json!({
            "name": "demo__long_task", "arguments": {"seconds": 30, "steps": 60},
            "_meta": {"progressToken": 1},
        });
        let slow = client.ask("tools/call", slow).await;
        client.heard("progress", |message| message["method"] == "notifications/progress").await;
        gateway.kill9().await;
        let answer = client.answer_to(slow).await;
        let data = &answer["error"]["data"];
        let expected = (&json!("connect_broken"), &json!(false));
        assert_eq!((&data["reason"], &data["retry"]), expected, "{path}: {answer}");
        gateway.restart().await;
        assert!(client.text_of("demo__echo", json!({"message": "on"})).await.contains("on"));
    }
}

#[tokio::test]
async fn a_daemon_that_stays_away_fails_requests_in_bounded_time() {
    let mut gateway = on_a_fixed_port().await;
    let key = with_demo(&gateway).await;
    let mut client = StdioClient::start(&[&gateway.endpoint_url("all"), "--wait", "1"], Some(&key));
    client.shake().await;
    gateway.stop().await;
    let answer = client.request("tools/call", echo("nobody")).await;
    let data = &answer["error"]["data"];
    assert_eq!((&data["reason"], &data["retry"]), (&json!("connect_unreachable"), &json!(true)));
    client.close();
    assert_eq!(client.ended().await, Some(0));
}

#[tokio::test]
async fn a_server_that_forgets_its_sessions_is_introduced_anew_once_and_the_client_hears_of_it() {
    let remote = Remote::start(Knobs { answers: Answers::Sse, ..Knobs::default() });
    let mut client = StdioClient::start(&[&remote.url], None);
    client.shake().await;
    wait_until("the standing stream", SOON, async || (remote.count("GET") > 0).then_some(())).await;
    remote.forget_sessions();
    let calls: Vec<i64> = {
        let mut calls = Vec::new();
        for value in ["a", "b", "c"] {
            let call = json!({"name": "echo", "arguments": {"value": value}});
            calls.push(client.ask("tools/call", call).await);
        }
        calls
    };
    let (mut answered, mut announced) = (0, 0);
    while answered < calls.len() || announced < 1 {
        let message: Value = serde_json::from_str(&client.line().await).expect("JSON");
        match message["method"].as_str() {
            Some("notifications/tools/list_changed") => announced += 1,
            _ if message["result"].is_object() => answered += 1,
            _ => panic!("{message}"),
        }
    }
    let hellos = remote.seen_of("initialize");
    assert_eq!(hellos.len(), 2, "one handshake for all of them");
    assert_eq!(hellos[1].body["params"], hellos[0].body["params"]);
    assert_eq!(remote.seen_of("notifications/initialized").len(), 2);
    let last = remote.seen_of("tools/call").pop().expect("a call");
    assert_eq!(last.header("mcp-session-id"), Some("upstream-session-2"));
    assert_eq!(last.header("mcp-protocol-version"), Some("2025-06-18"));

    client.close();
    assert_eq!(client.ended().await, Some(0));
    assert_eq!(remote.sessions(), 0, "the session is ended with DELETE");
}

#[tokio::test]
async fn what_the_server_says_by_itself_reaches_the_client() {
    let remote = Remote::start(Knobs::default());
    let mut client = StdioClient::start(&[&remote.url], None);
    client.shake().await;
    wait_until("a stream that takes it", SOON, async || {
        (remote.push("notifications/tools/list_changed") > 0).then_some(())
    })
    .await;
    client
        .heard("the announcement", |message| {
            message["method"] == "notifications/tools/list_changed"
        })
        .await;
}

#[tokio::test]
async fn a_question_of_the_server_is_answered_in_its_own_session_or_not_at_all() {
    let remote = Remote::start(Knobs::default());
    let mut client = StdioClient::start(&[&remote.url], None);
    client.shake().await;
    let answer = json!({"jsonrpc": "2.0", "id": 7, "result": {"roots": []}}).to_string();
    let answers = || remote.seen().iter().filter(|seen| seen.body["result"].is_object()).count();
    let question = json!({"jsonrpc": "2.0", "id": 7, "method": "roots/list"});
    let asked = async |client: &mut StdioClient| {
        wait_until("a stream that takes it", SOON, async || {
            (remote.push_message(&question) > 0).then_some(())
        })
        .await;
        client.heard("the question", |message| message["method"] == "roots/list").await;
    };
    asked(&mut client).await;
    client.send(&answer).await;
    wait_until("the answer", SOON, async || (answers() == 1).then_some(())).await;

    asked(&mut client).await;
    remote.forget_sessions();
    let echo = json!({"value": "in the next session"});
    assert_eq!(client.text_of("echo", echo.clone()).await, "in the next session");
    client.send(&answer).await;
    // What is sent after it has arrived, so it would have too.
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#).await;
    wait_until("what came after it", SOON, async || {
        remote.seen_of("notifications/roots/list_changed").pop()
    })
    .await;
    assert_eq!(answers(), 1, "the next session has asked nothing");
}

#[tokio::test]
async fn a_signal_ends_the_bridge_and_its_session() {
    let remote = Remote::start(Knobs::default());
    let mut client = StdioClient::start(&[&remote.url], None);
    client.shake().await;
    let slow = json!({"name": "echo", "arguments": {"value": "x", "delay_ms": 15_000}});
    client.ask("tools/call", slow).await;
    wait_until("the call", SOON, async || remote.seen_of("tools/call").pop()).await;
    let begun = tokio::time::Instant::now();
    processes::signal(client.pid(), rustix::process::Signal::TERM);
    assert_eq!(client.ended().await, Some(0), "{}", client.stderr());
    assert!(begun.elapsed() < Duration::from_secs(12), "it did not wait for the call");
    assert_eq!(remote.sessions(), 0);
}
