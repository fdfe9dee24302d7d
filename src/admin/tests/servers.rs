//! `/api/v1/mcp-servers` and what hangs on each server.

use futures_util::FutureExt;

use super::*;

#[actix_web::test]
async fn a_server_is_made_read_changed_and_deleted() {
    let house = House::new().await;
    let made = house.server("files").await;
    assert_eq!(
        (&made["name"], &made["type"], &made["isolation"], &made["user_id"]),
        (&json!("files"), &json!("STDIO"), &json!("SHARED"), &Value::Null)
    );
    let uuid = made["uuid"].as_str().unwrap();
    assert_eq!(house.get(&format!("mcp-servers/{uuid}")).await["name"], "files");

    let changed =
        house.change("mcp-servers/files", json!({"description": "new", "args": ["-v"]})).await;
    assert_eq!(
        (&changed["description"], &changed["args"], &changed["command"]),
        (&json!("new"), &json!(["-v"]), &json!("x"))
    );
    let body = json!({"description": null, "args": null, "call_timeout_ms": 5});
    let changed = house.change("mcp-servers/files", body).await;
    assert_eq!(
        (&changed["description"], &changed["args"], &changed["call_timeout_ms"]),
        (&Value::Null, &json!([]), &json!(5))
    );

    house.remove("mcp-servers/files").await;
    let (status, body) = house.ask(Method::GET, "mcp-servers/files", None).await;
    assert_eq!((status, &body["code"]), (404, &json!("not_found")));
    assert!(house.state.conductor.roster.load().is_empty(), "it no longer runs");
}

#[actix_web::test]
async fn a_server_is_shown_with_how_it_runs() {
    let house = House::new().await;
    house.server("files").await;
    let path = "mcp-servers/files";
    let ready = house.until(path, |server| server["runtime"]["state"] == "READY").await;
    let runtime = &ready["runtime"];
    assert_eq!((&runtime["pid"], &runtime["tools"]), (&json!(4242), &json!(2)));
    assert_eq!((&runtime["reason"], &ready["error_status"]), (&json!("ready"), &json!("NONE")));
    assert!(runtime["since"].is_string(), "{ready}");

    let off = house.change(path, json!({"enabled": false})).await;
    assert_eq!(off["enabled"], false);
    house.until(path, |server| server["runtime"]["state"] == "DISABLED").await;
    let (status, answer) = house.ask(Method::POST, "mcp-servers/files/restart", None).await;
    assert_eq!((status, &answer["code"]), (409, &json!("conflict")));
}

#[actix_web::test]
async fn a_server_that_fails_is_found_by_its_status_and_its_history_tells_each_step() {
    let house = House::new().await;
    house.server("files").await;
    house.server("broken").await;
    let broken = house.until("mcp-servers/broken", |one| one["error_status"] == "CRASHED").await;
    assert_eq!((&broken["last_exit_code"], &broken["error_reason"]), (&json!(3), &json!("exited")));
    assert_eq!(broken["runtime"]["last_exit"], json!({"code": 3, "signal": null}));
    assert_eq!(broken["runtime"]["stderr_tail"][0], "out of order");

    let crashed = house.get("mcp-servers?error_status=CRASHED").await;
    assert_eq!(crashed["items"].as_array().unwrap().len(), 1, "{crashed}");
    assert_eq!(crashed["items"][0]["name"], "broken");

    let history = house.get("mcp-servers/broken/history").await;
    let states: Vec<&str> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|one| one["state"].as_str().unwrap())
        .collect();
    assert_eq!(states.first(), Some(&"STARTING"), "{states:?}");
    assert_eq!(states.last(), Some(&"CRASHED"), "{states:?}");
    assert!(states.contains(&"BACKOFF"), "{states:?}");
    assert_eq!(history["items"][0]["exit_code"], 3);

    let before = history["items"].as_array().unwrap().len();
    let (status, answer) = house.ask(Method::POST, "mcp-servers/broken/restart", None).await;
    assert_eq!((status, &answer["name"]), (202, &json!("broken")));
    house
        .until("mcp-servers/broken/history", |history| {
            history["items"].as_array().unwrap().len() > before
        })
        .await;
}

#[actix_web::test]
async fn what_a_server_was_last_seen_to_offer_is_listed_page_by_page() {
    let house = House::new().await;
    house.server("files").await;
    let path = "mcp-servers/files/tools?limit=1";
    let first = house.until(path, |page| !page["items"].as_array().unwrap().is_empty()).await;
    assert_eq!(first["items"][0]["name"], "a");
    assert_eq!(first["items"][0]["definition"], r#"{"name":"a","inputSchema":{}}"#);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = house.get(&format!("{path}&cursor={cursor}")).await;
    assert_eq!((&second["items"][0]["name"], &second["next_cursor"]), (&json!("b"), &Value::Null));
}

#[actix_web::test]
async fn secrets_are_written_and_never_read_back() {
    let house = House::new().await;
    let body = json!({
        "name": "local", "type": "STDIO", "command": "x",
        "env": {"TOKEN": "hunter2", "HOME": "${HOME}", "BOTH": "Bearer ${HOME}"},
    });
    let made = house.create("mcp-servers", body).await;
    let masked = json!({"TOKEN": "********", "HOME": "${HOME}", "BOTH": "********"});
    assert_eq!(made["env"], masked);
    let body = json!({
        "name": "remote", "type": "STREAMABLE_HTTP", "url": "http://127.0.0.1:1/mcp",
        "bearer_token": "hunter2", "headers": {"X-Key": "hunter2"},
    });
    let made = house.create("mcp-servers", body).await;
    assert_eq!(
        (&made["bearer_token"], &made["headers"]),
        (&json!("********"), &json!({"X-Key": "********"}))
    );
    assert!(!house.get("mcp-servers").await.to_string().contains("hunter2"));
}

#[actix_web::test]
async fn a_mask_that_comes_back_means_as_it_was() {
    let house = House::new().await;
    let body = json!({
        "name": "remote", "type": "STREAMABLE_HTTP", "url": "http://127.0.0.1:1/mcp",
        "bearer_token": "hunter2", "headers": {"X-Key": "hunter3", "X-Old": "gone"},
    });
    let made = house.create("mcp-servers", body).await;
    let body = json!({
        "bearer_token": made["bearer_token"], "headers": {"X-Key": "********", "X-New": "hunter4"},
    });
    house.change("mcp-servers/remote", body).await;
    let stored = house.state.store().server("remote").await.unwrap();
    let headers: Vec<_> =
        stored.headers.iter().map(|(name, value)| (&**name, value.expose())).collect();
    assert_eq!(headers, [("X-Key", "hunter3"), ("X-New", "hunter4")]);
    assert_eq!(stored.bearer_token.unwrap().expose(), "hunter2");

    let cleared = house.change("mcp-servers/remote", json!({"bearer_token": null})).await;
    assert_eq!(cleared["bearer_token"], Value::Null);
    let body = json!({"bearer_token": "********", "headers": {"X-Strange": "********"}});
    let refused = house.refused(Method::PATCH, "mcp-servers/remote", body).await;
    assert_eq!(refused.0, 422);
    assert_eq!(refused.2, ["headers.X-Strange", "bearer_token"]);
    let body = json!({"name": "a", "type": "STDIO", "command": "x", "env": {"A": "********"}});
    let refused = house.refused(Method::POST, "mcp-servers", body).await;
    assert_eq!(refused, (422, "invalid".to_owned(), vec!["env.A".to_owned()]));
}

#[actix_web::test]
async fn what_is_refused_says_which_field_is_wrong() {
    let house = House::new().await;
    house.server("taken").await;
    let stdio = |name: &str| json!({"name": name, "type": "STDIO", "command": "x"});
    let with = |field: &str, value: Value| {
        let mut body = stdio("new");
        body[field] = value;
        body
    };
    let table = [
        (stdio("a b"), 422, "invalid", "name"),
        (stdio("a__b"), 422, "invalid", "name"),
        (stdio("0192f0c1-2b3c-7def-8123-456789abcdef"), 422, "invalid", "name"),
        (stdio("taken"), 409, "conflict", ""),
        (json!({"name": "new", "type": "STDIO"}), 422, "invalid", "command"),
        (json!({"type": "STDIO", "command": "x"}), 422, "invalid", "name"),
        (with("type", json!("PIGEON")), 422, "invalid", "type"),
        (with("enabled", json!("yes")), 422, "invalid", "enabled"),
        (with("surprise", json!(1)), 422, "invalid", "surprise"),
        (with("env", json!({"A=B": "x"})), 422, "invalid", "env.A=B"),
        (with("headers", json!({"a b": "x"})), 422, "invalid", "headers.a b"),
        (with("call_timeout_ms", json!(0)), 422, "invalid", "call_timeout_ms"),
        (with("user_id", json!("nobody")), 422, "invalid", "user_id"),
        (with("isolation", json!("ALONE")), 422, "invalid", "isolation"),
        (with("protocol", json!("MODERN")), 501, "not_implemented", ""),
        (with("forward_headers", json!({"a": "b"})), 501, "not_implemented", ""),
        (
            json!({"name": "new", "type": "STREAMABLE_HTTP", "url": "ftp://127.0.0.1/"}),
            422,
            "invalid",
            "url",
        ),
    ];
    for (body, status, code, field) in table {
        let refused = house.refused(Method::POST, "mcp-servers", body.clone()).await;
        let fields: Vec<String> =
            Some(field.to_owned()).filter(|it| !it.is_empty()).into_iter().collect();
        assert_eq!(refused, (status, code.to_owned(), fields), "{body}");
    }
    let changes = [
        (json!({"name": null}), 422, "name"),
        (json!({"uuid": "x"}), 422, "uuid"),
        (json!({"isolation": "ALONE"}), 422, "isolation"),
    ];
    for (body, status, field) in changes {
        let refused = house.refused(Method::PATCH, "mcp-servers/taken", body.clone()).await;
        assert_eq!(refused.0, status, "{body}");
        assert_eq!(refused.2.first().map_or("", |field| field), field, "{body}");
    }
    let names = house.get("mcp-servers").await;
    assert_eq!(names["items"].as_array().unwrap().len(), 1, "nothing was written");
}

#[actix_web::test]
async fn a_server_of_any_type_takes_every_isolation() {
    let house = House::new().await;
    let process = json!({"name": "p", "type": "STDIO", "command": "x", "isolation": "SESSION"});
    assert_eq!(house.create("mcp-servers", process).await["isolation"], "SESSION");
    for isolation in ["USER", "SHARED", "SESSION"] {
        let row = house.change("mcp-servers/p", json!({"isolation": isolation})).await;
        assert_eq!(row["isolation"], isolation);
    }
    // What another type is usually shared by is not what this one was told.
    let body = json!({"type": "SSE", "url": "http://127.0.0.1:1/sse", "isolation": "USER"});
    assert_eq!(house.change("mcp-servers/p", body).await["isolation"], "USER");
    let body = json!({"type": "STDIO", "command": "x", "isolation": "USER"});
    assert_eq!(house.change("mcp-servers/p", body).await["isolation"], "USER");
}

#[actix_web::test]
async fn a_server_may_become_one_of_another_type() {
    let house = House::new().await;
    house.server("one").await;
    let body = json!({"type": "STREAMABLE_HTTP", "url": "http://127.0.0.1:1/mcp"});
    let remote = house.change("mcp-servers/one", body).await;
    assert_eq!((&remote["isolation"], &remote["command"]), (&json!("SESSION"), &Value::Null));
    let body = json!({"type": "SSE", "url": "http://127.0.0.1:1/sse"});
    let remote = house.change("mcp-servers/one", body).await;
    assert_eq!((&remote["type"], &remote["isolation"]), (&json!("SSE"), &json!("SESSION")));
    let back = house.change("mcp-servers/one", json!({"type": "STDIO", "command": "y"})).await;
    assert_eq!((&back["isolation"], &back["url"]), (&json!("SHARED"), &Value::Null));
}

#[actix_web::test]
async fn a_name_that_several_owners_use_is_ambiguous() {
    let house = House::new().await;
    testing::add_user(house.state.store(), "ann").await;
    house.server("same").await;
    let body = json!({"name": "same", "type": "STDIO", "command": "x", "user_id": "ann"});
    let hers = house.create("mcp-servers", body).await;
    let (status, answer) = house.ask(Method::GET, "mcp-servers/same", None).await;
    assert_eq!((status, &answer["code"]), (409, &json!("ambiguous")));
    house.get(&format!("mcp-servers/{}", hers["uuid"].as_str().unwrap())).await;
    for (filter, count) in [("ann", 1), ("null", 1), ("bob", 0)] {
        let page = house.get(&format!("mcp-servers?user_id={filter}")).await;
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{filter}");
    }
}

#[actix_web::test]
async fn a_list_is_read_page_by_page_and_filtered() {
    let house = House::new().await;
    for name in ["a", "b", "c"] {
        house.server(name).await;
    }
    house.change("mcp-servers/b", json!({"enabled": false})).await;
    let first = house.get("mcp-servers?limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = house.get(&format!("mcp-servers?limit=2&cursor={cursor}")).await;
    assert_eq!((&second["items"][0]["name"], &second["next_cursor"]), (&json!("c"), &Value::Null));
    for (query, count) in [("enabled=false", 1), ("name=c", 1), ("type=STDIO", 3), ("type=SSE", 0)]
    {
        let page = house.get(&format!("mcp-servers?{query}")).await;
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{query}");
    }
    for query in [
        "limit=0",
        "limit=501",
        "limit=x",
        "cursor=!",
        "colour=red",
        "type=PIGEON",
        "limit=1&limit=2",
    ] {
        let (status, answer) = house.ask(Method::GET, &format!("mcp-servers?{query}"), None).await;
        assert_eq!((status, &answer["code"]), (400, &json!("bad_request")), "{query}: {answer}");
    }
}

#[actix_web::test]
async fn a_change_takes_effect_even_when_whoever_asked_has_gone() {
    let house = House::new().await;
    let body = json!({"name": "files", "type": "STDIO", "command": "x"});
    let asked = (house.call)(operator(Method::POST, "mcp-servers").set_json(body));
    // Looked at once and given up: with time at all, a busy machine may have the answer by then.
    assert!(asked.now_or_never().is_none(), "it was to be given up before the answer");
    let runs = async {
        while house.state.conductor.roster.load().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, runs).await.unwrap();
}
