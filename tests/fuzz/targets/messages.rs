//! A message is what a simpler reader of JSON makes of it, member by member; and what is exchanged in
//! it leaves every other byte alone.

use bytes::Bytes;
use metamcpd::wire::{Bad, Frame, Kind, Span, batch as batches};
use serde_json::value::RawValue;

use super::json::{depth, member, members, object, string};

const DEPTH_MAX: usize = 12;
const BATCH_MAX: usize = 6;

/// A message as the simpler reader has it.
struct Expected<'a> {
    kind: Kind,
    envelope: Vec<(String, &'a str)>,
    params: Vec<(String, &'a str)>,
    meta: Vec<(String, &'a str)>,
}

fn is_id(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    raw.starts_with('"') || (!digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()))
}

fn expected(text: &str) -> Option<Expected<'_>> {
    let envelope = object(text)?;
    let part = |key| member(&envelope, key);
    let params = match part("params") {
        None | Some("null") => Vec::new(),
        Some(array) if array.starts_with('[') => Vec::new(),
        Some(other) => object(other)?,
    };
    let meta = match member(&params, "_meta") {
        None | Some("null") => Vec::new(),
        Some(other) => object(other)?,
    };
    let is_message = part("jsonrpc") == Some("\"2.0\"") && depth(text)? <= DEPTH_MAX;
    let kind = match (part("method"), part("id"), part("result"), part("error")) {
        (Some(method), _, _, _) if !method.starts_with('"') => return None,
        (Some(_), None, _, _) => Kind::Notification,
        (Some(_), Some(id), _, _) if is_id(id) => Kind::Request,
        (None, Some(id), Some(_), None) if is_id(id) => Kind::Result,
        (None, Some(id), None, Some(_)) if is_id(id) || id == "null" => Kind::Error,
        (None, None, None, Some(_)) => Kind::Error,
        _ => return None,
    };
    is_message.then_some(Expected { kind, envelope, params, meta })
}

/// An object with one code, which is an integer, and one message, which is a text.
fn is_error(raw: &str) -> bool {
    let members = members(raw).unwrap_or_default();
    let all = |wanted| members.iter().filter(move |(key, _)| key == wanted).map(|(_, raw)| *raw);
    let (codes, messages): (Vec<_>, Vec<_>) = (all("code").collect(), all("message").collect());
    let is_integer = |raw: &str| is_id(raw) && !raw.starts_with('"');
    matches!((&codes[..], &messages[..]), ([code], [said]) if is_integer(code) && said.starts_with('"'))
}

/// As it leaves: on one line.
fn blanked(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

pub fn frame(bytes: &[u8]) {
    let parsed = Frame::parse(Bytes::copy_from_slice(bytes), DEPTH_MAX);
    let text = std::str::from_utf8(bytes).ok();
    match (parsed, text.and_then(expected)) {
        (Ok(frame), Some(expected)) => {
            compare(&frame, text.unwrap_or_default(), &expected);
            exchange(&frame);
        }
        (Err(Bad::Invalid { id: Some(id), .. }), None) => {
            let envelope = text.and_then(members).unwrap_or_default();
            let ids: Vec<&str> =
                envelope.iter().filter(|(key, _)| key == "id").map(|(_, raw)| *raw).collect();
            assert_eq!(ids.iter().map(|id| id.as_bytes()).collect::<Vec<_>>(), [&id[..]]);
        }
        (Err(_), None) => {}
        (Ok(frame), None) => panic!("taken for a message: {:?}", frame.bytes()),
        (Err(why), Some(_)) => panic!("not taken for a message: {why}: {text:?}"),
    }
}

fn compare(frame: &Frame, text: &str, expected: &Expected<'_>) {
    assert_eq!(frame.bytes(), blanked(text).as_bytes());
    assert_eq!(frame.kind(), expected.kind);
    let envelope = |key| member(&expected.envelope, key).map(blanked);
    let id = envelope("id").filter(|id| is_id(id));
    assert_eq!(frame.id(), id.as_deref().map(str::as_bytes));
    assert_eq!(
        frame.method().as_deref(),
        envelope("method").and_then(|raw| string(&raw)).as_deref()
    );
    assert_eq!(frame.result().as_deref(), envelope("result").as_deref().map(str::as_bytes));
    assert_eq!(frame.error().as_deref(), envelope("error").as_deref().map(str::as_bytes));

    let raw = |key| member(&expected.envelope, key).unwrap_or_default();
    let is_wrong = match expected.kind {
        Kind::Result => !raw("result").starts_with('{'),
        Kind::Error => !is_error(raw("error")),
        Kind::Request | Kind::Notification => false,
    };
    assert_eq!(frame.wrong().is_some(), is_wrong, "{text:?}");

    let param = |key| member(&expected.params, key).map(blanked);
    let at =
        |span: Option<Span>| span.map(|span| String::from_utf8_lossy(frame.get(span)).into_owned());
    assert_eq!(at(frame.name_span()), param("name"));
    assert_eq!(at(frame.uri_span()), param("uri"));
    assert_eq!(at(frame.token_span()), param("progressToken"));
    let request_id = param("requestId").filter(|id| is_id(id));
    assert_eq!(frame.request_id(), request_id.as_deref().map(str::as_bytes));
    let is_number =
        |raw: &String| raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let progress = param("progress").filter(is_number).and_then(|raw| raw.parse::<f64>().ok());
    assert_eq!(frame.progress(), progress, "{:?}", param("progress"));
    let token = member(&expected.meta, "progressToken").map(blanked);
    assert_eq!(at(frame.meta_token_span()), token.filter(|token| is_id(token)));

    for span in [frame.name_span(), frame.uri_span()].into_iter().flatten() {
        let raw = String::from_utf8_lossy(frame.get(span)).into_owned();
        let decoded = if raw.starts_with('"') { string(&raw) } else { Some(raw) };
        assert_eq!(frame.text(span).as_deref(), decoded.as_deref());
    }
    let reference = param("ref").and_then(|raw| {
        let parts = object(&raw)?;
        let part = |key| member(&parts, key).filter(|raw| *raw != "null").map(str::to_owned);
        Some([part("type"), part("name"), part("uri")])
    });
    if let Some(found) = frame.reference() {
        let found = [found.kind, found.name, found.uri].map(at);
        assert_eq!(Some(found), reference);
    }
}

/// Puts something else in the place of each span, alone and all at once.
fn exchange(frame: &Frame) {
    const NEW: &[u8] = b"\"~~\"";
    let reference = frame.reference().unwrap_or_default();
    let spans: Vec<Span> = [
        frame.id_span(),
        frame.name_span(),
        frame.uri_span(),
        frame.meta_token_span(),
        frame.token_span(),
        reference.name,
        reference.uri,
    ]
    .into_iter()
    .flatten()
    .collect();
    let place = |span: Span| {
        let start = frame.get(span).as_ptr().addr() - frame.bytes().as_ptr().addr();
        start..start + frame.get(span).len()
    };
    let by_hand = |spans: &[Span]| {
        let mut places: Vec<_> = spans.iter().map(|span| place(*span)).collect();
        places.sort_by_key(|place| std::cmp::Reverse(place.start));
        let mut text = frame.bytes().to_vec();
        for place in places {
            text.splice(place, NEW.iter().copied());
        }
        text
    };
    for some in spans.iter().map(std::slice::from_ref).chain([&spans[..]]) {
        let mut edits: Vec<(Span, &[u8])> = some.iter().map(|span| (*span, NEW)).collect();
        let spliced = frame.splice(&mut edits);
        assert_eq!(spliced, by_hand(some));
        let again = Frame::parse(spliced, DEPTH_MAX).expect("a message still");
        assert_eq!(again.kind(), frame.kind());
    }
}

pub fn batch(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let items = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| serde_json::from_str::<Vec<&RawValue>>(text).ok());
    let split = batches::split(&body, DEPTH_MAX, BATCH_MAX);
    let Ok(messages) = split else {
        let fits = items.is_some_and(|items| (1..=BATCH_MAX).contains(&items.len()));
        assert!(!fits, "no batch: {bytes:?}");
        return;
    };
    assert!(batches::is_batch(bytes));
    let items = items.expect("an array");
    assert_eq!(messages.len(), items.len());
    let mut good = Vec::new();
    for (message, item) in messages.into_iter().zip(items) {
        match (message, expected(item.get())) {
            (Ok(frame), Some(_)) => {
                assert_eq!(frame.bytes(), blanked(item.get()).as_bytes());
                good.push(frame.bytes().clone());
            }
            (Err(_), None) => {}
            (Ok(_), None) | (Err(_), Some(_)) => panic!("not as by itself: {item}"),
        }
    }
    if !good.is_empty() {
        let joined = batches::join(&good);
        let again = batches::split(&joined, DEPTH_MAX, BATCH_MAX).expect("a batch");
        let again: Vec<Bytes> =
            again.into_iter().flatten().map(|frame| frame.bytes().clone()).collect();
        assert_eq!(again, good);
    }
}
