//! The official TypeScript and Python SDKs, over both transports and by `metamcpd connect`, in front
//! of four servers that nobody here wrote, behind one endpoint.

use std::{path::PathBuf, process::Stdio};

use serde_json::{Value, json};

use crate::support::{
    SOON, TestGateway,
    client::request,
    official::{peers, without_peers},
    wait_until, within,
};

#[derive(Clone, Copy, Debug)]
enum Sdk {
    TypeScript,
    Python,
}

/// The four real servers behind the endpoint `real`; a gateway and a key.
async fn real_servers() -> (TestGateway, String) {
    let gateway = TestGateway::start().await;
    let node = |name: &str| peers().join("node_modules/.bin").join(name).display().to_string();
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
    let time = peers().join(".venv/bin/mcp-server-time").display().to_string();
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

/// Runs the client and returns what it saw.
async fn seen(sdk: Sdk, url: &str, transport: &str, key: &str, plan: &Value) -> Value {
    let (program, script) = match sdk {
        Sdk::TypeScript => (PathBuf::from("node"), "client.mjs"),
        Sdk::Python => (peers().join(".venv/bin/python"), "client.py"),
    };
    let mut command = tokio::process::Command::new(program);
    command.arg(peers().join(script)).args([url, transport, key, &plan.to_string()]);
    command.env("NO_PROXY", "127.0.0.1").env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("METAMCPD", env!("CARGO_BIN_EXE_metamcpd"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = within("the client", SOON * 4, command.output()).await.expect("the client runs");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{sdk:?} over {transport}: {said}\n{complained}");
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {said}\n{complained}"))
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
    if without_peers() {
        return;
    }
    let (gateway, key) = real_servers().await;
    let (client, url) = match transport {
        "sse" => ("sse", gateway.sse_url("real")),
        "stdio to sse" => ("stdio", gateway.sse_url("real")),
        other => (other, gateway.endpoint_url("real")),
    };
    judge(&seen(sdk, &url, client, &key, &plan(&gateway)).await);
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
    real_remote("streamableHttp", "STREAMABLE_HTTP", "mcp").await;
}

#[tokio::test]
async fn a_real_server_of_the_older_transport_works_the_same() {
    real_remote("sse", "SSE", "sse").await;
}

/// The official server over one of its transports, behind the gateway as an upstream of this type.
async fn real_remote(transport: &str, kind: &str, path: &str) {
    if without_peers() {
        return;
    }
    let port = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.local_addr().expect("its address").port()
    };
    let mut everything = tokio::process::Command::new("node");
    // Not through the shell script in .bin: what is killed at the end must be the server itself.
    everything
        .arg(peers().join("node_modules/@modelcontextprotocol/server-everything/dist/index.js"));
    everything.arg(transport).env("PORT", port.to_string());
    everything.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let _server = everything.spawn().expect("node");
    // Before it is tried for the first time: on a busy machine it starts slower than patience ends.
    wait_until("node to listen", SOON * 3, async || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    })
    .await;

    let gateway = TestGateway::start().await;
    let url = format!("http://127.0.0.1:{port}/{path}");
    let body = json!({"name": "everything", "type": kind, "url": url});
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
}
