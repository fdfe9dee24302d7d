//! What holds where a row is silent, and what of it the table `config` overrides at run time.
//!
//! Pure: settings and rows in, values out. The keys and their ranges are MetaMCP's, so that what
//! people have written there goes on to mean the same. A row that means nothing is ignored and named,
//! never obeyed half and never a reason not to start.

use std::{collections::BTreeMap, time::Duration};

/// A day: the longest that MetaMCP lets any of these be.
const MILLIS_MAX: u64 = 86_400_000;

/// A key of the table that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    DisableBasicAuth,
    DisableSignup,
    DisableSsoSignup,
    McpMaxAttempts,
    McpMaxTotalTimeout,
    McpResetTimeoutOnProgress,
    McpTimeout,
    SessionLifetime,
}

/// What a key is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    Count(u64),
    Millis(u64),
}

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Bool,
    Count { min: u64, max: u64 },
    Millis { min: u64, max: u64 },
}

/// The values of all keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    pub disable_basic_auth: bool,
    pub disable_signup: bool,
    pub disable_sso_signup: bool,
    /// So many failures within the windows of `[supervision]` make an upstream CRASHED.
    pub max_attempts: u64,
    pub call_total: Duration,
    pub reset_on_progress: bool,
    pub call_timeout: Duration,
    pub session_lifetime: Duration,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `default.toml`, the file of settings or the environment.
    Settings,
    /// The table.
    Config,
}

/// A row that is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    pub key: String,
    pub value: String,
    pub reason: String,
}

/// What holds now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeSettings {
    pub values: Values,
    defaults: Values,
    overridden: Vec<Key>,
    pub ignored: Vec<Ignored>,
}

impl Key {
    /// By name.
    pub const ALL: [Key; 8] = [
        Key::DisableBasicAuth,
        Key::DisableSignup,
        Key::DisableSsoSignup,
        Key::McpMaxAttempts,
        Key::McpMaxTotalTimeout,
        Key::McpResetTimeoutOnProgress,
        Key::McpTimeout,
        Key::SessionLifetime,
    ];

    pub fn parse(name: &str) -> Option<Key> {
        Key::ALL.into_iter().find(|key| key.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Key::DisableBasicAuth => "DISABLE_BASIC_AUTH",
            Key::DisableSignup => "DISABLE_SIGNUP",
            Key::DisableSsoSignup => "DISABLE_SSO_SIGNUP",
            Key::McpMaxAttempts => "MCP_MAX_ATTEMPTS",
            Key::McpMaxTotalTimeout => "MCP_MAX_TOTAL_TIMEOUT",
            Key::McpResetTimeoutOnProgress => "MCP_RESET_TIMEOUT_ON_PROGRESS",
            Key::McpTimeout => "MCP_TIMEOUT",
            Key::SessionLifetime => "SESSION_LIFETIME",
        }
    }

    /// What it is for.
    pub fn meaning(self) -> &'static str {
        match self {
            Key::DisableBasicAuth => "whether nobody logs in with a password",
            Key::DisableSignup => "whether nobody makes an account with a password",
            Key::DisableSsoSignup => "whether nobody makes an account by single sign-on",
            Key::McpMaxAttempts => {
                "so many failures within the windows of [supervision] make an upstream CRASHED"
            }
            Key::McpMaxTotalTimeout => "how long a call may take in all",
            Key::McpResetTimeoutOnProgress => "whether progress begins MCP_TIMEOUT anew",
            Key::McpTimeout => "how long a call may go without a sign of life",
            Key::SessionLifetime => "how old a client's session may become",
        }
    }

    /// The setting that its default comes from; `None` where there is none yet.
    pub fn setting(self) -> Option<&'static str> {
        match self {
            Key::DisableBasicAuth | Key::DisableSignup | Key::DisableSsoSignup => None,
            Key::McpMaxAttempts => Some("supervision.failures_burst"),
            Key::McpMaxTotalTimeout => Some("calls.total"),
            Key::McpResetTimeoutOnProgress => Some("calls.reset_on_progress"),
            Key::McpTimeout => Some("calls.timeout"),
            Key::SessionLifetime => Some("sessions.lifetime"),
        }
    }

    /// Whether something in this version goes by it.
    pub fn is_in_use(self) -> bool {
        self.setting().is_some()
    }

    pub fn unit(self) -> &'static str {
        match self.takes() {
            Takes::Bool => "boolean",
            Takes::Count { .. } => "count",
            Takes::Millis { .. } => "milliseconds",
        }
    }

    /// The values that it takes, for people.
    pub fn accepted(self) -> String {
        match self.takes() {
            Takes::Bool => "true or false; null for the default".to_owned(),
            Takes::Count { min, max } => format!("{min} to {max}; null for the default"),
            Takes::Millis { min, max } => {
                format!("{min} to {max} milliseconds; null for the default")
            }
        }
    }

    /// What a text means for this key.
    ///
    /// # Errors
    /// Why it means nothing.
    pub fn read(self, text: &str) -> Result<Value, &'static str> {
        let number = |min, max| match text.parse::<u64>() {
            // No sign, no leading zero, no blank: what is written back is what was read.
            Ok(number) if number.to_string() != text => Err("not a whole number in plain digits"),
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            Ok(_) => Err("out of range"),
            Err(_) => Err("not a whole number in plain digits"),
        };
        match self.takes() {
            Takes::Bool => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err("neither true nor false"),
            },
            Takes::Count { min, max } => number(min, max).map(Value::Count),
            Takes::Millis { min, max } => number(min, max).map(Value::Millis),
        }
    }

    fn takes(self) -> Takes {
        match self {
            Key::DisableBasicAuth
            | Key::DisableSignup
            | Key::DisableSsoSignup
            | Key::McpResetTimeoutOnProgress => Takes::Bool,
            Key::McpMaxAttempts => Takes::Count { min: 1, max: 10 },
            Key::McpMaxTotalTimeout | Key::McpTimeout => {
                Takes::Millis { min: 1_000, max: MILLIS_MAX }
            }
            Key::SessionLifetime => Takes::Millis { min: 300_000, max: MILLIS_MAX },
        }
    }
}

impl Value {
    /// As the table holds it.
    pub fn text(self) -> String {
        match self {
            Value::Bool(is_so) => is_so.to_string(),
            Value::Count(number) | Value::Millis(number) => number.to_string(),
        }
    }
}

impl Values {
    pub fn get(&self, key: Key) -> Value {
        let millis = |duration: Duration| {
            Value::Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
        };
        match key {
            Key::DisableBasicAuth => Value::Bool(self.disable_basic_auth),
            Key::DisableSignup => Value::Bool(self.disable_signup),
            Key::DisableSsoSignup => Value::Bool(self.disable_sso_signup),
            Key::McpMaxAttempts => Value::Count(self.max_attempts),
            Key::McpMaxTotalTimeout => millis(self.call_total),
            Key::McpResetTimeoutOnProgress => Value::Bool(self.reset_on_progress),
            Key::McpTimeout => millis(self.call_timeout),
            Key::SessionLifetime => millis(self.session_lifetime),
        }
    }

    /// `value` is of the kind that the key takes, as [`Key::read`] made it.
    fn set(&mut self, key: Key, value: Value) {
        let (is_so, number) = match value {
            Value::Bool(is_so) => (is_so, 0),
            Value::Count(number) | Value::Millis(number) => (false, number),
        };
        let duration = Duration::from_millis(number);
        match key {
            Key::DisableBasicAuth => self.disable_basic_auth = is_so,
            Key::DisableSignup => self.disable_signup = is_so,
            Key::DisableSsoSignup => self.disable_sso_signup = is_so,
            Key::McpMaxAttempts => self.max_attempts = number,
            Key::McpMaxTotalTimeout => self.call_total = duration,
            Key::McpResetTimeoutOnProgress => self.reset_on_progress = is_so,
            Key::McpTimeout => self.call_timeout = duration,
            Key::SessionLifetime => self.session_lifetime = duration,
        }
    }
}

impl RuntimeSettings {
    /// `rows`: the texts of the table, by key.
    pub fn new<'a>(
        defaults: Values,
        rows: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> RuntimeSettings {
        let rows: BTreeMap<&str, &str> = rows.into_iter().collect();
        let (mut values, mut overridden, mut ignored) = (defaults, Vec::new(), Vec::new());
        for (name, text) in rows {
            if is_internal(name) {
                continue;
            }
            let read = Key::parse(name).ok_or("no key of ours").and_then(|key| {
                let value = key.read(text)?;
                Ok((key, value))
            });
            match read {
                Ok((key, value)) => {
                    values.set(key, value);
                    overridden.push(key);
                }
                Err(reason) => {
                    let (key, value, reason) = (name.into(), text.into(), reason.into());
                    ignored.push(Ignored { key, value, reason });
                }
            }
        }
        RuntimeSettings { values, defaults, overridden, ignored }
    }

    pub fn value(&self, key: Key) -> Value {
        self.values.get(key)
    }

    pub fn defaults(&self) -> Values {
        self.defaults
    }

    pub fn default(&self, key: Key) -> Value {
        self.defaults.get(key)
    }

    pub fn source(&self, key: Key) -> Source {
        match self.overridden.contains(&key) {
            true => Source::Config,
            false => Source::Settings,
        }
    }

    /// The row of this key, if there is one that is not obeyed.
    pub fn ignored(&self, key: &str) -> Option<&Ignored> {
        self.ignored.iter().find(|ignored| ignored.key == key)
    }
}

/// Whether MetaMCP keeps a key for itself. Such rows are left alone: one of them holds the fingerprint
/// of a password, so that they are not shown either.
pub fn is_internal(name: &str) -> bool {
    name.starts_with("BOOTSTRAP_")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const DEFAULTS: Values = Values {
        disable_basic_auth: false,
        disable_signup: false,
        disable_sso_signup: false,
        max_attempts: 6,
        call_total: Duration::from_secs(600),
        reset_on_progress: true,
        call_timeout: Duration::from_secs(60),
        session_lifetime: Duration::from_secs(86_400),
    };

    #[test]
    fn a_key_takes_what_metamcp_lets_it_be_and_nothing_else() {
        let table: [(Key, &[&str], &[&str]); 5] = [
            (Key::McpTimeout, &["1000", "86400000"], &["999", "86400001", "", " 1000", "1e4"]),
            (Key::McpMaxTotalTimeout, &["1000", "86400000"], &["0", "-1000", "01000", "+1000"]),
            (Key::McpMaxAttempts, &["1", "10"], &["0", "11", "one", "99999999999999999999"]),
            (Key::SessionLifetime, &["300000", "86400000"], &["299999", "86400001", "null"]),
            (Key::McpResetTimeoutOnProgress, &["true", "false"], &["TRUE", "1", "yes", ""]),
        ];
        for (key, good, bad) in table {
            for text in good {
                assert_eq!(key.read(text).unwrap().text(), *text, "{key:?}");
            }
            for text in bad {
                assert!(key.read(text).is_err(), "{key:?} {text:?}");
            }
        }
    }

    #[test]
    fn a_row_overrides_the_settings_of_its_key_alone() {
        for key in Key::ALL {
            let default = DEFAULTS.get(key);
            let other = match key.takes() {
                Takes::Bool => (default.text() != "true").to_string(),
                Takes::Count { max, .. } => max.to_string(),
                Takes::Millis { min, .. } => min.to_string(),
            };
            let runtime = RuntimeSettings::new(DEFAULTS, [(key.name(), &*other)]);
            assert_eq!(runtime.ignored, []);
            for each in Key::ALL {
                let (text, source) = match each == key {
                    true => (other.clone(), Source::Config),
                    false => (DEFAULTS.get(each).text(), Source::Settings),
                };
                let found = (runtime.value(each).text(), runtime.source(each));
                assert_eq!(found, (text, source), "{key:?} {each:?}");
                assert_eq!(runtime.default(each), DEFAULTS.get(each));
            }
        }
    }

    #[test]
    fn a_row_that_means_nothing_is_named_and_ignored() {
        let rows = [
            ("MCP_TIMEOUT", "soon"),
            ("MCP_MAX_ATTEMPTS", "2"),
            ("NO_SUCH_KEY", "1"),
            ("BOOTSTRAP_COMPLETE", "true"),
        ];
        let runtime = RuntimeSettings::new(DEFAULTS, rows);
        assert_eq!(runtime.values, Values { max_attempts: 2, ..DEFAULTS });
        let named: Vec<&str> = runtime.ignored.iter().map(|row| &*row.key).collect();
        assert_eq!(named, ["MCP_TIMEOUT", "NO_SUCH_KEY"]);
        assert_eq!(runtime.ignored("MCP_TIMEOUT").unwrap().value, "soon");
        assert_eq!(runtime.source(Key::McpTimeout), Source::Settings);
    }

    #[test]
    fn keys_are_told_by_their_names() {
        for key in Key::ALL {
            assert_eq!(Key::parse(key.name()), Some(key));
        }
        assert_eq!(Key::parse("mcp_timeout"), None);
        let names = Key::ALL.map(Key::name);
        assert!(names.is_sorted(), "the list is by name");
    }
}
