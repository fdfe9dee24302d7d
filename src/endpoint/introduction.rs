//! What is agreed on at the beginning: what `initialize` is answered, and what its client says of itself
//! (basic, "Lifecycle").

use bytes::Bytes;
use serde::Deserialize;

use crate::{
    catalogue::profiles::profile_of,
    conductor::EndpointEntry,
    session::{Agreed, ClientInfo},
    upstream::nesting,
    wire::{Fault, Frame, capabilities::ClientCapabilities, era, message, task},
};

/// Answers `initialize`, without touching any upstream.
pub fn initialize(entry: &EndpointEntry, frame: &Frame) -> Result<(Bytes, Agreed), Fault> {
    #[derive(Deserialize)]
    struct Request {
        params: Params,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        protocol_version: String,
        #[serde(default)]
        capabilities: serde_json::Value,
    }

    let request: Request = serde_json::from_slice(frame.bytes()).map_err(|error| {
        Fault::invalid_params(format!("`initialize` needs a `protocolVersion`: {error}"))
    })?;
    let version = era::negotiate(&request.params.protocol_version);
    // What the upstreams that are up just now can do is of no account: clients would never ask again.
    let mut result = serde_json::json!({
        "protocolVersion": version,
        "capabilities": {
            "tools": { "listChanged": true },
            "prompts": { "listChanged": true },
            "resources": { "subscribe": true, "listChanged": true },
            "completions": {},
            "logging": {},
        },
        "serverInfo": {
            "name": nesting::GATEWAY,
            "title": entry.name,
            "version": env!("CARGO_PKG_VERSION"),
        },
    });
    if version >= task::SINCE {
        // What any upstream makes of a call can be relayed; which tools it is of use for, each says.
        result["capabilities"]["tasks"] = serde_json::json!({
            "list": {},
            "cancel": {},
            "requests": { "tools": { "call": {} } },
        });
    }
    if let Some(instructions) = &entry.namespace.published.load().instructions {
        result["instructions"] = (&**instructions).into();
    }
    let id = frame.id().unwrap_or(b"null");
    let capabilities = ClientCapabilities::of(&request.params.capabilities);
    let answer = message::reply(id, result.to_string().as_bytes());
    let profile = client_info(frame).map(|client| profile_of(&client.name)).unwrap_or_default();
    Ok((answer, Agreed { version, capabilities, profile }))
}

/// What the client says of itself in `initialize`, if it says it with sense; of each word no more
/// than people read.
pub fn client_info(frame: &Frame) -> Option<ClientInfo> {
    #[derive(Deserialize)]
    struct Request {
        params: Params,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        client_info: Said,
    }
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        name: String,
        #[serde(default)]
        version: String,
    }
    const CHARACTERS_MAX: usize = 200;

    let request: Request = serde_json::from_slice(frame.bytes()).ok()?;
    let Said { name, version } = request.params.client_info;
    let clipped = |text: String| text.chars().take(CHARACTERS_MAX).collect();
    Some(ClientInfo { name: clipped(name), version: clipped(version) })
}
