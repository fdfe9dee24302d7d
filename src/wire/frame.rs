//! One JSON-RPC message as the bytes that came, with the places of the members a gateway acts on.
//!
//! Nothing is re-typed: ids, names and progress tokens are exchanged by splicing, and every other
//! byte leaves as it came. What the members mean is left to the rooms above.

use std::{borrow::Cow, collections::HashSet, fmt};

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    depth,
    form::{is_id, wrong_error, wrong_result},
};

/// What a message is, by the members it has (JSON-RPC 2.0, sections 4 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Notification,
    Result,
    Error,
}

/// A range of bytes within the frame that it was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// A valid JSON-RPC message.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    kind: Kind,
    spans: Spans,
    wrong: Option<&'static str>,
}

/// Where the members that matter lie. A member that is absent, or has no use here, is `None`.
#[derive(Clone, Copy, Debug, Default)]
struct Spans {
    id: Option<Span>,
    method: Option<Span>,
    result: Option<Span>,
    error: Option<Span>,
    name: Option<Span>,
    uri: Option<Span>,
    reference: Option<Span>,
    meta_token: Option<Span>,
    token: Option<Span>,
    progress: Option<Span>,
    request_id: Option<Span>,
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum Bad {
    #[error("the message is not JSON: {0}")]
    Json(String),
    /// JSON, and no message. `id` is there when it could be read, to be echoed.
    #[error("the message is not a JSON-RPC 2.0 request, notification or response: {why}")]
    Invalid { why: String, id: Option<Bytes> },
    /// A request, whose answer can only be one without an id.
    #[error("the `id` of a request must be a string or an integer")]
    Unanswerable,
}

impl Frame {
    /// Reads one message of at most `depth_max` nested objects and arrays.
    ///
    /// Newlines between tokens become blanks, so that the frame is one line of a pipe and one
    /// `data:` field of an event. A raw control character within a string is [`Bad::Json`].
    pub fn parse(bytes: Bytes, depth_max: usize) -> Result<Self, Bad> {
        let text = std::str::from_utf8(&bytes).map_err(|error| Bad::Json(error.to_string()))?;
        if depth::exceeds(text.as_bytes(), depth_max) {
            let why = format!("it is nested deeper than {depth_max}");
            return Err(Bad::Invalid { why, id: None });
        }
        let envelope: Envelope = serde_json::from_str(text).map_err(|error| {
            if error.is_data() {
                Bad::Invalid { why: error.to_string(), id: id_of(text) }
            } else {
                Bad::Json(error.to_string())
            }
        })?;
        let wrong = envelope.result.and_then(wrong_result);
        let wrong = wrong.or_else(|| envelope.error.and_then(wrong_error));
        let (kind, spans) = envelope.judge(text)?;
        Ok(Self { bytes: one_line(bytes), kind, spans, wrong })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The id as it was written: an integer or a string with its quotes.
    pub fn id(&self) -> Option<&[u8]> {
        self.spans.id.map(|span| self.get(span))
    }

    pub fn id_span(&self) -> Option<Span> {
        self.spans.id
    }

    /// The method's name, decoded.
    pub fn method(&self) -> Option<Cow<'_, str>> {
        self.spans.method.and_then(|span| self.text(span))
    }

    /// The whole `result`, as it was written.
    pub fn result(&self) -> Option<Bytes> {
        self.spans.result.map(|span| self.slice(span))
    }

    /// The whole `error`, as it was written.
    pub fn error(&self) -> Option<Bytes> {
        self.spans.error.map(|span| self.slice(span))
    }

    /// What is amiss with a response that is one by its members only.
    pub fn wrong(&self) -> Option<&'static str> {
        self.wrong.filter(|_| matches!(self.kind, Kind::Result | Kind::Error))
    }

    /// `params.name`: of a tool or a prompt.
    pub fn name_span(&self) -> Option<Span> {
        self.spans.name
    }

    /// `params.uri`: of a resource.
    pub fn uri_span(&self) -> Option<Span> {
        self.spans.uri
    }

    /// `params.ref`: of what is to be completed. [`Frame::reference`] has its parts.
    pub(super) fn reference_span(&self) -> Option<Span> {
        self.spans.reference
    }

    /// `params._meta.progressToken` of a request.
    pub fn meta_token_span(&self) -> Option<Span> {
        self.spans.meta_token
    }

    /// `params.progressToken` of `notifications/progress`.
    pub fn token_span(&self) -> Option<Span> {
        self.spans.token
    }

    /// `params.progress` of `notifications/progress`, where it is a number.
    pub fn progress(&self) -> Option<f64> {
        let raw = std::str::from_utf8(self.get(self.spans.progress?)).ok()?;
        // A string is none, and `"inf"` would be taken for one.
        if raw.starts_with('"') { None } else { raw.parse().ok() }
    }

    /// `params.requestId` of `notifications/cancelled`, as it was written.
    pub fn request_id(&self) -> Option<&[u8]> {
        self.spans.request_id.map(|span| self.get(span))
    }

    pub fn get(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }

    pub fn slice(&self, span: Span) -> Bytes {
        self.bytes.slice(span.start as usize..span.end as usize)
    }

    /// The text that a span holds: a string's content decoded, anything else as it was written.
    ///
    /// `None` for a string that no Rust string can hold, such as one with a lone surrogate.
    pub fn text(&self, span: Span) -> Option<Cow<'_, str>> {
        let raw = std::str::from_utf8(self.get(span)).ok()?;
        match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
            Some(_escaped) => serde_json::from_str(raw).ok().map(Cow::Owned),
            None => Some(Cow::Borrowed(raw)),
        }
    }

    /// The frame with other bytes in the place of some spans, and every other byte kept.
    pub fn splice(&self, edits: &mut [(Span, &[u8])]) -> Bytes {
        super::object::splice(&self.bytes, edits)
    }
}

/// The id of what is otherwise no message, where there is one and only one.
fn id_of(text: &str) -> Option<Bytes> {
    #[derive(serde::Deserialize)]
    struct OnlyId<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
    }
    let only: OnlyId = serde_json::from_str(text).ok()?;
    let id = only.id.get();
    is_id(id).then(|| Bytes::copy_from_slice(id.as_bytes()))
}

/// Only newlines between tokens are left in valid JSON, and there a blank means the same.
fn one_line(bytes: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &bytes).is_none() {
        return bytes;
    }
    let blank = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
    bytes.iter().map(blank).collect()
}

// === Reading ===

/// The envelope's members as they lie in the text.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<&'a str>,
    id: Option<&'a str>,
    method: Option<&'a str>,
    params: Params<'a>,
    result: Option<&'a str>,
    error: Option<&'a str>,
}

#[derive(Default)]
struct Params<'a> {
    name: Option<&'a str>,
    uri: Option<&'a str>,
    reference: Option<&'a str>,
    meta_token: Option<&'a str>,
    token: Option<&'a str>,
    progress: Option<&'a str>,
    request_id: Option<&'a str>,
}

impl Envelope<'_> {
    fn judge(self, text: &str) -> Result<(Kind, Spans), Bad> {
        let span = |part: &str| {
            let start = (part.as_ptr() as usize - text.as_ptr() as usize) as u32;
            Span { start, end: start + part.len() as u32 }
        };
        let readable_id = self.id.filter(|id| is_id(id));
        let invalid = |why: &str| Bad::Invalid {
            why: why.into(),
            id: readable_id.map(|id| Bytes::copy_from_slice(id.as_bytes())),
        };
        if self.jsonrpc != Some(r#""2.0""#) {
            return Err(invalid(r#"`jsonrpc` must be "2.0""#));
        }
        if self.method.is_some_and(|method| !method.starts_with('"')) {
            return Err(invalid("`method` must be a string"));
        }
        let kind = match (self.method, self.id, self.result, self.error) {
            (Some(_), Some(_), _, _) => Kind::Request,
            (Some(_), None, _, _) => Kind::Notification,
            (None, _, Some(_), None) => Kind::Result,
            (None, _, None, Some(_)) => Kind::Error,
            (None, _, Some(_), Some(_)) => {
                return Err(invalid("`result` and `error` exclude each other"));
            }
            (None, _, None, None) => {
                return Err(invalid("it has neither `method`, `result` nor `error`"));
            }
        };
        let id_is_missing = self.id.is_none_or(|id| id == "null");
        match kind {
            // JSON-RPC lets an error answer a request whose id could not be read.
            Kind::Error if id_is_missing => {}
            Kind::Notification => {}
            Kind::Request if readable_id.is_none() => return Err(Bad::Unanswerable),
            Kind::Result | Kind::Error if readable_id.is_none() => {
                return Err(invalid("`id` must be a string or an integer"));
            }
            Kind::Request | Kind::Result | Kind::Error => {}
        }
        let spans = Spans {
            id: readable_id.map(span),
            method: self.method.map(span),
            result: self.result.map(span),
            error: self.error.map(span),
            name: self.params.name.map(span),
            uri: self.params.uri.map(span),
            reference: self.params.reference.map(span),
            meta_token: self.params.meta_token.filter(|token| is_id(token)).map(span),
            token: self.params.token.map(span),
            progress: self.params.progress.map(span),
            request_id: self.params.request_id.filter(|id| is_id(id)).map(span),
        };
        Ok((kind, spans))
    }
}

impl<'de> de::Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("one JSON-RPC message as an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope::default();
        let mut seen = Seen::default();
        while let Some(key) = map.next_key_seed(Key)? {
            seen.admit(&key)?;
            match &*key {
                "jsonrpc" => envelope.jsonrpc = Some(raw(&mut map)?),
                "id" => envelope.id = Some(raw(&mut map)?),
                "method" => envelope.method = Some(raw(&mut map)?),
                "params" => envelope.params = map.next_value_seed(ParamsSeed)?,
                "result" => envelope.result = Some(raw(&mut map)?),
                "error" => envelope.error = Some(raw(&mut map)?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(envelope)
    }
}

/// `params`: an object is looked into; anything else passes as it is.
struct ParamsSeed;

impl<'de> DeserializeSeed<'de> for ParamsSeed {
    type Value = Params<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ParamsSeed {
    type Value = Params<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("`params` as an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut params = Params::default();
        let mut seen = Seen::default();
        while let Some(key) = map.next_key_seed(Key)? {
            seen.admit(&key)?;
            match &*key {
                "name" => params.name = Some(raw(&mut map)?),
                "uri" => params.uri = Some(raw(&mut map)?),
                "ref" => params.reference = Some(raw(&mut map)?),
                "_meta" => params.meta_token = map.next_value_seed(MetaSeed)?,
                "progressToken" => params.token = Some(raw(&mut map)?),
                "progress" => params.progress = Some(raw(&mut map)?),
                "requestId" => params.request_id = Some(raw(&mut map)?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(params)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Params::default())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Params::default())
    }
}

/// `_meta`: its progress token, if it has one.
struct MetaSeed;

impl<'de> DeserializeSeed<'de> for MetaSeed {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MetaSeed {
    type Value = Option<&'de str>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("`_meta` as an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut token = None;
        let mut seen = Seen::default();
        while let Some(key) = map.next_key_seed(Key)? {
            seen.admit(&key)?;
            match &*key {
                "progressToken" => token = Some(raw(&mut map)?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(token)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A member's name, decoded, borrowed where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a member's name")
    }

    fn visit_borrowed_str<E: de::Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.into()))
    }
}

fn raw<'de, A: MapAccess<'de>>(map: &mut A) -> Result<&'de str, A::Error> {
    map.next_value::<&'de RawValue>().map(RawValue::get)
}

/// The names that an object has shown. A second one of the same name would be read in one way by
/// us and perhaps in another by the upstream, so it is refused.
#[derive(Default)]
struct Seen<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Seen<'a> {
    /// Up to here a walk over a list is quicker than hashing.
    const FEW: usize = 16;

    #[expect(clippy::ptr_arg, reason = "a borrowed key is kept as it is, without a copy")]
    fn admit<E: de::Error>(&mut self, key: &Cow<'a, str>) -> Result<(), E> {
        if self.few.contains(key) || self.many.contains(key) {
            return Err(E::custom(format_args!("the member `{key}` stands twice")));
        }
        if self.few.len() < Self::FEW {
            self.few.push(key.clone());
        } else {
            self.many.insert(key.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
