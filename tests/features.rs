//! What servers offer besides tools, through the gateway: prompts, resources, templates and
//! completions, merged, routed, decided about, announced, and kept byte for byte.

use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    fixtures::without_python,
    gateway::Start,
    shelf::{Shelf, items},
    wait_until, within,
};

fn uris(uris: &[&str]) -> String {
    items("uri", uris)
}

/// The names, URIs or templates that a list holds.
async fn listed(client: &Client, method: &str, field: &str, key: &str) -> Vec<String> {
    let page = client.request(method, json!({})).await;
    let items = page["result"][field].as_array().unwrap_or_else(|| panic!("no {field}: {page}"));
    items.iter().filter_map(|item| item[key].as_str()).map(str::to_owned).collect()
}

async fn prompts(client: &Client) -> Vec<String> {
    listed(client, "prompts/list", "prompts", "name").await
}

async fn resources(client: &Client) -> Vec<String> {
    listed(client, "resources/list", "resources", "uri").await
}

async fn templates(client: &Client) -> Vec<String> {
    listed(client, "resources/templates/list", "resourceTemplates", "uriTemplate").await
}

async fn read(client: &Client, uri: &str) -> Value {
    client.request("resources/read", json!({"uri": uri})).await
}

/// The text that a resource was read as.
async fn text_at(client: &Client, uri: &str) -> String {
    let answer = read(client, uri).await;
    let text = answer["result"]["contents"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("{uri}: {answer}")).to_owned()
}

async fn complete(client: &Client, reference: Value) -> Value {
    let argument = json!({"name": "a", "value": "v"});
    client.request("completion/complete", json!({"ref": reference, "argument": argument})).await
}

#[tokio::test]
async fn what_no_upstream_has_is_an_empty_list_and_no_error() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let mut client = gateway.client_of(&["demo"]).await;
    assert!(prompts(&client).await.is_empty());
    assert!(resources(&client).await.is_empty());
    assert!(templates(&client).await.is_empty());
    let missing = read(&client, "u://nowhere").await;
    assert_eq!(missing["error"]["code"], -32002, "{missing}");
    assert_eq!(missing["error"]["data"]["uri"], "u://nowhere", "{missing}");
    let unknown = client.request("prompts/get", json!({"name": "none"})).await;
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");

    let before = client.initialize("2025-11-25").await.json()["result"]["capabilities"].clone();
    for topic in ["tools", "prompts", "resources"] {
        assert_eq!(before[topic]["listChanged"], true, "{before}");
    }
    gateway.change("mcp-servers/demo", json!({"enabled": false})).await;
    let after = client.initialize("2025-11-25").await.json()["result"]["capabilities"].clone();
    assert_eq!(before, after, "who is up just now is of no account");
}

#[tokio::test]
async fn prompts_and_resources_of_many_upstreams_look_like_those_of_one() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let prompts_of = |names: &[&str]| {
        json!(names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()).to_string()
    };
    let one = [
        ("prompts", &*prompts_of(&["greet", "part"])),
        ("resources", &*uris(&["u://one", "u://both"])),
        ("resourceTemplates", r#"[{"uriTemplate":"u://{+all}","name":"all"}]"#),
    ];
    let two = [
        ("prompts", &*prompts_of(&["greet"])),
        ("resources", &*uris(&["u://both", "u://two"])),
        ("resourceTemplates", r#"[{"uriTemplate":"u://two/{id}","name":"two"}]"#),
    ];
    Shelf::new(&gateway, "one", &one).await;
    let second = Shelf::new(&gateway, "two", &two).await;
    let client = gateway.client_of(&["one", "two"]).await;

    assert_eq!(prompts(&client).await, ["one__greet", "one__part", "two__greet"]);
    let greeting = client.request("prompts/get", json!({"name": "two__greet"})).await;
    assert_eq!(greeting["result"]["messages"][0]["content"]["text"], "two greet", "{greeting}");

    assert_eq!(resources(&client).await, ["u://one", "u://both", "u://two"]);
    assert_eq!(templates(&client).await, ["u://{+all}", "u://two/{id}"]);
    for (uri, text) in [
        ("u://both", "one u://both"),
        ("u://two", "two u://two"),
        ("u://two/7", "two u://two/7"),
        ("u://anything/else", "one u://anything/else"),
    ] {
        assert_eq!(text_at(&client, uri).await, text);
    }
    let hidden = gateway.get("namespaces/all/resources?server=two&key=u://both").await;
    let hidden = &hidden["items"][0];
    assert_eq!((&hidden["hidden"], &hidden["taken_by"]), (&json!("uri_taken"), &json!("one")));

    let values = |answer: Value| answer["result"]["completion"]["values"].clone();
    let by_prompt = complete(&client, json!({"type": "ref/prompt", "name": "two__greet"})).await;
    assert_eq!(values(by_prompt), json!(["two greet v"]));
    for (uri, label) in [("u://two/{id}", "two"), ("u://two/7", "two"), ("u://one", "one")] {
        let by_uri = complete(&client, json!({"type": "ref/resource", "uri": uri})).await;
        assert_eq!(values(by_uri), json!([format!("{label} {uri} v")]));
    }
    second.put("completes_nothing", "x");
    let nothing = complete(&client, json!({"type": "ref/prompt", "name": "two__greet"})).await;
    assert_eq!(values(nothing), json!([]));
    let unknown = complete(&client, json!({"type": "ref/prompt", "name": "greet"})).await;
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
}

#[tokio::test]
async fn every_page_of_every_kind_is_listed_and_no_cursor_of_others_is_taken() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let files = [
        ("prompts", r#"[{"name":"a"}]"#),
        ("prompts+", r#"[{"name":"b"},{"name":"a"}]"#),
        ("prompts++", r#"[{"name":"c"}]"#),
        ("resources", &*uris(&["u://a"])),
        ("resources+", &*uris(&["u://b"])),
        ("resourceTemplates", "[]"),
        ("resourceTemplates+", r#"[{"uriTemplate":"v://{x}","name":"x"}]"#),
    ];
    Shelf::new(&gateway, "one", &files).await;
    let client = gateway.client_of(&["one"]).await;
    assert_eq!(prompts(&client).await, ["one__a", "one__b", "one__c"]);
    assert_eq!(resources(&client).await, ["u://a", "u://b"]);
    assert_eq!(templates(&client).await, ["v://{x}"]);
    for method in ["prompts/list", "resources/list", "resources/templates/list"] {
        for cursor in ["+", "", "anything"] {
            let answer = client.request(method, json!({"cursor": cursor})).await;
            assert_eq!(answer["error"]["code"], -32602, "{method}: {answer}");
        }
    }
}

#[tokio::test]
async fn what_a_session_never_listed_it_can_use_all_the_same() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let files = [
        ("prompts", r#"[{"name":"p"}]"#),
        ("resources", &*uris(&["u://a"])),
        ("resourceTemplates", r#"[{"uriTemplate":"v://{x}","name":"x"}]"#),
    ];
    for label in ["one", "two"] {
        Shelf::new(&gateway, label, if label == "one" { &files } else { &[] }).await;
    }
    // From its very first moment on: who lists it may still be starting.
    let client = gateway.client_of(&["one", "two"]).await;
    assert_eq!(text_at(&client, "v://deep").await, "one v://deep");
    assert_eq!(text_at(&client, "u://a").await, "one u://a");
    let got = client.request("prompts/get", json!({"name": "one__p"})).await;
    assert_eq!(got["result"]["messages"][0]["content"]["text"], "one p", "{got}");
}

#[tokio::test]
async fn a_resource_that_only_a_result_spoke_of_can_be_read() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    for label in ["one", "two"] {
        Shelf::new(&gateway, label, &[]).await;
    }
    let client = gateway.client_of(&["one", "two"]).await;
    client.tools().await;
    let lost = read(&client, "u://linked").await;
    assert_eq!(lost["error"]["code"], -32002, "either could have it: {lost}");
    client.call("two__link", json!({"uri": "u://linked"})).await;
    client.call("one__embed", json!({"uri": "u://embedded"})).await;
    assert_eq!(text_at(&client, "u://linked").await, "two u://linked");
    assert_eq!(text_at(&client, "u://embedded").await, "one u://embedded");

    // With one upstream there is nobody else to ask.
    gateway.publish("lone", &["two"]).await;
    let key = gateway.key("lone").await;
    let client = gateway.client("lone", &key).await;
    assert_eq!(text_at(&client, "u://never/seen").await, "two u://never/seen");
}

#[tokio::test]
async fn what_is_switched_off_is_neither_listed_nor_reached() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let files = [
        ("prompts", r#"[{"name":"p"},{"name":"q"}]"#),
        ("resources", &*uris(&["u://a", "u://b"])),
        ("resourceTemplates", r#"[{"uriTemplate":"u://{x}","name":"x"}]"#),
    ];
    let shelf = Shelf::new(&gateway, "one", &files).await;
    let client = gateway.client_of(&["one"]).await;
    assert_eq!(resources(&client).await, ["u://a", "u://b"]);
    let mut stream = client.listen().await;
    for (kinds, key) in [("prompts", "p"), ("resources", "u://a")] {
        let path = format!("namespaces/all/{kinds}?key={key}");
        let changed = gateway.change(&path, json!({"status": "INACTIVE"})).await;
        assert_eq!(changed["changed"], 1, "{changed}");
    }
    let told = |method: &'static str| move |message: &Value| message["method"] == method;
    let methods = ["notifications/prompts/list_changed", "notifications/resources/list_changed"];
    for method in methods {
        stream.events.find(method, SOON, told(method)).await;
    }
    assert_eq!(prompts(&client).await, ["one__q"]);
    assert_eq!(resources(&client).await, ["u://b"]);
    let read_off = read(&client, "u://a").await;
    assert_eq!(read_off["error"]["code"], -32002, "a template would have had it: {read_off}");
    for name in ["one__p", "p"] {
        let got = client.request("prompts/get", json!({"name": name})).await;
        assert_eq!(got["error"]["code"], -32602, "{got}");
    }

    // What was decided outlives what the upstream does.
    shelf.put("resources", "[]");
    wait_until("an empty list", SOON, async || resources(&client).await.is_empty().then_some(()))
        .await;
    shelf.put("resources", &uris(&["u://a", "u://c"]));
    let seen = wait_until("the new list", SOON, async || {
        Some(resources(&client).await).filter(|seen| !seen.is_empty())
    })
    .await;
    assert_eq!(seen, ["u://c"]);
}

#[tokio::test]
async fn each_change_is_announced_as_what_it_is_and_to_those_who_see_it() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let shelf = Shelf::new(&gateway, "one", &[("prompts", "[]"), ("resources", "[]")]).await;
    let client = gateway.client_of(&["one"]).await;
    assert!(prompts(&client).await.is_empty() && resources(&client).await.is_empty());
    assert!(templates(&client).await.is_empty());
    let mut stream = client.listen().await;
    for (file, content, method) in [
        ("prompts", r#"[{"name":"new"}]"#, "notifications/prompts/list_changed"),
        ("resources", r#"[{"uri":"u://new","name":"n"}]"#, "notifications/resources/list_changed"),
        (
            "resourceTemplates",
            r#"[{"uriTemplate":"u://{x}","name":"n"}]"#,
            "notifications/resources/list_changed",
        ),
    ] {
        shelf.put(file, content);
        let is_change = |message: &Value| {
            message["method"].as_str().is_some_and(|method| method.ends_with("list_changed"))
        };
        let told = stream.events.find(file, SOON, is_change).await;
        assert_eq!(told["method"], method, "{file}: nothing else is announced");
    }
    assert_eq!(prompts(&client).await, ["one__new"]);
    assert_eq!(templates(&client).await, ["u://{x}"]);
}

#[tokio::test]
async fn lists_and_instructions_outlive_their_upstream_and_the_daemon() {
    if without_python() {
        return;
    }
    let mut gateway = Start::new()
        .settings("[supervision]\nbackoff_min = \"60s\"\nbackoff_max = \"60s\"")
        .run()
        .await;
    let files = [
        ("prompts", r#"[{"name":"p", "z":1.0}]"#),
        ("resources", r#"[{"uri":"u:\/\/a","name":"a","size":12345678901234567890123}]"#),
        ("resourceTemplates", r#"[{"uriTemplate":"u://{x}","name":"x"}]"#),
    ];
    Shelf::new(&gateway, "one", &files).await;
    let mut client = gateway.client_of(&["one"]).await;
    let seen = async |client: &Client| {
        let mut lists = Vec::new();
        for method in ["prompts/list", "resources/list", "resources/templates/list"] {
            let request = crate::support::client::request(json!(1), method, json!({}));
            lists.push(client.post(&request).await.messages.remove(0));
        }
        lists
    };
    let before = seen(&client).await;
    let instructions =
        client.initialize("2025-11-25").await.json()["result"]["instructions"].clone();
    assert_eq!(instructions, "# one\n\nAsk one nicely.");
    // Nothing is left that could be started.
    let gone = gateway.scratch().join("one");
    gateway.stop().await;
    std::fs::remove_dir_all(&gone).expect("the directory goes");
    std::fs::write(&gone, "no directory").expect("a file in its place");
    gateway.restart().await;
    let key = gateway.key("later").await;
    let mut client = gateway.client("all", &key).await;
    let after = within("the lists", SOON, seen(&client)).await;
    assert_eq!(before, after, "byte for byte");
    let reply = client.initialize("2025-11-25").await.json();
    assert_eq!(reply["result"]["instructions"], instructions);
}

#[tokio::test]
async fn what_is_malformed_falls_out_alone_and_is_reported() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let files = [
        ("prompts", r#"[{"name":"good"},null,{"title":"nameless"},{"name":"good"}]"#),
        ("resources", r#"[{"name":"no uri"},{"uri":"u://a","name":"a"},{"uri":7}]"#),
        ("resourceTemplates", r#"{"not":"a list"}"#),
    ];
    Shelf::new(&gateway, "one", &files).await;
    let client = gateway.client_of(&["one"]).await;
    assert_eq!(prompts(&client).await, ["one__good"]);
    assert_eq!(resources(&client).await, ["u://a"]);
    assert!(templates(&client).await.is_empty());
    assert_eq!(client.tools().await.len(), 3, "a bad list of one kind takes no other away");
    let is_told = |server: &Value| server["runtime"]["list_error"].is_string();
    let server = gateway.server_until("one", "told", is_told).await;
    let malformed = server["runtime"]["malformed"].to_string();
    for part in [
        "prompt: it is not a JSON object",
        "prompt: it has no `name`",
        "prompt: `good` was listed before",
        "resource: it has no `uri`",
        "resource: its `uri` is not a string",
    ] {
        assert!(malformed.contains(part), "{part}: {malformed}");
    }
    let error = server["runtime"]["list_error"].to_string();
    assert!(error.contains("resourceTemplates"), "{error}");
}

/// What careless software changes: unknown fields, numbers that fit no machine type, escapes,
/// duplicate keys, strange spacing, content types of the future.
#[tokio::test]
async fn every_byte_arrives_as_it_was_sent_but_for_the_names_that_are_ours() {
    const PROMPT: &str = r#"{"zz":1e400 , "name":"p\u0061", "arguments":[{"name":"a","x":0.10}],"icons":[{"src":"data:,"}],"_meta":{"b":12345678901234567890123,"a":-0}}"#;
    const RESOURCE: &str = r#"{"uri":"u:\/\/caf\u00e9\ud83d\ude00","name":"é \u2028","size":1E400,"annotations":{"priority":0.50,"x":[1.0 , null]},"x":{"k":1,"k":2}}"#;
    const TEMPLATE: &str =
        r#"{"uriTemplate":"u://{+odd}","name":"n","mimeType":"x/y;\u0000","_meta":{"n":1.50}}"#;
    const GOT: &str = r#"{"messages":[{"role":"user","content":{"type":"hologram","beam":1e400,"\u0061":2}}],"description":"\u0000","zz":[12345678901234567890123]}"#;
    const READ: &str = r#"{"contents":[{"uri":"v://other","blob":"","odd":1E-400},{"type":"future"}],"_meta":{"dup":1,"dup":2}}"#;
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let list = |item: &str| format!("[{item}]");
    let files = [
        ("prompts", &*list(PROMPT)),
        ("resources", &*list(RESOURCE)),
        ("resourceTemplates", &*list(TEMPLATE)),
        ("prompt_result", GOT),
        ("read_result", READ),
    ];
    Shelf::new(&gateway, "odd", &files).await;
    let client = gateway.client_of(&["odd"]).await;
    client.tools().await;
    let answer = async |body: &str| client.post(body).await.messages.remove(0);
    let renamed = PROMPT.replace(r#""p\u0061""#, r#""odd__pa""#);
    for (method, field, item) in [
        ("prompts/list", "prompts", &*renamed),
        ("resources/list", "resources", RESOURCE),
        ("resources/templates/list", "resourceTemplates", TEMPLATE),
    ] {
        let said = answer(&format!(r#"{{"jsonrpc":"2.0","id":"x","method":"{method}"}}"#)).await;
        let expected = format!(r#"{{"jsonrpc":"2.0","id":"x","result":{{"{field}":[{item}]}}}}"#);
        assert_eq!(said, expected);
    }
    const ODD: &str = r#""arguments":{"a":1e400, "b":"\u0041","c":12345678901234567890123}"#;
    let request = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":9,"method":"{method}","params":{{{params},"q":1.0}}}}"#)
    };
    let get = request("prompts/get", &format!(r#""name":"odd__p\u0061",{ODD}"#));
    assert_eq!(answer(&get).await, format!(r#"{{"jsonrpc":"2.0","id":9,"result":{GOT}}}"#));
    let read = request("resources/read", r#""uri":"u:\/\/caf\u00e9\ud83d\ude00","zz":-0"#);
    assert_eq!(answer(&read).await, format!(r#"{{"jsonrpc":"2.0","id":9,"result":{READ}}}"#));
    let complete = request(
        "completion/complete",
        r#""ref":{ "x":1.0,"name":"odd__pa" ,"type":"ref\/prompt"},"argument":{"name":"a","value":"\u0041"},"context":{"n":1E2}"#,
    );
    let completed = answer(&complete).await;
    assert!(completed.contains("odd pa A"), "{completed}");

    // And in the other direction: only the id and the names are ours.
    for (sent, name, own) in [
        (&get, r#""odd__p\u0061""#, r#""p\u0061""#),
        (&read, "", ""),
        (&complete, r#""odd__pa""#, r#""p\u0061""#),
    ] {
        let method = sent.split(r#""method":"#).nth(1).expect("a method");
        let method = method.split(',').next().expect("its end");
        let came = client.text_of("odd__said", json!({"text": method})).await;
        let without_id = |text: &str| {
            let (head, rest) = text.split_once(r#""id":"#).expect("an id");
            let digits = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
            format!("{head}{digits}")
        };
        assert_eq!(without_id(&came), without_id(&sent.replace(name, own)));
    }
}
