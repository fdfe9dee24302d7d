//! Reads one entry: which transport it means, and what belongs to that.
//!
//! Names, references and the types of fields have files of their own; whether two entries want the
//! same name is settled in `file`.

use http::{HeaderName, HeaderValue};
use serde_json::Value;
use url::Url;

use super::{
    Entry, ImportedServer, Refusal, Remote, Transport, dialects, fields::Fields, names, timeouts,
};

const TRANSPORTS: &str = "stdio, http (or streamable-http) or sse";
const URLS: &str = "an address that begins with http:// or https://, without user name or fragment";
const URL_FIELDS: [&str; 3] = ["url", "serverUrl", "httpUrl"];
/// Choices among a server's tools. Here they are made for each namespace.
const TOOL_CHOICES: [&str; 6] = [
    "disabledTools",
    "disabled_tools",
    "enabledTools",
    "enabled_tools",
    "excludeTools",
    "includeTools",
];
/// What clients keep beside a server for themselves.
const SET_ASIDE: [&str; 15] = [
    "alwaysAllow",
    "autoApprove",
    "autostart",
    "dev",
    "envFile",
    "gallery",
    "metadata",
    "oauth",
    "options",
    "required",
    "settings",
    "tools",
    "trust",
    "version",
    "watchPaths",
];
const TOKEN_FIELDS: [&str; 2] = ["bearerToken", "bearer_token"];
const AUTHORITY_FIELDS: [&str; 2] = ["caCertificates", "ca_certificates"];

pub(super) fn read(name: String, value: Value) -> Entry {
    let Value::Object(fields) = value else {
        let refusal =
            Refusal::new("entry", "is not an object", "an object with a command or a url");
        return Entry { name, outcome: Err(refusal), warnings: Vec::new() };
    };
    let mut fields = Fields::new(fields);
    dialects::normalise(&mut fields);
    let outcome = server(&name, &mut fields);
    // A refused entry was not read to its end, so of what is left nothing can be said.
    let warnings = if outcome.is_ok() { fields.finish() } else { fields.warnings };
    Entry { name, outcome, warnings }
}

fn server(name: &str, fields: &mut Fields) -> Result<ImportedServer, Refusal> {
    let mended = names::mend(name)?;
    if mended != name {
        fields.warn("name", format!("is changed to `{mended}`"));
    }
    // Zed's own extensions are not in its file, only their settings.
    if fields.text(&["source"])?.is_some_and(|(_, source)| source == "extension") {
        return Err(Refusal::new("source", "is an extension of the editor", "a command or a url"));
    }
    let tools = "is left out: all tools are offered until a namespace switches some off";
    fields.set_aside(&TOOL_CHOICES, tools);
    fields.set_aside(&SET_ASIDE, "is the client's own business and is left out");
    Ok(ImportedServer {
        name: mended,
        description: fields.text(&["description"])?.map(|(_, text)| text),
        enabled: enabled(fields)?,
        call_timeout: timeouts::call(fields),
        connect_timeout: timeouts::connect(fields),
        transport: transport(fields)?,
    })
}

fn enabled(fields: &mut Fields) -> Result<bool, Refusal> {
    let (enabled, disabled) = (fields.flag("enabled")?, fields.flag("disabled")?);
    match (enabled, disabled) {
        (Some(enabled), Some(disabled)) if enabled == disabled => {
            Err(Refusal::new("disabled", "contradicts enabled", "one of the two"))
        }
        (Some(enabled), _) => Ok(enabled),
        (None, disabled) => Ok(!disabled.unwrap_or(false)),
    }
}

enum Kind {
    Stdio,
    StreamableHttp,
    Sse,
}

fn transport(fields: &mut Fields) -> Result<Transport, Refusal> {
    let stated = stated_kind(fields)?;
    let command = command(fields)?;
    let url = fields.text(&URL_FIELDS)?;
    match (stated, command, url) {
        (_, Some(_), Some((field, _))) => {
            Err(Refusal::new(field, "stands beside a command", "either a command or a url"))
        }
        (None | Some(Kind::Stdio), Some((command, args)), None) => stdio(command, args, fields),
        (Some(Kind::StreamableHttp), None, Some((field, url))) => {
            remote(field, &url, fields).map(Transport::StreamableHttp)
        }
        (Some(Kind::Sse), None, Some((field, url))) => {
            remote(field, &url, fields).map(Transport::Sse)
        }
        (None, None, Some((field, url))) => {
            let remote = remote(field, &url, fields)?;
            if !ends_like_sse(&remote.url) {
                return Ok(Transport::StreamableHttp(remote));
            }
            fields.warn(field, "ends in /sse, so the server is taken for an SSE server");
            Ok(Transport::Sse(remote))
        }
        (Some(Kind::Stdio), None, _) => {
            Err(Refusal::new("command", "is missing", "the program to start"))
        }
        (Some(Kind::StreamableHttp | Kind::Sse), _, None) => {
            Err(Refusal::new("url", "is missing", URLS))
        }
        (None, None, None) => {
            Err(Refusal::new("command", "and url are both missing", "either a command or a url"))
        }
    }
}

fn stated_kind(fields: &mut Fields) -> Result<Option<Kind>, Refusal> {
    let mut stated: Option<(&str, Kind)> = None;
    for field in ["type", "transport", "transportType"] {
        let Some((_, word)) = fields.text(&[field])? else { continue };
        let kind = match word.to_ascii_lowercase().replace(['-', '_', ' '], "").as_str() {
            "stdio" | "std" => Kind::Stdio,
            "http" | "streamablehttp" => Kind::StreamableHttp,
            "sse" => Kind::Sse,
            _ => {
                let reason = format!("is `{word}`, which is not a known transport");
                return Err(Refusal::new(field, reason, TRANSPORTS));
            }
        };
        match &stated {
            Some((first, other))
                if std::mem::discriminant(other) != std::mem::discriminant(&kind) =>
            {
                let reason = format!("says something else than {first}");
                return Err(Refusal::new(field, reason, "one of the two"));
            }
            Some(_) => {}
            None => stated = Some((field, kind)),
        }
    }
    Ok(stated.map(|(_, kind)| kind))
}

/// The program and its arguments. Some clients write both as one list.
fn command(fields: &mut Fields) -> Result<Option<(String, Vec<String>)>, Refusal> {
    let (command, mut args) = match fields.take("command") {
        None => return Ok(None),
        Some(Value::String(command)) => (command, Vec::new()),
        Some(Value::Array(words)) => {
            let mut words = words.into_iter().map(|word| word.as_str().map(str::to_owned));
            let command = words.next().flatten().filter(|command| !command.trim().is_empty());
            let args = words.collect::<Option<Vec<_>>>();
            command.zip(args).ok_or_else(not_a_command)?
        }
        Some(_) => return Err(not_a_command()),
    };
    args.append(&mut fields.texts("args")?);
    let has_nul = |text: &String| text.contains('\0');
    if has_nul(&command) || args.iter().any(has_nul) {
        return Err(Refusal::new("command", "or an argument holds a NUL", "text without NUL"));
    }
    if args.is_empty() && command.trim().contains(char::is_whitespace) {
        fields.warn("command", "holds a space and is taken as the name of one program");
    }
    Ok(Some((command.trim().to_owned(), args)))
}

fn not_a_command() -> Refusal {
    Refusal::new("command", "is neither a text nor a list of texts", "the program to start")
}

fn stdio(command: String, args: Vec<String>, fields: &mut Fields) -> Result<Transport, Refusal> {
    let env = fields.named_texts("env")?;
    for (name, value) in &env {
        let field = format!("env.{name}");
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Refusal::new(field, "is no name for a variable", "a name without `=`"));
        }
        if value.contains('\0') {
            return Err(Refusal::new(field, "holds a NUL", "text without NUL"));
        }
    }
    fields.set_aside(&["cwd", "workingDirectory"], "is not supported and is left out");
    fields.set_aside(&["headers"], "means nothing for a command and is left out");
    fields.set_aside(&TOKEN_FIELDS, "means nothing for a command and is left out");
    fields.set_aside(&AUTHORITY_FIELDS, "means nothing for a command and is left out");
    Ok(Transport::Stdio { command, args, env })
}

fn remote(field: &str, text: &str, fields: &mut Fields) -> Result<Remote, Refusal> {
    let url = super::references::mend_value(field, text, &mut fields.warnings)?;
    check_url(field, &url)?;

    let headers = fields.named_texts("headers")?;
    for (name, value) in &headers {
        let is_good =
            HeaderName::try_from(name.as_str()).is_ok() && HeaderValue::try_from(value).is_ok();
        if !is_good {
            let field = format!("headers.{name}");
            return Err(Refusal::new(field, "is no HTTP header", "a header name and its value"));
        }
    }
    let bearer_token = bearer_token(fields)?;
    let has_authorization = headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"));
    if has_authorization && bearer_token.is_some() {
        let reason = "stands beside a header Authorization";
        return Err(Refusal::new("bearerToken", reason, "one of the two"));
    }

    fields.set_aside(&["args", "env", "cwd"], "means nothing for a url and is left out");
    let ca_certificates = fields.text(&AUTHORITY_FIELDS)?.map(|(_, text)| text);
    Ok(Remote { url, headers, bearer_token, ca_certificates })
}

fn bearer_token(fields: &mut Fields) -> Result<Option<String>, Refusal> {
    let Some((field, text)) = fields.text(&TOKEN_FIELDS)? else { return Ok(None) };
    let text = super::references::mend_value(field, &text, &mut fields.warnings)?;
    let token = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            fields.warn(field, "begins with the word Bearer, which is left out");
            token.trim().to_owned()
        }
        Some(_) | None => text,
    };
    if HeaderValue::try_from(&token).is_err() {
        return Err(Refusal::new(field, "cannot be sent in a header", "printable characters"));
    }
    Ok(Some(token))
}

fn check_url(field: &str, text: &str) -> Result<(), Refusal> {
    let refused = |reason: &str| Err(Refusal::new(field, reason, URLS));
    let Ok(url) = Url::parse(text) else { return refused("is not an address") };
    if !matches!(url.scheme(), "http" | "https") {
        return refused("has a scheme that no transport uses");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("holds a user name or password");
    }
    if url.fragment().is_some() {
        return refused("has a fragment");
    }
    Ok(())
}

fn ends_like_sse(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.path().trim_end_matches('/').ends_with("/sse"))
}
