//! URIs that two servers have: each is reached by a URI of its own and comes back under it, wherever
//! it is spoken of, over both transports; what was shown once stays; and no other byte is touched.

use serde_json::{Value, json};

use crate::support::{
    Client, SOON, SseClient, TestGateway,
    fixtures::without_python,
    python,
    shelf::{Shelf, items},
    wait_until,
};

const UPDATED: &str = "notifications/resources/updated";

/// A client over either transport.
enum Door {
    Http(Client),
    Sse(Box<SseClient>),
}

impl Door {
    async fn both(gateway: &TestGateway) -> [Door; 2] {
        let key = gateway.key("doors").await;
        let http = gateway.client("all", &key).await;
        let sse = gateway.sse_client("all", &key).await;
        [Door::Http(http), Door::Sse(Box::new(sse))]
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        match self {
            Door::Http(client) => client.request(method, params).await,
            Door::Sse(client) => client.request(json!("id"), method, params).await,
        }
    }

    async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// The URI and the text of what was read.
    async fn read(&self, uri: &str) -> (String, String) {
        let answer = self.ask("resources/read", json!({"uri": uri})).await;
        let contents = &answer["result"]["contents"][0];
        let text = |field: &str| contents[field].as_str().map(str::to_owned);
        let (Some(uri), Some(text)) = (text("uri"), text("text")) else {
            panic!("{uri}: {answer}");
        };
        (uri, text)
    }

    async fn uris(&self) -> Vec<String> {
        let answer = self.ask("resources/list", json!({})).await;
        keys(&answer["result"]["resources"], "uri")
    }

    async fn templates(&self) -> Vec<String> {
        let answer = self.ask("resources/templates/list", json!({})).await;
        keys(&answer["result"]["resourceTemplates"], "uriTemplate")
    }
}

fn keys(items: &Value, key: &str) -> Vec<String> {
    let items = items.as_array().unwrap_or_else(|| panic!("no list: {items}"));
    items.iter().filter_map(|item| item[key].as_str()).map(str::to_owned).collect()
}

const EMBEDS: &str = r#"{"messages":[{"role":"user","content":{"type":"text","text":"see u://both"}},{"role":"user","content":{ "resource" : {"x":1.0,"uri" : "u:\/\/both","text":"u://both"},"type":"resource"}}],"zz":1.50}"#;

/// Two servers that share a resource and a template, in a namespace that hides the later's.
async fn two_shelves() -> (TestGateway, Shelf, Shelf, Client) {
    let gateway = TestGateway::start().await;
    let one = [
        ("resources", &*items("uri", &["u://one", "u://both"])),
        ("resourceTemplates", &*items("uriTemplate", &["t://{id}"])),
    ];
    let two = [
        ("prompts", &*items("name", &["p"])),
        ("resources", &*items("uri", &["u://both", "u://two"])),
        ("resourceTemplates", &*items("uriTemplate", &["t://{id}", "v://{x}"])),
        ("prompt_result", EMBEDS),
    ];
    let one = Shelf::new(&gateway, "one", &one).await;
    let two = Shelf::new(&gateway, "two", &two).await;
    let client = gateway.client_of(&["one", "two"]).await;
    (gateway, one, two, client)
}

async fn rewrite(gateway: &TestGateway, uri_naming: &str) {
    let row = gateway.change("namespaces/all", json!({"uri_naming": uri_naming})).await;
    assert_eq!(row["uri_naming"], uri_naming, "{row}");
}

#[tokio::test]
async fn each_of_two_is_read_linked_embedded_and_completed_under_its_own_uri() {
    if without_python() {
        return;
    }
    let (gateway, _one, _two, client) = two_shelves().await;
    let client = Door::Http(client);
    assert_eq!(client.uris().await, ["u://one", "u://both", "u://two"], "unless it is asked for");
    assert_eq!(client.templates().await, ["t://{id}", "v://{x}"]);
    let Door::Http(http) = &client else { unreachable!() };
    let mut stream = http.listen().await;
    rewrite(&gateway, "ON_CONFLICT").await;
    let is_change = |message: &Value| {
        message["method"].as_str().is_some_and(|method| method.ends_with("list_changed"))
    };
    let told = stream.events.find("the change", SOON, is_change).await;
    assert_eq!(told["method"], "notifications/resources/list_changed", "and of nothing else");

    for (number, door) in Door::both(&gateway).await.into_iter().enumerate() {
        let expected = ["u://one", "u://both", "mcp+two+u://both", "u://two"];
        assert_eq!(door.uris().await, expected);
        assert_eq!(door.templates().await, ["t://{id}", "mcp+two+t://{id}", "v://{x}"]);
        for (uri, text) in [
            ("u://both", "one u://both"),
            ("mcp+two+u://both", "two u://both"),
            ("u://two", "two u://two"),
            ("t://7", "one t://7"),
            ("mcp+two+t://a%20b", "two t://a%20b"),
            ("v://7", "two v://7"),
            // Whoever kept a URI from when all were rewritten has what it had.
            ("mcp+one+u://one", "one u://one"),
        ] {
            assert_eq!(door.read(uri).await, (uri.to_owned(), text.to_owned()));
        }
        for uri in ["mcp+nobody+u://both", "mcp+two+", "mcp+u://both"] {
            let answer = door.ask("resources/read", json!({"uri": uri})).await;
            assert_eq!(answer["error"]["code"], -32002, "{answer}");
            assert_eq!(answer["error"]["data"]["uri"], uri, "{answer}");
        }

        let fresh = format!("n://{number}");
        let link = async |tool: &str, uri: &str| {
            let answer = door.call(tool, json!({"uri": uri})).await;
            let content = &answer["result"]["content"][0];
            let said = content["uri"].as_str().or_else(|| content["resource"]["uri"].as_str());
            said.unwrap_or_else(|| panic!("{answer}")).to_owned()
        };
        for (tool, uri, shown) in [
            ("one__link", "u://both", "u://both"),
            ("two__link", "u://both", "mcp+two+u://both"),
            ("two__embed", "u://both", "mcp+two+u://both"),
            ("two__link", "u://two", "u://two"),
            ("two__link", "t://8", "mcp+two+t://8"),
            ("one__embed", "t://8", "t://8"),
            // What no list has belongs to who spoke of it first.
            ("one__link", &*fresh, &*fresh),
            ("two__link", &*fresh, &*format!("mcp+two+{fresh}")),
            ("one__link", &*fresh, &*fresh),
            // And what would be taken for another's is not left as it came.
            ("one__link", "mcp+two+u://x", "mcp+one+mcp+two+u://x"),
        ] {
            assert_eq!(link(tool, uri).await, shown, "{tool} {uri}");
            let (label, _) = tool.split_once("__").expect("a prefix");
            let read = door.read(shown).await;
            assert_eq!(read, (shown.to_owned(), format!("{label} {uri}")), "{tool}");
        }

        let got = door.ask("prompts/get", json!({"name": "two__p"})).await;
        let messages = &got["result"]["messages"];
        assert_eq!(messages[0]["content"]["text"], "see u://both", "texts are nobody's to change");
        let embedded = &messages[1]["content"]["resource"];
        assert_eq!(*embedded, json!({"x": 1.0, "uri": "mcp+two+u://both", "text": "u://both"}));

        for (uri, value) in [
            ("t://{id}", "one t://{id} v"),
            ("mcp+two+t://{id}", "two t://{id} v"),
            ("v://{x}", "two v://{x} v"),
            ("mcp+two+u://both", "two u://both v"),
        ] {
            let params = json!({
                "ref": {"type": "ref/resource", "uri": uri}, "argument": {"name": "a", "value": "v"},
            });
            let answer = door.ask("completion/complete", params).await;
            assert_eq!(answer["result"]["completion"]["values"], json!([value]), "{answer}");
        }
    }
    let seen = gateway.get("namespaces/all/resources?server=two&key=u://both").await;
    let seen = &seen["items"][0];
    assert_eq!((&seen["key"], &seen["shown_as"]), (&json!("u://both"), &json!("mcp+two+u://both")));
    assert_eq!((&seen["hidden"], &seen["taken_by"]), (&Value::Null, &Value::Null), "{seen}");
    let hidden = gateway.get("namespaces?uri_naming=NEVER").await;
    assert_eq!(hidden["items"], json!([]), "{hidden}");
}

#[tokio::test]
async fn what_changes_is_told_under_the_uri_that_was_subscribed_to() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    for label in ["one", "two"] {
        gateway.stdio(label, &python("watched.py", &[label])).await;
    }
    let client = gateway.client_of(&["one", "two"]).await;
    rewrite(&gateway, "ON_CONFLICT").await;
    let subscribe = async |door: &Door, uri: &str| {
        let answer = door.ask("resources/subscribe", json!({"uri": uri})).await;
        assert_eq!(answer["result"], json!({}), "{uri}: {answer}");
    };
    let change = async |label: &str| {
        client.text_of(&format!("{label}__change"), json!({"uri": "u://a"})).await
    };
    let update_of = |uri: &str| {
        format!(
            r#"{{"method":"{UPDATED}","jsonrpc":"2.0", "params":{{ "uri" : "{uri}", "n":1.0, "z": 12345678901234567890123}}}}"#
        )
    };
    const OTHERS: &str = "mcp+two+u://a";
    for door in Door::both(&gateway).await {
        let mut standing = match &door {
            Door::Http(client) => Some(client.listen().await),
            Door::Sse(_) => None,
        };
        let mut hears = async |uri: &str| {
            let said = match (&mut standing, &door) {
                (Some(stream), _) => stream.events.expect_but_lists("an update", SOON).await.data,
                (None, Door::Sse(client)) => {
                    client.stream().await.expect_but_lists("an update", SOON).await.data
                }
                (None, Door::Http(_)) => unreachable!(),
            };
            assert_eq!(said, update_of(uri));
        };
        subscribe(&door, OTHERS).await;
        assert_eq!(change("one").await, "False", "the other server was not asked");
        assert_eq!(change("two").await, "True");
        hears(OTHERS).await;
        subscribe(&door, "u://a").await;
        assert_eq!(change("one").await, "True");
        hears("u://a").await;

        // Each ends by itself.
        let unsubscribe = async |uri: &str| {
            let answer = door.ask("resources/unsubscribe", json!({"uri": uri})).await;
            assert_eq!(answer["result"], json!({}), "{answer}");
        };
        unsubscribe("u://a").await;
        wait_until("it is unsubscribed", SOON, async || {
            (change("one").await == "False").then_some(())
        })
        .await;
        assert_eq!(change("two").await, "True");
        hears(OTHERS).await;
        unsubscribe(OTHERS).await;
        wait_until("it is unsubscribed", SOON, async || {
            (change("two").await == "False").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn who_was_first_keeps_a_uri_over_restarts_and_whatever_the_order() {
    if without_python() {
        return;
    }
    let (mut gateway, one, _two, client) = two_shelves().await;
    let client = Door::Http(client);
    rewrite(&gateway, "ON_CONFLICT").await;
    assert_eq!(client.read("mcp+two+u://both").await.1, "two u://both");
    let order = json!(["two", "one"]);
    gateway.replace("namespaces/all/servers", order).await;
    let expected = ["mcp+two+u://both", "u://two", "u://one", "u://both"];
    assert_eq!(client.uris().await, expected, "the order is another, and the URIs are not");
    assert_eq!(client.templates().await, ["mcp+two+t://{id}", "v://{x}", "t://{id}"]);

    gateway.restart().await;
    let key = gateway.key("later").await;
    let client = Door::Http(gateway.client("all", &key).await);
    assert_eq!(client.uris().await, expected);
    one.put("resources", &items("uri", &["u://one"]));
    wait_until("it lists less", SOON, async || (client.uris().await.len() == 3).then_some(()))
        .await;
    assert_eq!(client.uris().await, ["mcp+two+u://both", "u://two", "u://one"]);
    gateway.restart().await;
    let client = Door::Http(gateway.client("all", &key).await);
    assert_eq!(client.uris().await, ["mcp+two+u://both", "u://two", "u://one"]);

    // And what an operator has switched off is reached by no name.
    let path = "namespaces/all/resources?server=two&key=u://both";
    gateway.change(path, json!({"status": "INACTIVE"})).await;
    assert_eq!(client.uris().await, ["u://two", "u://one"]);
    let answer = client.ask("resources/read", json!({"uri": "mcp+two+u://both"})).await;
    assert_eq!(answer["error"]["code"], -32002, "{answer}");
    rewrite(&gateway, "NEVER").await;
    let answer = client.ask("resources/read", json!({"uri": "mcp+two+u://two"})).await;
    assert_eq!(answer["error"]["code"], -32002, "nothing is rewritten any more: {answer}");
}

#[tokio::test]
async fn all_may_be_rewritten_and_every_other_byte_arrives_as_it_was_sent() {
    const RESOURCE: &str = r#"{"uri":"u:\/\/caf\u00e9","name":"u://caf\u00e9","size":1E400,"annotations":{"x":[1.0 , null]},"uri2":{"uri":"u://a"}}"#;
    const TEMPLATE: &str = r#"{"name":"n","uriTemplate" : "u://{+odd}","_meta":{"n":1.50}}"#;
    const READ: &str = r#"{"contents":[{"uri":"u:\/\/caf\u00e9","blob":"","odd":1E-400},{"type":"future"},{"uri" : "v://other"}],"_meta":{"dup":1,"dup":2}}"#;
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let list = |item: &str| format!("[{item}]");
    let files = [
        ("resources", &*list(RESOURCE)),
        ("resourceTemplates", &*list(TEMPLATE)),
        ("read_result", READ),
        ("prompts", r#"[{"name":"p"}]"#),
        ("prompt_result", EMBEDS),
    ];
    Shelf::new(&gateway, "Odd_One", &files).await;
    let client = gateway.client_of(&["Odd_One"]).await;
    rewrite(&gateway, "ALWAYS").await;
    let answer = async |body: &str| client.post(body).await.messages.remove(0);
    let prefixed = |text: &str| {
        let text = text.replace(r#""uri":"u:\/\/"#, r#""uri":"mcp+.odd...one+u:\/\/"#);
        let text = text.replace(r#""uri" : "u:\/\/"#, r#""uri" : "mcp+.odd...one+u:\/\/"#);
        let text = text.replace(r#""uri" : "v:"#, r#""uri" : "mcp+.odd...one+v:"#);
        text.replace(r#""uriTemplate" : "u:"#, r#""uriTemplate" : "mcp+.odd...one+u:"#)
    };
    for (method, field, item) in [
        ("resources/list", "resources", RESOURCE),
        ("resources/templates/list", "resourceTemplates", TEMPLATE),
    ] {
        let said = answer(&format!(r#"{{"jsonrpc":"2.0","id":"x","method":"{method}"}}"#)).await;
        let item = prefixed(item);
        let expected = format!(r#"{{"jsonrpc":"2.0","id":"x","result":{{"{field}":[{item}]}}}}"#);
        assert_eq!(said, expected);
    }
    let read = |uri: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":9,"method":"resources/read","params":{{"zz":-0, "uri" :{uri}}}}}"#
        )
    };
    const OWN: &str = r#""u:\/\/caf\u00e9""#;
    let asked = read(r#""mcp+.odd...one+u:\/\/caf\u00e9""#);
    let expected = format!(r#"{{"jsonrpc":"2.0","id":9,"result":{}}}"#, prefixed(READ));
    assert_eq!(answer(&asked).await, expected);
    let got = r#"{"jsonrpc":"2.0","id":9,"method":"prompts/get","params":{"name":"Odd_One__p"}}"#;
    let expected = format!(r#"{{"jsonrpc":"2.0","id":9,"result":{}}}"#, prefixed(EMBEDS));
    assert_eq!(answer(got).await, expected);

    // And in the other direction, also where the prefix itself was written in other letters.
    let came = async || {
        let came = client.text_of("Odd_One__said", json!({"text": "resources/read"})).await;
        let (_, params) = came.split_once(r#""params""#).expect("parameters");
        params.to_owned()
    };
    assert_eq!(came().await, format!(r#":{{"zz":-0, "uri" :{OWN}}}}}"#));
    let asked = read(r#""mcp\u002b.odd...one+u:\/\/caf\u00e9""#);
    assert!(answer(&asked).await.contains("result"));
    assert_eq!(came().await, r#":{"zz":-0, "uri" :"u://café"}}"#);
}
