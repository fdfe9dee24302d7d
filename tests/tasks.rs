//! Calls that clients make as tasks, and what they ask of them afterwards: relayed byte for byte, under
//! ids that are good for their owner alone; and tools that can only be called so, called plainly.

use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::{Exchange, request},
    fixtures::without_python,
    gateway::Start,
    python, wait_until, within,
};

const RELATED: &str = "io.modelcontextprotocol/related-task";
const STATUS: &str = "notifications/tasks/status";

/// The upstream `far` behind the endpoints `all` and `other`; a gateway, a key, and a client of `all`.
async fn tasking(start: Start) -> Option<(TestGateway, String, Client)> {
    if without_python() {
        return None;
    }
    let gateway = start.run().await;
    gateway.stdio("far", &python("tasking.py", &[])).await;
    for endpoint in ["all", "other"] {
        gateway.publish(endpoint, &["far"]).await;
    }
    gateway.ready("far").await;
    let key = gateway.key("suite").await;
    let client = able(&gateway, "all", &key).await;
    Some((gateway, key, client))
}

/// A client that can be asked for forms.
async fn able(gateway: &TestGateway, endpoint: &str, key: &str) -> Client {
    Client::that_can(&gateway.endpoint_url(endpoint), key, json!({"elicitation": {}})).await
}

async fn of_revision(gateway: &TestGateway, key: &str, version: &str) -> Client {
    let mut client = Client::new(&gateway.endpoint_url("all"), Some(key));
    client.capabilities = json!({"elicitation": {}});
    client.initialize(version).await;
    client
}

fn as_task(tool: &str, arguments: Value) -> Value {
    json!({"name": tool, "arguments": arguments, "task": {"ttl": 60000}})
}

/// Makes a task of a call; the id that it is given.
async fn make(client: &Client, arguments: Value) -> String {
    let made = client.request("tools/call", as_task("far__work", arguments)).await;
    let id = made["result"]["task"]["taskId"].as_str();
    id.unwrap_or_else(|| panic!("no task: {made}")).to_owned()
}

async fn ask(client: &Client, what: &str, id: &str) -> Value {
    let mut answer = client.request(&format!("tasks/{what}"), json!({"taskId": id})).await;
    answer["id"] = Value::Null;
    answer
}

async fn finish(client: &Client, value: &str) {
    client.text_of("far__finish", json!({"value": value})).await;
}

/// What the upstream was sent, every line of it.
async fn lines(client: &Client) -> Vec<String> {
    let text = client.text_of("far__lines", json!({})).await;
    text.lines().map(str::to_owned).collect()
}

async fn is_sent(client: &Client, what: &str) {
    wait_until(what, SOON, async || {
        lines(client).await.iter().any(|line| line.contains(what)).then_some(())
    })
    .await;
}

/// The ids on all pages of the list of tasks, and how many pages there are.
async fn listed(client: &Client) -> (Vec<String>, usize) {
    let (mut ids, mut pages, mut params) = (Vec::new(), 0, json!({}));
    loop {
        let page = client.request("tasks/list", params).await;
        let tasks = page["result"]["tasks"].as_array().unwrap_or_else(|| panic!("no list: {page}"));
        ids.extend(tasks.iter().filter_map(|task| task["taskId"].as_str()).map(str::to_owned));
        pages += 1;
        match page["result"]["nextCursor"].as_str() {
            Some(cursor) => params = json!({"cursor": cursor}),
            None => return (ids, pages),
        }
    }
}

/// The text of a result, as JSON.
fn outcome(answer: &Value) -> Value {
    let text = answer["result"]["content"][0]["text"].as_str();
    serde_json::from_str(text.unwrap_or_else(|| panic!("no text: {answer}"))).expect("JSON")
}

#[tokio::test]
async fn a_task_is_relayed_with_no_byte_changed_but_its_id() {
    let Some((_gateway, _, client)) = tasking(Start::new()).await else { return };
    let call = r#"{"jsonrpc":"2.0","id":"c","method":"tools/call","params":{"task" : {"ttl":60000.0, "x":1.50},"name":"far__work","arguments":{"value":"a"}}}"#;
    let made = client.post(call).await;
    let id = made.json()["result"]["task"]["taskId"].as_str().expect("a task").to_owned();
    assert!(!id.contains("task-1") && !id.is_empty());
    let theirs = |id: &str, status: &str| {
        format!(
            r#"{{"taskId" : "{id}","status":"{status}", "ttl":60000.0,"createdAt":"2025-11-25T10:30:00Z","lastUpdatedAt":"2025-11-25T10:30:00Z","pollInterval":50.0,"odd":1.50}}"#
        )
    };
    let expected = format!(
        r#"{{"jsonrpc":"2.0","id":"c","result":{{ "task":{}, "_meta":{{"k":1.0}} }}}}"#,
        theirs(&id, "working")
    );
    assert_eq!(made.messages, [expected]);
    let sent = lines(&client).await;
    let sent = sent.iter().find(|line| line.contains("\"task\"")).expect("the call");
    assert!(
        sent.contains(r#""params":{"task" : {"ttl":60000.0, "x":1.50},"name":"work""#),
        "{sent}"
    );

    let get = request(json!(7), "tasks/get", json!({"taskId": id}));
    let got = client.post(&get).await;
    assert_eq!(
        got.messages,
        [format!(r#"{{"jsonrpc":"2.0","id":7,"result":{}}}"#, theirs(&id, "working"))]
    );
    finish(&client, "a").await;
    let result = client.post(&request(json!("r"), "tasks/result", json!({"taskId": id}))).await;
    let text = r#"{\"value\": \"a\", \"answer\": null, \"status\": \"completed\"}"#;
    let expected = format!(
        r#"{{"jsonrpc":"2.0","id":"r","result":{{"content":[{{"type":"text","text":"{text}"}}], "n":1.50,"_meta" : {{"{RELATED}" : {{"taskId":"{id}"}}}}}}}}"#
    );
    assert_eq!(result.messages.last(), Some(&expected));
    is_sent(&client, r#""method":"tasks/result","params":{"taskId":"task-1"}"#).await;
    // What else belongs to it says so by the name that its server knows.
    let related = json!({RELATED: {"taskId": id}});
    let call = json!({"name": "far__work", "arguments": {"value": "r"}, "_meta": related});
    client.request("tools/call", call).await;
    let named = format!(r#""_meta":{{"{RELATED}":{{"taskId":"task-1"}}}}"#);
    is_sent(&client, &named).await;
    assert_eq!(listed(&client).await, (vec![id], 1));
}

#[tokio::test]
async fn only_who_knows_tasks_is_told_of_them() {
    let Some((gateway, key, client)) = tasking(Start::new()).await else { return };
    let support = |list: &Value| -> Vec<String> {
        let tools = list["result"]["tasks"].as_array().or(list["result"]["tools"].as_array());
        let tools = tools.expect("tools").iter().filter(|tool| tool.get("execution").is_some());
        tools.map(|tool| tool["execution"]["taskSupport"].as_str().unwrap().to_owned()).collect()
    };
    let hello = client.again().initialize("2025-11-25").await.json();
    let declared = json!({"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}});
    assert_eq!(hello["result"]["capabilities"]["tasks"], declared);
    let list = client.request("tools/list", json!({})).await;
    assert_eq!(support(&list), ["optional", "required", "forbidden"]);
    let forbidden =
        client.request("tools/call", as_task("far__finish", json!({"value": "x"}))).await;
    assert_eq!(forbidden["error"]["code"], -32601, "{forbidden}");

    let hello = client.again().initialize("2025-06-18").await.json();
    assert_eq!(hello["result"]["capabilities"].get("tasks"), None);
    let older = of_revision(&gateway, &key, "2025-06-18").await;
    let list = older.request("tools/list", json!({})).await;
    assert!(support(&list).is_empty(), "{list}");
    for method in ["tasks/list", "tasks/get", "tasks/result", "tasks/cancel"] {
        let refused = older.request(method, json!({"taskId": "x"})).await;
        assert_eq!(refused["error"]["code"], -32601, "{method}: {refused}");
    }
    let plain = older.request("tools/call", as_task("far__work", json!({"value": "a"}))).await;
    assert_eq!(plain["result"]["content"][0]["text"], "plainly a", "{plain}");

    // Upstreams are not told of what is not relayed, and what they ask all the same is asked plainly.
    let sent = lines(&client).await;
    assert!(sent[0].contains("initialize") && !sent[0].contains("tasks"), "{}", sent[0]);
    let (answer, heard) = client
        .call_answering(
            "far__ask",
            json!({"task": {"ttl": 1}}),
            |_| json!({"result": {"action": "decline"}}),
        )
        .await;
    assert_eq!(heard[0]["params"].get("task"), None, "{heard:?}");
    assert_eq!(outcome(&answer)["answer"]["action"], "decline");

    // Of a server that declares no tasks clients are to make none, whatever its tools say.
    gateway.stdio("deaf", &python("tasking.py", &["plain"])).await;
    gateway.publish("deaf", &["deaf"]).await;
    gateway.ready("deaf").await;
    let client = gateway.client("deaf", &key).await;
    let list = client.request("tools/list", json!({})).await;
    assert_eq!(support(&list), ["forbidden"]);
    let refused = client.request("tools/call", as_task("deaf__work", json!({}))).await;
    assert_eq!(refused["error"]["code"], -32601, "{refused}");
}

#[tokio::test]
async fn for_everybody_but_its_owner_a_task_does_not_exist() {
    let Some((gateway, key, a)) = tasking(Start::new()).await else { return };
    let other_key = gateway.key("other").await;
    let b = able(&gateway, "all", &other_key).await;
    let elsewhere = able(&gateway, "other", &key).await;
    let id = make(&a, json!({"value": "a"})).await;
    let theirs = make(&b, json!({"value": "b"})).await;
    for what in ["get", "result", "cancel"] {
        let unknown = ask(&b, what, "no-such-task").await;
        assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
        for (client, id) in [(&b, &*id), (&a, &*theirs), (&elsewhere, &*id), (&b, "task-1")] {
            assert_eq!(ask(client, what, id).await, unknown, "{what}");
        }
    }
    assert_eq!(listed(&a).await.0, std::slice::from_ref(&id));
    assert_eq!(listed(&b).await.0, [theirs]);
    assert!(listed(&elsewhere).await.0.is_empty());
    assert_eq!(ask(&a, "get", &id).await["result"]["status"], "working");
    // Another session of the same principal is the same owner.
    let again = able(&gateway, "all", &key).await;
    assert_eq!(ask(&again, "get", &id).await["result"]["status"], "working");
}

#[tokio::test]
async fn what_becomes_of_a_task_reaches_the_sessions_of_its_owner() {
    let Some((gateway, key, a)) = tasking(Start::new()).await else { return };
    let b = able(&gateway, "all", &gateway.key("other").await).await;
    let again = able(&gateway, "all", &key).await;
    let older = of_revision(&gateway, &key, "2025-06-18").await;
    let mut streams = [a.listen().await, again.listen().await];
    let (mut on_b, mut on_older) = (b.listen().await, older.listen().await);
    let id = make(&a, json!({"value": "a"})).await;
    let theirs = make(&b, json!({"value": "b"})).await;
    finish(&b, "b").await;
    finish(&a, "a").await;
    let status = async |stream: &mut Exchange| {
        let told =
            stream.events.find("a status", SOON, |message| message["method"] == STATUS).await;
        (told["params"]["taskId"].clone(), told["params"]["status"].clone())
    };
    for stream in &mut streams {
        assert_eq!(status(stream).await, (json!(id), json!("completed")));
    }
    assert_eq!(status(&mut on_b).await, (json!(theirs), json!("completed")));
    // A client of an older revision hears of none: the next that it hears is something else.
    older.request("logging/setLevel", json!({"level": "info"})).await;
    older.text_of("far__log", json!({"n": 1})).await;
    gateway.stdio("new", &python("tasking.py", &[])).await;
    let servers = json!([{"server": "far"}, {"server": "new"}]);
    gateway.replace("namespaces/all/servers", servers).await;
    let next = on_older.events.find("a change", SOON, |_| true).await;
    assert_eq!(next["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_server_asks_the_owner_of_the_task_and_is_answered_by_its_own_name_for_it() {
    let Some((gateway, _, a)) = tasking(Start::new()).await else { return };
    let b = able(&gateway, "all", &gateway.key("other").await).await;
    let arguments = json!({"value": "a", "ask": "who?", "at_once": true, "steps": 2});
    let call = json!({
        "name": "far__work", "arguments": arguments, "task": {}, "_meta": {"progressToken": "tok"},
    });
    let mut on_a = a.listen().await;
    let made = a.request("tools/call", call).await;
    let id = made["result"]["task"]["taskId"].as_str().expect("a task").to_owned();
    let steps = [1.0, 2.0].map(|step| (json!("tok"), json!(step), json!(id)));
    for expected in steps {
        let told = on_a
            .events
            .find("progress", SOON, |message| message["method"] == "notifications/progress")
            .await;
        let params = &told["params"];
        let related = params["_meta"][RELATED]["taskId"].clone();
        assert_eq!(
            (params["progressToken"].clone(), params["progress"].clone(), related),
            expected
        );
    }
    // Another client's call is under way, and it is certain all the same whom the server means.
    let hanging = b.open(&request(json!(9), "tools/call", json!({"name": "far__hang"}))).await;
    let mut waiting = a.open(&request(json!("r"), "tasks/result", json!({"taskId": id}))).await;
    let question = waiting.events.expect("a question", SOON).await.json();
    assert_eq!(question["params"]["message"], "who?");
    assert_eq!(question["params"]["_meta"][RELATED]["taskId"], id);
    let answer = json!({
        "jsonrpc": "2.0", "id": question["id"],
        "result": {"action": "accept", "content": {}, "_meta": {RELATED: {"taskId": id}}},
    });
    a.post(&answer.to_string()).await;
    let result = waiting.events.expect("the result", SOON).await.json();
    let told = outcome(&result);
    assert_eq!(
        (&told["answer"]["action"], &told["status"]),
        (&json!("accept"), &json!("completed"))
    );
    assert_eq!(told["answer"]["_meta"][RELATED]["taskId"], "task-1", "{told}");
    assert_eq!(result["result"]["_meta"][RELATED]["taskId"], id);
    drop(hanging);
}

#[tokio::test]
async fn a_result_is_waited_for_longer_than_a_call_may_be_silent() {
    let start = Start::new().settings("[calls]\ntimeout = \"1s\"\ntotal = \"1s\"");
    let Some((_gateway, _, client)) = tasking(start).await else { return };
    let id = make(&client, json!({"value": "a"})).await;
    let wait = request(json!("r"), "tasks/result", json!({"taskId": id}));
    let (mut waiting, ()) = tokio::join!(client.open(&wait), async {
        is_sent(&client, "tasks/result").await;
        // What begins later and may not wait for so long is over first.
        let given_up = client.call("far__hang", json!({})).await;
        assert_eq!(given_up["error"]["code"], -32603, "{given_up}");
        finish(&client, "a").await;
    });
    let result = waiting.events.expect("the result", SOON).await.json();
    assert_eq!(outcome(&result)["status"], "completed");
}

#[tokio::test]
async fn a_task_is_cancelled_once() {
    let Some((_gateway, _, client)) = tasking(Start::new()).await else { return };
    let id = make(&client, json!({"value": "a"})).await;
    let cancelled = ask(&client, "cancel", &id).await;
    assert_eq!(cancelled["result"]["taskId"], id);
    assert_eq!(cancelled["result"]["status"], "cancelled");
    let again = ask(&client, "cancel", &id).await;
    assert_eq!(again["error"]["message"], "it is cancelled", "the server's own word: {again}");
    assert_eq!(ask(&client, "get", &id).await["result"]["status"], "cancelled");
    let nameless = client.request("tasks/get", json!({"taskId": 7})).await;
    assert_eq!(nameless["error"]["code"], -32602, "{nameless}");
}

#[tokio::test]
async fn tasks_are_listed_by_pages_and_the_oldest_that_is_over_makes_room() {
    let settings = "[calls.tasks]\npage = 2\nper_principal_max = 3";
    let Some((gateway, _, client)) = tasking(Start::new().settings(settings)).await else { return };
    let b = able(&gateway, "all", &gateway.key("other").await).await;
    let mut ids = Vec::new();
    for value in ["a", "b", "c"] {
        ids.push(make(&client, json!({"value": value})).await);
    }
    assert_eq!(listed(&client).await, (ids.clone(), 2));
    let first = client.request("tasks/list", json!({})).await;
    let cursor = first["result"]["nextCursor"].clone();
    for (client, cursor) in [(&client, json!("2")), (&b, cursor), (&client, json!(7))] {
        let refused = client.request("tasks/list", json!({"cursor": cursor})).await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }

    finish(&client, "b").await;
    ask(&client, "result", &ids[1]).await;
    ids.push(make(&client, json!({"value": "d"})).await);
    let over = ids.remove(1);
    assert_eq!(listed(&client).await.0, ids);
    assert_eq!(gateway.metric("metamcpd_limit_hit_total").await, Some(1.0));
    // What was forgotten is only not listed, until somebody asks.
    assert_eq!(ask(&client, "get", &over).await["result"]["status"], "completed");
}

#[tokio::test]
async fn a_task_ends_with_its_process_and_its_name_is_not_another_s() {
    let Some((gateway, _, a)) = tasking(Start::new()).await else { return };
    let b = able(&gateway, "all", &gateway.key("other").await).await;
    let id = make(&a, json!({"value": "a"})).await;
    a.call("far__crash", json!({})).await;
    gateway.ready("far").await;
    let theirs = wait_until("a task of the new process", SOON, async || {
        let made = b.request("tools/call", as_task("far__work", json!({"value": "b"}))).await;
        made["result"]["task"]["taskId"].as_str().map(str::to_owned)
    })
    .await;
    // To the server both are `task-1`.
    let unknown = ask(&a, "get", "no-such-task").await;
    assert_eq!(ask(&a, "get", &id).await, unknown);
    assert!(listed(&a).await.0.is_empty());
    assert_eq!(ask(&b, "get", &theirs).await["result"]["status"], "working");
}

#[tokio::test]
async fn a_tool_that_can_only_be_a_task_is_called_plainly_by_old_clients_and_new_ones() {
    let Some((gateway, key, _)) = tasking(Start::new()).await else { return };
    for version in ["2025-11-25", "2025-06-18", "2024-11-05"] {
        let client = of_revision(&gateway, &key, version).await;
        let arguments = json!({"value": "x", "steps": 2, "ask": "who?", "at_once": true});
        let call = json!({
            "jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": {
                "name": "far__must", "arguments": arguments, "_meta": {"progressToken": "tok"},
            },
        });
        let mut exchange = client.open(&call.to_string()).await;
        let mut steps = Vec::new();
        let last = loop {
            let heard = exchange.events.expect("a message", SOON).await.json();
            for part in ["params", "result"] {
                assert_eq!(heard[part]["_meta"].get(RELATED), None, "{version}: {heard}");
            }
            match heard["method"].as_str() {
                Some("notifications/progress") => {
                    assert_eq!(heard["params"]["progressToken"], "tok");
                    steps.push(heard["params"]["progress"].clone());
                }
                Some("elicitation/create") => {
                    let answer = json!({
                        "jsonrpc": "2.0", "id": heard["id"], "result": {"action": "accept"},
                    });
                    client.post(&answer.to_string()).await;
                }
                Some(other) => panic!("{other} says nothing to {version}"),
                None => break heard,
            }
        };
        assert_eq!(steps, [1.0, 2.0].map(|step| json!(step)), "{version}");
        let told = outcome(&last);
        assert_eq!((&last["id"], &told["status"]), (&json!("c"), &json!("completed")));
        assert!(told["answer"]["_meta"][RELATED]["taskId"].is_string(), "{told}");
        if version == "2025-11-25" {
            assert!(listed(&client).await.0.is_empty(), "it is not the client's");
        }
    }
}

#[tokio::test]
async fn what_is_taken_back_or_takes_too_long_is_cancelled_as_the_task_that_it_is() {
    let start =
        Start::new().settings("[calls]\ntotal = \"3s\"\n[calls.tasks]\npoll_max = \"200ms\"");
    let Some((_gateway, _, client)) = tasking(start).await else { return };
    let call = |value: &str| json!({"name": "far__must", "arguments": {"value": value}});
    let body = request(json!("c"), "tools/call", call("a"));
    let taking_back = async {
        is_sent(&client, r#""method":"tasks/get","params":{"taskId":"task-1"}"#).await;
        client.notify("notifications/cancelled", json!({"requestId": "c"})).await;
        is_sent(&client, r#""method":"tasks/cancel","params":{"taskId":"task-1"}"#).await;
    };
    let (silent, ()) =
        within("both", SOON, async { tokio::join!(client.post(&body), taking_back) }).await;
    assert!(silent.messages.is_empty(), "{silent:?}");
    assert!(!lines(&client).await.iter().any(|line| line.contains("notifications/cancelled")));

    let late = client.request("tools/call", call("b")).await;
    assert_eq!(late["error"]["data"]["reason"], "call_total_timeout", "{late}");
    is_sent(&client, r#""method":"tasks/cancel","params":{"taskId":"task-2"}"#).await;
}
