//! An upstream that offers what the files of its directory say (`tests/fixtures/offers.py`).

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{TestGateway, python};

#[derive(Debug)]
pub struct Shelf {
    directory: PathBuf,
}

impl Shelf {
    pub async fn new(gateway: &TestGateway, label: &str, files: &[(&str, &str)]) -> Shelf {
        let directory = gateway.scratch().join(label);
        std::fs::create_dir_all(&directory).expect("its directory");
        let shelf = Shelf { directory };
        for (name, content) in files {
            shelf.put(name, content);
        }
        let path = shelf.directory.display().to_string();
        gateway.stdio(label, &python("offers.py", &[label, &path])).await;
        shelf
    }

    /// At once, so that nobody reads half of it.
    pub fn put(&self, name: &str, content: &str) {
        let draft = self.directory.join("draft");
        std::fs::write(&draft, content).expect("the file");
        std::fs::rename(draft, self.directory.join(name)).expect("its name");
    }
}

/// The array of a list of things that are known by `key`.
pub fn items(key: &str, keys: &[&str]) -> String {
    let item = |one: &&str| match key {
        "name" => json!({"name": one}),
        _ => json!({key: one, "name": one}),
    };
    Value::Array(keys.iter().map(item).collect()).to_string()
}
