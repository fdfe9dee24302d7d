//! Places where a test can have the daemon panic, to see that what panics there is contained.
//!
//! Not part of what is shipped: without debug assertions nothing of it is left. Each room may name it.

/// Panics if a test has put a file of this name into the directory that `METAMCPD_FAILPOINTS` names, once
/// for each time that it does. With the word `always` in it, the file stays; with `kill`, the daemon is
/// killed as by `kill -9`, and with `kill 2` after two who have passed.
#[cfg(debug_assertions)]
pub fn pass(name: &str) {
    use std::{path::PathBuf, sync::LazyLock};

    static DIRECTORY: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("METAMCPD_FAILPOINTS").map(PathBuf::from));
    let Some(directory) = &*DIRECTORY else { return };
    let file = directory.join(name);
    let Ok(wish) = std::fs::read_to_string(&file) else { return };
    if let Some(left) = wish.strip_prefix("kill ").and_then(|left| left.parse::<u64>().ok()) {
        let rest = if left > 1 { format!("kill {}", left - 1) } else { "kill".to_owned() };
        let is_noted = std::fs::write(&file, rest).is_ok();
        assert!(is_noted, "a test has asked for a kill that cannot be put off");
        return;
    }
    let is_ours = wish == "always" || std::fs::remove_file(&file).is_ok();
    if is_ours && wish == "kill" {
        let killed =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        assert!(killed.is_ok(), "a test has asked for a kill that failed");
    }
    assert!(!is_ours, "a test has asked for this panic");
}

#[cfg(not(debug_assertions))]
pub fn pass(_: &str) {}
