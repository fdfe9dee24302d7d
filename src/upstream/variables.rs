//! `${VAR}` and `${VAR:-default}` in an upstream's environment, headers, token and URL.
//!
//! Arguments are left alone: a process's argv can be read by every user of the host.

use super::reason::Reason;

/// Why a text could not be resolved.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error(
        "the variable `{name}` is not set in the daemon's environment; set it, or write `${{{name}:-default}}`"
    )]
    Missing { name: String },
    #[error("`{name}` belongs to metamcpd itself and is not given to upstreams")]
    Ours { name: String },
    #[error("`${{` has no closing `}}`")]
    Unclosed,
    #[error("variables are resolved only for upstreams that the operator owns")]
    NotAllowed,
}

impl Unresolved {
    /// How operators are told.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Missing { .. } => Reason::VariableMissing,
            Self::Ours { .. } | Self::Unclosed | Self::NotAllowed => Reason::ConfigInvalid,
        }
    }
}

/// The text with every reference replaced by what `look_up` finds.
pub fn resolve(
    text: &str,
    allowed: bool,
    look_up: impl Fn(&str) -> Option<String>,
) -> Result<String, Unresolved> {
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if !allowed {
            return Err(Unresolved::NotAllowed);
        }
        resolved.push_str(&rest[..start]);
        let (reference, after) = rest[start + 2..].split_once('}').ok_or(Unresolved::Unclosed)?;
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if name.starts_with("METAMCPD_") {
            return Err(Unresolved::Ours { name: name.into() });
        }
        let value = look_up(name).or_else(|| default.map(String::from));
        resolved.push_str(&value.ok_or_else(|| Unresolved::Missing { name: name.into() })?);
        rest = after;
    }
    resolved.push_str(rest);
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_home(text: &str) -> Result<String, Unresolved> {
        resolve(text, true, |name| (name == "HOME").then(|| "/home/a".into()))
    }

    #[test]
    fn references_are_replaced_wherever_they_stand_and_other_text_is_kept() {
        for (text, resolved) in [
            ("", ""),
            ("plain $HOME {HOME}", "plain $HOME {HOME}"),
            ("${HOME}", "/home/a"),
            ("a${HOME}b${HOME}c", "a/home/ab/home/ac"),
            ("${NONE:-x}${HOME:-y}", "x/home/a"),
            ("${NONE:-}", ""),
        ] {
            assert_eq!(with_home(text).as_deref(), Ok(resolved), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named_and_our_own_settings_stay_ours() {
        assert_eq!(with_home("${NONE}"), Err(Unresolved::Missing { name: "NONE".into() }));
        assert_eq!(with_home("${HOME"), Err(Unresolved::Unclosed));
        let ours = "METAMCPD_ADMIN_KEY";
        assert_eq!(
            with_home(&format!("${{{ours}:-x}}")),
            Err(Unresolved::Ours { name: ours.into() })
        );
        assert_eq!(resolve("${HOME}", false, |_| None), Err(Unresolved::NotAllowed));
        assert_eq!(resolve("plain", false, |_| None).as_deref(), Ok("plain"));
    }
}
