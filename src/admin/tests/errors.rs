//! The errors of the contract, over every operation that is described: so that a new one is held to
//! them without a word here.

use super::{
    authorisation::{description, operations},
    *,
};

/// An operation, with its path made real.
struct Operation {
    method: Method,
    /// As it is described.
    pattern: String,
    path: String,
    /// What its body begins with; none without a body in JSON.
    body: Option<char>,
}

/// Every operation below `/api/v1`; what it is about is called `id`.
async fn all_operations(house: &House, id: &str) -> Vec<Operation> {
    let description = description(house).await;
    let v1 = |(_, pattern): &(Method, String)| pattern.starts_with("/api/v1/");
    let mut found = Vec::new();
    for (method, pattern) in operations(&description).into_iter().filter(v1) {
        let item = &description["paths"][&pattern][method.as_str().to_lowercase()];
        let schema = &item["requestBody"]["content"]["application/json"]["schema"];
        let body = match schema {
            Value::Null => None,
            schema if schema["type"] == "array" => Some('['),
            // It takes either.
            _ if pattern.ends_with("/tools") || pattern.ends_with("/{kinds}") => Some('['),
            _ => Some('{'),
        };
        let path = pattern.trim_start_matches("/api/v1/").replace("{id}", id);
        let path = path.replace("{key}", id).replace("{uuid}", id).replace("{kinds}", "prompts");
        found.push(Operation { method, pattern, path, body });
    }
    assert!(found.len() > 35, "the operations are described");
    found
}

/// What is refused has the shape of the contract; its status, its code and the first field to blame.
async fn said(house: &House, request: TestRequest) -> (u16, String, Value) {
    let answer = house.send(request).await;
    let body = answer.json();
    assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    let details = body["details"].as_array().unwrap_or_else(|| panic!("{body}"));
    for detail in details {
        assert!(detail["field"].is_string() && detail["reason"].is_string(), "{body}");
    }
    (answer.status, body["code"].as_str().unwrap().to_owned(), body["details"][0].clone())
}

#[actix_web::test]
async fn a_body_that_is_not_what_is_asked_for_is_refused_everywhere() {
    let house = House::new().await;
    let json = ("content-type", "application/json");
    let huge = format!("[\"{}\"]", "x".repeat(1 << 20));
    let mut count = 0;
    for Operation { method, path, body, .. } in all_operations(&house, "x").await {
        let Some(opening) = body else { continue };
        count += 1;
        let request = || operator(method.clone(), &path);
        let other = if opening == '{' { "[]" } else { "{}" };
        let takes_both = ["namespaces/x/tools", "namespaces/x/prompts"].contains(&&*path);
        for (request, status, code) in [
            (request().set_payload("{}"), 415, "unsupported_media_type"),
            (
                request().insert_header(("content-type", "text/plain")).set_payload("{}"),
                415,
                "unsupported_media_type",
            ),
            (request().insert_header(json).set_payload("{nope"), 400, "bad_request"),
            (request().insert_header(json), 400, "bad_request"),
            (request().insert_header(json).set_payload("1"), 400, "bad_request"),
            (request().insert_header(json).set_payload(&b"{\"\xff\":1}"[..]), 400, "bad_request"),
            (request().insert_header(json).set_payload(huge.clone()), 413, "too_large"),
        ] {
            let found = said(&house, request).await;
            assert_eq!((found.0, &*found.1), (status, code), "{method} {path}: {:?}", found.2);
        }
        if !takes_both {
            let found = said(&house, request().insert_header(json).set_payload(other)).await;
            assert_eq!((found.0, &*found.1), (400, "bad_request"), "{method} {path} {other}");
        }
        let nonsense = if opening == '{' { r#"{"nonsense":1}"# } else { r#"[{"nonsense":1}]"# };
        let found = said(&house, request().insert_header(json).set_payload(nonsense)).await;
        let refused = matches!((found.0, &*found.1), (422, "invalid") | (400, "bad_request"));
        assert!(refused, "{method} {path}: {found:?}");
        if opening == '{' {
            assert_eq!((found.0, &found.2["field"]), (422, &json!("nonsense")), "{method} {path}");
            assert!(found.2["accepted"].is_string(), "{method} {path}: {found:?}");
        }
    }
    assert!(count >= 14, "{count} operations take a body");
}

#[actix_web::test]
async fn a_key_of_a_client_is_forbidden_everywhere() {
    let house = House::new().await;
    let key = house.create("api-keys", json!({"name": "client"})).await["key"].clone();
    for Operation { method, path, .. } in all_operations(&house, "x").await {
        let request = anybody(method.clone(), &format!("/api/v1/{path}"));
        let bearer = format!("Bearer {}", key.as_str().unwrap());
        let found = said(&house, request.insert_header(("authorization", bearer))).await;
        assert_eq!((found.0, &*found.1), (403, "forbidden"), "{method} {path}");
    }
}

#[actix_web::test]
async fn what_is_not_there_is_not_found_everywhere() {
    let house = House::new().await;
    for id in ["nobody", "0192f0c1-2b3c-7def-8123-456789abcdef"] {
        for Operation { method, pattern, path, body } in all_operations(&house, id).await {
            // A key to be set is a word that has to be one of ours.
            if !pattern.contains('{') || pattern.ends_with("{key}") && method == Method::PUT {
                continue;
            }
            let mut request = operator(method.clone(), &path);
            if let Some(opening) = body {
                request = request.set_json(if opening == '{' { json!({}) } else { json!([]) });
            }
            let found = said(&house, request).await;
            assert_eq!((found.0, &*found.1), (404, "not_found"), "{method} {path}");
        }
    }
}

#[actix_web::test]
async fn a_method_that_a_path_does_not_take_is_told_which_it_does() {
    let house = House::new().await;
    let all = all_operations(&house, "x").await;
    for Operation { pattern, path, .. } in &all {
        let of_this = all.iter().filter(|other| other.pattern == *pattern);
        let taken: Vec<&Method> = of_this.map(|other| &other.method).collect();
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            // A server may be called `bulk`, so that its path takes what a server's does.
            if taken.contains(&&method) || pattern.ends_with("/bulk") {
                continue;
            }
            let answer = house.send(operator(method.clone(), path)).await;
            let code = answer.json()["code"].clone();
            assert_eq!(
                (answer.status, code),
                (405, json!("method_not_allowed")),
                "{method} {path}"
            );
            let mut allow: Vec<&str> = answer.header("allow").split(", ").collect();
            allow.sort_unstable();
            let mut expected: Vec<&str> = taken.iter().map(|method| method.as_str()).collect();
            expected.sort_unstable();
            assert_eq!(allow, expected, "{method} {path}");
        }
    }
}

#[actix_web::test]
async fn without_the_database_everything_that_needs_it_says_so_and_the_rest_goes_on() {
    let house = House::new().await;
    house.server("x").await;
    house.until("mcp-servers/x", |row| row["runtime"]["state"] == "READY").await;
    let all = all_operations(&house, "x").await;
    house.close_database().await;
    let goes_on = [
        (Method::GET, "/api/v1/mcp-servers"),
        (Method::GET, "/api/v1/mcp-servers/{id}"),
        (Method::POST, "/api/v1/mcp-servers/{id}/restart"),
        (Method::POST, "/api/v1/mcp-servers/{id}/refresh"),
        (Method::GET, "/api/v1/events"),
        (Method::GET, "/api/v1/logs"),
        (Method::DELETE, "/api/v1/logs"),
        (Method::GET, "/api/v1/sessions"),
    ];
    let body_of = |pattern: &str, method: &Method, opening: char| match (pattern, method.as_str()) {
        ("/api/v1/mcp-servers", _) => json!({"name": "n", "type": "STDIO", "command": "x"}),
        ("/api/v1/mcp-servers/bulk", _) => json!({"action": "DELETE", "servers": ["x"]}),
        ("/api/v1/endpoints", _) => json!({"name": "n", "namespace": "x"}),
        ("/api/v1/config/{key}", _) => json!({"value": "1000"}),
        (_, "POST") => json!({"name": "n"}),
        _ if opening == '[' => json!([]),
        _ => json!({}),
    };
    for Operation { method, pattern, path, body } in all {
        // Those are known by heart: who may ask is told by the id alone.
        if pattern == "/api/v1/sessions/{id}" {
            continue;
        }
        let path = if pattern.ends_with("{key}") { "config/MCP_TIMEOUT".to_owned() } else { path };
        let path = path.replace("tools/x", "tools/0192f0c1-2b3c-7def-8123-456789abcdef");
        let mut request = operator(method.clone(), &path);
        if let Some(opening) = body {
            request = request.set_json(body_of(&pattern, &method, opening));
        } else if pattern == "/api/v1/import" {
            request = request.set_payload(r#"{"mcpServers":{"n":{"command":"x"}}}"#);
        }
        if goes_on.contains(&(method.clone(), &*pattern)) {
            let answer = (house.call)(request).await;
            assert!(answer.status().is_success(), "{method} {path}: {}", answer.status());
        } else {
            let answer = house.send(request).await;
            let code = answer.json()["code"].clone();
            assert_eq!((answer.status, code), (503, json!("unavailable")), "{method} {path}");
            assert_eq!(answer.header("retry-after"), "1", "{method} {path}");
        }
    }
    let restart = json!({"action": "RESTART", "servers": ["x"]});
    let (status, answer) = house.ask(Method::POST, "mcp-servers/bulk", Some(restart)).await;
    assert_eq!(status, 202, "{answer}");
}

#[actix_web::test]
async fn a_name_that_is_taken_is_a_conflict_and_one_that_several_have_is_ambiguous() {
    let house = House::new().await;
    testing::add_user(&house.state.conductor.store, "ann").await;
    let server = json!({"name": "x", "type": "STDIO", "command": "x"});
    let rows = [
        ("mcp-servers", server),
        ("namespaces", json!({"name": "x"})),
        ("api-keys", json!({"name": "x"})),
        ("endpoints", json!({"name": "x", "namespace": "x"})),
    ];
    for (path, row) in rows {
        // An endpoint's name is everybody's.
        let is_global = path == "endpoints";
        let made = house.create(path, row.clone()).await;
        let taken = house.refused(Method::POST, path, row.clone()).await;
        assert_eq!((taken.0, &*taken.1), (409, "conflict"), "{path}");
        if is_global {
            continue;
        }
        let mut hers = row;
        hers["user_id"] = json!("ann");
        house.create(path, hers).await;
        for (method, body) in
            [(Method::GET, None), (Method::PATCH, Some(json!({}))), (Method::DELETE, None)]
        {
            let (status, answer) = house.ask(method.clone(), &format!("{path}/x"), body).await;
            assert_eq!((status, &answer["code"]), (409, &json!("ambiguous")), "{method} {path}");
        }
        // By its uuid it can still be found; and the other owner's goes, so that the next path works.
        let uuid = made["uuid"].as_str().unwrap();
        assert_eq!(house.get(&format!("{path}/{uuid}")).await["name"], "x");
        let theirs = house.get(&format!("{path}?user_id=ann")).await["items"][0]["uuid"].clone();
        house.remove(&format!("{path}/{}", theirs.as_str().unwrap())).await;
    }
    // Two rows may not come to have one name by a change either.
    house.server("y").await;
    let taken = house.refused(Method::PATCH, "mcp-servers/y", json!({"name": "x"})).await;
    assert_eq!((taken.0, &*taken.1), (409, "conflict"));
}

#[actix_web::test]
async fn every_field_that_may_be_missing_can_be_cleared() {
    let house = House::new().await;
    testing::add_user(&house.state.conductor.store, "ann").await;
    let server = json!({"name": "x", "type": "STREAMABLE_HTTP", "url": "http://127.0.0.1:1/mcp",
        "description": "d", "bearer_token": "secret", "headers": {"a": "b"}, "env": {"A": "b"},
        "connect_timeout_ms": 1000, "call_timeout_ms": 1000, "call_total_timeout_ms": 1000,
        "args": ["a"], "user_id": "ann", "enabled": false});
    let namespace = json!({"name": "x", "description": "d", "user_id": "ann"});
    let endpoint = json!({"name": "x", "namespace": "x", "description": "d", "user_id": "ann",
        "max_rate": 1, "max_rate_seconds": 2, "client_max_rate": 3, "client_max_rate_seconds": 4,
        "client_max_rate_strategy": "ip", "client_max_rate_strategy_key": "k"});
    for (path, row, kept) in [
        ("mcp-servers", server, &["name", "type", "url", "enabled"][..]),
        ("namespaces", namespace, &["name", "user_id"]),
        ("endpoints", endpoint, &["name", "namespace", "user_id"]),
    ] {
        house.create(path, row.clone()).await;
        for field in row.as_object().unwrap().keys().filter(|field| !kept.contains(&&***field)) {
            let row = house.change(&format!("{path}/x"), json!({ field: null })).await;
            let is_empty = match &row[field] {
                Value::Null => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(items) => items.is_empty(),
                _ => false,
            };
            assert!(is_empty, "{path} {field}: {}", row[field]);
        }
        for field in kept.iter().filter(|field| **field != "user_id") {
            let (row, cleared) = (format!("{path}/x"), json!({ *field: null }));
            let refused = house.refused(Method::PATCH, &row, cleared).await;
            assert_eq!(
                (refused.0, &*refused.2),
                (422, &[(*field).to_owned()][..]),
                "{path} {field}"
            );
        }
    }
}

#[actix_web::test]
async fn another_type_leaves_nothing_of_the_old_one_behind() {
    let house = House::new().await;
    let process = json!({"name": "x", "type": "STDIO", "command": "c", "args": ["a"],
        "env": {"A": "secret"}, "enabled": false, "description": "d"});
    house.create("mcp-servers", process).await;
    let remote = json!({"type": "STREAMABLE_HTTP", "url": "http://127.0.0.1:1/mcp",
        "headers": {"h": "secret"}, "bearer_token": "secret"});
    let row = house.change("mcp-servers/x", remote).await;
    for (field, expected) in [
        ("command", Value::Null),
        ("args", json!([])),
        ("env", json!({})),
        ("isolation", json!("SESSION")),
        ("description", json!("d")),
    ] {
        assert_eq!(row[field], expected, "{field}");
    }
    let row = house.change("mcp-servers/x", json!({"type": "STDIO", "command": "c"})).await;
    for (field, expected) in [
        ("url", Value::Null),
        ("headers", json!({})),
        ("bearer_token", Value::Null),
        ("isolation", json!("SHARED")),
    ] {
        assert_eq!(row[field], expected, "{field}");
    }
    // What the new kind needs has to come with it, and then nothing has changed.
    let refused = house.refused(Method::PATCH, "mcp-servers/x", json!({"type": "STREAMABLE_HTTP"}));
    assert_eq!(refused.await.2, ["url"]);
    assert_eq!(house.get("mcp-servers/x").await["command"], "c");
}

#[actix_web::test]
async fn a_file_that_cannot_be_taken_in_is_refused_like_all_else() {
    let house = House::new().await;
    let post = |query: &str| operator(Method::POST, &format!("import{query}"));
    let file = r#"{"mcpServers":{"n":{"command":"x"}}}"#;
    let plain = ("content-type", "text/plain");
    let huge = "x".repeat(crate::import::FILE_MAX + 1);
    for (request, status, code) in [
        (post("").insert_header(plain).set_payload("nothing of ours"), 400, "bad_request"),
        (post("").insert_header(plain).set_payload("{\"mcpServers\":"), 400, "bad_request"),
        (post("").insert_header(plain).set_payload(&b"\xff"[..]), 400, "bad_request"),
        (post("").insert_header(plain).set_payload(huge), 413, "too_large"),
        (
            post("").insert_header(("content-type", "image/png")).set_payload(file),
            415,
            "unsupported_media_type",
        ),
        (post("?colour=red").set_payload(file), 400, "bad_request"),
        (post("?dry_run=maybe").set_payload(file), 400, "bad_request"),
        (post("?namespace=a%20b").set_payload(file), 422, "invalid"),
    ] {
        let found = said(&house, request).await;
        assert_eq!((found.0, &*found.1), (status, code), "{:?}", found.2);
    }
    assert_eq!(house.get("mcp-servers").await["items"], json!([]));
}

#[actix_web::test]
async fn what_this_version_does_not_do_is_refused_rather_than_kept() {
    let house = House::new().await;
    house.create("namespaces", json!({"name": "x"})).await;
    house.create("endpoints", json!({"name": "x", "namespace": "x"})).await;
    house.server("x").await;
    for (path, change) in [
        ("endpoints/x", json!({"enable_oauth": true})),
        ("endpoints/x", json!({"enable_max_rate": true})),
        ("endpoints/x", json!({"enable_client_max_rate": true})),
        ("mcp-servers/x", json!({"protocol": "MODERN"})),
        ("mcp-servers/x", json!({"forward_headers": {"a": "b"}})),
    ] {
        let refused = house.refused(Method::PATCH, path, change.clone()).await;
        assert_eq!((refused.0, &*refused.1), (501, "not_implemented"), "{path} {change}");
    }
}
