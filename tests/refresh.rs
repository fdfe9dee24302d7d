//! How a change of an upstream's tools reaches clients: once, at once, and only those whom it concerns.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, SseClient, TestGateway,
    gateway::Start,
    remote::{Knobs, Remote},
    wait_until,
};

const CHANGED: &str = "notifications/tools/list_changed";

/// Gathers widely, so that what a busy machine spreads out still counts as one burst.
const WIDE: &str =
    "[lists]\ndebounce = \"1s\"\nrefresh_rest = \"1s\"\n[sessions]\nheartbeat = \"500ms\"";

fn named(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn upstream(tools: &[&str]) -> Remote {
    Remote::start(Knobs { tools: named(tools), ..Knobs::default() })
}

impl Remote {
    /// Offers other tools and says so, once its announcements are listened to.
    async fn announces(&self, tools: &[&str]) {
        self.turn(|knobs| knobs.tools = named(tools));
        let heard = async || (self.push(CHANGED) > 0).then_some(());
        wait_until("the gateway to listen", SOON, heard).await;
    }
}

async fn lists(client: &Client, tools: &[&str]) {
    wait_until("the list", SOON, async || (client.tools().await == named(tools)).then_some(()))
        .await;
}

#[tokio::test]
async fn a_burst_of_changes_is_announced_once_to_each_session_that_it_concerns() {
    let gateway = Start::new().settings(WIDE).run().await;
    let (changing, other) = (upstream(&["a"]), upstream(&["b"]));
    gateway.remote("changing", &changing.url).await;
    gateway.remote("other", &other.url).await;
    gateway.publish("here", &["changing"]).await;
    gateway.publish("elsewhere", &["other"]).await;
    for name in ["changing", "other"] {
        gateway.ready(name).await;
    }
    let key = gateway.key("suite").await;
    let (one, two) = (gateway.client("here", &key).await, gateway.client("here", &key).await);
    let old = gateway.sse_client("here", &key).await;
    let stranger = gateway.client("elsewhere", &key).await;
    for client in [&one, &two] {
        lists(client, &["changing__a"]).await;
    }
    assert_eq!(old.tools().await, ["changing__a"]);
    assert_eq!(stranger.tools().await, ["other__b"]);
    let mut streams =
        [one.listen().await, two.listen().await, stranger.listen().await].map(|open| open.events);

    changing.announces(&["a", "c0"]).await;
    for number in 1..20 {
        changing.turn(|knobs| knobs.tools = vec!["a".to_owned(), format!("c{number}")]);
        changing.push(CHANGED);
    }
    let [one_heard, two_heard, stranger_heard] = &mut streams;
    let (one_heard, two_heard, stranger_heard, old_heard) = tokio::join!(
        one_heard.announcements(CHANGED, 8),
        two_heard.announcements(CHANGED, 8),
        stranger_heard.announcements(CHANGED, 8),
        old.announcements(8),
    );
    assert_eq!((one_heard, two_heard, old_heard), (1, 1, 1));
    assert_eq!(stranger_heard, 0, "another namespace has not changed");
    assert_eq!(one.tools().await, ["changing__a", "changing__c19"]);
}

/// As a library does that looks up a tool in the list when its answer comes.
#[tokio::test]
async fn who_reads_a_list_before_its_change_is_announced_hears_of_the_change_all_the_same() {
    let gateway = Start::new().settings("[lists]\ndebounce = \"2s\"").run().await;
    let remote = upstream(&["a"]);
    gateway.remote("remote", &remote.url).await;
    let client = gateway.client_of(&["remote"]).await;
    assert_eq!(client.tools().await, ["remote__a"]);
    let mut stream = client.listen().await;
    remote.announces(&["a", "b"]).await;
    lists(&client, &["remote__a", "remote__b"]).await;
    stream.events.find("list_changed", SOON, |message| message["method"] == CHANGED).await;
}

impl SseClient {
    async fn announcements(&self, silence: usize) -> usize {
        self.stream().await.announcements(CHANGED, silence).await
    }
}

#[tokio::test]
async fn a_change_of_a_tool_that_nobody_sees_is_not_announced() {
    let gateway = Start::new().settings("[sessions]\nheartbeat = \"500ms\"").run().await;
    let remote = upstream(&["shown", "hidden"]);
    gateway.remote("remote", &remote.url).await;
    let client = gateway.client_of(&["remote"]).await;
    let tools = gateway.items("namespaces/all/tools").await;
    let hidden = tools.iter().find(|tool| tool["name"] == "hidden").expect("its row");
    let path = format!("namespaces/all/tools/{}", hidden["uuid"].as_str().expect("a uuid"));
    gateway.change(&path, json!({"status": "INACTIVE"})).await;
    assert_eq!(client.tools().await, ["remote__shown"]);
    let mut stream = client.listen().await.events;

    // The tool goes and comes back, as the operator sees, and no client.
    let mut events = gateway.events().await;
    for (tools, field) in [(&["shown"][..], "removed"), (&["shown", "hidden"], "added")] {
        remote.announces(tools).await;
        let told = |event: &Value| event[field] == json!({"count": 1, "names": ["hidden"]});
        events.find("the event", SOON, told).await;
    }
    assert_eq!(stream.announcements(CHANGED, 4).await, 0);
    assert_eq!(client.tools().await, ["remote__shown"]);

    remote.announces(&["shown", "hidden", "new"]).await;
    assert_eq!(stream.announcements(CHANGED, 4).await, 1, "what clients do see is announced");
}

#[tokio::test]
async fn an_operators_refresh_is_seen_by_clients() {
    let gateway = TestGateway::start().await;
    let remote = Remote::start(Knobs { streams: false, tools: named(&["a"]), ..Knobs::default() });
    gateway.remote("remote", &remote.url).await;
    let client = gateway.client_of(&["remote"]).await;
    let mut stream = client.listen().await;
    remote.turn(|knobs| knobs.tools = named(&["a", "b"]));
    let (status, answer) = gateway.admin(Method::POST, "mcp-servers/remote/refresh", None).await;
    assert_eq!((status.as_u16(), &answer["outcome"]), (200, &json!("listed")), "{answer}");
    assert_eq!(answer["added"]["names"], json!(["b"]), "{answer}");
    stream.events.find("list_changed", SOON, |message| message["method"] == CHANGED).await;
    assert_eq!(client.tools().await, ["remote__a", "remote__b"]);

    // What is not there any more when it is asked is still listed, and the failure is shown.
    remote.turn(|knobs| knobs.list_delay = SOON * 100);
    gateway.change("mcp-servers/remote", json!({"connect_timeout_ms": 2000})).await;
    gateway.ready("remote").await;
    let (_, answer) = gateway.admin(Method::POST, "mcp-servers/remote/refresh", None).await;
    assert_ne!(answer["outcome"], "listed", "{answer}");
    let failed = |server: &Value| server["runtime"]["list_error"].is_string();
    gateway.server_until("remote", "failing to list", failed).await;
    assert_eq!(client.tools().await, ["remote__a", "remote__b"]);
}

#[tokio::test]
async fn a_tool_that_only_its_caller_knows_of_is_looked_for_once() {
    let gateway = TestGateway::start().await;
    let remote = Remote::start(Knobs { streams: false, tools: named(&["a"]), ..Knobs::default() });
    gateway.remote("remote", &remote.url).await;
    let client = gateway.client_of(&["remote"]).await;
    assert_eq!(client.tools().await, ["remote__a"]);
    let before = remote.seen_of("tools/list").len();
    remote.turn(|knobs| knobs.tools = named(&["a", "new"]));
    for _ in 0..20 {
        let answer = client.call("remote__gone", json!({})).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
    lists(&client, &["remote__a", "remote__new"]).await;
    assert_eq!(client.text_of("remote__new", json!({})).await, "new");
    assert_eq!(remote.seen_of("tools/list").len(), before + 1);
}

#[tokio::test]
async fn a_remote_upstream_that_does_not_announce_is_listed_now_and_then() {
    let gateway = Start::new().settings("[lists]\nrefresh_every = \"500ms\"").run().await;
    let mute = Remote::start(Knobs { streams: false, tools: named(&["a"]), ..Knobs::default() });
    let speaking = upstream(&["b"]);
    gateway.remote("mute", &mute.url).await;
    gateway.remote("speaking", &speaking.url).await;
    let client = gateway.client_of(&["mute", "speaking"]).await;
    lists(&client, &["mute__a", "speaking__b"]).await;
    mute.turn(|knobs| knobs.tools = named(&["a", "c"]));
    lists(&client, &["mute__a", "mute__c", "speaking__b"]).await;
    let rounds = mute.seen_of("tools/list").len();
    wait_until("more rounds", SOON, async || {
        (mute.seen_of("tools/list").len() > rounds + 2).then_some(())
    })
    .await;
    assert_eq!(speaking.seen_of("tools/list").len(), 1, "it would have said so");
}

#[tokio::test]
async fn a_listing_that_failed_is_tried_again() {
    let settings =
        "[lists]\nfirst_wait = \"200ms\"\nretry_every = \"300ms\"\nrefresh_every = \"0s\"";
    let mut gateway = Start::new().settings(settings).run().await;
    let remote = Remote::start(Knobs { streams: false, tools: named(&["a"]), ..Knobs::default() });
    gateway.remote("remote", &remote.url).await;
    gateway.change("mcp-servers/remote", json!({"connect_timeout_ms": 1000})).await;
    let client = gateway.client_of(&["remote"]).await;
    lists(&client, &["remote__a"]).await;
    remote.turn(|knobs| {
        knobs.list_delay = SOON * 100;
        knobs.tools = named(&["a", "b"]);
    });
    gateway.restart().await;
    let failed = |server: &Value| server["runtime"]["list_error"].is_string();
    let server = gateway.server_until("remote", "failing to list", failed).await;
    assert_eq!(server["runtime"]["state"], "READY", "{server}");
    remote.turn(|knobs| knobs.list_delay = Duration::ZERO);
    let key = gateway.key("later").await;
    let client = gateway.client("all", &key).await;
    lists(&client, &["remote__a", "remote__b"]).await;
    let server = gateway.server("remote").await;
    assert_eq!(server["runtime"]["list_error"], Value::Null, "{server}");
}
