//! Runs the suite as its users do, and reads what it noted. Whether that is good enough is decided
//! by those who asked.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use crate::{node, support::within};

/// The longest that one run may take: the whole of a version takes seconds where nothing hangs.
const PATIENCE: Duration = Duration::from_secs(150);

/// How long the name of a directory of results goes on after the scenario: a dash and a time.
const STAMP: usize = "-2026-11-25T00-00-00-000Z".len();

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.1.16, which judges by what was there up to 2025-11-25.
    First,
    /// 0.2.0-alpha.12, which also holds every message against the schema of its revision.
    Second,
}

pub const BOTH: [Version; 2] = [Version::First, Version::Second];

/// What became of a check, from worst to best. A word that is no judgement says nothing, as does the
/// check that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Failure,
    Warning,
    Nothing,
    Success,
}

/// One check of a scenario. Where the suite made it several times, the worst of them.
#[derive(Clone, Debug)]
pub struct Check {
    pub verdict: Verdict,
    /// Why it is no success, in the suite's words.
    pub message: String,
    pub details: Value,
}

/// The checks of each scenario, by their ids.
pub type Verdicts = BTreeMap<String, BTreeMap<String, Check>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Noted {
    id: String,
    status: String,
    #[serde(default)]
    error_message: String,
    #[serde(default)]
    details: Value,
}

impl Version {
    /// The suite's program.
    pub fn program(self) -> PathBuf {
        let alias = match self {
            Version::First => "conformance-0-1",
            Version::Second => "conformance-0-2",
        };
        node::directory().join("node_modules").join(alias).join("dist/index.js")
    }

    /// Everything that this version has for servers of the stateful protocol.
    fn all_for_servers(self) -> &'static [&'static str] {
        match self {
            Version::First => &["--suite", "all"],
            Version::Second => &["--requirements", "2025-11-25"],
        }
    }

    /// Makes a client scenario speak the newest stateful revision.
    fn revision_for_clients(self) -> &'static [&'static str] {
        match self {
            Version::First => &[],
            Version::Second => &["--spec-version", "2025-11-25"],
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::First => "0.1.16",
            Version::Second => "0.2.0-alpha.12",
        })
    }
}

impl Verdict {
    fn of(status: &str) -> Verdict {
        match status {
            "SUCCESS" => Verdict::Success,
            "INFO" | "SKIPPED" => Verdict::Nothing,
            "WARNING" => Verdict::Warning,
            _ => Verdict::Failure,
        }
    }
}

/// Judges a server by everything that a version has for it; `label` names the run.
pub async fn judge_server(version: Version, url: &str, label: &str) -> Verdicts {
    let results = emptied(&format!("{label}/{version}"));
    let arguments = [&["server", "--url", url], version.all_for_servers()].concat();
    run(version, &arguments, &results, &[]).await;
    read(&results, "server-")
}

/// Judges a client by one scenario; `command` is what the suite starts with the URL of its server.
pub async fn judge_client(
    version: Version,
    scenario: &str,
    command: &str,
    environment: &[(&str, &str)],
) -> BTreeMap<String, Check> {
    let results = emptied(&format!("client/{version}/{scenario}"));
    let head = ["client", "--command", command, "--scenario", scenario];
    let arguments = [&head, version.revision_for_clients()].concat();
    let said = run(version, &arguments, &results, environment).await;
    let mut verdicts = read(&results, "");
    verdicts.remove(scenario).unwrap_or_else(|| panic!("{version} noted nothing:\n{said}"))
}

/// A directory of this run's own, without what an earlier one left.
fn emptied(name: &str) -> PathBuf {
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance").join(name);
    if results.exists() {
        fs::remove_dir_all(&results).expect("the results of an earlier run go");
    }
    fs::create_dir_all(&results).expect("a directory for results");
    results
}

/// Runs the suite to its end; what it said. Its exit code is not asked: it tells less than what it
/// noted, and counts what is judged here otherwise.
async fn run(
    version: Version,
    arguments: &[&str],
    results: &Path,
    environment: &[(&str, &str)],
) -> String {
    let node = node::node().expect("a Node that can run the suite");
    let mut command = tokio::process::Command::new(node);
    command.arg(version.program()).args(arguments).arg("--output-dir").arg(results);
    command.current_dir(results).envs(environment.iter().copied());
    command.env("NO_PROXY", "127.0.0.1,localhost").stdin(Stdio::null()).kill_on_drop(true);
    let output = within("the suite", PATIENCE, command.output()).await.expect("the suite runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    fs::write(results.join("said.txt"), &said).expect("what the suite said is kept");
    said
}

fn read(results: &Path, prefix: &str) -> Verdicts {
    let mut verdicts = Verdicts::new();
    for entry in fs::read_dir(results).expect("the results") {
        let file = entry.expect("an entry").path().join("checks.json");
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let directory = file.parent().and_then(Path::file_name).expect("its directory");
        let directory = directory.to_string_lossy();
        let name = directory.strip_prefix(prefix).unwrap_or(&directory);
        let scenario = &name[..name.len().saturating_sub(STAMP)];
        let noted: Vec<Noted> = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        verdicts.insert(scenario.to_owned(), collapsed(noted));
    }
    verdicts
}

fn collapsed(noted: Vec<Noted>) -> BTreeMap<String, Check> {
    let mut checks = BTreeMap::new();
    for Noted { id, status, error_message, details } in noted {
        let check = Check { verdict: Verdict::of(&status), message: error_message, details };
        let known = checks.entry(id).or_insert_with(|| check.clone());
        if check.verdict < known.verdict {
            *known = check;
        }
    }
    checks
}
