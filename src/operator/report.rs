//! What the running daemon tells whoever examines it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::conductor::Conductor;

/// Letters of an upstream's last error.
const ERROR_MAX: usize = 500;

/// The daemon in short. It holds no secret.
#[derive(Debug, Serialize, Deserialize)]
pub struct DaemonReport {
    pub version: String,
    /// Made anew at each start; `/health` tells it too, so that a URL can be found to lead here.
    pub run: String,
    /// What the URLs that it publishes begin with.
    pub url: String,
    /// Whether the database answers.
    pub database: bool,
    /// What is the matter with it, where that is known.
    #[serde(default)]
    pub database_error: Option<String>,
    pub endpoints: Vec<EndpointReport>,
    pub upstreams: Vec<UpstreamReport>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct EndpointReport {
    pub name: String,
    /// Whether it asks for no credential.
    pub open: bool,
}

/// An upstream, in the words of the contract.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpstreamReport {
    pub name: String,
    pub state: String,
    pub error_status: String,
    pub reason: String,
    pub last_error: Option<String>,
    /// Why its tools could not be listed the last time; they are the ones of before.
    #[serde(default)]
    pub list_error: Option<String>,
    /// What is wrong with the authorities that it names.
    #[serde(default)]
    pub authorities_complaint: Option<String>,
    pub tools: usize,
}

/// How the daemon is just now.
pub async fn of(conductor: &Conductor, url: &str) -> DaemonReport {
    let endpoints = conductor.endpoints.load();
    let mut endpoints: Vec<EndpointReport> = endpoints
        .values()
        .map(|entry| EndpointReport {
            name: entry.name.clone(),
            open: !entry.facts.enable_api_key_auth && !entry.facts.enable_oauth,
        })
        .collect();
    endpoints.sort_by(|one, other| one.name.cmp(&other.name));
    let now = OffsetDateTime::now_utc();
    let upstreams = conductor.roster.load();
    let mut upstreams: Vec<UpstreamReport> = upstreams
        .values()
        .map(|board| {
            let runtime = board.runtime();
            let shortened = |error: &str| -> String { error.chars().take(ERROR_MAX).collect() };
            let spec = board.spec();
            UpstreamReport {
                name: spec.name.clone(),
                state: runtime.state.as_str().to_owned(),
                error_status: runtime.error_status.as_str().to_owned(),
                reason: runtime.reason.as_str().to_owned(),
                last_error: runtime.last_error.as_deref().map(shortened),
                list_error: runtime.list_error().map(shortened),
                authorities_complaint: spec.transport.authorities_complaint(now),
                tools: runtime.tools(),
            }
        })
        .collect();
    upstreams.sort_by(|one, other| one.name.cmp(&other.name));
    let pinged = conductor.store.ping().await;
    DaemonReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        run: conductor.run.to_string(),
        url: url.to_owned(),
        database: pinged.is_ok(),
        database_error: pinged.err().map(|error| error.to_string()),
        endpoints,
        upstreams,
    }
}
