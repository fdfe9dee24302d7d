//! The revisions of MCP that are negotiated by `initialize`.

/// The revisions of the legacy era that both faces speak, oldest first.
pub const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// What we offer, and answer to a client that asks for a revision we do not know.
pub const LATEST_LEGACY: &str = LEGACY[3];

/// The known revision with this name, if there is one.
pub fn legacy(version: &str) -> Option<&'static str> {
    LEGACY.into_iter().find(|known| *known == version)
}

/// What a server answers to `initialize`: the client's revision if it is known, else the latest.
pub fn negotiate(requested: &str) -> &'static str {
    legacy(requested).unwrap_or(LATEST_LEGACY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_revision_is_agreed_to_and_an_unknown_one_answered_with_the_latest() {
        for version in LEGACY {
            assert_eq!(negotiate(version), version);
        }
        for version in ["2026-07-28", "1999-01-01", ""] {
            assert_eq!(negotiate(version), LATEST_LEGACY);
        }
    }
}
