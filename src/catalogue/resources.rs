//! The resources of a namespace: their lists, and the way from a URI to the upstream that has it.
//!
//! Which URIs are shown as they came is decided in `uris`, where the namespace rewrites any. Where it
//! does not and several upstreams have one, the first in the order of the namespace keeps it, and the
//! others are hidden and reported. What no list tells, and whether the upstream is alive, is for others.

use std::collections::{HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    curation::Curation,
    kind::{Kind, PerKind},
    naming::{Hidden, Naming, Why},
    routes::Member,
    template::Template,
    uris::Uris,
};

/// An immutable snapshot: made once for each change, read by every request.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Shown URIs.
    by_uri: HashMap<Box<str>, Listed>,
    /// Shown templates, as texts.
    by_template: HashMap<Box<str>, Listed>,
    /// The same, to be held against URIs: the most specific first.
    templates: Vec<Pattern>,
    /// What was switched off, by its member: URIs, templates as texts, and templates to be held
    /// against URIs.
    withheld: HashSet<(usize, Box<str>)>,
    withheld_texts: HashMap<Box<str>, Vec<usize>>,
    withheld_templates: Vec<Pattern>,
    uris: Uris,
    /// Whether each member is switched on.
    active: Vec<bool>,
    resource_list: Bytes,
    template_list: Bytes,
    digest: [u8; 32],
}

/// Whose a shown URI or template is, and how much of it is a prefix of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    member: usize,
    prefix: usize,
}

#[derive(Clone, Debug)]
struct Pattern {
    template: Template,
    member: usize,
    /// Clients see it, and so what comes of it, behind a prefix only.
    is_rewritten: bool,
}

impl Resources {
    /// Lists each resource and each template that is not `INACTIVE` and belongs to an `ACTIVE`
    /// member, in the order of the members and of their own lists; and says which of them another
    /// member has taken the place of.
    pub fn build(
        resources: &[Member<'_>],
        templates: &[Member<'_>],
        curations: &PerKind<Curation>,
        uris: Uris,
    ) -> (Resources, PerKind<Vec<Hidden>>) {
        let mut hidden = PerKind::default();
        let mut gathered =
            |kind: Kind, members| gather(kind, members, &curations[kind], &uris, &mut hidden[kind]);
        let one = gathered(Kind::Resource, resources);
        let other = gathered(Kind::Template, templates);
        let mut digest = Sha256::new();
        digest.update(&one.list);
        digest.update(&other.list);

        let pattern = |text: &str, member: usize, is_rewritten: bool| {
            Some(Pattern { template: Template::parse(text)?, member, is_rewritten })
        };
        let listed = other.order.iter().filter_map(|text| {
            let Listed { member, prefix } = *other.listed.get(text)?;
            pattern(&text[prefix..], member, prefix > 0)
        });
        let mut patterns: Vec<Pattern> = listed.collect();
        // A stable sort: of two that say as much, the earlier counts.
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.template.specificity()));
        let withheld_templates =
            other.withheld.iter().filter_map(|(member, text)| pattern(text, *member, false));
        let withheld_templates = withheld_templates.collect();
        let mut withheld_texts: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (member, text) in other.withheld {
            withheld_texts.entry(text).or_default().push(member);
        }
        let resources = Resources {
            withheld_templates,
            withheld_texts,
            withheld: one.withheld,
            by_uri: one.listed,
            by_template: other.listed,
            templates: patterns,
            uris,
            active: resources.iter().map(|member| member.active).collect(),
            resource_list: one.list,
            template_list: other.list,
            digest: digest.finalize().into(),
        };
        (resources, hidden)
    }

    pub fn empty() -> Resources {
        Self::build(&[], &[], &PerKind::default(), Uris::default()).0
    }

    /// The member that has this URI, as an index into the members, and what the URI is to that: the
    /// one whose prefix it has; or that lists it; or else the one with the template that says most
    /// about it.
    pub fn find<'a>(&self, uri: &'a str) -> Option<(usize, &'a str)> {
        if let Some(Listed { member, prefix }) = self.by_uri.get(uri) {
            return Some((*member, &uri[*prefix..]));
        }
        if let Some((member, own)) = self.origin(uri) {
            let is_active = self.active.get(member).is_some_and(|active| *active);
            return (is_active && self.lets_unlisted(member, own)).then_some((member, own));
        }
        let mut templates = self.templates.iter().filter(|pattern| !pattern.is_rewritten);
        let is_it =
            |pattern: &&Pattern| pattern.template.matches(uri) && !self.is_off(pattern.member, uri);
        templates.find(is_it).map(|pattern| (pattern.member, uri))
    }

    /// The member that lists this template, as an index into the members, and what it is to that.
    pub fn find_template<'a>(&self, template: &'a str) -> Option<(usize, &'a str)> {
        let Listed { member, prefix } = *self.by_template.get(template)?;
        Some((member, &template[prefix..]))
    }

    /// Whether this text is that of a template which was switched off, and which nobody else lists.
    pub fn is_template_off(&self, template: &str) -> bool {
        let by = |text: &str| self.withheld_texts.get(text);
        match self.origin(template) {
            Some((member, own)) => by(own).is_some_and(|members| members.contains(&member)),
            None => by(template).is_some() && !self.by_template.contains_key(template),
        }
    }

    /// Whether a URI may reach a member that does not list it: it may not where an operator has
    /// switched it off there, or the only templates that it can have come of.
    pub fn lets_unlisted(&self, member: usize, uri: &str) -> bool {
        let comes_of = |patterns: &[Pattern]| {
            let mut own = patterns.iter().filter(|pattern| pattern.member == member);
            own.any(|pattern| pattern.template.matches(uri))
        };
        !self.is_off(member, uri)
            && (!comes_of(&self.withheld_templates) || comes_of(&self.templates))
    }

    /// When URIs are rewritten.
    pub fn uri_naming(&self) -> Naming {
        self.uris.naming
    }

    /// The member whose prefix a URI has, and what stands behind it.
    pub fn origin<'a>(&self, uri: &'a str) -> Option<(usize, &'a str)> {
        self.uris.prefixes.origin(uri)
    }

    pub fn prefix(&self, member: usize) -> &str {
        self.uris.prefixes.of(member)
    }

    /// Whether a client is to know what a member calls so behind that member's prefix, as far as lists
    /// and templates tell. `None` where they tell nothing of it.
    pub fn is_rewritten(&self, member: usize, uri: &str) -> Option<bool> {
        let is_listed = || {
            let rewritten = self.uris.rewritten[Kind::Resource].get(member);
            rewritten.is_some_and(|uris| uris.contains(uri))
        };
        let comes_of_rewritten = || {
            let own = |pattern: &&Pattern| pattern.member == member && pattern.is_rewritten;
            self.templates.iter().filter(own).any(|pattern| pattern.template.matches(uri))
        };
        match self.uris.naming {
            Naming::Never => Some(false),
            Naming::Always => Some(true),
            Naming::OnConflict if self.origin(uri).is_some() || is_listed() => Some(true),
            Naming::OnConflict => match self.find(uri) {
                Some((found, _)) => Some(found != member),
                None => comes_of_rewritten().then_some(true),
            },
        }
    }

    /// The JSON array of the shown resources or templates, on one line, ready to be put into an
    /// answer.
    pub fn list(&self, kind: Kind) -> &Bytes {
        match kind {
            Kind::Template => &self.template_list,
            Kind::Tool | Kind::Prompt | Kind::Resource => &self.resource_list,
        }
    }

    /// The shown URIs or templates with their members and what those call them, in no order.
    pub fn shown(&self, kind: Kind) -> impl Iterator<Item = (&str, usize, &str)> {
        let shown = self.shown_of(kind).iter();
        shown.map(|(shown, Listed { member, prefix })| (&**shown, *member, &shown[*prefix..]))
    }

    /// What a shown URI or template is to its server, and the member that lists it.
    pub fn listed(&self, kind: Kind, shown: &str) -> Option<(&str, usize)> {
        let (shown, Listed { member, prefix }) = self.shown_of(kind).get_key_value(shown)?;
        Some((&shown[*prefix..], *member))
    }

    /// The member that is shown with this URI or template as it came.
    pub fn holder(&self, kind: Kind, key: &str) -> Option<usize> {
        let Listed { member, prefix } = *self.shown_of(kind).get(key)?;
        (prefix == 0).then_some(member)
    }

    /// Equal for equal lists: when it changes, clients are to be told.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    fn shown_of(&self, kind: Kind) -> &HashMap<Box<str>, Listed> {
        match kind {
            Kind::Template => &self.by_template,
            Kind::Tool | Kind::Prompt | Kind::Resource => &self.by_uri,
        }
    }

    fn is_off(&self, member: usize, uri: &str) -> bool {
        // A set of pairs cannot be asked by borrowed ones, and it is nearly always empty.
        !self.withheld.is_empty() && self.withheld.contains(&(member, uri.into()))
    }
}

/// One list while it is made.
struct Gathered {
    /// By what clients see.
    listed: HashMap<Box<str>, Listed>,
    /// The same in the order in which they are listed.
    order: Vec<Box<str>>,
    withheld: HashSet<(usize, Box<str>)>,
    list: Bytes,
}

fn gather(
    kind: Kind,
    members: &[Member<'_>],
    curation: &Curation,
    uris: &Uris,
    hidden: &mut Vec<Hidden>,
) -> Gathered {
    let mut listed: HashMap<Box<str>, Listed> = HashMap::new();
    let (mut order, mut withheld) = (Vec::new(), HashSet::new());
    let mut list = BytesMut::from(&b"["[..]);
    for (index, member) in members.iter().enumerate().filter(|(_, member)| member.active) {
        // Also what is not listed just now may not be asked for.
        withheld.extend(curation.inactive(member.server).map(|key| (index, key.into())));
        for item in member.items {
            if !curation.is_active(member.server, &item.key) {
                continue;
            }
            let prefix = uris.prefix(kind, index, &item.key);
            let shown: Box<str> = format!("{prefix}{}", item.key).into();
            if let Some(holder) = listed.get(&shown) {
                let taken_by: Uuid = members[holder.member].server;
                let (server, tool) = (member.server, item.key.clone());
                hidden.push(Hidden { server, tool, why: Why::NameTaken { taken_by } });
                continue;
            }
            if !order.is_empty() {
                list.extend_from_slice(b",");
            }
            let (before, rest) = item.definition.split_at(item.key_span.start + "\"".len());
            list.extend_from_slice(before);
            list.extend_from_slice(prefix.as_bytes());
            list.extend_from_slice(rest);
            listed.insert(shown.clone(), Listed { member: index, prefix: prefix.len() });
            order.push(shown);
        }
    }
    list.extend_from_slice(b"]");
    Gathered { listed, order, withheld, list: list.freeze() }
}

#[cfg(test)]
#[path = "resources_tests.rs"]
mod tests;
