//! `…/refresh`: what it says of a server that lists, refuses to, is slow, or is down.

use super::*;

async fn ready(house: &House, name: &str) {
    house.server(name).await;
    let path = format!("mcp-servers/{name}");
    house.until(&path, |server| server["runtime"]["state"] == "READY").await;
}

async fn refresh(house: &House, path: &str) -> (u16, Value) {
    house.ask(Method::POST, &format!("{path}/refresh"), None).await
}

#[actix_web::test]
async fn a_refresh_says_what_it_has_changed() {
    let house = House::new().await;
    ready(&house, "files").await;
    let (status, body) = refresh(&house, "mcp-servers/files").await;
    assert_eq!((status, &body["outcome"]), (200, &json!("listed")), "{body}");
    assert_eq!(body["added"], json!({"count": 1, "names": ["c"]}), "{body}");
    assert_eq!(body["removed"], json!({"count": 1, "names": ["a"]}), "{body}");
    assert_eq!((&body["tools"], &body["changed"]["count"]), (&json!(2), &json!(0)), "{body}");

    let (status, body) = refresh(&house, "mcp-servers/files").await;
    assert_eq!((status, &body["outcome"]), (200, &json!("listed")), "{body}");
    for field in ["added", "removed", "changed"] {
        assert_eq!(body[field], json!({"count": 0, "names": []}), "{body}");
    }
}

#[actix_web::test]
async fn a_listing_that_fails_takes_nothing_away_and_is_shown() {
    let house = House::new().await;
    ready(&house, "failing").await;
    let (status, body) = refresh(&house, "mcp-servers/failing").await;
    assert_eq!((status, &body["outcome"]), (200, &json!("failed")), "{body}");
    assert_eq!((&body["error"], &body["tools"]), (&json!("it was refused"), &json!(2)), "{body}");
    let runtime = house.get("mcp-servers/failing").await["runtime"].clone();
    assert_eq!((&runtime["list_error"], &runtime["tools"]), (&json!("it was refused"), &json!(2)));
    assert_eq!((&runtime["state"], runtime["listed_at"].is_string()), (&json!("READY"), true));
}

#[actix_web::test]
async fn a_refresh_that_takes_too_long_goes_on_behind() {
    let house = House::new().await;
    ready(&house, "silent").await;
    let (status, body) = refresh(&house, "mcp-servers/silent").await;
    assert_eq!((status, &body["outcome"]), (202, &json!("waiting")), "{body}");
}

#[actix_web::test]
async fn a_refresh_of_what_cannot_list_says_why() {
    let house = House::new().await;
    house.server("broken").await;
    house.until("mcp-servers/broken", |one| one["error_status"] == "CRASHED").await;
    let (status, body) = refresh(&house, "mcp-servers/broken").await;
    assert_eq!((status, &body["outcome"]), (200, &json!("down")), "{body}");
    assert!(body["error"].as_str().unwrap().contains("exit code 3"), "{body}");

    house.change("mcp-servers/broken", json!({"enabled": false})).await;
    assert_eq!(refresh(&house, "mcp-servers/broken").await.0, 409);
    assert_eq!(refresh(&house, "mcp-servers/nobody").await.0, 404);
    assert_eq!(refresh(&house, "namespaces/nobody").await.0, 404);
}

#[actix_web::test]
async fn a_namespace_is_refreshed_as_a_whole_but_for_what_is_switched_off() {
    let house = House::new().await;
    for name in ["files", "failing", "away"] {
        ready(&house, name).await;
    }
    let servers = json!(["files", "failing", {"server": "away", "status": "INACTIVE"}]);
    house.create("namespaces", json!({"name": "n", "servers": servers})).await;
    let (status, body) = refresh(&house, "namespaces/n").await;
    let items = body["items"].as_array().unwrap();
    let outcomes: Vec<_> = items.iter().map(|one| (&one["name"], &one["outcome"])).collect();
    let expected = [("files", "listed"), ("failing", "failed")]
        .map(|(name, outcome)| (json!(name), json!(outcome)));
    assert_eq!(status, 200);
    assert!(
        outcomes.into_iter().eq(expected.iter().map(|(name, outcome)| (name, outcome))),
        "{body}"
    );
}
