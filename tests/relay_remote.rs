//! What remote servers ask of clients, each in a session of its own: the reference server over
//! Streamable HTTP, where some questions come by the stream of the call and others by the session's.

use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    peers::{self, Everything},
    wait_until,
};

/// The reference server behind the endpoint `all`, with this isolation; the gateway and a key.
async fn behind(everything: &Everything, isolation: &str) -> (TestGateway, String) {
    let gateway = TestGateway::start().await;
    let kind = if everything.url.ends_with("/sse") { "SSE" } else { "STREAMABLE_HTTP" };
    let row = json!({
        "name": "everything", "type": kind, "url": everything.url, "isolation": isolation,
    });
    gateway.create("mcp-servers", row).await;
    gateway.publish("all", &["everything"]).await;
    gateway.ready("everything").await;
    let key = gateway.key("suite").await;
    (gateway, key)
}

async fn able(gateway: &TestGateway, key: &str) -> Client {
    let all = json!({"roots": {"listChanged": true}, "sampling": {}, "elicitation": {"form": {}, "url": {}}});
    Client::that_can(&gateway.endpoint_url("all"), key, all).await
}

/// What a person called `name` answers, whatever is asked.
fn as_person(name: &str) -> impl Fn(&Value) -> Value {
    move |question| match question["method"].as_str() {
        Some("elicitation/create") => {
            json!({"result": {"action": "accept", "content": {"name": name, "check": true}}})
        }
        Some("sampling/createMessage") => json!({"result": {
            "role": "assistant", "model": "none", "content": {"type": "text", "text": name},
        }}),
        Some("roots/list") => {
            json!({"result": {"roots": [{"uri": format!("file:///{name}"), "name": name}]}})
        }
        other => panic!("asked for {other:?}"),
    }
}

fn text(answer: &Value) -> String {
    answer["result"]["content"].to_string()
}

#[tokio::test]
async fn two_clients_with_sessions_of_their_own_are_each_asked_their_own_question_at_once() {
    if peers::are_missing() {
        return;
    }
    each_is_asked_its_own("streamableHttp").await;
}

#[tokio::test]
async fn and_so_they_are_by_a_server_of_the_older_transport() {
    if peers::are_missing() {
        return;
    }
    each_is_asked_its_own("sse").await;
}

async fn each_is_asked_its_own(transport: &str) {
    let everything = Everything::over(transport).await;
    for isolation in ["SESSION", "USER"] {
        let (gateway, first_key) = behind(&everything, isolation).await;
        let second_key = gateway.key("other").await;
        let clients = (able(&gateway, &first_key).await, able(&gateway, &second_key).await);
        for tool in ["trigger-elicitation-request", "trigger-sampling-request", "get-roots-list"] {
            let name = format!("everything__{tool}");
            let arguments = json!({"prompt": "who?"});
            let ((a, asked_a), (b, asked_b)) = tokio::join!(
                clients.0.call_answering(&name, arguments.clone(), as_person("ann")),
                clients.1.call_answering(&name, arguments, as_person("bob")),
            );
            for (answer, own, other) in [(&a, "ann", "bob"), (&b, "bob", "ann")] {
                let text = text(answer);
                assert!(
                    text.contains(own) && !text.contains(other),
                    "{tool} {isolation}: {answer}"
                );
            }
            // The server also asks for the roots on its own, soon after a session has begun.
            let asked = |heard: &[Value]| {
                let own = |one: &&Value| one.get("id").is_some() && one["method"] != "roots/list";
                heard.iter().filter(own).count()
            };
            let expected = usize::from(tool != "get-roots-list");
            assert_eq!(
                (asked(&asked_a), asked(&asked_b)),
                (expected, expected),
                "{tool} {isolation}"
            );
        }
    }
}

#[tokio::test]
async fn a_shared_remote_server_asks_the_one_client_that_calls() {
    if peers::are_missing() {
        return;
    }
    let everything = Everything::start().await;
    let (gateway, key) = behind(&everything, "SHARED").await;
    let client = able(&gateway, &key).await;
    let tools = client.tools().await;
    assert!(tools.contains(&"everything__trigger-elicitation-request".to_owned()), "{tools:?}");
    assert!(!tools.contains(&"everything__get-roots-list".to_owned()), "{tools:?}");
    let (answer, _) = client
        .call_answering("everything__trigger-elicitation-request", json!({}), as_person("ann"))
        .await;
    assert!(text(&answer).contains("ann"), "{answer}");
}

#[tokio::test]
async fn a_client_that_cannot_be_asked_has_a_session_that_is_told_so() {
    if peers::are_missing() {
        return;
    }
    let everything = Everything::start().await;
    let (gateway, key) = behind(&everything, "SESSION").await;
    let client = Client::connect(&gateway.endpoint_url("all"), Some(&key)).await;
    let tool = "everything__trigger-elicitation-request";
    // It is listed, since other clients can use it, and the server refuses it to this one.
    assert!(client.tools().await.contains(&tool.to_owned()));
    let (answer, heard) = client.call_answering(tool, json!({}), as_person("nobody")).await;
    assert!(answer.to_string().contains("not found"), "{answer}");
    assert!(heard.is_empty(), "{heard:?}");
}

#[tokio::test]
async fn roots_that_change_are_asked_for_again() {
    if peers::are_missing() {
        return;
    }
    let everything = Everything::start().await;
    let (gateway, key) = behind(&everything, "SESSION").await;
    let client = able(&gateway, &key).await;
    let tool = "everything__get-roots-list";
    let (answer, _) = client.call_answering(tool, json!({}), as_person("before")).await;
    assert!(text(&answer).contains("before"), "{answer}");
    client.notify("notifications/roots/list_changed", json!({})).await;
    // The server asks at once, and can be answered only while a call gives it a way to the client.
    wait_until("the new roots", SOON, async || {
        client.notify("notifications/roots/list_changed", json!({})).await;
        let work = json!({"duration": 0.3, "steps": 1});
        let long = "everything__trigger-long-running-operation";
        client.call_answering(long, work, as_person("after")).await;
        let (answer, _) = client.call_answering(tool, json!({}), as_person("after")).await;
        text(&answer).contains("after").then_some(())
    })
    .await;
}
