//! The same below the ways in: what supervises, merges and speaks with upstreams is made anew wherever it
//! panics, and given up only where it does nothing else.

use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    ADMIN_KEY, Client, SOON, TestGateway,
    client::http,
    database::Database,
    fragile::Fragile,
    gateway::{Start, binary},
    remote::{Knobs, Remote},
    token_endpoint::{TokenEndpoint, refresh_token},
    wait_until, within,
};

/// What supervises, merges and speaks with upstreams, by what has it come by the place.
const SUPERVISION: &[(&str, Trigger)] = &[
    ("worker", Trigger::Restart),
    ("upstream", Trigger::Restart),
    ("upstream-restart", Trigger::Restart),
    ("upstream-end", Trigger::Restart),
    ("upstream-news", Trigger::Restart),
    ("upstream-time", Trigger::Restart),
    ("upstream-change", Trigger::Edit),
    ("upstream-begins", Trigger::Creation),
    ("upstream-start", Trigger::Creation),
    ("upstream-stop", Trigger::Deletion),
    ("upstream-rest", Trigger::Rest),
    ("upstream-wanted", Trigger::Waking),
    ("stdin", Trigger::Call),
    ("stdout", Trigger::Call),
    ("stderr", Trigger::Complaint),
    ("fleet", Trigger::Creation),
    ("fleet-look", Trigger::Time),
    ("namespace", Trigger::Creation),
    ("namespace-publish", Trigger::Member),
    ("namespace-change", Trigger::Edit),
    ("namespace-begins", Trigger::Group),
    ("namespace-first", Trigger::FirstList),
    ("namespace-resolve", Trigger::UnknownTool),
];

/// What has the daemon come by a place.
#[derive(Clone, Copy, Debug)]
enum Trigger {
    Time,
    Restart,
    /// Another description.
    Edit,
    Creation,
    Deletion,
    /// Nobody calls a server that is to rest then.
    Rest,
    /// Somebody calls one that rests.
    Waking,
    Call,
    /// A server that writes on stderr.
    Complaint,
    /// Another namespace.
    Group,
    /// A namespace with a server that comes later than it.
    Member,
    /// A list that has to wait for a server.
    FirstList,
    UnknownTool,
}

async fn pull(trigger: Trigger, point: &str, gateway: &TestGateway, client: &Client) {
    let resting = |ms: Value| json!({"idle_stop_ms": ms});
    match trigger {
        Trigger::Time => {}
        Trigger::Restart => {
            let restarted = gateway.admin(Method::POST, "mcp-servers/demo/restart", None).await;
            assert_eq!(restarted.0, StatusCode::ACCEPTED, "{restarted:?}");
        }
        Trigger::Edit => {
            // Something that its supervisor is told.
            let rests = json!(3_600_000 + point.len());
            gateway.change("mcp-servers/demo", resting(rests)).await;
            gateway.change("namespaces/all", json!({"description": point})).await;
        }
        Trigger::Creation => drop(gateway.demo(point).await),
        Trigger::Deletion => gateway.remove("mcp-servers/worker").await,
        Trigger::Rest => {
            let before = gateway.metric("metamcpd_panics_total").await;
            gateway.change("mcp-servers/demo", resting(json!(50))).await;
            wait_until("the panic", SOON, async || {
                (gateway.metric("metamcpd_panics_total").await > before).then_some(())
            })
            .await;
            gateway.change("mcp-servers/demo", resting(Value::Null)).await;
        }
        Trigger::Waking => {
            gateway.change("mcp-servers/demo", resting(json!(50))).await;
            gateway.server_until("demo", "at rest", |one| one["runtime"]["reason"] == "idle").await;
            let called = client.call("demo__echo", json!({"message": point})).await;
            assert!(called["result"].is_object() || called["error"].is_object(), "{called}");
            gateway.change("mcp-servers/demo", resting(Value::Null)).await;
        }
        Trigger::Call => {
            let called = client.call("demo__echo", json!({"message": point})).await;
            assert!(called["result"].is_object() || called["error"].is_object(), "{called}");
        }
        Trigger::Complaint => {
            let own = binary().get_program().display().to_string();
            let script = format!("echo alas >&2; exec '{own}' demo-upstream");
            gateway.stdio(point, &["sh".to_owned(), "-c".to_owned(), script]).await;
        }
        Trigger::Member => {
            let own = binary().get_program().display().to_string();
            let script = format!("sleep 1; exec '{own}' demo-upstream");
            gateway.stdio("later", &["sh".to_owned(), "-c".to_owned(), script]).await;
            let group = json!({"name": point, "servers": ["later"]});
            gateway.create("namespaces", group).await;
        }
        Trigger::Group => drop(gateway.create("namespaces", json!({"name": point})).await),
        Trigger::FirstList => {
            gateway.stdio("silent", &["sleep", "1000"].map(str::to_owned)).await;
            gateway.publish("late", &["silent"]).await;
            let key = gateway.key("late").await;
            let listed = gateway.client("late", &key).await.request("tools/list", json!({})).await;
            assert!(listed["result"]["tools"].is_array(), "{listed}");
            gateway.remove("endpoints/late").await;
        }
        Trigger::UnknownTool => {
            let called = client.call("demo__none", json!({})).await;
            assert!(called["error"].is_object(), "{called}");
        }
    }
}

#[tokio::test]
async fn whatever_supervises_upstreams_is_made_anew_when_it_panics() {
    // So often in so short a time, an upstream would be CRASHED else.
    let patience = "failures_burst = 1000\nfailures_slow = 1000\npanics_burst = 1000\nsteady_after = \"100ms\"";
    let fragile = Fragile::start(&format!("[supervision]\n{patience}")).await;
    let gateway = &fragile.gateway;
    gateway.demo("demo").await;
    gateway.demo("worker").await;
    let client = gateway.client_of(&["demo"]).await;
    for (panics, (point, trigger)) in SUPERVISION.iter().enumerate() {
        fragile.arm(point);
        pull(*trigger, point, gateway, &client).await;
        fragile.went_off(point).await;
        let text = wait_until("the tool to be served", SOON, async || {
            let answer = client.call("demo__echo", json!({"message": point})).await;
            answer["result"]["content"][0]["text"].as_str().map(str::to_owned)
        })
        .await;
        assert_eq!(&text, point);
        assert!(client.tools().await.len() > 1, "{point}: its list is what it was");
        if matches!(trigger, Trigger::Creation | Trigger::Complaint) {
            gateway.ready(point).await;
        }
        fragile.counted(panics as f64 + 1.0).await;
        // An order of an operator forgives what has happened.
        pull(Trigger::Restart, point, gateway, &client).await;
        gateway.ready("demo").await;
    }
}

#[tokio::test]
async fn an_upstream_whose_keeper_panics_again_and_again_is_crashed_and_the_others_are_served() {
    for point in ["worker", "upstream-news"] {
        let fragile = Fragile::start("[lists]\nrefresh_every = \"0s\"").await;
        let gateway = &fragile.gateway;
        gateway.demo("demo").await;
        let client = gateway.client_of(&["demo"]).await;
        fragile.arm_to(point, "always");
        gateway.demo("other").await;
        let crashed = |one: &Value| one["error_status"] == "CRASHED";
        let other = gateway.server_until("other", "CRASHED", crashed).await;
        assert_eq!(other["runtime"]["reason"], "panicked", "{other}");
        assert_eq!(gateway.metric("metamcpd_panics_total").await, Some(3.0), "{point}");
        assert_eq!(client.text_of("demo__echo", json!({"message": "hi"})).await, "hi");
        fragile.disarm(point);
        gateway.admin(Method::POST, "mcp-servers/other/restart", None).await;
        gateway.ready("other").await;
        fragile.counted(3.0).await;
    }
}

#[tokio::test]
async fn a_supervisor_that_panics_before_it_begins_is_shown_so_once_and_obeys_when_it_lives() {
    let fragile = Fragile::start("[supervision]\nprobe_every = \"1h\"").await;
    let gateway = &fragile.gateway;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    fragile.arm_to("upstream-begins", "always");
    gateway.demo("other").await;
    let crashed = |one: &Value| one["error_status"] == "CRASHED";
    let other = gateway.server_until("other", "CRASHED", crashed).await;
    assert_eq!(other["runtime"]["reason"], "panicked", "{other}");
    wait_until("it to be made anew once more", SOON, async || {
        (gateway.metric("metamcpd_panics_total").await >= Some(5.0)).then_some(())
    })
    .await;
    let history = gateway.history("other").await;
    let states: Vec<_> = history.iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["BACKOFF", "BACKOFF", "CRASHED"], "{history:?}");
    assert_eq!(client.text_of("demo__echo", json!({"message": "hi"})).await, "hi");

    // Nobody is there to take the order, and its probe is an hour away.
    let restarted = gateway.admin(Method::POST, "mcp-servers/other/restart", None).await;
    assert_eq!(restarted.0, StatusCode::ACCEPTED, "{restarted:?}");
    fragile.disarm("upstream-begins");
    let other = gateway.ready("other").await;
    assert_eq!(other["error_status"], "NONE", "{other}");
}

#[tokio::test]
async fn a_namespace_that_panics_again_and_again_rests_and_serves_what_it_has_published() {
    let rests = "[supervision]\nbackoff_min = \"1h\"\nbackoff_max = \"1h\"";
    let fragile = Fragile::start(rests).await;
    let gateway = &fragile.gateway;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let before = client.tools().await;
    fragile.arm_to("namespace-begins", "always");
    fragile.arm("namespace-change");
    gateway.change("namespaces/all", json!({"naming": "NEVER"})).await;
    // Of the change, and of being made anew at once.
    fragile.counted(2.0).await;
    for name in ["one", "two", "three"] {
        gateway.create("api-keys", json!({"name": name})).await;
        assert_eq!(client.text_of("demo__echo", json!({"message": "hi"})).await, "hi");
        assert_eq!(client.tools().await, before);
    }
    fragile.counted(2.0).await;
    assert_eq!(gateway.log().matches("a namespace panicked").count(), 1);

    fragile.disarm("namespace-begins");
    gateway.change("namespaces/all", json!({"naming": "ALWAYS", "uri_naming": "ALWAYS"})).await;
    gateway.change("namespaces/all", json!({"naming": "NEVER"})).await;
    assert_eq!(client.text_of("echo", json!({"message": "anew"})).await, "anew");
    fragile.counted(2.0).await;
}

#[tokio::test]
async fn what_was_written_before_a_kill_is_followed_by_the_next_run_and_what_was_confirmed_is_there()
 {
    // Between the row and the memory of it, and in the midst of what is made of the rows.
    for (database, point) in Database::all().into_iter().flat_map(|database| {
        ["change", "fleet", "namespace-change", "upstream-start"].map(|point| (database, point))
    }) {
        let mut fragile = Fragile::begin(Start::new().on(database)).await;
        fragile.gateway.demo("demo").await;
        fragile.gateway.publish("all", &["demo"]).await;
        fragile.gateway.ready("demo").await;
        fragile.arm_to(point, "kill");
        let listening = fragile.gateway.fact("listening").unwrap();
        let row = json!({"name": "late", "type": "STDIO", "command": "metamcpd", "args": ["demo-upstream"]});
        let change = http().post(format!("{listening}/api/v1/mcp-servers")).bearer_auth(ADMIN_KEY);
        let change = change.header("content-type", "application/json").body(row.to_string());
        drop(within("the kill", SOON, change.send()).await);
        let exit = fragile.gateway.ended().await;
        assert_eq!(exit.signal, Some(9), "{point}: {exit:?}");
        fragile.gateway.restart().await;
        for server in ["demo", "late"] {
            fragile.gateway.ready(server).await;
        }
        let key = fragile.gateway.key("next").await;
        let client = fragile.gateway.client("all", &key).await;
        assert_eq!(client.text_of("demo__echo", json!({"message": "hi"})).await, "hi");
    }
}

#[tokio::test]
async fn a_stop_whose_order_panics_still_ends_everything() {
    let mut fragile = Fragile::start("").await;
    fragile.gateway.demo("demo").await;
    fragile.gateway.ready("demo").await;
    fragile.arm("fleet-drain");
    fragile.gateway.signal(Signal::TERM);
    assert_eq!(fragile.gateway.ended().await.code, Some(0));
    fragile.went_off("fleet-drain").await;
    let left = fragile.gateway.leftovers_after(SOON).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_clients_stream_from_a_remote_server_is_held_again_when_its_holder_panics() {
    let far = TestGateway::start().await;
    far.demo("demo").await;
    far.publish("all", &["demo"]).await;
    far.ready("demo").await;
    let key = far.key("near").await;
    let fragile = Fragile::start("").await;
    let row = json!({"name": "far", "type": "STREAMABLE_HTTP", "url": far.endpoint_url("all"),
        "bearer_token": key});
    fragile.gateway.create("mcp-servers", row).await;
    let client = fragile.gateway.client_of(&["far"]).await;
    let _listening = client.listen().await;
    fragile.arm("standing");
    for message in ["one", "two"] {
        assert_eq!(client.text_of("far__demo__echo", json!({"message": message})).await, message);
    }
    fragile.went_off("standing").await;
    // Who holds it comes by the same place again.
    fragile.arm("standing");
    fragile.went_off("standing").await;
    fragile.counted(2.0).await;
    assert_eq!(client.text_of("far__demo__echo", json!({"message": "three"})).await, "three");
}

#[tokio::test]
async fn a_renewal_of_tokens_that_panics_fails_the_call_that_waits_and_the_next_session_is_used() {
    let fragile = Fragile::start("").await;
    let tokens = TokenEndpoint::start();
    tokens.accept("canary-access-first");
    let remote = Remote::start(Knobs { bearers: Some(tokens.bearers()), ..Knobs::default() });
    fragile.gateway.remote("far", &remote.url).await;
    let session = |issued| {
        json!({"token_endpoint": tokens.url, "client_id": "c", "refresh_token": refresh_token(issued),
            "access_token": "canary-access-first"})
    };
    fragile.gateway.replace("mcp-servers/far/oauth-session", session(0)).await;
    let client = fragile.gateway.client_of(&["far"]).await;
    assert_eq!(client.text_of("far__echo", json!({"value": "one"})).await, "one");
    tokens.expire_all();
    fragile.arm("token-issued");
    let answer = client.call("far__echo", json!({"value": "two"})).await;
    assert_eq!(answer["error"]["data"]["reason"], "upstream_token_unavailable", "{answer}");
    fragile.counted(1.0).await;
    fragile.gateway.replace("mcp-servers/far/oauth-session", session(1)).await;
    fragile.gateway.ready("far").await;
    assert_eq!(client.text_of("far__echo", json!({"value": "three"})).await, "three");
}
