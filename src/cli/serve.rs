//! `metamcpd serve`: the daemon from its settings to its end.
//!
//! It prints facts on stdout, one a line; the log is on stderr.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, Place, say, text_of};
use crate::{
    data_dir::DataDir,
    gateway::{Gateway, Plan, Started},
    import,
    operator::ImportOutcome,
    settings::Settings,
    telemetry,
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    place: Place,
    /// Any client's `mcp.json`: makes its servers, and a namespace and an endpoint `default`.
    /// Giving it again changes nothing.
    #[arg(long, value_name = "MCP_JSON")]
    import: Option<PathBuf>,
}

impl Serve {
    pub fn run(self) -> Result<(), Failure> {
        let settings = Settings::read(self.place.config.as_deref())?;
        let admin_key = Settings::admin_key()?;
        // Dropped last, when there is nothing more to log.
        let (prometheus, _last_word) =
            telemetry::begin(&settings.log).map_err(crate::gateway::StartError::from)?;
        let imported = self.import.as_deref().map(read_import).transpose()?;
        let data_dir = DataDir::open(&self.place.data_dir)?;
        let plan = Plan { settings, data_dir, admin_key, imported, prometheus };
        actix::System::new().block_on(async move {
            let Signals { shutdown, hurry, read_again } = signals()?;
            let (gateway, started) = Gateway::build(plan).await?;
            gateway.read_again_on(read_again);
            tell_apart(started);
            let ended = gateway.run_until(shutdown, hurry).await;
            ended.map_err(|error| Failure::Other(error.to_string()))
        })
    }
}

fn read_import(file: &Path) -> Result<import::Imported, Failure> {
    let unusable = |why: String| Failure::Other(format!("--import {}: {why}", file.display()));
    let text = text_of(file).map_err(unusable)?;
    import::read(&text).map_err(|error| unusable(error.to_string()))
}

/// What the daemon is told by signals.
struct Signals<F, G> {
    /// The first SIGINT or SIGTERM, after which it drains.
    shutdown: F,
    /// The second, or SIGQUIT, after which it hurries.
    hurry: G,
    /// SIGHUP.
    read_again: Signal,
}

fn signals() -> Result<Signals<impl Future<Output = ()>, impl Future<Output = ()>>, Failure> {
    let on = |kind| signal(kind).map_err(|error| Failure::Other(format!("signals: {error}")));
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut terminate = on(SignalKind::terminate())?;
    let mut quit = on(SignalKind::quit())?;
    let read_again = on(SignalKind::hangup())?;
    // A file that reaches the limit of its size is a write that fails, as on a full disk, and not our end.
    // Whoever we start has its own way with it again: what is heard, unlike what is ignored, is not inherited.
    drop(on(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
    let (first, is_first) = tokio::sync::oneshot::channel();
    let (second, is_second) = tokio::sync::oneshot::channel();
    actix::spawn(async move {
        let mut left = vec![second, first];
        while let Some(told) = left.pop() {
            let is_in_a_hurry = tokio::select! {
                _ = interrupt.recv() => false,
                _ = terminate.recv() => false,
                _ = quit.recv() => true,
            };
            // Whoever listened may have ended already.
            told.send(()).unwrap_or(());
            if is_in_a_hurry {
                left.drain(..).for_each(|told| told.send(()).unwrap_or(()));
            }
        }
    });
    Ok(Signals {
        shutdown: async move { drop(is_first.await) },
        hurry: async move { drop(is_second.await) },
        read_again,
    })
}

/// Tells the facts from a thread of their own: who does not read them holds up nothing else.
fn tell_apart(started: Started) {
    let started = Arc::new(started);
    let told = started.clone();
    let apart = thread::Builder::new().name("facts".to_owned()).spawn(move || tell(&told));
    if let Err(error) = apart {
        tracing::warn!(%error, "there is no thread for the facts");
        tell(&started);
    }
}

fn tell(started: &Started) {
    let url = &started.url;
    say(&format!("listening {url}"));
    for item in &started.imports.items {
        if item.outcome == ImportOutcome::Failed {
            say(&format!("not imported {}: {}", item.name, item.reason()));
        }
        for warning in &item.warnings {
            say(&format!("import warning {}: {}: {}", item.name, warning.field, warning.text));
        }
    }
    for warning in &started.imports.warnings {
        say(&format!("import warning {}: {}", warning.field, warning.text));
    }
    for endpoint in &started.endpoints {
        say(&format!("endpoint {url}/metamcp/{endpoint}/mcp"));
    }
    match &started.api_key {
        Some(key) => say(&format!("api key {}", key.expose())),
        None => say("another api key: metamcpd admin create-key --client"),
    }
    match &started.admin_key {
        Some(key) => say(&format!("admin key {}", key.expose())),
        None => say("another admin key: metamcpd admin create-key"),
    }
    if let Some(endpoint) = started.endpoints.first() {
        let key = started.api_key.as_ref().map_or("YOUR_API_KEY", |key| key.expose());
        let snippet = serde_json::json!({
            "mcpServers": {
                "metamcp": {
                    "type": "http",
                    "url": format!("{url}/metamcp/{endpoint}/mcp"),
                    "headers": { "Authorization": format!("Bearer {key}") },
                }
            }
        });
        say(&format!("client {snippet}"));
    }
    say("ready");
}
