//! The keys of the `config` table, set by MetaMCP's names: they act on calls, sessions and upstreams
//! that are there already, and the next start still has them, on both databases.

use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway, database::Database, gateway::Start, wait_until, within,
};

impl TestGateway {
    async fn set(&self, key: &str, value: Value) -> Value {
        self.replace(&format!("config/{key}"), json!({ "value": value })).await
    }
}

/// A call of a tool that works for so long, and reports so many steps when it is asked to.
async fn work(client: &Client, seconds: f64, steps: u32) -> Value {
    let params = json!({
        "name": "demo__long_task",
        "arguments": {"seconds": seconds, "steps": steps},
        "_meta": {"progressToken": "t"},
    });
    within("the call", SOON, client.request("tools/call", params)).await
}

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["reason"].as_str().unwrap_or_else(|| panic!("no reason: {answer}"))
}

#[tokio::test]
async fn another_timeout_ends_the_next_silent_call_and_is_there_after_a_restart() {
    for database in Database::all() {
        let mut gateway = Start::new().on(database).run().await;
        gateway.demo("demo").await;
        let client = gateway.client_of(&["demo"]).await;
        assert!(work(&client, 1.5, 1).await["result"].is_object(), "before, it has a minute");

        let row = gateway.set("MCP_TIMEOUT", json!("1000")).await;
        assert_eq!((&row["value"], &row["source"]), (&json!("1000"), &json!("config")));
        assert_eq!(reason(&work(&client, 600.0, 1).await), "call_timeout", "{database:?}");
        assert!(work(&client, 1.5, 15).await["result"].is_object(), "progress keeps it");

        gateway.change("mcp-servers/demo", json!({"call_timeout_ms": 30_000})).await;
        assert!(work(&client, 1.5, 1).await["result"].is_object(), "the row has its own");
        gateway.change("mcp-servers/demo", json!({"call_timeout_ms": null})).await;

        gateway.set("MCP_RESET_TIMEOUT_ON_PROGRESS", json!(false)).await;
        assert_eq!(reason(&work(&client, 600.0, 6000).await), "call_timeout", "nor progress");

        gateway.restart().await;
        gateway.ready("demo").await;
        assert_eq!(gateway.get("config/MCP_TIMEOUT").await["value"], "1000");
        let key = gateway.key("again").await;
        let client = gateway.client("all", &key).await;
        assert_eq!(reason(&work(&client, 600.0, 6000).await), "call_timeout", "{database:?}");

        gateway.set("MCP_RESET_TIMEOUT_ON_PROGRESS", Value::Null).await;
        gateway.set("MCP_MAX_TOTAL_TIMEOUT", json!(2000)).await;
        assert_eq!(reason(&work(&client, 600.0, 6000).await), "call_total_timeout");
        gateway.set("MCP_TIMEOUT", Value::Null).await;
        gateway.set("MCP_MAX_TOTAL_TIMEOUT", Value::Null).await;
        assert!(work(&client, 1.5, 1).await["result"].is_object(), "the default is back");
    }
}

#[tokio::test]
async fn another_lifetime_holds_for_sessions_that_are_open() {
    let settings = "[sessions]\nlifetime = \"2s\"";
    for database in Database::all() {
        let mut gateway = Start::new().on(database).settings(settings).run().await;
        gateway.set("SESSION_LIFETIME", json!(300_000)).await;
        gateway.restart().await;
        gateway.publish("all", &[]).await;
        let key = gateway.key("suite").await;
        let client = gateway.client("all", &key).await;
        let session = gateway.items("sessions").await[0].clone();
        let time = |field: &str| {
            let text = session[field].as_str().expect("a time");
            let format = &time::format_description::well_known::Rfc3339;
            time::OffsetDateTime::parse(text, format).expect("a time")
        };
        assert_eq!((time("expires_at") - time("began_at")).whole_seconds(), 300);

        let now = time::OffsetDateTime::now_utc();
        wait_until("the age at which the settings would end it", SOON, async || {
            (time::OffsetDateTime::now_utc() - now > time::Duration::seconds(2)).then_some(())
        })
        .await;
        let list = crate::support::client::request(json!(1), "tools/list", json!({}));
        assert_eq!(client.post(&list).await.status.as_u16(), 200, "it has lived on");

        gateway.set("SESSION_LIFETIME", Value::Null).await;
        wait_until("the session's end", SOON, async || {
            gateway.items("sessions").await.is_empty().then_some(())
        })
        .await;
        assert_eq!(client.post(&list).await.status.as_u16(), 404);
    }
}

#[tokio::test]
async fn fewer_attempts_make_the_next_failure_a_crash() {
    let gateway = TestGateway::start().await;
    let row = gateway.set("MCP_MAX_ATTEMPTS", json!(1)).await;
    assert_eq!(row["default"], "6", "five failures are forgiven by the settings");
    gateway.stdio("broken", &["false".to_owned()]).await;
    let crashed = gateway
        .server_until("broken", "CRASHED", |server| server["error_status"] == "CRASHED")
        .await;
    assert_eq!(crashed["runtime"]["restarts"], 0, "{crashed}");
}

#[tokio::test]
async fn a_row_that_means_nothing_stops_no_start_and_is_named() {
    for database in Database::all() {
        let mut gateway = Start::new().on(database).run().await;
        for (key, value) in [("MCP_TIMEOUT", "soon"), ("COLOUR", "red"), ("SESSION_LIFETIME", "")] {
            gateway
                .write_behind_its_back(&format!(
                    "insert into config (id, value, created_at, updated_at) \
                     values ('{key}', '{value}', current_timestamp, current_timestamp)"
                ))
                .await;
        }
        gateway.restart().await;
        let row = gateway.get("config/MCP_TIMEOUT").await;
        assert_eq!((&row["value"], &row["source"]), (&json!("60000"), &json!("default")));
        assert_eq!(row["ignored"]["value"], "soon", "{row}");
        let log = gateway.log();
        for key in ["MCP_TIMEOUT", "COLOUR", "SESSION_LIFETIME"] {
            let named =
                log.lines().filter(|line| line.contains("is ignored") && line.contains(key));
            assert_eq!(named.count(), 1, "{key} is to be named, once:\n{log}");
        }
        gateway.key("a change of something else").await;
        assert_eq!(gateway.log().matches("is ignored").count(), 3, "and not again");
    }
}
