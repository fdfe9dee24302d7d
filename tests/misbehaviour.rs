//! Servers that break the protocol, one fault after the other: each call has one outcome, whatever its
//! server says or does not say, and the next one is as good as if nothing had been.

use evil_mcp::{
    Character, Fault,
    fault::Condition,
    http::Server,
    value::{Bytes, Rate},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Client, SOON, TestGateway, client::call, evil, gateway::Start, wait_until};

/// Calls give up soon, and servers are never given up: what is looked at are the calls.
const HASTY: &str = r#"
wire = { message_max = 1000000 }
calls = { timeout = "700ms", total = "2s", breaker = { failures = 0, retry_after_max = "0s", retry_wait = "0s" } }
supervision = { backoff_min = "10ms", backoff_max = "50ms", failures_burst = 1000, failures_slow = 1000 }
"#;

async fn hasty() -> TestGateway {
    Start::new().settings(HASTY).run().await
}

/// The one answer to a call of `echo` that asks its server for a fault; more or fewer fail the test.
async fn only_answer(client: &Client, tool: &str, fault: Option<&Fault>) -> Value {
    let mut arguments = json!({"nonce": "n"});
    if let Some(fault) = fault {
        arguments["fault"] = json!(fault.to_string());
    }
    let id = json!("the same for all");
    let reply = client.post(&call(id.clone(), tool, arguments)).await;
    assert_eq!(reply.status, StatusCode::OK, "{fault:?}: {reply:?}");
    let answers = reply.messages.iter().filter_map(|message| {
        let message: Value = serde_json::from_str(message).expect("JSON");
        (message["id"] == id && message.get("method").is_none()).then_some(message)
    });
    let answers: Vec<Value> = answers.collect();
    assert_eq!(answers.len(), 1, "{fault:?}: {reply:?}");
    answers[0].clone()
}

/// Whether it is the right result, or else the reason of its error.
fn outcome(answer: &Value) -> Result<(), &str> {
    match answer["error"].is_null() {
        true => {
            assert_eq!(answer["result"]["content"][0]["text"], "n", "{answer}");
            Ok(())
        }
        false => Err(answer["error"]["data"]["reason"].as_str().unwrap_or("no reason")),
    }
}

#[tokio::test]
async fn a_child_that_breaks_the_protocol_fails_its_own_call_once_and_no_other() {
    let gateway = hasty().await;
    gateway.stdio("evil", &evil(&Character::good())).await;
    let client = gateway.client_of(&["evil"]).await;

    // What can be understood is an answer, and what cannot is none.
    let faults = [
        (Fault::DupReply, Ok(())),
        (Fault::Garbage(5), Ok(())),
        (Fault::Bom, Ok(())),
        (Fault::Crlf, Ok(())),
        (Fault::ProgressSpoof(100), Ok(())),
        (Fault::Drip(Rate(1_000)), Ok(())),
        (Fault::Blackhole, Err("call_timeout")),
        (Fault::WrongId, Err("call_timeout")),
        (Fault::IdTypeChange, Err("call_timeout")),
        (Fault::ErrorWithoutId, Err("call_timeout")),
        (Fault::Deep(1_000), Err("upstream_bad_answer")),
        (Fault::InvalidUtf8, Err("upstream_bad_answer")),
        (Fault::HugeLine(Bytes(2_000_000)), Err("upstream_bad_answer")),
        (Fault::ExitEvery(1), Err("upstream_ended")),
        (Fault::PartialLine, Err("upstream_ended")),
    ];
    for (fault, wanted) in faults {
        let answer = only_answer(&client, "evil__echo", Some(&fault)).await;
        assert_eq!(outcome(&answer), wanted, "{fault}: {answer}");
        gateway.ready("evil").await;
        let after = only_answer(&client, "evil__echo", None).await;
        assert_eq!(outcome(&after), Ok(()), "after {fault}: {after}");
    }
}

#[tokio::test]
async fn what_a_clients_own_process_does_is_laid_at_no_other_processs_door() {
    // Nothing here has to run into a timeout, and each client's first call waits for a process to start.
    let gateway = Start::new().settings("[wire]\nmessage_max = 1000000").run().await;
    gateway.stdio("evil", &evil(&Character::good())).await;
    gateway.change("mcp-servers/evil", json!({"isolation": "SESSION"})).await;
    let shared = gateway.server_pid("evil").await;
    gateway.publish("all", &["evil"]).await;
    let key = gateway.key("clients").await;
    let huge = Fault::HugeLine(Bytes(2_000_000));
    let mut clients = Vec::new();
    // One is allowed; two of one process are not (`calls.strikes.oversized`).
    for number in 1..=3 {
        let client = gateway.client("all", &key).await;
        let answer = only_answer(&client, "evil__echo", Some(&huge)).await;
        assert_eq!(outcome(&answer), Err("upstream_bad_answer"), "{answer}");
        let after = only_answer(&client, "evil__echo", None).await;
        assert_eq!(outcome(&after), Ok(()), "{after}");
        clients.push(client);
        let server = gateway.ready("evil").await;
        let processes = server["runtime"]["session_processes"].as_array().map(Vec::len);
        assert_eq!(processes, Some(number), "{server}");
    }
    assert_eq!(gateway.server_pid("evil").await, shared);
    let failed = gateway.metric("metamcpd_session_processes_failed_total").await;
    assert_eq!(failed.unwrap_or_default(), 0.0, "{}", gateway.log());
}

#[tokio::test]
async fn a_child_that_closes_its_output_has_ended_though_it_lives() {
    let gateway = TestGateway::start().await;
    gateway.stdio("evil", &evil(&Character::good())).await;
    let client = gateway.client_of(&["evil"]).await;

    let answer = only_answer(&client, "evil__echo", Some(&Fault::CloseStdout)).await;
    assert_eq!(outcome(&answer), Err("upstream_ended"), "{answer}");
    gateway.ready("evil").await;
    let after = only_answer(&client, "evil__echo", None).await;
    assert_eq!(outcome(&after), Ok(()), "{after}");
}

#[tokio::test]
async fn a_remote_server_that_answers_with_nonsense_fails_its_own_call_once_and_no_other() {
    let gateway = hasty().await;
    let server = Server::start(Character::good()).expect("a server");
    gateway.remote("evil", &server.url).await;
    let client = gateway.client_of(&["evil"]).await;

    let faults = [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(429),
        Fault::Status(403),
        Fault::Redirect("http://127.0.0.1:9/mcp".to_owned()),
        Fault::ContentType("image/png".to_owned()),
        Fault::Html,
        Fault::Empty,
        Fault::Accepted,
        Fault::Truncated,
        Fault::Cut(Bytes(10)),
        Fault::Reset,
        Fault::Stall,
        Fault::Blackhole,
        Fault::WrongId,
        Fault::InvalidUtf8,
        Fault::GzipBomb(Bytes(50_000_000)),
    ];
    for fault in faults {
        let called = server.calls();
        let answer = only_answer(&client, "evil__echo", Some(&fault)).await;
        let reason = outcome(&answer).err();
        assert!(reason.is_some_and(|reason| reason != "no reason"), "{fault}: {answer}");
        assert_eq!(server.calls(), called + 1, "{fault}: a call is sent once");
        let after = only_answer(&client, "evil__echo", None).await;
        assert_eq!(outcome(&after), Ok(()), "after {fault}: {after}");
    }
    for fault in [Fault::DupReply, Fault::ProgressSpoof(100)] {
        let answer = only_answer(&client, "evil__echo", Some(&fault)).await;
        assert_eq!(outcome(&answer), Ok(()), "{fault}: {answer}");
    }
}

#[tokio::test]
async fn what_cannot_be_taken_from_a_remote_server_is_called_what_it_is_called_of_a_child() {
    let gateway = hasty().await;
    let server = Server::start(Character::good()).expect("a server");
    gateway.remote("evil", &server.url).await;
    let client = gateway.client_of(&["evil"]).await;
    for fault in [Fault::Deep(1_000), Fault::InvalidUtf8, Fault::HugeLine(Bytes(2_000_000))] {
        let answer = only_answer(&client, "evil__echo", Some(&fault)).await;
        assert_eq!(outcome(&answer), Err("upstream_bad_answer"), "{fault}: {answer}");
    }
}

#[tokio::test]
async fn a_server_that_forgets_every_session_does_not_end_that_of_the_client() {
    let gateway = hasty().await;
    let server = Server::start(Character::good().with(Fault::Expire(0))).expect("a server");
    gateway.remote("evil", &server.url).await;
    let client = gateway.client_of(&["evil"]).await;

    let answer = only_answer(&client, "evil__echo", None).await;
    assert_eq!(outcome(&answer), Err("upstream_http_status"), "{answer}");
    assert_eq!(answer["error"]["code"], -32603, "-32001 is for the client's own session");
    assert_eq!(server.calls(), 0, "nothing was executed");
}

#[tokio::test]
async fn sessions_that_expire_all_the_time_are_noticed_by_no_client() {
    let gateway = hasty().await;
    let server = Server::start(Character::good().with(Fault::Expire(100))).expect("a server");
    let row = json!({"name": "evil", "type": "STREAMABLE_HTTP", "url": server.url, "isolation": "SHARED"});
    gateway.create("mcp-servers", row).await;
    let client = gateway.client_of(&["evil"]).await;
    let hellos = server.hellos();
    for _ in 0..100 {
        let calls = (0..10).map(|_| client.text_of("evil__echo", json!({"nonce": "n"})));
        assert!(futures_util::future::join_all(calls).await.iter().all(|text| text == "n"));
    }
    assert_eq!(server.calls(), 1_000, "each is carried out once");
    let begun = server.hellos() - hellos;
    assert!((9..=30).contains(&begun), "one for a hundred calls, and few more: {begun}");
}

#[tokio::test]
async fn a_call_that_its_connection_ended_before_it_was_sent_is_sent_again() {
    let gateway = TestGateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    let switch = folder.path().join("evil");
    let character = Character::good().with(Fault::HangInit).when(Condition::While(switch.clone()));
    let server = Server::start(character).expect("a server");
    gateway.remote("evil", &server.url).await;
    let client = gateway.client_of(&["evil"]).await;

    // The session that its first call is to open is never opened.
    std::fs::write(&switch, "").unwrap();
    let hellos = server.hellos();
    let ending = async {
        wait_until("the session to be asked for", SOON, async || {
            (server.hellos() > hellos).then_some(())
        })
        .await;
        gateway.admin(reqwest::Method::POST, "mcp-servers/evil/restart", None).await;
        std::fs::remove_file(&switch).unwrap();
    };
    let (answer, ()) = tokio::join!(only_answer(&client, "evil__echo", None), ending);
    assert_eq!(outcome(&answer), Ok(()), "{answer}");
    assert_eq!(server.calls(), 1);
}
