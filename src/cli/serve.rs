//! `metamcpd serve`: the daemon from its settings to its end.
//!
//! It prints facts on stdout, one a line; the log is on stderr.

use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

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
        let prometheus =
            telemetry::begin(&settings.log).map_err(crate::gateway::StartError::from)?;
        let imported = self.import.as_deref().map(read_import).transpose()?;
        let data_dir = DataDir::open(&self.place.data_dir)?;
        let plan = Plan { settings, data_dir, admin_key, imported, prometheus };
        actix::System::new().block_on(async move {
            let (shutdown, hurry) = signals()?;
            let (gateway, started) = Gateway::build(plan).await?;
            tell(&started);
            gateway.run_until(shutdown, hurry).await;
            Ok(())
        })
    }
}

fn read_import(file: &Path) -> Result<import::Imported, Failure> {
    let unusable = |why: String| Failure::Other(format!("--import {}: {why}", file.display()));
    let text = text_of(file).map_err(unusable)?;
    import::read(&text).map_err(|error| unusable(error.to_string()))
}

/// The first signal, after which the daemon drains, and the second, after which it hurries.
fn signals() -> Result<(impl Future<Output = ()>, impl Future<Output = ()>), Failure> {
    let failed = |error: std::io::Error| Failure::Other(format!("signals: {error}"));
    let mut streams = [
        signal(SignalKind::interrupt()).map_err(failed)?,
        signal(SignalKind::terminate()).map_err(failed)?,
    ];
    let (first, is_first) = tokio::sync::oneshot::channel();
    let (second, is_second) = tokio::sync::oneshot::channel();
    actix::spawn(async move {
        for told in [first, second] {
            let [interrupt, terminate] = &mut streams;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if told.send(()).is_err() {
                // Whoever listened has ended already.
                return;
            }
        }
    });
    Ok((async move { drop(is_first.await) }, async move { drop(is_second.await) }))
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
