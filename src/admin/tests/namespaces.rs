//! `/api/v1/namespaces`, their servers and their tools.

use super::*;

pub(super) fn names(list: &Value, field: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    list.as_array().unwrap().iter().map(|one| (text(&one["name"]), text(&one[field]))).collect()
}

pub(super) fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
}

#[actix_web::test]
async fn a_namespace_is_made_read_changed_and_deleted() {
    let house = House::new().await;
    house.server("one").await;
    let two = house.server("two").await["uuid"].clone();
    let servers = json!([two, {"server": "one", "status": "INACTIVE"}]);
    let made = house.create("namespaces", json!({"name": "n", "servers": servers})).await;
    assert_eq!((&made["naming"], &made["user_id"]), (&json!("ALWAYS"), &Value::Null));
    assert_eq!(names(&made["servers"], "status"), pairs(&[("two", "ACTIVE"), ("one", "INACTIVE")]));
    assert_eq!(house.get("namespaces/n").await, made);

    let body = json!({"name": "m", "description": "x", "naming": "NEVER"});
    let changed = house.change("namespaces/n", body).await;
    assert_eq!((&changed["name"], &changed["naming"]), (&json!("m"), &json!("NEVER")));
    assert_eq!(changed["servers"], made["servers"]);
    assert_eq!(house.get("namespaces?name=m").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(house.get("namespaces?name=n").await["items"].as_array().unwrap().len(), 0);

    house.remove("namespaces/m").await;
    let (status, _) = house.ask(Method::GET, "namespaces/m", None).await;
    assert_eq!(status, 404);
    house.get("mcp-servers/one").await;
}

#[actix_web::test]
async fn a_put_makes_the_servers_exactly_these_and_keeps_what_was_decided() {
    let house = House::new().await;
    for name in ["one", "two"] {
        house.server(name).await;
    }
    house.create("namespaces", json!({"name": "n", "servers": ["one", "two"]})).await;
    let tools = "namespaces/n/tools";
    let all = house.until(tools, |page| page["items"].as_array().unwrap().len() == 4).await;
    let tool = all["items"][0]["uuid"].as_str().unwrap().to_owned();
    house.change(&format!("{tools}/{tool}"), json!({"status": "INACTIVE"})).await;

    let body = json!([{"server": "two", "status": "INACTIVE"}, {"server": "one"}]);
    let (status, row) = house.ask(Method::PUT, "namespaces/n/servers", Some(body)).await;
    assert_eq!(status, 200, "{row}");
    assert_eq!(names(&row["servers"], "status"), pairs(&[("two", "INACTIVE"), ("one", "ACTIVE")]));
    let again = house.get(tools).await;
    let kept = again["items"].as_array().unwrap().iter().find(|one| one["uuid"] == *tool).unwrap();
    assert_eq!(kept["status"], "INACTIVE");
}

#[actix_web::test]
async fn servers_that_may_not_be_in_a_namespace_are_named() {
    let house = House::new().await;
    testing::add_user(house.state.store(), "ann").await;
    house.server("one").await;
    let hers = json!({"name": "hers", "type": "STDIO", "command": "x", "user_id": "ann"});
    house.create("mcp-servers", hers).await;
    house.create("namespaces", json!({"name": "n"})).await;
    let table = [
        (json!(["one", "three"]), "servers[1].server"),
        (json!([{"server": "hers"}]), "servers[0].server"),
        (json!(["one", "one"]), "servers[1].server"),
    ];
    for (body, field) in table {
        let refused = house.refused(Method::PUT, "namespaces/n/servers", body.clone()).await;
        assert_eq!(refused, (422, "invalid".to_owned(), vec![field.to_owned()]), "{body}");
        let body = json!({"name": "m", "servers": body});
        assert_eq!(house.refused(Method::POST, "namespaces", body.clone()).await.0, 422, "{body}");
    }
    let refused =
        house.refused(Method::POST, "namespaces", json!({"name": "m", "servers": [5]})).await;
    assert_eq!(refused, (422, "invalid".to_owned(), vec!["servers".to_owned()]));
}

#[actix_web::test]
async fn the_tools_of_a_namespace_are_listed_as_clients_see_them() {
    let house = House::new().await;
    for name in ["one", "two"] {
        house.server(name).await;
    }
    let body = json!({"name": "n", "naming": "ON_CONFLICT", "servers": ["one", "two"]});
    house.create("namespaces", body).await;
    let path = "namespaces/n/tools";
    let is_shown = |page: &Value| {
        let items = page["items"].as_array().unwrap();
        items.len() == 4 && items.iter().all(|one| one["shown_name"].is_string())
    };
    let page = house.until(path, is_shown).await;
    let shown = names(&page["items"], "shown_name");
    assert_eq!(shown, pairs(&[("a", "a"), ("b", "b"), ("a", "two__a"), ("b", "two__b")]));

    let tool = format!("{path}/{}", page["items"][2]["uuid"].as_str().unwrap());
    let changed = house.change(&tool, json!({"status": "INACTIVE"})).await;
    assert_eq!((&changed["status"], &changed["shown_name"]), (&json!("INACTIVE"), &Value::Null));
    let changed = house.change(&tool, json!({"status": "ACTIVE", "override_name": null})).await;
    assert_eq!(changed["shown_name"], "two__a");
    for unknown in [format!("{path}/a"), format!("{path}/{}", uuid::Uuid::nil())] {
        let refused = house.refused(Method::PATCH, &unknown, json!({"status": "ACTIVE"})).await;
        assert_eq!((refused.0, refused.1.as_str()), (404, "not_found"), "{unknown}");
    }

    house.change("namespaces/n", json!({"naming": "NEVER"})).await;
    let page = house.get(path).await;
    assert_eq!(
        names(&page["items"], "hidden"),
        pairs(&[("a", "-"), ("b", "-"), ("a", "name_taken"), ("b", "name_taken")])
    );
}
