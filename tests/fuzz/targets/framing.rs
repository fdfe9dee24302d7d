//! What comes in pieces is read as if it had come whole, and as a reader has it that sees all of it at
//! once.

use bytes::Bytes;
use metamcpd::wire::{
    Frame, Kind,
    documents::Documents,
    lines::{Line, Lines},
    sse::{Event, Reader},
    torn::Torn,
};
use serde_json::value::RawValue;

use super::{json, pieces};

const LINE_MAX: usize = 24;
const EVENT_MAX: usize = 24;

/// Each of these ways of cutting it, and byte by byte.
fn every_cut<'a>(text: &'a [u8], cut: Vec<&'a [u8]>) -> [Vec<&'a [u8]>; 3] {
    [cut, vec![text], text.chunks(1).collect()]
}

pub fn lines(bytes: &[u8]) {
    let (text, cut) = pieces(bytes);
    let mut whole: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    // What follows the last line end is not there yet.
    whole.pop();
    let expected: Vec<Line> = whole
        .into_iter()
        .filter_map(|line| {
            if line.len() > LINE_MAX {
                return Some(Line::TooLong(Torn::from(&Bytes::copy_from_slice(line))));
            }
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            (!line.is_empty()).then(|| Line::Whole(Bytes::copy_from_slice(line)))
        })
        .collect();
    for cut in every_cut(text, cut) {
        let mut lines = Lines::new(LINE_MAX);
        let found: Vec<Line> =
            cut.into_iter().flat_map(|piece| lines.push(Bytes::copy_from_slice(piece))).collect();
        assert_eq!(found, expected);
    }
}

/// The events of a stream, read at once as the standard has it.
fn events(text: &[u8]) -> Vec<Event> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut lines = vec![Vec::new()];
    let mut bytes = text.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' => {
                bytes.next_if(|next| **next == b'\n');
                lines.push(Vec::new());
            }
            b'\n' => lines.push(Vec::new()),
            other => lines.last_mut().expect("a line").push(*other),
        }
    }
    lines.pop();
    let mut events = Vec::new();
    let mut event = Event::default();
    let mut data: Vec<Vec<u8>> = Vec::new();
    for line in lines {
        if line.is_empty() {
            let has_data = !data.is_empty();
            event.data = Bytes::from(data.join(&b'\n'));
            if has_data || event.id.is_some() || event.retry.is_some() {
                events.push(std::mem::take(&mut event));
            }
            (event, data) = (Event::default(), Vec::new());
            continue;
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = String::from_utf8_lossy(value).into_owned();
        match field {
            b"data" => data.push(value.to_vec()),
            b"event" => event.event = text,
            b"id" if !value.contains(&0) => event.id = Some(text),
            b"retry" if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                event.retry = text.parse().ok().or(event.retry);
            }
            _ => {}
        }
    }
    events
}

pub fn sse(bytes: &[u8]) {
    let (text, cut) = pieces(bytes);
    let expected = events(text);
    for cut in every_cut(text, cut) {
        let mut reader = Reader::new(bytes.len() + 1);
        let mut read = |piece| reader.push(piece).expect("there is room");
        let found: Vec<Event> = cut.iter().flat_map(|piece| read(piece)).collect();
        // A byte order mark may lie in several pieces, and is seen when its line is whole.
        assert_eq!(found, expected);

        let mut narrow = Reader::new(EVENT_MAX);
        let mut found = Vec::new();
        for piece in cut {
            match narrow.push(piece) {
                Ok(events) => found.extend(events),
                Err(_too_large) => break,
            }
        }
        assert!(expected.starts_with(&found));
        assert!(found.iter().all(|event| event.data.len() <= EVENT_MAX));
    }
}

pub fn documents(bytes: &[u8]) {
    let (text, cut) = pieces(bytes);
    let read = |cut: &[&[u8]]| {
        let mut documents = Documents::new(bytes.len());
        cut.iter()
            .flat_map(|piece| documents.push(piece).expect("there is room"))
            .collect::<Vec<_>>()
    };
    let whole = read(&[text]);
    for cut in every_cut(text, cut) {
        assert_eq!(read(&cut), whole);
    }
    let one_by_one: Result<Vec<&RawValue>, _> =
        serde_json::Deserializer::from_slice(text).into_iter().collect();
    let Ok(values) = one_by_one else { return };
    let values: Vec<&str> = values.into_iter().map(RawValue::get).collect();
    if values.iter().all(|value| value.starts_with(['{', '['])) {
        assert_eq!(whole, values);
    }
}

pub fn torn(bytes: &[u8]) {
    let (text, cut) = pieces(bytes);
    let whole = Torn::from(&Bytes::copy_from_slice(text));
    for cut in every_cut(text, cut) {
        let mut torn = Torn::default();
        cut.into_iter().for_each(|piece| torn.extend(piece));
        assert_eq!(torn, whole);
    }
    assert_eq!(whole.bytes, text.len());
    // What it tells of a message is never another request's id.
    let Some(told) = whole.id() else { return };
    let Ok(frame) = Frame::parse(Bytes::copy_from_slice(text), 64) else { return };
    let text = std::str::from_utf8(text).expect("a message is text");
    let envelope = json::members(text).expect("a message is an object");
    let id = json::member(&envelope, "id").and_then(|raw| raw.parse::<u64>().ok());
    assert!(matches!(frame.kind(), Kind::Result | Kind::Error), "it answers nothing: {text}");
    assert_eq!(id, Some(told), "{text}");
}
