//! Decides which variables a STDIO server gets to see, and which words may be passed to it at all.
//!
//! Pure: the daemon's own environment is handed in. It leaves `${VAR}` references to whoever
//! reads the configuration, and the markers of an instance to the spawn.

use std::collections::BTreeMap;

/// Carried by every process that descends from us, so that a later start can find what a killed
/// one left, and never touches the children of another data directory.
pub const INSTANCE_VARIABLE: &str = "METAMCPD_INSTANCE";

/// Names the upstream a process was started for, for whoever reads `ps e`.
pub const UPSTREAM_VARIABLE: &str = "METAMCPD_UPSTREAM";

/// What a program needs in order to find itself, its user and its temporary files.
const PLACE: &[&str] =
    &["HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Where the usual TLS stacks look for certificates: behind a company's own authority, a server
/// without them can reach nothing.
const CERTIFICATES: &[&str] = &[
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "UV_CERT",
    "GIT_SSL_CAINFO",
    "CERT_FILE",
    "REQUESTS_CERT_FILE",
];

const PROXIES: &[&str] = &[
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// A word that cannot be passed to a program, or would mean something else on the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWord {
    #[error("the command is empty")]
    EmptyCommand,
    #[error("the command contains a NUL or a line break")]
    Command,
    /// Counted from 1, as a person counts them.
    #[error("argument {position} contains a NUL or a line break")]
    Argument { position: usize },
    #[error("the environment has a variable without a name")]
    EmptyName,
    #[error("the name of the environment variable {name:?} contains a NUL, a line break or `=`")]
    Name { name: String },
    #[error("the value of the environment variable {name} contains a NUL")]
    Value { name: String },
}

/// The complete environment of a child: the few inherited variables it cannot do without, and
/// what was configured, which wins.
pub fn child_environment(
    parent: impl Iterator<Item = (String, String)>,
    configured: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> =
        parent.filter(|(name, value)| is_passed_on(name) && !is_exported_function(value)).collect();
    environment.extend(configured.iter().map(|(name, value)| (name.clone(), value.clone())));
    environment
}

/// Refuses what the kernel would cut short, or what a log would show as two lines.
pub fn check_words(
    program: &str,
    args: &[String],
    env: &BTreeMap<String, String>,
) -> Result<(), BadWord> {
    if program.is_empty() {
        return Err(BadWord::EmptyCommand);
    }
    if breaks_a_line(program) {
        return Err(BadWord::Command);
    }
    if let Some(index) = args.iter().position(|arg| breaks_a_line(arg)) {
        return Err(BadWord::Argument { position: index + 1 });
    }
    for (name, value) in env {
        if name.is_empty() {
            return Err(BadWord::EmptyName);
        }
        if breaks_a_line(name) || name.contains('=') {
            return Err(BadWord::Name { name: name.clone() });
        }
        // A value may have several lines: certificates and keys do.
        if value.contains('\0') {
            return Err(BadWord::Value { name: name.clone() });
        }
    }
    Ok(())
}

fn is_passed_on(name: &str) -> bool {
    PLACE.contains(&name) || CERTIFICATES.contains(&name) || PROXIES.contains(&name)
}

/// Shells of the past exported functions this way, and run them on reading (CVE-2014-6271).
fn is_exported_function(value: &str) -> bool {
    value.starts_with("()")
}

fn breaks_a_line(word: &str) -> bool {
    word.contains(['\0', '\n', '\r'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn child(parent: &[(&str, &str)], configured: &[(&str, &str)]) -> BTreeMap<String, String> {
        child_environment(variables(parent).into_iter(), &variables(configured))
    }

    #[test]
    fn a_child_inherits_only_what_is_on_the_list() {
        let parent = [
            ("PATH", "/bin"),
            ("HOME", "/home/a"),
            ("https_proxy", "http://proxy"),
            ("NO_PROXY", "localhost"),
            ("NODE_EXTRA_CA_CERTS", "/ca.pem"),
            ("DATABASE_URL", "postgres://secret"),
            ("METAMCPD_ADMIN_KEY", "secret"),
            ("METAMCPD__SERVER__BIND", "0.0.0.0:1"),
            ("LD_PRELOAD", "/evil.so"),
        ];
        let inherited = [
            ("PATH", "/bin"),
            ("HOME", "/home/a"),
            ("https_proxy", "http://proxy"),
            ("NO_PROXY", "localhost"),
            ("NODE_EXTRA_CA_CERTS", "/ca.pem"),
        ];
        assert_eq!(child(&parent, &[]), variables(&inherited));
    }

    #[test]
    fn what_is_configured_wins_over_what_is_inherited() {
        assert_eq!(
            child(&[("PATH", "/bin"), ("TERM", "dumb")], &[("PATH", "/opt"), ("TOKEN", "t")]),
            variables(&[("PATH", "/opt"), ("TERM", "dumb"), ("TOKEN", "t")])
        );
    }

    #[test]
    fn an_exported_function_is_not_inherited() {
        assert_eq!(
            child(&[("TERM", "() { :; }; echo"), ("TZ", "UTC")], &[]),
            variables(&[("TZ", "UTC")])
        );
    }

    #[test]
    fn words_that_the_kernel_would_cut_or_a_log_would_break_are_refused() {
        let check = |program: &str, args: &[&str], env: &[(&str, &str)]| {
            let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
            check_words(program, &args, &variables(env))
        };
        let table = [
            (check("npx", &["-y", "a b", ""], &[("A", "two\nlines")]), Ok(())),
            (check("", &[], &[]), Err(BadWord::EmptyCommand)),
            (check("a\0b", &[], &[]), Err(BadWord::Command)),
            (check("a\nb", &[], &[]), Err(BadWord::Command)),
            (check("a", &["b", "c\0"], &[]), Err(BadWord::Argument { position: 2 })),
            (check("a", &["\r"], &[]), Err(BadWord::Argument { position: 1 })),
            (check("a", &[], &[("", "x")]), Err(BadWord::EmptyName)),
            (check("a", &[], &[("A=B", "x")]), Err(BadWord::Name { name: "A=B".into() })),
            (check("a", &[], &[("A\n", "x")]), Err(BadWord::Name { name: "A\n".into() })),
            (check("a", &[], &[("A", "\0")]), Err(BadWord::Value { name: "A".into() })),
        ];
        for (found, wanted) in table {
            assert_eq!(found, wanted);
        }
    }
}
