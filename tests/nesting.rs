//! An endpoint of a gateway as an upstream of another, or of the same, over both transports; and the
//! circles that they can be put into.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::{call, request},
    gateway::Start,
    remote::{Knobs, Remote},
    wait_until,
};

/// Circles are found soon, and looked at again soon.
const QUICK: &str = "[supervision]\nbackoff_min = \"20ms\"\nprobe_every = \"200ms\"\n\
    [lists]\nrefresh_rest = \"50ms\"";

/// Makes an endpoint of `inner` an upstream of `outer`.
async fn nest(outer: &TestGateway, inner: &TestGateway, name: &str, kind: &str, endpoint: &str) {
    let url = match kind {
        "SSE" => inner.sse_url(endpoint),
        _ => inner.endpoint_url(endpoint),
    };
    let key = inner.key(&format!("of-{name}")).await;
    let body = json!({"name": name, "type": kind, "url": url, "bearer_token": key});
    outer.create("mcp-servers", body).await;
}

async fn nested(kind: &str) -> (TestGateway, TestGateway, Client) {
    let inner = TestGateway::start().await;
    inner.demo("demo").await;
    inner.publish("behind", &["demo"]).await;
    inner.ready("demo").await;
    let outer = TestGateway::start().await;
    nest(&outer, &inner, "inner", kind, "behind").await;
    let client = outer.client_of(&["inner"]).await;
    (inner, outer, client)
}

#[tokio::test]
async fn an_endpoint_behind_an_endpoint_lists_calls_and_reports() {
    for kind in ["STREAMABLE_HTTP", "SSE"] {
        let (inner, _outer, client) = nested(kind).await;
        let tools = client.tools().await;
        let expected =
            ["current_time", "echo", "long_task", "sum"].map(|name| format!("inner__demo__{name}"));
        assert_eq!(tools, expected, "{kind}");
        let text = client.text_of("inner__demo__echo", json!({"message": "through both"})).await;
        assert!(text.contains("through both"), "{kind}: {text}");

        let params = json!({
            "name": "inner__demo__long_task", "arguments": {"seconds": 0.3, "steps": 3},
            "_meta": {"progressToken": "mine"},
        });
        let reply = client.post(&request(json!(1), "tools/call", params)).await;
        let reports: Vec<&String> =
            reply.messages.iter().filter(|text| text.contains("notifications/progress")).collect();
        assert!(!reports.is_empty(), "{kind}: {reply:?}");
        assert!(reports.iter().all(|text| text.contains("\"mine\"")), "{kind}: {reply:?}");
        assert!(reply.answer_to(&json!(1))["result"].is_object(), "{kind}: {reply:?}");

        let unknown = client.call("inner__demo__nothing", json!({})).await;
        assert_eq!(unknown["error"]["code"], -32602, "{kind}: {unknown}");

        inner.stdio("more", &["metamcpd".to_owned(), "demo-upstream".to_owned()]).await;
        let mut stream = client.listen().await;
        let members = json!([{"server": "demo"}, {"server": "more"}]);
        inner.replace("namespaces/behind/servers", members).await;
        let announced = |message: &Value| message["method"] == "notifications/tools/list_changed";
        stream.events.find("the change of what is behind", SOON, announced).await;
        assert!(client.tools().await.contains(&"inner__more__echo".to_owned()), "{kind}");
    }
}

#[tokio::test]
async fn a_call_that_is_cancelled_is_cancelled_all_the_way() {
    for kind in ["STREAMABLE_HTTP", "SSE"] {
        let (inner, outer) = (TestGateway::start().await, TestGateway::start().await);
        let far = Remote::start(Knobs::default());
        inner.remote("far", &far.url).await;
        inner.publish("behind", &["far"]).await;
        inner.ready("far").await;
        nest(&outer, &inner, "inner", kind, "behind").await;
        let client = outer.client_of(&["inner"]).await;

        let body = call(json!("c"), "inner__far__echo", json!({"value": "x", "delay_ms": 600_000}));
        let cancelling = async {
            let sent = wait_until("the call to come through", SOON, async || {
                far.seen_of("tools/call").first().cloned()
            })
            .await;
            let noted = client.notify("notifications/cancelled", json!({"requestId": "c"})).await;
            assert_eq!(noted.status, StatusCode::ACCEPTED);
            let cancelled = wait_until("the cancellation to come through", SOON, async || {
                far.seen_of("notifications/cancelled").first().cloned()
            })
            .await;
            assert_eq!(cancelled.body["params"]["requestId"], sent.body["id"], "{kind}");
        };
        let (reply, ()) = futures_util::join!(client.post(&body), cancelling);
        assert!(reply.messages.is_empty(), "{kind}: {reply:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_contains_itself_is_seen_and_goes_on_without() {
    for kind in ["STREAMABLE_HTTP", "SSE"] {
        let gateway = Start::new().settings(QUICK).run().await;
        gateway.demo("demo").await;
        gateway.publish("all", &["demo"]).await;
        gateway.ready("demo").await;
        nest(&gateway, &gateway, "itself", kind, "all").await;
        // A namespace of its own may hold it: that is no circle.
        gateway.ready("itself").await;

        let members = json!([{"server": "demo"}, {"server": "itself"}]);
        gateway.replace("namespaces/all/servers", members).await;
        let server = gateway
            .server_until("itself", "seen", |server| server["runtime"]["reason"] == "nesting_cycle")
            .await;
        assert_ne!(server["error_status"], "NONE", "{server}");
        let why = server["runtime"]["last_error"].as_str().unwrap_or_default();
        assert!(why.contains("offers this very server"), "{why}");

        let client = gateway.client("all", &gateway.key("suite").await).await;
        let twice = |tools: &[String]| tools.iter().any(|name| name.contains("itself__itself"));
        assert!(!twice(&client.tools().await), "{kind}: names have multiplied");
        let text = client.text_of("demo__echo", json!({"message": "on"})).await;
        assert!(text.contains("on"), "{text}");
        let answer = client.call("itself__demo__echo", json!({"message": "round"})).await;
        assert_eq!(answer["error"]["data"]["reason"], "upstream_unavailable", "{answer}");

        // Whoever takes it out of the circle has it again, without a restart.
        let members = json!([{"server": "demo"}, {"server": "itself", "status": "INACTIVE"}]);
        gateway.replace("namespaces/all/servers", members).await;
        gateway.ready("itself").await;
    }
}

#[tokio::test]
async fn two_gateways_within_each_other_do_not_multiply_their_tools() {
    let (one, two) = (Start::new().settings(QUICK), Start::new().settings(QUICK));
    let (one, two) = (one.run().await, two.run().await);
    for (gateway, name) in [(&one, "left"), (&two, "right")] {
        gateway.demo(name).await;
        gateway.publish("all", &[name]).await;
        gateway.ready(name).await;
    }
    nest(&one, &two, "two", "STREAMABLE_HTTP", "all").await;
    nest(&two, &one, "one", "SSE", "all").await;
    one.replace("namespaces/all/servers", json!([{"server": "left"}, {"server": "two"}])).await;
    two.replace("namespaces/all/servers", json!([{"server": "right"}, {"server": "one"}])).await;

    wait_until("the circle to be seen", SOON, async || {
        let reasons = [one.server("two").await, two.server("one").await]
            .map(|server| server["runtime"]["reason"].clone());
        reasons.contains(&json!("nesting_cycle")).then_some(())
    })
    .await;
    for (gateway, own) in [(&one, "left__echo"), (&two, "right__echo")] {
        let client = gateway.client("all", &gateway.key("suite").await).await;
        let tools = client.tools().await;
        assert!(tools.len() <= 16, "{tools:?}");
        let rounds = |name: &String| name.matches("one__").count() + name.matches("two__").count();
        assert!(tools.iter().all(|name| rounds(name) <= 2), "{tools:?}");
        let text = client.text_of(own, json!({"message": "on"})).await;
        assert!(text.contains("on"), "{text}");
    }
}

#[tokio::test]
async fn a_name_that_nobody_knows_does_not_go_round_for_ever() {
    let gateway = Start::new().settings(QUICK).settings("[upstream]\nsessions_max = 8").run().await;
    let never = json!({"name": "loop", "naming": "NEVER", "servers": []});
    gateway.create("namespaces", never).await;
    gateway.create("endpoints", json!({"name": "loop", "namespace": "loop"})).await;
    nest(&gateway, &gateway, "itself", "STREAMABLE_HTTP", "loop").await;
    gateway.ready("itself").await;
    gateway.replace("namespaces/loop/servers", json!([{"server": "itself"}])).await;
    let client = gateway.client("loop", &gateway.key("suite").await).await;
    let answer = client.call("nobody_knows", json!({})).await;
    assert!(answer["error"]["code"].is_i64(), "{answer}");
}
