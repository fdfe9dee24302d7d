//! Streamable HTTP as clients hold it: sessions, headers, ids, and what is refused.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::{LATEST, call, request},
    events::Arrival,
    python, within,
};

/// A gateway with the demo upstream behind the endpoint `all`, and a client with a session.
async fn demo() -> (TestGateway, Client) {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    (gateway, client)
}

#[tokio::test]
async fn each_legacy_revision_is_agreed_to_and_others_are_answered_with_the_latest() {
    let (gateway, client) = demo().await;
    let table = [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("1999-12-31", LATEST),
        ("2026-07-28", LATEST),
    ];
    for (asked, agreed) in table {
        let mut other = Client::new(&gateway.endpoint_url("all"), None);
        other.headers = client.headers.clone();
        let reply = other.initialize(asked).await;
        assert_eq!(reply.json()["result"]["protocolVersion"], agreed, "asked for {asked}");
        assert!(!other.tools().await.is_empty());
    }
}

#[tokio::test]
async fn initialize_gives_a_session_and_says_what_is_offered() {
    let (gateway, client) = demo().await;
    let mut other = Client::new(&gateway.endpoint_url("all"), None);
    other.headers = client.headers.clone();
    let reply = other.initialize(LATEST).await;
    let result = &reply.json()["result"];
    assert_eq!(result["capabilities"]["tools"]["listChanged"], true, "{result}");
    // A capability that is not served makes clients ask for it.
    let offered: Vec<&String> =
        result["capabilities"].as_object().expect("an object").keys().collect();
    let served = ["completions", "logging", "prompts", "resources", "tasks", "tools"];
    assert_eq!(offered, served, "{result}");
    assert!(result["serverInfo"]["name"].is_string(), "{result}");
    let session = other.session.expect("a session id");
    assert!(
        session.len() >= 22 && session.bytes().all(|byte| byte.is_ascii_graphic()),
        "{session}"
    );
    assert_ne!(Some(session), client.session);
}

#[tokio::test]
async fn any_id_comes_back_byte_for_byte() {
    let (_gateway, client) = demo().await;
    let ids = [
        "0",
        "-7",
        "1",
        "12345678901234567890123",
        r#""""#,
        r#""a b""#,
        r#""caf\u00e9\/""#,
        r#""é😀""#,
    ];
    for id in ids {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"ping","id":{id}}}"#);
        let reply = client.post(&body).await;
        assert!(reply.messages[0].contains(&format!(r#""id":{id}"#)), "{id}: {reply:?}");
    }
}

#[tokio::test]
async fn the_fields_of_a_request_may_stand_in_any_order_and_on_any_number_of_lines() {
    let (_gateway, client) = demo().await;
    let body = "\u{20}{\r\n\"params\" : {\"arguments\":{\"message\":\"odd\"},\n \"name\"\t:\"demo__echo\"},\n\
        \"x-unknown\":[1.50],\"method\":\"tools\\/call\",\"id\":5 ,\"jsonrpc\":\"2.0\"}\n";
    let reply = client.post(body).await;
    let text = reply.answer_to(&json!(5))["result"]["content"][0]["text"].clone();
    assert!(text.as_str().is_some_and(|text| text.contains("odd")), "{reply:?}");
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_the_right_code() {
    let (_gateway, client) = demo().await;
    let deep = "[".repeat(600) + &"]".repeat(600);
    let table = [
        ("{".to_owned(), -32700),
        ("".to_owned(), -32700),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\u{1}\"}".to_owned(), -32700),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#.to_owned(), -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#.to_owned(), -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#.to_owned(), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#.to_owned(), -32600),
        (
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"deep":{deep}}}}}"#),
            -32600,
        ),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#.to_owned(), -32600),
    ];
    for (body, code) in table {
        let reply = client.post(&body).await;
        assert_eq!(
            reply.json()["error"]["code"],
            code,
            "{}: {reply:?}",
            &body[..body.len().min(80)]
        );
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{reply:?}");
    }
    let ping = client.request("ping", json!({})).await;
    assert_eq!(ping["result"], json!({}), "the session goes on");
}

#[tokio::test]
async fn unknown_methods_and_tools_are_errors_of_the_request() {
    let (_gateway, client) = demo().await;
    let unknown = client.request("no/such/method", json!({})).await;
    assert_eq!(unknown["error"]["code"], -32601, "{unknown}");
    let unknown = client.call("demo__no_such_tool", json!({})).await;
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    let nameless = client.request("tools/call", json!({"arguments": {}})).await;
    assert_eq!(nameless["error"]["code"], -32602, "{nameless}");
}

#[tokio::test]
async fn a_request_without_a_session_is_400_and_one_with_an_unknown_session_404() {
    let (gateway, client) = demo().await;
    let mut other = Client::new(&gateway.endpoint_url("all"), None);
    other.headers = client.headers.clone();
    let list = request(json!(1), "tools/list", json!({}));
    assert_eq!(other.post(&list).await.status, StatusCode::BAD_REQUEST);
    other.session = Some("no-such-session".to_owned());
    assert_eq!(other.post(&list).await.status, StatusCode::NOT_FOUND);
    assert_eq!(other.listen().await.status, StatusCode::NOT_FOUND);
    assert_eq!(other.end().await, StatusCode::NOT_FOUND);
    // One letter of a good id changed is no id either.
    let good = client.session.clone().expect("a session");
    let flipped = if good.ends_with('A') { 'B' } else { 'A' };
    other.session = Some(format!("{}{flipped}", &good[..good.len() - 1]));
    assert_eq!(other.post(&list).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_session_belongs_to_one_key_and_one_endpoint() {
    let (gateway, client) = demo().await;
    gateway.publish("second", &["demo"]).await;
    let other_key = gateway.key("other").await;
    let list = request(json!(1), "tools/list", json!({}));

    let mut thief = Client::new(&gateway.endpoint_url("all"), Some(&other_key));
    thief.session = client.session.clone();
    let stolen = thief.post(&list).await;
    thief.session = Some("no-such-session".to_owned());
    let unknown = thief.post(&list).await;
    assert_eq!(stolen.status, StatusCode::NOT_FOUND);
    assert_eq!(
        stolen.face(),
        unknown.face(),
        "nobody can tell a foreign session from an unknown one"
    );

    let mut elsewhere = Client::new(&gateway.endpoint_url("second"), None);
    elsewhere.headers = client.headers.clone();
    elsewhere.session = client.session.clone();
    assert_eq!(elsewhere.post(&list).await.status, StatusCode::NOT_FOUND);
    assert!(!client.tools().await.is_empty(), "the owner goes on");
}

#[tokio::test]
async fn a_session_that_its_client_ended_is_gone() {
    let (_gateway, client) = demo().await;
    let mut stream = client.listen().await;
    assert!(client.end().await.is_success());
    assert_eq!(
        client.post(&request(json!(1), "ping", json!({}))).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(client.listen().await.status, StatusCode::NOT_FOUND);
    within("its stream to end", SOON, stream.events.rest()).await;
}

#[tokio::test]
async fn a_revision_that_nobody_knows_in_the_header_is_400() {
    let (_gateway, client) = demo().await;
    // A client that never shook hands sends no header of its own.
    let mut other = Client::new(&client.url, None);
    other.headers = client.headers.clone();
    other.headers.push(("mcp-protocol-version".to_owned(), "1999-12-31".to_owned()));
    other.session = client.session.clone();
    assert_eq!(
        other.post(&request(json!(1), "ping", json!({}))).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn notifications_and_answers_of_the_client_are_accepted() {
    let (_gateway, client) = demo().await;
    assert_eq!(
        client.notify("notifications/roots/list_changed", json!({})).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        client.notify("notifications/no/such", json!({})).await.status,
        StatusCode::ACCEPTED
    );
    let answer = json!({"jsonrpc": "2.0", "id": 99, "result": {}}).to_string();
    assert_eq!(client.post(&answer).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn the_standing_stream_speaks_at_once_and_is_kept_alive() {
    let (_gateway, client) = demo().await;
    let mut stream = client.listen().await;
    assert_eq!(stream.status, StatusCode::OK);
    let header = |name: &str| {
        stream.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    assert!(header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")));
    assert_eq!(header("x-accel-buffering").as_deref(), Some("no"));
    assert!(
        header("cache-control")
            .is_some_and(|value| value.contains("no-cache") || value.contains("no-store"))
    );
    // Proxies and clients give up on streams that are silent: the first byte comes at once, and
    // heartbeats follow at least every fifteen seconds.
    within("the first byte", SOON, stream.events.arrival()).await.expect("an open stream");
    loop {
        let next =
            within("a heartbeat", SOON, stream.events.arrival()).await.expect("an open stream");
        if matches!(next, Arrival::Comment) {
            break;
        }
    }
}

#[tokio::test]
async fn an_answer_is_json_until_something_has_to_be_streamed() {
    let (_gateway, client) = demo().await;
    let kind = |headers: &reqwest::header::HeaderMap| {
        headers
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let plain = client.post(&call(json!(1), "demo__echo", json!({"message": "hi"}))).await;
    assert!(kind(&plain.headers).starts_with("application/json"), "{plain:?}");

    let params = json!({
        "name": "demo__echo", "arguments": {"message": "hi", "repeat": 3, "delay_ms": 20},
        "_meta": {"progressToken": "p"},
    });
    let streamed = client.post(&request(json!(2), "tools/call", params)).await;
    assert!(kind(&streamed.headers).starts_with("text/event-stream"), "{streamed:?}");
    assert_eq!(
        streamed.headers.get("x-accel-buffering").and_then(|value| value.to_str().ok()),
        Some("no")
    );
    assert!(streamed.messages.len() >= 2, "{streamed:?}");
    assert!(streamed.answer_to(&json!(2))["result"].is_object());
}

#[tokio::test]
async fn initialize_touches_no_upstream() {
    if crate::support::fixtures::without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("mute", &python("hang_init.py", &[])).await;
    gateway.publish("all", &["mute"]).await;
    let key = gateway.key("suite").await;
    let client = within("initialize", SOON, gateway.client("all", &key)).await;
    let ping = client.request("ping", json!({})).await;
    assert_eq!(ping["result"], json!({}));
}

#[tokio::test]
async fn foreign_origins_and_hosts_are_refused_on_every_path_and_method() {
    let (gateway, client) = demo().await;
    let port = gateway.base.rsplit(':').next().expect("a port").to_owned();
    let own = |host: &str| format!("{host}:{port}");
    let ask = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        let mut request = gateway.http.request(method, format!("{}{path}", gateway.base));
        for (name, value) in &client.headers {
            request = request.header(name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer").status()
    };
    for path in
        ["/metamcp/all/mcp", "/metamcp/all/sse", "/metamcp/all/message", "/api/v1/mcp-servers"]
    {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let evil = ask(method.clone(), path, &[("origin", "http://evil.example.com")]).await;
            assert_eq!(evil, StatusCode::FORBIDDEN, "{method} {path}");
            let rebound = ask(method.clone(), path, &[("host", "evil.example.com")]).await;
            assert!(matches!(rebound.as_u16(), 403 | 421), "{method} {path}: {rebound}");
        }
    }
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": LATEST, "capabilities": {}, "clientInfo": {"name": "page", "version": "1"},
    }});
    for host in ["localhost", "127.0.0.1"] {
        let mut page = Client::new(&gateway.endpoint_url("all"), None);
        page.headers = client.headers.clone();
        page.headers.push(("host".to_owned(), own(host)));
        page.headers.push(("origin".to_owned(), format!("http://{}", own(host))));
        assert_eq!(page.post(&hello.to_string()).await.status, StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_ask_and_read_the_session_id() {
    let gateway = crate::support::gateway::Start::new()
        .settings("[server]\nallowed_origins = [\"https://tool.example\"]")
        .run()
        .await;
    gateway.publish("all", &[]).await;
    let ask = async |method: Method, origin: &str| {
        let request = gateway.http.request(method, gateway.endpoint_url("all"));
        let request = request.header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.send().await.expect("an answer")
    };
    let preflight = ask(Method::OPTIONS, "https://tool.example").await;
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "https://tool.example");
    let headers = preflight.headers()["access-control-allow-headers"].to_str().expect("text");
    assert!(headers.contains("Mcp-Session-Id") && headers.contains("Authorization"), "{headers}");
    let answer = ask(Method::POST, "https://tool.example").await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let readable = answer.headers()["access-control-expose-headers"].to_str().expect("text");
    assert!(readable.contains("Mcp-Session-Id"), "{readable}");
    assert!(answer.headers().get("access-control-allow-credentials").is_none());
    assert_eq!(ask(Method::OPTIONS, "https://evil.example").await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_the_session_goes_on() {
    let (_gateway, client) = demo().await;
    let huge = call(json!(1), "demo__echo", json!({"message": "x".repeat(64 << 20)}));
    let request =
        client.http.post(&client.url).header("content-type", "application/json").body(huge);
    let request =
        client.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    let request = request.header("mcp-session-id", client.session.clone().expect("a session"));
    // The gateway may answer, or hang up on whoever goes on sending.
    if let Ok(response) = request.send().await {
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    let pong: Value = client.request("ping", json!({})).await;
    assert_eq!(pong["result"], json!({}));
}
