//! The command line of the official MCP Inspector: every method that it offers, through an endpoint,
//! over both transports with the key as a header, and by `metamcpd connect`. What it offers for skills
//! is an extension that nobody here has.

use std::{path::PathBuf, process::Stdio};

use serde_json::{Value, json};

use crate::support::{
    SOON, TestGateway,
    featured::{Attached, Featured},
    node, skipped, within,
};

/// What it ends with when it was refused for want of a credential, and when a tool failed.
const AUTH_REQUIRED: i32 = 3;
const TOOL_FAILED: i32 = 5;

fn program() -> PathBuf {
    let launcher = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/inspector").join(launcher)
}

fn is_missing() -> bool {
    let sdk = node::conformance().join("node_modules/@modelcontextprotocol/sdk");
    let is_there = program().is_file() && sdk.is_dir() && node::node().is_some();
    !is_there
        && skipped(
            "inspector",
            "the MCP Inspector: run `npm install` in tests/inspector and tests/conformance, see README",
        )
}

/// How it reaches the endpoint.
#[derive(Clone, Copy, Debug)]
enum Way {
    Http,
    Sse,
    Bridge,
}

/// An endpoint in front of the server with every feature, and a home of the Inspector's own.
struct Bench {
    gateway: TestGateway,
    key: String,
    _upstream: Option<Featured>,
}

/// What it said, and what it ended with.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    result: Value,
    error: Value,
}

impl Bench {
    async fn new(attached: Attached) -> Bench {
        let gateway = TestGateway::start().await;
        let (upstream, row) = attached.upstream("one");
        gateway.create("mcp-servers", row).await;
        gateway.publish("all", &["one"]).await;
        gateway.ready("one").await;
        let key = gateway.key("suite").await;
        Bench { gateway, key, _upstream: upstream }
    }

    async fn said(&self, way: Way, key: &str, method: &str, options: &[&str]) -> Said {
        let home = self.gateway.scratch().join("inspector");
        let mut command = tokio::process::Command::new(node::node().expect("a Node"));
        // It keeps what it learns of servers below its home, and asks nobody to log in.
        command.arg(program()).arg("--cli").env("HOME", home).env("NO_PROXY", "127.0.0.1");
        command.args(["--format", "json", "--quiet", "--stored-auth-only"]);
        let header = format!("Authorization: Bearer {key}");
        match way {
            Way::Http => {
                let url = self.gateway.endpoint_url("all");
                command.args(["--transport", "http", "--server-url", &url, "--header", &header]);
            }
            Way::Sse => {
                let url = self.gateway.sse_url("all");
                command.args(["--transport", "sse", "--server-url", &url, "--header", &header]);
            }
            Way::Bridge => {
                let environment = format!("METAMCP_API_KEY={key}");
                command.args(["-e", &environment, env!("CARGO_BIN_EXE_metamcpd"), "connect"]);
                command.arg(self.gateway.endpoint_url("all"));
            }
        }
        command.args(["--method", method]).args(options).stdin(Stdio::null()).kill_on_drop(true);
        let output = within(method, SOON * 2, command.output()).await.expect("it runs");
        let json = |text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            text.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null)
        };
        let (said, complained): (Value, Value) = (json(&output.stdout), json(&output.stderr));
        let (result, error) = (said["result"].clone(), complained["error"].clone());
        Said { code: output.status.code(), result, error }
    }

    /// A method that must succeed; its result.
    async fn result(&self, way: Way, method: &str, options: &[&str]) -> Value {
        let said = self.said(way, &self.key, method, options).await;
        assert_eq!(said.code, Some(0), "{method} by {way:?}: {said:?}");
        said.result
    }

    /// Every method that it offers.
    async fn every_method(&self, way: Way) {
        let introduced = self.result(way, "initialize", &[]).await;
        assert_eq!(introduced["serverInfo"]["name"], "metamcpd", "{way:?}: {introduced}");
        let capabilities = &introduced["capabilities"];
        assert_eq!(capabilities["resources"]["subscribe"], true, "{way:?}: {capabilities}");

        for (method, field, key, count, one) in [
            ("tools/list", "tools", "name", 14, "one__json_schema_2020_12_tool"),
            ("prompts/list", "prompts", "name", 4, "one__test_prompt_with_arguments"),
            ("resources/list", "resources", "uri", 3, "test://static-binary"),
            (
                "resources/templates/list",
                "resourceTemplates",
                "uriTemplate",
                1,
                "test://template/{id}/data",
            ),
        ] {
            let result = self.result(way, method, &[]).await;
            let items = result[field].as_array().unwrap_or_else(|| panic!("{method}: {result}"));
            assert_eq!(items.len(), count, "{way:?}: {result}");
            assert!(items.iter().any(|item| item[key] == one), "{one} by {way:?}: {result}");
        }

        let given = r#"{"name":"é","phone":"1"}"#;
        let tool = ["--tool-name", "one__json_schema_2020_12_tool", "--tool-args-json", given];
        let called = self.result(way, "tools/call", &tool).await;
        assert_eq!(called["content"], json!([{"type": "text", "text": given}]), "{way:?}");

        let prompt = ["--prompt-name", "one__test_prompt_with_arguments", "--prompt-args"];
        let options = [&prompt[..], &["arg1=a", "arg2=é"]].concat();
        let got = self.result(way, "prompts/get", &options).await;
        let text = &got["messages"][0]["content"]["text"];
        assert_eq!(*text, "Prompt with arguments: arg1='a', arg2='é'", "{way:?}: {got}");

        let read = self.result(way, "resources/read", &["--uri", "test://template/7/data"]).await;
        let text = read["contents"][0]["text"].as_str().unwrap_or_default();
        assert!(text.contains(r#""id":"7""#), "{way:?}: {read}");

        let set = self.result(way, "logging/setLevel", &["--log-level", "warning"]).await;
        assert_eq!(set, json!({}), "{way:?}");
    }
}

#[tokio::test]
async fn the_inspector_has_every_method_over_streamable_http() {
    if is_missing() {
        return;
    }
    Bench::new(Attached::Stdio).await.every_method(Way::Http).await;
}

#[tokio::test]
async fn the_inspector_has_every_method_over_sse() {
    if is_missing() {
        return;
    }
    Bench::new(Attached::StreamableHttp).await.every_method(Way::Sse).await;
}

#[tokio::test]
async fn the_inspector_has_every_method_by_the_bridge() {
    if is_missing() {
        return;
    }
    Bench::new(Attached::Sse).await.every_method(Way::Bridge).await;
}

#[tokio::test]
async fn what_fails_is_told_to_the_inspector_as_what_it_is() {
    if is_missing() {
        return;
    }
    let bench = Bench::new(Attached::Stdio).await;
    let failing = ["--tool-name", "one__test_error_handling"];
    let failed = bench.said(Way::Http, &bench.key, "tools/call", &failing).await;
    assert_eq!((failed.code, &failed.result["isError"]), (Some(TOOL_FAILED), &json!(true)));

    let nowhere = ["--uri", "nowhere://at/all"];
    for way in [Way::Http, Way::Sse, Way::Bridge] {
        let missing = bench.said(way, &bench.key, "resources/read", &nowhere).await;
        let why = missing.error["message"].as_str().unwrap_or_default();
        assert!(why.contains("-32002"), "{way:?}: {missing:?}");
    }
    for way in [Way::Http, Way::Sse] {
        let refused = bench.said(way, "sk_mt_wrong", "tools/list", &[]).await;
        assert_eq!(refused.code, Some(AUTH_REQUIRED), "{way:?}: {refused:?}");
    }
}
