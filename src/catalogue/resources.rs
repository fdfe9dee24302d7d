//! The resources of a namespace: their lists, and the way from a URI to the upstream that has it.
//!
//! URIs are shown as they came. Where several upstreams have one, the first in the order of the
//! namespace keeps it, and the others are hidden and reported. What no list tells, and whether the
//! upstream is alive, is for others.

use std::collections::{HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    curation::Curation,
    kind::{Kind, PerKind},
    naming::{Hidden, Why},
    routes::Member,
    template::Template,
};

/// An immutable snapshot: made once for each change, read by every request.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Listed URIs with their members.
    by_uri: HashMap<Box<str>, usize>,
    /// Listed templates, as texts, with their members.
    by_template: HashMap<Box<str>, usize>,
    /// The same, to be held against URIs: the most specific first.
    templates: Vec<Pattern>,
    /// What was switched off, by its member: URIs, templates as texts, and templates to be held
    /// against URIs.
    withheld: HashSet<(usize, Box<str>)>,
    withheld_texts: HashSet<Box<str>>,
    withheld_templates: Vec<Pattern>,
    resource_list: Bytes,
    template_list: Bytes,
    digest: [u8; 32],
}

#[derive(Clone, Debug)]
struct Pattern {
    template: Template,
    member: usize,
}

impl Resources {
    /// Lists each resource and each template that is not `INACTIVE` and belongs to an `ACTIVE`
    /// member, in the order of the members and of their own lists; and says which of them another
    /// member has taken the place of.
    pub fn build(
        resources: &[Member<'_>],
        templates: &[Member<'_>],
        curations: &PerKind<Curation>,
    ) -> (Resources, PerKind<Vec<Hidden>>) {
        let mut hidden = PerKind::default();
        let one = gather(resources, &curations[Kind::Resource], &mut hidden[Kind::Resource]);
        let other = gather(templates, &curations[Kind::Template], &mut hidden[Kind::Template]);
        let mut digest = Sha256::new();
        digest.update(&one.list);
        digest.update(&other.list);

        let pattern =
            |text: &str, member: usize| Some(Pattern { template: Template::parse(text)?, member });
        let mut patterns: Vec<Pattern> = other
            .order
            .iter()
            .filter_map(|text| pattern(text, *other.members.get(text)?))
            .collect();
        // A stable sort: of two that say as much, the earlier counts.
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.template.specificity()));
        let resources = Resources {
            withheld_templates: other
                .withheld
                .iter()
                .filter_map(|(member, text)| pattern(text, *member))
                .collect(),
            withheld_texts: other.withheld.into_iter().map(|(_, text)| text).collect(),
            withheld: one.withheld,
            by_uri: one.members,
            by_template: other.members,
            templates: patterns,
            resource_list: one.list,
            template_list: other.list,
            digest: digest.finalize().into(),
        };
        (resources, hidden)
    }

    pub fn empty() -> Resources {
        Self::build(&[], &[], &PerKind::default()).0
    }

    /// The member that has this URI: the one that lists it, or else the one with the template that
    /// says most about it, as an index into the members.
    pub fn find(&self, uri: &str) -> Option<usize> {
        let listed = self.by_uri.get(uri).copied();
        listed.or_else(|| {
            let mut templates = self.templates.iter();
            let is_it = |pattern: &&Pattern| {
                pattern.template.matches(uri) && !self.is_off(pattern.member, uri)
            };
            templates.find(is_it).map(|pattern| pattern.member)
        })
    }

    /// The member that lists this template, as an index into the members.
    pub fn find_template(&self, template: &str) -> Option<usize> {
        self.by_template.get(template).copied()
    }

    /// Whether this text is that of a template which was switched off, and which nobody else lists.
    pub fn is_template_off(&self, template: &str) -> bool {
        self.withheld_texts.contains(template) && !self.by_template.contains_key(template)
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

    /// The JSON array of the shown resources or templates, on one line, ready to be put into an
    /// answer.
    pub fn list(&self, kind: Kind) -> &Bytes {
        match kind {
            Kind::Template => &self.template_list,
            Kind::Tool | Kind::Prompt | Kind::Resource => &self.resource_list,
        }
    }

    /// The shown URIs or templates with their members, in no order.
    pub fn shown(&self, kind: Kind) -> impl Iterator<Item = (&str, usize)> {
        let shown = match kind {
            Kind::Template => &self.by_template,
            Kind::Tool | Kind::Prompt | Kind::Resource => &self.by_uri,
        };
        shown.iter().map(|(key, member)| (&**key, *member))
    }

    /// Equal for equal lists: when it changes, clients are to be told.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    fn is_off(&self, member: usize, uri: &str) -> bool {
        // A set of pairs cannot be asked by borrowed ones, and it is nearly always empty.
        !self.withheld.is_empty() && self.withheld.contains(&(member, uri.into()))
    }
}

/// One list while it is made.
struct Gathered {
    members: HashMap<Box<str>, usize>,
    /// The keys in the order in which they are listed.
    order: Vec<Box<str>>,
    withheld: HashSet<(usize, Box<str>)>,
    list: Bytes,
}

fn gather(members: &[Member<'_>], curation: &Curation, hidden: &mut Vec<Hidden>) -> Gathered {
    let mut by_key: HashMap<Box<str>, usize> = HashMap::new();
    let (mut order, mut withheld) = (Vec::new(), HashSet::new());
    let mut list = BytesMut::from(&b"["[..]);
    for (index, member) in members.iter().enumerate().filter(|(_, member)| member.active) {
        // Also what is not listed just now may not be asked for.
        withheld.extend(curation.inactive(member.server).map(|key| (index, key.into())));
        for item in member.items {
            if !curation.is_active(member.server, &item.key) {
                continue;
            }
            if let Some(holder) = by_key.get(&item.key) {
                let taken_by: Uuid = members[*holder].server;
                let (server, tool) = (member.server, item.key.clone());
                hidden.push(Hidden { server, tool, why: Why::NameTaken { taken_by } });
                continue;
            }
            if !order.is_empty() {
                list.extend_from_slice(b",");
            }
            list.extend_from_slice(&item.definition);
            by_key.insert(item.key.clone(), index);
            order.push(item.key.clone());
        }
    }
    list.extend_from_slice(b"]");
    Gathered { members: by_key, order, withheld, list: list.freeze() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{
        super::{curation::Decision, item::Item, overrides::Overrides},
        *,
    };

    struct Server {
        active: bool,
        resources: Vec<Item>,
        templates: Vec<Item>,
    }

    fn server(resources: &[&'static str], templates: &[&'static str]) -> Server {
        let items = |kind: Kind, keys: &[&'static str]| {
            let definition = |key| format!(r#"{{ "{}" : "{key}","x":1.0}}"#, kind.key_field());
            keys.iter().map(|key| Item::parse(kind, definition(key).into()).unwrap()).collect()
        };
        Server {
            active: true,
            resources: items(Kind::Resource, resources),
            templates: items(Kind::Template, templates),
        }
    }

    fn build(servers: &[Server], off: &[(Kind, usize, &str)]) -> (Resources, PerKind<Vec<Hidden>>) {
        let members = |items: fn(&Server) -> &Vec<Item>| -> Vec<Member<'_>> {
            let servers = servers.iter().enumerate();
            servers
                .map(|(index, server)| Member {
                    server: Uuid::from_u128(index as u128),
                    active: server.active,
                    items: items(server),
                })
                .collect()
        };
        let mut curations = PerKind::<Curation>::default();
        for (kind, index, key) in off {
            let overrides = Overrides::default();
            let decision = Decision { is_active: false, name: None, overrides };
            curations[*kind].decide(Uuid::from_u128(*index as u128), key, decision);
        }
        let (resources, templates) =
            (members(|server| &server.resources), members(|server| &server.templates));
        Resources::build(&resources, &templates, &curations)
    }

    #[test]
    fn lists_are_what_came_in_order() {
        let servers = [server(&["u://b", "u://a"], &["u://{x}"]), server(&["u://c"], &[])];
        let (resources, _) = build(&servers, &[]);
        assert_eq!(
            resources.list(Kind::Resource),
            r#"[{ "uri" : "u://b","x":1.0},{ "uri" : "u://a","x":1.0},{ "uri" : "u://c","x":1.0}]"#
        );
        assert_eq!(resources.list(Kind::Template), r#"[{ "uriTemplate" : "u://{x}","x":1.0}]"#);
        assert_eq!(Resources::empty().list(Kind::Resource), "[]");
        assert_ne!(resources.digest(), Resources::empty().digest());
    }

    #[test]
    fn a_uri_leads_to_who_lists_it_or_else_to_the_most_specific_template() {
        let servers = [
            server(&["u://a"], &["u://{+all}"]),
            server(&["u://b/1"], &["u://b/{id}", "broken://{"]),
            server(&[], &["u://b/{id}/x", "u://b/{other}"]),
        ];
        let (resources, hidden) = build(&servers, &[]);
        for (uri, member) in [
            ("u://a", Some(0)),
            ("u://b/1", Some(1)),
            ("u://b/2", Some(1)),
            ("u://b/2/x", Some(2)),
            ("u://z/2/x", Some(0)),
            ("v://a", None),
            ("broken://{", None),
        ] {
            assert_eq!(resources.find(uri), member, "{uri}");
        }
        assert_eq!(resources.find_template("u://b/{other}"), Some(2));
        assert_eq!(resources.find_template("u://b/2"), None);
        assert!(hidden.iter().all(|(_, hidden)| hidden.is_empty()));
    }

    #[test]
    fn the_first_keeps_a_uri_and_the_others_are_reported() {
        let mut servers = [server(&["u://a"], &["u://{x}"]), server(&["u://a"], &["u://{x}"])];
        let (resources, hidden) = build(&servers, &[]);
        assert_eq!((resources.find("u://a"), resources.find("u://z")), (Some(0), Some(0)));
        for (kind, key) in [(Kind::Resource, "u://a"), (Kind::Template, "u://{x}")] {
            let why = Why::NameTaken { taken_by: Uuid::from_u128(0) };
            let (server, tool) = (Uuid::from_u128(1), key.into());
            assert_eq!(hidden[kind], [Hidden { server, tool, why }]);
            assert_eq!(resources.list(kind).windows(4).filter(|bytes| bytes == b"u://").count(), 1);
        }
        servers[0].active = false;
        assert_eq!(build(&servers, &[]).0.find("u://a"), Some(1));
    }

    #[test]
    fn what_is_switched_off_is_reached_by_no_way() {
        let servers = [server(&["u://a"], &["u://{x}", "u://{x}/deep"]), server(&["u://a"], &[])];
        let (resources, hidden) = build(&servers, &[(Kind::Resource, 0, "u://a")]);
        assert_eq!(resources.find("u://a"), Some(1), "the next in line has it");
        assert!(hidden[Kind::Resource].is_empty());
        assert!(!resources.lets_unlisted(0, "u://a"));
        assert!(resources.lets_unlisted(0, "u://b") && resources.lets_unlisted(1, "u://b"));

        let off = [(Kind::Resource, 0, "u://gone"), (Kind::Template, 0, "u://{x}/deep")];
        let (resources, _) = build(&servers, &off);
        assert_eq!(resources.find("u://gone"), None, "though a template would have it");
        assert_eq!(resources.find("u://1/deep"), None);
        assert!(
            !resources.lets_unlisted(0, "u://1/deep") && !resources.lets_unlisted(0, "u://gone")
        );
        assert!(resources.lets_unlisted(1, "u://1/deep"));
        assert!(resources.is_template_off("u://{x}/deep") && !resources.is_template_off("u://{x}"));
    }
}
