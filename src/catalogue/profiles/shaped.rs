//! A namespace's whole list as one family of clients sees it.
//!
//! It is made once for each list and each profile that somebody asks for. What was found out about a tool
//! is remembered by its bytes, so that a change of one costs no work on the others.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Limits, Outcome, Profile, Repairs, Unusable, tool::shape};
use crate::wire::members::{Members, Named};

/// What was found out about tools for one profile, by the bytes of each.
#[derive(Debug, Default)]
pub struct Memory(HashMap<[u8; 32], Arc<Outcome>>);

/// What became of one tool.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub shown_name: Box<str>,
    outcome: Arc<Outcome>,
}

/// A list for the clients of one profile. It never changes.
#[derive(Debug)]
pub struct Shaped {
    list: Bytes,
    /// In the order of the list.
    verdicts: Vec<Verdict>,
    by_name: HashMap<Box<str>, usize>,
}

impl Shaped {
    /// `list` is the JSON array as it would be shown to others.
    pub fn build(list: &Bytes, profile: Profile, limits: &Limits, memory: &mut Memory) -> Self {
        let tools: Vec<&RawValue> = serde_json::from_slice(list).unwrap_or_default();
        let mut remembered = HashMap::with_capacity(tools.len());
        let mut written = BytesMut::from(&b"["[..]);
        let mut verdicts = Vec::with_capacity(tools.len());
        let mut is_same = true;
        for tool in tools.into_iter().map(RawValue::get) {
            let Some(name) = name_of(tool) else { continue };
            let digest: [u8; 32] = Sha256::digest(tool).into();
            let known = memory.0.remove(&digest).or_else(|| remembered.get(&digest).cloned());
            let outcome = known.unwrap_or_else(|| Arc::new(shape(tool, &name, profile, limits)));
            remembered.insert(digest, outcome.clone());
            let text = match &*outcome {
                Outcome::AsItCame => Some(tool.as_bytes()),
                Outcome::Repaired { definition, .. } => Some(&**definition),
                Outcome::Hidden(_) => None,
            };
            is_same &= matches!(&*outcome, Outcome::AsItCame);
            if let Some(text) = text {
                if written.len() > 1 {
                    written.extend_from_slice(b",");
                }
                written.extend_from_slice(text);
            }
            verdicts.push(Verdict { shown_name: name.into(), outcome });
        }
        written.extend_from_slice(b"]");
        // What is not there any more is forgotten.
        memory.0 = remembered;
        let by_name =
            verdicts.iter().enumerate().map(|(place, one)| (one.shown_name.clone(), place));
        let by_name = by_name.collect();
        let list = if is_same { list.clone() } else { written.freeze() };
        Self { list, verdicts, by_name }
    }

    /// The JSON array of what these clients see, ready to be put into an answer.
    pub fn list(&self) -> &Bytes {
        &self.list
    }

    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    pub fn find(&self, shown_name: &str) -> Option<&Verdict> {
        self.verdicts.get(*self.by_name.get(shown_name)?)
    }
}

impl Verdict {
    pub fn hidden(&self) -> Option<Unusable> {
        match &*self.outcome {
            Outcome::Hidden(why) => Some(*why),
            Outcome::AsItCame | Outcome::Repaired { .. } => None,
        }
    }

    /// `None` for what is shown as it came, or not at all.
    pub fn repairs(&self) -> Option<&Repairs> {
        match &*self.outcome {
            Outcome::Repaired { repairs, .. } => Some(repairs),
            Outcome::AsItCame | Outcome::Hidden(_) => None,
        }
    }

    /// The member of a client's arguments that holds those of the tool itself.
    pub fn wrapped_in(&self) -> Option<&str> {
        match &*self.outcome {
            Outcome::Repaired { wrapped_in, .. } => wrapped_in.as_deref(),
            Outcome::AsItCame | Outcome::Hidden(_) => None,
        }
    }
}

/// The names in a list, in its order.
pub fn names_in(list: &[u8]) -> Vec<String> {
    let tools: Vec<&RawValue> = serde_json::from_slice(list).unwrap_or_default();
    tools.into_iter().filter_map(|tool| name_of(tool.get())).collect()
}

fn name_of(tool: &str) -> Option<String> {
    let Members(members): Named<'_> = serde_json::from_str(tool).ok()?;
    let (_, name) = members.into_iter().find(|(key, _)| key == "name")?;
    serde_json::from_str(name.get()).ok()
}
