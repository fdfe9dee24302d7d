//! Which values of a server are secret, and how they lie in their columns.
//!
//! Every value of `env` and `headers` is sealed, and so is the bearer token. In clear stands only a
//! value that is one `${NAME}` reference and nothing else: it names a secret without being one.

use std::collections::BTreeMap;

use entity::json::StringMap;
use uuid::Uuid;

use super::error::StoreError;
use crate::identity::secret::Secret;
use crate::identity::vault::{Place, Vault};

const TABLE: &str = "mcp_servers";

pub fn seal_map(
    vault: &Vault,
    server: Uuid,
    column: &str,
    values: &BTreeMap<String, Secret>,
) -> Result<StringMap, StoreError> {
    let mut sealed = BTreeMap::new();
    for (key, value) in values {
        sealed.insert(key.clone(), seal(vault, server, column, Some(key), value)?);
    }
    Ok(StringMap(sealed))
}

pub fn seal(
    vault: &Vault,
    server: Uuid,
    column: &str,
    key: Option<&str>,
    value: &Secret,
) -> Result<String, StoreError> {
    if is_reference(value.expose()) {
        return Ok(value.expose().to_owned());
    }
    Ok(vault.seal(value.expose(), &Place { table: TABLE, row: server, column, key })?)
}

/// What opens, with the names of what does not: another key file has sealed it, or somebody wrote
/// it past us. One value that is lost must not hide the server it belongs to.
pub fn open_map(
    vault: &Vault,
    server: Uuid,
    column: &str,
    values: StringMap,
    unreadable: &mut Vec<String>,
) -> BTreeMap<String, Secret> {
    let mut opened = BTreeMap::new();
    for (key, text) in values.0 {
        if let Some(value) = open(vault, server, column, Some(&key), text, unreadable) {
            opened.insert(key, value);
        }
    }
    opened
}

pub fn open(
    vault: &Vault,
    server: Uuid,
    column: &str,
    key: Option<&str>,
    text: String,
    unreadable: &mut Vec<String>,
) -> Option<Secret> {
    if is_reference(&text) {
        return Some(Secret::new(text));
    }
    match vault.open_sealed(&text, &Place { table: TABLE, row: server, column, key }) {
        Ok(value) => Some(value),
        Err(error) => {
            let field = match key {
                Some(key) => format!("{column}.{key}"),
                None => column.to_owned(),
            };
            tracing::error!(%server, field, %error, "a secret cannot be read");
            unreadable.push(field);
            None
        }
    }
}

/// Exactly one `${NAME}`, with a name as shells have them.
pub fn is_reference(text: &str) -> bool {
    let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        return false;
    };
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(is_first)
        && name.bytes().all(|byte| is_first(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lone_reference_is_no_secret() {
        for reference in ["${A}", "${GITHUB_TOKEN}", "${_x9}"] {
            assert!(is_reference(reference), "{reference}");
        }
        let secrets =
            ["", "${}", "${9}", "${A", "$A", "Bearer ${A}", "${A}${B}", "${A:-hunter2}", "${a b}"];
        for secret in secrets {
            assert!(!is_reference(secret), "{secret}");
        }
    }
}
