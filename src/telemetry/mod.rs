//! The log and the metrics: where they go, and in what form.
//!
//! Nobody who logs ever waits for whoever reads the log, and nothing that is logged acts on the reader's
//! terminal or begins a line of its own.

mod lines;
mod panics;
mod sink;

use std::{
    fs::File,
    io::{self, IsTerminal},
    os::fd::AsFd,
};

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt};

use crate::settings::{LogFormat, LogSettings};
use lines::{Form, Lines};
pub use sink::LastWord;

/// Why there is no log or no metrics.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    #[error("the log was begun before")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the log cannot be written")]
    Sink(#[from] io::Error),
    #[error("the metrics cannot be recorded")]
    Metrics(#[from] BuildError),
}

/// Begins a log for people on stderr, and nothing else, for what is no daemon.
pub fn log_to_stderr(level: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(level)?;
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    log.with_ansi(std::io::stderr().is_terminal()).try_init().map_err(TelemetryError::Twice)
}

/// Begins the log on stderr, and answers what `/metrics` is rendered by, and what writes the rest of the
/// log when it is dropped. From then on every panic is logged and counted, wherever it is caught.
pub fn begin(settings: &LogSettings) -> Result<(PrometheusHandle, LastWord), TelemetryError> {
    let filter = EnvFilter::try_new(&settings.level)?;
    // A handle of its own: whoever holds the lock of the standard one may wait for ever.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let is_terminal = stderr.is_terminal();
    let form = match settings.format {
        LogFormat::Json => Form::Json,
        LogFormat::Text => Form::Text { is_coloured: is_terminal },
    };
    let (sink, last_word) = sink::start(stderr, settings.buffer)?;
    let lines = Lines { sink, form, max: settings.line_max };
    let log = fmt().with_env_filter(filter).with_writer(lines).with_target(false);
    match settings.format {
        LogFormat::Text => log.with_ansi(is_terminal).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    }
    .map_err(TelemetryError::Twice)?;
    let prometheus = PrometheusBuilder::new().install_recorder()?;
    panics::watch();
    Ok((prometheus, last_word))
}
