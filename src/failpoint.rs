//! Places where a test can have the daemon panic, to see that what panics there is contained.
//!
//! Not part of what is shipped: without debug assertions nothing of it is left. Each room may name it.

/// Panics if a test has put a file of this name into the directory that `METAMCPD_FAILPOINTS` names, once
/// for each time that it does.
#[cfg(debug_assertions)]
pub fn pass(name: &str) {
    use std::{path::PathBuf, sync::LazyLock};

    static DIRECTORY: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("METAMCPD_FAILPOINTS").map(PathBuf::from));
    let Some(directory) = &*DIRECTORY else { return };
    assert!(std::fs::remove_file(directory.join(name)).is_err(), "a test has asked for this panic");
}

#[cfg(not(debug_assertions))]
pub fn pass(_: &str) {}
