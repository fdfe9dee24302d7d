//! What messages say of tasks (basic, "Tasks", 2025-11-25): whether a request is to become one, which
//! one it is about, and what becomes of it.
//!
//! It is read when it is asked for; a search for the words that it needs comes before any reading.

use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;

use super::{
    frame::{Frame, Kind, Span},
    object::Object,
};

/// The first revision that has tasks.
pub const SINCE: &str = "2025-11-25";

/// The member of `_meta` that says which task a message belongs to.
pub const RELATED: &str = "io.modelcontextprotocol/related-task";

/// The notification that says what has become of a task.
pub const STATUS: &str = "notifications/tasks/status";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Working,
    InputRequired,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "working" => Self::Working,
            "input_required" => Self::InputRequired,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            _ => return None,
        })
    }

    /// Whether nothing more will become of it.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// A task as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub id: Box<str>,
    pub id_span: Span,
    /// The whole object.
    pub object: Bytes,
    /// Where the id stands in that.
    pub id_within: Span,
    /// `None` for a word that we do not know.
    pub status: Option<Status>,
    pub poll_interval: Option<Duration>,
    /// `None` where it is kept for ever, or where nothing was said.
    pub ttl: Option<Duration>,
}

/// The task that a message belongs to, by its `_meta`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    pub id: Box<str>,
    pub id_span: Span,
    /// What to take out so that nothing is said of it.
    pub cut: Span,
}

/// What to take out of a request so that it is not to become a task. `None` where it is not anyway.
pub fn augmentation(frame: &Frame) -> Option<Span> {
    if !may_hold(frame, b"\"task\"") {
        return None;
    }
    let params = Object::of(frame.bytes())?.object("params")?;
    params.object("task")?;
    params.cut("task")
}

/// What to put into a request so that it becomes a task that is kept for so long.
pub fn augmenting(frame: &Frame, ttl: Duration) -> Option<(Span, Bytes)> {
    let params = Object::of(frame.bytes())?.object("params")?;
    Some(params.with(&format!(r#""task":{{"ttl":{}}}"#, ttl.as_millis())))
}

/// `params.taskId` of a request, where it is a string.
pub fn named(frame: &Frame) -> Option<(Span, String)> {
    let params = Object::of(frame.bytes())?.object("params")?;
    Some((params.value("taskId")?, params.text("taskId")?))
}

/// The task that a request has become, by its answer.
pub fn created(answer: &Frame) -> Option<Described> {
    if answer.kind() != Kind::Result || !may_hold(answer, b"\"task\"") {
        return None;
    }
    let result = Object::of(answer.bytes())?.object("result")?;
    describe(answer, &result.object("task")?, result.value("task")?)
}

/// The task that an answer, or a notification of its status, describes.
pub fn described(frame: &Frame) -> Option<Described> {
    let part = match frame.kind() {
        Kind::Result => "result",
        Kind::Notification => "params",
        Kind::Request | Kind::Error => return None,
    };
    let whole = Object::of(frame.bytes())?;
    describe(frame, &whole.object(part)?, whole.value(part)?)
}

fn describe(frame: &Frame, task: &Object<'_>, whole: Span) -> Option<Described> {
    let millis = |key| {
        let millis = task.number(key).filter(|millis| *millis >= 0.0)?;
        Duration::try_from_secs_f64(millis / 1000.0).ok()
    };
    let id_span = task.value("taskId")?;
    Some(Described {
        id: task.text("taskId")?.into(),
        id_span,
        object: frame.slice(whole),
        id_within: Span { start: id_span.start - whole.start, end: id_span.end - whole.start },
        status: task.text("status").and_then(|word| Status::parse(&word)),
        poll_interval: millis("pollInterval"),
        ttl: millis("ttl"),
    })
}

/// The task that a message belongs to, if it says so.
pub fn related(frame: &Frame) -> Option<Related> {
    if !may_hold(frame, b"related-task") {
        return None;
    }
    let part = part_of(frame)?;
    let meta = Object::of(frame.bytes())?.object(part)?.object("_meta")?;
    let task = meta.object(RELATED)?;
    Some(Related {
        id: task.text("taskId")?.into(),
        id_span: task.value("taskId")?,
        cut: meta.cut(RELATED)?,
    })
}

/// What to change in an answer so that it belongs to this task.
pub fn relating(answer: &Frame, id: &str) -> Option<(Span, Bytes)> {
    let id = serde_json::Value::from(id).to_string();
    let result = Object::of(answer.bytes())?.object("result")?;
    let member = format!(r#""{RELATED}":{{"taskId":{id}}}"#);
    let Some(meta) = result.object("_meta") else {
        // One that is there and no object is the client's own affair.
        return result
            .raw("_meta")
            .is_none()
            .then(|| result.with(&format!(r#""_meta":{{{member}}}"#)));
    };
    match meta.object(RELATED).and_then(|task| task.value("taskId")) {
        Some(span) => Some((span, id.into())),
        None => meta.raw(RELATED).is_none().then(|| meta.with(&member)),
    }
}

fn part_of(frame: &Frame) -> Option<&'static str> {
    match frame.kind() {
        Kind::Request | Kind::Notification => Some("params"),
        Kind::Result => Some("result"),
        Kind::Error => None,
    }
}

/// Whether a message may have a member whose name ends so. What is written with escapes may be
/// anything.
fn may_hold(frame: &Frame, word: &[u8]) -> bool {
    let bytes = frame.bytes();
    let has_escapes =
        || memchr::memchr(b'\\', bytes).is_some() && memmem::find(bytes, br"\u").is_some();
    memmem::find(bytes, word).is_some() || has_escapes()
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
