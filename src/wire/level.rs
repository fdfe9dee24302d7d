//! How grave a log message is (server utilities, "Logging"; RFC 5424, section 6.2.1).

use serde::{Deserialize, Serialize};

use super::{Frame, message};

/// The levels of syslog, the most verbose first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Level {
    /// The level that a `logging/setLevel` asks for, or that a `notifications/message` has. `None`
    /// where it is no level.
    pub fn of(frame: &Frame) -> Option<Self> {
        #[derive(Deserialize)]
        struct Message {
            params: Params,
        }
        #[derive(Deserialize)]
        struct Params {
            level: Level,
        }
        let message: Message = serde_json::from_slice(frame.bytes()).ok()?;
        Some(message.params.level)
    }

    /// A `logging/setLevel` with this id.
    pub fn request(self, id: u64) -> bytes::Bytes {
        // A word cannot fail to be written.
        let word = serde_json::to_string(&self).unwrap_or_default();
        let params = format!(r#"{{"level":{word}}}"#);
        message::request(id, "logging/setLevel", params.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn levels_are_those_of_syslog_in_its_order() {
        let words =
            ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
        let levels: Vec<Level> = words
            .iter()
            .map(|word| {
                let text = format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{word}","data":1}}}}"#
                );
                Level::of(&Frame::parse(text.into(), 8).unwrap()).unwrap()
            })
            .collect();
        assert!(levels.is_sorted());
        for level in levels {
            let request = Frame::parse(level.request(1), 8).unwrap();
            assert_eq!(Level::of(&request), Some(level));
        }
    }

    #[test]
    fn what_is_no_level_is_none() {
        for params in [r#"{"level":"loud"}"#, r#"{"level":3}"#, "{}", "[]"] {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{params}}}"#
            );
            assert_eq!(Level::of(&Frame::parse(text.into(), 8).unwrap()), None, "{params}");
        }
    }
}
