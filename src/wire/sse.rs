//! Server-sent events (WHATWG HTML, section 9.2): a bounded reader, and what we write.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::gathered::Gathered;

/// One event as it was dispatched.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Empty when the stream named none, which means `message`.
    pub event: String,
    pub data: Bytes,
    pub id: Option<String>,
    /// Milliseconds that the server asks us to wait before a reconnect.
    pub retry: Option<u64>,
}

/// The stream's lines would need more memory than was agreed on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {max} bytes")]
pub struct TooLarge {
    pub max: usize,
}

/// Reads events from chunks, whatever the chunks' borders.
#[derive(Debug)]
pub struct Reader {
    event_max: usize,
    line: Gathered,
    event: Event,
    data: Gathered,
    has_data: bool,
    at_start: bool,
    after_cr: bool,
}

impl Reader {
    /// `event_max`: bytes that one event, or one line of it, may have.
    pub fn new(event_max: usize) -> Self {
        Self {
            event_max,
            line: Gathered::default(),
            event: Event::default(),
            data: Gathered::default(),
            has_data: false,
            at_start: true,
            after_cr: false,
        }
    }

    /// Every event that `chunk` completes. After an error the stream cannot be read on.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        let mut rest = chunk;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.extend(rest)?;
                break;
            };
            self.extend(&rest[..end])?;
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            let line = self.line.take();
            events.extend(self.take_line(&line)?);
        }
        Ok(events)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        if self.line.len() + bytes.len() > self.event_max {
            return Err(TooLarge { max: self.event_max });
        }
        self.line.extend(bytes);
        Ok(())
    }

    fn take_line(&mut self, whole: &Bytes) -> Result<Option<Event>, TooLarge> {
        let line: &[u8] = whole;
        let line = match std::mem::take(&mut self.at_start) {
            true => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            false => line,
        };
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (field, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.data.len() + value.len() >= self.event_max {
                    return Err(TooLarge { max: self.event_max });
                }
                if self.has_data {
                    self.data.extend(b"\n");
                }
                self.has_data = true;
                self.data.adopt(whole.slice_ref(value));
            }
            b"event" => self.event.event = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => {
                self.event.id = Some(String::from_utf8_lossy(value).into_owned());
            }
            // What is no number is no retry either, and does not undo one.
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let retry = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.event.retry = retry.or(self.event.retry);
            }
            _comment_or_unknown => {}
        }
        Ok(None)
    }

    /// An event without data is still given when it carries an id or a retry: the transport uses
    /// such events to prime a stream (2025-11-25).
    fn dispatch(&mut self) -> Option<Event> {
        let mut event = std::mem::take(&mut self.event);
        let has_data = std::mem::take(&mut self.has_data);
        event.data = self.data.take();
        (has_data || event.id.is_some() || event.retry.is_some()).then_some(event)
    }
}

/// An event that carries one message. `message` must have no newline, as frames never do.
pub fn message(message: &[u8]) -> Bytes {
    named("message", message)
}

/// The same with an id, by which its reader can come back. `id` must have no newline.
pub fn message_with_id(id: &str, message: &[u8]) -> Bytes {
    // Fields are lines, and their order is free.
    named(&format!("message\nid: {id}"), message)
}

/// An event that says nothing but where the stream begins, and how long to wait before a reconnect
/// (2025-11-25, "Sending Messages to the Server").
pub fn priming(id: &str, retry: Duration) -> Bytes {
    Bytes::from(format!("id: {id}\nretry: {}\ndata: \n\n", retry.as_millis()))
}

/// An event with a name of its own, such as `endpoint` (HTTP+SSE, 2024-11-05).
pub fn named(event: &str, data: &[u8]) -> Bytes {
    let mut text = BytesMut::with_capacity(event.len() + data.len() + 16);
    text.put_slice(b"event: ");
    text.put_slice(event.as_bytes());
    text.put_slice(b"\ndata: ");
    text.put_slice(data);
    text.put_slice(b"\n\n");
    text.freeze()
}

/// A comment: what opens a stream at once and keeps proxies from closing it.
pub const HEARTBEAT: Bytes = Bytes::from_static(b": keep-alive\n\n");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Vec<Event> {
        Reader::new(1_000).push(text).unwrap()
    }

    fn data(text: &'static str) -> Event {
        Event { data: text.into(), ..Event::default() }
    }

    #[test]
    fn fields_comments_and_line_ends_are_read_as_the_standard_has_them() {
        assert_eq!(read(b"data: a\n\n"), [data("a")]);
        assert_eq!(read(b"data:a\r\n\r\ndata: b\r\rdata:c\n\n"), [data("a"), data("b"), data("c")]);
        assert_eq!(read(b"\xef\xbb\xbfdata: a\n: comment\ndata:  b\n\n"), [data("a\n b")]);
        assert_eq!(read(b"nothing\n\n: only a comment\n\n"), []);
        assert_eq!(
            read(b"event: endpoint\nid: 7\nretry: 500\ndata\n\n"),
            [Event {
                event: "endpoint".into(),
                data: "".into(),
                id: Some("7".into()),
                retry: Some(500)
            }]
        );
        assert_eq!(read(b"id: 1\n\n"), [Event { id: Some("1".into()), ..Event::default() }]);
        let retry = [Event { retry: Some(3), ..Event::default() }];
        assert_eq!(read(b"retry: 3\nretry: no\nretry: +5\nretry\n\n"), retry);
    }

    #[test]
    fn an_event_over_the_limit_is_an_error() {
        assert!(Reader::new(8).push(b"data: 123456789").is_err());
        let mut reader = Reader::new(8);
        assert!(reader.push(b"data: a\ndata: b\ndata: c\ndata: d\n").is_ok());
        assert!(reader.push(b"data: e\ndata: f\n").is_err());
    }

    #[test]
    fn what_we_write_is_read_back() {
        let mut stream = HEARTBEAT.to_vec();
        stream.extend_from_slice(&message(br#"{"a":1}"#));
        stream.extend_from_slice(&named("endpoint", b"/x"));
        stream.extend_from_slice(&priming("a-0-0", Duration::from_secs(2)));
        stream.extend_from_slice(&message_with_id("a-0-1", b"{}"));
        let events = read(&stream);
        assert_eq!(events.len(), 4);
        let primer = (events[2].id.as_deref(), events[2].retry, events[2].data.is_empty());
        assert_eq!(primer, (Some("a-0-0"), Some(2_000), true));
        assert_eq!((events[3].id.as_deref(), &events[3].data[..]), (Some("a-0-1"), &b"{}"[..]));
        assert_eq!((&*events[0].event, &events[0].data[..]), ("message", &br#"{"a":1}"#[..]));
        assert_eq!((&*events[1].event, &events[1].data[..]), ("endpoint", &b"/x"[..]));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_into_chunks_changes_nothing(
            text in "(data: [ab]{0,3}|id: 1|: c|)(\r\n|\n|\r){0,3}(data:x|event: e)?(\r\n|\n|\r){0,2}",
            cut in 0_usize..40,
        ) {
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            let mut reader = Reader::new(1_000);
            let mut events = reader.push(head).unwrap();
            events.extend(reader.push(tail).unwrap());
            prop_assert_eq!(events, read(text.as_bytes()));
        }

        #[test]
        fn a_flood_takes_no_more_memory_than_the_limit(
            chunks in proptest::collection::vec("(data: ?|event|id|retry|:|[ab]|\r|\n){0,30}", 0..60),
        ) {
            let mut reader = Reader::new(50);
            for chunk in chunks {
                let read = reader.push(chunk.as_bytes());
                prop_assert!(reader.line.len() <= 50 && reader.data.len() <= 50);
                prop_assert!(reader.event.event.len() <= 50);
                prop_assert!(reader.event.id.as_ref().is_none_or(|id| id.len() <= 50));
                if read.is_err() {
                    break;
                }
            }
        }
    }
}
