//! Reads the text of a file as what it is: JSON with whatever liberties its writer took, or TOML.

use std::borrow::Cow;

use super::tree::{DEPTH_MAX, Node, TOO_DEEP};

/// Bytes that a file may have. Hundreds of servers take a tenth of one MB, but Claude Code keeps its
/// servers beside what it remembers of its conversations, which grows to many.
pub const FILE_MAX: usize = 16 * 1024 * 1024;

/// Why a file cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFile {
    /// Lines and columns are counted from one.
    #[error("the file is not readable as {form} at line {line}, column {column}: {reason}")]
    Unreadable { form: &'static str, line: usize, column: usize, reason: String },
    #[error("the file is not text in UTF-8; save it as that")]
    NotText,
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

/// The text of a file's bytes: UTF-8, or UTF-16 with the mark that PowerShell and Notepad put first.
///
/// # Errors
/// `NotText` for anything else, `TooLarge` before a byte is looked at.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, BadFile> {
    if bytes.len() > FILE_MAX {
        return Err(BadFile::TooLarge);
    }
    let wide = |unit: fn([u8; 2]) -> u16| {
        let (pairs, odd) = bytes[2..].as_chunks();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        let text = String::from_utf16(&units).ok().filter(|_| odd.is_empty());
        text.map(Cow::Owned).ok_or(BadFile::NotText)
    };
    match bytes {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| BadFile::NotText),
    }
}

/// The tree of a text.
pub(super) fn parse(text: &str) -> Result<Node, BadFile> {
    let text = text.trim_start_matches('\u{feff}');
    if text.len() > FILE_MAX {
        return Err(BadFile::TooLarge);
    }
    match form_of(text) {
        Form::Json => json5::from_str(text).map_err(unreadable_json),
        Form::Toml if is_too_deep(text) => Err(BadFile::TooDeep),
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
    if error.code().is_none() && error.to_string().contains(TOO_DEEP) {
        return BadFile::TooDeep;
    }
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

/// Whether a text of TOML seems too deep, told before it is parsed, since that parser has a tree of its
/// own. Brackets count without regard to strings: none of these files has so many in them.
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
    fn a_file_is_read_in_the_encodings_that_editors_write() {
        let utf16 = |mark: [u8; 2], unit: fn(u16) -> [u8; 2]| {
            let units = "{größe}".encode_utf16().flat_map(unit);
            mark.into_iter().chain(units).collect::<Vec<u8>>()
        };
        let (little, big) =
            (utf16([0xff, 0xfe], u16::to_le_bytes), utf16([0xfe, 0xff], u16::to_be_bytes));
        for bytes in ["{größe}".as_bytes(), &little, &big] {
            assert_eq!(decode(bytes).as_deref(), Ok("{größe}"), "{bytes:?}");
        }
        // Latin-1, half a unit, half a pair.
        for bytes in [&b"{gr\xf6\xdfe}"[..], &little[..little.len() - 1], b"\xff\xfe\x00\xd8"] {
            assert_eq!(decode(bytes), Err(BadFile::NotText), "{bytes:?}");
        }
        assert_eq!(decode(&vec![b' '; FILE_MAX + 1]), Err(BadFile::TooLarge));
    }

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
