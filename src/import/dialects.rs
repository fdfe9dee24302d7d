//! Turns what single clients write in a way of their own into the fields that `entry` reads.
//!
//! Nothing is judged here: what cannot be turned is left for `entry` to refuse.

use serde_json::{Map, Value, json};

use super::fields::Fields;

/// Fields that say the same as another one. Where both stand, `entry` would find the second unknown.
const SYNONYMS: [(&str, &str); 10] = [
    // Cherry Studio
    ("isActive", "enabled"),
    ("baseUrl", "url"),
    ("cmd", "command"),
    ("arguments", "args"),
    // opencode
    ("environment", "env"),
    ("envs", "env"),
    // Codex
    ("http_headers", "headers"),
    ("tool_timeout_sec", "call_timeout_sec"),
    ("tool_timeout_ms", "call_timeout_ms"),
    ("startup_timeout_sec", "connect_timeout_sec"),
];

/// Turns the fields of one entry. The order matters: what is nested comes out first.
pub(super) fn normalise(fields: &mut Fields) {
    unpack_command(fields);
    unpack_transport(fields);
    unpack_request_options(fields);
    for (from, to) in SYNONYMS {
        if !fields.has(to)
            && let Some(value) = fields.take(from)
        {
            fields.put(to, value);
        }
    }
    name_type(fields);
    refer_to_variables(fields);
    // What an entry is called stands outside of it; some clients repeat it within.
    drop(fields.take("name"));
}

/// Zed's older form: `"command": {"path", "args", "env"}`.
fn unpack_command(fields: &mut Fields) {
    match fields.take("command") {
        Some(Value::Object(mut command)) => {
            if let Some(path) = command.remove("path").or_else(|| command.remove("command")) {
                fields.put("command", path);
            }
            for name in ["args", "env"] {
                if let Some(value) = command.remove(name).filter(|value| !value.is_null()) {
                    fields.put(name, value);
                }
            }
        }
        Some(command) => fields.put("command", command),
        None => {}
    }
}

/// A list of servers may have `"transport": {"type", "command", …}`.
fn unpack_transport(fields: &mut Fields) {
    match fields.take("transport") {
        Some(Value::Object(transport)) => {
            for (name, value) in transport {
                if !fields.has(&name) {
                    fields.put(&name, value);
                }
            }
        }
        Some(transport) => fields.put("transport", transport),
        None => {}
    }
}

/// Continue's `"requestOptions": {"headers", "timeout"}`.
fn unpack_request_options(fields: &mut Fields) {
    if let Some(Value::Object(mut options)) = fields.take("requestOptions") {
        for name in ["headers", "timeout"] {
            if let Some(value) = options.remove(name)
                && !fields.has(name)
            {
                fields.put(name, value);
            }
        }
    }
}

/// opencode says where a server is rather than how it is spoken to; Gemini CLI has a field for it.
fn name_type(fields: &mut Fields) {
    match fields.take("type") {
        Some(Value::String(word)) if word.eq_ignore_ascii_case("local") => {
            fields.put("type", json!("stdio"));
        }
        // Which transport it is, is told by the URL.
        Some(Value::String(word)) if word.eq_ignore_ascii_case("remote") => {}
        Some(other) => fields.put("type", other),
        None if fields.has("httpUrl") && !fields.has("transport") => {
            fields.put("type", json!("http"));
        }
        None => {}
    }
}

/// Codex names variables instead of values: of the token, of headers, and of the environment.
fn refer_to_variables(fields: &mut Fields) {
    let reference = |name: &str| json!(format!("${{{name}}}"));
    if !fields.has("bearerToken")
        && let Some(Value::String(name)) = fields.take("bearer_token_env_var")
    {
        fields.put("bearerToken", reference(&name));
    }
    if let Some(Value::Object(names)) = fields.take("env_http_headers") {
        let names = names.into_iter().filter_map(|(header, name)| {
            let name = reference(name.as_str()?);
            Some((header, name))
        });
        fields.put_within("headers", names.collect());
    }
    if let Some(Value::Array(names)) = fields.take("env_vars") {
        let names = names.into_iter().filter_map(|name| {
            let name = name.as_str()?.to_owned();
            let value = reference(&name);
            Some((name, value))
        });
        fields.put_within("env", names.collect::<Map<_, _>>());
    }
}
