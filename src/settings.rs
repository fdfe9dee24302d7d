//! The only reader of settings: `config/default.toml`, a file, and the environment.
//!
//! Each room has its own section as a type of its own, and is given it by value. What a setting
//! means is said once, in `config/default.toml`.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use serde::Deserialize;

use crate::{
    conductor::runtime::Values,
    egress::EgressOptions,
    identity::keys::{KeyText, WeakKey},
    logs::LogOptions,
    session::SessionOptions,
    store::{DatabaseOptions, JournalOptions},
    upstream::{
        lifecycle::Patience,
        lists::ListOptions,
        oauth::OAuthOptions,
        port::CallOptions,
        worker::{FrameLimits, WorkerOptions},
    },
};

/// The manual, which is also where every default is.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// The name of the variable that holds an admin key.
pub const ADMIN_KEY: &str = "METAMCPD_ADMIN_KEY";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub server: ServerSettings,
    pub database: DatabaseOptions,
    pub log: LogSettings,
    pub metrics: MetricsSettings,
    pub wire: FrameLimits,
    pub names: NamesSettings,
    pub lists: ListOptions,
    pub calls: CallOptions,
    pub sessions: SessionOptions,
    pub supervision: Patience,
    pub upstream: WorkerOptions,
    pub oauth: OAuthOptions,
    pub egress: EgressOptions,
    pub journal: JournalOptions,
    pub events: EventsSettings,
    pub logs: LogOptions,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    pub bind: SocketAddr,
    pub public_url: String,
    pub workers: usize,
    pub allowed_hosts: Vec<String>,
    pub allowed_origins: Vec<String>,
    pub body_max: usize,
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    pub body_rate_min: u32,
    #[serde(with = "humantime_serde")]
    pub body_grace: Duration,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub proxies: Vec<IpAddr>,
    pub fd_reserve: usize,
    pub backlog: i32,
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    pub memory_soft_max: u64,
    pub write_buffer: usize,
    #[serde(with = "humantime_serde")]
    pub drain_grace: Duration,
    pub core_dumps: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub format: LogFormat,
    pub level: String,
    pub buffer: usize,
    pub line_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    pub open: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamesSettings {
    pub max: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsSettings {
    pub buffer: usize,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadSettings {
    #[error("the file {0} cannot be read")]
    NoFile(String),
    #[error("{}", explain(.0))]
    Value(Box<figment::Error>),
    #[error("server.public_url: `{0}` is not an http or https URL without query and fragment")]
    PublicUrl(String),
    #[error("{ADMIN_KEY}: {0}")]
    AdminKey(#[from] WeakKey),
    #[error("{0}")]
    OutOfRange(&'static str),
}

fn explain(error: &figment::Error) -> String {
    let one = |error: figment::Error| {
        let key = error.path.join(".");
        match key.is_empty() {
            true => error.to_string(),
            false => format!("{key}: {error}"),
        }
    };
    error.clone().into_iter().map(one).collect::<Vec<_>>().join("; ")
}

impl Settings {
    /// The defaults, overridden by `file`, overridden by the environment.
    pub fn read(file: Option<&Path>) -> Result<Self, BadSettings> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(BadSettings::NoFile(file.display().to_string()));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let figment = figment.merge(Env::prefixed("METAMCPD__").split("__"));
        let mut settings: Self =
            figment.extract().map_err(|error| BadSettings::Value(Box::new(error)))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&mut self) -> Result<(), BadSettings> {
        // An empty URL is how a file says that there is none.
        self.database.url = self.database.url.take().filter(|url| !url.expose().is_empty());
        let public_url = &mut self.server.public_url;
        if !public_url.is_empty() {
            let bad = || BadSettings::PublicUrl(public_url.clone());
            let url = url::Url::parse(public_url).map_err(|_| bad())?;
            let is_plain = matches!(url.scheme(), "http" | "https")
                && url.host().is_some()
                && url.query().is_none()
                && url.fragment().is_none();
            if !is_plain {
                return Err(bad());
            }
            *public_url = url.as_str().trim_end_matches('/').to_owned();
        }
        for (is_good, what) in [
            (self.server.connections_max > 0, "server.connections_max: at least 1"),
            (
                self.server.connections_per_address_max > 0,
                "server.connections_per_address_max: at least 1",
            ),
            (self.server.backlog > 0, "server.backlog: at least 1"),
            (!self.server.header_timeout.is_zero(), "server.header_timeout: more than 0s"),
            (!self.server.body_timeout.is_zero(), "server.body_timeout: more than 0s"),
            (!self.server.keep_alive.is_zero(), "server.keep_alive: more than 0s"),
            (self.calls.in_flight_max > 0, "calls.in_flight_max: at least 1"),
            (self.calls.tasks.results_max > 0, "calls.tasks.results_max: at least 1"),
            (self.calls.tasks.page > 0, "calls.tasks.page: at least 1"),
            (!self.calls.tasks.poll_min.is_zero(), "calls.tasks.poll_min: more than 0s"),
            (self.sessions.total_max > 0, "sessions.total_max: at least 1"),
            (!self.sessions.heartbeat.is_zero(), "sessions.heartbeat: more than 0s"),
            (self.wire.depth_max >= 16, "wire.depth_max: at least 16"),
            (self.wire.message_max >= 1024, "wire.message_max: at least 1024"),
            (self.names.max >= 20, "names.max: at least 20"),
            (!self.supervision.probe_every.is_zero(), "supervision.probe_every: more than 0s"),
            (self.log.buffer > 0, "log.buffer: at least 1"),
            (self.log.line_max >= 1024, "log.line_max: at least 1024"),
            (self.logs.entries_max > 0, "logs.entries_max: at least 1"),
            (self.logs.bytes_max >= 65_536, "logs.bytes_max: at least 65536"),
            (self.logs.per_source_max > 0, "logs.per_source_max: at least 1"),
            (self.logs.message_max >= 64, "logs.message_max: at least 64"),
            (self.logs.burst > 0, "logs.burst: at least 1"),
            (self.logs.rate > 0, "logs.rate: at least 1"),
            (!self.oauth.refresh_timeout.is_zero(), "oauth.refresh_timeout: more than 0s"),
            (self.oauth.answer_max >= 1024, "oauth.answer_max: at least 1024"),
            (!self.upstream.session_idle.is_zero(), "upstream.session_idle: more than 0s"),
            (
                (0..=19).contains(&self.upstream.children.niceness),
                "upstream.children.niceness: 0 to 19",
            ),
            (
                (0..=1000).contains(&self.upstream.children.oom_score_adj),
                "upstream.children.oom_score_adj: 0 to 1000",
            ),
            (
                (1..=100).contains(&self.calls.breaker.failures_percent),
                "calls.breaker.failures_percent: 1 to 100",
            ),
            (self.upstream.spawns.at_once > 0, "upstream.spawns.at_once: at least 1"),
            (self.upstream.spawns.per_second > 0, "upstream.spawns.per_second: at least 1"),
            (self.upstream.spawns.burst > 0, "upstream.spawns.burst: at least 1"),
        ] {
            if !is_good {
                return Err(BadSettings::OutOfRange(what));
            }
        }
        Ok(())
    }

    /// What can be changed at run time, as it is until then.
    pub fn runtime(&self) -> Values {
        Values {
            // There are no users yet; these wait for them.
            disable_basic_auth: false,
            disable_signup: false,
            disable_sso_signup: false,
            max_attempts: self.supervision.attempts(),
            call_total: self.calls.total,
            reset_on_progress: self.calls.reset_on_progress,
            call_timeout: self.calls.timeout,
            session_lifetime: self.sessions.lifetime,
        }
    }

    /// The admin key of the environment, if there is one.
    pub fn admin_key() -> Result<Option<KeyText>, BadSettings> {
        match std::env::var(ADMIN_KEY) {
            Ok(text) if !text.is_empty() => Ok(Some(KeyText::chosen(text)?)),
            Ok(_) | Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::*;

    fn with_file(text: &str) -> Result<Settings, BadSettings> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Settings::read(Some(file.path()))
    }

    #[test]
    fn the_manual_is_complete_and_a_file_overrides_it() {
        assert_eq!(Settings::read(None).unwrap().server.bind.port(), 12_008);
        let settings = with_file("[server]\npublic_url = \"https://a.example/mcp/\"").unwrap();
        assert_eq!(settings.server.public_url, "https://a.example/mcp");
    }

    #[test]
    fn a_bad_setting_is_named() {
        for (text, name) in [
            ("[server]\nbind = \"x\"", "server.bind"),
            ("[server]\nbnid = \"127.0.0.1:1\"", "bnid"),
            ("[servers]", "servers"),
            ("[server]\npublic_url = \"ftp://x\"", "server.public_url"),
            ("[lists]\nfirst_wait = \"soon\"", "lists.first_wait"),
            ("[names]\nmax = 3", "names.max"),
            ("[names]\nmax = \"x\"", "names.max"),
        ] {
            let error = with_file(text).unwrap_err().to_string();
            assert!(error.contains(name), "{text}: {error}");
        }
    }
}
