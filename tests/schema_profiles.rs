//! Schema profiles: what clients of one family cannot take is repaired for them or hidden, alone, where
//! the endpoint asks for it, and nowhere else.

use std::process::Stdio;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::{LATEST, call, request},
    events::EventStream,
    fixtures::without_python,
    peers, python, wait_until, within,
};

/// Plain; with alternatives at its root; with what only some clients read; and one that nobody can call.
const TOOLS: &str = r##"[{"name":"plain","x":1.50,"inputSchema":{"type":"object","properties":{"a":{"type":"string"}}}}, {"name":"either","inputSchema":{"type":"object","properties":{"id":{"type":"string"},"url":{"type":"string"}},"anyOf":[{"required":["id"]},{"required":["url"]}]}},{"name":"rich","inputSchema":{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","properties":{"item":{"$ref":"#/definitions/Item"},"many":{"type":["array","null"],"items":{}}},"definitions":{"Item":{"type":"object","properties":{"n":{"const":"x"}},"additionalProperties":false}}}},{"name":"lost","inputSchema":{"type":"array"}}]"##;

/// A gateway with one server that lists this behind the endpoint `all`, and a key.
async fn gateway_with(tools: &str) -> (TestGateway, String) {
    let gateway = TestGateway::start().await;
    std::fs::write(gateway.scratch().join("tools"), tools).unwrap();
    let directory = gateway.scratch().display().to_string();
    gateway.stdio("s", &python("raw_list.py", &[&directory])).await;
    gateway.create("namespaces", json!({"name": "all", "naming": "NEVER", "servers": ["s"]})).await;
    gateway.create("endpoints", json!({"name": "all", "namespace": "all"})).await;
    gateway.ready("s").await;
    let key = gateway.key("suite").await;
    (gateway, key)
}

/// A client that says of itself that it is this.
async fn client_named(gateway: &TestGateway, key: &str, name: &str) -> Client {
    let mut client = Client::new(&gateway.endpoint_url("all"), Some(key));
    let params = json!({
        "protocolVersion": LATEST, "capabilities": {}, "clientInfo": {"name": name, "version": "1"},
    });
    let reply = client.post(&request(json!(0), "initialize", params)).await;
    client.session = reply.header("mcp-session-id");
    client
}

/// The bytes of the list, as the client gets them.
async fn list_of(client: &Client) -> String {
    let reply = client.post(&request(json!(1), "tools/list", json!({}))).await;
    let text = reply.messages.first().expect("an answer").clone();
    let (_, list) = text.split_once(r#""tools":"#).unwrap_or_else(|| panic!("no list: {text}"));
    list.strip_suffix("}}").expect("the end of the answer").to_owned()
}

/// The arguments, byte for byte, that the server got for these.
async fn arrived(client: &Client, tool: &str, arguments: &str) -> String {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments},"_meta":{{"k":1.50}}}}}}"#
    );
    let answer = client.post(&body).await.answer_to(&json!(7));
    let line =
        answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let (_, rest) = line.split_once(r#""arguments":"#).expect("arguments");
    let (arguments, _) = rest.split_once(r#","_meta":{"k":1.50}"#).expect("what stood behind them");
    arguments.to_owned()
}

async fn profile(gateway: &TestGateway, word: &str) {
    let row = gateway.change("endpoints/all", json!({"schema_profile": word})).await;
    assert_eq!(row["schema_profile"], word, "{row}");
}

#[tokio::test]
async fn an_endpoint_that_asks_for_nothing_shows_what_came() {
    if without_python() {
        return;
    }
    let (gateway, key) = gateway_with(TOOLS).await;
    assert_eq!(gateway.get("endpoints/all").await["schema_profile"], "raw");
    let client = client_named(&gateway, &key, "gemini-cli-mcp-client").await;
    // As in every list, what stands between two tools is ours.
    assert_eq!(list_of(&client).await, TOOLS.replace("}}}}, {", "}}}},{"));
    let wrapped = r#"{"input":{"id":"x"}}"#;
    assert_eq!(arrived(&client, "either", wrapped).await, wrapped);
    let rows = gateway.items("endpoints/all/tools").await;
    assert!(rows.iter().all(|row| row["state"] == "AS_IT_CAME"), "{rows:?}");
    assert_eq!(rows.len(), 4);
}

#[tokio::test]
async fn what_a_family_cannot_take_is_repaired_and_what_nobody_can_is_hidden_alone() {
    if without_python() {
        return;
    }
    let (gateway, key) = gateway_with(TOOLS).await;
    profile(&gateway, "gemini").await;
    let client = client_named(&gateway, &key, "suite").await;
    let list = list_of(&client).await;
    assert!(
        list.starts_with(TOOLS.split_once(", {").unwrap().0),
        "the first is as it came: {list}"
    );
    let tools: Vec<Value> = serde_json::from_str(&list).unwrap();
    let names: Vec<&str> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert_eq!(names, ["plain", "either", "rich"]);
    let branch = |name: &str| {
        json!({
            "type": "object", "properties": {"id": {"type": "string"}, "url": {"type": "string"}},
            "required": [name],
        })
    };
    let either = json!({
        "type": "object", "properties": {"input": {"anyOf": [branch("id"), branch("url")]}},
        "required": ["input"],
    });
    assert_eq!(tools[1]["inputSchema"], either);
    let any = ["string", "number", "boolean", "object"].map(|kind| json!({"type": kind}));
    let rich = json!({"type": "object", "properties": {
        "item": {"type": "object", "properties": {"n": {"enum": ["x"], "type": "string"}}},
        "many": {"type": "array", "items": {"anyOf": any}, "nullable": true},
    }});
    assert_eq!(tools[2]["inputSchema"], rich);

    // What was wrapped arrives unwrapped; all else arrives as it was sent.
    let inner = r#"{"url" : "é", "n":1.50,"n":12345678901234567890123}"#;
    let wrapped = format!(r#"{{ "input" : {inner} }}"#);
    assert_eq!(arrived(&client, "either", &wrapped).await, inner);
    for as_sent in [r#"{"id":"x"}"#, r#"{"input":{"id":"x"},"more":1}"#, r#"{"input":"x"}"#, "{}"] {
        assert_eq!(arrived(&client, "either", as_sent).await, as_sent);
    }
    let plain = r#"{ "input":{"a":"x"} }"#;
    assert_eq!(arrived(&client, "plain", plain).await, plain);

    // What is hidden cannot be called, although the namespace would let an unlisted name through.
    let refused = client.post(&call(json!(8), "lost", json!({}))).await.answer_to(&json!(8));
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    let as_task = json!({"name": "lost", "arguments": {}, "task": {"ttl": 1000}});
    let as_task = client.post(&request(json!(8), "tools/call", as_task)).await;
    assert_eq!(as_task.answer_to(&json!(8)), refused, "a task of it tells no more");
    let let_through = client.post(&call(json!(9), "unlisted", json!({}))).await;
    assert!(let_through.answer_to(&json!(9))["result"].is_object(), "{let_through:?}");

    // And the operator sees it, three times over.
    let rows = gateway.items("endpoints/all/tools?state=HIDDEN").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!((&row["name"], &row["profile"]), (&json!("lost"), &json!("gemini")));
    assert_eq!(row["hidden"]["reason"], "root_not_object", "{row}");
    let repaired = gateway.items("endpoints/all/tools?state=REPAIRED&name=either").await;
    let repairs = repaired[0]["repairs"].as_array().expect("repairs");
    assert!(repairs.contains(&json!("root_wrapped")), "{repaired:?}");
    let entries = gateway.items("logs?kind=list").await;
    let told = entries.iter().filter(|entry| entry["reason"] == "root_not_object").count();
    assert_eq!(told, 1, "once, however often it is looked at: {entries:?}");
    assert_eq!(gateway.metric("metamcpd_profile_tools_hidden_total").await, Some(1.0));
}

#[tokio::test]
async fn with_auto_each_client_sees_what_its_family_takes() {
    if without_python() {
        return;
    }
    let (mut gateway, key) = gateway_with(TOOLS).await;
    profile(&gateway, "auto").await;
    let gemini = client_named(&gateway, &key, "gemini-cli-mcp-client").await;
    let claude = client_named(&gateway, &key, "claude-code").await;
    let unknown = client_named(&gateway, &key, "somebody").await;
    assert_eq!(list_of(&unknown).await, TOOLS.replace("}}}}, {", "}}}},{"));
    let (for_gemini, for_claude) = (list_of(&gemini).await, list_of(&claude).await);
    assert!(!for_gemini.contains("$ref") && for_gemini.contains("nullable"), "{for_gemini}");
    assert!(for_claude.contains("$ref") && !for_claude.contains("$schema"), "{for_claude}");
    let wrapped = r#"{"input":{"id":"x"}}"#;
    assert_eq!(arrived(&claude, "either", wrapped).await, r#"{"id":"x"}"#);
    assert_eq!(arrived(&unknown, "either", wrapped).await, wrapped);
    // For each family, since each has clients here.
    let rows = gateway.items("endpoints/all/tools?name=lost").await;
    let hidden = rows.iter().filter(|row| row["state"] == "HIDDEN").count();
    assert_eq!((rows.len(), hidden), (6, 5), "{rows:?}");

    // What a client is was sealed into its session, and outlives the daemon.
    gateway.restart().await;
    let mut revived = Client::new(&gateway.endpoint_url("all"), Some(&key));
    revived.session = gemini.session.clone();
    assert_eq!(list_of(&revived).await, for_gemini);
}

/// Waits for a `tools/list_changed`, past whatever else is said.
async fn told(stream: &mut EventStream) {
    let is_told = |message: &Value| message["method"] == "notifications/tools/list_changed";
    stream.find("an announcement", SOON, is_told).await;
}

#[tokio::test]
async fn a_change_of_the_profile_is_announced_to_those_whose_list_it_changes() {
    if without_python() {
        return;
    }
    let (gateway, key) = gateway_with(TOOLS).await;
    profile(&gateway, "auto").await;
    let gemini = client_named(&gateway, &key, "gemini-cli-mcp-client").await;
    let claude = client_named(&gateway, &key, "claude-code").await;
    let (mut to_gemini, mut to_claude) = (gemini.listen().await, claude.listen().await);
    list_of(&gemini).await;
    list_of(&claude).await;
    profile(&gateway, "claude").await;
    told(&mut to_gemini.events).await;
    assert!(list_of(&gemini).await.contains("$ref"));
    profile(&gateway, "raw").await;
    told(&mut to_gemini.events).await;
    // Of the first change, which was none for it, this one was not told.
    told(&mut to_claude.events).await;
    gateway.change("endpoints/all", json!({"description": "another"})).await;
    profile(&gateway, "gemini").await;
    told(&mut to_claude.events).await;
}

#[tokio::test]
async fn a_list_under_a_profile_is_as_fresh_as_any() {
    if without_python() {
        return;
    }
    let (gateway, key) = gateway_with(TOOLS).await;
    profile(&gateway, "openai").await;
    let client = client_named(&gateway, &key, "suite").await;
    let mut stream = client.listen().await;
    list_of(&client).await;
    let less =
        r#"[{"name":"new","inputSchema":{"type":"object","properties":{"l":{"type":"array"}}}}]"#;
    std::fs::write(gateway.scratch().join("tools"), less).unwrap();
    told(&mut stream.events).await;
    let expected = less.replace(r#"{"type":"array"}"#, r#"{"type":"array","items":{}}"#);
    assert_eq!(list_of(&client).await, expected);
    let gone = client.call("either", json!({"input": {"id": "x"}})).await;
    assert!(gone["result"].is_object(), "unlisted now, and let through as it stands: {gone}");
}

#[tokio::test]
async fn only_words_that_there_are_are_taken() {
    let gateway = TestGateway::start().await;
    gateway.publish("all", &[]).await;
    for body in [json!({"schema_profile": "Gemini"}), json!({"schema_profile": null})] {
        let (status, refused) =
            gateway.admin(Method::PATCH, "endpoints/all", Some(body.clone())).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {refused}");
        let detail = &refused["details"][0];
        assert_eq!(detail["field"], "schema_profile", "{refused}");
        assert!(detail["accepted"].is_string(), "{refused}");
    }
    profile(&gateway, "strict-common").await;
    let found = gateway.items("endpoints?schema_profile=strict-common").await;
    assert_eq!(found.len(), 1);
    assert_eq!(gateway.items("endpoints?schema_profile=raw").await.len(), 0);
    let (status, _) = gateway.admin(Method::GET, "endpoints/all/tools?profile=auto", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = gateway.admin(Method::GET, "endpoints/none/tools", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

/// What the official TypeScript SDK makes of the endpoint.
async fn seen_by_the_sdk(gateway: &TestGateway, key: &str, plan: Value) -> Value {
    let mut command = tokio::process::Command::new("node");
    command.arg(peers::directory().join("list.mjs"));
    command.args([&gateway.endpoint_url("all"), key, &plan.to_string()]);
    command.env("NO_PROXY", "127.0.0.1").stdin(Stdio::null()).kill_on_drop(true);
    let output = within("the client", SOON * 4, command.output()).await.expect("the client runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(said.lines().last().unwrap_or_default()).expect("its report")
}

#[tokio::test]
async fn one_bad_schema_costs_the_official_sdk_its_whole_list_only_as_it_came() {
    if without_python() || peers::are_missing() {
        return;
    }
    const GOOD: &str = r#"{"name":"good","inputSchema":{"type":"object"}}"#;
    let bad = [
        r#""inputSchema":{"type":"object"},"outputSchema":{"anyOf":[{"type":"object"}]}"#,
        r##""inputSchema":{"type":"object"},"outputSchema":{"type":"object","properties":{"line":{"$ref":"#/$defs/none"}}}"##,
        r#""inputSchema":{"properties":{}}"#,
        r#""description":null,"inputSchema":{"type":"object"}"#,
        r#""title":"no schema""#,
    ];
    let (gateway, key) = gateway_with(&format!("[{GOOD}]")).await;
    for bad in bad {
        profile(&gateway, "raw").await;
        let tools = format!(r#"[{GOOD},{{"name":"bad",{bad}}}]"#);
        std::fs::write(gateway.scratch().join("tools"), &tools).unwrap();
        let client = client_named(&gateway, &key, "suite").await;
        wait_until("the new list", SOON, async || (list_of(&client).await == tools).then_some(()))
            .await;
        let raw = seen_by_the_sdk(&gateway, &key, json!({})).await;
        assert!(raw["tools"].is_null() && raw["error"].is_string(), "{bad}: {raw}");

        profile(&gateway, "strict-common").await;
        let plan = json!({"calls": [{"name": "bad", "arguments": {}}]});
        let strict = seen_by_the_sdk(&gateway, &key, plan).await;
        assert_eq!(strict["tools"], json!(["good", "bad"]), "{bad}: {strict}");
        // Without a schema the SDK takes what the server says as it is.
        let said = &strict["calls"][0];
        assert!(said["structured"]["line"].is_string() && said["is_error"] == false, "{strict}");
    }
}
