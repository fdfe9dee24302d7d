//! Which upstream a request is for, and what that upstream calls what is asked for.
//!
//! It goes by the published snapshot. Only what the snapshot does not know is waited for: upstreams
//! that have not been listed yet, and for a tool the namespace's own judgement of an unlisted name.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::tasks;
use crate::{
    catalogue::{kind::Kind, links, task_support::TaskSupport},
    conductor::EndpointEntry,
    namespace::{AwaitFirst, Resolve, published::Published},
    upstream::board::Board,
    wire::{Fault, Frame, Reference, Span, codes, message},
};

/// The requests that go to one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Tool,
    Prompt,
    Resource,
    Completion,
    Subscription,
    Unsubscription,
    Task(tasks::Request),
}

/// Where a request goes.
pub struct Found {
    pub board: Arc<Board>,
    /// What is asked for, as its server knows it.
    pub key: Box<str>,
    /// What stands in the place of the client's word for what it asks for, where that is ours.
    pub edit: Option<(Span, Bytes)>,
    /// Whether it is a tool that can be called as a task; `None` where that is not known.
    pub tasks: Option<TaskSupport>,
}

impl Asked {
    pub fn by(method: &str) -> Option<Self> {
        match method {
            "tools/call" => Some(Self::Tool),
            "prompts/get" => Some(Self::Prompt),
            "resources/read" => Some(Self::Resource),
            "completion/complete" => Some(Self::Completion),
            "resources/subscribe" => Some(Self::Subscription),
            "resources/unsubscribe" => Some(Self::Unsubscription),
            other => tasks::Request::by(other).map(Self::Task),
        }
    }

    /// The resources that an answer speaks of.
    pub fn links_in(self, answer: &[u8]) -> Vec<String> {
        match self {
            Self::Tool | Self::Prompt | Self::Task(tasks::Request::Result) => links::linked(answer),
            Self::Resource => links::read(answer),
            Self::Completion | Self::Subscription | Self::Unsubscription | Self::Task(_) => {
                Vec::new()
            }
        }
    }

    /// What is answered in the place of an answer, where the protocol has it so: a server that knows
    /// no completions completes nothing.
    pub fn instead(self, answer: &[u8], id: &[u8]) -> Option<Bytes> {
        #[derive(serde::Deserialize)]
        struct Refused {
            error: Code,
        }
        #[derive(serde::Deserialize)]
        struct Code {
            code: i64,
        }
        if self != Self::Completion {
            return None;
        }
        let Refused { error: Code { code } } = serde_json::from_slice(answer).ok()?;
        (code == i64::from(codes::METHOD_NOT_FOUND)).then(|| {
            message::reply(id, br#"{"completion":{"values":[],"total":0,"hasMore":false}}"#)
        })
    }
}

/// Finds the upstream that a request is for.
pub async fn find(entry: &EndpointEntry, asked: Asked, frame: &Frame) -> Result<Found, Fault> {
    match asked {
        Asked::Tool => {
            let (span, name) =
                text(frame, frame.name_span(), "`tools/call` needs the tool's `name`")?;
            tool(entry, span, &name).await
        }
        Asked::Prompt => {
            let needs = "`prompts/get` needs the prompt's `name`";
            let (span, name) = text(frame, frame.name_span(), needs)?;
            prompt(entry, span, &name).await
        }
        Asked::Resource | Asked::Subscription | Asked::Unsubscription => {
            let (span, uri) = uri_of(frame, asked)?;
            let found = resource(entry, |published| published.find_resource(&uri)).await;
            let (board, own) = found.ok_or_else(|| Fault::resource_not_found(&uri))?;
            Ok(Found {
                board,
                key: own.into(),
                edit: own_json(frame, span, &uri, own),
                tasks: None,
            })
        }
        Asked::Completion => completion(entry, frame).await,
        // Where a task is, its id says.
        Asked::Task(_) => Err(Fault::unknown_task()),
    }
}

/// The resource that a request names.
pub fn uri_of(frame: &Frame, asked: Asked) -> Result<(Span, Cow<'_, str>), Fault> {
    let needs = match asked {
        Asked::Subscription => "`resources/subscribe` needs the resource's `uri`",
        Asked::Unsubscription => "`resources/unsubscribe` needs the resource's `uri`",
        _ => "`resources/read` needs the resource's `uri`",
    };
    text(frame, frame.uri_span(), needs)
}

/// What stands in the place of a URI where that is behind a prefix of ours: the upstream's `own`.
fn own_json(frame: &Frame, span: Span, uri: &str, own: &str) -> Option<(Span, Bytes)> {
    let prefix = uri.strip_suffix(own).filter(|prefix| !prefix.is_empty())?;
    let inside = frame.get(span).strip_prefix(b"\"")?;
    let own = match inside.strip_prefix(prefix.as_bytes()) {
        Some(rest) => [b"\"", rest].concat().into(),
        // A client may have written the prefix in other letters.
        None => serde_json::Value::from(own).to_string().into(),
    };
    Some((span, own))
}

/// The snapshot, once every upstream that may still bring something of this kind has had its time.
pub async fn settled(entry: &EndpointEntry, kind: Kind) -> Arc<Published> {
    let published = entry.namespace.published.load_full();
    if published.is_settled[kind] {
        return published;
    }
    // An actor that panicked is made anew; until then the snapshot is as good as it gets.
    entry.namespace.actor.send(AwaitFirst(kind)).await.unwrap_or(published)
}

async fn tool(entry: &EndpointEntry, span: Span, name: &str) -> Result<Found, Fault> {
    let found = match entry.namespace.published.load().find(name) {
        Some(found) => Some(found),
        None => match settled(entry, Kind::Tool).await.find(name) {
            Some(found) => Some(found),
            None => {
                let resolve = Resolve { name: name.to_owned() };
                entry.namespace.actor.send(resolve).await.ok().flatten()
            }
        },
    };
    let (board, route) = found.ok_or_else(|| Fault::unknown_tool(name))?;
    let edit = Some((span, route.key_json));
    Ok(Found { board, key: route.key, edit, tasks: route.tasks })
}

async fn prompt(entry: &EndpointEntry, span: Span, name: &str) -> Result<Found, Fault> {
    let found = match entry.namespace.published.load().find_prompt(name) {
        Some(found) => Some(found),
        None => settled(entry, Kind::Prompt).await.find_prompt(name),
    };
    let (board, route) = found.ok_or_else(|| Fault::unknown_prompt(name))?;
    Ok(Found { board, key: route.key, edit: Some((span, route.key_json)), tasks: None })
}

async fn resource<T>(entry: &EndpointEntry, find: impl Fn(&Published) -> Option<T>) -> Option<T> {
    let published = entry.namespace.published.load_full();
    let is_settled = published.is_settled[Kind::Resource] && published.is_settled[Kind::Template];
    // Before all have come, who comes later may be the one that lists it.
    if let Some(found) = find(&published).filter(|_| is_settled) {
        return Some(found);
    }
    drop(published);
    settled(entry, Kind::Resource).await;
    find(&*settled(entry, Kind::Template).await)
}

async fn completion(entry: &EndpointEntry, frame: &Frame) -> Result<Found, Fault> {
    let bad = || {
        let why = "`completion/complete` needs a `ref`: of the type `ref/prompt` with a `name`, or of \
                   the type `ref/resource` with a `uri`";
        Fault::invalid_params(why)
    };
    let Reference { kind, name, uri } = frame.reference().ok_or_else(bad)?;
    let kind = kind.and_then(|span| frame.text(span)).ok_or_else(bad)?;
    match &*kind {
        "ref/prompt" => {
            let (span, name) = text(frame, name, "a `ref/prompt` needs the prompt's `name`")?;
            prompt(entry, span, &name).await
        }
        "ref/resource" => {
            let needs = "a `ref/resource` needs the `uri` of a resource or a template";
            let (span, uri) = text(frame, uri, needs)?;
            let found = resource(entry, |published| published.find_reference(&uri)).await;
            let (board, own) = found.ok_or_else(|| Fault::unknown_reference(&uri))?;
            Ok(Found {
                board,
                key: own.into(),
                edit: own_json(frame, span, &uri, own),
                tasks: None,
            })
        }
        _ => Err(bad()),
    }
}

/// The text at a span, which has to be a JSON string.
fn text<'a>(
    frame: &'a Frame,
    span: Option<Span>,
    needs: &str,
) -> Result<(Span, Cow<'a, str>), Fault> {
    let is_string = |span: &Span| frame.get(*span).starts_with(b"\"");
    span.filter(is_string)
        .and_then(|span| Some((span, frame.text(span)?)))
        .ok_or_else(|| Fault::invalid_params(format!("{needs} as a string")))
}
