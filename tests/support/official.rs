//! Where the official clients and servers lie that are not ours, and whether they do.

use std::path::PathBuf;

use super::skipped;

pub fn peers() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

/// Says loudly that the chapter is skipped where the peers are not installed.
pub fn without_peers() -> bool {
    let wanted = ["node_modules/.bin/mcp-server-everything", ".venv/bin/mcp-server-time"];
    let absent = wanted.iter().any(|file| !peers().join(file).exists());
    absent
        && skipped(
            "peers",
            "official clients: run `npm install` and pip in tests/peers, see README",
        )
}
