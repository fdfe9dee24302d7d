//! Lists in pages: every item on one of them, once, whatever happens between two; and cursors that
//! are good for one list of one endpoint, over restarts of the daemon, and for nothing else.

use serde_json::{Value, json};

use crate::support::{
    Client, SOON, SseClient, TestGateway,
    fixtures::without_python,
    gateway::Start,
    shelf::{Shelf, items},
    wait_until,
};

const LISTS: [(&str, &str, &str); 4] = [
    ("tools/list", "tools", "name"),
    ("prompts/list", "prompts", "name"),
    ("resources/list", "resources", "uri"),
    ("resources/templates/list", "resourceTemplates", "uriTemplate"),
];

const PAGES_OF_TWO: &str = "[lists]\npage_size = 2";

/// Two upstreams that each offer something of every kind.
async fn offers(gateway: &TestGateway) -> [Shelf; 2] {
    let one = [
        ("prompts", &*items("name", &["p", "q"])),
        ("resources", &*items("uri", &["u://b", "u://a"])),
        ("resourceTemplates", &*items("uriTemplate", &["t://{x}", "t://{+y}"])),
    ];
    let two = [
        ("prompts", &*items("name", &["p"])),
        ("resources", &*items("uri", &["u://c", "u://d", "u://e"])),
        ("resourceTemplates", &*items("uriTemplate", &["v://{x}"])),
    ];
    [Shelf::new(gateway, "one", &one).await, Shelf::new(gateway, "two", &two).await]
}

async fn page(client: &Client, method: &str, cursor: Option<&str>) -> Value {
    let params = cursor.map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
    let answer = client.request(method, params).await;
    assert!(answer["result"].is_object(), "{method}: {answer}");
    answer["result"].clone()
}

fn keys(page: &Value, field: &str, key: &str) -> Vec<String> {
    let items = page[field].as_array().unwrap_or_else(|| panic!("no {field}: {page}"));
    items.iter().filter_map(|item| item[key].as_str()).map(str::to_owned).collect()
}

/// Every page, its keys in the order in which they came.
async fn walk(ask: impl AsyncFn(Value) -> Value, field: &str, key: &str) -> Vec<Vec<String>> {
    let (mut pages, mut params) = (Vec::new(), json!({}));
    loop {
        let page = ask(params).await;
        pages.push(keys(&page, field, key));
        assert!(pages.len() < 100, "the pages come to an end");
        match page["nextCursor"].as_str() {
            Some(cursor) => params = json!({"cursor": cursor}),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn every_list_comes_in_pages_over_both_transports_and_holds_what_one_page_would() {
    if without_python() {
        return;
    }
    let mut gateway = Start::new().run().await;
    offers(&gateway).await;
    let whole = gateway.client_of(&["one", "two"]).await;
    let mut expected = Vec::new();
    for (method, field, key) in LISTS {
        let all = page(&whole, method, None).await;
        assert!(all.get("nextCursor").is_none(), "one page unless it is set otherwise");
        let mut all = keys(&all, field, key);
        all.sort();
        expected.push(all);
    }
    assert_eq!(expected[2], ["u://a", "u://b", "u://c", "u://d", "u://e"]);

    gateway.set_settings(PAGES_OF_TWO);
    gateway.restart().await;
    let key = gateway.key("paged").await;
    let client = gateway.client("all", &key).await;
    let sse = SseClient::connect(&gateway.sse_url("all"), Some(&key)).await;
    for ((method, field, name), expected) in LISTS.into_iter().zip(expected) {
        let over_http = walk(
            async |params| client.request(method, params).await["result"].clone(),
            field,
            name,
        )
        .await;
        let over_sse = walk(
            async |params| sse.request(json!(7), method, params).await["result"].clone(),
            field,
            name,
        )
        .await;
        assert_eq!(over_http, over_sse, "{method}");
        let (last, full) = over_http.split_last().expect("a page");
        assert!(full.iter().all(|page| page.len() == 2), "{method}: {over_http:?}");
        assert!((1..=2).contains(&last.len()), "{method}: {over_http:?}");
        let mut seen = over_http.concat();
        seen.sort();
        assert_eq!(seen, expected, "{method}");
    }
    // Whoever has one that fits has it as it stands, in the namespace's order.
    gateway.publish("small", &["two"]).await;
    let small = gateway.client("small", &key).await;
    let only = page(&small, "prompts/list", None).await;
    assert_eq!(only, json!({"prompts": [{"name": "two__p"}]}));
}

#[tokio::test]
async fn what_stays_is_seen_once_whatever_changes_between_two_pages() {
    if without_python() {
        return;
    }
    let mut gateway = Start::new().settings(PAGES_OF_TWO).run().await;
    let [one, two] = offers(&gateway).await;
    let client = gateway.client_of(&["one", "two"]).await;
    let uris = |page: &Value| keys(page, "resources", "uri");
    let first = page(&client, "resources/list", None).await;
    assert_eq!(uris(&first), ["u://a", "u://b"]);
    let cursor = first["nextCursor"].as_str().expect("a cursor").to_owned();

    // The last that was seen goes, one comes before it and one after, and the servers change places.
    one.put("resources", &items("uri", &["u://0", "u://z", "u://a"]));
    two.put("resources", &items("uri", &["u://e", "u://d", "u://c"]));
    gateway.replace("namespaces/all/servers", json!(["two", "one"])).await;
    let second = wait_until("the change", SOON, async || {
        let second = page(&client, "resources/list", Some(&cursor)).await;
        uris(&second).contains(&"u://z".to_owned()).then_some(second)
    })
    .await;
    assert_eq!(uris(&second), ["u://z", "u://c"]);

    // Nor is a restart of the daemon anything to it.
    let cursor = second["nextCursor"].as_str().expect("a cursor");
    gateway.restart().await;
    let again = Client::connect(&gateway.endpoint_url("all"), Some(&client_key(&client))).await;
    let third = page(&again, "resources/list", Some(cursor)).await;
    assert_eq!(uris(&third), ["u://d", "u://e"]);
    assert!(third.get("nextCursor").is_none(), "{third}");
}

fn client_key(client: &Client) -> String {
    let (_, value) = &client.headers[0];
    value.trim_start_matches("Bearer ").to_owned()
}

#[tokio::test]
async fn a_renamed_tool_is_the_same_tool_on_the_next_page() {
    let gateway = Start::new().settings(PAGES_OF_TWO).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let names = |page: &Value| keys(page, "tools", "name");
    let all = walk(
        async |params| client.request("tools/list", params).await["result"].clone(),
        "tools",
        "name",
    )
    .await
    .concat();
    let first = page(&client, "tools/list", None).await;
    assert_eq!(names(&first), all[..2]);
    for (tool, name) in [(&all[1], "zzz"), (&all[2], "aaa")] {
        let own = tool.trim_start_matches("demo__");
        let found = gateway.get(&format!("namespaces/all/tools?name={own}")).await;
        let uuid = found["items"][0]["uuid"].as_str().unwrap_or_else(|| panic!("{found}"));
        let path = format!("namespaces/all/tools/{uuid}");
        gateway.change(&path, json!({"override_name": name})).await;
    }
    let cursor = first["nextCursor"].as_str().expect("a cursor");
    let second = page(&client, "tools/list", Some(cursor)).await;
    assert_eq!(names(&second)[0], "aaa", "not skipped, and `zzz` not repeated: {second}");
    assert!(!names(&second).contains(&"zzz".to_owned()), "{second}");
}

#[tokio::test]
async fn a_change_between_two_pages_is_announced_to_who_read_the_first_before_it() {
    if without_python() {
        return;
    }
    let gateway = Start::new().settings(PAGES_OF_TWO).run().await;
    let [one, _two] = offers(&gateway).await;
    let client = gateway.client_of(&["one", "two"]).await;
    let first = page(&client, "prompts/list", None).await;
    let cursor = first["nextCursor"].as_str().expect("a cursor");
    one.put("prompts", &items("name", &["0", "p", "q"]));
    let key = gateway.key("watcher").await;
    let watcher = gateway.client("all", &key).await;
    wait_until("the change", SOON, async || {
        let page = page(&watcher, "prompts/list", None).await;
        keys(&page, "prompts", "name").contains(&"one__0".to_owned()).then_some(())
    })
    .await;
    let second = page(&client, "prompts/list", Some(cursor)).await;
    assert_eq!(keys(&second, "prompts", "name"), ["two__p"]);
    let mut stream = client.listen().await;
    let is_change = |message: &Value| message["method"] == "notifications/prompts/list_changed";
    stream.events.find("the change", SOON, is_change).await;
}

/// The gateway is a client that follows cursors itself.
#[tokio::test]
async fn a_gateway_in_front_reads_every_page_of_the_one_behind() {
    if without_python() {
        return;
    }
    let gateway = Start::new().settings(PAGES_OF_TWO).run().await;
    offers(&gateway).await;
    let client = gateway.client_of(&["one", "two"]).await;
    let row = json!({
        "name": "inner", "type": "STREAMABLE_HTTP", "url": gateway.endpoint_url("all"),
        "bearer_token": client_key(&client),
    });
    gateway.create("mcp-servers", row).await;
    gateway.publish("outer", &["inner"]).await;
    gateway.ready("inner").await;
    let key = gateway.key("outer").await;
    let outer = gateway.client("outer", &key).await;
    for (method, field, name) in LISTS {
        let seen = async |client: &Client| {
            let ask = async |params| client.request(method, params).await["result"].clone();
            let all = walk(ask, field, name).await.concat();
            let own = all.into_iter().map(|name| name.trim_start_matches("inner__").to_owned());
            own.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(seen(&outer).await, seen(&client).await, "{method}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_list_or_endpoint_or_of_nobody_is_refused() {
    if without_python() {
        return;
    }
    let gateway = Start::new().settings(PAGES_OF_TWO).run().await;
    offers(&gateway).await;
    let client = gateway.client_of(&["one", "two"]).await;
    gateway.create("endpoints", json!({"name": "other", "namespace": "all"})).await;
    let key = gateway.key("other").await;
    let other = gateway.client("other", &key).await;
    let first = page(&client, "resources/list", None).await;
    let cursor = first["nextCursor"].as_str().expect("a cursor");
    page(&client, "resources/list", Some(cursor)).await;

    let refused = async |client: &Client, method: &str, cursor: Value| {
        let answer = client.request(method, json!({"cursor": cursor})).await;
        assert_eq!(answer["error"]["code"], -32602, "{method}: {answer}");
        let words = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(words.contains("cursor"), "{answer}");
    };
    refused(&other, "resources/list", json!(cursor)).await;
    for method in ["tools/list", "prompts/list", "resources/templates/list"] {
        refused(&client, method, json!(cursor)).await;
    }
    let flipped: String = cursor.chars().rev().collect();
    for odd in
        [json!(flipped), json!(""), json!("2"), json!(7), json!({}), json!("A".repeat(200_000))]
    {
        refused(&client, "resources/list", odd).await;
    }
}
