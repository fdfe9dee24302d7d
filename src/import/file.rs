//! Finds the servers in a file, wherever its client keeps them, and settles which entry gets a name
//! that several want.
//!
//! What a single entry means is left to `entry`.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    Entry, Imported, Refusal, Warning, entry, names,
    text::{self, BadFile},
    tree::Node,
};

/// Where clients keep their servers.
const PLACES: [&str; 5] =
    ["mcpServers", "servers", "context_servers", "mcp_servers", "amp.mcpServers"];

/// Fields of which a server has one at least, and nothing else has.
const MARKS: [&str; 6] = ["command", "url", "serverUrl", "httpUrl", "baseUrl", "cmd"];

/// Reads the text of a file in any shape that clients write.
///
/// # Errors
/// Only what makes the whole file unreadable; a bad entry is in what is answered.
pub fn read(text: &str) -> Result<Imported, BadFile> {
    let root = text::parse(text)?;
    let mut found = Found::default();
    found.look_into(root, "");
    if !found.is_any {
        return Err(BadFile::NoServers);
    }
    let mut entries: Vec<Entry> = found.servers.into_iter().map(entry_of).collect();
    settle_names(&mut entries);
    Ok(Imported { entries, warnings: found.warnings })
}

fn entry_of((name, node): (String, Node)) -> Entry {
    let mut twice = Vec::new();
    let value = node.into_value("", &mut twice);
    let mut entry = entry::read(name, value);
    let warnings =
        twice.into_iter().map(|path| Warning::new(path, "stands twice; the first counts"));
    entry.warnings.extend(warnings);
    entry
}

/// The name of a server in a list that does not name it: where it stands. No mended name looks so.
fn nameless(index: usize) -> String {
    format!("[{index}]")
}

/// What was found so far, in the order of the file.
#[derive(Default)]
struct Found {
    servers: Vec<(String, Node)>,
    warnings: Vec<Warning>,
    /// Whether there is a place for servers, be it empty.
    is_any: bool,
}

impl Found {
    /// Looks at the members of an object at `path`, which is empty for the file itself.
    fn look_into(&mut self, node: Node, path: &str) {
        let members = match node {
            Node::Object(members) => members,
            // A list alone, of servers that have their names within.
            Node::Array(items) => return self.take_list(items),
            Node::Leaf(_) => return,
        };
        if path.is_empty() && is_bare(&members) {
            self.is_any = true;
            self.servers.extend(members);
            return;
        }
        for (key, value) in members {
            let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match key.as_str() {
                "mcp.servers" => self.take(value, &place),
                place_name if PLACES.contains(&place_name) => self.take(value, &place),
                // VS Code keeps `servers` in it, opencode the servers themselves.
                "mcp" => self.look_into_mcp(value, &place),
                // Claude Code keeps servers for each folder that it was used in.
                "projects" => self.look_into_projects(value),
                // The client asks its person for these; `entry` names those that are used.
                "inputs" => {}
                _ => self.warnings.push(Warning::new(place, "is left out")),
            }
        }
    }

    fn look_into_mcp(&mut self, node: Node, path: &str) {
        let is_place = |(name, node): &(String, Node)| is_place(name) && !is_server(name, node);
        let holds_place = matches!(&node, Node::Object(members) if members.iter().any(is_place));
        match node {
            Node::Object(members) if !holds_place && is_bare(&members) => {
                self.is_any = true;
                self.servers.extend(members);
            }
            node => self.look_into(node, path),
        }
    }

    fn look_into_projects(&mut self, node: Node) {
        let Node::Object(projects) = node else { return };
        for (_folder, project) in projects {
            let Node::Object(members) = project else { continue };
            for (key, value) in members {
                if key == "mcpServers" {
                    self.take(value, "projects.*.mcpServers");
                }
            }
        }
    }

    /// Takes the servers of a place: an object of servers by name, or a list of servers with names.
    fn take(&mut self, node: Node, place: &str) {
        match node {
            Node::Object(members) => {
                self.is_any = true;
                self.servers.extend(members);
            }
            Node::Array(items) => self.take_list(items),
            Node::Leaf(Value::Null) => {}
            Node::Leaf(_) => {
                let text = "is neither an object of servers nor a list of them, and is left out";
                self.warnings.push(Warning::new(place, text));
            }
        }
    }

    fn take_list(&mut self, items: Vec<Node>) {
        for (index, item) in items.into_iter().enumerate() {
            self.is_any = true;
            let Node::Object(mut members) = item else {
                self.servers.push((nameless(index), item));
                continue;
            };
            let at = members.iter().position(|(key, _)| key == "name");
            let name = match at.map(|at| members.remove(at)) {
                Some((_, Node::Leaf(Value::String(name)))) => name,
                _ => nameless(index),
            };
            self.servers.push((name, Node::Object(members)));
        }
    }
}

/// Whether an object holds servers by name and nothing else.
fn is_bare(members: &[(String, Node)]) -> bool {
    !members.is_empty() && members.iter().all(|(name, node)| is_server(name, node))
}

/// Whether what is called so is a server. Where servers are kept one may have the name of a field: what it
/// has is an object then, and that of a server is a text.
fn is_server(name: &str, node: &Node) -> bool {
    let Node::Object(members) = node else { return false };
    let mut marks = members.iter().filter(|(field, _)| MARKS.contains(&field.as_str())).peekable();
    let is_any = marks.peek().is_some();
    is_any && !(is_place(name) && marks.any(|(_, value)| matches!(value, Node::Object(_))))
}

fn is_place(name: &str) -> bool {
    PLACES.contains(&name) || matches!(name, "mcp" | "mcp.servers")
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
