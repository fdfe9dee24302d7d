//! `/api/v1/events`: the stream of what happens.

use std::pin::Pin;

use actix_web::body::MessageBody;

use super::*;
use crate::wire::sse::{Event, Reader};

/// The body of an event stream, read as it comes.
pub(super) struct Watching {
    body: Pin<Box<BoxBody>>,
    reader: Reader,
    pending: Vec<Event>,
}

impl Watching {
    async fn on(house: &House, path: &str) -> Watching {
        Watching::of((house.call)(operator(Method::GET, path)).await)
    }

    pub(super) fn of(answer: ServiceResponse<BoxBody>) -> Watching {
        assert_eq!(answer.status(), 200);
        let header = |name: &str| answer.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!(header("cache-control"), "no-cache, no-transform");
        assert_eq!(header("x-accel-buffering"), "no");
        let body = Box::pin(answer.into_body());
        Watching { body, reader: Reader::new(1 << 16), pending: Vec::new() }
    }

    /// The next piece as it was written; `None` at the end.
    pub(super) async fn piece(&mut self) -> Option<Bytes> {
        let next = std::future::poll_fn(|context| self.body.as_mut().poll_next(context));
        tokio::time::timeout(SOON, next).await.unwrap().map(Result::unwrap)
    }

    pub(super) async fn next(&mut self) -> Event {
        while self.pending.is_empty() {
            let piece = self.piece().await.unwrap();
            self.pending = self.reader.push(&piece).unwrap();
        }
        self.pending.remove(0)
    }

    async fn transition(&mut self) -> Event {
        loop {
            let event = self.next().await;
            if event.event == "transition" {
                return event;
            }
        }
    }
}

#[actix_web::test]
async fn what_becomes_of_a_servers_tools_is_told_too() {
    let house = House::new().await;
    let mut watching = Watching::on(&house, "events").await;
    house.server("files").await;
    let catalogue = async |watching: &mut Watching| loop {
        let event = watching.next().await;
        if event.event == "catalogue" {
            let change = serde_json::from_slice::<Value>(&event.data).unwrap();
            if change["kind"] == "tool" {
                break change;
            }
        }
    };
    let first = catalogue(&mut watching).await;
    assert_eq!((&first["name"], &first["tools"]), (&json!("files"), &json!(2)), "{first}");
    assert_eq!(first["added"], json!({"count": 2, "names": ["a", "b"]}), "{first}");
    house.until("mcp-servers/files", |one| one["runtime"]["state"] == "READY").await;
    house.ask(Method::POST, "mcp-servers/files/refresh", None).await;
    let second = catalogue(&mut watching).await;
    assert_eq!(second["removed"], json!({"count": 1, "names": ["a"]}), "{second}");
}

#[actix_web::test]
async fn transitions_are_told_as_they_happen_with_ids_that_grow() {
    let house = House::new().await;
    let mut watching = Watching::on(&house, "events").await;
    house.server("files").await;
    let (first, second) = (watching.transition().await, watching.transition().await);
    let data = |event: &Event| serde_json::from_slice::<Value>(&event.data).unwrap();
    assert_eq!((&*first.event, &data(&first)["state"]), ("transition", &json!("STARTING")));
    assert_eq!(
        (&data(&second)["state"], &data(&second)["name"], &data(&second)["error_status"]),
        (&json!("READY"), &json!("files"), &json!("NONE"))
    );
    let id = |event: &Event| event.id.as_ref().unwrap().parse::<i128>().unwrap();
    assert!(id(&first) < id(&second));
}

#[actix_web::test]
async fn one_server_can_be_watched_alone() {
    let house = House::new().await;
    house.server("one").await;
    house.server("two").await;
    let ready = |server: &Value| server["runtime"]["state"] == "READY";
    house.until("mcp-servers/one", ready).await;
    house.until("mcp-servers/two", ready).await;
    let mut watching = Watching::on(&house, "events?server=two").await;
    for name in ["one", "two"] {
        house.change(&format!("mcp-servers/{name}"), json!({"enabled": false})).await;
    }
    let event = watching.next().await;
    assert!(String::from_utf8_lossy(&event.data).contains("\"two\""), "{event:?}");
    let (status, _) = house.ask(Method::GET, "events?server=three", None).await;
    assert_eq!(status, 404);
}

#[actix_web::test]
async fn a_watcher_that_is_too_slow_learns_how_much_it_has_missed() {
    let house = House::new().await;
    let mut watching = Watching::on(&house, "events").await;
    house.server("broken").await;
    house.until("mcp-servers/broken", |one| one["error_status"] == "CRASHED").await;
    let restart = async |house: &House| {
        house.ask(Method::POST, "mcp-servers/broken/restart", None).await;
    };
    // The buffer holds four.
    restart(&house).await;
    house
        .until("mcp-servers/broken/history", |history| {
            history["items"].as_array().unwrap().len() >= 6
        })
        .await;
    let event = watching.next().await;
    assert_eq!(event.event, "missed");
    let data: Value = serde_json::from_slice(&event.data).unwrap();
    assert!(data["count"].as_u64().unwrap() >= 1, "{data}");
    assert_eq!(watching.next().await.event, "transition");
}

#[actix_web::test]
async fn a_stream_that_has_nothing_to_say_is_kept_open_until_the_daemon_stops() {
    let house = House::new().await;
    let mut watching = Watching::on(&house, "events").await;
    for _ in 0..3 {
        assert!(watching.piece().await.unwrap().starts_with(b":"));
    }
    house.state.stopping.cancel();
    assert_eq!(watching.piece().await, None);
}
