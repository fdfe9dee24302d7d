//! Examines an installation and says what to mend. It changes nothing, migrates nothing and starts no
//! server; it asks the running daemon where there is one, and looks for itself where there is none.

pub mod finding;
mod public;
mod setup;
mod upstreams;

use std::{path::Path, time::Duration};

use finding::Finding;
use tokio::time::timeout;

use crate::{
    data_dir::Use,
    egress::Egress,
    identity::vault::Vault,
    operator::{
        report::DaemonReport,
        socket::{self, Answer, Order},
    },
    settings::Settings,
    store::{Running, Schema, Store, StoreError},
    upstream::worker::lifeline::confinement::has_landlock,
};

/// How long one connection or answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at everything that belongs to this data directory under these settings.
pub async fn examine(settings: &Settings, data_dir: &Path) -> Vec<Finding> {
    let mut found = setup::settings(settings);
    found.extend(setup::kernel(has_landlock()));
    let (directory, usage) = setup::data_directory(data_dir);
    found.extend(directory);
    let report = match usage {
        Some(Use::Held) => ask(data_dir, &mut found).await,
        Some(Use::Free) => {
            let cure = "start it: metamcpd serve";
            found.push(Finding::warning("daemon", "none runs on this data directory", cure));
            None
        }
        None => None,
    };
    match report {
        Some(report) => {
            found.extend(running(&report));
            found.extend(public::examine(&settings.egress, &report, PATIENCE).await);
        }
        None if usage.is_some() => found.extend(at_rest(settings, data_dir).await),
        None => {}
    }
    found
}

async fn ask(data_dir: &Path, found: &mut Vec<Finding>) -> Option<DaemonReport> {
    let cure = "see its log; if it hangs, end it (SIGTERM, then SIGKILL) and start it again";
    let why = match timeout(PATIENCE, socket::ask(data_dir, &Order::Report)).await {
        Ok(Ok(Some(Answer::Report(report)))) => return Some(*report),
        Ok(Ok(Some(_))) => "it does not know this question: it is of another version".to_owned(),
        Ok(Ok(None)) => "it does not listen on its socket".to_owned(),
        Ok(Err(error)) => format!("it does not answer on its socket: {error}"),
        Err(_elapsed) => "it does not answer on its socket".to_owned(),
    };
    found.push(Finding::error("daemon", format!("one holds the data directory, but {why}"), cure));
    None
}

/// What the daemon says of itself, its endpoints and its upstreams.
fn running(report: &DaemonReport) -> Vec<Finding> {
    let what = format!("version {} runs at {}", report.version, report.url);
    let mut found = vec![match report.version == env!("CARGO_PKG_VERSION") {
        true => Finding::ok("daemon", what),
        false => Finding::warning("daemon", what, "restart it, so that it is of this version too"),
    }];
    found.push(match report.database {
        true => Finding::ok("database", "answers"),
        false => {
            let why = report.database_error.as_deref().unwrap_or("it does not say why");
            let what =
                format!("does not serve the daemon; calls go on, changes are refused: {why}");
            let cure =
                "start it, or mend database.url, or put its file back; nothing else is needed";
            Finding::error("database", what, cure)
        }
    });
    found.extend(report.endpoints.iter().filter(|endpoint| endpoint.open).map(|endpoint| {
        let cure = "set its enable_api_key_auth, unless that is what you want";
        Finding::warning(
            format!("endpoint `{}`", endpoint.name),
            "takes anyone, without a key",
            cure,
        )
    }));
    found.extend(report.upstreams.iter().map(upstreams::reported));
    found
}

/// What the next start would find.
async fn at_rest(settings: &Settings, data_dir: &Path) -> Vec<Finding> {
    const ABOUT: &str = "database";
    let vault = match Vault::existing(data_dir) {
        Ok(Some(vault)) => vault,
        Ok(None) => {
            let cure = "nothing, before the first start; else put the file back from a backup";
            return vec![Finding::warning("data directory", "has no secret.key yet", cure)];
        }
        Err(error) => {
            let cure = "put secret.key back from a backup, with the database of the same day";
            return vec![Finding::error("data directory", error.to_string(), cure)];
        }
    };
    let (store, schema) = match Store::inspect(&settings.database, data_dir, vault).await {
        Ok(seen) => seen,
        Err(error) => return vec![unreadable(&error)],
    };
    let mut found = vec![match &schema {
        Schema::Current => Finding::ok(ABOUT, "readable and up to date"),
        Schema::Empty => {
            let cure = "nothing: the next start fills it";
            Finding::warning(ABOUT, "has no tables yet", cure)
        }
        Schema::Behind { next } => Finding::warning(
            ABOUT,
            format!("is of an earlier version; `{next}` comes next"),
            "nothing: the next start brings it up to date; on SQLite it makes a copy before",
        ),
    }];
    if schema == Schema::Current {
        match (store.everything(&Running::default()).await, Egress::new(&settings.egress)) {
            (Ok(wanted), Ok(egress)) => {
                found.extend(upstreams::foreseen(&wanted.servers, &egress, PATIENCE).await);
            }
            (Err(error), _) => found.push(unreadable(&error)),
            (_, Err(error)) => {
                found.push(Finding::error(
                    "settings",
                    error.to_string(),
                    "mend the host's certificates",
                ));
            }
        }
    }
    if let Err(error) = store.close().await {
        tracing::debug!(%error, "the database was not closed in order");
    }
    found
}

fn unreadable(error: &StoreError) -> Finding {
    const ABOUT: &str = "database";
    let cause = std::error::Error::source(error);
    let what = match cause {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    let cure = match error {
        StoreError::NewerSchema { .. } => {
            "use the version of metamcpd that made it, or a later one"
        }
        StoreError::Damaged(_) => "put a copy of the database in its place, or move it away",
        StoreError::Options { .. } => "mend `database.url`",
        StoreError::Vault(_) => "put back the secret.key that belongs to this database",
        StoreError::Unavailable(_) => "start the database, and see that `database.url` names it",
        _ => "see that it is metamcpd's database; else put it back from a backup",
    };
    Finding::error(ABOUT, what, cure)
}
