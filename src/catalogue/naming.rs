//! Decides the name each tool of a namespace is shown under, and each prompt, which are named alike and
//! apart from each other.
//!
//! `assign` is a function of the members, their order, the names given before and those an operator
//! chose. No two tools ever get one name, and a name once given stays, so a client's rules and habits
//! keep their meaning. A tool that was renamed keeps the name it had of itself in reserve, and gets
//! it back. Storing the names, and reserving or releasing those of servers that left, is left to the
//! caller.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The longest name that is shown as it is, without a prefix: clients refuse longer ones.
pub const UNPREFIXED_MAX: usize = 64;
/// A shorter limit would leave no room for a readable head before the hash.
pub const PREFIXED_MIN: usize = 20;

const SEPARATOR: &str = "__";
const HASH_CHARS: usize = 8;
/// So many characters of a tool's name are shown before a long server name may take more room.
const TOOL_CHARS_KEPT: usize = 16;
/// How many hashes are tried when it is asked whether a stored name can be one of ours.
const ATTEMPTS_RECOGNISED: u32 = 8;

/// When a tool's name is prefixed with its server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Naming {
    Always,
    /// The earlier keeps its own name for ever, the later is prefixed.
    OnConflict,
    /// The later of two is hidden.
    Never,
}

/// One server of a namespace, with its tools in its own order.
#[derive(Clone, Copy, Debug)]
pub struct MemberTools<'a> {
    pub server: Uuid,
    pub server_name: &'a str,
    pub tools: &'a [&'a str],
}

/// The names already given under the present mode. A name stays reserved while its tool or its
/// server is away, except under `NEVER`, where nobody can own a name that he does not offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownNames {
    by_server: HashMap<Uuid, HashMap<Box<str>, Box<str>>>,
}

/// A name that an operator chose for a tool. It is the whole name, in every mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renaming<'a> {
    pub server: Uuid,
    /// The upstream's own name.
    pub tool: &'a str,
    pub name: &'a str,
}

/// The outcome: every tool of every member has a name of its own, or is hidden, or is renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The names that tools have of themselves, to be kept; in the order of the members and of
    /// their tools.
    pub shown: Vec<Shown>,
    pub hidden: Vec<Hidden>,
    /// The chosen names that are shown in place of those.
    pub renamed: KnownNames,
    /// The chosen names that another tool has; their tools are shown by their own.
    pub refused: Vec<Hidden>,
    /// Every name that is given, or kept for a tool that is away.
    pub holders: HashMap<Box<str>, Holder>,
}

/// The tool that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub server: Uuid,
    /// The upstream's own name.
    pub tool: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub server: Uuid,
    /// The upstream's own name.
    pub tool: Box<str>,
    pub shown_name: Box<str>,
}

/// A tool that no client can see, to be reported to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    pub server: Uuid,
    pub tool: Box<str>,
    pub why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Another server's tool has the name, and prefixes are forbidden.
    NameTaken { taken_by: Uuid },
    /// The same server listed the name before.
    Repeated,
}

impl KnownNames {
    pub fn insert(&mut self, server: Uuid, tool: &str, shown_name: &str) {
        self.by_server.entry(server).or_default().insert(tool.into(), shown_name.into());
    }

    /// Takes over the names of those servers that stay. They win over what is here.
    pub fn take_over(&mut self, names: Self, stays: impl Fn(Uuid) -> bool) {
        for (server, names) in names.by_server.into_iter().filter(|(server, _)| stays(*server)) {
            self.by_server.entry(server).or_default().extend(names);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.by_server.is_empty()
    }

    /// Every name that is kept, in no order: server, tool, shown name.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, &str, &str)> {
        let servers = self.by_server.iter();
        servers.flat_map(|(server, tools)| {
            tools.iter().map(|(tool, shown)| (*server, &**tool, &**shown))
        })
    }

    pub fn get(&self, server: Uuid, tool: &str) -> Option<&str> {
        self.by_server.get(&server)?.get(tool).map(|name| &**name)
    }
}

impl<'a> FromIterator<&'a Shown> for KnownNames {
    fn from_iter<I: IntoIterator<Item = &'a Shown>>(shown: I) -> Self {
        let mut known = Self::default();
        for Shown { server, tool, shown_name } in shown {
            known.insert(*server, tool, shown_name);
        }
        known
    }
}

/// Gives every tool of `members` its name, or hides it. A prefixed name has at most `names_max`
/// bytes (never less than [`PREFIXED_MIN`]).
///
/// Whoever had a name first keeps it: names given before, then those chosen (the earlier first), and
/// then those of tools that are new.
pub fn assign(
    naming: Naming,
    names_max: usize,
    members: &[MemberTools<'_>],
    known: &KnownNames,
    renamings: &[Renaming<'_>],
) -> Assignment {
    let names_max = names_max.max(PREFIXED_MIN);
    let candidates = || {
        members.iter().flat_map(move |member| {
            member.tools.iter().map(move |tool| Candidate { member, tool, names_max })
        })
    };
    let mut names = Names::default();

    for candidate in candidates() {
        if let Some(name) = known.get(candidate.member.server, candidate.tool)
            && candidate.may_keep(name, naming)
            && names.is_free_for(candidate.key(), name)
        {
            names.give(&candidate, name.into());
        }
    }
    if naming != Naming::Never {
        names.reserve_absent(members, known, naming, names_max);
    }
    let mut assignment = Assignment::default();
    for Renaming { server, tool, name } in renamings {
        match names.choose((*server, *tool), name) {
            Ok(()) => assignment.renamed.insert(*server, tool, name),
            Err(why) => {
                assignment.refused.push(Hidden { server: *server, tool: (*tool).into(), why });
            }
        }
    }

    let mut seen = HashSet::new();
    for candidate in candidates() {
        let key = candidate.key();
        let outcome =
            if seen.insert(key) { names.name_for(&candidate, naming) } else { Err(Why::Repeated) };
        let (server, tool) = (key.0, key.1.into());
        match outcome {
            Ok(shown_name) => assignment.shown.push(Shown { server, tool, shown_name }),
            // It has no name of itself, and needs none.
            Err(Why::NameTaken { .. }) if assignment.renamed.get(server, &tool).is_some() => {}
            Err(why) => assignment.hidden.push(Hidden { server, tool, why }),
        }
    }
    // Under `NEVER` nobody had to make way for what is away; whoever may choose a name still has to.
    names.reserve_absent(members, known, naming, names_max);
    assignment.holders = names.holder_of;
    assignment
}

/// Who has which name, while an assignment is made.
#[derive(Default)]
struct Names<'a> {
    holder_of: HashMap<Box<str>, Holder>,
    given: HashMap<(Uuid, &'a str), Box<str>>,
}

impl<'a> Names<'a> {
    /// The tool, other than the one that asks, that has the name.
    fn other_holder(&self, (server, tool): (Uuid, &str), name: &str) -> Option<&Holder> {
        let holder = self.holder_of.get(name)?;
        (holder.server != server || *holder.tool != *tool).then_some(holder)
    }

    fn is_free_for(&self, key: (Uuid, &str), name: &str) -> bool {
        self.other_holder(key, name).is_none()
    }

    fn give(&mut self, candidate: &Candidate<'a>, name: Box<str>) {
        let (server, tool) = candidate.key();
        self.holder_of.insert(name.clone(), Holder { server, tool: tool.into() });
        self.given.insert(candidate.key(), name);
    }

    /// Gives a tool, which may be away, the name that was chosen for it.
    fn choose(&mut self, key: (Uuid, &str), name: &str) -> Result<(), Why> {
        if let Some(holder) = self.other_holder(key, name) {
            return Err(Why::NameTaken { taken_by: holder.server });
        }
        self.holder_of.insert(name.into(), Holder { server: key.0, tool: key.1.into() });
        Ok(())
    }

    /// Keeps the names of tools that are away from those that are here, unless the server is here
    /// under a new name that makes the old ones meaningless.
    fn reserve_absent(
        &mut self,
        members: &[MemberTools<'_>],
        known: &KnownNames,
        naming: Naming,
        names_max: usize,
    ) {
        let here: HashMap<Uuid, &MemberTools<'_>> =
            members.iter().map(|member| (member.server, member)).collect();
        for (server, names) in &known.by_server {
            for (tool, name) in names {
                let released = here.get(server).is_some_and(|member| {
                    !Candidate { member, tool, names_max }.may_keep(name, naming)
                });
                if !released {
                    let holder = || Holder { server: *server, tool: tool.clone() };
                    self.holder_of.entry(name.clone()).or_insert_with(holder);
                }
            }
        }
    }

    fn name_for(&mut self, candidate: &Candidate<'a>, naming: Naming) -> Result<Box<str>, Why> {
        if let Some(name) = self.given.get(&candidate.key()) {
            return Ok(name.clone());
        }
        let own_name =
            (naming != Naming::Always && is_showable(candidate.tool)).then_some(candidate.tool);
        let name: Box<str> = match own_name {
            Some(name) => match (self.other_holder(candidate.key(), name), naming) {
                (None, _) => name.into(),
                (Some(holder), Naming::Never) => {
                    return Err(Why::NameTaken { taken_by: holder.server });
                }
                (Some(_), Naming::Always | Naming::OnConflict) => self.prefixed(candidate),
            },
            None => self.prefixed(candidate),
        };
        self.give(candidate, name.clone());
        Ok(name)
    }

    fn prefixed(&self, candidate: &Candidate<'_>) -> Box<str> {
        if let Some(plain) = candidate.plain()
            && self.is_free_for(candidate.key(), &plain)
        {
            return plain.into();
        }
        let mut attempt = 0;
        loop {
            let hashed = candidate.hashed(candidate.names_max, attempt);
            if self.is_free_for(candidate.key(), &hashed) {
                return hashed.into();
            }
            attempt += 1;
        }
    }
}

/// A tool that wants a name.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    member: &'a MemberTools<'a>,
    tool: &'a str,
    names_max: usize,
}

impl<'a> Candidate<'a> {
    fn key(&self) -> (Uuid, &'a str) {
        (self.member.server, self.tool)
    }

    /// Whether a name given earlier is still one that this mode could give to this tool.
    fn may_keep(&self, name: &str, naming: Naming) -> bool {
        let showable = is_showable(self.tool);
        match naming {
            Naming::Always => self.is_prefixed_form(name),
            Naming::OnConflict => (showable && name == self.tool) || self.is_prefixed_form(name),
            Naming::Never if showable => name == self.tool,
            Naming::Never => self.is_prefixed_form(name),
        }
    }

    /// A cut name is as long as the limit it was cut for, so one that was cut for a smaller limit
    /// is recognised by its own length, and outlives a raised limit.
    fn is_prefixed_form(&self, name: &str) -> bool {
        let hashed =
            || (0..ATTEMPTS_RECOGNISED).any(|attempt| self.hashed(name.len(), attempt) == name);
        self.plain().as_deref() == Some(name) || (name.len() <= self.names_max && hashed())
    }

    /// `server__tool`, if that is short enough and made of allowed characters only. Where one had
    /// to be replaced, two tools could meet in one name, so such a name is always hashed.
    fn plain(&self) -> Option<String> {
        let (server, tool) = (cleaned(self.member.server_name), cleaned(self.tool));
        let length = server.len() + SEPARATOR.len() + tool.len();
        (server == self.member.server_name && tool == self.tool && length <= self.names_max)
            .then(|| format!("{server}{SEPARATOR}{tool}"))
    }

    /// The readable head of `server__tool`, and a hash of what it stands for, in `max` bytes.
    fn hashed(&self, max: usize, attempt: u32) -> String {
        let (server, tool) = (cleaned(self.member.server_name), cleaned(self.tool));
        let room = max.saturating_sub(SEPARATOR.len() + "_".len() + HASH_CHARS);
        let server_room = room.saturating_sub(TOOL_CHARS_KEPT).max(room.saturating_sub(tool.len()));
        let server = head(&server, server_room);
        let tool = head(&tool, room - server.len());
        format!("{server}{SEPARATOR}{tool}_{}", self.hash(attempt))
    }

    /// The first attempt depends on nothing but the two names, so that the same configuration shows
    /// the same names on every installation. It fails only where two owners' servers share a name
    /// in one namespace, or by accident: then the server's uuid tells them apart.
    fn hash(&self, attempt: u32) -> String {
        let mut digest = Sha256::new();
        match attempt {
            0 => digest.update(self.member.server_name),
            _ => {
                digest.update(self.member.server.as_bytes());
                digest.update(attempt.to_be_bytes());
            }
        }
        // No name holds a NUL, so it cannot be mistaken for a part of either.
        digest.update([0]);
        digest.update(self.tool);
        let bytes = digest.finalize();
        bytes.iter().take(HASH_CHARS).map(|byte| base32_char(*byte)).collect()
    }
}

/// Whether a name can be shown without a prefix: what the specification and the strictest of the
/// known conformance checks allow.
fn is_showable(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= UNPREFIXED_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
}

/// Prefixed names hold only what every known model API takes.
fn cleaned(name: &str) -> String {
    name.chars()
        .map(|char| if char.is_ascii_alphanumeric() || "_-".contains(char) { char } else { '_' })
        .collect()
}

/// The first `length` bytes of an ASCII text.
fn head(text: &str, length: usize) -> &str {
    text.get(..length).unwrap_or(text)
}

fn base32_char(byte: u8) -> char {
    match byte % 32 {
        letter @ 0..26 => char::from(b'a' + letter),
        digit => char::from(b'2' + digit - 26),
    }
}

#[cfg(test)]
#[path = "naming_tests.rs"]
mod tests;
