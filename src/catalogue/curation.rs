//! What an operator has decided about the tools of one namespace, or about its prompts or resources:
//! which are used, and as what.
//!
//! Decisions are kept by server and by the server's own name for the tool, never by a shown name,
//! and hold whether the tool is offered at present or not.

use std::collections::HashMap;

use uuid::Uuid;

use super::{naming::Renaming, overrides::Overrides};

/// What was decided about one tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub is_active: bool,
    /// The whole name it is to be shown by, in every mode.
    pub name: Option<Box<str>>,
    pub overrides: Overrides,
}

/// All decisions of a namespace. A tool that nothing was decided about is new, and takes the
/// namespace's default.
#[derive(Clone, Debug, PartialEq)]
pub struct Curation {
    new_tools_active: bool,
    decided: HashMap<Uuid, HashMap<Box<str>, Decision>>,
    /// Server, tool and name, the earlier decision first.
    names: Vec<(Uuid, Box<str>, Box<str>)>,
}

impl Curation {
    pub fn new(new_tools_active: bool) -> Self {
        Self { new_tools_active, decided: HashMap::new(), names: Vec::new() }
    }

    /// Adds a decision that was made after those that are here.
    pub fn decide(&mut self, server: Uuid, tool: &str, decision: Decision) {
        if let Some(name) = &decision.name {
            self.names.push((server, tool.into(), name.clone()));
        }
        self.decided.entry(server).or_default().insert(tool.into(), decision);
    }

    /// Whether a tool may be listed and called. One that is seen for the first time is judged here
    /// and by nothing that is written later, so that it is not open for a moment.
    pub fn is_active(&self, server: Uuid, tool: &str) -> bool {
        self.get(server, tool).map_or(self.new_tools_active, |decision| decision.is_active)
    }

    /// What of this server was switched off, in no order.
    pub fn inactive(&self, server: Uuid) -> impl Iterator<Item = &str> {
        let decided = self.decided.get(&server).into_iter().flatten();
        decided.filter(|(_, decision)| !decision.is_active).map(|(tool, _)| &**tool)
    }

    pub fn overrides(&self, server: Uuid, tool: &str) -> Option<&Overrides> {
        self.get(server, tool).map(|decision| &decision.overrides)
    }

    /// The names that were chosen, the earlier decision first.
    pub fn renamings(&self) -> Vec<Renaming<'_>> {
        let names = self.names.iter();
        names.map(|(server, tool, name)| Renaming { server: *server, tool, name }).collect()
    }

    /// Whether a name that no tool is listed by may reach a server as it stands. It may not where
    /// new tools are INACTIVE, where the name is one that was taken from a tool, and where it is
    /// one that was given to a tool.
    pub fn lets_unlisted(&self, name: &str) -> bool {
        let is_withheld = |decision: &Decision| !decision.is_active || decision.name.is_some();
        self.new_tools_active
            && !self.decided.values().any(|tools| tools.get(name).is_some_and(is_withheld))
            && !self.names.iter().any(|(.., given)| **given == *name)
    }

    fn get(&self, server: Uuid, tool: &str) -> Option<&Decision> {
        self.decided.get(&server)?.get(tool)
    }
}

impl Default for Curation {
    /// Nothing was decided, and new tools are used.
    fn default() -> Self {
        Self::new(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(is_active: bool, name: Option<&str>) -> Decision {
        Decision { is_active, name: name.map(Into::into), overrides: Overrides::default() }
    }

    #[test]
    fn the_default_is_for_new_tools_alone() {
        let server = Uuid::from_u128(1);
        for default in [true, false] {
            let mut curation = Curation::new(default);
            curation.decide(server, "on", decision(true, None));
            curation.decide(server, "off", decision(false, None));
            assert!(curation.is_active(server, "on") && !curation.is_active(server, "off"));
            assert_eq!(curation.is_active(server, "new"), default);
            assert_eq!(curation.is_active(Uuid::from_u128(2), "on"), default);
        }
    }

    #[test]
    fn an_unlisted_name_passes_only_where_nobody_decided_about_it() {
        let mut curation = Curation::new(true);
        curation.decide(Uuid::from_u128(1), "on", decision(true, None));
        curation.decide(Uuid::from_u128(1), "off", decision(false, None));
        curation.decide(Uuid::from_u128(1), "old", decision(true, Some("fresh")));
        for (name, passes) in
            [("on", true), ("other", true), ("off", false), ("old", false), ("fresh", false)]
        {
            assert_eq!(curation.lets_unlisted(name), passes, "{name}");
        }
        assert!(!Curation::new(false).lets_unlisted("other"));
    }
}
