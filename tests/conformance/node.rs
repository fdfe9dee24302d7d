//! Whether the suite can run here, and where it lies.

use std::path::PathBuf;

pub use crate::support::node::{conformance as directory, node};
use crate::support::{node::MAJOR_MIN, skipped};

/// Says loudly that the chapter is skipped where the suite is not installed, or no Node can run it.
pub fn is_missing() -> bool {
    let cure = "run `npm install` in tests/conformance, see README";
    let programs: Vec<PathBuf> =
        super::suite::BOTH.iter().map(|version| version.program()).collect();
    if !programs.iter().all(|program| program.is_file()) {
        return skipped("conformance", &format!("the conformance suite is not installed: {cure}"));
    }
    node().is_none()
        && skipped("conformance", &format!("there is no Node {MAJOR_MIN} or newer: {cure}"))
}
