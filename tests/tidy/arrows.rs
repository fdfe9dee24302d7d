//! The arrows between the rooms of src/: a room names only the rooms below it, the pure rooms know
//! no runtime and no clock, and a foreign crate that is one room's business stays in that room.

use std::path::{Path, PathBuf};

use syn::{
    Attribute, UseTree,
    visit::{self, Visit},
};

/// A room, and the rooms that it may name. In reading order, from the door inwards; `main` and `lib`
/// are the hallway and may name anything.
const ROOMS: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "gateway",
            "doctor",
            "operator",
            "data_dir",
            "import",
            "connect",
            "admin",
            "endpoint",
            "conductor",
            "namespace",
            "fleet",
            "session",
            "store",
            "identity",
            "upstream",
            "egress",
            "settings",
            "telemetry",
        ],
    ),
    ("doctor", &["operator", "data_dir", "store", "identity", "upstream", "egress", "settings"]),
    ("connect", &["egress", "wire"]),
    ("operator", &["conductor", "store", "identity", "import", "data_dir"]),
    (
        "gateway",
        &[
            "operator",
            "data_dir",
            "admin",
            "endpoint",
            "conductor",
            "namespace",
            "fleet",
            "session",
            "store",
            "identity",
            "upstream",
            "egress",
            "import",
            "catalogue",
            "access",
            "wire",
            "settings",
            "telemetry",
        ],
    ),
    (
        "endpoint",
        &[
            "conductor",
            "namespace",
            "fleet",
            "session",
            "store",
            "identity",
            "upstream",
            "catalogue",
            "access",
            "wire",
            "settings",
            "telemetry",
        ],
    ),
    (
        "admin",
        &[
            "logs",
            "operator",
            "import",
            "conductor",
            "namespace",
            "fleet",
            "session",
            "store",
            "identity",
            "upstream",
            "catalogue",
            "access",
            "wire",
            "settings",
            "telemetry",
        ],
    ),
    (
        "conductor",
        &[
            "logs",
            "namespace",
            "fleet",
            "session",
            "store",
            "identity",
            "upstream",
            "import",
            "catalogue",
            "access",
            "wire",
            "settings",
            "telemetry",
        ],
    ),
    (
        "namespace",
        &[
            "fleet",
            "session",
            "store",
            "upstream",
            "catalogue",
            "access",
            "wire",
            "settings",
            "telemetry",
        ],
    ),
    (
        "fleet",
        &["store", "upstream", "catalogue", "access", "wire", "egress", "settings", "telemetry"],
    ),
    ("session", &["store", "identity", "catalogue", "access", "wire", "settings", "telemetry"]),
    (
        "store",
        &["identity", "upstream", "egress", "logs", "catalogue", "access", "settings", "telemetry"],
    ),
    ("identity", &["access", "settings", "telemetry"]),
    ("upstream", &["egress", "logs", "catalogue", "access", "wire", "settings", "telemetry"]),
    ("egress", &["settings", "telemetry"]),
    (
        "settings",
        &[
            "logs",
            "store",
            "identity",
            "upstream",
            "egress",
            "fleet",
            "namespace",
            "session",
            "endpoint",
            "admin",
            "conductor",
            "telemetry",
        ],
    ),
    ("telemetry", &["settings"]),
    ("data_dir", &[]),
    ("failpoint", &[]),
    ("aside", &[]),
    ("import", &["catalogue", "access", "wire"]),
    ("logs", &[]),
    ("catalogue", &["wire"]),
    ("access", &["wire"]),
    ("wire", &[]),
];

/// Rooms that decide on values alone: no runtime, no database, no clock, no process.
const PURE: &[&str] = &["wire", "catalogue", "access", "import", "logs"];

/// What a pure room must not name: crates by their first segment, and parts of the standard library.
const IMPURE: &[&str] = &[
    "actix",
    "actix_rt",
    "actix_web",
    "tokio",
    "tokio_stream",
    "tokio_util",
    "futures_util",
    "sea_orm",
    "entity",
    "migration",
    "reqwest",
    "hyper",
    "hyper_util",
    "tokio_process_stream",
    "command_fds",
    "rustix",
    "metrics",
    "std::process",
    "std::net",
    "std::fs",
    "std::env",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// A crate that is the business of some rooms only.
const OWNED: &[(&str, &[&str])] = &[
    ("sea_orm", &["store"]),
    ("entity", &["store"]),
    ("migration", &["store"]),
    ("tokio_process_stream", &["upstream"]),
    ("command_fds", &["upstream"]),
    ("reqwest", &["egress"]),
    ("hyper_util", &["egress"]),
    ("figment", &["settings"]),
    ("clap", &["cli", "main"]),
];

/// Every path that a file names outside its tests, as `a::b::c`.
struct Named(Vec<String>);

impl<'ast> Visit<'ast> for Named {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            flatten(&item.tree, String::new(), &mut self.0);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.0.push(segments.join("::"));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        // What stands inside a macro is no syntax yet; its words are enough to find paths.
        let text =
            item.tokens.to_string().replace(" :: ", "::").replace(":: ", "::").replace(" ::", "::");
        let paths = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        self.0.extend(paths.filter(|path| path.contains("::")).map(str::to_owned));
        visit::visit_macro(self, item);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = match &attribute.meta {
            syn::Meta::List(list) => list.tokens.to_string(),
            _ => String::new(),
        };
        attribute.path().is_ident("cfg")
            && text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
    })
}

fn flatten(tree: &UseTree, prefix: String, into: &mut Vec<String>) {
    let joined = |ident: &syn::Ident| match prefix.as_str() {
        "" => ident.to_string(),
        _ => format!("{prefix}::{ident}"),
    };
    match tree {
        UseTree::Path(path) => flatten(&path.tree, joined(&path.ident), into),
        UseTree::Name(name) => into.push(joined(&name.ident)),
        UseTree::Rename(rename) => into.push(joined(&rename.ident)),
        UseTree::Glob(_) => into.push(prefix),
        UseTree::Group(group) => {
            group.items.iter().for_each(|item| flatten(item, prefix.clone(), into))
        }
    }
}

/// The room that a file of src/ belongs to: its first folder, or its own name.
fn room_of(file: &Path) -> String {
    let inside = file.strip_prefix(source()).expect("a file of src/");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn source() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn paths_named_in(text: &str) -> Result<Vec<String>, syn::Error> {
    let mut named = Named(Vec::new());
    named.visit_file(&syn::parse_file(text)?);
    named.0.sort();
    named.0.dedup();
    Ok(named.0)
}

/// Whether `path` is `forbidden` or lies below it.
fn lies_in(path: &str, forbidden: &str) -> bool {
    path.strip_prefix(forbidden).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What is wrong with `room` naming `path`; `None` when nothing is.
fn objection(room: &str, path: &str) -> Option<String> {
    if let Some(inner) = path.strip_prefix("crate::").or_else(|| path.strip_prefix("metamcpd::")) {
        let other = inner.split("::").next().unwrap_or_default();
        let is_room = ROOMS.iter().any(|(name, _)| *name == other);
        let allowed = ROOMS.iter().find(|(name, _)| *name == room).map(|(_, below)| *below)?;
        let is_for_all = matches!(other, "failpoint" | "aside") && !PURE.contains(&room);
        return (is_room && other != room && !is_for_all && !allowed.contains(&other))
            .then(|| format!("{room} names {path}, which is not below it"));
    }
    if PURE.contains(&room)
        && let Some(impure) = IMPURE.iter().find(|impure| lies_in(path, impure))
    {
        return Some(format!("{room} is pure and names {path} ({impure})"));
    }
    let (owned, owners) = OWNED.iter().find(|(owned, _)| lies_in(path, owned))?;
    (!owners.contains(&room))
        .then(|| format!("{room} names {path}, but {owned} is the business of {owners:?}"))
}

#[test]
fn rooms_name_only_what_lies_below_them() {
    let mut objections = Vec::new();
    for file in super::files::below(&source(), &["rs"]) {
        let room = room_of(&file);
        let known =
            ROOMS.iter().any(|(name, _)| *name == room) || matches!(room.as_str(), "main" | "lib");
        if !known {
            objections.push(format!("{}: no rule for the room {room}", file.display()));
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a source file");
        let paths =
            paths_named_in(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        objections.extend(
            paths
                .iter()
                .filter_map(|path| objection(&room, path))
                .map(|text| format!("{}: {text}", file.display())),
        );
    }
    assert!(objections.is_empty(), "{}", objections.join("\n"));
}

#[test]
fn arrows_run_one_way() {
    let below = |room: &str| {
        ROOMS.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, below)| below)
    };
    for (room, others) in
        ROOMS.iter().filter(|(room, _)| !matches!(*room, "settings" | "telemetry"))
    {
        for other in others.iter().filter(|other| !matches!(**other, "settings" | "telemetry")) {
            assert!(!below(other).contains(room), "{room} and {other} name each other");
        }
    }
}

#[test]
fn a_path_that_breaks_a_rule_is_found_wherever_it_stands() {
    let text = r#"
        use crate::{endpoint::guard, wire::{frame::Frame, lines as l}};
        fn f() -> std::time::Instant { tracing::info!("{}", crate::admin::x()); sea_orm::Database::connect() }
        #[cfg(test)] mod tests { use crate::gateway::Gateway; }
    "#;
    let paths = paths_named_in(text).expect("Rust");
    let found: Vec<&str> =
        paths.iter().filter(|path| objection("wire", path).is_some()).map(String::as_str).collect();
    assert_eq!(
        found,
        [
            "crate::admin::x",
            "crate::endpoint::guard",
            "sea_orm::Database::connect",
            "std::time::Instant"
        ]
    );
    assert!(objection("endpoint", "crate::admin::x").is_some());
    assert!(objection("store", "sea_orm::Database").is_none());
}
