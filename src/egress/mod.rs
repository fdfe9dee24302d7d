//! The one door for outbound connections.
//!
//! Whatever leaves the daemon by HTTP leaves it here: addresses are judged, whether a URL spells
//! them or a name resolves to them, and only judged addresses are connected to; redirects are
//! handed back, and a proxy that the environment names is not used. What a request says, how long
//! an answer may take and what is done about a failure are the callers' business.

mod authorities;
mod connector;
mod door;
mod error;
mod lookups;
mod policy;
mod resolver;

use std::net::IpAddr;
use std::time::Duration;

use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use url::{Host, Url};

pub use authorities::{ACCEPTED as AUTHORITIES_ACCEPTED, Authorities, BadAuthorities};
pub use door::{Begun, Body, Door};
pub use error::{EgressError, Trust};
pub use policy::{AddressPolicy, Refusal};

use connector::Connector;
use resolver::JudgingResolver;

/// The `egress` section of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressOptions {
    /// Whether this machine itself may be connected to.
    pub allow_loopback: bool,
    /// Whether the private networks (RFC 1918, RFC 6598, RFC 4193) may be connected to.
    pub allow_private: bool,
    /// For looking up the name, connecting and the TLS handshake together.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long a connection is quiet before the kernel asks whether the peer is still there.
    #[serde(with = "humantime_serde")]
    pub tcp_keepalive: Duration,
    /// How long it then waits before it asks again.
    #[serde(with = "humantime_serde")]
    pub tcp_keepalive_interval: Duration,
    /// So many questions without an answer end the connection.
    pub tcp_keepalive_retries: u32,
    /// How long what was sent may wait for the peer's kernel to say that it has it. Zero: as long as the
    /// operating system has it.
    #[serde(with = "humantime_serde")]
    pub tcp_user_timeout: Duration,
    /// For looking up a name, as a part of `connect_timeout`.
    #[serde(with = "humantime_serde")]
    pub resolve_timeout: Duration,
    /// Names that are being looked up at once; and so many more of those that hang.
    pub resolves_max: usize,
    /// How long the addresses that a name last had serve where the resolver fails. Zero: not at all.
    #[serde(with = "humantime_serde")]
    pub resolved_keep: Duration,
    /// Names of which that is remembered.
    pub resolved_max: usize,
    /// Idle connections that are kept, for each host and each pool.
    pub pool_idle_max_per_host: usize,
    #[serde(with = "humantime_serde")]
    pub pool_idle_timeout: Duration,
}

/// Makes doors. Clones share the pool of the steady door.
#[derive(Clone, Debug)]
pub struct Egress {
    policy: AddressPolicy,
    options: EgressOptions,
    resolver: JudgingResolver,
    trust: Trust,
    steady: reqwest::Client,
    connector: Connector,
}

impl Default for EgressOptions {
    fn default() -> Self {
        EgressOptions {
            allow_loopback: true,
            allow_private: true,
            connect_timeout: Duration::from_secs(5),
            tcp_keepalive: Duration::from_secs(30),
            tcp_keepalive_interval: Duration::from_secs(10),
            tcp_keepalive_retries: 3,
            tcp_user_timeout: Duration::from_secs(30),
            resolve_timeout: Duration::from_secs(2),
            resolves_max: 64,
            resolved_keep: Duration::from_secs(15 * 60),
            resolved_max: 1024,
            pool_idle_max_per_host: 32,
            pool_idle_timeout: Duration::from_secs(90),
        }
    }
}

impl EgressOptions {
    pub fn policy(&self) -> AddressPolicy {
        AddressPolicy { allow_loopback: self.allow_loopback, allow_private: self.allow_private }
    }

    fn user_timeout(&self) -> Option<Duration> {
        Some(self.tcp_user_timeout).filter(|timeout| !timeout.is_zero())
    }
}

impl Egress {
    /// Fails when the machine's certificate store cannot be read.
    pub fn new(options: &EgressOptions) -> Result<Egress, EgressError> {
        Egress::built(options, JudgingResolver::new(options), None)
    }

    /// Doors of their own, which trust `authorities` and nobody else, and by which nothing goes but https.
    /// No connection, and no session of TLS, is shared with any other doors.
    pub fn trusting(&self, authorities: &Authorities) -> Result<Egress, EgressError> {
        Egress::built(&self.options, self.resolver.clone(), Some(authorities))
    }

    /// Whose word a certificate has to have.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    fn built(
        options: &EgressOptions,
        resolver: JudgingResolver,
        authorities: Option<&Authorities>,
    ) -> Result<Egress, EgressError> {
        let policy = options.policy();
        let mut builder = reqwest::Client::builder();
        if let Some(authorities) = authorities {
            let certificates = authorities.certificates().iter();
            let certificates: Result<Vec<_>, _> =
                certificates.map(|one| reqwest::Certificate::from_der(one)).collect();
            let certificates =
                certificates.map_err(|error| EgressError::Setup { source: error.into() })?;
            builder = builder.tls_certs_only(certificates).https_only(true);
        }
        let steady = builder
            .dns_resolver(resolver.clone())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(options.connect_timeout)
            .tcp_keepalive(options.tcp_keepalive)
            .tcp_keepalive_interval(options.tcp_keepalive_interval)
            .tcp_keepalive_retries(options.tcp_keepalive_retries)
            .tcp_user_timeout(options.user_timeout())
            .tcp_nodelay(true)
            .pool_max_idle_per_host(options.pool_idle_max_per_host)
            .pool_idle_timeout(options.pool_idle_timeout)
            .build()
            .map_err(|error| EgressError::Setup { source: error.into() })?;
        let connector = Connector::new(resolver.clone(), options, authorities)
            .map_err(|error| EgressError::Setup { source: error.into() })?;
        let trust = if authorities.is_some() { Trust::Named } else { Trust::Machine };
        Ok(Egress { policy, options: options.clone(), resolver, trust, steady, connector })
    }

    /// Judges a URL before anything is connected, for whoever stores one or shows it. That it
    /// passes says nothing yet about what its name resolves to.
    pub fn check(&self, url: &Url) -> Result<(), EgressError> {
        self.policy.check(url)
    }

    /// Judges an address that a name was resolved to.
    pub fn verdict(&self, address: IpAddr) -> Result<(), Refusal> {
        self.policy.verdict(address)
    }

    /// For handshakes, lists and streams: one pool for all who share this trust.
    pub fn steady(&self) -> Door {
        Door::steady(self.policy, self.trust, self.steady.clone())
    }

    /// For the call path: a new pool with every call of this, so that each server thread can have
    /// one to itself.
    pub fn hot(&self) -> Door {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.options.pool_idle_timeout)
            .pool_max_idle_per_host(self.options.pool_idle_max_per_host)
            .build(self.connector.clone());
        Door::hot(self.policy, self.trust, client)
    }
}

impl AddressPolicy {
    /// A parsed URL has one spelling for each address: `0x7f.1`, `2130706433` and `127.1` have
    /// all become `127.0.0.1` by now.
    fn check(self, url: &Url) -> Result<(), EgressError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(EgressError::NotHttp { scheme: url.scheme().to_owned() });
        }
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(EgressError::NoHost),
        };
        self.verdict(address).map_err(|why| EgressError::Refused { address, why })
    }
}
