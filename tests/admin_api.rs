//! The admin API as the contract gives it: rows, lists, errors, and changes that touch only what
//! they change.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    ADMIN_KEY, SOON, TestGateway, fixtures::without_python, outage::Outage, processes, wait_until,
    within,
};

/// What a client of the API sees of an error.
async fn refused(
    gateway: &TestGateway,
    method: Method,
    path: &str,
    body: Value,
) -> (u16, String, Value) {
    let (status, answer) = gateway.admin(method, path, Some(body)).await;
    assert!(answer["message"].is_string(), "{path}: {status} {answer}");
    (
        status.as_u16(),
        answer["code"].as_str().unwrap_or_default().to_owned(),
        answer["details"].clone(),
    )
}

#[tokio::test]
async fn a_row_is_made_read_changed_and_deleted() {
    let gateway = TestGateway::start().await;
    let made = gateway.demo("demo").await;
    assert_eq!(
        (&made["name"], &made["type"], &made["enabled"]),
        (&json!("demo"), &json!("STDIO"), &json!(true))
    );
    assert_eq!(made["user_id"], Value::Null);
    assert_eq!(made["isolation"], "SHARED");
    assert_eq!(made["error_status"], "NONE");
    let uuid = made["uuid"].as_str().expect("a uuid");
    assert_eq!(gateway.get(&format!("mcp-servers/{uuid}")).await["name"], "demo");
    assert_eq!(gateway.get("mcp-servers/demo").await["uuid"], uuid);

    let changed = gateway.change("mcp-servers/demo", json!({"description": "new"})).await;
    assert_eq!((&changed["description"], &changed["command"]), (&json!("new"), &json!("metamcpd")));
    let cleared = gateway.change("mcp-servers/demo", json!({"description": null})).await;
    assert_eq!(cleared["description"], Value::Null);

    gateway.remove("mcp-servers/demo").await;
    let (status, body) = gateway.admin(Method::GET, "mcp-servers/demo", None).await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
}

#[tokio::test]
async fn creating_does_not_wait_for_the_upstream() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let command = crate::support::python("hang_init.py", &[]);
    within("the row", std::time::Duration::from_secs(5), gateway.stdio("mute", &command)).await;
}

#[tokio::test]
async fn what_breaks_a_rule_is_422_and_says_which() {
    let gateway = TestGateway::start().await;
    let table = [
        (json!({"name": "a b", "type": "STDIO", "command": "x"}), "name"),
        (json!({"name": "a__b", "type": "STDIO", "command": "x"}), "name"),
        (json!({"name": "", "type": "STDIO", "command": "x"}), "name"),
        (
            json!({"name": "0192f0c1-2b3c-7def-8123-456789abcdef", "type": "STDIO", "command": "x"}),
            "name",
        ),
        (json!({"name": "a", "type": "STDIO"}), "command"),
        (json!({"name": "a", "type": "STDIO", "command": " "}), "command"),
        (json!({"name": "a", "type": "STREAMABLE_HTTP"}), "url"),
        (json!({"name": "a", "type": "STREAMABLE_HTTP", "url": "ftp://example.com/"}), "url"),
        (
            json!({"name": "a", "type": "STREAMABLE_HTTP", "url": "http://user:pass@example.com/"}),
            "url",
        ),
    ];
    for (body, field) in table {
        let (status, code, details) =
            refused(&gateway, Method::POST, "mcp-servers", body.clone()).await;
        assert_eq!((status, code.as_str()), (422, "invalid"), "{body}: {details}");
        assert_eq!(details[0]["field"], field, "{body}: {details}");
        assert!(details[0]["reason"].is_string(), "{body}: {details}");
    }
    let (status, code, _) = refused(
        &gateway,
        Method::POST,
        "mcp-servers",
        json!({"type": "CARRIER_PIGEON", "name": "a"}),
    )
    .await;
    assert!(
        matches!((status, code.as_str()), (422, "invalid") | (400, "bad_request")),
        "{status} {code}"
    );
    assert!(gateway.items("mcp-servers").await.is_empty());
}

#[tokio::test]
async fn a_name_that_is_taken_is_a_conflict_and_one_of_another_owner_is_not() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let body = |owner: Value| json!({"name": "demo", "type": "STDIO", "command": "metamcpd", "args": ["demo-upstream"], "user_id": owner});
    let (status, code, _) = refused(&gateway, Method::POST, "mcp-servers", body(Value::Null)).await;
    assert_eq!((status, code.as_str()), (409, "conflict"));
    gateway.add_user("alice").await;
    gateway.create("mcp-servers", body(json!("alice"))).await;
    let (status, answer) = gateway.admin(Method::GET, "mcp-servers/demo", None).await;
    assert_eq!((status.as_u16(), &answer["code"]), (409, &json!("ambiguous")));
}

#[tokio::test]
async fn what_is_not_json_is_a_bad_request() {
    let gateway = TestGateway::start().await;
    let request =
        gateway.http.post(format!("{}/api/v1/mcp-servers", gateway.base)).bearer_auth(ADMIN_KEY);
    let response = request
        .header("content-type", "application/json")
        .body("{nope")
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let body: Value = serde_json::from_str(&response.text().await.expect("a body")).expect("JSON");
    assert_eq!(body["code"], "bad_request");
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_filtered() {
    let gateway = TestGateway::start().await;
    for number in 0..5 {
        let body = json!({"name": format!("s{number}"), "type": "STREAMABLE_HTTP", "url": "http://127.0.0.1:1/mcp", "enabled": false});
        gateway.create("mcp-servers", body).await;
    }
    gateway.demo("demo").await;
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = gateway.get(&format!("mcp-servers?limit=2{cursor}")).await;
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|row| row["name"].as_str().expect("a name").to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    names.sort();
    assert_eq!(names, ["demo", "s0", "s1", "s2", "s3", "s4"]);
    assert_eq!(gateway.items("mcp-servers?type=STDIO").await.len(), 1);
    assert_eq!(gateway.items("mcp-servers?enabled=false").await.len(), 5);
    assert_eq!(gateway.items("mcp-servers?name=s3").await.len(), 1);
}

#[tokio::test]
async fn the_tools_that_were_last_seen_are_listed() {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    gateway.ready("demo").await;
    let tools = wait_until("its tools", SOON, async || {
        Some(gateway.items("mcp-servers/demo/tools").await).filter(|tools| !tools.is_empty())
    })
    .await;
    let echo = tools.iter().find(|tool| tool["name"] == "echo").expect("echo");
    assert!(echo["uuid"].is_string(), "{echo}");
    assert_eq!(echo["tool_schema"]["type"], "object", "{echo}");
}

#[tokio::test]
async fn a_change_of_one_upstream_leaves_the_others_processes_alone() {
    let gateway = TestGateway::start().await;
    gateway.demo("one").await;
    gateway.demo("two").await;
    let (one, two) = (gateway.server_pid("one").await, gateway.server_pid("two").await);
    gateway.change("mcp-servers/one", json!({"env": {"FRESH": "1"}})).await;
    gateway
        .server_until("one", "READY in a new process", |server| {
            server["runtime"]["state"] == "READY" && server["runtime"]["pid"] != one
        })
        .await;
    assert_eq!(gateway.server_pid("two").await, two);
    assert!(processes::is_alive(two) && !processes::is_alive(one));

    let again = gateway.server_pid("one").await;
    gateway.change("mcp-servers/one", json!({"description": "only words"})).await;
    gateway.create("namespaces", json!({"name": "n", "servers": ["one", "two"]})).await;
    gateway.create("endpoints", json!({"name": "e", "namespace": "n"})).await;
    gateway.key("k").await;
    assert_eq!(gateway.server_pid("one").await, again, "words need no new process");
    assert_eq!(gateway.server_pid("two").await, two);
}

#[tokio::test]
async fn a_namespace_names_its_servers_and_their_status() {
    let gateway = TestGateway::start().await;
    gateway.demo("one").await;
    let two = gateway.demo("two").await["uuid"].clone();
    let made = gateway.create("namespaces", json!({"name": "n", "servers": ["one", two]})).await;
    assert_eq!(made["naming"], "ALWAYS", "{made}");
    let members = json!([{"server": "two", "status": "INACTIVE"}, {"server": "one"}]);
    let row = gateway.replace("namespaces/n/servers", members).await;
    assert!(row.to_string().contains("INACTIVE"), "{row}");
    let (status, code, _) =
        refused(&gateway, Method::PUT, "namespaces/n/servers", json!([{"server": "three"}])).await;
    assert!(
        matches!((status, code.as_str()), (422, "invalid") | (404, "not_found")),
        "{status} {code}"
    );
    let private = json!({"name": "hers", "type": "STDIO", "command": "metamcpd", "user_id": "alice", "enabled": false});
    gateway.add_user("alice").await;
    gateway.create("mcp-servers", private).await;
    let (status, _, _) =
        refused(&gateway, Method::PUT, "namespaces/n/servers", json!([{"server": "hers"}])).await;
    assert_eq!(status, 422, "a public namespace holds public servers only");
}

#[tokio::test]
async fn an_endpoint_needs_a_namespace_and_a_name_of_its_own() {
    let gateway = TestGateway::start().await;
    gateway.publish("one", &[]).await;
    let (status, code, _) =
        refused(&gateway, Method::POST, "endpoints", json!({"name": "one", "namespace": "one"}))
            .await;
    assert_eq!((status, code.as_str()), (409, "conflict"));
    let (status, _, _) = refused(
        &gateway,
        Method::POST,
        "endpoints",
        json!({"name": "two", "namespace": "nowhere"}),
    )
    .await;
    assert!(matches!(status, 404 | 422), "{status}");
    let (status, _, _) =
        refused(&gateway, Method::POST, "endpoints", json!({"name": "a/b", "namespace": "one"}))
            .await;
    assert_eq!(status, 422);
    gateway.remove("namespaces/one").await;
    let (status, _) = gateway.admin(Method::GET, "endpoints/one", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "an endpoint goes with its namespace");
}

#[tokio::test]
async fn the_description_of_the_api_names_every_path() {
    let gateway = TestGateway::start().await;
    let response = gateway
        .http
        .get(format!("{}/api/openapi.json", gateway.base))
        .bearer_auth(ADMIN_KEY)
        .send()
        .await;
    let text = response.expect("an answer").text().await.expect("text");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert!(
        document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")),
        "{document}"
    );
    let table = [
        ("mcp-servers", &["get", "post"][..]),
        ("mcp-servers/{id}", &["get", "patch", "delete"]),
        ("mcp-servers/{id}/restart", &["post"]),
        ("mcp-servers/{id}/history", &["get"]),
        ("mcp-servers/{id}/tools", &["get"]),
        ("namespaces", &["get", "post"]),
        ("namespaces/{id}", &["get", "patch", "delete"]),
        ("namespaces/{id}/servers", &["put"]),
        ("endpoints", &["get", "post"]),
        ("endpoints/{id}", &["get", "patch", "delete"]),
        ("api-keys", &["get", "post"]),
        ("api-keys/{id}", &["get", "patch", "delete"]),
        ("events", &["get"]),
        ("logs", &["get", "delete"]),
    ];
    for (path, methods) in table {
        for method in methods {
            let found = &document["paths"][format!("/api/v1/{path}")][method];
            assert!(found.is_object(), "{method} {path} is not described");
        }
    }
}

#[tokio::test]
async fn while_the_database_is_away_writes_are_503_and_calls_go_on() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let outage = Outage::begin(&gateway).await;

    let write = gateway.admin(Method::POST, "namespaces", Some(json!({"name": "late"})));
    let calls = async {
        for number in 0..20 {
            let text = client.text_of("demo__echo", json!({"message": number.to_string()})).await;
            assert!(text.contains(&number.to_string()));
        }
        assert!(client.tools().await.contains(&"demo__echo".to_owned()));
    };
    let ((status, body), ()) = tokio::join!(within("the refusal", SOON, write), calls);
    assert_eq!((status.as_u16(), &body["code"]), (503, &json!("unavailable")));
    assert_eq!(
        gateway.http.get(format!("{}/health", gateway.base)).send().await.expect("health").status(),
        200
    );
    let watched = gateway.get("mcp-servers?error_status=NONE").await;
    assert_eq!(watched["items"][0]["runtime"]["state"], "READY", "{watched}");
    let pid = gateway.get("mcp-servers/demo").await["runtime"]["pid"].clone();
    let (status, body) = gateway.admin(Method::POST, "mcp-servers/demo/restart", None).await;
    assert_eq!(status.as_u16(), 202, "{body}");
    wait_until("the restart", SOON, async || {
        let runtime = gateway.get("mcp-servers/demo").await["runtime"].clone();
        (runtime["state"] == "READY" && runtime["pid"] != pid).then_some(())
    })
    .await;

    outage.end().await;
    wait_until("writes to be taken again", SOON, async || {
        let body = Some(json!({"name": "late"}));
        let (status, _) = gateway.admin(Method::POST, "namespaces", body).await;
        matches!(status.as_u16(), 201 | 409).then_some(())
    })
    .await;
}
