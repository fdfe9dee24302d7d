//! The log and the metrics: where they go, and in what form.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt};

use crate::settings::{LogFormat, LogSettings};

/// Why there is no log or no metrics.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    #[error("the log was begun before")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the metrics cannot be recorded")]
    Metrics(#[from] BuildError),
}

/// Begins a log for people on stderr, and nothing else, for what is no daemon.
pub fn log_to_stderr(level: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(level)?;
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    log.with_ansi(std::io::stderr().is_terminal()).try_init().map_err(TelemetryError::Twice)
}

/// Begins the log on stderr, and answers what `/metrics` is rendered by.
pub fn begin(settings: &LogSettings) -> Result<PrometheusHandle, TelemetryError> {
    let filter = EnvFilter::try_new(&settings.level)?;
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match settings.format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    }
    .map_err(TelemetryError::Twice)?;
    Ok(PrometheusBuilder::new().install_recorder()?)
}
