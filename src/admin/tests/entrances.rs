//! `/api/v1/endpoints` and `/api/v1/api-keys`.

use super::*;

async fn with_namespace() -> House {
    let house = House::new().await;
    house.create("namespaces", json!({"name": "n"})).await;
    house
}

#[actix_web::test]
async fn an_endpoint_is_made_read_changed_and_deleted() {
    let house = with_namespace().await;
    let made = house.create("endpoints", json!({"name": "e", "namespace": "n"})).await;
    assert_eq!(
        (&made["enable_api_key_auth"], &made["use_query_param_auth"], &made["warnings"]),
        (&json!(true), &json!(false), &Value::Null)
    );
    let urls = json!({
        "mcp": "http://gateway.example/metamcp/e/mcp", "sse": "http://gateway.example/metamcp/e/sse",
    });
    assert_eq!(made["urls"], urls);
    assert_eq!(house.get("endpoints/e").await, made);
    assert!(house.state.conductor.endpoints.load().contains_key("e"), "it is open at once");

    let body = json!({"name": "f", "description": "x", "use_query_param_auth": true});
    let changed = house.change("endpoints/e", body).await;
    assert_eq!((&changed["name"], &changed["use_query_param_auth"]), (&json!("f"), &json!(true)));
    let namespace = changed["namespace_uuid"].as_str().unwrap();
    for (query, count) in [(format!("namespace_uuid={namespace}"), 1), ("name=e".to_owned(), 0)] {
        let page = house.get(&format!("endpoints?{query}")).await;
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{query}");
    }
    house.remove("endpoints/f").await;
    assert!(house.state.conductor.endpoints.load().is_empty());
}

#[actix_web::test]
async fn an_open_endpoint_is_warned_about() {
    let house = with_namespace().await;
    let body = json!({"name": "open", "namespace": "n", "enable_api_key_auth": false});
    let made = house.create("endpoints", body).await;
    assert_eq!(made["warnings"].as_array().unwrap().len(), 1, "{made}");
    house.create("endpoints", json!({"name": "later", "namespace": "n"})).await;
    let opened = house.change("endpoints/later", json!({"enable_api_key_auth": false})).await;
    assert_eq!(opened["warnings"].as_array().unwrap().len(), 1, "{opened}");
}

#[actix_web::test]
async fn endpoints_that_cannot_be_are_refused() {
    let house = with_namespace().await;
    house.create("endpoints", json!({"name": "e", "namespace": "n"})).await;
    let table = [
        (json!({"name": "e", "namespace": "n"}), 409, "conflict", ""),
        (json!({"name": "f", "namespace": "nowhere"}), 422, "invalid", "namespace"),
        (json!({"name": "a/b", "namespace": "n"}), 422, "invalid", "name"),
        (json!({"name": "f"}), 422, "invalid", "namespace"),
        (json!({"name": "f", "namespace": "n", "enable_oauth": true}), 501, "not_implemented", ""),
        (
            json!({"name": "f", "namespace": "n", "enable_max_rate": true}),
            501,
            "not_implemented",
            "",
        ),
    ];
    for (body, status, code, field) in table {
        let refused = house.refused(Method::POST, "endpoints", body.clone()).await;
        assert_eq!((refused.0, refused.1.as_str()), (status, code), "{body}");
        assert_eq!(refused.2.first().map_or("", |field| field), field, "{body}");
    }
}

#[actix_web::test]
async fn the_value_of_a_key_is_shown_once_and_works_at_once() {
    let house = House::new().await;
    let made = house.create("api-keys", json!({"name": "laptop"})).await;
    assert_eq!((&made["kind"], &made["is_active"]), (&json!("CLIENT"), &json!(true)));
    let key = made["key"].as_str().unwrap();
    assert!(house.state.conductor.keys.load().find(key).is_some());
    for path in ["api-keys", "api-keys/laptop"] {
        let text = house.get(path).await.to_string();
        assert!(text.contains("laptop") && !text.contains(key), "{text}");
    }

    let off = house.change("api-keys/laptop", json!({"is_active": false, "name": "a desk"})).await;
    assert_eq!((&off["is_active"], &off["name"]), (&json!(false), &json!("a desk")));
    assert!(!house.state.conductor.keys.load().find(key).unwrap().is_active);
    assert_eq!(
        house.get("api-keys?is_active=false&kind=CLIENT").await["items"].as_array().unwrap().len(),
        1
    );
    assert_eq!(house.get("api-keys?kind=ADMIN").await["items"], json!([]));

    house.remove("api-keys/a%20desk").await;
    assert!(house.state.conductor.keys.load().find(key).is_none());
    for body in [
        json!({"name": ""}),
        json!({"name": "x", "key": "mine"}),
        json!({"name": "x", "kind": "GOD"}),
    ] {
        assert_eq!(house.refused(Method::POST, "api-keys", body.clone()).await.0, 422, "{body}");
    }
}

#[actix_web::test]
async fn an_admin_key_that_was_made_opens_the_api_until_it_is_switched_off() {
    let house = House::new().await;
    let made = house.create("api-keys", json!({"name": "second", "kind": "ADMIN"})).await;
    let ask = || {
        let bearer = format!("Bearer {}", made["key"].as_str().unwrap());
        let request =
            anybody(Method::GET, "/api/v1/api-keys").insert_header(("authorization", bearer));
        house.send(request)
    };
    assert_eq!(ask().await.status, 200);
    house.change("api-keys/second", json!({"is_active": false})).await;
    assert_eq!(ask().await.status, 401);
}
