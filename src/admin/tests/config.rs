//! Settings that are changed at run time: what is taken, what is shown, and what holds.

use super::*;
use crate::upstream::spec::CallLimits;

async fn row(house: &House, key: &str) -> Value {
    house.get(&format!("config/{key}")).await
}

async fn put(house: &House, key: &str, value: Value) -> Value {
    let body = Some(json!({ "value": value }));
    let (status, row) = house.ask(Method::PUT, &format!("config/{key}"), body).await;
    assert_eq!(status, 200, "{key}: {row}");
    row
}

#[actix_web::test]
async fn every_key_is_shown_with_its_value_its_default_and_where_it_comes_from() {
    let house = House::new().await;
    let all = house.get("config").await["items"].clone();
    let expected = [
        ("DISABLE_BASIC_AUTH", "false", "boolean"),
        ("DISABLE_SIGNUP", "false", "boolean"),
        ("DISABLE_SSO_SIGNUP", "false", "boolean"),
        ("MCP_MAX_ATTEMPTS", "2", "count"),
        ("MCP_MAX_TOTAL_TIMEOUT", "10000", "milliseconds"),
        ("MCP_RESET_TIMEOUT_ON_PROGRESS", "true", "boolean"),
        ("MCP_TIMEOUT", "1000", "milliseconds"),
        ("SESSION_LIFETIME", "1000", "milliseconds"),
    ];
    assert_eq!(all.as_array().unwrap().len(), expected.len());
    for (row, (key, value, unit)) in all.as_array().unwrap().iter().zip(expected) {
        assert_eq!(
            (&row["key"], &row["value"], &row["default"]),
            (&json!(key), &json!(value), &json!(value))
        );
        assert_eq!((&row["source"], &row["unit"]), (&json!("default"), &json!(unit)), "{row}");
        assert_eq!(row["in_use"], !key.starts_with("DISABLE_"), "{row}");
        for field in ["description", "accepted"] {
            assert!(row[field].as_str().is_some_and(|text| !text.is_empty()), "{row}");
        }
    }
    put(&house, "MCP_TIMEOUT", json!("5000")).await;
    let changed = house.get("config?source=config").await["items"].clone();
    assert_eq!(changed.as_array().unwrap().len(), 1);
    assert_eq!((&changed[0]["value"], &changed[0]["default"]), (&json!("5000"), &json!("1000")));
    assert!(changed[0]["updated_at"].is_string());
    assert_eq!(house.get("config?key=MCP_TIMEOUT").await["items"], changed);
}

#[actix_web::test]
async fn a_value_is_taken_as_a_text_or_as_itself_and_null_gives_the_default_back() {
    let house = House::new().await;
    let table = [
        ("MCP_TIMEOUT", json!("2000"), "2000"),
        ("MCP_TIMEOUT", json!(3000), "3000"),
        ("MCP_RESET_TIMEOUT_ON_PROGRESS", json!("false"), "false"),
        ("MCP_RESET_TIMEOUT_ON_PROGRESS", json!(true), "true"),
        ("DISABLE_SIGNUP", json!(true), "true"),
        ("MCP_TIMEOUT", Value::Null, "1000"),
    ];
    for (key, value, text) in table {
        let answer = put(&house, key, value.clone()).await;
        assert_eq!(answer["value"], text, "{key} {value}");
        let source = if value.is_null() { "default" } else { "config" };
        assert_eq!(
            (&answer["source"], &row(&house, key).await["value"]),
            (&json!(source), &json!(text))
        );
        let waits = key.starts_with("DISABLE_");
        assert_eq!(answer["warnings"].to_string().contains("kept"), waits, "{answer}");
    }
    let answer = put(&house, "MCP_MAX_TOTAL_TIMEOUT", json!(1000)).await;
    assert!(answer["warnings"].to_string().contains("MCP_TIMEOUT is no less"), "{answer}");
}

#[actix_web::test]
async fn what_a_key_does_not_take_is_refused_with_what_it_does() {
    let house = House::new().await;
    for (key, value, accepted) in [
        ("MCP_TIMEOUT", json!("999"), "1000 to 86400000"),
        ("MCP_TIMEOUT", json!(1000.5), "1000 to 86400000"),
        ("MCP_TIMEOUT", json!([]), "1000 to 86400000"),
        ("MCP_MAX_ATTEMPTS", json!(11), "1 to 10"),
        ("SESSION_LIFETIME", json!(-1), "300000 to 86400000"),
        ("DISABLE_SIGNUP", json!(1), "true or false"),
        ("MCP_RESET_TIMEOUT_ON_PROGRESS", json!("no"), "true or false"),
        ("BOOTSTRAP_COMPLETE", json!("true"), "MCP_TIMEOUT"),
        ("NO_SUCH_KEY", Value::Null, "MCP_TIMEOUT"),
    ] {
        let path = format!("config/{key}");
        let (status, answer) = house.ask(Method::PUT, &path, Some(json!({ "value": value }))).await;
        assert_eq!((status, &answer["code"]), (422, &json!("invalid")), "{key} {answer}");
        let said = answer["details"][0]["accepted"].as_str().unwrap();
        assert!(said.contains(accepted), "{key}: {said}");
    }
    assert_eq!(house.get("config?source=config").await["items"], json!([]));
    let (status, _) = house.ask(Method::GET, "config/BOOTSTRAP_COMPLETE", None).await;
    assert_eq!(status, 404);
}

#[actix_web::test]
async fn a_change_holds_for_what_runs_and_a_server_s_own_timeout_wins() {
    let house = House::new().await;
    let own = json!({"name": "own", "type": "STDIO", "command": "x", "call_timeout_ms": 7000});
    house.create("mcp-servers", own).await;
    house.server("usual").await;
    let limits = |name: &str| {
        let roster = house.state.conductor.roster.load();
        let spec = roster.values().map(|board| board.spec()).find(|spec| spec.name == name);
        spec.unwrap().limits
    };
    for (key, value) in [
        ("MCP_TIMEOUT", json!(2000)),
        ("MCP_MAX_TOTAL_TIMEOUT", json!(4000)),
        ("MCP_RESET_TIMEOUT_ON_PROGRESS", json!(false)),
        ("SESSION_LIFETIME", json!(300_000)),
    ] {
        put(&house, key, value).await;
    }
    let expected =
        CallLimits { inactivity: 2 * SECOND, total: 4 * SECOND, reset_on_progress: false };
    assert_eq!(limits("usual"), expected);
    assert_eq!(limits("own"), CallLimits { inactivity: 7 * SECOND, ..expected });
    assert_eq!(house.state.conductor.sessions.lifetime(), 300 * SECOND);

    put(&house, "MCP_MAX_ATTEMPTS", json!(1)).await;
    house.server("broken").await;
    let crashed =
        house.until("mcp-servers/broken", |row| row["runtime"]["state"] == "CRASHED").await;
    assert_eq!(crashed["runtime"]["restarts"], 0, "one failure is enough now");
    for key in ["MCP_TIMEOUT", "SESSION_LIFETIME"] {
        put(&house, key, Value::Null).await;
    }
    assert_eq!(limits("usual"), CallLimits { inactivity: SECOND, ..expected });
    assert_eq!(house.state.conductor.sessions.lifetime(), SECOND);
}

#[actix_web::test]
async fn what_somebody_else_wrote_and_means_nothing_is_ignored_and_shown() {
    let house = House::new().await;
    let store = &house.state.conductor.store;
    store.put_config("MCP_TIMEOUT", Some("soon")).await.unwrap();
    store.put_config("BOOTSTRAP_USER_PASSWORD_FINGERPRINT_x", Some("0123")).await.unwrap();
    house.state.conductor.reconcile().await.unwrap();
    let shown = row(&house, "MCP_TIMEOUT").await;
    assert_eq!((&shown["value"], &shown["source"]), (&json!("1000"), &json!("default")));
    assert_eq!(shown["ignored"]["value"], "soon");
    assert!(
        !house.get("config").await.to_string().contains("0123"),
        "what is internal is not shown"
    );
    assert_eq!(put(&house, "MCP_TIMEOUT", json!(2000)).await["ignored"], Value::Null);
}
