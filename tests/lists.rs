//! What clients see in `tools/list`: whole lists, at once, whatever is dead, and fresh when
//! something changed.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    SOON, TestGateway,
    fixtures::without_python,
    gateway::Start,
    processes, python,
    remote::{Knobs, Remote},
    wait_until, within,
};

fn changed(message: &Value) -> bool {
    message["method"] == "notifications/tools/list_changed"
}

#[tokio::test]
async fn every_page_of_an_upstream_is_listed() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("pages", &python("pages.py", &[])).await;
    let client = gateway.client_of(&["pages"]).await;
    let names = ["one", "two", "three", "four", "five", "six", "seven"]
        .map(|name| format!("pages__{name}"));
    assert_eq!(client.tools().await, names);
    assert_eq!(client.text_of("pages__seven", json!({})).await, "seven");
}

#[tokio::test]
async fn pages_that_go_round_in_circles_come_to_an_end() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("pages", &python("pages.py", &["repeat"])).await;
    gateway.publish("all", &["pages"]).await;
    let state = |server: &Value| server["runtime"]["state"].as_str().map(str::to_owned);
    gateway
        .server_until("pages", "decided", |server| {
            state(server).is_some_and(|state| state != "STARTING")
        })
        .await;
    let key = gateway.key("suite").await;
    let client = gateway.client("all", &key).await;
    let tools = within("the list", SOON, client.tools()).await;
    let mut unique = tools.clone();
    unique.dedup();
    assert_eq!(tools, unique, "no tool is listed twice");
}

#[tokio::test]
async fn a_first_list_waits_a_moment_for_upstreams_that_are_still_starting() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let key = gateway.key("suite").await;
    gateway.stdio("slow", &python("slow_start.py", &["0.7"])).await;
    gateway.publish("all", &["slow"]).await;
    let client = gateway.client("all", &key).await;
    assert_eq!(
        client.tools().await,
        ["slow__late"],
        "an empty first list would stay empty for most clients"
    );
}

#[tokio::test]
async fn an_upstream_that_never_answers_does_not_hold_up_the_others_tools() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("mute", &python("hang_init.py", &[])).await;
    gateway.demo("demo").await;
    gateway.publish("all", &["mute", "demo"]).await;
    let key = gateway.key("suite").await;
    let client = gateway.client("all", &key).await;
    let tools = within("the list", SOON, client.tools()).await;
    assert!(tools.contains(&"demo__echo".to_owned()), "{tools:?}");
}

/// Most clients read the list once, and a model cannot miss what it never heard of.
#[tokio::test]
async fn a_list_names_the_servers_whose_tools_nobody_knows_yet() {
    for page_size in [0, 2] {
        let settings = format!("[lists]\nfirst_wait = \"300ms\"\npage_size = {page_size}");
        let gateway = Start::new().settings(&settings).run().await;
        let key = gateway.key("suite").await;
        let knobs = || Knobs { streams: false, ..Knobs::default() };
        let (known, mute) = (Remote::start(knobs()), Remote::start(knobs()));
        mute.turn(|knobs| knobs.list_delay = SOON * 100);
        gateway.remote("known", &known.url).await;
        gateway.remote("mute", &mute.url).await;
        gateway.remote("off", &mute.url).await;
        gateway.publish("all", &["known", "mute", "off"]).await;
        gateway.change("mcp-servers/off", json!({"enabled": false})).await;
        gateway.ready("known").await;
        let client = gateway.client("all", &key).await;
        for kind in ["tools", "prompts"] {
            // The prompts of the one that is known may come a moment after its tools.
            wait_until("a list that lacks the mute one alone", SOON, async || {
                let list = client.request(&format!("{kind}/list"), json!({})).await;
                let missing = &list["result"]["_meta"]["metamcpd/missing"];
                (*missing == json!(["mute"])).then_some(())
            })
            .await;
        }

        mute.turn(|knobs| knobs.list_delay = Duration::ZERO);
        gateway.admin(Method::POST, "mcp-servers/mute/restart", None).await;
        gateway.ready("mute").await;
        wait_until("a list that lacks nobody", SOON, async || {
            let list = client.request("tools/list", json!({})).await;
            list["result"].get("_meta").is_none().then_some(())
        })
        .await;
        let tools = ["echo", "steps"];
        let all = ["known", "mute"].map(|server| tools.map(|tool| format!("{server}__{tool}")));
        let mut listed = client.tools().await;
        listed.sort();
        assert_eq!(listed, all.concat());
    }
}

#[tokio::test]
async fn an_upstream_that_is_dead_is_still_listed() {
    if without_python() {
        return;
    }
    let mut gateway = Start::new()
        .settings("[supervision]\nbackoff_min = \"60s\"\nbackoff_max = \"60s\"")
        .run()
        .await;
    let book = gateway.scratch().join("mended");
    std::fs::write(&book, "").expect("the file");
    gateway.stdio("frail", &python("exit_at_once.py", &[&book.display().to_string()])).await;
    let client = gateway.client_of(&["frail"]).await;
    assert_eq!(client.tools().await, ["frail__hello"]);

    std::fs::remove_file(&book).expect("the file is gone");
    gateway.restart().await;
    gateway.server_until("frail", "failing", |server| server["error_status"] != "NONE").await;
    let key = gateway.key("later").await;
    let client = gateway.client("all", &key).await;
    let tools = within("the list", Duration::from_secs(5), client.tools()).await;
    assert_eq!(tools, ["frail__hello"]);
    let answer = within("the call", SOON, client.call("frail__hello", json!({}))).await;
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
}

#[tokio::test]
async fn a_tool_that_an_upstream_adds_reaches_the_clients_stream_and_list() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let signal = gateway.scratch().join("add");
    gateway.stdio("changing", &python("changing.py", &[&signal.display().to_string()])).await;
    let client = gateway.client_of(&["changing"]).await;
    assert_eq!(client.tools().await, ["changing__old"]);
    let mut stream = client.listen().await;
    std::fs::write(&signal, "").expect("the file");
    stream.events.find("list_changed", SOON, changed).await;
    assert_eq!(client.tools().await, ["changing__old", "changing__new"]);
    assert_eq!(client.text_of("changing__new", json!({})).await, "new");
}

#[tokio::test]
async fn a_tool_that_an_upstream_adds_reaches_an_sse_client_too() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let signal = gateway.scratch().join("add");
    gateway.stdio("changing", &python("changing.py", &[&signal.display().to_string()])).await;
    gateway.publish("all", &["changing"]).await;
    gateway.ready("changing").await;
    let key = gateway.key("suite").await;
    let client = gateway.sse_client("all", &key).await;
    assert_eq!(client.tools().await, ["changing__old"]);
    std::fs::write(&signal, "").expect("the file");
    client.heard("list_changed", changed).await;
    assert_eq!(client.tools().await, ["changing__old", "changing__new"]);
}

#[tokio::test]
async fn membership_changes_are_announced_and_take_effect_at_once() {
    let gateway = TestGateway::start().await;
    gateway.demo("one").await;
    gateway.demo("two").await;
    let client = gateway.client_of(&["one"]).await;
    let mut stream = client.listen().await;
    let has_two = async || client.tools().await.iter().any(|name| name.starts_with("two__"));
    assert!(!has_two().await);

    gateway.ready("two").await;
    gateway.replace("namespaces/all/servers", json!([{"server": "one"}, {"server": "two"}])).await;
    stream.events.find("list_changed", SOON, changed).await;
    assert!(has_two().await);

    let members =
        json!([{"server": "one", "status": "ACTIVE"}, {"server": "two", "status": "INACTIVE"}]);
    gateway.replace("namespaces/all/servers", members).await;
    stream.events.find("list_changed", SOON, changed).await;
    assert!(!has_two().await);
    let answer = client.call("two__echo", json!({"message": "hi"})).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
}

#[tokio::test]
async fn what_is_deleted_is_no_longer_listed_or_called() {
    let gateway = TestGateway::start().await;
    gateway.demo("one").await;
    gateway.demo("two").await;
    let client = gateway.client_of(&["one", "two"]).await;
    let pid = gateway.server_pid("two").await;
    gateway.remove("mcp-servers/two").await;
    wait_until("its tools to go", SOON, async || {
        client.tools().await.iter().all(|name| name.starts_with("one__")).then_some(())
    })
    .await;
    assert_eq!(client.call("two__echo", json!({"message": "hi"})).await["error"]["code"], -32602);
    wait_until("its process to go", SOON, async || (!processes::is_alive(pid)).then_some(())).await;
}
