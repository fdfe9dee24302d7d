//! Finds the servers in a file, whatever its client calls them, and settles which entry gets a name
//! that several want.
//!
//! What a single entry means is left to `entry`.

use std::{collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{Entry, Imported, Refusal, Warning, entry, names};

/// Deeper files are refused before they are parsed: the parser follows every level by recursion.
const DEPTH_MAX: usize = 100;

/// Why a file cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFile {
    /// Lines and columns are counted from one.
    #[error("the file is not readable as JSON at line {line}, column {column}: {reason}")]
    Unreadable { line: usize, column: usize, reason: String },
    #[error("the file is nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
    #[error("the file has neither `mcpServers` nor `servers`")]
    NoServers,
}

/// Reads the text of a file: `{"mcpServers":{…}}`, `{"servers":{…}}` or `{"mcp":{"servers":{…}}}`,
/// with comments and trailing commas wherever their writer put them.
pub fn read(text: &str) -> Result<Imported, BadFile> {
    let text = text.trim_start_matches('\u{feff}');
    if is_too_deep(text) {
        return Err(BadFile::TooDeep);
    }
    let file: File = json5::from_str(text).map_err(unreadable)?;
    let servers = file.servers.ok_or(BadFile::NoServers)?;

    let warnings = file.unknown.into_iter().map(|key| Warning::new(key, "is left out")).collect();
    let mut entries: Vec<Entry> =
        servers.into_iter().map(|(name, value)| entry::read(name, value)).collect();
    settle_names(&mut entries);
    Ok(Imported { entries, warnings })
}

/// Lets one entry have each name: one that the file itself gives goes before one that was mended,
/// and else the first.
fn settle_names(entries: &mut [Entry]) {
    let mut taken = HashSet::new();
    for wants_own_name in [true, false] {
        for entry in entries.iter_mut() {
            let Ok(server) = &entry.outcome else { continue };
            if (server.name == entry.name) != wants_own_name || taken.insert(server.name.clone()) {
                continue;
            }
            let reason = format!("leads to `{}`, which another entry has", server.name);
            entry.outcome = Err(Refusal::new("name", reason, names::ACCEPTED));
        }
    }
}

fn unreadable(error: json5::Error) -> BadFile {
    let (line, column) =
        error.position().map_or((1, 1), |position| (position.line + 1, position.column + 1));
    let reason = error
        .code()
        .map_or_else(|| "not the shape of an mcp.json".to_owned(), |code| code.to_string());
    BadFile::Unreadable { line, column, reason }
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

/// The file, with its servers in order and as often as they came.
#[derive(Default)]
struct File {
    servers: Option<Vec<(String, Value)>>,
    unknown: Vec<String>,
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FileVisitor)
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = File;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object that holds `mcpServers` or `servers`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
        let mut file = File::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "mcpServers" | "servers" => {
                    let Servers(found) = map.next_value()?;
                    file.servers.get_or_insert_default().extend(found);
                }
                "mcp" => {
                    let inner: File = map.next_value()?;
                    if let Some(found) = inner.servers {
                        file.servers.get_or_insert_default().extend(found);
                    }
                    file.unknown.extend(inner.unknown.iter().map(|key| format!("mcp.{key}")));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    file.unknown.push(key);
                }
            }
        }
        Ok(file)
    }
}

struct Servers(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ServersVisitor)
    }
}

struct ServersVisitor;

impl<'de> Visitor<'de> for ServersVisitor {
    type Value = Servers;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of servers by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Servers, A::Error> {
        let mut servers = Vec::new();
        while let Some(server) = map.next_entry()? {
            servers.push(server);
        }
        Ok(Servers(servers))
    }
}
