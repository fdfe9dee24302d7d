//! Upstreams that behave badly on purpose: the scripts in `tests/fixtures`.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// The command line of a script, with its arguments.
pub fn python(script: &str, args: &[&str]) -> Vec<String> {
    let file = directory().join(script);
    assert!(file.is_file(), "there is no {}", file.display());
    // -B: no compiled files beside the sources; -u: what is written is sent.
    let head = ["python3", "-B", "-u"].map(str::to_owned);
    let tail = args.iter().map(|arg| (*arg).to_owned());
    head.into_iter().chain([file.display().to_string()]).chain(tail).collect()
}

/// Says loudly that a test is skipped where there is no python3.
pub fn without_python() -> bool {
    let found = Command::new("python3")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    !found && super::skipped("python", "upstreams written in python: there is no python3")
}

pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}
