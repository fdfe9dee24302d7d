//! What becomes of a tool for clients that cannot take every tool: it is repaired so far that they can,
//! or it is hidden, alone and with its reason.
//!
//! One malformed or merely unusual schema makes some clients refuse the whole list, or the model behind
//! them every request. Which family of clients takes what stands in `rules` as data, who belongs to which
//! family in `clients`. Nothing here happens unless an endpoint asks for it: `raw` is what came.
//!
//! What a client may send by an exposed schema is what the tool's own schema takes: a repair says the
//! same in other words, or narrows. Where a family has no words for a rule the rule is dropped, which is
//! reported ([`Repair::KeywordDropped`], [`Repair::RefCut`]); the server then judges for itself.

mod arguments;
mod clients;
mod draft;
mod outcome;
mod refs;
mod root;
mod rules;
mod shaped;
mod tool;
mod typing;
mod unions;
mod walk;

pub use arguments::unwrap;
pub use clients::profile_of;
pub use outcome::{Outcome, Repair, Repairs, Unusable};
pub use shaped::{Memory, Shaped, Verdict, names_in};
pub use tool::shape;

use rules::Rules;

/// A family of clients, by what it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Everything, as it came.
    #[default]
    Raw,
    /// What all of them take that tell models of tools by JSON Schema.
    StrictCommon,
    Claude,
    OpenAi,
    Gemini,
    VsCode,
}

/// Which profile an endpoint goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The same for every client.
    Fixed(Profile),
    /// Each client's own, by what it says that it is.
    Auto,
}

/// How much of a schema is worked on. Upstreams write them, and may mean harm.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one schema. It is also how much may be inlined into one.
    pub schema_max: usize,
}

/// Schemas within each other. Of what is nested deeper no model makes sense.
pub const DEPTH_MAX: usize = 32;

impl Profile {
    pub const ALL: [Self; 6] =
        [Self::Raw, Self::StrictCommon, Self::Claude, Self::OpenAi, Self::Gemini, Self::VsCode];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::StrictCommon => "strict-common",
            Self::Claude => "claude",
            Self::OpenAi => "openai",
            Self::Gemini => "gemini",
            Self::VsCode => "vscode",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == word)
    }

    /// `None` where nothing is changed.
    fn rules(self) -> Option<&'static Rules> {
        match self {
            Self::Raw => None,
            Self::StrictCommon => Some(&rules::STRICT_COMMON),
            Self::Claude => Some(&rules::CLAUDE),
            Self::OpenAi => Some(&rules::OPENAI),
            Self::Gemini => Some(&rules::GEMINI),
            Self::VsCode => Some(&rules::VSCODE),
        }
    }
}

impl Choice {
    /// The profile for a client that by itself would have this one.
    pub fn for_client(self, own: Profile) -> Profile {
        match self {
            Self::Fixed(profile) => profile,
            Self::Auto => own,
        }
    }
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
