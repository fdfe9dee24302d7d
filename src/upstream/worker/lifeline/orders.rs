//! What a shim is told besides the program: one word of its command line.

use serde::{Deserialize, Serialize};

use super::{confinement::Confinement, containers::Container};

/// How a server is treated beside the daemon (`upstream.children` in the settings).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChildOptions {
    /// How far servers stand back for others who want the processor, 0 to 19.
    pub niceness: i32,
    /// How much rather the kernel ends a server than the daemon when memory is short, 0 to 1000.
    pub oom_score_adj: i32,
}

/// One shim's orders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    pub treatment: ChildOptions,
    /// What it may not do, where it is confined.
    pub confinement: Option<Confinement>,
    /// The container that has to end with the server.
    pub container: Option<Container>,
}

impl Orders {
    pub fn to_word(&self) -> String {
        // It has no map with odd keys and nothing that could fail, so there is always a text.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn from_word(word: &str) -> Option<Orders> {
        serde_json::from_str(word).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_their_word() {
        let container = Container {
            client: "docker".into(),
            options: vec!["--context".into(), "a b\"".into()],
            label: "metamcpd.start=x/1".into(),
            is_removed: true,
        };
        let treatment = ChildOptions { niceness: 5, oom_score_adj: 500 };
        for orders in [
            Orders::default(),
            Orders { treatment, container: Some(container), ..Orders::default() },
        ] {
            assert_eq!(Orders::from_word(&orders.to_word()), Some(orders));
        }
        assert_eq!(Orders::from_word("/tmp"), None);
    }
}
