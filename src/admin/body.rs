//! Reads the JSON body of a request, and says which field is wrong when one is.
//!
//! What a value means is judged by the store; here it only has to have the right shape.

use std::{borrow::Cow, collections::HashMap, future::Future, io::ErrorKind};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    error::PayloadError,
    web::{Bytes, PayloadConfig},
};
use futures_util::future::LocalBoxFuture;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::{error::Category, value::RawValue};

use super::ApiError;
use crate::store::Problem;

/// Bytes that a body may have.
pub const BODY_MAX: usize = 1024 * 1024;

/// A JSON object of this shape, and of no other.
pub struct Body<T>(pub T);

/// A JSON array of these.
pub struct Rows<T>(pub Vec<T>);

/// A JSON array of these, or one JSON object of that shape.
pub enum RowsOr<T, U> {
    Rows(Vec<T>),
    One(U),
}

/// The limit, as the extractor finds it.
pub fn limits() -> PayloadConfig {
    PayloadConfig::new(BODY_MAX)
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let bytes = json_of(request, payload);
        Box::pin(async move { read(&bytes.await?, '{').map(Self) })
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Rows<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let bytes = json_of(request, payload);
        Box::pin(async move { read(&bytes.await?, '[').map(Self) })
    }
}

impl<T: DeserializeOwned + 'static, U: DeserializeOwned + 'static> FromRequest for RowsOr<T, U> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let bytes = json_of(request, payload);
        Box::pin(async move {
            let bytes = bytes.await?;
            match bytes.trim_ascii_start().first() {
                Some(b'[') => read(&bytes, '[').map(Self::Rows),
                _ => read(&bytes, '{').map(Self::One),
            }
        })
    }
}

fn json_of(
    request: &HttpRequest,
    payload: &mut Payload,
) -> impl Future<Output = Result<Bytes, ApiError>> + use<> {
    let mime = request.mime_type().ok().flatten();
    let is_json = mime.is_some_and(|mime| mime.essence_str() == "application/json");
    let bytes = Bytes::from_request(request, payload);
    async move {
        if !is_json {
            return Err(ApiError::UnsupportedMediaType);
        }
        bytes.await.map_err(unread)
    }
}

/// Why a body did not come whole.
pub fn unread(error: actix_web::Error) -> ApiError {
    match error.as_error::<PayloadError>() {
        Some(PayloadError::Overflow) => ApiError::TooLarge { max: BODY_MAX },
        Some(PayloadError::Io(error)) if error.kind() == ErrorKind::TimedOut => ApiError::TooSlow,
        _ => ApiError::bad_request("the body could not be read"),
    }
}

/// In a patch, a field that may be cleared: missing, `null`, or a value.
pub fn named<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// In a patch, a field that always has a value, so that `null` is refused.
pub fn given<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// In a patch, a list or a map: `null` empties it.
pub fn emptied<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(|value| Some(value.unwrap_or_default()))
}

/// In a new row, a list or a map that may be missing or `null`.
pub fn or_empty<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// `opening` is what the text begins with: an array would else be taken for an object whose fields
/// have lost their names.
fn read<T: DeserializeOwned>(bytes: &[u8], opening: char) -> Result<T, ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| ApiError::bad_request("the body is not UTF-8 text"))?;
    let begins = text.trim_start().chars().next();
    if matches!(begins, Some('{' | '[')) && begins != Some(opening) {
        let what = if opening == '{' { "an object" } else { "an array" };
        return Err(ApiError::bad_request(format!("the body has to be {what}")));
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => blame(text, &error),
        // What is no word where a word is chosen from a few is taken for a fault of the syntax.
        Category::Syntax if serde_json::from_str::<IgnoredAny>(text).is_ok() => blame(text, &error),
        Category::Syntax | Category::Eof | Category::Io => {
            ApiError::bad_request(format!("the body is not JSON: {error}"))
        }
    })
}

/// Finds the field that a value of the wrong shape stands in.
fn blame(text: &str, error: &serde_json::Error) -> ApiError {
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(&*said, |(said, _place)| said);
    let said = &*unquoted(said);
    let (reason, accepted) = match said.split_once(", expected ") {
        Some((reason, expected)) => {
            (reason, Some(expected.strip_prefix("one of ").unwrap_or(expected)))
        }
        None if said == "expected value" => ("not a word", Some("one of its words, as a text")),
        None => (said, None),
    };
    let field = field_in(reason).or_else(|| field_at(text, error.line(), error.column()));
    let Some(field) = field else {
        return ApiError::bad_request(format!("the body is not what is expected: {said}"));
    };
    let problem = Problem::new(field, reason);
    ApiError::invalid(match accepted {
        Some(accepted) => problem.accepted(accepted),
        None => problem,
    })
}

/// The complaint without the text that stands where none should: it may be a secret in the wrong place.
fn unquoted(said: &str) -> Cow<'_, str> {
    let complaints = ["invalid type: string \"", "invalid value: string \""];
    let Some(rest) = complaints.iter().find_map(|complaint| said.strip_prefix(complaint)) else {
        return said.into();
    };
    // From the end, since the text itself may say anything.
    let expected = rest.rsplit_once("\", expected ").map(|(_text, expected)| expected);
    match expected {
        Some(expected) => format!("a text, expected {expected}").into(),
        None => "a text".into(),
    }
}

/// The field that is itself the complaint.
fn field_in(reason: &str) -> Option<String> {
    let complaints = ["unknown field `", "missing field `", "duplicate field `"];
    let rest = complaints.iter().find_map(|complaint| reason.strip_prefix(complaint))?;
    rest.strip_suffix('`').map(str::to_owned)
}

/// The field of the outermost object whose value the place lies in.
fn field_at(text: &str, line: usize, column: usize) -> Option<String> {
    let line_start: usize =
        text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let place = line_start + column;
    let fields: HashMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    fields.into_iter().find_map(|(name, value)| {
        // The value borrows from the text, so the distance of their addresses is its place.
        let start = value.get().as_ptr().addr() - text.as_ptr().addr();
        (start < place && place <= start + value.get().len()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Patch {
        #[serde(default, deserialize_with = "named")]
        note: Option<Option<String>>,
        #[serde(default, deserialize_with = "given")]
        on: Option<bool>,
        #[serde(default, deserialize_with = "emptied")]
        args: Option<Vec<String>>,
        #[serde(default, deserialize_with = "given")]
        word: Option<Word>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Word {
        One,
    }

    fn refused(text: &str) -> Vec<(String, Option<String>)> {
        match read::<Patch>(text.as_bytes(), '{') {
            Err(ApiError::Invalid(problems)) => {
                problems.into_iter().map(|problem| (problem.field, problem.accepted)).collect()
            }
            Err(ApiError::BadRequest { .. }) => Vec::new(),
            other => panic!("expected a refusal, not {other:?}"),
        }
    }

    #[test]
    fn missing_and_null_and_a_value_are_three_things() {
        let read = |text: &str| read::<Patch>(text.as_bytes(), '{').ok();
        assert_eq!(read("{}"), Some(Patch::default()));
        assert_eq!(read(r#"{"note":null}"#), Some(Patch { note: Some(None), ..Patch::default() }));
        let value = Patch { note: Some(Some("x".to_owned())), ..Patch::default() };
        assert_eq!(read(r#"{"note":"x"}"#), Some(value));
        let empty = Patch { args: Some(Vec::new()), ..Patch::default() };
        assert_eq!(read(r#"{"args":null}"#), Some(empty));
    }

    #[test]
    fn the_field_of_a_wrong_shape_is_named() {
        for (text, field, accepted) in [
            (r#"{"nope":1}"#, "nope", Some("`note`, `on`, `args`, `word`")),
            (r#"{"on":null}"#, "on", Some("a boolean")),
            ("{\n \"note\": \"é\",\n \"on\" : \"yes\"}", "on", Some("a boolean")),
            (r#"{"args":["a",5],"on":true}"#, "args", Some("a string")),
            (r#"{"on":true,"on":true}"#, "on", None),
            (r#"{"word":null}"#, "word", Some("one of its words, as a text")),
            (r#"{"on":true,"word": 1}"#, "word", Some("one of its words, as a text")),
            (r#"{"word":"Two"}"#, "word", Some("`One`")),
        ] {
            let expected = (field.to_owned(), accepted.map(str::to_owned));
            assert_eq!(refused(text), [expected], "{text}");
        }
    }

    #[test]
    fn a_text_in_the_wrong_place_is_not_repeated() {
        for text in
            [r#"{"args":"hush"}"#, r#"{"on":"hush\", expected hush"}"#, r#"[{"on":"hush"}]"#]
        {
            let told = format!("{:?}", read::<Patch>(text.as_bytes(), '{'));
            assert!(!told.contains("hush"), "{told}");
        }
        assert_eq!(refused(r#"{"on":"hush\", expected hush"}"#)[0].1.as_deref(), Some("a boolean"));
    }

    #[test]
    fn what_is_no_json_object_is_a_bad_request() {
        for text in ["", "{", "[]", "1", "{'on':true}", "{} {}", "\u{feff}{}"] {
            assert_eq!(refused(text), [], "{text}");
        }
        assert!(matches!(read::<Patch>(b"{\"\xff\":1}", '{'), Err(ApiError::BadRequest { .. })));
    }
}
