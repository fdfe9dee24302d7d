//! `/api/v1/namespaces/{id}/tools`: what is decided about tools, one at a time and many at once.

use super::{
    namespaces::{names, pairs},
    *,
};

/// A namespace `n` of two servers, `one` and `two`, with the tools `a` and `b` each.
async fn scene(naming: &str) -> (House, Vec<String>) {
    let house = House::new().await;
    for name in ["one", "two"] {
        house.server(name).await;
    }
    let body = json!({"name": "n", "naming": naming, "servers": ["one", "two"]});
    house.create("namespaces", body).await;
    let all_are_here = |page: &Value| {
        let items = page["items"].as_array().unwrap();
        items.len() == 4
            && items.iter().all(|one| !one["shown_name"].is_null() || !one["hidden"].is_null())
    };
    let page = house.until("namespaces/n/tools", all_are_here).await;
    let path = |one: &Value| format!("namespaces/n/tools/{}", one["uuid"].as_str().unwrap());
    let tools = page["items"].as_array().unwrap().iter().map(path).collect();
    (house, tools)
}

#[actix_web::test]
async fn a_tool_is_renamed_and_gets_its_name_back() {
    let (house, tools) = scene("ALWAYS").await;
    let changed = house.change(&tools[0], json!({"override_name": "look"})).await;
    assert_eq!((&changed["shown_name"], &changed["name"]), (&json!("look"), &json!("a")));
    assert_eq!((&changed["hidden"], &changed["unresolved"]), (&Value::Null, &json!(false)));
    let changed = house.change(&tools[0], json!({"override_name": null})).await;
    assert_eq!(changed["shown_name"], "one__a");
}

#[actix_web::test]
async fn a_name_that_another_tool_has_or_would_get_back_is_refused_with_its_owner() {
    let (house, tools) = scene("ON_CONFLICT").await;
    house.change(&tools[0], json!({"override_name": "look"})).await;
    house.change(&tools[1], json!({"status": "INACTIVE"})).await;
    for (name, owner) in [
        ("look", "`a` of `one`"),
        ("a", "`a` of `one`"),
        ("b", "`b` of `one`"),
        ("two__a", "`a` of `two`"),
    ] {
        let body = json!({"override_name": name});
        let (status, refused) = house.ask(Method::PATCH, &tools[3], Some(body)).await;
        assert_eq!((status, &refused["code"]), (409, &json!("conflict")), "{name}: {refused}");
        assert!(refused["message"].as_str().unwrap().contains(owner), "{refused}");
    }
    let own = house.change(&tools[3], json!({"override_name": "two__b"})).await;
    assert_eq!(own["shown_name"], "two__b", "its own is no other's");
    for (field, value) in [
        ("override_name", json!("")),
        ("override_name", json!("a b")),
        ("override_annotations", json!([1])),
    ] {
        let refused = house.refused(Method::PATCH, &tools[3], json!({field: value})).await;
        assert_eq!(refused, (422, "invalid".to_owned(), vec![field.to_owned()]));
    }
}

#[actix_web::test]
async fn names_that_meet_by_another_mode_are_told_of_and_neither_is_lost() {
    let (house, tools) = scene("ALWAYS").await;
    house.change(&tools[2], json!({"override_name": "a"})).await;
    house.change("namespaces/n", json!({"naming": "ON_CONFLICT"})).await;
    let page = house.get("namespaces/n/tools").await;
    let shown = names(&page["items"], "shown_name");
    assert_eq!(shown, pairs(&[("a", "one__a"), ("b", "b"), ("a", "a"), ("b", "two__b")]));

    // Given back, the name is that of whoever comes next; the wish for it is kept and shown.
    house.change("namespaces/n", json!({"naming": "ALWAYS"})).await;
    house.ask(Method::PUT, "namespaces/n/servers", Some(json!(["one"]))).await;
    house.change("namespaces/n", json!({"naming": "NEVER"})).await;
    house.ask(Method::PUT, "namespaces/n/servers", Some(json!(["one", "two"]))).await;
    let page = house.get("namespaces/n/tools?unresolved=true").await;
    assert_eq!(names(&page["items"], "override_name_taken_by"), pairs(&[("a", "one/a")]));
    assert_eq!(page["items"][0]["hidden"], "name_taken");
}

#[actix_web::test]
async fn the_list_is_filtered() {
    let (house, tools) = scene("ALWAYS").await;
    house.change(&tools[0], json!({"override_title": "A"})).await;
    house.change(&tools[3], json!({"status": "INACTIVE"})).await;
    for (query, expected) in [
        ("server=one", &[("a", "one"), ("b", "one")][..]),
        ("server=nobody", &[]),
        ("status=INACTIVE", &[("b", "two")]),
        ("status=ACTIVE&name=b", &[("b", "one")]),
        ("overridden=true", &[("a", "one")]),
        ("overridden=false&server=one", &[("b", "one")]),
        ("unresolved=true", &[]),
        ("shown_name=two__a", &[("a", "two")]),
    ] {
        let page = house.get(&format!("namespaces/n/tools?{query}")).await;
        assert_eq!(names(&page["items"], "server_name"), pairs(expected), "{query}");
    }
    for query in ["status=SOMETIMES", "unresolved=perhaps", "colour=red"] {
        let (status, _) =
            house.ask(Method::GET, &format!("namespaces/n/tools?{query}"), None).await;
        assert_eq!(status, 400, "{query}");
    }
}

#[actix_web::test]
async fn many_tools_are_decided_about_at_once() {
    let (house, tools) = scene("ALWAYS").await;
    let path = "namespaces/n/tools";
    let uuid = |tool: usize| tools[tool].rsplit('/').next().unwrap();
    let statuses = async || {
        let page = house.get(path).await;
        let items = page["items"].as_array().unwrap().clone();
        items.iter().map(|one| one["status"] == "ACTIVE").collect::<Vec<_>>()
    };
    let each = json!([
        {"uuid": uuid(0), "status": "INACTIVE"}, {"uuid": uuid(1), "status": "ACTIVE"}
    ]);
    assert_eq!(house.change(path, each.clone()).await, json!({"matched": 2, "changed": 1}));
    assert_eq!(statuses().await, [false, true, true, true]);

    let off = json!({"status": "INACTIVE"});
    let by_server = format!("{path}?server=two");
    assert_eq!(house.change(&by_server, off.clone()).await, json!({"matched": 2, "changed": 2}));
    assert_eq!(statuses().await, [false, true, false, false]);
    let hidden = house.get(&by_server).await;
    assert_eq!(names(&hidden["items"], "hidden"), pairs(&[("a", "inactive"), ("b", "inactive")]));
    let all = house.change(path, json!({"status": "ACTIVE"})).await;
    assert_eq!(all, json!({"matched": 4, "changed": 3}));

    let nobody = uuid::Uuid::nil().to_string();
    let stranger = json!([
        {"uuid": uuid(0), "status": "INACTIVE"}, {"uuid": nobody, "status": "INACTIVE"}
    ]);
    let refused = house.refused(Method::PATCH, path, stranger).await;
    assert_eq!(refused, (422, "invalid".to_owned(), vec!["[1].uuid".to_owned()]));
    assert_eq!(statuses().await, [true; 4], "all of them or none");
    assert_eq!(house.refused(Method::PATCH, &by_server, each).await.0, 400);
    assert_eq!(house.refused(Method::PATCH, path, json!({"status": "OFF"})).await.0, 422);
}

#[actix_web::test]
async fn where_new_tools_are_inactive_only_what_was_decided_about_is_shown() {
    let house = House::new().await;
    house.server("one").await;
    let body = json!({"name": "n", "servers": ["one"], "default_tool_status": "INACTIVE"});
    let made = house.create("namespaces", body).await;
    assert_eq!(made["default_tool_status"], "INACTIVE");
    let is_here = |page: &Value| page["items"].as_array().unwrap().len() == 2;
    let page = house.until("namespaces/n/tools", is_here).await;
    assert_eq!(names(&page["items"], "hidden"), pairs(&[("a", "inactive"), ("b", "inactive")]));

    let tool = format!("namespaces/n/tools/{}", page["items"][0]["uuid"].as_str().unwrap());
    let titled = house.change(&tool, json!({"override_title": "A"})).await;
    assert_eq!(titled["status"], "INACTIVE", "a title opens nothing");
    let shown = house.change(&tool, json!({"status": "ACTIVE"})).await;
    assert_eq!(shown["shown_name"], "one__a");
    let changed = house.change("namespaces/n", json!({"default_tool_status": "ACTIVE"})).await;
    assert_eq!(changed["default_tool_status"], "ACTIVE");
    let page = house.get("namespaces/n/tools").await;
    assert_eq!(names(&page["items"], "status"), pairs(&[("a", "ACTIVE"), ("b", "INACTIVE")]));
    let refused = house.refused(Method::PATCH, "namespaces/n", json!({"default_tool_status": "X"}));
    assert_eq!(refused.await.2, ["default_tool_status"]);
}
