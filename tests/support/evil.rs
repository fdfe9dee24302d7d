//! Servers that misbehave as they are told: the program `evil-mcp` of this workspace (`tests/evil`).

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use evil_mcp::Character;

/// The program, which is built once in a run: cargo builds no program of another package for a test.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = std::env::current_exe().expect("the path of this test");
    // target/PROFILE/deps/TEST
    let built = test.parent().and_then(Path::parent).expect("the directory of a profile");
    let program = built.join("evil-mcp");
    // Where no cargo runs the test there may be none to build with, and what is there has to do.
    if let Some(cargo) = std::env::var_os("CARGO") {
        let target = built.parent().expect("the target directory");
        let profile = match built.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        let output = Command::new(cargo)
            .args(["build", "-p", "evil-mcp", "--locked", "--profile", profile, "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(program.is_file(), "there is no {}: cargo build -p evil-mcp", program.display());
    program
});

/// The command line of a child of this character.
pub fn evil(character: &Character) -> Vec<String> {
    let head = [PROGRAM.display().to_string(), "stdio".to_owned()];
    head.into_iter().chain(character.words()).collect()
}
