//! Tools for clients that cannot take every one, where the endpoint asks for that: which of them a client
//! sees and may call, and what becomes of its arguments.
//!
//! What is changed and why is decided in `catalogue::profiles`. An endpoint with the profile `raw` costs
//! one comparison.

use std::sync::Arc;

use actix_web::web;
use bytes::Bytes;

use super::conversation::stopping;
use crate::{
    catalogue::profiles::{Profile, Shaped, unwrap},
    conductor::EndpointEntry,
    namespace::published::Published,
    session::Session,
    wire::{Fault, Frame, Span},
};

/// The JSON array of the tools that the client of this session sees.
pub async fn tools(
    entry: &EndpointEntry,
    session: &Session,
    published: &Arc<Published>,
) -> Result<Bytes, Fault> {
    let profile = entry.schema_profile.for_client(session.profile());
    let shaped = shaped(published, profile).await?;
    Ok(shaped.map_or_else(|| published.routes.list().clone(), |shaped| shaped.list().clone()))
}

/// What takes the place of the arguments of a call, where the client's are wrapped.
///
/// # Errors
/// The tool is hidden from this client, and is unknown to it as any other that is not listed.
pub async fn arguments(
    entry: &EndpointEntry,
    session: &Session,
    frame: &Frame,
) -> Result<Option<(Span, Bytes)>, Fault> {
    let profile = entry.schema_profile.for_client(session.profile());
    if profile == Profile::Raw {
        return Ok(None);
    }
    let Some(name) = frame.name_span().and_then(|span| frame.text(span)) else { return Ok(None) };
    let Some(shaped) = shaped(&entry.namespace.published.load_full(), profile).await? else {
        return Ok(None);
    };
    // A name that is not listed at all was judged by whoever found a way for it.
    let Some(verdict) = shaped.find(&name) else { return Ok(None) };
    if verdict.hidden().is_some() {
        return Err(Fault::unknown_tool(&name));
    }
    let Some(wrapped_in) = verdict.wrapped_in() else { return Ok(None) };
    let Some((span, text)) = frame.arguments() else { return Ok(None) };
    let inner = unwrap(text, wrapped_in).map(|range| frame.slice(span.part(&range)));
    Ok(inner.map(|inner| (span, inner)))
}

/// Made aside where it was not made before: the schemas of thousands of tools take a while, and others
/// wait for this thread.
async fn shaped(
    published: &Arc<Published>,
    profile: Profile,
) -> Result<Option<Arc<Shaped>>, Fault> {
    if profile == Profile::Raw {
        return Ok(None);
    }
    if let Some(shaped) = published.shaped_before(profile) {
        return Ok(Some(shaped.clone()));
    }
    let published = published.clone();
    let made = web::block(move || published.shaped(profile).cloned()).await;
    made.map_err(|error| {
        tracing::error!(%error, "the tools for a schema profile were not made");
        stopping()
    })
}
