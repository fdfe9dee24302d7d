//! Two clients of one upstream, both of whose calls ask their person something at the same moment: each
//! gets its own question or a clear refusal, and never the other's.

use serde_json::{Value, json};

use crate::support::{
    Client, TestGateway, exact::Exact, featured::Attached, fixtures::without_python,
};

const TOOLS: &str = r#"[{"name":"ask","inputSchema":{}}]"#;
const REFUSED: i64 = -32603;

/// How many of the two were refused.
async fn asked_at_once(attached: Attached, isolation: &str) -> usize {
    let gateway = TestGateway::start().await;
    let nothing = ["prompts", "resources", "resourceTemplates"].map(|name| (name, "[]"));
    let files = [&[("tools", TOOLS)], &nothing[..]].concat();
    let server = Exact::new(attached, &gateway.scratch().join("one"), &files);
    let mut row = server.row("one");
    row["isolation"] = json!(isolation);
    gateway.create("mcp-servers", row).await;
    gateway.publish("all", &["one"]).await;
    gateway.ready("one").await;

    let mut clients = Vec::new();
    for name in ["ann", "bob"] {
        let key = gateway.key(name).await;
        let able = json!({"elicitation": {}});
        clients.push(Client::that_can(&gateway.endpoint_url("all"), &key, able).await);
    }
    let mut refused = 0;
    for round in 0..3 {
        let accept = |question: &Value| {
            let content = json!({"said": question["params"]["message"]});
            json!({"result": {"action": "accept", "content": content}})
        };
        let ask = |message: &str| json!({"message": message, "round": round, "among": 2});
        let (ann, bob) = tokio::join!(
            clients[0].call_answering("one__ask", ask("ann?"), accept),
            clients[1].call_answering("one__ask", ask("bob?"), accept),
        );
        for ((answer, heard), own) in [(ann, "ann?"), (bob, "bob?")] {
            let case = format!("{attached:?} {isolation}, {own}: {answer}");
            assert!(heard.iter().all(|one| one["params"]["message"] == own), "{case} {heard:?}");
            let text = answer["result"]["content"][0]["text"].as_str().expect("what it was told");
            let told: Value = serde_json::from_str(text).expect("JSON");
            match told.get("error") {
                None => assert_eq!(told["result"]["content"]["said"], own, "{case}"),
                Some(error) => {
                    assert_eq!((error["code"].as_i64(), heard.len()), (Some(REFUSED), 0), "{case}");
                    let why = error["message"].as_str().unwrap_or_default();
                    assert!(why.contains("several clients"), "{case}");
                    refused += 1;
                }
            }
        }
    }
    refused
}

#[tokio::test]
async fn two_clients_of_a_shared_process_are_asked_their_own_or_refused() {
    if without_python() {
        return;
    }
    // Whichever question comes while both calls are there cannot be certain.
    assert!(asked_at_once(Attached::Stdio, "SHARED").await >= 3);
}

#[tokio::test]
async fn two_clients_of_a_shared_remote_upstream_are_asked_their_own_or_refused() {
    if without_python() {
        return;
    }
    // What comes in the stream of a call is certain; what comes by the one stream of all is not.
    assert_eq!(asked_at_once(Attached::StreamableHttp, "SHARED").await, 0);
    assert!(asked_at_once(Attached::Sse, "SHARED").await >= 3);
}

#[tokio::test]
async fn two_clients_with_sessions_of_their_own_are_both_asked_their_own() {
    if without_python() {
        return;
    }
    for attached in [Attached::StreamableHttp, Attached::Sse] {
        for isolation in ["SESSION", "USER"] {
            assert_eq!(asked_at_once(attached, isolation).await, 0, "{attached:?} {isolation}");
        }
    }
}
