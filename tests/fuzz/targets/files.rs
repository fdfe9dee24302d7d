//! The files of other clients: whatever a file holds, each entry has one outcome, and what is imported
//! is legal and has a name of its own.

use std::collections::HashSet;

use metamcpd::import::{BadFile, Imported, Remote, Transport, decode, read};

use super::json::{member, members};

/// What an object has that is a server.
const MARKS: [&str; 6] = ["command", "url", "serverUrl", "httpUrl", "baseUrl", "cmd"];

pub fn import(bytes: &[u8]) {
    let text = match decode(bytes) {
        Ok(text) => text,
        Err(why) => return assert!(matches!(why, BadFile::NotText), "{why}"),
    };
    let imported = read(&text);
    if let Ok(imported) = &imported {
        is_legal(imported);
    }
    // Strict JSON in the plainest shape is read entry by entry.
    let Some(root) = members(text.trim_start_matches('\u{feff}')) else { return };
    let [(key, servers)] = &root[..] else { return };
    let Some(servers) = members(servers).filter(|_| key == "mcpServers") else { return };
    // An object that says itself what to start or to call is a server, whatever it is called; it says so by
    // no object, which is a server that is called like a field.
    let marks = || servers.iter().filter(|(name, _)| MARKS.contains(&&**name));
    if marks().count() > 0 && marks().all(|(_, value)| members(value).is_none()) {
        return;
    }
    let imported = match imported {
        Ok(imported) => imported,
        // A number that no float holds is legal JSON, and not that of any client.
        Err(BadFile::TooDeep | BadFile::Unreadable { .. }) => return,
        Err(other) => panic!("{other}: {text}"),
    };
    let names: Vec<&str> = imported.entries.iter().map(|entry| &*entry.name).collect();
    assert_eq!(names, servers.iter().map(|(name, _)| &**name).collect::<Vec<_>>());
    for (entry, (name, fields)) in imported.entries.iter().zip(&servers) {
        let Some(fields) = members(fields) else {
            assert!(entry.outcome.is_err(), "{name}: {fields}");
            continue;
        };
        let command =
            member(&fields, "command").and_then(|raw| serde_json::from_str::<String>(raw).ok());
        if let ([_only], Some(command), Ok(server)) = (&fields[..], command, &entry.outcome)
            && let Transport::Stdio { command: read, args, .. } = &server.transport
            && args.is_empty()
            && !command.contains('$')
        {
            assert_eq!(*read, command.trim());
        }
    }
}

fn is_legal(imported: &Imported) {
    let mut names = HashSet::new();
    for entry in &imported.entries {
        let Ok(server) = &entry.outcome else { continue };
        let name = &server.name;
        assert!(names.insert(name.clone()), "{name} is there twice");
        let letters = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
        assert!(!name.is_empty() && name.chars().all(letters) && !name.contains("__"), "{name}");
        assert!(uuid::Uuid::try_parse(name).is_err(), "{name}");
        match &server.transport {
            Transport::Stdio { command, .. } => assert!(!command.trim().is_empty(), "{name}"),
            Transport::StreamableHttp(Remote { url, .. }) | Transport::Sse(Remote { url, .. }) => {
                let start = url.trim_start().to_lowercase();
                assert!(start.starts_with("http") || start.starts_with("${"), "{name}: {url}");
            }
        }
    }
}
