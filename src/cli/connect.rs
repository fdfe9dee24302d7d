//! `metamcpd connect`: an endpoint for clients that only start processes.
//!
//! stdout belongs to the protocol; whatever there is to say goes to stderr.

use std::{os::fd::AsFd, time::Duration};

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use super::{Failure, demo_upstream::file_of};
use crate::{
    connect::{self, Options},
    egress::{Egress, EgressOptions},
    telemetry,
    upstream::variables,
};

#[derive(Args)]
pub(super) struct Connect {
    /// The endpoint, such as http://127.0.0.1:12008/metamcp/default/mcp. One that ends in /sse is
    /// spoken to by the older SSE transport.
    url: Url,
    /// A header for every request. `${NAME}` in the value is taken from the environment, since every
    /// user of the host can read a command line.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// The API key. Better in the environment, for the same reason.
    #[arg(long, value_name = "KEY", env = "METAMCP_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Speaks the older SSE transport, whatever the URL looks like.
    #[arg(long)]
    sse: bool,
    /// Seconds that a request waits for a daemon that is away, before it fails.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
    /// Seconds that requests in flight may take after the client has closed our input.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    linger: u64,
    /// Requests that may be without an answer at once.
    #[arg(long, value_name = "N", default_value_t = 256)]
    in_flight_max: usize,
    /// Bytes of one message, either way.
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024 * 1024)]
    message_max: usize,
    /// What is told on stderr: error, warn, info or debug.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: String,
}

/// The key is in it.
impl std::fmt::Debug for Connect {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connect").finish_non_exhaustive()
    }
}

impl Connect {
    pub fn run(self) -> Result<(), Failure> {
        telemetry::log_to_stderr(&self.log).map_err(crate::gateway::StartError::from)?;
        let options = self.options()?;
        let failed = |error: std::io::Error| Failure::Other(error.to_string());
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let done = runtime.block_on(async {
            let egress = Egress::new(&EgressOptions::default())
                .map_err(|error| Failure::Other(error.to_string()))?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
            let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
            let stop = async move {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            };
            let stdin = file_of(std::io::stdin().as_fd()).map_err(failed)?;
            let stdout = file_of(std::io::stdout().as_fd()).map_err(failed)?;
            let carried = connect::run(options, &egress, stdin, stdout, stop).await;
            carried.map_err(|failure| Failure::Other(failure.to_string()))
        });
        // A read of our input cannot be called off, and must not keep the process alive.
        runtime.shutdown_background();
        done
    }

    fn options(self) -> Result<Options, Failure> {
        let usable = matches!(self.url.scheme(), "http" | "https") && self.url.has_host();
        if !usable {
            return Err(Failure::Usage("the URL must begin with http:// or https://".into()));
        }
        let mut headers = HeaderMap::new();
        for text in &self.headers {
            let (name, value) = header_of(text, |name| std::env::var(name).ok())
                .map_err(|why| Failure::Usage(format!("--header: {why}")))?;
            headers.insert(name, value);
        }
        if let Some(key) = self.api_key.as_deref().map(str::trim).filter(|key| !key.is_empty()) {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| Failure::Usage("the API key holds what no header can carry".into()))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(Options {
            sse: self.sse || self.url.path().trim_end_matches('/').ends_with("/sse"),
            url: self.url,
            headers,
            in_flight_max: self.in_flight_max.max(1),
            message_max: self.message_max.max(1_024),
            away_max: Duration::from_secs(self.wait),
            linger: Duration::from_secs(self.linger),
        })
    }
}

/// Reads `NAME=VALUE`, or `NAME: VALUE` as other tools have it. What is wrong is told without the
/// value, which may be a secret.
fn header_of(
    text: &str,
    look_up: impl Fn(&str) -> Option<String>,
) -> Result<(HeaderName, HeaderValue), String> {
    let at = text.find(['=', ':']).ok_or("is to be NAME=VALUE")?;
    let (name, value) = (text[..at].trim(), text[at + 1..].trim());
    let header = name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
    let value = variables::resolve(value, true, look_up).map_err(|why| format!("{name}: {why}"))?;
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| format!("{name}: the value holds what no header can carry"))?;
    value.set_sensitive(true);
    Ok((header, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_header_is_read_in_both_spellings_with_its_variables() {
        let look_up = |name: &str| (name == "TOKEN").then(|| "t=1".to_owned());
        for (text, name, value) in [
            ("X-Team=blue", "x-team", "blue"),
            ("X-Team: blue", "x-team", "blue"),
            ("Authorization: Bearer ${TOKEN}", "authorization", "Bearer t=1"),
            ("X-Api-Key=a:b=c", "x-api-key", "a:b=c"),
            ("X-Empty=", "x-empty", ""),
        ] {
            let (read_name, read_value) = header_of(text, look_up).unwrap();
            assert_eq!((read_name.as_str(), read_value.to_str().unwrap()), (name, value), "{text}");
        }
    }

    #[test]
    fn a_bad_header_is_told_without_its_value() {
        for text in ["s3cret", "a b=s3cret", "X=s3cret\u{7}", "X=s3cret ${GONE}"] {
            let why = header_of(text, |_| None).unwrap_err();
            assert!(!why.contains("s3cret"), "{text}: {why}");
        }
    }
}
