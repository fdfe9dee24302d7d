//! Sessions as operators see them: all that helps to know one, and nothing that opens it.

use super::*;
use crate::{
    access::Principal,
    session::{ClientInfo, Session},
};

/// An endpoint with a session of this key's.
async fn begin(house: &House, endpoint: &Value, key: Option<&Value>) -> Arc<Session> {
    let uuid = |row: &Value| row["uuid"].as_str().unwrap().parse().unwrap();
    let principal = match key {
        Some(key) => Principal::Key { uuid: uuid(key), user_id: None },
        None => Principal::Anonymous,
    };
    house.state.conductor.sessions.begin(uuid(endpoint), principal, AGREED).unwrap()
}

async fn endpoint(house: &House, name: &str) -> Value {
    house.create("namespaces", json!({ "name": name })).await;
    let open = json!({"name": name, "namespace": name, "enable_api_key_auth": false});
    house.create("endpoints", open).await
}

#[actix_web::test]
async fn a_session_is_shown_without_what_opens_it() {
    let house = House::new().await;
    let door = endpoint(&house, "door").await;
    let key = house.create("api-keys", json!({"name": "mine"})).await;
    let session = begin(&house, &door, Some(&key)).await;
    session.introduce(ClientInfo { name: "suite".into(), version: "7".into() });
    session.open_stream();
    let _call = session.begin(b"1").unwrap();

    let shown = house.get("sessions").await["items"][0].clone();
    for (field, expected) in [
        ("uuid", json!(session.uuid)),
        ("endpoint", door["uuid"].clone()),
        ("endpoint_name", json!("door")),
        ("namespace_uuid", door["namespace_uuid"].clone()),
        ("api_key", key["uuid"].clone()),
        ("api_key_name", json!("mine")),
        ("user_id", Value::Null),
        ("transport", json!("STREAMABLE_HTTP")),
        ("protocol_version", json!("2025-11-25")),
        ("client_name", json!("suite")),
        ("client_version", json!("7")),
        ("in_flight", json!(1)),
        ("streams", json!(1)),
    ] {
        assert_eq!(shown[field], expected, "{field}");
    }
    for field in ["began_at", "last_used_at", "expires_at"] {
        assert!(shown[field].is_string(), "{field}: {shown}");
    }
    assert!(!shown.to_string().contains(&*session.id));
    let one = house.get(&format!("sessions/{}", session.uuid)).await;
    assert_eq!(one["began_at"], shown["began_at"]);
    let (status, _) = house.ask(Method::GET, &format!("sessions/{}", session.id), None).await;
    assert_eq!(status, 404, "the client's own id is no name here");
}

#[actix_web::test]
async fn sessions_are_filtered_by_all_that_they_are() {
    let house = House::new().await;
    let (one, two) = (endpoint(&house, "one").await, endpoint(&house, "two").await);
    let key = house.create("api-keys", json!({"name": "mine"})).await;
    begin(&house, &one, Some(&key)).await;
    begin(&house, &two, None).await;
    let (uuid, namespace) = (&one["uuid"], &two["namespace_uuid"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for (query, count) in [
        (String::new(), 2),
        ("endpoint=one".into(), 1),
        (format!("endpoint={}", text(uuid)), 1),
        ("endpoint=three".into(), 0),
        (format!("namespace_uuid={}", text(namespace)), 1),
        ("api_key=mine".into(), 1),
        (format!("api_key={}", text(&key["uuid"])), 1),
        ("user_id=null".into(), 2),
        ("user_id=ann".into(), 0),
        ("transport=STREAMABLE_HTTP".into(), 2),
        ("transport=SSE".into(), 0),
        ("endpoint=one&transport=SSE".into(), 0),
    ] {
        let found = house.get(&format!("sessions?{query}")).await["items"].clone();
        assert_eq!(found.as_array().unwrap().len(), count, "{query}");
    }
}

#[actix_web::test]
async fn a_session_that_is_deleted_is_over_for_its_client() {
    let house = House::new().await;
    let door = endpoint(&house, "door").await;
    let session = begin(&house, &door, None).await;
    let call = session.begin(b"1").unwrap();
    let path = format!("sessions/{}", session.uuid);
    // Nothing of the database is needed to end one.
    house.close_database().await;
    house.remove(&path).await;
    assert!(session.ended.is_cancelled() && call.cancel.is_cancelled() && call.is_orphaned());
    assert_eq!(house.state.conductor.sessions.count(), 0);
    for method in [Method::GET, Method::DELETE] {
        let (status, answer) = house.ask(method, &path, None).await;
        assert_eq!((status, &answer["code"]), (404, &json!("not_found")));
    }
    assert_eq!(house.get("sessions").await, json!({"items": [], "next_cursor": null}));
}
