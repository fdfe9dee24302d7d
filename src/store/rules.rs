//! What names may be, and how a value that may not be is reported.
//!
//! Parsing is the check: whoever holds a `ServerName` holds a good one. The same rules stand as
//! constraints in the migration, for writers that do not come by here.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// One field that is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The field's name; a part of it in the manner of `env.TOKEN` or `servers[2].server`.
    pub field: String,
    pub reason: String,
    /// What would have been accepted.
    pub accepted: Option<String>,
}

/// The name of a server: what its tools' names begin with, so that it holds no `__`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerName(String);

/// The name of a namespace or of an endpoint: a segment of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

/// The name of an API key: any text for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyName(String);

const NAME_MAX: usize = 100;
const NAME_ACCEPTED: &str = "1 to 100 letters, digits, `_` and `-`; not a uuid";
const SERVER_NAME_ACCEPTED: &str =
    "1 to 100 letters, digits, `_` and `-`; no two `_` in a row; not a uuid";
const KEY_NAME_ACCEPTED: &str = "1 to 100 characters without control characters; not a uuid";

impl ServerName {
    pub fn parse(text: &str) -> Result<ServerName, Problem> {
        let reason = match refuse_name(text) {
            None if text.contains("__") => Some("`__` separates a server's name from a tool's"),
            other => other,
        };
        match reason {
            None => Ok(ServerName(text.to_owned())),
            Some(reason) => Err(Problem::new("name", reason).accepted(SERVER_NAME_ACCEPTED)),
        }
    }
}

impl Name {
    pub fn parse(text: &str) -> Result<Name, Problem> {
        match refuse_name(text) {
            None => Ok(Name(text.to_owned())),
            Some(reason) => Err(Problem::new("name", reason).accepted(NAME_ACCEPTED)),
        }
    }
}

impl KeyName {
    pub fn parse(text: &str) -> Result<KeyName, Problem> {
        let reason = if text.trim().is_empty() {
            "empty"
        } else if text.chars().count() > NAME_MAX {
            "too long"
        } else if text.chars().any(char::is_control) {
            "holds a control character"
        } else if Uuid::try_parse(text).is_ok() {
            "reads as a uuid"
        } else {
            return Ok(KeyName(text.to_owned()));
        };
        Err(Problem::new("name", reason).accepted(KEY_NAME_ACCEPTED))
    }
}

impl Problem {
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Problem {
        Problem { field: field.into(), reason: reason.into(), accepted: None }
    }

    pub fn accepted(mut self, accepted: impl Into<String>) -> Problem {
        self.accepted = Some(accepted.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.reason)?;
        match &self.accepted {
            Some(accepted) => write!(formatter, " (accepted: {accepted})"),
            None => Ok(()),
        }
    }
}

/// A text that a person wrote: PostgreSQL keeps no NUL, so neither database gets one.
pub(super) fn refuse_nul(field: &str, text: Option<&str>) -> Option<Problem> {
    text.filter(|text| text.contains('\0'))
        .map(|_| Problem::new(field, "holds a NUL character").accepted("text"))
}

/// A text that came from outside, in a form that both databases can keep.
pub(super) fn keepable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn refuse_name(text: &str) -> Option<&'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if text.is_empty() {
        Some("empty")
    } else if text.len() > NAME_MAX {
        Some("too long")
    } else if !text.bytes().all(is_allowed) {
        Some("holds a character that is not allowed")
    } else if Uuid::try_parse(text).is_ok() {
        Some("reads as a uuid")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_digits_underscore_and_hyphen() {
        for good in ["a", "A-b_9", "_", "-", "a_b", &"x".repeat(100)] {
            assert!(Name::parse(good).is_ok(), "{good}");
            assert!(ServerName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", " ", "a b", "a.b", "a/b", "ä", "a\n", "a\0", &"x".repeat(101)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
            assert!(ServerName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_server_is_refused_two_underscores() {
        assert!(ServerName::parse("a__b").is_err());
        assert!(Name::parse("a__b").is_ok());
    }

    #[test]
    fn a_name_that_reads_as_a_uuid_is_refused() {
        for uuid in ["01890000-0000-7000-8000-000000000000", "01890000000070008000000000000000"] {
            assert!(Name::parse(uuid).is_err(), "{uuid}");
            assert!(ServerName::parse(uuid).is_err(), "{uuid}");
            assert!(KeyName::parse(uuid).is_err(), "{uuid}");
        }
    }

    #[test]
    fn the_name_of_a_key_is_any_text_for_people() {
        for good in ["laptop of Jörg", "ci (nightly)", &"ü".repeat(100)] {
            assert!(KeyName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "  ", "a\nb", &"ü".repeat(101)] {
            assert!(KeyName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_problem_says_what_would_have_been_accepted() {
        let problem = ServerName::parse("a__b").err().map(|problem| problem.to_string());
        assert_eq!(
            problem.as_deref(),
            Some(
                "name: `__` separates a server's name from a tool's (accepted: 1 to 100 letters, \
                 digits, `_` and `-`; no two `_` in a row; not a uuid)"
            )
        );
    }
}
