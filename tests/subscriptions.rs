//! Resources that clients have subscribed to: each hears of what it asked for and of nothing else,
//! for as long as it wants to, whatever becomes of the upstream meanwhile.

use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::Exchange,
    fixtures::without_python,
    gateway::Start,
    python,
    remote::{Knobs, Remote},
    wait_until,
};

const UPDATED: &str = "notifications/resources/updated";

async fn subscribe(client: &Client, uri: &str) -> Value {
    client.request("resources/subscribe", json!({"uri": uri})).await
}

async fn unsubscribe(client: &Client, uri: &str) -> Value {
    client.request("resources/unsubscribe", json!({"uri": uri})).await
}

async fn subscribed(client: &Client, uri: &str) {
    let answer = subscribe(client, uri).await;
    assert_eq!(answer["result"], json!({}), "{uri}: {answer}");
}

/// The next thing that is said on a standing stream, as it came.
async fn next_on(stream: &mut Exchange) -> String {
    stream.events.expect_but_lists("an update", SOON).await.data
}

/// What `change` says, byte for byte.
fn update_of(uri: &str) -> String {
    format!(
        r#"{{"method":"{UPDATED}","jsonrpc":"2.0", "params":{{ "uri" : "{uri}", "n":1.0, "z": 12345678901234567890123}}}}"#
    )
}

async fn change(client: &Client, uri: &str) -> String {
    client.text_of("one__change", json!({"uri": uri})).await
}

/// What the process was asked, once it is this.
async fn wishes_are(client: &Client, expected: &str) {
    wait_until(expected, SOON, async || {
        let answer = client.call("one__wishes", json!({})).await;
        (answer["result"]["content"][0]["text"] == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_client_hears_of_what_it_subscribed_to_and_of_nothing_else() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("one", &python("watched.py", &["one"])).await;
    let a = gateway.client_of(&["one"]).await;
    let key = gateway.key("other").await;
    let b = gateway.client("all", &key).await;
    let mut fresh = a.again();
    let hello = fresh.initialize("2025-11-25").await.json();
    assert_eq!(hello["result"]["capabilities"]["resources"]["subscribe"], true, "{hello}");

    let (mut on_a, mut on_b) = (a.listen().await, b.listen().await);
    subscribed(&a, "u://a").await;
    subscribed(&b, "u://b").await;
    for uri in ["u://b", "u://a"] {
        assert_eq!(change(&a, uri).await, "True");
    }
    // Whoever heard of the other's would have it first, or second.
    assert_eq!(next_on(&mut on_a).await, update_of("u://a"));
    assert_eq!(next_on(&mut on_b).await, update_of("u://b"));

    subscribed(&b, "u://a").await;
    subscribed(&b, "u://a").await;
    change(&a, "u://a").await;
    assert_eq!(next_on(&mut on_a).await, update_of("u://a"));
    assert_eq!(next_on(&mut on_b).await, update_of("u://a"));

    assert_eq!(unsubscribe(&a, "u://a").await["result"], json!({}));
    change(&b, "u://a").await;
    change(&b, "u://b").await;
    assert_eq!(next_on(&mut on_b).await, update_of("u://a"));
    assert_eq!(next_on(&mut on_b).await, update_of("u://b"));
    subscribed(&a, "u://b").await;
    change(&b, "u://b").await;
    assert_eq!(next_on(&mut on_a).await, update_of("u://b"), "and nothing before it");
    wishes_are(&a, "subscribe u://a subscribe u://b").await;

    // The last that goes takes the upstream's own subscription with it, however it goes.
    unsubscribe(&a, "u://b").await;
    b.end().await;
    wait_until("nothing is subscribed", SOON, async || {
        let said = a.text_of("one__wishes", json!({})).await;
        (said.matches("unsubscribe").count() == 2).then_some(())
    })
    .await;
    for uri in ["u://a", "u://b"] {
        assert_eq!(change(&a, uri).await, "False");
    }
}

#[tokio::test]
async fn what_was_switched_off_is_not_heard_of_any_more() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("one", &python("watched.py", &["one"])).await;
    let a = gateway.client_of(&["one"]).await;
    for uri in ["u://a", "u://b"] {
        subscribed(&a, uri).await;
    }
    let off = json!({"status": "INACTIVE"});
    gateway.change("namespaces/all/resources?key=u://a", off).await;
    wait_until("it is off", SOON, async || {
        let read = a.request("resources/read", json!({"uri": "u://a"})).await;
        (read["error"]["code"] == -32002).then_some(())
    })
    .await;
    let mut on_a = a.listen().await;
    for uri in ["u://a", "u://b"] {
        assert_eq!(change(&a, uri).await, "True");
    }
    let told = on_a.events.find("an update", SOON, |message| message["method"] == UPDATED).await;
    assert_eq!(told["params"]["uri"], "u://b");
    assert_eq!(unsubscribe(&a, "u://a").await["result"], json!({}));
    wishes_are(&a, "subscribe u://a subscribe u://b unsubscribe u://a").await;
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_says_why_and_does_not_count() {
    if without_python() {
        return;
    }
    let gateway = Start::new().settings("[sessions]\nsubscriptions_max = 1").run().await;
    gateway.stdio("one", &python("watched.py", &["one"])).await;
    let a = gateway.client_of(&["one"]).await;
    let refused = subscribe(&a, "u://refused").await;
    assert_eq!(refused["error"]["message"], "not this one", "{refused}");
    let again = subscribe(&a, "u://refused").await;
    assert_eq!(again["error"]["message"], "not this one", "it was not counted: {again}");
    let nameless = a.request("resources/subscribe", json!({})).await;
    assert_eq!(nameless["error"]["code"], -32602, "{nameless}");
    for uri in ["u://a", "u://never"] {
        assert_eq!(unsubscribe(&a, uri).await["result"], json!({}), "{uri}");
    }

    subscribed(&a, "u://a").await;
    let over = subscribe(&a, "u://b").await;
    assert_eq!(over["error"]["code"], -32602, "{over}");
    let words = over["error"]["message"].as_str().unwrap_or_default();
    assert!(words.contains("sessions.subscriptions_max"), "{over}");
    subscribed(&a, "u://a").await;
    unsubscribe(&a, "u://a").await;
    subscribed(&a, "u://b").await;

    gateway.stdio("deaf", &python("watched.py", &["deaf", "deaf"])).await;
    gateway.publish("few", &["deaf", "one"]).await;
    let key = gateway.key("few").await;
    let c = gateway.client("few", &key).await;
    let unoffered = subscribe(&c, "u://a").await;
    assert_eq!(unoffered["error"]["code"], -32601, "{unoffered}");
    let words = unoffered["error"]["message"].as_str().unwrap_or_default();
    assert!(words.contains("`deaf`"), "{unoffered}");
    let unknown = subscribe(&c, "u://never").await;
    assert_eq!(unknown["error"]["code"], -32002, "{unknown}");
    assert_eq!(unknown["error"]["data"]["uri"], "u://never", "{unknown}");
}

#[tokio::test]
async fn a_process_that_is_started_anew_is_subscribed_anew() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("one", &python("watched.py", &["one"])).await;
    let a = gateway.client_of(&["one"]).await;
    let mut on_a = a.listen().await;
    for uri in ["u://a", "u://b"] {
        subscribed(&a, uri).await;
    }
    unsubscribe(&a, "u://b").await;
    wishes_are(&a, "subscribe u://a subscribe u://b unsubscribe u://b").await;
    let crashed = a.call("one__crash", json!({})).await;
    assert!(crashed["error"].is_object(), "{crashed}");
    wishes_are(&a, "subscribe u://a").await;
    change(&a, "u://a").await;
    let told = on_a.events.find("the update", SOON, |message| message["method"] == UPDATED).await;
    assert_eq!(told["params"]["uri"], "u://a");
}

/// What the upstream was asked of a method, by session and URI.
fn asked(remote: &Remote, method: &str) -> Vec<(String, String)> {
    let seen = remote.seen_of(method).into_iter().map(|seen| {
        let session = seen.header("mcp-session-id").unwrap_or_default().to_owned();
        (session, seen.body["params"]["uri"].as_str().unwrap_or_default().to_owned())
    });
    seen.collect()
}

async fn in_front_of(isolation: &str) -> (TestGateway, Remote, Client, Client) {
    let gateway = TestGateway::start().await;
    let remote = Remote::start(Knobs { resources: true, ..Knobs::default() });
    let row = json!({
        "name": "far", "type": "STREAMABLE_HTTP", "url": remote.url, "isolation": isolation,
    });
    gateway.create("mcp-servers", row).await;
    let a = gateway.client_of(&["far"]).await;
    gateway.ready("far").await;
    let key = gateway.key("other").await;
    let b = gateway.client("all", &key).await;
    (gateway, remote, a, b)
}

/// Has the upstream say on every stream that these have changed.
fn push(remote: &Remote, uris: &[&str]) {
    for uri in uris {
        let params = json!({"uri": uri});
        remote.push_message(&json!({"jsonrpc": "2.0", "method": UPDATED, "params": params}));
    }
}

async fn hears(stream: &mut Exchange, uri: &str) {
    let heard: Value = serde_json::from_str(&next_on(stream).await).expect("JSON");
    assert_eq!((&heard["method"], &heard["params"]["uri"]), (&json!(UPDATED), &json!(uri)));
}

#[tokio::test]
async fn sessions_of_a_remote_server_are_each_subscribed_to_what_their_own_client_wants() {
    let (_gateway, remote, a, b) = in_front_of("SESSION").await;
    let (mut on_a, mut on_b) = (a.listen().await, b.listen().await);
    subscribed(&a, "u://a").await;
    subscribed(&b, "u://b").await;
    let asked_first = asked(&remote, "resources/subscribe");
    assert_eq!(asked_first.len(), 2, "{asked_first:?}");
    assert_ne!(asked_first[0].0, asked_first[1].0, "each in a session of its own");
    push(&remote, &["u://b", "u://a"]);
    hears(&mut on_a, "u://a").await;
    hears(&mut on_b, "u://b").await;

    // The server has lost everything, and nobody calls.
    remote.forget_sessions();
    remote.cut_streams();
    wait_until("both are subscribed again", SOON * 2, async || {
        (asked(&remote, "resources/subscribe").len() == 4).then_some(())
    })
    .await;
    // Both streams are the new sessions', besides that of the gateway's own.
    let heard = async |stream: &mut Exchange, uri: &str| {
        wait_until("the streams", SOON, async || {
            push(&remote, &["u://a", "u://b"]);
            tokio::time::timeout(SOON / 20, stream.events.next()).await.ok().flatten()
        })
        .await;
        push(&remote, &["u://a", "u://b"]);
        hears(stream, uri).await;
    };
    heard(&mut on_a, "u://a").await;
    heard(&mut on_b, "u://b").await;

    unsubscribe(&a, "u://a").await;
    wait_until("it is unsubscribed", SOON, async || {
        (asked(&remote, "resources/unsubscribe").len() == 1).then_some(())
    })
    .await;
    let sessions = remote.sessions();
    b.end().await;
    wait_until("its session is given back", SOON, async || {
        (remote.sessions() < sessions).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_shared_session_of_a_remote_server_is_subscribed_once_and_again_when_it_was_lost() {
    let (_gateway, remote, a, b) = in_front_of("SHARED").await;
    let (mut on_a, mut on_b) = (a.listen().await, b.listen().await);
    for client in [&a, &b] {
        subscribed(client, "u://a").await;
    }
    assert_eq!(asked(&remote, "resources/subscribe").len(), 1);
    wait_until("the stream", SOON, async || {
        (remote.push("notifications/ignored") > 0).then_some(())
    })
    .await;
    push(&remote, &["u://a"]);
    hears(&mut on_a, "u://a").await;
    hears(&mut on_b, "u://a").await;
    remote.forget_sessions();
    remote.cut_streams();
    wait_until("it is subscribed again", SOON * 2, async || {
        (asked(&remote, "resources/subscribe").len() == 2).then_some(())
    })
    .await;
    a.end().await;
    assert!(asked(&remote, "resources/unsubscribe").is_empty(), "another still wants it");
    b.end().await;
    wait_until("it is unsubscribed", SOON, async || {
        (asked(&remote, "resources/unsubscribe").len() == 1).then_some(())
    })
    .await;
}
