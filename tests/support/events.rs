//! Server-sent events as a client of the gateway reads them, one at a time.

use std::time::Duration;

use serde_json::Value;

/// One event, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub event: Option<String>,
    pub id: Option<String>,
    pub retry: Option<String>,
    pub data: String,
}

impl Event {
    /// The data as JSON; `Null` where it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }
}

/// Something that arrived on a stream.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A line that begins with a colon: a heartbeat.
    Comment,
    Event(Event),
}

/// An answer whose body is read piece by piece. A JSON body counts as one event.
#[derive(Debug)]
pub struct EventStream {
    response: Option<reqwest::Response>,
    streams: bool,
    buffer: Vec<u8>,
    pending: Event,
    has_data: bool,
}

impl EventStream {
    pub fn of(response: reqwest::Response) -> EventStream {
        let streams = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/event-stream"));
        EventStream {
            response: Some(response),
            streams,
            buffer: Vec::new(),
            pending: Event::default(),
            has_data: false,
        }
    }

    /// The next event with data; `None` at the end of the body.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.arrival().await? {
                Arrival::Comment => {}
                // A priming event carries an id and nothing else.
                Arrival::Event(event) if event.data.is_empty() => {}
                Arrival::Event(event) => return Some(event),
            }
        }
    }

    /// How often it brings a notification until it has brought so many heartbeats in a row.
    pub async fn announcements(&mut self, method: &str, silence: usize) -> usize {
        let (mut count, mut silent) = (0, 0);
        while silent < silence {
            match super::within("a heartbeat", super::SOON, self.arrival()).await {
                Some(Arrival::Comment) => silent += 1,
                Some(Arrival::Event(event)) => {
                    count += usize::from(event.json()["method"] == method);
                    silent = 0;
                }
                None => panic!("the stream ended"),
            }
        }
        count
    }

    /// The next event; fails the test when it takes longer than `patience` or the stream ends.
    pub async fn expect(&mut self, what: &str, patience: Duration) -> Event {
        match super::within(what, patience, self.next()).await {
            Some(event) => event,
            None => panic!("the stream ended before {what}"),
        }
    }

    /// The same past news of lists: those may come whenever one that was not known yet is.
    pub async fn expect_but_lists(&mut self, what: &str, patience: Duration) -> Event {
        loop {
            let event = self.expect(what, patience).await;
            if !event.data.contains("/list_changed\"") {
                return event;
            }
        }
    }

    /// The first event whose JSON satisfies `wanted`; the ones before it are passed over.
    pub async fn find(
        &mut self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        super::within(what, patience, async {
            loop {
                let Some(event) = self.next().await else {
                    panic!("the stream ended before {what}")
                };
                let json = event.json();
                if wanted(&json) {
                    return json;
                }
            }
        })
        .await
    }

    /// Everything up to the end of the body.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// What comes next, heartbeats included; `None` at the end or when the connection broke.
    pub async fn arrival(&mut self) -> Option<Arrival> {
        loop {
            if self.streams
                && let Some(arrival) = self.take_arrival()
            {
                return Some(arrival);
            }
            let response = self.response.as_mut()?;
            match response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) | Err(_) => {
                    self.response = None;
                    if !self.streams && !self.buffer.is_empty() {
                        let data =
                            String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned();
                        return Some(Arrival::Event(Event { data, ..Event::default() }));
                    }
                }
            }
        }
    }

    fn take_arrival(&mut self) -> Option<Arrival> {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8(line).expect("an event stream is UTF-8");
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let event = std::mem::take(&mut self.pending);
                if std::mem::take(&mut self.has_data) || event.id.is_some() {
                    return Some(Arrival::Event(event));
                }
                continue;
            }
            if line.starts_with(':') {
                return Some(Arrival::Comment);
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            self.note(field, value.strip_prefix(' ').unwrap_or(value));
        }
        None
    }

    fn note(&mut self, field: &str, value: &str) {
        match field {
            "event" => self.pending.event = Some(value.to_owned()),
            "id" => self.pending.id = Some(value.to_owned()),
            "retry" => self.pending.retry = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.pending.data.push('\n');
                }
                self.pending.data.push_str(value);
                self.has_data = true;
            }
            _ => {}
        }
    }
}
