//! B12: what was given in confidence is in no log, no answer, no file, no metric, no command line, and in
//! no environment but that of the server that it was given for.

mod canary;
mod ways;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Daemon, host},
};
use canary::{Canaries, Canary};

pub const BAR: Bar = Bar {
    name: "B12",
    about: "secrets go in and come out nowhere, whatever is asked and whatever goes wrong, at TRACE",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// What the daemon is given in its own environment, for `${NAME}` to stand for.
const VARIABLES: [&str; 7] = [
    "CANARY_ENV",
    "CANARY_MIDDLE",
    "CANARY_HEADER",
    "CANARY_TOKEN",
    "CANARY_URL",
    "CANARY_IMPORT",
    "CANARY_UNUSED",
];

const AT_LEAST: usize = 40;

/// Where something was looked for: what kind of place, its name, and what stands there.
struct Place {
    kind: &'static str,
    name: String,
    bytes: Vec<u8>,
}

impl Place {
    fn new(kind: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Place {
        Place { kind, name: name.into(), bytes: bytes.into() }
    }
}

/// The kinds of places, each a figure of its own.
const KINDS: [(&str, &str); 6] = [
    ("log", "in what the daemon writes to stderr and stdout"),
    ("answer", "in answers: API, endpoints, metrics, logs"),
    ("file", "in the files of the data directory"),
    ("argv", "in a command line"),
    ("environ", "in the environment of another's process"),
    ("program", "in what other commands say"),
];

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let formats: &[&str] = if plan.short { &["text"] } else { &["text", "json"] };
    let (mut places, mut made) = (Vec::new(), 0);
    let mut leaks: Vec<(&'static str, String)> = Vec::new();
    for (round, format) in formats.iter().enumerate() {
        let mut canaries = Canaries::new(plan.seed ^ round as u64);
        let seen = one_round(plan, format, &mut canaries).await?;
        for place in &seen {
            for canary in &canaries.all {
                if let Some(form) = leak(canary, place) {
                    leaks.push((place.kind, format!("{}, {form}: {}", canary.way, place.name)));
                }
            }
        }
        made = canaries.all.len();
        places.extend(seen.into_iter().map(|place| (place.kind, place.bytes.len())));
    }
    report.bound("canaries too few", AT_LEAST.saturating_sub(made) as f64, 0.0, "");
    for (kind, words) in KINDS {
        let of = places.iter().filter(|(one, _)| *one == kind).count();
        let found = leaks.iter().filter(|(one, _)| *one == kind).count();
        if of == 0 {
            return Err(format!("nothing was looked at {words}").into());
        }
        report.never(words, found, of * made);
    }
    let bytes: usize = places.iter().map(|(_, bytes)| bytes).sum();
    report.note(format!("{made} canaries, {} places, {} KiB", places.len(), bytes >> 10));
    for (kind, leak) in leaks.iter().take(40) {
        report.note(format!("{kind}: {leak}"));
    }
    Ok(())
}

/// The form in which a canary is where it must not be.
fn leak(canary: &Canary, place: &Place) -> Option<&'static str> {
    let is_its_own = place.kind == "environ"
        && canary.child.as_ref().is_some_and(|child| place.name.ends_with(&format!(" of {child}")));
    // Who sends the key by the query is told by the older transport where to send messages, with the key.
    let is_theirs = canary.way == ways::BY_QUERY && place.name.starts_with(ways::OLDER_BY_QUERY);
    if is_its_own || is_theirs { None } else { canary.form_in(&place.bytes) }
}

async fn one_round(plan: &Plan, format: &str, canaries: &mut Canaries) -> Outcome<Vec<Place>> {
    let mut daemon = Daemon::new(plan, "")?;
    let mut give = |name: &str, value: &str| daemon.environment.push((name.into(), value.into()));
    give("METAMCPD__LOG__LEVEL", "trace");
    give("METAMCPD__LOG__FORMAT", format);
    for name in VARIABLES {
        let way = format!("${{{name}}}");
        let value = match name {
            "CANARY_ENV" | "CANARY_MIDDLE" => canaries.make_for("local", way),
            _ => canaries.make(way),
        };
        give(name, &value);
    }
    canaries.note("the admin key", crate::rig::daemon::ADMIN_KEY);
    daemon.begin()?;
    daemon.ready().await?;

    let mut places = Vec::new();
    ways::drive(plan, &daemon, canaries, &mut places).await?;
    look_at_processes(&daemon, &mut places)?;
    // A database that runs has its newest rows in another file than one that was stopped.
    look_at_files(&daemon.scratch().join("data"), &mut places)?;
    doctor(plan, &daemon, &mut places)?;
    daemon.stop().await?;
    look_at_files(&daemon.scratch().join("data"), &mut places)?;
    no_database(plan, &daemon, canaries, &mut places)?;
    places.push(Place::new("log", "stderr", std::fs::read(daemon.scratch().join("daemon.log"))?));
    places.push(Place::new("log", "stdout", daemon.facts().join("\n")));
    Ok(places)
}

fn look_at_files(directory: &Path, places: &mut Vec<Place>) -> Outcome<()> {
    for entry in std::fs::read_dir(directory)? {
        let path: PathBuf = entry?.path();
        if path.is_dir() {
            look_at_files(&path, places)?;
        } else if path.is_file() {
            places.push(Place::new("file", path.display().to_string(), std::fs::read(&path)?));
        }
    }
    Ok(())
}

/// Every command line of the host, and the environment of every process that the daemon started.
fn look_at_processes(daemon: &Daemon, places: &mut Vec<Place>) -> Outcome<()> {
    for pid in host::pids() {
        // One that has ended meanwhile shows nothing.
        if let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) {
            places.push(Place::new("argv", format!("process {pid}"), line));
        }
    }
    for pid in host::belonging(&daemon.instance(), "") {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        // Each of them has its name among its variables, in plain words.
        let name = environment.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(b"WHOSE="));
        let name = String::from_utf8_lossy(name.unwrap_or(b"nobody")).into_owned();
        places.push(Place::new("environ", format!("process {pid} of {name}"), environment));
    }
    Ok(())
}

/// What the command for operators in trouble says of the same data directory.
fn doctor(plan: &Plan, daemon: &Daemon, places: &mut Vec<Place>) -> Outcome<()> {
    let mut command = Command::new(&plan.daemon);
    command.args(["doctor", "--data-dir"]).arg(daemon.scratch().join("data"));
    command.envs(daemon.environment.iter().map(|(name, value)| (name, value)));
    let said = command.output()?;
    places.push(Place::new("program", "doctor, stdout", said.stdout));
    places.push(Place::new("program", "doctor, stderr", said.stderr));
    Ok(())
}

/// A start with a database that is not there, by a URL with a password.
fn no_database(
    plan: &Plan,
    daemon: &Daemon,
    canaries: &mut Canaries,
    places: &mut Vec<Place>,
) -> Outcome<()> {
    let password = canaries.make("the password of the database");
    for (what, url) in [
        ("nobody there", format!("postgres://u:{}@127.0.0.1:1/x", canary::in_url(&password))),
        // Not encoded, it is no password any more, but a secret none the less.
        ("no URL", format!("postgres://u:{password}@127.0.0.1:port/x")),
        ("no such kind", format!("mysql://u:{}@127.0.0.1/x", canary::in_url(&password))),
    ] {
        for words in [&["serve", "--data-dir"], &["doctor", "--data-dir"]] {
            let mut command = Command::new("timeout");
            command.arg("20").arg(&plan.daemon).args(words).arg(daemon.scratch().join("other"));
            command.env("METAMCPD__DATABASE__URL", &url).env("METAMCPD__LOG__LEVEL", "trace");
            let said = command.env("METAMCPD__SERVER__BIND", "127.0.0.1:0").output()?;
            let name = format!("{} with {what}", words[0]);
            places.push(Place::new("program", format!("{name}, stdout"), said.stdout));
            places.push(Place::new("program", format!("{name}, stderr"), said.stderr));
        }
    }
    Ok(())
}
