//! What a client can be asked for, as it declared in `initialize` (lifecycle, "Capability
//! negotiation"; client features "Roots", "Sampling", "Elicitation").
//!
//! Only what a server acts on is kept, as flags, so that it costs a session two bytes and can be told
//! again to an upstream whose session is opened long after the client's own words are gone.

use serde::Deserialize;
use serde_json::{Value, json};

/// One thing that a client may be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Capability {
    Roots = 1,
    /// It says so when its roots change.
    RootsListChanged = 1 << 1,
    Sampling = 1 << 2,
    /// It takes `includeContext` other than `none`.
    SamplingContext = 1 << 3,
    /// It takes `tools` and `toolChoice`.
    SamplingTools = 1 << 4,
    /// Before 2025-11-25 every elicitation is a form.
    ElicitationForm = 1 << 5,
    ElicitationUrl = 1 << 6,
}

/// All that a client declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCapabilities(u16);

/// The members that are looked at. What is no object counts as declared all the same, since older
/// clients wrote `true`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Declared {
    roots: Option<Value>,
    sampling: Option<Value>,
    elicitation: Option<Value>,
}

impl ClientCapabilities {
    /// Every capability that we know to relay.
    pub const ALL: Self = Self(0b111_1111);

    /// Reads the `capabilities` of an `initialize`. What is malformed is not declared.
    pub fn of(capabilities: &Value) -> Self {
        let declared = Declared::deserialize(capabilities).unwrap_or_default();
        let mut all = Self::default();
        if let Some(roots) = is_given(declared.roots) {
            all = all.with(Capability::Roots);
            if roots["listChanged"] == true {
                all = all.with(Capability::RootsListChanged);
            }
        }
        if let Some(sampling) = is_given(declared.sampling) {
            all = all.with(Capability::Sampling);
            if is_declared(&sampling["context"]) {
                all = all.with(Capability::SamplingContext);
            }
            if is_declared(&sampling["tools"]) {
                all = all.with(Capability::SamplingTools);
            }
        }
        if let Some(elicitation) = is_given(declared.elicitation) {
            let by_url = is_declared(&elicitation["url"]);
            if by_url {
                all = all.with(Capability::ElicitationUrl);
            }
            // An empty object means forms (elicitation, "Capabilities", 2025-11-25).
            if !by_url || is_declared(&elicitation["form"]) {
                all = all.with(Capability::ElicitationForm);
            }
        }
        all
    }

    /// The `capabilities` of an `initialize` that declares these.
    pub fn to_json(self) -> Value {
        let mut declared = serde_json::Map::new();
        if self.has(Capability::Roots) {
            let roots = match self.has(Capability::RootsListChanged) {
                true => json!({"listChanged": true}),
                false => json!({}),
            };
            declared.insert("roots".into(), roots);
        }
        let parts = |parts: &[(&str, Capability)]| {
            let held = parts.iter().filter(|(_, capability)| self.has(*capability));
            Value::Object(held.map(|(name, _)| ((*name).to_owned(), json!({}))).collect())
        };
        if self.has(Capability::Sampling) {
            let sampling =
                [("context", Capability::SamplingContext), ("tools", Capability::SamplingTools)];
            declared.insert("sampling".into(), parts(&sampling));
        }
        let (form, url) =
            (self.has(Capability::ElicitationForm), self.has(Capability::ElicitationUrl));
        if form || url {
            // Forms alone are an empty object, which every revision reads alike.
            let elicitation = match url {
                true => parts(&[
                    ("form", Capability::ElicitationForm),
                    ("url", Capability::ElicitationUrl),
                ]),
                false => json!({}),
            };
            declared.insert("elicitation".into(), elicitation);
        }
        Value::Object(declared)
    }

    pub fn with(self, capability: Capability) -> Self {
        Self(self.0 | capability as u16)
    }

    pub fn without(self, capability: Capability) -> Self {
        Self(self.0 & !(capability as u16))
    }

    pub fn has(self, capability: Capability) -> bool {
        self.0 & capability as u16 != 0
    }

    /// For keeping; [`Self::from_bits`] reads it again.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Bits of a later version that are not known here are dropped.
    pub fn from_bits(bits: u16) -> Self {
        Self(bits & Self::ALL.0)
    }
}

fn is_given(declared: Option<Value>) -> Option<Value> {
    declared.filter(is_declared)
}

fn is_declared(value: &Value) -> bool {
    !value.is_null() && *value != false
}

#[cfg(test)]
mod tests {
    use super::{Capability::*, *};

    #[test]
    fn a_client_can_do_what_it_declared_and_no_more() {
        for (declared, expected) in [
            (json!({}), vec![]),
            (json!(null), vec![]),
            (json!({"roots": {}}), vec![Roots]),
            (json!({"roots": {"listChanged": true}}), vec![Roots, RootsListChanged]),
            (json!({"roots": {"listChanged": "yes"}}), vec![Roots]),
            (json!({"roots": null, "sampling": false}), vec![]),
            (json!({"sampling": {}}), vec![Sampling]),
            (json!({"sampling": true}), vec![Sampling]),
            (json!({"sampling": {"tools": {}}}), vec![Sampling, SamplingTools]),
            (json!({"sampling": {"context": {}}}), vec![Sampling, SamplingContext]),
            (json!({"elicitation": {}}), vec![ElicitationForm]),
            (json!({"elicitation": {"form": {}}}), vec![ElicitationForm]),
            (json!({"elicitation": {"url": {}}}), vec![ElicitationUrl]),
            (
                json!({"elicitation": {"form": {}, "url": {}}}),
                vec![ElicitationForm, ElicitationUrl],
            ),
            (json!({"experimental": {"x": {}}, "tasks": {}}), vec![]),
        ] {
            let expected =
                expected.into_iter().fold(ClientCapabilities::default(), |all, one| all.with(one));
            assert_eq!(ClientCapabilities::of(&declared), expected, "{declared}");
        }
    }

    #[test]
    fn what_was_declared_can_be_told_again_and_kept() {
        for bits in 0..=ClientCapabilities::ALL.bits() {
            let capabilities =
                ClientCapabilities::of(&ClientCapabilities::from_bits(bits).to_json());
            assert_eq!(ClientCapabilities::of(&capabilities.to_json()), capabilities);
            assert_eq!(ClientCapabilities::from_bits(capabilities.bits()), capabilities);
        }
        assert_eq!(ClientCapabilities::from_bits(u16::MAX), ClientCapabilities::ALL);
        assert_eq!(
            ClientCapabilities::of(&ClientCapabilities::ALL.to_json()),
            ClientCapabilities::ALL
        );
    }
}
