//! What servers offer: four kinds of things, which are listed, kept and shown in the same way.
//!
//! Here stand the words in which they differ on the wire (server features, "Tools", "Prompts" and
//! "Resources").

use std::ops::{Index, IndexMut};

use crate::wire::Topic;

/// A kind of thing that a server lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Tool,
    Prompt,
    Resource,
    /// A resource template: the URIs of resources, with places left open (RFC 6570).
    Template,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Tool, Self::Prompt, Self::Resource, Self::Template];

    /// In words, for people.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Template => "resource template",
        }
    }

    /// The request that lists them.
    pub fn list_method(self) -> &'static str {
        match self {
            Self::Tool => "tools/list",
            Self::Prompt => "prompts/list",
            Self::Resource => "resources/list",
            Self::Template => "resources/templates/list",
        }
    }

    /// The member of the result that holds them.
    pub fn list_field(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Resource => "resources",
            Self::Template => "resourceTemplates",
        }
    }

    /// The member of each by which it is known.
    pub fn key_field(self) -> &'static str {
        match self {
            Self::Tool | Self::Prompt => "name",
            Self::Resource => "uri",
            Self::Template => "uriTemplate",
        }
    }

    pub fn topic(self) -> Topic {
        match self {
            Self::Tool => Topic::Tools,
            Self::Prompt => Topic::Prompts,
            Self::Resource | Self::Template => Topic::Resources,
        }
    }

    /// What a topic is about.
    pub fn of_topic(topic: Topic) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |kind| kind.topic() == topic)
    }

    /// The kind that a request lists.
    pub fn listed_by(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.list_method() == method)
    }
}

/// One value for each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerKind<T>([T; 4]);

impl<T> PerKind<T> {
    pub fn of(make: impl FnMut(Kind) -> T) -> Self {
        Self(Kind::ALL.map(make))
    }

    pub fn iter(&self) -> impl Iterator<Item = (Kind, &T)> {
        Kind::ALL.into_iter().zip(&self.0)
    }
}

impl<T> IntoIterator for PerKind<T> {
    type Item = (Kind, T);
    type IntoIter = std::iter::Zip<std::array::IntoIter<Kind, 4>, std::array::IntoIter<T, 4>>;

    fn into_iter(self) -> Self::IntoIter {
        Kind::ALL.into_iter().zip(self.0)
    }
}

impl<T> Index<Kind> for PerKind<T> {
    type Output = T;

    fn index(&self, kind: Kind) -> &T {
        &self.0[kind as usize]
    }
}

impl<T> IndexMut<Kind> for PerKind<T> {
    fn index_mut(&mut self, kind: Kind) -> &mut T {
        &mut self.0[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_place_and_its_own_words() {
        let mut numbers = PerKind::of(|kind| kind as usize);
        numbers[Kind::Template] = 9;
        let all: Vec<_> = numbers.iter().map(|(kind, number)| (kind, *number)).collect();
        let expected =
            [(Kind::Tool, 0), (Kind::Prompt, 1), (Kind::Resource, 2), (Kind::Template, 9)];
        assert_eq!(all, expected);
        for kind in Kind::ALL {
            assert_eq!(Kind::listed_by(kind.list_method()), Some(kind));
            assert!(Kind::of_topic(kind.topic()).any(|one| one == kind));
        }
        assert_eq!(Kind::listed_by("tools/call"), None);
    }
}
