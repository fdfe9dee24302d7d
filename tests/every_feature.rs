//! Both official SDKs use every feature of the stateful protocol through an endpoint: over either
//! transport and by `metamcpd connect`, in front of the same server as a process, over Streamable HTTP
//! and over HTTP+SSE. Tasks are not among them.

use serde_json::{Value, json};

use crate::support::{
    TestGateway,
    featured::{Attached, Featured},
    gateway::Start,
    node,
    peers::{self, Sdk},
    skipped,
};

/// Lists change often here, and are looked at as soon as they do. Calls that were taken back are not
/// doubted for long, or the next client of the process that all share would be asked nothing.
const SETTINGS: &str = r#"
[lists]
refresh_rest = "50ms"
debounce = "20ms"
[calls]
doubt = "1ms"
"#;

/// The server is written for the SDK that is installed beside the conformance suite.
fn is_missing() -> bool {
    let installed = node::conformance().join("node_modules/@modelcontextprotocol/sdk").is_dir();
    let can_run = installed && node::node().is_some();
    peers::are_missing()
        || (!can_run
            && skipped(
                "conformance",
                "the server with every feature: run `npm install` in tests/conformance, see README",
            ))
}

/// An endpoint for each way of attaching the server, by the server's own names; they end with this.
struct Attachments {
    gateway: TestGateway,
    key: String,
    _upstreams: Vec<Option<Featured>>,
}

impl Attachments {
    async fn new() -> Attachments {
        let gateway = Start::new().settings(SETTINGS).run().await;
        let mut upstreams = Vec::new();
        for attached in Attached::ALL {
            let name = format!("{attached:?}");
            let (upstream, row) = attached.upstream(&name);
            gateway.create("mcp-servers", row).await;
            let namespace = json!({"name": name, "naming": "NEVER", "servers": [name]});
            gateway.create("namespaces", namespace).await;
            gateway.create("endpoints", json!({"name": name, "namespace": name})).await;
            upstreams.push(upstream);
        }
        for attached in Attached::ALL {
            gateway.ready(&format!("{attached:?}")).await;
        }
        let key = gateway.key("suite").await;
        Attachments { gateway, key, _upstreams: upstreams }
    }

    /// By which transport, in front of what, and where.
    fn connections(&self) -> Vec<(&'static str, Attached, String)> {
        let both = Attached::ALL.into_iter().flat_map(|attached| {
            let name = format!("{attached:?}");
            let urls = [
                ("streamable", self.gateway.endpoint_url(&name)),
                ("sse", self.gateway.sse_url(&name)),
            ];
            urls.map(|(kind, url)| (kind, attached, url))
        });
        let by_bridge = ("stdio", Attached::Stdio, self.gateway.endpoint_url("Stdio"));
        both.chain([by_bridge]).collect()
    }
}

/// What everybody must have seen. A server that all share is told of no roots.
fn expected(attached: Attached) -> Value {
    let is_own = attached != Attached::Stdio;
    let mut asked =
        json!(["sampling/createMessage", "elicitation/create form", "elicitation/create url"]);
    if is_own {
        asked.as_array_mut().expect("a list").push(json!("roots/list"));
    }
    let roots = if is_own { "ann file:///ann" } else { "The client does not support roots." };
    let watched = "test://watched-resource";
    let logged = ["Tool execution started", "Tool processing data", "Tool execution completed"];
    json!({
        "capabilities": ["completions", "logging", "prompts", "resources", "tasks", "tools"],
        "tools": {
            "tools": 14,
            "text": "This is a simple text response for testing.",
            "media": ["text", "image", "resource"],
            "sound": ["audio"],
            "structured": {"city": "Paris", "degrees": 21.5, "hours": [1, 2]},
            "failed": [true, "This tool intentionally returns an error for testing"],
            "unknown": -32602,
            "pinged": "The client is there.",
        },
        "progress": [[0, 100, "begun"], [50, 100, "half"], [100, 100, "done"]],
        "cancelled": true,
        "prompts": {
            "prompts": [
                "test_simple_prompt", "test_prompt_with_arguments",
                "test_prompt_with_embedded_resource", "test_prompt_with_image",
            ],
            "prompt": "Prompt with arguments: arg1='a', arg2='é'",
            "unknown": -32602,
        },
        "resources": {
            "resources": ["test://static-text", "test://static-binary", watched],
            "templates": ["test://template/{id}/data"],
            "text": "This is the content of the static text resource.",
            "binary": "iVBORw0K",
            "templated": "7",
            "unknown": -32002,
        },
        "completions": {"prompt": ["paris", "park", "party"], "template": [100, 150, true]},
        "logging": {"quiet": 0, "loud": logged.map(|data| json!(["info", data]))},
        "questions": {
            "sampled": "LLM response: ann heard hello",
            "elicited": r#"User response: action=accept, content={"username":"ann","email":"ann@example.com"}"#,
            "visited": "accept",
            "roots": roots,
            "url": ["sign.example"],
        },
        "changes": {"tools": true, "prompts": true, "resources": true},
        "updated": [watched],
        "asked": asked,
    })
}

/// Numbers as they are written, since one SDK writes 50 and the other 50.0.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(members) => {
            members.iter().map(|(key, value)| (key.clone(), plain(value))).collect()
        }
        other => other.clone(),
    }
}

async fn every_feature(sdk: Sdk) {
    if is_missing() {
        return;
    }
    let attachments = Attachments::new().await;
    let connections = attachments.connections();
    let plan: Vec<Value> =
        connections.iter().map(|(kind, _, url)| json!({"kind": kind, "url": url})).collect();
    let seen =
        peers::said_by(sdk, "every_feature", &[&attachments.key, &Value::Array(plan).to_string()])
            .await;
    let seen = seen.as_array().expect("a list");
    assert_eq!(seen.len(), connections.len());
    for ((kind, attached, _), seen) in connections.iter().zip(seen) {
        for (feature, expected) in expected(*attached).as_object().expect("an object") {
            let (seen, mut expected) = (plain(&seen[feature]), plain(expected));
            // The last report comes together with the answer, and an SDK may take the answer first.
            let count = seen.as_array().map_or(0, Vec::len);
            if let Some(steps) =
                expected.as_array_mut().filter(|_| feature == "progress" && count == 2)
            {
                steps.truncate(count);
            }
            assert_eq!(seen, expected, "{feature}, {kind} in front of {attached:?}");
        }
    }
}

#[tokio::test]
async fn the_typescript_sdk_uses_every_feature_over_every_transport_in_front_of_every_kind() {
    every_feature(Sdk::TypeScript).await;
}

#[tokio::test]
async fn the_python_sdk_uses_every_feature_over_every_transport_in_front_of_every_kind() {
    every_feature(Sdk::Python).await;
}
