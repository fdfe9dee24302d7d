//! What real servers and clients do wrong, and what is borne with.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Client, TestGateway,
    client::{LATEST, call, request},
    fixtures::without_python,
    gateway::Start,
    python,
    remote::{Answers, Knobs, Remote},
};

#[tokio::test]
async fn what_a_server_prints_besides_its_messages_is_noise() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let habits = [
        "banner", "colours", "half", "foreign", "blanks", "bom", "ansi", "cr", "crlf", "pieces",
        "stderr",
    ];
    for habit in habits {
        gateway.stdio(habit, &python("noisy.py", &[habit])).await;
    }
    let client = gateway.client_of(&habits).await;
    let values = habits.map(|habit| format!("über {habit}"));
    let calls = habits.iter().zip(&values).map(|(habit, value)| {
        let client = &client;
        async move { client.text_of(&format!("{habit}__echo"), json!({"value": value})).await }
    });
    assert_eq!(join_all(calls).await, values);
    for habit in habits {
        let server = gateway.server(habit).await;
        assert_eq!(server["error_status"], "NONE", "{server}");
        assert_eq!(server["runtime"]["restarts"], 0, "{server}");
    }
}

#[tokio::test]
async fn an_answer_of_twenty_megabytes_comes_through_where_the_limit_allows_it() {
    if without_python() {
        return;
    }
    let gateway = Start::new().settings("[wire]\nmessage_max = 33554432").run().await;
    gateway.stdio("noisy", &python("noisy.py", &["plain"])).await;
    let client = gateway.client_of(&["noisy"]).await;
    let text = client.text_of("noisy__large", json!({"bytes": 20_000_000})).await;
    assert_eq!(text.len(), 20_000_000);
}

#[tokio::test]
async fn an_answer_over_the_limit_ends_its_call_at_once_and_says_why() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("noisy", &python("noisy.py", &["plain"])).await;
    let client = gateway.client_of(&["noisy"]).await;
    let large = client.call("noisy__large", json!({"bytes": 20_000_000}));
    let small = client.call("noisy__echo", json!({"value": "beside"}));
    let (large, small) = futures_util::join!(large, small);
    assert_eq!(large["error"]["data"]["reason"], "upstream_bad_answer", "{large}");
    let why = large["error"]["message"].as_str().unwrap_or_default();
    assert!(why.contains("20000") && why.contains("wire.message_max"), "{why}");
    assert_eq!(small["result"]["content"][0]["text"], "beside", "{small}");
}

#[tokio::test]
async fn a_remote_server_is_understood_however_it_words_its_answers() {
    let gateway = TestGateway::start().await;
    let remotes: Vec<(Answers, u16, Remote)> = Answers::ALL
        .into_iter()
        .zip([202, 200, 204, 202, 200, 204, 202])
        .map(|(answers, noted)| {
            let mut knobs = Knobs { answers, noted, ..Knobs::default() };
            knobs.tools.push("refused".to_owned());
            (answers, noted, Remote::start(knobs))
        })
        .collect();
    let names: Vec<String> = (0..remotes.len()).map(|number| format!("r{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (name, (_, _, remote)) in names.iter().zip(&remotes) {
        gateway.remote(name, &remote.url).await;
    }
    let client = gateway.client_of(&names).await;
    for (name, (answers, noted, _remote)) in names.iter().zip(&remotes) {
        let what = format!("{answers:?} {noted}");
        let text = client.text_of(&format!("{name}__echo"), json!({"value": "über\n"})).await;
        assert_eq!(text, "über\n", "{what}");

        let params = json!({
            "name": format!("{name}__steps"), "arguments": {"count": 3}, "_meta": {"progressToken": "t"},
        });
        let reply = client.post(&request(json!("s"), "tools/call", params)).await;
        let reports = reply.messages.len() - 1;
        assert_eq!(reports, if answers.has_progress() { 3 } else { 0 }, "{what}: {reply:?}");
        assert!(reply.answer_to(&json!("s"))["result"].is_object(), "{what}: {reply:?}");

        let refused = client.post(&call(json!("n"), &format!("{name}__refused"), json!({}))).await;
        let refused = refused.answer_to(&json!("n"));
        assert_eq!(refused["error"]["message"], "refused without an id", "{what}: {refused}");
    }
}

#[tokio::test]
async fn a_forgotten_session_is_begun_again_whatever_the_server_calls_it() {
    let error = |code: i64, message: &str| {
        json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": message}})
            .to_string()
    };
    for (status, body) in [
        (404, String::new()),
        (404, error(-32001, "Session not found")),
        (410, "Gone".to_owned()),
        (400, error(-32000, "Bad Request: Server not initialized")),
        (400, error(-32001, "Unknown session")),
        (400, error(-32600, "Invalid session ID")),
    ] {
        let gateway = TestGateway::start().await;
        let remote = Remote::start(Knobs { forgotten: (status, body.clone()), ..Knobs::default() });
        let row = json!({"name": "r", "type": "STREAMABLE_HTTP", "url": remote.url, "isolation": "SHARED"});
        gateway.create("mcp-servers", row).await;
        let client = gateway.client_of(&["r"]).await;
        client.text_of("r__echo", json!({"value": "warm"})).await;
        let before = remote.seen_of("initialize").len();
        remote.forget_sessions();
        let values: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        let calls = values.iter().map(|value| client.text_of("r__echo", json!({"value": value})));
        assert_eq!(join_all(calls).await, values, "{status} {body}");
        assert_eq!(remote.seen_of("initialize").len(), before + 1, "{status} {body}");
        let server = gateway.server("r").await;
        assert_eq!(server["runtime"]["state"], "READY", "{server}");
    }
}

#[tokio::test]
async fn a_refusal_that_speaks_of_no_session_is_passed_on_and_not_repeated() {
    let gateway = TestGateway::start().await;
    let remote = Remote::start(Knobs::default());
    gateway.remote("r", &remote.url).await;
    let client = gateway.client_of(&["r"]).await;
    client.text_of("r__echo", json!({"value": "warm"})).await;
    let error = json!({"code": -32602, "message": "`city` is missing", "data": [1.50]});
    let refusal = json!({"jsonrpc": "2.0", "id": null, "error": error}).to_string();
    remote.turn(|knobs| knobs.forgotten = (400, refusal));
    remote.forget_sessions();
    let before = remote.seen_of("tools/call").len();
    let answer = client.call("r__echo", json!({"value": "x"})).await;
    assert_eq!(answer["error"], error, "{answer}");
    assert_eq!(remote.seen_of("tools/call").len(), before + 1);
}

#[tokio::test]
async fn clients_are_served_whatever_they_say_of_themselves() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let session = client.session.clone().expect("a session");
    let plain = gateway.endpoint_url("all");
    let slash = format!("{plain}/");
    let key = client.headers[0].1.clone();
    let body = call(json!(1), "demo__echo", json!({"message": "hi"}));
    for (url, accept, version, kind) in [
        (&plain, Some("*/*"), Some(LATEST), "application/json"),
        (&plain, Some("application/json"), Some(LATEST), "application/json"),
        (&plain, Some("application/json;q=0.9, */*;q=0.1"), None, "application/json"),
        (&plain, None, None, "application/json; charset=utf-8"),
        (&plain, Some("text/event-stream"), Some("2025-03-26"), "application/json"),
        (&slash, Some("application/json, text/event-stream"), Some(LATEST), "application/json"),
        (&slash, Some("*/*"), None, "Application/JSON"),
    ] {
        let mut request = gateway.http.post(url).body(body.clone());
        request = request.header("authorization", &key).header("mcp-session-id", &session);
        request = request.header("content-type", kind);
        for (name, value) in [("accept", accept), ("mcp-protocol-version", version)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let response = request.send().await.expect("an answer");
        let what = format!("{url} {accept:?} {version:?} {kind}");
        assert_eq!(response.status(), StatusCode::OK, "{what}");
        let said = response.headers()["content-type"].to_str().expect("a type").to_owned();
        let wants_events = accept == Some("text/event-stream");
        assert_eq!(said.starts_with("text/event-stream"), wants_events, "{what}: {said}");
        assert!(response.text().await.expect("a body").contains("hi"), "{what}");
    }
}

#[tokio::test]
async fn the_stream_of_the_old_transport_is_no_place_to_post_to() {
    let gateway = TestGateway::start().await;
    gateway.publish("all", &[]).await;
    let key = gateway.key("suite").await;
    let url = gateway.sse_url("all");
    for (method, url, status) in [
        (Method::POST, url.clone(), StatusCode::METHOD_NOT_ALLOWED),
        (Method::DELETE, url.clone(), StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, format!("{url}/"), StatusCode::OK),
    ] {
        let request = gateway.http.request(method.clone(), &url).bearer_auth(&key);
        let response =
            request.header("accept", "text/event-stream").send().await.expect("an answer");
        assert_eq!(response.status(), status, "{method} {url}");
    }
}

#[tokio::test]
async fn what_is_not_offered_is_an_empty_list_before_and_after_an_outage() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let capabilities = async || {
        let mut other = Client::new(&client.url, None);
        other.headers = client.headers.clone();
        other.initialize(LATEST).await.json()["result"]["capabilities"].clone()
    };
    let before: Value = capabilities().await;
    for enabled in [true, false] {
        gateway.change("mcp-servers/demo", json!({"enabled": enabled})).await;
        for (method, field) in [
            ("prompts/list", "prompts"),
            ("resources/list", "resources"),
            ("resources/templates/list", "resourceTemplates"),
        ] {
            let answer = client.request(method, json!({})).await;
            assert_eq!(answer["result"], json!({ field: [] }), "{method}: {answer}");
        }
        assert_eq!(capabilities().await, before);
    }
}
