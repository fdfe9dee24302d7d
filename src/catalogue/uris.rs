//! URIs that several servers of a namespace have: which of them are shown as they came, and how the
//! others are written and read again.
//!
//! A rewritten URI is the server's own behind a prefix of ours, `mcp+SERVER+`, which becomes the
//! beginning of its scheme (RFC 3986, section 3.1). So it is as valid as what came, and no client takes
//! it for one that it could fetch by itself. What stands outside of braces is not touched by the
//! expansion of a template (RFC 6570, section 3.1), so that a rewritten template expands to the
//! rewritten URIs, and to nothing else.
//!
//! Remembered is only what more than one server had, and only while one of them still lists it: who was
//! the earlier is of no account for anything else, and lists of files would grow without end.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{
    curation::Curation,
    kind::{Kind, PerKind},
    naming::{KnownNames, Naming},
    routes::Member,
};

const SCHEME: &str = "mcp+";
const END: char = '+';

/// The prefixes of the members of a namespace. None of them is the beginning of another.
#[derive(Clone, Debug, Default)]
pub struct Prefixes {
    by_member: Vec<Box<str>>,
    by_token: HashMap<Box<str>, usize>,
}

/// How a namespace shows URIs.
#[derive(Clone, Debug)]
pub struct Uris {
    pub naming: Naming,
    /// Empty where nothing is ever rewritten.
    pub prefixes: Prefixes,
    /// What is rewritten under `ON_CONFLICT`, of each member.
    pub rewritten: PerKind<Vec<HashSet<Box<str>>>>,
}

/// The outcome for one kind under `ON_CONFLICT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collisions {
    /// What is rewritten, of each member.
    pub rewritten: Vec<HashSet<Box<str>>>,
    /// What is to be remembered, if this is to hold.
    pub known: KnownNames,
}

impl Prefixes {
    /// Of members in their order, by their names.
    pub fn new<'a>(members: impl IntoIterator<Item = (Uuid, &'a str)>) -> Self {
        let members: Vec<(Uuid, &str)> = members.into_iter().collect();
        let mut named: HashMap<&str, usize> = HashMap::new();
        for (_, name) in &members {
            *named.entry(name).or_default() += 1;
        }
        let mut prefixes = Self::default();
        for (index, (server, name)) in members.iter().enumerate() {
            let mut token = token_of(name);
            if named.get(name).is_some_and(|count| *count > 1) {
                // Two owners' servers share a name. No order of theirs may exchange what they are
                // called, so both are told apart; no name is written with `.0`.
                token = format!("{token}.0{}", server.simple());
            }
            prefixes.by_member.push(format!("{SCHEME}{token}{END}").into());
            prefixes.by_token.insert(token.into(), index);
        }
        prefixes
    }

    pub fn of(&self, member: usize) -> &str {
        self.by_member.get(member).map_or("", |prefix| prefix)
    }

    /// The member whose prefix a URI has, and what stands behind it.
    pub fn origin<'a>(&self, uri: &'a str) -> Option<(usize, &'a str)> {
        let (token, own) = uri.strip_prefix(SCHEME)?.split_once(END)?;
        let member = *self.by_token.get(token)?;
        (!own.is_empty()).then_some((member, own))
    }
}

impl Uris {
    /// What stands in front of a URI or template of this member where clients see it.
    pub fn prefix(&self, kind: Kind, member: usize, key: &str) -> &str {
        let is_rewritten = match self.naming {
            Naming::Never => false,
            Naming::Always => true,
            Naming::OnConflict => {
                self.rewritten[kind].get(member).is_some_and(|keys| keys.contains(key))
            }
        };
        if is_rewritten { self.prefixes.of(member) } else { "" }
    }
}

impl Default for Uris {
    fn default() -> Self {
        Self { naming: Naming::Never, prefixes: Prefixes::default(), rewritten: PerKind::default() }
    }
}

/// A server's name as a part of a scheme, where there are neither capitals nor `_`, and where a client
/// may make capitals small. No two names come to the same.
fn token_of(name: &str) -> String {
    let mut token = String::with_capacity(name.len());
    for char in name.chars() {
        match char {
            '_' => token.push_str(".."),
            'A'..='Z' => token.extend(['.', char.to_ascii_lowercase()]),
            // Our rules allow nothing else.
            'a'..='z' | '0'..='9' | '-' => token.push(char),
            other => token.push_str(&format!(".1{:x}.", u32::from(other))),
        }
    }
    token
}

/// A JSON string with a prefix within its quotes, and every other byte as it was.
pub fn prefixed(token: &[u8], prefix: &str) -> Vec<u8> {
    let (quote, rest) = token.split_at(token.len().min(1));
    [quote, prefix.as_bytes(), rest].concat()
}

/// Decides about one kind: whoever had a URI first keeps it for ever, and for everybody else it is
/// rewritten, also for ever. `known` is what was remembered. `earlier` tells which server was shown with
/// a URI as it came before this, where that is to hold.
pub fn collisions(
    members: &[Member<'_>],
    curation: &Curation,
    prefixes: &Prefixes,
    known: &KnownNames,
    earlier: impl Fn(&str) -> Option<Uuid>,
) -> Collisions {
    let mut rewritten = vec![HashSet::<Box<str>>::new(); members.len()];
    let mut claims: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, member) in members.iter().enumerate().filter(|(_, member)| member.active) {
        let shown = member.items.iter().filter(|item| curation.is_active(member.server, &item.key));
        for item in shown {
            match prefixes.origin(&item.key) {
                // Shown as it came it would lead to another.
                Some(_) => drop(rewritten[index].insert(item.key.clone())),
                None => claims.entry(&item.key).or_default().push(index),
            }
        }
    }
    // Who had each first, and what was contested at all.
    let (mut holders, mut contested) = (HashMap::new(), HashSet::new());
    for (server, key, shown) in known.iter() {
        contested.insert(key);
        if shown == key {
            holders.insert(key, server);
        }
    }
    let mut to_know = KnownNames::default();
    if !known.is_empty() {
        let listed: HashSet<&str> =
            members.iter().flat_map(|member| member.items).map(|item| &*item.key).collect();
        for (server, key, shown) in known.iter().filter(|(_, key, _)| listed.contains(key)) {
            to_know.insert(server, key, shown);
        }
    }
    for (key, claimants) in claims {
        let is_rewritten =
            |index: usize| known.get(members[index].server, key).is_some_and(|shown| shown != key);
        let holder = holders.get(key).copied().or_else(|| {
            let had =
                |server: &Uuid| claimants.iter().any(|index| members[*index].server == *server);
            earlier(key).filter(had)
        });
        let holder = holder.or_else(|| {
            let first = claimants.iter().find(|index| !is_rewritten(**index));
            first.map(|index| members[*index].server)
        });
        let is_contested = claimants.len() > 1 || contested.contains(key);
        for index in claimants {
            let server = members[index].server;
            let keeps = holder == Some(server);
            if !keeps {
                rewritten[index].insert(key.into());
            }
            if is_contested {
                let prefix = if keeps { "" } else { prefixes.of(index) };
                to_know.insert(server, key, &format!("{prefix}{key}"));
            }
        }
    }
    Collisions { rewritten, known: to_know }
}

#[cfg(test)]
#[path = "uris_tests.rs"]
mod tests;
