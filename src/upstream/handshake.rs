//! What is said before the first call: `initialize`, and what its answer means.

use bytes::Bytes;
use serde::Deserialize;

use super::{Exit, nesting::GATEWAY, reason::Reason};
use crate::{
    catalogue::kind::PerKind,
    wire::{Frame, Topic, capabilities::ClientCapabilities, codes, era},
};

/// What a server said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    pub version: &'static str,
    pub offers: PerKind<Offer>,
    /// What it says of its use.
    pub instructions: Option<String>,
    /// Whether it is a gateway of our kind.
    pub is_gateway: bool,
    /// Whether it can be told which log messages are wanted.
    pub has_logging: bool,
    /// Whether it can be subscribed to resources.
    pub has_subscriptions: bool,
    /// Whether its tools can be called as tasks, as far as each of them says so.
    pub has_tasks: bool,
}

/// What a server said of one kind of things that it may offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    pub is_declared: bool,
    /// Whether it says that it announces changes.
    pub announces: bool,
}

/// The parameters of our `initialize`, where so much may be asked of those that we speak for.
pub fn initialize_params(declared: ClientCapabilities) -> Bytes {
    let params = serde_json::json!({
        "protocolVersion": era::LATEST_LEGACY,
        "capabilities": declared.to_json(),
        "clientInfo": { "name": "metamcpd", "version": env!("CARGO_PKG_VERSION") },
    });
    params.to_string().into()
}

/// Reads the answer to `initialize`.
pub fn introduction(answer: &Frame) -> Result<Introduction, Exit> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct InitializeResult {
        protocol_version: String,
        #[serde(default)]
        capabilities: Capabilities,
        #[serde(default)]
        instructions: serde_json::Value,
        #[serde(default)]
        server_info: ServerInfo,
    }
    #[derive(Default, Deserialize)]
    struct ServerInfo {
        #[serde(default)]
        name: serde_json::Value,
    }
    #[derive(Default, Deserialize)]
    struct Capabilities {
        tools: Option<serde_json::Value>,
        prompts: Option<serde_json::Value>,
        resources: Option<serde_json::Value>,
        logging: Option<serde_json::Value>,
        tasks: Option<serde_json::Value>,
    }

    let failed = |why: String| Exit::new(Reason::HandshakeFailed, why);
    let Some(result) = answer.result() else {
        let error = answer.error().unwrap_or_default();
        if let Some(exit) = incompatible(&error) {
            return Err(exit);
        }
        return Err(failed(format!("`initialize` was refused: {}", excerpt(&error))));
    };
    let result: InitializeResult = serde_json::from_slice(&result)
        .map_err(|error| failed(format!("`initialize` was answered without sense: {error}")))?;
    let version = era::legacy(&result.protocol_version).ok_or_else(|| {
        let theirs = excerpt(result.protocol_version.as_bytes());
        let ours = era::LEGACY.join(", ");
        Exit::new(Reason::Incompatible, format!("it speaks MCP {theirs}; we speak {ours}"))
    })?;
    let Capabilities { tools, prompts, resources, logging, tasks } = result.capabilities;
    let offers = PerKind::of(|kind| {
        let declared = match kind.topic() {
            Topic::Tools => &tools,
            Topic::Prompts => &prompts,
            Topic::Resources => &resources,
        };
        let announces = declared.as_ref().is_some_and(|topic| topic["listChanged"] == true);
        Offer { is_declared: declared.is_some(), announces }
    });
    let instructions = result.instructions.as_str().map(str::to_owned);
    let is_gateway = result.server_info.name == GATEWAY;
    let has_logging = logging.is_some();
    let has_subscriptions = resources.is_some_and(|resources| resources["subscribe"] == true);
    let has_tasks = tasks.is_some_and(|tasks| tasks["requests"]["tools"]["call"].is_object());
    Ok(Introduction {
        version,
        offers,
        instructions,
        is_gateway,
        has_logging,
        has_subscriptions,
        has_tasks,
    })
}

/// Why there is no handshake with whoever answers `initialize` by this error, if that is since there is no
/// revision that both speak. A server of the modern era alone does not know the method, or misses in it what that
/// era asks for, and is to name what it speaks (2026-07-28, "Versioning").
pub fn incompatible(error: &[u8]) -> Option<Exit> {
    #[derive(Deserialize)]
    struct Refusal {
        code: i64,
        #[serde(default)]
        message: String,
        #[serde(default)]
        data: serde_json::Value,
    }
    let refusal: Refusal = serde_json::from_slice(error).ok()?;
    let is_of_the_era = codes::MODERN_REFUSALS.contains(&refusal.code);
    if !is_of_the_era && refusal.code != i64::from(codes::METHOD_NOT_FOUND) {
        return None;
    }
    let theirs = refusal.data["supported"].as_array().map(|versions| {
        let versions: Vec<&str> = versions.iter().filter_map(|version| version.as_str()).collect();
        format!("it speaks MCP {}", excerpt(versions.join(", ").as_bytes()))
    });
    let theirs = theirs.unwrap_or_else(|| {
        let said = excerpt(refusal.message.as_bytes());
        format!("it speaks no revision of MCP that begins by `initialize`, and says: {said}")
    });
    let ours = era::LEGACY.join(", ");
    Some(Exit::new(Reason::Incompatible, format!("{theirs}; we speak {ours}")))
}

/// As much of a foreign text as belongs into a message.
pub fn excerpt(text: &[u8]) -> String {
    const LENGTH_MAX: usize = 300;
    let text = String::from_utf8_lossy(text);
    let cut: String = text.chars().take(LENGTH_MAX).collect();
    cut.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::catalogue::kind::Kind;

    fn introduce(result: &str) -> Result<Introduction, Exit> {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,{result}}}"#);
        introduction(&Frame::parse(text.into(), 16).unwrap())
    }

    #[test]
    fn a_server_of_any_legacy_revision_is_understood() {
        for version in era::LEGACY {
            let said = introduce(&format!(
                r#""result":{{"protocolVersion":"{version}","capabilities":{{"tools":{{}}}},"x":1}}"#
            ));
            let said = said.unwrap();
            assert_eq!((said.version, said.offers[Kind::Tool].is_declared), (version, true));
            assert!(!said.offers[Kind::Prompt].is_declared && said.instructions.is_none());
        }
        let said = introduce(r#""result":{"protocolVersion":"2025-06-18","instructions":"Do."}"#);
        let said = said.unwrap();
        assert!(said.offers.iter().all(|(_, offer)| !offer.is_declared));
        assert_eq!(said.instructions.as_deref(), Some("Do."));
    }

    #[test]
    fn only_who_says_so_announces_its_changes() {
        for (tools, announces) in [
            (r#"{"listChanged":true}"#, true),
            (r#"{"listChanged":false}"#, false),
            (r#"{"listChanged":"yes"}"#, false),
            ("{}", false),
            ("true", false),
        ] {
            let said = introduce(&format!(
                r#""result":{{"protocolVersion":"2025-06-18","capabilities":{{"resources":{tools}}}}}"#
            ));
            let said = said.unwrap();
            for (kind, offer) in said.offers.iter() {
                let is_of_it = kind.topic() == Topic::Resources;
                assert_eq!(offer.is_declared, is_of_it, "{tools}");
                assert_eq!(offer.announces, is_of_it && announces, "{tools}");
            }
        }
    }

    #[test]
    fn only_who_says_so_can_be_subscribed_to() {
        for (resources, expected) in [
            (r#"{"subscribe":true}"#, true),
            (r#"{"subscribe":false,"listChanged":true}"#, false),
            ("{}", false),
            ("null", false),
        ] {
            let said = introduce(&format!(
                r#""result":{{"protocolVersion":"2025-06-18","capabilities":{{"resources":{resources}}}}}"#
            ));
            assert_eq!(said.unwrap().has_subscriptions, expected, "{resources}");
        }
    }

    #[test]
    fn only_who_says_so_takes_calls_as_tasks() {
        for (tasks, expected) in [
            (r#"{"requests":{"tools":{"call":{}}},"list":{}}"#, true),
            (r#"{"requests":{"tools":{}},"list":{}}"#, false),
            ("{}", false),
            ("null", false),
            ("true", false),
        ] {
            let said = introduce(&format!(
                r#""result":{{"protocolVersion":"2025-11-25","capabilities":{{"tasks":{tasks}}}}}"#
            ));
            assert_eq!(said.unwrap().has_tasks, expected, "{tasks}");
        }
    }

    #[test]
    fn a_server_of_another_era_names_what_it_speaks() {
        for (error, words) in [
            (
                r#"{"code":-32022,"message":"no","data":{"supported":["2026-07-28","2027-01-01"]}}"#,
                "it speaks MCP 2026-07-28, 2027-01-01; we speak 2024-11-05",
            ),
            (
                r#"{"code":-32601,"message":"no initialize; supported: 2026-07-28"}"#,
                "and says: no initialize; supported: 2026-07-28; we speak 2024-11-05",
            ),
            (r#"{"code":-32020}"#, "no revision of MCP that begins by `initialize`"),
        ] {
            let detail = incompatible(error.as_bytes()).unwrap().detail.unwrap();
            assert!(detail.contains(words), "{detail}");
        }
        assert_eq!(incompatible(br#"{"code":-32603,"message":"no"}"#), None);
    }

    #[test]
    fn a_server_that_cannot_be_understood_says_why() {
        for (answer, reason) in [
            (r#""result":{"protocolVersion":"2031-01-01"}"#, Reason::Incompatible),
            (r#""result":{}"#, Reason::HandshakeFailed),
            (r#""error":{"code":-32600,"message":"no"}"#, Reason::HandshakeFailed),
            (r#""error":"no""#, Reason::HandshakeFailed),
            (r#""error":{"code":-32601,"message":"no such method"}"#, Reason::Incompatible),
            (r#""error":{"code":-32020,"message":"no header"}"#, Reason::Incompatible),
            (r#""error":{"code":-32022,"message":"no"}"#, Reason::Incompatible),
        ] {
            assert_eq!(introduce(answer).unwrap_err().reason, reason, "{answer}");
        }
    }
}
