//! Which profile a client has by itself, from what it says that it is in `initialize` (`clientInfo`).
//!
//! A client that is not known here has `raw`: what nobody knows to be harmful is not changed. No fact that
//! is known depends on a client's version, so that the name decides.

use super::Profile;

/// The beginning of a name, in small letters, and the profile. The first that matches counts. A client
/// that hands tools to models of several makers has what all of them take.
const CLIENTS: &[(&str, Profile)] = &[
    ("claude", Profile::Claude),
    ("anthropic", Profile::Claude),
    ("visual studio code", Profile::VsCode),
    ("vscode", Profile::VsCode),
    ("github-copilot", Profile::VsCode),
    ("github copilot", Profile::VsCode),
    ("copilot", Profile::VsCode),
    ("gemini", Profile::Gemini),
    ("codex", Profile::OpenAi),
    ("openai", Profile::OpenAi),
    ("chatgpt", Profile::OpenAi),
    ("cursor", Profile::StrictCommon),
    ("windsurf", Profile::StrictCommon),
    ("cline", Profile::StrictCommon),
    ("roo", Profile::StrictCommon),
    ("kilo", Profile::StrictCommon),
    ("opencode", Profile::StrictCommon),
    ("zed", Profile::StrictCommon),
    ("continue", Profile::StrictCommon),
    ("librechat", Profile::StrictCommon),
];

/// The profile of a client of this name.
pub fn profile_of(name: &str) -> Profile {
    let name = name.trim().to_lowercase();
    let known = CLIENTS.iter().find(|(beginning, _)| name.starts_with(beginning));
    known.map_or(Profile::Raw, |(_, profile)| *profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_the_beginning_of_its_name() {
        for (name, profile) in [
            ("claude-code", Profile::Claude),
            ("claude-ai", Profile::Claude),
            ("Anthropic/ClaudeAI", Profile::Claude),
            ("Visual Studio Code", Profile::VsCode),
            ("Visual Studio Code - Insiders", Profile::VsCode),
            ("gemini-cli-mcp-client", Profile::Gemini),
            ("codex-mcp-client", Profile::OpenAi),
            ("openai-mcp", Profile::OpenAi),
            ("cursor-vscode", Profile::StrictCommon),
            (" Zed", Profile::StrictCommon),
            ("typescript-peer", Profile::Raw),
            ("my-claude", Profile::Raw),
            ("", Profile::Raw),
        ] {
            assert_eq!(profile_of(name), profile, "{name:?}");
        }
    }

    #[test]
    fn no_line_of_the_table_is_hidden_by_an_earlier_one() {
        for (name, profile) in CLIENTS {
            assert_eq!(profile_of(name), *profile, "{name}");
            assert_eq!(*name, name.to_lowercase());
        }
    }
}
