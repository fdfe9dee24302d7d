//! Reads the text of a file as what it is: JSON with whatever liberties its writer took, or TOML.

use super::tree::Node;

/// Deeper files are refused before they are parsed: the parser follows every level by recursion.
const DEPTH_MAX: usize = 100;

/// Bytes that a file may have: hundreds of servers take a tenth of it.
pub const FILE_MAX: usize = 1024 * 1024;

/// Why a file cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFile {
    /// Lines and columns are counted from one.
    #[error("the file is not readable as {form} at line {line}, column {column}: {reason}")]
    Unreadable { form: &'static str, line: usize, column: usize, reason: String },
    #[error("the file looks like YAML, which is not read; give it as JSON or TOML")]
    Yaml,
    #[error("the file has more than {FILE_MAX} bytes")]
    TooLarge,
    #[error("the file is nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
    #[error(
        "the file has no servers: none of `mcpServers`, `servers`, `context_servers`, `mcp_servers` or \
         `mcp`, and no entry with a command or a url"
    )]
    NoServers,
}

/// The tree of a text.
pub(super) fn parse(text: &str) -> Result<Node, BadFile> {
    let text = text.trim_start_matches('\u{feff}');
    if text.len() > FILE_MAX {
        return Err(BadFile::TooLarge);
    }
    if is_too_deep(text) {
        return Err(BadFile::TooDeep);
    }
    match form_of(text) {
        Form::Json => json5::from_str(text).map_err(unreadable_json),
        Form::Toml => toml::from_str(text).map_err(|error| unreadable_toml(text, &error)),
        Form::Yaml => Err(BadFile::Yaml),
    }
}

#[derive(Debug, PartialEq)]
enum Form {
    Json,
    Toml,
    Yaml,
}

/// Tells the forms apart by how the text begins, comments aside.
fn form_of(text: &str) -> Form {
    let mut rest = text.trim_start();
    loop {
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, behind)| behind).trim_start();
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, behind)| behind).trim_start();
        } else if let Some(comment) = rest.strip_prefix('#') {
            // JSON has no such comments, TOML and YAML both have.
            rest = comment.split_once('\n').map_or("", |(_, behind)| behind).trim_start();
        } else {
            break;
        }
    }
    let line = rest.lines().next().unwrap_or_default();
    match rest.chars().next() {
        // A table of TOML, or a list of JSON.
        Some('[') => match rest.trim_start_matches('[').trim_start().chars().next() {
            Some(next) if next.is_alphanumeric() || matches!(next, '_' | '"' | '\'') => Form::Toml,
            _ => Form::Json,
        },
        Some('-') if line.starts_with("---") || line.starts_with("- ") => Form::Yaml,
        Some(first) if first.is_alphabetic() || matches!(first, '_' | '"' | '\'') => {
            match (line.find('='), line.find(':')) {
                (Some(equals), Some(colon)) if colon < equals => Form::Yaml,
                (Some(_), _) => Form::Toml,
                (None, Some(_)) => Form::Yaml,
                (None, None) => Form::Json,
            }
        }
        _ => Form::Json,
    }
}

fn unreadable_json(error: json5::Error) -> BadFile {
    let (line, column) =
        error.position().map_or((1, 1), |position| (position.line + 1, position.column + 1));
    let reason = error
        .code()
        .map_or_else(|| "not the shape of an mcp.json".to_owned(), |code| code.to_string());
    BadFile::Unreadable { form: "JSON", line, column, reason }
}

fn unreadable_toml(text: &str, error: &toml::de::Error) -> BadFile {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    // The first line alone: the rest would repeat a part of the file, which may hold a secret.
    let reason = error.message().lines().next().unwrap_or_default().to_owned();
    BadFile::Unreadable { form: "TOML", line, column, reason }
}

/// Counts brackets without regard to strings: a file that only seems too deep holds more brackets
/// in its strings than any of these files has levels.
fn is_too_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEPTH_MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_text_is_told_by_its_beginning() {
        for (text, expected) in [
            ("{}", Form::Json),
            ("// a\n/* b */ {a:1}", Form::Json),
            ("[{\"name\":\"a\"}]", Form::Json),
            ("[ ]", Form::Json),
            ("", Form::Json),
            ("null", Form::Json),
            ("7", Form::Json),
            ("[mcp_servers.a]\ncommand = 'x'", Form::Toml),
            ("[mcp_servers.\"a b\"]", Form::Toml),
            ("# codex\nmodel = \"o3\"", Form::Toml),
            ("url = \"http://x:1\"", Form::Toml),
            ("# continue\nname: a\nmcpServers:", Form::Yaml),
            ("---\na: 1", Form::Yaml),
            ("- name: a", Form::Yaml),
            ("name: a=b", Form::Yaml),
        ] {
            assert_eq!(form_of(text), expected, "{text}");
        }
    }
}
