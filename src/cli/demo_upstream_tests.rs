//! The demo server as a client sees it: lines in, lines out, in virtual time.
#![allow(clippy::unwrap_used)]

use tokio::{
    io::{DuplexStream, Lines as TokioLines, ReadHalf, WriteHalf, duplex, split},
    task::JoinHandle,
};

use super::*;

struct Client {
    input: Option<WriteHalf<DuplexStream>>,
    output: TokioLines<BufReader<ReadHalf<DuplexStream>>>,
    server: JoinHandle<io::Result<()>>,
}

impl Client {
    fn start() -> Self {
        let (ours, theirs) = duplex(64 * 1024);
        let (stdin, stdout) = split(theirs);
        let (output, input) = split(ours);
        let server = tokio::spawn(run(stdin, stdout));
        Self { input: Some(input), output: BufReader::new(output).lines(), server }
    }

    async fn send_text(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    async fn send(&mut self, message: Value) {
        self.send_text(&format!("{message}\n")).await;
    }

    async fn request(&mut self, id: impl Into<Value>, method: &str, params: Value) {
        let id = id.into();
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
    }

    async fn call(&mut self, id: impl Into<Value>, tool: &str, arguments: Value) {
        self.request(id, "tools/call", json!({ "name": tool, "arguments": arguments })).await;
    }

    async fn next(&mut self) -> Value {
        let line = self.output.next_line().await.unwrap().expect("the server has ended");
        serde_json::from_str(&line).unwrap()
    }

    async fn result_of(&mut self, tool: &str, arguments: Value) -> Value {
        self.call(1, tool, arguments).await;
        let reply = self.next().await;
        assert_eq!(reply["id"], 1);
        reply["result"].clone()
    }

    /// Closes the input, and returns all that is still said, and how the server ended.
    async fn close(mut self) -> (Vec<Value>, io::Result<()>) {
        let mut input = self.input.take().unwrap();
        input.shutdown().await.unwrap();
        let ended = self.server.await.unwrap();
        drop(input);
        let mut rest = Vec::new();
        while let Some(line) = self.output.next_line().await.unwrap() {
            rest.push(serde_json::from_str(&line).unwrap());
        }
        (rest, ended)
    }
}

#[tokio::test]
async fn the_clients_revision_is_used_if_known_and_else_the_newest() {
    let mut client = Client::start();
    for (asked, expected) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ] {
        client.request("i", "initialize", json!({ "protocolVersion": asked })).await;
        let reply = client.next().await;
        assert_eq!(reply["id"], "i");
        assert_eq!(reply["result"]["protocolVersion"], expected);
        assert!(reply["result"]["capabilities"]["tools"].is_object());
    }
    client.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    client.request(2, "ping", json!({})).await;
    assert_eq!(client.next().await, json!({ "jsonrpc": "2.0", "id": 2, "result": {} }));
}

#[tokio::test]
async fn every_tool_says_what_it_takes_and_does() {
    let mut client = Client::start();
    client.request(1, "tools/list", json!({})).await;
    let reply = client.next().await;
    let tools = reply["result"]["tools"].as_array().unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["current_time", "echo", "long_task", "sum"]);
    for tool in tools {
        assert_eq!(tool["inputSchema"]["type"], "object");
        assert_eq!(tool["annotations"]["readOnlyHint"], true);
        assert!(tool["title"].is_string() && tool["description"].is_string());
    }
    assert!(reply["result"]["nextCursor"].is_null());

    client.request(2, "tools/list", json!({ "cursor": "x" })).await;
    assert_eq!(client.next().await["error"]["code"], INVALID_PARAMS);
}

#[tokio::test]
async fn the_time_is_told_at_the_offset_asked_for() {
    let mut client = Client::start();
    for (timezone, ending) in [("UTC", "Z"), ("+02:00", "+02:00"), ("-09:30", "-09:30")] {
        let result = client.result_of("current_time", json!({ "timezone": timezone })).await;
        let datetime = result["structuredContent"]["datetime"].as_str().unwrap();
        assert!(datetime.ends_with(ending), "{datetime}");
        assert_eq!(result["content"][0]["text"], datetime);
    }
    assert!(client.result_of("current_time", json!({})).await["structuredContent"].is_object());
    for timezone in ["Mars", "+25:99", "+2", ""] {
        let result = client.result_of("current_time", json!({ "timezone": timezone })).await;
        assert_eq!(result["isError"], true, "{timezone}");
    }
}

#[tokio::test]
async fn a_sum_is_structured_and_the_same_as_text() {
    let mut client = Client::start();
    let result = client.result_of("sum", json!({ "numbers": [1, 2.5, -0.5] })).await;
    assert_eq!(result["structuredContent"], json!({ "sum": 3, "count": 3, "mean": 1 }));
    let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(text, result["structuredContent"]);
    let result = client.result_of("sum", json!({ "numbers": [1, 2] })).await;
    assert_eq!(result["structuredContent"]["mean"], 1.5);
}

#[tokio::test]
async fn a_mistake_in_the_arguments_is_a_result_that_says_so() {
    let mut client = Client::start();
    for (tool, arguments) in [
        ("echo", json!({})),
        ("echo", json!({ "message": 1 })),
        ("echo", json!({ "message": "x", "unknown": 1 })),
        ("echo", json!({ "message": "x", "repeat": 0 })),
        ("echo", json!({ "message": "x".repeat(5000), "repeat": 1000 })),
        ("long_task", json!({ "seconds": -1 })),
        ("long_task", json!({ "seconds": 1, "steps": 0 })),
        ("sum", json!({ "numbers": [] })),
        ("sum", json!({ "numbers": ["1"] })),
        ("sum", json!({ "numbers": [1e308, 1e308] })),
        ("sum", json!([])),
    ] {
        let result = client.result_of(tool, arguments.clone()).await;
        assert_eq!(result["isError"], true, "{tool} {arguments}");
        assert_eq!(result["content"][0]["type"], "text");
    }
}

#[tokio::test]
async fn what_is_unknown_is_an_error_of_the_protocol() {
    let mut client = Client::start();
    for (line, id, code) in [
        (r#"{"jsonrpc":"2.0","id":7,"method":"server/discover"}"#, json!(7), METHOD_NOT_FOUND),
        (r#"{"jsonrpc":"2.0","id":"a","method":"resources/list"}"#, json!("a"), METHOD_NOT_FOUND),
        (
            r#"{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"rm"}}"#,
            json!(8),
            INVALID_PARAMS,
        ),
        (r#"{"jsonrpc":"2.0","id":8,"method":"tools/call"}"#, json!(8), INVALID_PARAMS),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, Value::Null, INVALID_REQUEST),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Value::Null, INVALID_REQUEST),
        ("{", Value::Null, PARSE_ERROR),
    ] {
        client.send_text(&format!("{line}\n")).await;
        let reply = client.next().await;
        assert_eq!((&reply["id"], &reply["error"]["code"]), (&id, &json!(code)), "{line}");
    }
}

#[tokio::test]
async fn answers_notifications_and_blank_lines_are_not_answered() {
    let mut client = Client::start();
    client.send_text("\n  \n{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}}\n").await;
    client
        .send_text("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/roots/list_changed\"}\n")
        .await;
    client.request(4, "ping", json!({})).await;
    assert_eq!(client.next().await["id"], 4);
}

#[tokio::test(start_paused = true)]
async fn progress_comes_with_each_repetition_under_the_clients_token() {
    let mut client = Client::start();
    for token in [json!("t"), json!(7)] {
        let params = json!({
            "name": "echo",
            "arguments": { "message": "hi", "repeat": 3, "delay_ms": 5 },
            "_meta": { "progressToken": token },
        });
        client.request(1, "tools/call", params).await;
        for done in 1..=3 {
            let step = client.next().await;
            assert_eq!(step["method"], "notifications/progress");
            let params = &step["params"];
            assert_eq!(params["progressToken"], token);
            assert_eq!((&params["progress"], &params["total"]), (&json!(done), &json!(3)));
        }
        assert_eq!(client.next().await["result"]["content"][0]["text"], "hi\nhi\nhi");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_token_there_is_no_progress() {
    let mut client = Client::start();
    let result = client.result_of("long_task", json!({ "seconds": 2, "steps": 4 })).await;
    assert_eq!(result["content"][0]["text"], "worked for 2 seconds in 4 steps");
}

#[tokio::test(start_paused = true)]
async fn calls_run_side_by_side_and_each_gets_its_own_answer() {
    let mut client = Client::start();
    for number in 0..100_u64 {
        let delay_ms = (number * 37) % 100;
        let arguments = json!({ "message": format!("m{number}"), "delay_ms": delay_ms });
        client.call(number, "echo", arguments).await;
    }
    let mut order = Vec::new();
    for _ in 0..100 {
        let reply = client.next().await;
        let number = reply["id"].as_u64().unwrap();
        assert_eq!(reply["result"]["content"][0]["text"], format!("m{number}"));
        order.push(number);
    }
    assert!(!order.is_sorted(), "the calls waited for each other");
    order.sort_unstable();
    assert!(order.into_iter().eq(0..100));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_about_a_cancelled_call() {
    let mut client = Client::start();
    let params = json!({
        "name": "long_task",
        "arguments": { "seconds": 10, "steps": 1000 },
        "_meta": { "progressToken": 1 },
    });
    client.request("1", "tools/call", params).await;
    assert_eq!(client.next().await["params"]["progress"], 1);

    let cancelled = |id: Value| {
        json!({
            "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id },
        })
    };
    // The number is another id than the string, and its cancellation means nothing.
    client.send(cancelled(json!(1))).await;
    assert_eq!(client.next().await["params"]["progress"], 2);
    client.send(cancelled(json!("1"))).await;
    client.request(2, "ping", json!({})).await;
    loop {
        let message = client.next().await;
        if message["id"] == 2 {
            break;
        }
        assert_eq!(message["method"], "notifications/progress");
    }
    client.call(3, "long_task", json!({ "seconds": 20 })).await;
    assert_eq!(client.next().await["id"], 3);
}

#[tokio::test]
async fn a_step_that_waits_while_its_call_is_cancelled_is_never_written() {
    let (progress, steps) = mpsc::channel(1);
    let (calls, running) = (FuturesUnordered::new(), HashMap::new());
    let mut server = Server { stdout: Vec::new(), progress, steps, calls, running };
    let step = || Step { call: "1".to_owned(), params: json!({}) };
    let arguments = json!({ "name": "long_task", "arguments": { "seconds": 1 } });
    server.call(json!(1), &arguments).await.unwrap();

    server.tell(step()).await.unwrap();
    let written = server.stdout.len();
    assert!(written > 0);
    server.cancel(&json!({ "requestId": 1 }));
    server.tell(step()).await.unwrap();
    assert_eq!(server.stdout.len(), written);
}

#[tokio::test(start_paused = true)]
async fn an_id_in_use_is_refused_and_free_again_afterwards() {
    let mut client = Client::start();
    client.call(1, "echo", json!({ "message": "first", "delay_ms": 100 })).await;
    client.call(1, "echo", json!({ "message": "second" })).await;
    assert_eq!(client.next().await["error"]["code"], INVALID_REQUEST);
    assert_eq!(client.next().await["result"]["content"][0]["text"], "first");
    let result = client.result_of("echo", json!({ "message": "third" })).await;
    assert_eq!(result["content"][0]["text"], "third");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_input_ends_the_server_after_what_is_nearly_done() {
    let mut client = Client::start();
    client.call(1, "echo", json!({ "message": "soon", "delay_ms": 100 })).await;
    client.call(2, "long_task", json!({ "seconds": 3000 })).await;
    // Without a line break at its end.
    client.send_text(r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#).await;

    let (rest, ended) = client.close().await;
    assert!(ended.is_ok());
    let ids: Vec<_> = rest.iter().map(|reply| reply["id"].clone()).collect();
    assert_eq!(ids, [json!(3), json!(1)]);
}

#[tokio::test]
async fn a_line_without_an_end_is_given_up() {
    let mut client = Client::start();
    let piece = "x".repeat(1024 * 1024);
    let mut input = client.input.take().unwrap();
    while input.write_all(piece.as_bytes()).await.is_ok() {}
    let error = client.server.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
