//! The closed lists that README promises to programs: every word that the sources can say is there.

use std::collections::BTreeSet;

/// What stands between `before` and the next quote, everywhere in the files below `rooms`.
fn words(rooms: &[&str], before: &str) -> BTreeSet<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = rooms.iter().flat_map(|room| match root.join(room) {
        room if room.is_file() => vec![room],
        room => super::files::below(&room, &["rs"]),
    });
    let mut found = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file of ours");
        let said = text.split("#[cfg(test)]").next().unwrap_or_default();
        let words = said.split(before).skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(words.map(str::to_owned));
    }
    assert!(!found.is_empty(), "nothing is said as {before}");
    found
}

#[test]
fn every_word_of_the_closed_lists_is_explained() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = std::fs::read_to_string(root.join("README.md")).expect("README.md");
    let mut said = words(&["src/upstream/reason.rs"], "=> \"");
    said.extend(words(&["src/upstream/call_error.rs"], "=> (\""));
    said.extend(words(&["src/endpoint"], "reason: \""));
    said.extend(words(&["src"], "!(\"metamcpd_").iter().map(|name| format!("metamcpd_{name}")));
    let unexplained: Vec<&String> = said
        .iter()
        .filter(|word| {
            !manual.contains(&format!("`{word}`")) && !manual.contains(&format!("`{word}{{"))
        })
        .collect();
    assert!(unexplained.is_empty(), "not in README.md: {unexplained:?}");
}
