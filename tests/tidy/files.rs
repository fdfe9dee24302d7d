//! Rules about files as text: their length, their opening lines, tests that are not run, and
//! settings without a word about them.

use std::path::{Path, PathBuf};

/// More is two ideas in one file.
const LINES_MAX: usize = 500;

/// Folders that hold nothing of ours.
const FOREIGN: &[&str] = &["target", "node_modules", ".venv", "__pycache__", ".git"];

/// Every file below `directory` with one of these endings.
pub fn below(directory: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    for entry in entries.map_while(Result::ok) {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !FOREIGN.contains(&name.as_str()) {
                found.extend(below(&path, endings));
            }
        } else if path.extension().is_some_and(|end| endings.iter().any(|wanted| end == *wanted)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn our_files(endings: &[&str]) -> Vec<PathBuf> {
    ["src", "entity", "migration", "tests"]
        .iter()
        .flat_map(|part| below(&root().join(part), endings))
        .collect()
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn a_file_is_one_idea() {
    let long: Vec<String> = our_files(&["rs", "py", "mjs"])
        .iter()
        .map(|file| (read(file).lines().count(), file))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, file)| format!("{}: {lines} lines", file.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn a_file_opens_with_what_it_is_about() {
    let silent: Vec<String> = our_files(&["rs"])
        .iter()
        .filter(|file| !read(file).starts_with("//!"))
        .map(|file| file.display().to_string())
        .collect();
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[test]
fn no_test_is_set_aside() {
    // Put together here, so that this file does not find itself.
    let mark = ["#[", "ignore"].concat();
    let aside: Vec<String> = our_files(&["rs"])
        .iter()
        .filter(|file| read(file).contains(&mark))
        .map(|file| file.display().to_string())
        .collect();
    assert!(aside.is_empty(), "{}", aside.join("\n"));
}

#[test]
fn no_room_is_a_lumber_room() {
    const LUMBER: &[&str] = &["utils", "util", "common", "helpers", "manager", "misc", "types"];
    let found: Vec<String> = below(&root().join("src"), &["rs"])
        .iter()
        .filter(|file| {
            let inside = file.strip_prefix(root()).expect("a file of ours").with_extension("");
            inside.components().any(|part| LUMBER.iter().any(|name| part.as_os_str() == *name))
        })
        .map(|file| file.display().to_string())
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The keys of a settings file that have no comment in the lines right above them.
fn unexplained(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut section = String::new();
    let mut explained = false;
    let mut inside = 0_usize;
    for line in text.lines().map(str::trim) {
        if inside > 0 {
            inside = (inside + line.matches('[').count()).saturating_sub(line.matches(']').count());
        } else if let Some(comment) = line.strip_prefix('#') {
            explained = explained || comment.chars().any(char::is_alphabetic);
        } else if line.is_empty() {
            explained = false;
        } else if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            explained = false;
        } else if let Some((key, value)) = line.split_once('=') {
            if !explained {
                found.push(format!("{section}.{}", key.trim()));
            }
            explained = false;
            inside = value.matches('[').count().saturating_sub(value.matches(']').count());
        }
    }
    found
}

#[test]
fn every_setting_is_explained() {
    let missing = unexplained(&read(&root().join("config/default.toml")));
    assert!(missing.is_empty(), "without a comment line right above: {missing:?}");
}

#[test]
fn a_setting_without_a_word_is_found() {
    let text =
        "[a]\n# Says what it is.\none = 1\ntwo = [\n  \"x = 1\",\n]\n\n# Far away.\n\nthree = 3\n";
    assert_eq!(unexplained(text), ["a.two", "a.three"]);
}
