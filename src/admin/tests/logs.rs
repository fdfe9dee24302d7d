//! `/api/v1/logs`: pages of what has happened, and the stream of it.

use super::{events::Watching, *};
use crate::{logs::entry::About, wire::sse::Event};

impl House {
    async fn logs(&self, query: &str) -> Vec<Value> {
        self.get(&format!("logs?{query}")).await["items"].as_array().unwrap().clone()
    }

    /// A server that has crashed, so that there is something to read.
    async fn crashed(&self, name: &str) {
        self.server(name).await;
        self.until(&format!("mcp-servers/{name}"), |one| one["error_status"] == "CRASHED").await;
    }

    async fn watch(&self, path: &str, last: Option<&Value>) -> Watching {
        let mut request =
            operator(Method::GET, path).insert_header(("accept", "text/event-stream"));
        if let Some(last) = last {
            request = request.insert_header(("last-event-id", last.to_string()));
        }
        Watching::of((self.call)(request).await)
    }
}

async fn entry(watching: &mut Watching) -> Value {
    let Event { event, id, data, .. } = watching.next().await;
    assert_eq!(event, "log");
    let entry: Value = serde_json::from_slice(&data).unwrap();
    assert_eq!(id, Some(entry["id"].to_string()));
    entry
}

fn of<'a>(entries: &'a [Value], field: &str) -> Vec<&'a str> {
    entries.iter().map(|entry| entry[field].as_str().unwrap_or_default()).collect()
}

#[actix_web::test]
async fn what_a_server_wrote_and_what_became_of_it_come_newest_first() {
    let house = House::new().await;
    let uuid = house.server("broken").await["uuid"].clone();
    house.until("mcp-servers/broken", |one| one["error_status"] == "CRASHED").await;
    let entries = house.logs("server=broken").await;
    let kinds = ["transition", "stderr", "transition", "transition", "stderr", "transition"];
    assert_eq!(of(&entries, "kind"), kinds);
    let states = ["CRASHED", "", "STARTING", "BACKOFF", "", "STARTING"];
    assert_eq!(of(&entries, "state"), states);
    let levels = ["error", "info", "info", "warn", "info", "info"];
    assert_eq!(of(&entries, "level"), levels);
    let ids: Vec<i64> = entries.iter().map(|one| one["id"].as_i64().unwrap()).collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");

    let crash = &entries[0];
    assert_eq!((&crash["server"], &crash["mcp_server_uuid"]), (&json!("broken"), &uuid));
    assert_eq!(crash["reason"], "exited");
    assert!(crash["message"].as_str().unwrap().contains("it ended with the code 3"), "{crash}");
    assert_eq!(entries[1]["message"], "out of order");
}

#[actix_web::test]
async fn filters_ask_for_server_level_kind_time_and_id() {
    let house = House::new().await;
    house.crashed("broken").await;
    house.server("files").await;
    house.until("mcp-servers/files", |one| one["runtime"]["state"] == "READY").await;

    let all = house.logs("").await;
    assert_eq!(of(&house.logs("level=error").await, "state"), ["CRASHED"]);
    assert_eq!(of(&house.logs("level=warn").await, "state"), ["CRASHED", "BACKOFF"]);
    assert_eq!(house.logs("level=debug").await, all);
    assert_eq!(of(&house.logs("kind=stderr").await, "message"), ["out of order"; 2]);
    let both = house.logs("kind=catalogue,stderr").await;
    assert_eq!(of(&both, "kind"), ["catalogue", "stderr", "stderr"]);
    let files = house.logs("server=files").await;
    assert_eq!(
        house.logs(&format!("server={}", files[0]["mcp_server_uuid"].as_str().unwrap())).await,
        files
    );
    assert!(of(&files, "server").iter().all(|name| *name == "files"));

    let since = |entry: &Value, field: &str| match &entry[field] {
        Value::String(text) => format!("since={text}"),
        other => format!("since={other}"),
    };
    assert_eq!(house.logs(&since(&all[2], "id")).await, all[..2]);
    let from = house.logs(&since(&all[2], "at")).await;
    assert!(from.len() >= 3 && from[..] == all[..from.len()], "{from:?}");
    assert!(house.logs("since=2999-01-01T00:00:00+01:00").await.is_empty());
}

#[actix_web::test]
async fn pages_lead_to_the_oldest_entry() {
    let house = House::new().await;
    house.crashed("broken").await;
    let all = house.logs("").await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = house.get(&format!("logs?limit=4{cursor}")).await;
        seen.extend(page["items"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all);
}

#[actix_web::test]
async fn a_question_that_makes_no_sense_is_refused() {
    let house = House::new().await;
    for (query, field) in
        [("since=soon", "since"), ("kind=x", "kind"), ("limit=0", "limit"), ("cursor=x", "cursor")]
    {
        let (status, code, fields) =
            house.refused(Method::GET, &format!("logs?{query}"), Value::Null).await;
        assert_eq!((status, code.as_str()), (400, "bad_request"), "{query}");
        assert_eq!(fields, [field], "{query}");
    }
    for (query, status) in [("level=loud", 400), ("color=red", 400), ("server=none", 404)] {
        let (answered, ..) =
            house.refused(Method::GET, &format!("logs?{query}"), Value::Null).await;
        assert_eq!(answered, status, "{query}");
    }
    let (status, _) = house.ask(Method::DELETE, "logs?server=none", None).await;
    assert_eq!(status, 404);
    for (path, last) in [("logs?limit=1", "1"), ("logs", "x")] {
        let request = operator(Method::GET, path)
            .insert_header(("accept", "text/event-stream"))
            .insert_header(("last-event-id", last));
        assert_eq!(house.send(request).await.status, 400, "{path}");
    }
}

#[actix_web::test]
async fn a_list_that_failed_is_told() {
    let house = House::new().await;
    house.server("failing").await;
    house.until("mcp-servers/failing", |one| one["runtime"]["state"] == "READY").await;
    house.ask(Method::POST, "mcp-servers/failing/refresh", None).await;
    let found = house.until("logs?kind=list", |page| page["items"] != json!([])).await;
    let failed = &found["items"][0];
    assert_eq!((&failed["server"], &failed["level"]), (&json!("failing"), &json!("warn")));
    assert!(failed["message"].as_str().unwrap().contains("it was refused"), "{failed}");
}

#[actix_web::test]
async fn a_stream_begins_with_what_is_kept_and_goes_on_without_a_gap() {
    let house = House::new().await;
    house.crashed("broken").await;
    let mut kept = house.logs("").await;
    kept.reverse();
    let mut watching = house.watch("logs", Some(&kept[0]["id"])).await;
    for expected in &kept[1..] {
        assert_eq!(&entry(&mut watching).await, expected);
    }
    house.server("files").await;
    let next = entry(&mut watching).await;
    assert_eq!((&next["server"], &next["state"]), (&json!("files"), &json!("STARTING")));
}

#[actix_web::test]
async fn a_stream_without_a_beginning_tells_only_what_comes_and_is_asked_for() {
    let house = House::new().await;
    house.crashed("broken").await;
    let mut watching = house.watch("logs?kind=transition&server=broken", None).await;
    house.server("files").await;
    house.until("mcp-servers/files", |one| one["runtime"]["state"] == "READY").await;
    house.change("mcp-servers/broken", json!({"enabled": false})).await;
    let next = entry(&mut watching).await;
    assert_eq!((&next["server"], &next["state"]), (&json!("broken"), &json!("DISABLED")));
    house.state.stopping.cancel();
    assert_eq!(watching.piece().await, None);
}

#[actix_web::test]
async fn a_watcher_that_is_too_slow_learns_how_much_it_has_missed_and_reads_it_again() {
    let house = House::new().await;
    let mut watching = house.watch("logs", None).await;
    // The buffer holds four.
    house.crashed("broken").await;
    let missed = watching.next().await;
    assert_eq!(missed.event, "missed");
    let data: Value = serde_json::from_slice(&missed.data).unwrap();
    assert_eq!(data["count"], 2, "of six");
    let mut kept = house.logs("").await;
    kept.reverse();
    assert_eq!(entry(&mut watching).await, kept[2]);
    let mut again = house.watch("logs?since=0", None).await;
    assert_eq!(entry(&mut again).await, kept[0]);
}

#[actix_web::test]
async fn the_log_is_read_while_the_database_is_away_and_of_servers_that_are_gone() {
    let house = House::new().await;
    house.crashed("broken").await;
    house.remove("mcp-servers/broken").await;
    house.close_database().await;
    assert!(house.logs("server=broken").await.len() >= 6);
}

#[actix_web::test]
async fn what_is_cleared_is_gone_and_stays_so() {
    let house = House::new().await;
    house.crashed("broken").await;
    house.crashed("broken-too").await;
    house.state.catch_up().await;
    let written = house.state.store().kept_logs(1_000).await.unwrap();
    let mut read = house.logs("").await;
    read.reverse();
    let ids = |id: &Value| id.as_i64().unwrap();
    assert_eq!(
        written.iter().map(|entry| entry.id).collect::<Vec<_>>(),
        read.iter().map(|entry| ids(&entry["id"])).collect::<Vec<_>>(),
        "the table follows what is read"
    );

    house.remove("logs?server=broken").await;
    assert!(house.logs("server=broken").await.is_empty());
    assert!(!house.logs("").await.is_empty());
    house.remove("logs").await;
    assert!(house.logs("").await.is_empty());
    assert!(house.state.store().kept_logs(1_000).await.unwrap().is_empty());
}

#[actix_web::test]
async fn a_line_that_comes_too_fast_is_not_even_made_readable() {
    let house = House::new().await;
    let about = About { uuid: uuid::Uuid::from_u128(1), name: "loud" };
    let mut made = 0;
    for _ in 0..1_000 {
        let readable = || {
            made += 1;
            "a line".to_owned()
        };
        house.state.conductor.witness.logbook.wrote(about, Output::Stderr, readable);
    }
    // So many may come at once, and one more in each second that this takes.
    assert!((50..100).contains(&made), "{made}");
    assert_eq!(house.logs("limit=500").await.len(), made.min(100));
}
