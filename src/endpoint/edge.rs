//! Whether a request may come in at all, by the name it is addressed to and the page it comes from.
//!
//! A web page can make a browser send requests here under a name that it has pointed at us (DNS
//! rebinding). Such a request names a host that is not ours, or an origin that is not allowed.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use url::{Host, Url};

/// What is ours, and who may call.
#[derive(Clone, Debug)]
pub struct Edge {
    hosts: Vec<String>,
    origins: Vec<String>,
    /// Whether any literal address may be used: an address cannot be rebound, and one that is not
    /// loopback reaches us only if we listen there.
    any_address: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "the Host header names no host of this gateway; see `server.public_url` and `server.allowed_hosts`"
    )]
    Host,
    #[error("pages of this origin may not call this gateway; see `server.allowed_origins`")]
    Origin,
}

impl Edge {
    /// `public_url` may be empty.
    pub fn new(
        bind: IpAddr,
        public_url: &str,
        allowed_hosts: &[String],
        allowed_origins: &[String],
    ) -> Self {
        let public = Url::parse(public_url).ok();
        let public_host = public.as_ref().and_then(Url::host_str).map(str::to_lowercase);
        let public_origin = public.as_ref().map(|url| url.origin().ascii_serialization());
        let hosts = allowed_hosts.iter().map(|host| host.to_lowercase()).chain(public_host);
        let origins = allowed_origins
            .iter()
            .map(|origin| origin.trim_end_matches('/').to_lowercase())
            .chain(public_origin);
        Self {
            hosts: hosts.collect(),
            origins: origins.collect(),
            any_address: !bind.is_loopback(),
        }
    }

    /// Judges the values of all `Host` and `Origin` headers of a request.
    pub fn judge(&self, hosts: &[&str], origins: &[&str]) -> Result<(), Refused> {
        let [host] = hosts else { return Err(Refused::Host) };
        if !self.is_our_host(host) {
            return Err(Refused::Host);
        }
        match origins {
            [] => Ok(()),
            [origin] if self.may_call(origin, host) => Ok(()),
            _ => Err(Refused::Origin),
        }
    }

    fn is_our_host(&self, host: &str) -> bool {
        // Most are spelt like this, and what is understood here means the same to the parser of URLs, which
        // takes longer than all else that is judged.
        if let Ok(address) =
            host.parse().or_else(|_| host.parse().map(|one: SocketAddrV4| *one.ip()))
        {
            return self.is_our_address(address);
        }
        // A host alone is no URL; with a scheme before it, its parser knows every form.
        let Ok(url) = Url::parse(&format!("http://{host}/")) else { return false };
        if url.path() != "/" || !url.username().is_empty() || url.password().is_some() {
            return false;
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.is_our_address(address),
            Some(Host::Ipv6(address)) => address.is_loopback() || self.any_address,
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                name == "localhost" || self.hosts.iter().any(|ours| ours == name)
            }
            None => false,
        }
    }

    fn is_our_address(&self, address: Ipv4Addr) -> bool {
        address.is_loopback() || self.any_address
    }

    fn may_call(&self, origin: &str, host: &str) -> bool {
        let origin = origin.to_lowercase();
        let Ok(url) = Url::parse(&origin) else { return false };
        if url.origin().ascii_serialization() != origin {
            return false;
        }
        let Ok(ours) = Url::parse(&format!("{}://{host}/", url.scheme())) else { return false };
        let same_port = url.port_or_known_default() == ours.port_or_known_default();
        // A person may know this host by any of its loopback names.
        let same_host =
            url.host() == ours.host() || (is_loopback(&url.host()) && is_loopback(&ours.host()));
        let is_our_own = matches!(url.scheme(), "http" | "https") && same_port && same_host;
        is_our_own || self.origins.contains(&origin)
    }
}

fn is_loopback(host: &Option<Host<&str>>) -> bool {
    match host {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => *name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(bind: &str) -> Edge {
        let address = bind.parse().unwrap_or(IpAddr::from([127, 0, 0, 1]));
        Edge::new(
            address,
            "https://mcp.example.com/x",
            &["gateway.lan".into()],
            &["https://tool.example/".into()],
        )
    }

    #[test]
    fn only_our_own_names_may_be_addressed() {
        for host in [
            "localhost",
            "localhost:12008",
            "LOCALHOST:1",
            "localhost.",
            "127.0.0.1:12008",
            "127.1",
            "127.0.0.1",
            "127.0.0.1:",
            "[::1]:12008",
            "mcp.example.com",
            "gateway.lan:80",
        ] {
            assert_eq!(edge("127.0.0.1").judge(&[host], &[]), Ok(()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "mcp.example.com.evil.example",
            "evil@localhost",
            "localhost/evil",
            "192.168.1.5",
            "192.168.1.5:12008",
            "127.0.0.1:99999",
            "127.0.0.1:-1",
            "127.0.0.1/evil",
            "evil@127.0.0.1",
            "[fe80::1]",
            "a b",
        ] {
            assert_eq!(edge("127.0.0.1").judge(&[host], &[]), Err(Refused::Host), "{host}");
        }
        assert_eq!(edge("0.0.0.0").judge(&["192.168.1.5:12008"], &[]), Ok(()));
        assert_eq!(edge("0.0.0.0").judge(&["evil.example"], &[]), Err(Refused::Host));
        assert_eq!(edge("127.0.0.1").judge(&[], &[]), Err(Refused::Host));
        assert_eq!(edge("127.0.0.1").judge(&["localhost", "localhost"], &[]), Err(Refused::Host));
    }

    #[test]
    fn only_our_own_pages_and_those_allowed_may_call() {
        let judge = |origin| edge("127.0.0.1").judge(&["localhost:12008"], &[origin]);
        for origin in [
            "http://localhost:12008",
            "http://127.0.0.1:12008",
            "http://[::1]:12008",
            "https://mcp.example.com",
            "https://tool.example",
            "HTTPS://TOOL.EXAMPLE",
        ] {
            assert_eq!(judge(origin), Ok(()), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://localhost:1",
            "http://localhost",
            "http://evil.example",
            "http://tool.example",
            "https://tool.example:444",
            "https://tool.example/x",
            "file://localhost:12008",
        ] {
            assert_eq!(judge(origin), Err(Refused::Origin), "{origin}");
        }
        let two = ["http://localhost:12008", "http://localhost:12008"];
        assert_eq!(edge("127.0.0.1").judge(&["localhost:12008"], &two), Err(Refused::Origin));
    }
}
