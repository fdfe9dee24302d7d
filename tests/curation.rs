//! What an operator makes of the tools of a namespace, as clients see it: through real upstreams,
//! with real calls, before and after a restart.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway, fixtures::without_python, python, wait_until, within,
};

const NOT_FOUND: i64 = -32602;

fn changed(message: &Value) -> bool {
    message["method"] == "notifications/tools/list_changed"
}

/// An upstream that offers these tools, and says in each answer who it is.
async fn named(gateway: &TestGateway, name: &str, tools: &[&str]) {
    offer(gateway, name, tools);
    let file = gateway.scratch().join(name).display().to_string();
    gateway.stdio(name, &python("named.py", &[name, &file])).await;
}

/// Makes such an upstream offer these from now on.
fn offer(gateway: &TestGateway, name: &str, tools: &[&str]) {
    // Put in place as a whole: half a list is never read.
    let (fresh, file) = (gateway.scratch().join("fresh"), gateway.scratch().join(name));
    std::fs::write(&fresh, tools.join("\n")).expect("the list is written");
    std::fs::rename(&fresh, &file).expect("the list is in place");
}

/// The path of a tool in the namespace `all`.
async fn tool(gateway: &TestGateway, server: &str, name: &str) -> String {
    let path = format!("namespaces/all/tools?server={server}&name={name}");
    let found = wait_until("the tool's row", SOON, async || {
        gateway.items(&path).await.first().and_then(|row| row["uuid"].as_str()).map(str::to_owned)
    });
    format!("namespaces/all/tools/{}", found.await)
}

/// Waits until the client is shown exactly these.
async fn shows(client: &Client, expected: &[&str]) {
    wait_until(&format!("{expected:?}"), SOON, async || {
        (client.tools().await == expected).then_some(())
    })
    .await;
}

/// Each of these is called, and says who answered.
async fn reaches(client: &Client, expected: &[(&str, &str)]) {
    for (name, answer) in expected {
        assert_eq!(client.text_of(name, json!({})).await, *answer, "{name}");
    }
}

async fn is_unknown(client: &Client, name: &str) {
    let answer = client.call(name, json!({})).await;
    assert_eq!(answer["error"]["code"], NOT_FOUND, "{name}: {answer}");
}

#[tokio::test]
async fn an_override_changes_its_words_and_no_byte_beside_them() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.stdio("odd", &python("odd_bytes.py", &[])).await;
    let client = gateway.client_of(&["odd"]).await;
    let odd = tool(&gateway, "odd", "odd").await;
    let words = json!({
        "override_name": "strange", "override_title": "", "override_description": "Says \"x\"",
        "override_annotations": {"readOnlyHint": true, "gone": null},
    });
    gateway.change(&odd, words).await;
    let said = include_str!("fixtures/odd_list.json");
    let own_title = r#""title":"caf\u00e9 \ud83d\ude00 é 😀 \u2028""#;
    assert!(said.contains(own_title));
    let added = r#","description":"Says \"x\"","annotations":{"readOnlyHint":true}"#;
    let expected = said
        .trim_end()
        .split(" , ")
        .next()
        .expect("the first tool")
        .trim_start_matches('[')
        .replace(r#""name":"odd""#, r#""name":"strange""#)
        .replace(own_title, r#""title":"""#);
    let expected = format!("{}{added}}}", expected.strip_suffix('}').expect("an object"));
    let list = async || {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
        client.post(&request.to_string()).await.messages.concat()
    };
    let list_now = list().await;
    assert!(list_now.contains(&expected), "{list_now}\nholds no\n{expected}");

    let all = ["name", "title", "description", "annotations"];
    let cleared: Value =
        all.iter().map(|field| (format!("override_{field}"), Value::Null)).collect();
    gateway.change(&odd, cleared).await;
    let as_it_came = said.split(" , ").next().expect("the first tool").trim_start_matches('[');
    let as_it_came = as_it_came.replace(r#""name":"odd""#, r#""name":"odd__odd""#);
    let list_now = list().await;
    assert!(list_now.contains(&as_it_came), "{list_now}\nholds no\n{as_it_came}");
}

#[tokio::test]
async fn a_title_that_nobody_overrides_is_the_upstreams() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    named(&gateway, "one", &["a"]).await;
    let client = gateway.client_of(&["one"]).await;
    let path = tool(&gateway, "one", "a").await;
    let shown =
        async || client.request("tools/list", json!({})).await["result"]["tools"][0].clone();
    // A row that decides about something else must not clear it.
    gateway.change(&path, json!({"override_description": "other"})).await;
    let one = shown().await;
    assert_eq!((&one["title"], &one["description"]), (&json!("one a"), &json!("other")));
    assert_eq!(one["annotations"], json!({"title": "own", "kept": 1}));
    gateway.change(&path, json!({"override_title": "T", "override_description": ""})).await;
    let one = shown().await;
    assert_eq!((&one["title"], &one["description"]), (&json!("T"), &json!("")));
    assert_eq!(one["annotations"], json!({"title": "T", "kept": 1}));
}

#[tokio::test]
async fn an_override_is_announced_and_the_old_name_is_gone() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let key = gateway.key("other").await;
    let sse = gateway.sse_client("all", &key).await;
    assert!(sse.tools().await.contains(&"demo__echo".to_owned()));
    let mut stream = client.listen().await;
    let echo = tool(&gateway, "demo", "echo").await;

    let say = json!({"message": "hi"});
    gateway.change(&echo, json!({"override_name": "say"})).await;
    stream.events.find("list_changed", SOON, changed).await;
    sse.heard("list_changed", changed).await;
    assert!(client.text_of("say", say.clone()).await.contains("hi"));
    let answer = sse.call(json!(7), "say", say.clone()).await;
    assert!(answer["result"].is_object(), "{answer}");
    for name in ["demo__echo", "echo", "demo__say"] {
        is_unknown(&client, name).await;
    }

    gateway.change(&echo, json!({"override_description": "Says it."})).await;
    stream.events.find("list_changed for a word", SOON, changed).await;
    gateway.change(&echo, json!({"override_name": null})).await;
    stream.events.find("list_changed for the old name", SOON, changed).await;
    assert!(client.tools().await.contains(&"demo__echo".to_owned()));
    is_unknown(&client, "say").await;
}

#[tokio::test]
async fn a_disabled_tool_is_called_by_no_name_in_any_mode() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    named(&gateway, "one", &["a", "b"]).await;
    let client = gateway.client_of(&["one"]).await;
    let path = tool(&gateway, "one", "a").await;
    gateway.change(&path, json!({"override_name": "look", "status": "INACTIVE"})).await;
    for naming in ["ALWAYS", "ON_CONFLICT", "NEVER"] {
        gateway.change("namespaces/all", json!({"naming": naming})).await;
        let b = if naming == "ALWAYS" { "one__b" } else { "b" };
        shows(&client, &[b]).await;
        reaches(&client, &[(b, "one b")]).await;
        for name in ["a", "one__a", "look", "one__look"] {
            let answer = client.call(name, json!({})).await;
            assert_eq!(answer["result"], Value::Null, "{name} under {naming}: {answer}");
            assert_eq!(answer["error"]["code"], NOT_FOUND, "{name} under {naming}: {answer}");
        }
    }
}

#[tokio::test]
async fn each_shown_name_reaches_its_own_tool_in_every_mode_and_after_a_restart() {
    if without_python() {
        return;
    }
    let mut gateway = TestGateway::start().await;
    let long = "a_tool_whose_name_is_so_long_that_it_cannot_be_shown_with_a_prefix";
    let tools = ["search", "find", "größe", long];
    named(&gateway, "one", &tools).await;
    named(&gateway, "two", &tools).await;
    gateway.publish("all", &["one", "two"]).await;
    gateway.ready("one").await;
    gateway.ready("two").await;
    let search = tool(&gateway, "two", "search").await;
    gateway.change(&search, json!({"override_name": "look"})).await;
    for naming in ["ALWAYS", "ON_CONFLICT", "NEVER"] {
        gateway.change("namespaces/all", json!({"naming": naming})).await;
        let shown = async |gateway: &TestGateway| {
            let rows = gateway.items("namespaces/all/tools").await;
            let name = |row: &Value| row["shown_name"].as_str().map(str::to_owned);
            let one = |row: Value| {
                let own = format!("{} {}", row["server_name"].as_str()?, row["name"].as_str()?);
                Some((name(&row)?, own))
            };
            rows.into_iter().filter_map(one).collect::<Vec<_>>()
        };
        let before = shown(&gateway).await;
        let expected = if naming == "NEVER" { 7 } else { 8 };
        assert_eq!(before.len(), expected, "{naming}: {before:?}");

        // A server that joins at the front renames nothing.
        named(&gateway, naming, &["search", "look"]).await;
        gateway.ready(naming).await;
        gateway.replace("namespaces/all/servers", json!([naming, "two", "one"])).await;
        gateway.restart().await;
        for server in ["one", "two", naming] {
            gateway.ready(server).await;
        }
        let key = gateway.key(naming).await;
        let client = gateway.client("all", &key).await;
        let listed = client.tools().await;
        for (name, answer) in &before {
            assert!(listed.contains(name), "{naming}: {name} in {listed:?}");
            assert_eq!(client.text_of(name, json!({})).await, *answer, "{naming}: {name}");
        }
        let after = shown(&gateway).await;
        assert_eq!(listed.len(), after.len(), "{naming}");
        for (name, answer) in &after {
            assert_eq!(client.text_of(name, json!({})).await, *answer, "{naming}: {name}");
            let is_own = answer.ends_with(&format!(" {name}"));
            let is_ours = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            assert!(name.len() <= 64 && (is_own || is_ours), "{naming}: {name}");
        }
        gateway.replace("namespaces/all/servers", json!(["one", "two"])).await;
    }
}

#[tokio::test]
async fn a_renamed_server_takes_its_prefix_along_and_leaves_chosen_names_alone() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    named(&gateway, "one", &["a", "b"]).await;
    let client = gateway.client_of(&["one"]).await;
    let path = tool(&gateway, "one", "b").await;
    gateway.change(&path, json!({"override_name": "chosen"})).await;
    gateway.change("mcp-servers/one", json!({"name": "uno"})).await;
    shows(&client, &["uno__a", "chosen"]).await;
    gateway.ready("uno").await;
    reaches(&client, &[("uno__a", "one a"), ("chosen", "one b")]).await;
    let row = &gateway.items("namespaces/all/tools?name=b").await[0];
    assert!(path.ends_with(row["uuid"].as_str().expect("a uuid")), "its row is the same");
}

#[tokio::test]
async fn decisions_outlive_whatever_happens_to_their_tool() {
    if without_python() {
        return;
    }
    let mut gateway = TestGateway::start().await;
    named(&gateway, "one", &["a", "b"]).await;
    named(&gateway, "two", &["c"]).await;
    let client = gateway.client_of(&["one", "two"]).await;
    let chosen = tool(&gateway, "one", "a").await;
    gateway.change(&chosen, json!({"override_name": "look", "override_title": "L"})).await;
    let off = tool(&gateway, "one", "b").await;
    gateway.change(&off, json!({"status": "INACTIVE"})).await;
    shows(&client, &["look", "two__c"]).await;

    // It vanishes, and is shown as unresolved; its name is kept for it.
    offer(&gateway, "one", &["d"]);
    shows(&client, &["one__d", "two__c"]).await;
    is_unknown(&client, "look").await;
    let unresolved = gateway.items("namespaces/all/tools?unresolved=true&overridden=true").await;
    assert_eq!(unresolved.len(), 1, "{unresolved:?}");
    let (name, hidden) = (&unresolved[0]["override_name"], &unresolved[0]["hidden"]);
    assert_eq!((name, hidden), (&json!("look"), &json!("vanished")));
    let other = tool(&gateway, "two", "c").await;
    let body = json!({"override_name": "look"});
    let (status, refused) = gateway.admin(Method::PATCH, &other, Some(body)).await;
    assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("conflict")), "{refused}");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("`a` of `one`")));

    offer(&gateway, "one", &["a", "b"]);
    shows(&client, &["look", "two__c"]).await;
    reaches(&client, &[("look", "one a")]).await;
    gateway.replace("namespaces/all/servers", json!(["two"])).await;
    shows(&client, &["two__c"]).await;
    gateway.replace("namespaces/all/servers", json!(["one", "two"])).await;
    shows(&client, &["look", "two__c"]).await;
    gateway.restart().await;
    let key = gateway.key("later").await;
    let client = gateway.client("all", &key).await;
    assert_eq!(client.tools().await, ["look", "two__c"]);
    gateway.ready("one").await;
    reaches(&client, &[("look", "one a")]).await;
    for name in ["one__a", "one__b", "b"] {
        is_unknown(&client, name).await;
    }
}

#[tokio::test]
async fn a_new_tool_is_not_open_for_a_moment_where_new_tools_are_inactive() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    named(&gateway, "one", &["a"]).await;
    let client = gateway.client_of(&["one"]).await;
    gateway.change("namespaces/all", json!({"default_tool_status": "INACTIVE"})).await;
    assert_eq!(client.tools().await, ["one__a"], "what was seen before stays");
    let mut stream = client.listen().await;

    offer(&gateway, "one", &["a", "late"]);
    let late = within("the new tool", SOON, async {
        loop {
            // As soon as anybody knows of it, and before: clients never do.
            assert_eq!(client.tools().await, ["one__a"]);
            is_unknown(&client, "one__late").await;
            let rows = gateway.items("namespaces/all/tools?status=INACTIVE").await;
            if let Some(row) = rows.first() {
                return row.clone();
            }
        }
    })
    .await;
    assert_eq!((&late["name"], &late["hidden"]), (&json!("late"), &json!("inactive")));

    let all = gateway.change("namespaces/all/tools?name=late", json!({"status": "ACTIVE"})).await;
    assert_eq!(all, json!({"matched": 1, "changed": 1}));
    stream.events.find("list_changed", SOON, changed).await;
    assert_eq!(client.tools().await, ["one__a", "one__late"]);
    reaches(&client, &[("one__late", "one late")]).await;
}
