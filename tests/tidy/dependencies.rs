//! What is linked in: licences, bans and sources, as `.deny.toml` gives them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use serde::Deserialize;

/// The part of `.deny.toml` that is held here; its form is cargo-deny's, so that tool reads it too.
#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_members: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rules() -> Rules {
    let text = std::fs::read_to_string(root().join(".deny.toml")).expect(".deny.toml");
    toml::from_str(&text).expect("the rules")
}

/// What is really built for the platform that we support, not everything in the lock file.
fn linked() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout).expect("its JSON");
    let built: BTreeSet<String> = metadata.resolve.nodes.into_iter().map(|node| node.id).collect();
    let foreign = |package: &Package| {
        built.contains(&package.id) && !metadata.workspace_members.contains(&package.id)
    };
    metadata.packages.into_iter().filter(foreign).collect()
}

/// Whether a licence expression can be met with the licences that are allowed.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let parsed = spdx::Expression::parse_mode(expression, spdx::ParseMode::LAX);
    parsed.is_ok_and(|parsed| {
        parsed.evaluate(|wanted| {
            let name = match &wanted.addition {
                Some(addition) => format!("{} WITH {addition}", wanted.license),
                None => wanted.license.to_string(),
            };
            allowed.contains(&name)
        })
    })
}

#[test]
fn every_licence_is_allowed() {
    let rules = rules();
    let general: BTreeSet<String> = rules.licenses.allow.iter().cloned().collect();
    let exceptions: BTreeMap<&str, &[String]> = rules
        .licenses
        .exceptions
        .iter()
        .map(|one| (one.name.as_str(), one.allow.as_slice()))
        .collect();
    let mut refused = Vec::new();
    for package in linked() {
        let mut allowed = general.clone();
        allowed.extend(
            exceptions.get(package.name.as_str()).copied().unwrap_or_default().iter().cloned(),
        );
        let licence = package.license.clone().unwrap_or_default();
        if !is_met(&licence, &allowed) {
            refused.push(format!("{} {}: {licence:?}", package.name, package.version));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn nothing_that_is_banned_is_linked() {
    let rules = rules();
    let packages = linked();
    let found: Vec<String> = rules
        .bans
        .deny
        .iter()
        .filter(|ban| packages.iter().any(|package| package.name == ban.name))
        .map(|ban| format!("{}: {}", ban.name, ban.reason))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(rules.bans.deny.iter().all(|ban| !ban.reason.trim().is_empty()), "a ban says why");
}

#[test]
fn everything_comes_from_the_one_public_registry() {
    let strange: Vec<String> = linked()
        .into_iter()
        .filter(|package| {
            let source = package.source.as_deref().unwrap_or_default();
            !(source.starts_with("registry+") && source.ends_with("crates.io-index"))
        })
        .map(|package| format!("{} from {:?}", package.name, package.source))
        .collect();
    assert!(strange.is_empty(), "{}", strange.join("\n"));
}
