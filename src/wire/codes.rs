//! The numbers that JSON-RPC 2.0 and MCP give to errors.

/// The body is not JSON (JSON-RPC 2.0, section 5.1).
pub const PARSE_ERROR: i32 = -32700;
/// The body is JSON, and not a request, notification or response.
pub const INVALID_REQUEST: i32 = -32600;
/// No such method is served here.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// The parameters are wrong; MCP also uses it for an unknown tool.
pub const INVALID_PARAMS: i32 = -32602;
/// Something behind the method failed: an upstream that is down, a time-out, a bad answer.
pub const INTERNAL_ERROR: i32 = -32603;
/// There is no such resource (server features, "Resources", until 2025-11-25).
pub const RESOURCE_NOT_FOUND: i32 = -32002;
/// An unknown or ended session, as the official SDKs number it.
pub const SESSION_NOT_FOUND: i32 = -32001;
/// What a server of the modern era says to who does not speak it, or not as it does: a header that is missing or
/// another than the body, a capability that is, or a revision that it does not speak (2026-07-28).
pub const MODERN_REFUSALS: std::ops::RangeInclusive<i64> = -32022..=-32020;
/// A person has to visit a URL before the request can be served (client features, "Elicitation",
/// 2025-11-25).
pub const URL_ELICITATION_REQUIRED: i32 = -32042;
