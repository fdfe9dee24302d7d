//! Lists an upstream's tools, over all pages and within limits.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use super::{CallError, handshake::excerpt, link::Link};
use crate::catalogue::{
    listing::{BadList, Listing},
    tool::Tool,
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

/// Every tool of every page, all of them within `patience`. A malformed tool is left out alone; a cursor that comes back, or too
/// many pages or tools, end the walk with what there is.
pub async fn list_tools(
    link: &Link,
    server: &Arc<str>,
    options: &ListOptions,
    patience: Duration,
) -> Result<Vec<Tool>, CallError> {
    let pages = pages(link, server, options, patience);
    let listing = tokio::time::timeout(patience, pages).await;
    let late = || CallError::Inactive { server: server.clone(), after: patience };
    let (mut tools, dropped) = listing.map_err(|_elapsed| late())??.finish();
    for why in dropped {
        tracing::warn!(%server, %why, "a malformed tool is left out");
    }
    if tools.len() > options.tools_max {
        let max = options.tools_max;
        tracing::warn!(%server, max, "there are too many tools, the rest is left out");
        tools.truncate(max);
    }
    Ok(tools)
}

async fn pages(
    link: &Link,
    server: &Arc<str>,
    options: &ListOptions,
    patience: Duration,
) -> Result<Listing, CallError> {
    let bad = |why: String| CallError::BadAnswer { server: server.clone(), why };
    let mut listing = Listing::new(options.pages_max);
    let mut params = String::from("{}");
    loop {
        let answer = link.ask(server, "tools/list", params.as_bytes(), patience).await?;
        if let Some(error) = answer.error() {
            return Err(bad(format!("`tools/list` was refused: {}", excerpt(&error))));
        }
        match listing.add(&answer.result().unwrap_or_default()) {
            Ok(None) => return Ok(listing),
            Ok(Some(cursor)) => params = format!(r#"{{"cursor":{cursor}}}"#),
            Err(why @ (BadList::CursorLoop | BadList::TooManyPages { .. })) => {
                tracing::warn!(%server, %why, "the list of tools is cut there");
                return Ok(listing);
            }
            Err(why) => return Err(bad(why.to_string())),
        }
    }
}
