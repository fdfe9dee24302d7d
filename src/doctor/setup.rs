//! What can be said of the settings and of the data directory by looking at them.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use super::finding::Finding;
use crate::{
    data_dir::{self, Use},
    settings::Settings,
};

/// Settings that are good one by one and dangerous or useless together.
pub fn settings(settings: &Settings) -> Vec<Finding> {
    const ABOUT: &str = "settings";
    let (server, calls) = (&settings.server, &settings.calls);
    let mut found = Vec::new();
    if !server.bind.ip().is_loopback() && server.public_url.is_empty() {
        found.push(Finding::warning(
            ABOUT,
            format!("listens on {}, beyond this host, without `server.public_url`", server.bind),
            "set server.public_url to the URL that clients use, or bind to 127.0.0.1",
        ));
    }
    if is_clear_text_abroad(&server.public_url) {
        found.push(Finding::warning(
            ABOUT,
            format!("`server.public_url` is {}: keys travel in clear", server.public_url),
            "put a proxy with TLS in front, and name its https URL",
        ));
    }
    if settings.metrics.open && !server.bind.ip().is_loopback() {
        found.push(Finding::warning(
            ABOUT,
            "`metrics.open` shows the names of upstreams to everyone who reaches the port",
            "unset metrics.open, and give Prometheus an admin key",
        ));
    }
    if calls.total < calls.timeout {
        found.push(Finding::warning(
            ABOUT,
            "`calls.total` is shorter than `calls.timeout`, which then never counts",
            "make calls.total the longer one",
        ));
    }
    if found.is_empty() {
        found.push(Finding::ok(ABOUT, "readable, and nothing in them contradicts"));
    }
    found
}

/// What the kernel cannot enforce of the profile `STRICT`.
pub fn kernel(has_landlock: bool) -> Option<Finding> {
    let what =
        "has no Landlock: STDIO servers of the profile STRICT are not kept from the daemon's data";
    let cure = "none is needed without such servers; else boot a kernel of 5.13 or later with lsm=landlock";
    (!has_landlock).then(|| Finding::warning("kernel", what, cure))
}

fn is_clear_text_abroad(public_url: &str) -> bool {
    let Ok(url) = url::Url::parse(public_url) else { return false };
    let is_here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => true,
    };
    url.scheme() == "http" && !is_here
}

/// The directory: whether it is there, whose it is, and whether a daemon has it.
pub fn data_directory(path: &Path) -> (Vec<Finding>, Option<Use>) {
    const ABOUT: &str = "data directory";
    let shown = path.display();
    let mode = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata.permissions().mode(),
        Ok(_) => {
            let cure = "name a directory by --data-dir";
            return (vec![Finding::error(ABOUT, format!("{shown} is no directory"), cure)], None);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let cure = "nothing, if there was never a start; else name the right one by --data-dir";
            let what = format!("{shown} does not exist; the first start makes it");
            return (vec![Finding::warning(ABOUT, what, cure)], None);
        }
        Err(error) => {
            let cure = "let the user that runs metamcpd read and write it";
            return (vec![Finding::error(ABOUT, format!("{shown}: {error}"), cure)], None);
        }
    };
    let mut found = Vec::new();
    if mode & 0o022 != 0 {
        let what = format!("others than its owner may write in {shown}");
        found.push(Finding::error(ABOUT, what, format!("chmod 700 {shown}")));
    }
    let key = path.join("secret.key");
    if fs::metadata(&key).is_ok_and(|key| key.permissions().mode() & 0o077 != 0) {
        let what = format!("others than its owner may read {}", key.display());
        let cure = format!("chmod 600 {}, and renew the secrets of upstreams", key.display());
        found.push(Finding::error(ABOUT, what, cure));
    }
    let usage = match data_dir::used(path) {
        Ok(usage) => Some(usage),
        Err(error) => {
            let cure = "run doctor as the user that runs metamcpd";
            found.push(Finding::error(ABOUT, format!("{shown}: {error}"), cure));
            None
        }
    };
    if found.is_empty() {
        found.push(Finding::ok(ABOUT, format!("{shown}, its owner's alone")));
    }
    (found, usage)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::doctor::finding::{Severity, worst};

    #[test]
    fn a_kernel_that_cannot_confine_is_found() {
        assert!(kernel(true).is_none());
        assert!(kernel(false).is_some_and(|finding| finding.severity == Severity::Warning));
    }

    #[test]
    fn settings_that_do_not_go_together_are_found() {
        let plain = Settings::read(None).unwrap();
        assert_eq!(worst(&settings(&plain)), Severity::Ok);
        type Change = fn(&mut Settings);
        let cases: [(&str, Change); 5] = [
            ("server.public_url", |it| it.server.bind = ([0, 0, 0, 0], 1).into()),
            ("in clear", |it| it.server.public_url = "http://gateway.example".into()),
            ("in clear", |it| it.server.public_url = "http://10.0.0.1/mcp".into()),
            ("metrics.open", |it| {
                it.server.bind = ([10, 0, 0, 1], 1).into();
                it.server.public_url = "https://gateway.example".into();
                it.metrics.open = true;
            }),
            ("calls.total", |it| it.calls.total = std::time::Duration::from_secs(1)),
        ];
        for (word, change) in cases {
            let mut changed = plain.clone();
            change(&mut changed);
            let found = settings(&changed);
            assert_eq!(worst(&found), Severity::Warning, "{word}");
            assert!(found.iter().any(|finding| finding.what.contains(word)), "{word}: {found:?}");
        }
    }

    #[test]
    fn loopback_needs_no_tls() {
        for (url, abroad) in [
            ("", false),
            ("http://localhost:1/x", false),
            ("http://127.0.0.1:1", false),
            ("http://[::1]", false),
            ("https://gateway.example", false),
            ("http://gateway.example", true),
        ] {
            assert_eq!(is_clear_text_abroad(url), abroad, "{url}");
        }
    }

    #[test]
    fn a_directory_that_others_may_write_is_found() {
        let place = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(place.path(), 0o700);
        let (found, usage) = data_directory(place.path());
        assert_eq!((worst(&found), usage), (Severity::Ok, Some(Use::Free)));
        let held = data_dir::DataDir::open(place.path()).unwrap();
        assert_eq!(data_directory(place.path()).1, Some(Use::Held));
        drop(held);

        let key = place.path().join("secret.key");
        fs::write(&key, "x").unwrap();
        set(&key, 0o644);
        assert_eq!(worst(&data_directory(place.path()).0), Severity::Error);
        set(&key, 0o600);
        set(place.path(), 0o770);
        assert_eq!(worst(&data_directory(place.path()).0), Severity::Error);
        assert_eq!(worst(&data_directory(&place.path().join("none")).0), Severity::Warning);
        assert_eq!(worst(&data_directory(&key).0), Severity::Error);
    }
}
