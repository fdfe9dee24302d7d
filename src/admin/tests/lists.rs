//! Every list: its pages are the whole, in whatever steps one walks and whatever is added meanwhile,
//! and what a list does not understand is refused.

use super::*;
use crate::access::Principal;

/// A house with a few of everything; the paths of its lists, by what tells their rows apart.
async fn furnished() -> (House, Vec<(&'static str, &'static str)>) {
    let house = House::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        house.server(name).await;
        house.create("namespaces", json!({"name": name, "servers": ["a"]})).await;
        let open = json!({"name": name, "namespace": name, "enable_api_key_auth": false});
        house.create("endpoints", open).await;
        house.create("api-keys", json!({ "name": name })).await;
    }
    let all = json!(["a", "b", "c", "d", "e"]);
    house.create("namespaces", json!({"name": "all", "servers": all})).await;
    for name in ["a", "b", "c", "d", "e"] {
        house.until(&format!("mcp-servers/{name}"), |row| row["runtime"]["state"] == "READY").await;
        begin_session(&house, name).await;
    }
    house.ask(Method::POST, "mcp-servers/a/restart", None).await;
    house.until("mcp-servers/a", |row| row["runtime"]["restarts"] == 1).await;
    house.until("mcp-servers/a", |row| row["runtime"]["state"] == "READY").await;
    let lists = vec![
        ("mcp-servers", "uuid"),
        ("mcp-servers/a/history", "at"),
        ("mcp-servers/a/tools", "uuid"),
        ("namespaces", "uuid"),
        ("namespaces/all/tools", "uuid"),
        ("endpoints", "uuid"),
        ("api-keys", "uuid"),
        ("config", "key"),
        ("sessions", "uuid"),
        ("logs", "id"),
    ];
    (house, lists)
}

async fn begin_session(house: &House, endpoint: &str) {
    let row = house.get(&format!("endpoints/{endpoint}")).await;
    let uuid = row["uuid"].as_str().unwrap().parse().unwrap();
    house.state.conductor.sessions.begin(uuid, Principal::Anonymous, AGREED).unwrap();
}

fn ids(page: &Value, id: &str) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|row| row[id].to_string()).collect()
}

/// Every row in pages of `limit`; `between` is done after each page.
async fn walk<F: Future<Output = ()>>(
    house: &House,
    path: &str,
    id: &str,
    limit: usize,
    between: impl Fn(usize) -> F,
) -> Vec<String> {
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for page_number in 0.. {
        let page = house.get(&format!("{path}?limit={limit}{cursor}")).await;
        let rows = ids(&page, id);
        assert!(rows.len() <= limit, "{path}: {page}");
        seen.extend(rows);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
        between(page_number).await;
    }
    seen
}

#[actix_web::test]
async fn the_pages_of_every_list_are_the_whole_of_it() {
    let (house, lists) = furnished().await;
    for (path, id) in lists {
        let whole = ids(&house.get(path).await, id);
        assert!(whole.len() >= 2, "{path} has too little to show pages by: {whole:?}");
        for limit in 1..=whole.len() + 1 {
            let pages = walk(&house, path, id, limit, async |_| ()).await;
            assert_eq!(pages, whole, "{path} by {limit}");
        }
    }
}

#[actix_web::test]
async fn what_is_added_or_taken_away_meanwhile_shifts_no_page() {
    let (house, _) = furnished().await;
    let new = |path: &'static str, number: usize| match path {
        "mcp-servers" => json!({"name": format!("n{number}"), "type": "STDIO", "command": "x"}),
        "endpoints" => {
            json!({"name": format!("n{number}"), "namespace": "a", "enable_api_key_auth": false})
        }
        _ => json!({"name": format!("n{number}")}),
    };
    // Endpoints first, since they go with their namespaces.
    for path in ["endpoints", "mcp-servers", "namespaces", "api-keys"] {
        let before = ids(&house.get(path).await, "uuid");
        let house = &house;
        let pages = walk(house, path, "uuid", 2, async |number| {
            // One row more behind, and the one that the cursor stands on gone.
            if number == 0 {
                house.create(path, new(path, number)).await;
                house.remove(&format!("{path}/b")).await;
            }
        })
        .await;
        assert_eq!(pages[..before.len()], before, "{path}");
        assert_eq!(pages.len(), before.len() + 1, "{path}");
    }
    let before = ids(&house.get("sessions").await, "uuid");
    let second = before[1].trim_matches('"').to_owned();
    let house = &house;
    let pages = walk(house, "sessions", "uuid", 2, async |number| {
        if number == 0 {
            begin_session(house, "a").await;
            house.remove(&format!("sessions/{second}")).await;
        }
    })
    .await;
    assert_eq!((&pages[..before.len()], pages.len()), (&before[..], before.len() + 1));
}

#[actix_web::test]
async fn a_tool_that_is_no_longer_asked_for_is_still_a_place_to_go_on_from() {
    let (house, _) = furnished().await;
    let path = "namespaces/all/tools?status=ACTIVE&limit=1";
    let first = house.get(path).await;
    let (uuid, next) = (first["items"][0]["uuid"].clone(), first["next_cursor"].clone());
    let change = json!([{"uuid": uuid, "status": "INACTIVE"}]);
    house.change("namespaces/all/tools", change).await;
    let second = house.get(&format!("{path}&cursor={}", next.as_str().unwrap())).await;
    assert_eq!(second["items"].as_array().unwrap().len(), 1);
    assert_ne!(second["items"][0]["uuid"], uuid);
}

#[actix_web::test]
async fn a_query_that_a_list_does_not_understand_is_refused() {
    let (house, lists) = furnished().await;
    for (path, _) in lists {
        for query in [
            "limit=0",
            "limit=501",
            "limit=-1",
            "limit=x",
            "cursor=",
            "cursor=nonsense",
            "cursor=AAAA",
            "colour=red",
            "limit=1&limit=2",
        ] {
            let (status, answer) = house.ask(Method::GET, &format!("{path}?{query}"), None).await;
            assert_eq!((status, &answer["code"]), (400, &json!("bad_request")), "{path}?{query}");
            assert!(answer["details"].is_array(), "{answer}");
        }
    }
    for query in [
        "mcp-servers?error_status=SAD",
        "mcp-servers?enabled=maybe",
        "mcp-servers?type=PIGEON",
        "mcp-servers/a/history?state=SAD",
        "mcp-servers/a/tools?vanished=x",
        "namespaces?naming=x",
        "namespaces/all/tools?status=x",
        "endpoints?namespace_uuid=x",
        "api-keys?kind=x",
        "config?source=x",
        "sessions?transport=x",
    ] {
        let (status, answer) = house.ask(Method::GET, query, None).await;
        assert_eq!((status, &answer["code"]), (400, &json!("bad_request")), "{query}: {answer}");
    }
}

#[actix_web::test]
async fn lists_are_filtered_by_their_columns() {
    let (house, _) = furnished().await;
    house.change("mcp-servers/e", json!({"enabled": false})).await;
    house
        .change("namespaces/e", json!({"naming": "NEVER", "default_tool_status": "INACTIVE"}))
        .await;
    house.change("endpoints/e", json!({"use_query_param_auth": true})).await;
    house.change("api-keys/e", json!({"is_active": false})).await;
    for (path, count) in [
        ("mcp-servers?enabled=false", 1),
        ("mcp-servers?isolation=SHARED", 5),
        ("mcp-servers?isolation=USER", 0),
        ("mcp-servers?protocol=AUTO&name=a", 1),
        ("mcp-servers?protocol=LEGACY", 0),
        ("mcp-servers?user_id=null&type=STDIO", 5),
        ("mcp-servers/e/history?state=DISABLED", 1),
        ("mcp-servers/e/history?reason=ready&error_status=NONE", 1),
        ("mcp-servers/e/history?error_status=CRASHED", 0),
        ("mcp-servers/a/tools?name=b", 1),
        ("mcp-servers/a/tools?vanished=true", 0),
        ("namespaces?naming=NEVER", 1),
        ("namespaces?default_tool_status=ACTIVE", 5),
        ("endpoints?use_query_param_auth=true", 1),
        ("endpoints?enable_oauth=true", 0),
        ("api-keys?is_active=false", 1),
        ("config?key=MCP_TIMEOUT", 1),
    ] {
        let found =
            house.until(path, |page| page["items"].as_array().unwrap().len() == count).await;
        assert_eq!(found["next_cursor"], Value::Null, "{path}");
    }
}
