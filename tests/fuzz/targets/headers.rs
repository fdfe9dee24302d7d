//! What stands in headers: credentials, hosts and origins. The sealed ids of sessions and those of
//! events are held in their own rooms, which alone can make them.

use std::net::{IpAddr, Ipv4Addr};

use metamcpd::{
    access::{Offered, Presented, credential as present},
    endpoint::edge::Edge,
};

/// The bytes are the values of the four places, a line each; an empty one is absent.
pub fn credential(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n').map(|line| (!line.is_empty()).then_some(line));
    let mut next = || lines.next().flatten();
    let offered = Offered {
        x_api_key: next(),
        authorization: next(),
        query_api_key: next(),
        query_apikey: next(),
    };
    for query_allowed in [false, true] {
        let bearer = offered.authorization.and_then(|value| {
            let value = value.trim_start();
            let (scheme, token) = value.split_at(value.find([' ', '\t'])?);
            (scheme.to_lowercase() == "bearer").then_some(token)
        });
        let mut found = vec![offered.x_api_key, bearer];
        if query_allowed {
            found.extend([offered.query_api_key, offered.query_apikey]);
        }
        let mut keys: Vec<&str> =
            found.into_iter().flatten().map(str::trim).filter(|key| !key.is_empty()).collect();
        keys.dedup();
        let is_right = match present(&offered, query_allowed) {
            Presented::Nothing => keys.is_empty(),
            Presented::Key(key) => keys == [key],
            Presented::Bad => keys.len() > 1,
        };
        assert!(is_right, "{text:?}");
    }
}

/// The bytes are a host and an origin, a line each.
pub fn edge(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (host, origin) = text.split_once('\n').unwrap_or((&text, ""));
    let edge = |bind: Ipv4Addr| {
        let (hosts, origins) = (["gateway.lan".to_owned()], ["https://tool.example".to_owned()]);
        Edge::new(IpAddr::V4(bind), "https://mcp.example/x", &hosts, &origins)
    };
    let home = edge(Ipv4Addr::LOCALHOST);
    assert!(home.judge(&[], &[]).is_err() && home.judge(&[host, host], &[]).is_err());
    let is_ours = home.judge(&[host], &[]).is_ok();
    if is_ours {
        // Whoever listens more widely is found by at least as many names.
        assert!(edge(Ipv4Addr::UNSPECIFIED).judge(&[host], &[]).is_ok(), "{host}");
        let ends = ["localhost", "gateway.lan", "mcp.example", "]"];
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_lowercase();
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'.');
        if is_plain {
            let name = name.trim_end_matches('.');
            assert!(ends.contains(&name), "{host}");
        }
    }
    if home.judge(&[host], &[origin]).is_ok() {
        assert!(is_ours, "{text}");
        let known = ["https://tool.example", "https://mcp.example"];
        let is_web =
            ["http://", "https://"].iter().any(|scheme| origin.to_lowercase().starts_with(scheme));
        assert!(is_web || known.contains(&origin), "{text}");
        // A page elsewhere never gains anything by what follows our name in its own.
        assert!(home.judge(&[host], &[&format!("{origin}.evil.example")]).is_err(), "{text}");
    }
}
