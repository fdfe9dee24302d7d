//! Prompts, resources and templates as the operator sees and decides about them.

use uuid::Uuid;

use super::*;

async fn listed(house: &House, path: &str) -> Value {
    house.until(path, |page| !page["items"].as_array().unwrap().is_empty()).await
}

#[actix_web::test]
async fn what_a_server_offers_besides_tools_is_listed_as_it_came() {
    let house = House::new().await;
    house.server("full").await;
    for (kinds, key) in
        [("prompts", "p"), ("resources", "u://a"), ("resource-templates", "u://{x}")]
    {
        let page = listed(&house, &format!("mcp-servers/full/{kinds}?limit=1")).await;
        let item = &page["items"][0];
        assert_eq!((&item["key"], &item["title"]), (&json!(key), &json!(format!("T {key}"))));
        assert!(item["definition"].as_str().unwrap().contains(r#""title":"T "#), "{item}");
        assert_eq!(page["next_cursor"].is_string(), kinds == "resources", "{page}");
    }
    let server = house.get("mcp-servers/full").await;
    let runtime = &server["runtime"];
    let counts = ["tools", "prompts", "resources", "resource_templates"].map(|kind| &runtime[kind]);
    assert_eq!(counts, [&json!(2), &json!(1), &json!(2), &json!(1)], "{runtime}");
    assert_eq!((&runtime["list_error"], &runtime["malformed"]), (&Value::Null, &json!([])));
    let (status, _) = house.ask(Method::GET, "mcp-servers/full/poems", None).await;
    assert_eq!(status, 404);
}

#[actix_web::test]
async fn one_of_two_with_a_uri_is_hidden_and_says_by_whom_until_the_first_is_switched_off() {
    let house = House::new().await;
    house.server("full_one").await;
    house.server("full_two").await;
    house.create("namespaces", json!({"name": "all", "servers": ["full_one", "full_two"]})).await;
    let path = "namespaces/all/resources";
    let is_whole = |page: &Value| {
        let items = page["items"].as_array().unwrap();
        items.len() == 4 && items[3]["hidden"] == "uri_taken" && items[0]["shown_as"] == "u://a"
    };
    let page = house.until(path, is_whole).await;
    let items = page["items"].as_array().unwrap();
    assert_eq!((&items[0]["server_name"], &items[0]["hidden"]), (&json!("full_one"), &Value::Null));
    assert_eq!((&items[2]["taken_by"], &items[2]["shown_as"]), (&json!("full_one"), &Value::Null));

    let first = format!("{path}/{}", items[0]["uuid"].as_str().unwrap());
    let off = house.change(&first, json!({"status": "INACTIVE"})).await;
    assert_eq!((&off["status"], &off["hidden"]), (&json!("INACTIVE"), &json!("inactive")));
    let second = house.get(&format!("{path}?server=full_two&key=u://a")).await;
    assert_eq!(second["items"][0]["shown_as"], "u://a", "{second}");

    let changed =
        house.change(&format!("{path}?server=full_two"), json!({"status": "INACTIVE"})).await;
    assert_eq!(changed, json!({"matched": 2, "changed": 2}));
    let left = house.get(&format!("{path}?status=ACTIVE")).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1, "{left}");
}

#[actix_web::test]
async fn prompts_are_shown_by_the_rule_of_the_namespace() {
    let house = House::new().await;
    house.server("full_one").await;
    house.create("namespaces", json!({"name": "all", "servers": ["full_one"]})).await;
    let path = "namespaces/all/prompts";
    let shown = |name: &'static str| move |page: &Value| page["items"][0]["shown_as"] == name;
    let page = house.until(path, shown("full_one__p")).await;
    house.change("namespaces/all", json!({"naming": "NEVER"})).await;
    house.until(path, shown("p")).await;
    let uuid = page["items"][0]["uuid"].clone();
    let changed = house.change(path, json!([{"uuid": uuid, "status": "INACTIVE"}])).await;
    assert_eq!(changed, json!({"matched": 1, "changed": 1}));
    house.until(path, |page| page["items"][0]["hidden"] == "inactive").await;

    let stranger = json!([{"uuid": Uuid::nil(), "status": "INACTIVE"}]);
    let (status, code, fields) = house.refused(Method::PATCH, path, stranger).await;
    assert_eq!((status, &*code, fields), (422, "invalid", vec!["[0].uuid".to_owned()]));
    let one = format!("{path}/{}", Uuid::nil());
    let (status, ..) = house.refused(Method::PATCH, &one, json!({"status": "ACTIVE"})).await;
    assert_eq!(status, 404);
}
