//! Lists what an upstream offers of one kind, over all pages and within limits.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use super::{CallError, handshake::excerpt, link::Link};
use crate::{
    catalogue::{
        item::{BadItem, Item},
        kind::Kind,
        listing::{BadList, ListMax, Listing},
    },
    wire::codes,
};

/// The limits of `lists` in the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListOptions {
    /// How long a client's first list waits for upstreams that no list is known of.
    #[serde(with = "humantime_serde")]
    pub first_wait: Duration,
    /// Pages that are followed upstream.
    pub pages_max: usize,
    /// Tools that are taken from one upstream.
    pub tools_max: usize,
    /// Prompts, resources and templates, each, that are taken from one upstream.
    pub items_max: usize,
    /// Bytes that are kept of one list of one upstream.
    pub bytes_max: usize,
    /// Bytes of the instructions that clients of a namespace are given.
    pub instructions_max: usize,
    /// Bytes of one schema that a schema profile works on.
    pub schema_max: usize,
    /// Linked resources that a namespace remembers the upstreams of.
    pub links_max: usize,
    /// Items of one page of a list that clients are given. Zero: all of them.
    pub page_size: usize,
    /// How long announcements of an upstream, changes of a namespace's lists, and our announcements
    /// to clients are each gathered into one.
    #[serde(with = "humantime_serde")]
    pub debounce: Duration,
    /// How long an upstream that announces changes is left alone between two listings.
    #[serde(with = "humantime_serde")]
    pub refresh_rest: Duration,
    /// The pace of listing remote upstreams that would not announce a change. Zero: never.
    #[serde(with = "humantime_serde")]
    pub refresh_every: Duration,
    /// How long after a listing that failed the next one is tried.
    #[serde(with = "humantime_serde")]
    pub retry_every: Duration,
    /// How long whoever orders a refresh waits for its outcome.
    #[serde(with = "humantime_serde")]
    pub refresh_wait: Duration,
    /// How often calls of tools that are not listed may have a namespace's upstreams listed anew.
    /// Zero: never.
    #[serde(with = "humantime_serde")]
    pub unknown_rest: Duration,
}

/// What a listing brought, and what it left out.
#[derive(Debug)]
pub struct Listed {
    pub items: Vec<Item>,
    pub dropped: Vec<BadItem>,
}

/// Everything of one kind on every page, all of it within `patience`. What is malformed is left out
/// alone; a cursor that comes back, or too many pages, items or bytes, end the walk with what there is;
/// and a server that does not know the method has none.
pub async fn list(
    link: &Link,
    server: &Arc<str>,
    kind: Kind,
    options: &ListOptions,
    patience: Duration,
) -> Result<Listed, CallError> {
    let pages = pages(link, server, kind, options, patience);
    let listing = tokio::time::timeout(patience, pages).await;
    let late = || CallError::Inactive { server: server.clone(), after: patience };
    let (items, dropped) = listing.map_err(|_elapsed| late())??.finish();
    let noun = kind.noun();
    for why in &dropped {
        tracing::warn!(%server, %why, "a malformed {noun} is left out");
    }
    Ok(Listed { items, dropped })
}

async fn pages(
    link: &Link,
    server: &Arc<str>,
    kind: Kind,
    options: &ListOptions,
    patience: Duration,
) -> Result<Listing, CallError> {
    let bad = |why: String| CallError::BadAnswer { server: server.clone(), why };
    let method = kind.list_method();
    let items = match kind {
        Kind::Tool => options.tools_max,
        Kind::Prompt | Kind::Resource | Kind::Template => options.items_max,
    };
    let max = ListMax { pages: options.pages_max, items, bytes: options.bytes_max };
    let mut listing = Listing::new(kind, max);
    let mut params = String::from("{}");
    loop {
        let answer = link.ask(server, method, params.as_bytes(), patience).await?;
        if let Some(error) = answer.error() {
            if is_unknown_method(&error) {
                return Ok(listing);
            }
            return Err(bad(format!("`{method}` was refused: {}", excerpt(&error))));
        }
        match listing.add(&answer.result().unwrap_or_default()) {
            Ok(None) => return Ok(listing),
            Ok(Some(cursor)) => params = format!(r#"{{"cursor":{cursor}}}"#),
            Err(why) if why.is_cut() => {
                if let Some(limit) = limit_of(kind, &why) {
                    metrics::counter!("metamcpd_limit_hit_total", "limit" => limit).increment(1);
                }
                tracing::warn!(%server, %why, "the answer to `{method}` is cut there");
                return Ok(listing);
            }
            Err(why) => return Err(bad(why.to_string())),
        }
    }
}

/// The setting that a list is cut by.
fn limit_of(kind: Kind, why: &BadList) -> Option<&'static str> {
    match (why, kind) {
        (BadList::TooManyPages { .. }, _) => Some("lists.pages_max"),
        (BadList::TooMany { .. }, Kind::Tool) => Some("lists.tools_max"),
        (BadList::TooMany { .. }, _) => Some("lists.items_max"),
        (BadList::TooLarge { .. }, _) => Some("lists.bytes_max"),
        _ => None,
    }
}

/// Whether an error says that there is no such method. Some servers declare what they do not serve.
fn is_unknown_method(error: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Code {
        code: i64,
    }
    let code = serde_json::from_slice(error).map(|Code { code }| code);
    code.is_ok_and(|code| code == i64::from(codes::METHOD_NOT_FOUND))
}
