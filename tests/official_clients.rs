//! The official TypeScript and Python SDKs, over both transports and by `metamcpd connect`, in front
//! of four servers that nobody here wrote, behind one endpoint.

use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::request,
    peers::{self, Everything, Sdk},
    within,
};

/// The four real servers behind the endpoint `real`; a gateway and a key.
async fn real_servers() -> (TestGateway, String) {
    let gateway = TestGateway::start().await;
    let node =
        |name: &str| peers::directory().join("node_modules/.bin").join(name).display().to_string();
    let files = gateway.scratch().join("files");
    std::fs::create_dir(&files).expect("a directory");
    std::fs::write(files.join("note.txt"), "a note that a real server reads").expect("a file");
    let files = files.canonicalize().expect("its path").display().to_string();

    gateway.stdio("everything", &[node("mcp-server-everything"), "stdio".to_owned()]).await;
    gateway.stdio("filesystem", &[node("mcp-server-filesystem"), files]).await;
    let memory = json!({
        "name": "memory", "type": "STDIO", "command": node("mcp-server-memory"),
        "env": {"MEMORY_FILE_PATH": gateway.scratch().join("memory.jsonl")},
    });
    gateway.create("mcp-servers", memory).await;
    let time = peers::directory().join(".venv/bin/mcp-server-time").display().to_string();
    gateway.stdio("time", &[time, "--local-timezone".to_owned(), "UTC".to_owned()]).await;

    let names = ["everything", "filesystem", "memory", "time"];
    gateway.publish("real", &names).await;
    for name in names {
        gateway
            .server_within(SOON * 3, name, "READY", |server| server["runtime"]["state"] == "READY")
            .await;
    }
    let key = gateway.key("suite").await;
    (gateway, key)
}

/// What the client is to do.
fn plan(gateway: &TestGateway) -> Value {
    let note = gateway.scratch().join("files/note.txt").canonicalize().expect("the note");
    let entity = json!({"name": "gateway", "entityType": "thing", "observations": ["it forwards"]});
    let long = |seconds: u64, steps: u64| json!({"duration": seconds, "steps": steps});
    json!({
        "calls": [
            {"name": "everything__echo", "arguments": {"message": "hello"}},
            {"name": "everything__get-sum", "arguments": {"a": 2, "b": 40}},
            {"name": "everything__get-structured-content", "arguments": {"location": "New York"}},
            {"name": "filesystem__read_text_file", "arguments": {"path": note}},
            {"name": "memory__create_entities", "arguments": {"entities": [entity]}},
            {"name": "memory__read_graph", "arguments": {}},
            {"name": "time__convert_time", "arguments": {
                "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo",
            }},
        ],
        "features": {
            "prompt": {"name": "everything__args-prompt", "arguments": {"city": "Paris"}},
            "read": [
                "demo://resource/static/document/features.md",
                "demo://resource/dynamic/text/7",
            ],
            "complete": {
                "ref": {"type": "ref/prompt", "name": "everything__completable-prompt"},
                "argument": {"name": "department", "value": "S"},
            },
        },
        "progress": {"name": "everything__trigger-long-running-operation", "arguments": long(1, 4)},
        "cancel": {
            "name": "everything__trigger-long-running-operation", "arguments": long(60, 2), "after_ms": 300,
        },
    })
}

/// What an official client must have seen, whichever it is.
fn judge(seen: &Value) {
    let tools: Vec<&str> =
        seen["tools"].as_array().expect("tools").iter().filter_map(Value::as_str).collect();
    for tool in [
        "everything__echo",
        "everything__trigger-long-running-operation",
        "filesystem__read_text_file",
        "memory__create_entities",
        "time__get_current_time",
    ] {
        assert!(tools.contains(&tool), "{tool} is missing in {tools:?}");
    }
    let calls = seen["calls"].as_array().expect("calls");
    for call in calls {
        assert_eq!(call["is_error"], false, "{call}");
    }
    let expected = [
        "Echo: hello",
        "42",
        "",
        "a note that a real server reads",
        "gateway",
        "it forwards",
        "21:00",
    ];
    assert_eq!(calls.len(), expected.len());
    for (call, part) in calls.iter().zip(expected) {
        assert!(
            call["text"].as_str().is_some_and(|text| text.contains(part)),
            "{part} is missing in {call}"
        );
    }
    assert!(calls[2]["structured"]["temperature"].is_number(), "{}", calls[2]);

    let features = &seen["features"];
    for (list, one) in [
        ("prompts", "everything__simple-prompt"),
        ("resources", "demo://resource/static/document/features.md"),
        ("templates", "demo://resource/dynamic/blob/{resourceId}"),
    ] {
        let names = features[list].as_array().expect(list);
        assert!(names.iter().any(|name| name == one), "{one} is missing in {features}");
    }
    assert!(features["prompt"].to_string().contains("Paris"), "{features}");
    let texts = features["texts"].as_array().expect("texts");
    assert!(
        texts.iter().all(|text| text.as_str().is_some_and(|text| !text.is_empty())),
        "{texts:?}"
    );
    assert_eq!(features["missing"], -32002, "{features}");
    let completed = features["completed"].to_string();
    assert!(completed.contains("Sales"), "{completed}");
    let instructions = features["instructions"].as_str().unwrap_or_default();
    assert!(instructions.starts_with("# everything\n\n"), "{instructions:.80}");

    // Over SSE the last report and the answer come together, and an SDK may take the answer first.
    let steps = seen["progress"]["steps"].as_array().expect("progress");
    assert!((3..=4).contains(&steps.len()), "{}", seen["progress"]);
    assert_eq!(steps[0]["progress"].as_f64(), Some(1.0));
    assert_eq!(steps[0]["total"].as_f64(), Some(4.0));
    assert!(seen["progress"]["text"].as_str().is_some_and(|text| text.contains("completed")));

    assert!(
        seen["cancel"]["error"].is_string(),
        "a cancelled call ends as one: {}",
        seen["cancel"]
    );
    assert!(
        seen["cancel"]["took_ms"].as_u64().is_some_and(|took| took < 10_000),
        "{}",
        seen["cancel"]
    );
    assert_eq!(
        seen["after_cancel"].as_u64(),
        u64::try_from(tools.len()).ok(),
        "the session goes on"
    );
}

async fn proved(sdk: Sdk, transport: &str) {
    if peers::are_missing() {
        return;
    }
    let (gateway, key) = real_servers().await;
    let (client, url) = match transport {
        "sse" => ("sse", gateway.sse_url("real")),
        "stdio to sse" => ("stdio", gateway.sse_url("real")),
        other => (other, gateway.endpoint_url("real")),
    };
    judge(&peers::seen(sdk, &url, client, &key, &plan(&gateway)).await);
}

#[tokio::test]
async fn the_typescript_sdk_works_over_streamable_http() {
    proved(Sdk::TypeScript, "streamable").await;
}

#[tokio::test]
async fn the_typescript_sdk_works_over_sse() {
    proved(Sdk::TypeScript, "sse").await;
}

#[tokio::test]
async fn the_python_sdk_works_over_streamable_http() {
    proved(Sdk::Python, "streamable").await;
}

#[tokio::test]
async fn the_python_sdk_works_over_sse() {
    proved(Sdk::Python, "sse").await;
}

#[tokio::test]
async fn the_typescript_sdk_works_by_the_bridge() {
    proved(Sdk::TypeScript, "stdio").await;
}

#[tokio::test]
async fn the_python_sdk_works_by_the_bridge() {
    proved(Sdk::Python, "stdio").await;
}

#[tokio::test]
async fn the_typescript_sdk_works_by_the_bridge_and_the_older_transport() {
    proved(Sdk::TypeScript, "stdio to sse").await;
}

#[tokio::test]
async fn the_python_sdk_works_by_the_bridge_and_the_older_transport() {
    proved(Sdk::Python, "stdio to sse").await;
}

#[tokio::test]
async fn a_real_server_that_is_remote_works_the_same() {
    real_remote("streamableHttp", "STREAMABLE_HTTP").await;
}

#[tokio::test]
async fn a_real_server_of_the_older_transport_works_the_same() {
    real_remote("sse", "SSE").await;
}

/// The official server over one of its transports, behind the gateway as an upstream of this type.
async fn real_remote(transport: &str, kind: &str) {
    if peers::are_missing() {
        return;
    }
    let everything = Everything::over(transport).await;
    let gateway = TestGateway::start().await;
    let body = json!({"name": "everything", "type": kind, "url": everything.url});
    gateway.create("mcp-servers", body).await;
    let client = gateway.client_of(&["everything"]).await;
    assert_eq!(
        client.text_of("everything__echo", json!({"message": "remote"})).await,
        "Echo: remote"
    );
    let long = |seconds: u64, steps: u64| {
        json!({
            "name": "everything__trigger-long-running-operation",
            "arguments": {"duration": seconds, "steps": steps}, "_meta": {"progressToken": 1},
        })
    };
    let reply = client.post(&request(json!("p"), "tools/call", long(1, 3))).await;
    assert_eq!(reply.messages.len(), 4, "three reports and the answer: {reply:?}");
    assert!(reply.answer_to(&json!("p"))["result"].is_object());

    let mut call = client.open(&request(json!("c"), "tools/call", long(600, 600))).await;
    call.events.expect("a first report", SOON).await;
    client.notify("notifications/cancelled", json!({"requestId": "c"})).await;
    let rest = within("the cancelled call's end", SOON, call.events.rest()).await;
    assert!(rest.iter().all(|event| event.json()["id"].is_null()), "{rest:?}");
    assert_eq!(
        client.text_of("everything__echo", json!({"message": "still"})).await,
        "Echo: still"
    );
    // It knows a task in the session that made it alone, and asks by the stream of who waits for it.
    let key = gateway.key("asked").await;
    let declared = json!({"elicitation": {}});
    let asked = Client::that_can(&gateway.endpoint_url("all"), &key, declared).await;
    researches_plainly(&asked, "everything__simulate-research-query").await;
}

/// Calls a tool that has to be called as a task, and that asks what is meant, without a word of tasks.
async fn researches_plainly(client: &Client, tool: &str) {
    let research = json!({"topic": "python", "ambiguous": true});
    let accept = json!({"result": {"action": "accept", "content": {"interpretation": "comedy"}}});
    let (answer, heard) = client.call_answering(tool, research, |_| accept.clone()).await;
    let text = answer["result"]["content"][0]["text"].as_str();
    assert!(text.is_some_and(|text| text.contains("python (comedy)")), "{answer}");
    assert_eq!(heard.iter().filter(|one| one["method"] == "elicitation/create").count(), 1);
}

/// One client with a person before it, in front of a server that is shared and of one where it has a
/// session of its own.
async fn is_asked(sdk: Sdk, transport: &str) {
    if peers::are_missing() {
        return;
    }
    let everything = Everything::start().await;
    let gateway = TestGateway::start().await;
    let program = peers::directory().join("node_modules/.bin/mcp-server-everything");
    gateway.stdio("shared", &[program.display().to_string(), "stdio".to_owned()]).await;
    gateway.remote("own", &everything.url).await;
    gateway.publish("real", &["shared", "own"]).await;
    gateway.ready("shared").await;
    gateway.ready("own").await;
    let key = gateway.key("suite").await;
    let url = match transport {
        "sse" => gateway.sse_url("real"),
        _ => gateway.endpoint_url("real"),
    };
    let tools = [
        "shared__trigger-elicitation-request",
        "shared__trigger-sampling-request",
        "own__trigger-elicitation-request",
        "own__trigger-sampling-request",
        "own__get-roots-list",
    ];
    let calls: Vec<Value> =
        tools.iter().map(|name| json!({"name": name, "arguments": {"prompt": "who?"}})).collect();
    let plan = json!({"person": "ann", "level": "error", "calls": calls});
    let seen = peers::seen(sdk, &url, transport, &key, &plan).await;
    for call in seen["calls"].as_array().expect("calls") {
        assert!(call["text"].as_str().is_some_and(|text| text.contains("ann")), "{call}");
        assert_eq!(call["is_error"], false, "{call}");
    }
    let asked = |method: &str| {
        let asked = seen["asked"].as_array().expect("what it was asked");
        asked.iter().filter(|one| *one == method).count()
    };
    assert_eq!((asked("elicitation/create"), asked("sampling/createMessage")), (2, 2), "{seen}");
    assert!(asked("roots/list") >= 1, "{seen}");
}

#[tokio::test]
async fn the_typescript_sdk_is_asked_over_both_transports_and_by_the_bridge() {
    for transport in ["streamable", "sse", "stdio"] {
        is_asked(Sdk::TypeScript, transport).await;
    }
}

#[tokio::test]
async fn the_python_sdk_is_asked_over_both_transports_and_by_the_bridge() {
    for transport in ["streamable", "sse", "stdio"] {
        is_asked(Sdk::Python, transport).await;
    }
}

#[tokio::test]
async fn the_typescript_sdk_makes_tasks_of_calls_and_a_client_that_knows_none_just_calls() {
    if peers::are_missing() {
        return;
    }
    let (gateway, key) = real_servers().await;
    let tool = "everything__simulate-research-query";
    let url = gateway.endpoint_url("real");
    let seen = peers::said_by(Sdk::TypeScript, "tasks", &[&url, &key, tool]).await;
    assert_eq!(seen["error"], Value::Null, "{seen}");
    let id = seen["id"].as_str().unwrap_or_else(|| panic!("no task: {seen}"));
    let statuses = seen["statuses"].as_array().expect("statuses");
    assert!(statuses.iter().all(|status| status[0] == id), "{seen}");
    assert!(statuses.iter().any(|status| status[1] == "input_required"), "{seen}");
    assert_eq!(seen["related"], id, "the question is about the task that the client knows");
    assert!(seen["text"].as_str().is_some_and(|text| text.contains("python (snake)")), "{seen}");
    assert_eq!(seen["listed"], json!([[id, "completed"]]));
    assert_eq!((&seen["cancelled"], &seen["after"]), (&json!("cancelled"), &json!("cancelled")));

    let mut client = Client::new(&url, Some(&key));
    client.capabilities = json!({"elicitation": {}});
    client.initialize("2025-06-18").await;
    researches_plainly(&client, tool).await;
}
