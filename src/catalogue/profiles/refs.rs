//! Finds what a `$ref` refers to, within its own schema and nowhere else: nothing is ever fetched.

use std::collections::HashMap;

use super::draft::{Draft, elements};

/// The schema that references are looked up in.
#[derive(Debug)]
pub struct Refs<'a> {
    root: &'a str,
    /// What `$defs` and `definitions` hold, read once.
    defined: Option<HashMap<String, String>>,
}

impl<'a> Refs<'a> {
    pub fn new(root: &'a str) -> Self {
        Self { root, defined: None }
    }

    /// The schema at a pointer such as `#/$defs/a`, and how many bytes were read to find it.
    pub fn resolve(&mut self, reference: &str) -> (Option<String>, usize) {
        let Some(pointer) = reference.strip_prefix('#') else { return (None, 0) };
        if pointer.is_empty() {
            return (Some(self.root.to_owned()), self.root.len());
        }
        let mut read = 0;
        if self.defined.is_none() {
            self.defined = Some(definitions(self.root));
            read += 2 * self.root.len();
        }
        let known = self.defined.as_ref().and_then(|defined| defined.get(pointer));
        if let Some(found) = known {
            return (Some(found.clone()), read + found.len());
        }
        let Some(path) = pointer.strip_prefix('/') else { return (None, read) };
        let mut at = self.root.to_owned();
        for step in path.split('/') {
            read += at.len();
            let Some(next) = child(&at, &decoded(step)) else { return (None, read) };
            at = next;
        }
        (Some(at), read)
    }
}

fn definitions(root: &str) -> HashMap<String, String> {
    let mut defined = HashMap::new();
    let Some(root) = Draft::parse(root) else { return defined };
    for place in ["$defs", "definitions"] {
        let Some(map) = root.get(place).and_then(Draft::parse) else { continue };
        for (name, schema) in map.iter() {
            // Names that have to be escaped are found by walking.
            if !name.contains(['~', '/', '%']) {
                defined.insert(format!("/{place}/{name}"), schema.to_owned());
            }
        }
    }
    defined
}

fn child(text: &str, step: &str) -> Option<String> {
    if text.starts_with('[') {
        let place: usize = step.parse().ok()?;
        return elements(text)?.get(place).map(|found| (*found).to_owned());
    }
    Draft::parse(text)?.get(step).map(str::to_owned)
}

/// A step of a pointer in a URI fragment (RFC 6901, 6).
fn decoded(step: &str) -> String {
    let mut bytes = Vec::with_capacity(step.len());
    let mut rest = step.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after
            .get(..2)
            .filter(|_| byte == b'%')
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(hex.unwrap_or(byte));
        rest = if hex.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_followed_within_the_schema_and_nowhere_else() {
        let root =
            r#"{"$defs":{"a":{"x":1},"b/c":{"y":[{"z":2}]},"d~e":true},"definitions":{"a":{}}}"#;
        for (reference, found) in [
            ("#", Some(root)),
            ("#/$defs/a", Some(r#"{"x":1}"#)),
            ("#/definitions/a", Some("{}")),
            ("#/$defs/b~1c/y/0", Some(r#"{"z":2}"#)),
            ("#/%24defs/a/x", Some("1")),
            ("#/$defs/d~0e", Some("true")),
            ("#/$defs/none", None),
            ("#/$defs/b~1c/y/1", None),
            ("#anchor", None),
            ("https://x.example/schema.json", None),
            ("other.json#/$defs/a", None),
            ("", None),
        ] {
            assert_eq!(Refs::new(root).resolve(reference).0.as_deref(), found, "{reference}");
        }
    }
}
