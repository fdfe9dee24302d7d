//! Who gets in, what is public, and the shape of every refusal.

use super::*;

/// What anybody may read.
const PUBLIC: &[&str] = &["/health", "/ready"];

pub async fn description(house: &House) -> Value {
    let answer = house.send(anybody(Method::GET, "/api/openapi.json")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    answer.json()
}

pub fn operations(description: &Value) -> Vec<(Method, String)> {
    let mut operations = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            operations.push((method.to_uppercase().parse().unwrap(), path.clone()));
        }
    }
    operations
}

#[actix_web::test]
async fn the_description_names_every_route() {
    let house = House::new().await;
    let description = description(&house).await;
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    assert_eq!(description["servers"][0]["url"], "http://gateway.example");
    let table = [
        ("mcp-servers", &["get", "post"][..]),
        ("mcp-servers/{id}", &["get", "patch", "delete"]),
        ("mcp-servers/bulk", &["post"]),
        ("mcp-servers/{id}/restart", &["post"]),
        ("mcp-servers/{id}/history", &["get"]),
        ("mcp-servers/{id}/tools", &["get"]),
        ("mcp-servers/{id}/oauth-session", &["get", "put", "delete"]),
        ("mcp-servers/{id}/{kinds}", &["get"]),
        ("namespaces/{id}/{kinds}", &["get", "patch"]),
        ("namespaces/{id}/{kinds}/{uuid}", &["patch"]),
        ("namespaces", &["get", "post"]),
        ("namespaces/{id}", &["get", "patch", "delete"]),
        ("namespaces/{id}/servers", &["put", "patch"]),
        ("namespaces/{id}/tools", &["get", "patch"]),
        ("namespaces/{id}/refresh", &["post"]),
        ("mcp-servers/{id}/refresh", &["post"]),
        ("namespaces/{id}/tools/{uuid}", &["patch"]),
        ("endpoints", &["get", "post"]),
        ("endpoints/{id}/tools", &["get"]),
        ("endpoints/{id}", &["get", "patch", "delete"]),
        ("api-keys", &["get", "post"]),
        ("api-keys/{id}", &["get", "patch", "delete"]),
        ("config", &["get"]),
        ("config/{key}", &["get", "put"]),
        ("sessions", &["get"]),
        ("sessions/{id}", &["get", "delete"]),
        ("events", &["get"]),
        ("logs", &["get", "delete"]),
        ("import", &["post"]),
    ];
    let mut ids = std::collections::HashSet::new();
    let mut count = 3; // /health, /ready and /metrics
    for (path, methods) in table {
        for method in methods {
            let operation = &description["paths"][format!("/api/v1/{path}")][method];
            assert!(operation["responses"]["default"].is_object(), "{method} {path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let said = response["description"].as_str();
                assert!(said.is_some_and(|said| !said.is_empty()), "{method} {path} {status}");
            }
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(ids.insert(id), "{method} {path} has another's id: {operation}");
            count += 1;
        }
    }
    assert_eq!(operations(&description).len(), count);
    let text = description.to_string();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once("\"#/components/schemas/") {
        let (name, after) = after.split_once('"').unwrap();
        let is_there = description["components"]["schemas"][name].is_object();
        assert!(is_there, "the schema {name} is named and missing");
        rest = after;
    }
}

#[actix_web::test]
async fn nothing_that_is_described_is_done_without_a_credential() {
    let house = House::new().await;
    let operations = operations(&description(&house).await);
    assert!(operations.len() > 25);
    for (method, path) in operations {
        if PUBLIC.contains(&&*path) {
            continue;
        }
        let path = path.replace(['{', '}'], "");
        // Neither what is asked nor the body of it is looked at before.
        let request = anybody(method.clone(), &format!("{path}?api_key={ADMIN_KEY}"));
        let answer = house.send(request.set_payload("{nope")).await;
        assert_eq!(answer.status, 401, "{method} {path}");
        assert_eq!(answer.json()["code"], "unauthorized", "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{method} {path}");
    }
}

#[actix_web::test]
async fn only_an_active_admin_key_in_the_header_opens_the_api() {
    let house = House::new().await;
    let key = async |body: Value| {
        house.create("api-keys", body).await["key"].as_str().unwrap().to_owned()
    };
    let client = key(json!({"name": "client"})).await;
    let off = key(json!({"name": "off"})).await;
    house.change("api-keys/off", json!({"is_active": false})).await;
    let table = [
        (Some(format!("Bearer {ADMIN_KEY}")), 200, ""),
        (Some(format!("bearer {ADMIN_KEY}")), 200, ""),
        (Some(format!("Bearer {client}")), 403, "forbidden"),
        (Some(format!("Bearer {off}")), 401, "unauthorized"),
        (Some("Bearer nonsense".to_owned()), 401, "unauthorized"),
        (Some("Bearer ".to_owned()), 401, "unauthorized"),
        (Some(format!("Basic {ADMIN_KEY}")), 401, "unauthorized"),
        (Some(ADMIN_KEY.to_owned()), 401, "unauthorized"),
        (None, 401, "unauthorized"),
    ];
    for path in ["/api/v1/mcp-servers", "/metrics"] {
        for (authorization, status, code) in &table {
            let mut request = anybody(Method::GET, path);
            if let Some(authorization) = authorization {
                request = request.insert_header(("authorization", authorization.as_str()));
            }
            let answer = house.send(request).await;
            assert_eq!(answer.status, *status, "{path} with {authorization:?}");
            assert_eq!(answer.json()["code"].as_str().unwrap_or(""), *code);
        }
    }
    let twice = operator(Method::GET, "mcp-servers")
        .append_header(("authorization", format!("Bearer {ADMIN_KEY}")));
    assert_eq!(house.send(twice).await.status, 401, "two credentials");
    let elsewhere =
        anybody(Method::GET, "/api/v1/mcp-servers").insert_header(("x-api-key", ADMIN_KEY));
    assert_eq!(house.send(elsewhere).await.status, 401, "another header");
}

#[actix_web::test]
async fn what_is_not_there_or_not_done_or_not_built_says_so() {
    let house = House::new().await;
    let table = [
        (Method::GET, "nothing", 404, "not_found"),
        (Method::GET, "mcp-servers/", 404, "not_found"),
        (Method::GET, "mcp-servers/a/b/c", 404, "not_found"),
        (Method::PUT, "mcp-servers", 405, "method_not_allowed"),
        (Method::POST, "mcp-servers/a", 405, "method_not_allowed"),
        (Method::POST, "logs", 405, "method_not_allowed"),
        (Method::GET, "users", 501, "not_implemented"),
        (Method::POST, "oauth-clients", 501, "not_implemented"),
        (Method::DELETE, "users/1", 501, "not_implemented"),
    ];
    for (method, path, status, code) in table {
        let (found, answer) = house.ask(method.clone(), path, None).await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{method} {path}");
        assert!(answer["details"].is_array(), "{answer}");
    }
    let wrong = house.send(operator(Method::PUT, "mcp-servers/a")).await;
    assert_eq!(wrong.header("allow"), "GET, PATCH, DELETE");
    let stranger = house.send(anybody(Method::GET, "/api/v1/nothing")).await;
    assert_eq!(stranger.status, 401, "strangers learn no paths");
    let answer = house.send(anybody(Method::GET, "/api/nothing")).await;
    assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("not_found")));
}

#[actix_web::test]
async fn bodies_that_are_not_json_or_too_large_are_refused() {
    let house = House::new().await;
    let post = || operator(Method::POST, "mcp-servers");
    let json = ("content-type", "application/json");
    let huge = format!("{{\"name\":\"{}\"}}", "x".repeat(1 << 20));
    let table = [
        (post().insert_header(json).set_payload("{nope"), 400, "bad_request"),
        (post().insert_header(json).set_payload("[]"), 400, "bad_request"),
        (post().insert_header(json), 400, "bad_request"),
        (post().insert_header(json).set_payload(huge), 413, "too_large"),
        (post().set_payload("{}"), 415, "unsupported_media_type"),
        (
            post().insert_header(("content-type", "text/plain")).set_payload("{}"),
            415,
            "unsupported_media_type",
        ),
    ];
    for (request, status, code) in table {
        let answer = house.send(request).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)));
    }
}

#[actix_web::test]
async fn every_answer_is_for_the_operator_alone() {
    let house = House::new().await;
    for request in [
        operator(Method::GET, "mcp-servers"),
        operator(Method::GET, "nothing"),
        anybody(Method::GET, "/api/v1/mcp-servers"),
        anybody(Method::GET, "/api/openapi.json"),
        anybody(Method::GET, "/health"),
        anybody(Method::GET, "/ready"),
        anybody(Method::GET, "/metrics"),
    ] {
        let answer = house.send(request.insert_header(("origin", "http://evil.example"))).await;
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
}

#[actix_web::test]
async fn the_daemon_is_ready_from_its_first_reading_until_it_stops() {
    let house = House::unread(true).await;
    let ready = || house.send(anybody(Method::GET, "/ready"));
    let early = ready().await;
    assert_eq!((early.status, early.json()["missing"].clone()), (503, json!(["configuration"])));
    house.state.conductor.reconcile().await.unwrap();
    let now = ready().await;
    let expected = json!({"ready": true, "database": "ok", "missing": []});
    assert_eq!((now.status, now.json()), (200, expected));
    house.state.stopping.cancel();
    assert_eq!(ready().await.status, 503);
    let health = house.send(anybody(Method::GET, "/health")).await;
    let expected = json!({"status": "ok", "run": house.state.conductor.run});
    assert_eq!((health.status, health.json()), (200, expected));
    assert_eq!(
        house.send(anybody(Method::GET, "/metrics")).await.status,
        200,
        "the settings open it"
    );
}

#[actix_web::test]
async fn while_the_database_is_away_writes_are_503_and_the_rest_goes_on() {
    let house = House::new().await;
    house.server("files").await;
    house.until("mcp-servers/files", |one| one["runtime"]["state"] == "READY").await;
    house.close_database().await;
    let body = json!({"name": "late"});
    for (method, path) in [
        (Method::POST, "namespaces"),
        (Method::PUT, "config/MCP_TIMEOUT"),
        (Method::POST, "api-keys"),
    ] {
        let body =
            if path == "config/MCP_TIMEOUT" { json!({"value": "1000"}) } else { body.clone() };
        let refused = house.refused(method, path, body).await;
        assert_eq!((refused.0, refused.1.as_str()), (503, "unavailable"), "{path}");
    }
    let answer = house.send(operator(Method::GET, "namespaces")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    let watched = house.send(operator(Method::GET, "mcp-servers?enabled=true")).await;
    assert_eq!(watched.json()["items"][0]["runtime"]["state"], "READY");
    let one = house.send(operator(Method::GET, "mcp-servers/files")).await;
    assert_eq!((one.status, one.json()["name"].clone()), (200, json!("files")));
    let ready = house.send(anybody(Method::GET, "/ready")).await;
    assert_eq!((ready.status, ready.json()["database"].clone()), (200, json!("unavailable")));
    let events = (house.call)(operator(Method::GET, "events?server=files")).await;
    assert_eq!(events.status(), 200);
}
