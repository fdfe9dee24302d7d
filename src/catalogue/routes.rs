//! The published picture of a namespace's tools, and of its prompts: the prepared list, and the way
//! from each shown name to the upstream that answers to it.
//!
//! A `Routes` never changes; a newer one takes its place. The names are decided in `naming`, who may
//! use them in `access`, and whether the upstream is alive when it is called, by the upstream.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    curation::Curation,
    item::Item,
    naming::{Assignment, Naming, Shown},
    overrides::{Overrides, append_shown},
    task_support::TaskSupport,
};

/// One server of the namespace, as far as its routes depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    pub server: Uuid,
    /// Whether the membership is `ACTIVE`.
    pub active: bool,
    /// In the upstream's own order.
    pub items: &'a [Item],
}

/// Where a call of one shown name goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The index into the members that the routes were built from.
    pub member: usize,
    pub server: Uuid,
    /// The upstream's own name, by which policies and logs know it.
    pub key: Box<str>,
    /// The same as the JSON string that came, to be put into the forwarded call.
    pub key_json: Bytes,
    /// Whether a tool can be called as a task; `None` where it is not listed.
    pub tasks: Option<TaskSupport>,
}

/// An immutable snapshot: made once for each change, read by every call.
#[derive(Clone, Debug)]
pub struct Routes {
    by_name: HashMap<Box<str>, Route>,
    list: Bytes,
    digest: [u8; 32],
}

impl Routes {
    /// Lists and routes each tool that has a shown name, is not `INACTIVE` and belongs to an
    /// `ACTIVE` member, in the order of the members and of their own lists; by that one name and by
    /// no other.
    pub fn build(members: &[Member<'_>], assignment: &Assignment, curation: &Curation) -> Routes {
        let own_names: HashMap<(Uuid, &str), &str> = assignment
            .shown
            .iter()
            .map(|Shown { server, tool, shown_name }| ((*server, &**tool), &**shown_name))
            .collect();
        let shown_name = |server: Uuid, tool: &str| {
            let own_name = || own_names.get(&(server, tool)).copied();
            assignment.renamed.get(server, tool).or_else(own_name)
        };
        let as_they_came = Overrides::default();

        let mut by_name = HashMap::with_capacity(own_names.len());
        let mut list = BytesMut::from(&b"["[..]);
        for (index, member) in members.iter().enumerate().filter(|(_, member)| member.active) {
            for tool in member.items {
                let Some(shown_name) = shown_name(member.server, &tool.key) else { continue };
                if !curation.is_active(member.server, &tool.key) || by_name.contains_key(shown_name)
                {
                    continue;
                }
                if !by_name.is_empty() {
                    list.extend_from_slice(b",");
                }
                let overrides = curation.overrides(member.server, &tool.key);
                append_shown(&mut list, tool, shown_name, overrides.unwrap_or(&as_they_came));
                let route = Route {
                    member: index,
                    server: member.server,
                    key: tool.key.clone(),
                    key_json: tool.key_json(),
                    tasks: Some(tool.task_support()),
                };
                by_name.insert(shown_name.into(), route);
            }
        }
        list.extend_from_slice(b"]");
        let list = list.freeze();
        let digest = Sha256::digest(&list).into();
        Routes { by_name, list, digest }
    }

    /// The routes of a namespace that offers nothing.
    pub fn empty() -> Routes {
        Self::build(&[], &Assignment::default(), &Curation::default())
    }

    pub fn find(&self, shown_name: &str) -> Option<&Route> {
        self.by_name.get(shown_name)
    }

    /// Every shown name with where it leads, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Route)> {
        self.by_name.iter().map(|(name, route)| (&**name, route))
    }

    /// The JSON array of the shown tools, on one line, ready to be put into an answer.
    pub fn list(&self) -> &Bytes {
        &self.list
    }

    /// Equal for equal lists: when it changes, clients are to be told.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// The member that a call of an unlisted `name` is forwarded to, as an index into `members`.
///
/// Some servers have tools they do not list. Such a name is let through only where it can mean
/// nothing else: names are never changed, one single member is `ACTIVE`, no member lists a tool of
/// that name, which then is not shown by it for a reason, and no decision of the operator stands
/// against it. The caller has made sure that its principal is not confined to certain tools.
pub fn forwardable(
    naming: Naming,
    name: &str,
    members: &[Member<'_>],
    curation: &Curation,
) -> Option<usize> {
    let is_listed = || members.iter().any(|member| member.items.iter().any(|t| *t.key == *name));
    if naming != Naming::Never || !curation.lets_unlisted(name) || is_listed() {
        return None;
    }
    let mut active = (0..members.len()).filter(|index| members[*index].active);
    let only = active.next()?;
    active.next().is_none().then_some(only)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{
        super::{
            curation::Decision,
            kind::Kind,
            naming::{KnownNames, MemberTools, assign},
        },
        *,
    };

    struct Server {
        number: u128,
        name: &'static str,
        active: bool,
        tools: Vec<Item>,
        decisions: Vec<(&'static str, Decision)>,
    }

    fn server(number: u128, name: &'static str, definitions: &[&'static str]) -> Server {
        let tools = definitions
            .iter()
            .map(|text| Item::parse(Kind::Tool, Bytes::from(*text)).unwrap())
            .collect();
        Server { number, name, active: true, tools, decisions: Vec::new() }
    }

    impl Server {
        fn inactive(mut self) -> Self {
            self.active = false;
            self
        }

        fn without(self, tool: &'static str) -> Self {
            self.decided(tool, false, None)
        }

        fn renamed(self, tool: &'static str, name: &str) -> Self {
            self.decided(tool, true, Some(name))
        }

        fn decided(mut self, tool: &'static str, is_active: bool, name: Option<&str>) -> Self {
            let overrides = Overrides::default();
            let decision = Decision { is_active, name: name.map(Into::into), overrides };
            self.decisions.push((tool, decision));
            self
        }
    }

    fn members(servers: &[Server]) -> Vec<Member<'_>> {
        servers
            .iter()
            .map(|server| Member {
                server: Uuid::from_u128(server.number),
                active: server.active,
                items: &server.tools,
            })
            .collect()
    }

    fn curation(new_tools_active: bool, servers: &[Server]) -> Curation {
        let mut curation = Curation::new(new_tools_active);
        for server in servers {
            for (tool, decision) in &server.decisions {
                curation.decide(Uuid::from_u128(server.number), tool, decision.clone());
            }
        }
        curation
    }

    fn routes(naming: Naming, servers: &[Server]) -> Routes {
        curated(naming, servers, &curation(true, servers))
    }

    fn curated(naming: Naming, servers: &[Server], curation: &Curation) -> Routes {
        let tools: Vec<Vec<&str>> = servers
            .iter()
            .map(|server| server.tools.iter().map(|tool| &*tool.key).collect())
            .collect();
        let members = members(servers);
        let named: Vec<_> = servers
            .iter()
            .zip(&tools)
            .map(|(server, tools)| MemberTools {
                server: Uuid::from_u128(server.number),
                server_name: server.name,
                tools,
            })
            .collect();
        let known = KnownNames::default();
        let assignment = assign(naming, 48, &named, &known, &curation.renamings());
        Routes::build(&members, &assignment, curation)
    }

    #[test]
    fn the_list_is_what_came_but_for_the_names() {
        let routes = routes(
            Naming::Always,
            &[
                server(
                    1,
                    "a",
                    &[r#"{ "x":1.0, "name" : "t", "y":{"name":"t"} }"#, r#"{"name":"u"}"#],
                ),
                server(2, "b", &[r#"{"name":"\u0074"}"#]),
            ],
        );
        assert_eq!(
            routes.list(),
            r#"[{ "x":1.0, "name" : "a__t", "y":{"name":"t"} },{"name":"a__u"},{"name":"b__t"}]"#
        );
    }

    #[test]
    fn a_shown_name_leads_to_the_upstreams_own() {
        let routes = routes(
            Naming::OnConflict,
            &[server(1, "a", &[r#"{"name":"t"}"#]), server(2, "b", &[r#"{"name":"\u0074"}"#])],
        );
        let route = routes.find("b__t").unwrap();
        assert_eq!((route.member, route.server, &*route.key), (1, Uuid::from_u128(2), "t"));
        assert_eq!(route.key_json, r#""\u0074""#);
        assert_eq!(routes.find("t").unwrap().member, 0);
        assert_eq!(routes.find("a__t"), None);
    }

    #[test]
    fn what_is_inactive_is_neither_listed_nor_routed() {
        let routes = routes(
            Naming::Always,
            &[
                server(1, "a", &[r#"{"name":"t"}"#]).inactive(),
                server(2, "b", &[r#"{"name":"t"}"#, r#"{"name":"u"}"#]).without("t"),
            ],
        );
        assert_eq!(routes.list(), r#"[{"name":"b__u"}]"#);
        assert!(routes.find("a__t").is_none() && routes.find("b__t").is_none());
        assert_eq!(routes.find("b__u").unwrap().member, 1);
    }

    #[test]
    fn a_hidden_tool_is_neither_listed_nor_routed() {
        let routes = routes(
            Naming::Never,
            &[server(1, "a", &[r#"{"name":"t"}"#]), server(2, "b", &[r#"{"name":"t","z":1}"#])],
        );
        assert_eq!(routes.list(), r#"[{"name":"t"}]"#);
        assert_eq!(routes.find("t").unwrap().member, 0);
    }

    #[test]
    fn a_renamed_tool_is_listed_and_called_by_its_chosen_name_alone() {
        for naming in [Naming::Always, Naming::OnConflict, Naming::Never] {
            let servers = [
                server(1, "a", &[r#"{"name":"t"}"#]).renamed("t", "find"),
                server(2, "b", &[r#"{"name":"u"}"#]).without("u").renamed("gone", "kept"),
            ];
            let routes = routes(naming, &servers);
            assert_eq!(routes.list(), r#"[{"name":"find"}]"#, "{naming:?}");
            assert_eq!(&*routes.find("find").unwrap().key, "t");
            for name in ["t", "a__t", "a__find", "u", "b__u", "kept", "gone"] {
                assert!(routes.find(name).is_none(), "{name} {naming:?}");
            }
        }
    }

    #[test]
    fn an_inactive_tool_has_no_name_at_all_though_it_was_renamed() {
        let servers = [server(1, "a", &[r#"{"name":"t"}"#]).decided("t", false, Some("find"))];
        let routes = routes(Naming::Never, &servers);
        assert_eq!(routes.list(), "[]");
        assert_eq!(routes.iter().count(), 0);
        let curation = curation(true, &servers);
        for name in ["t", "find"] {
            assert_eq!(forwardable(Naming::Never, name, &members(&servers), &curation), None);
        }
    }

    #[test]
    fn a_new_tool_takes_the_default_and_a_decided_one_does_not() {
        let servers =
            [server(1, "a", &[r#"{"name":"t"}"#, r#"{"name":"new"}"#]).decided("t", true, None)];
        let list =
            |default| curated(Naming::Never, &servers, &curation(default, &servers)).list().clone();
        assert_eq!(list(true), r#"[{"name":"t"},{"name":"new"}]"#);
        assert_eq!(list(false), r#"[{"name":"t"}]"#);
    }

    #[test]
    fn the_digest_tells_whether_the_list_changed() {
        let build = |definition| routes(Naming::Always, &[server(1, "a", &[definition])]).digest();
        assert_eq!(build(r#"{"name":"t"}"#), build(r#"{"name":"t"}"#));
        assert_ne!(build(r#"{"name":"t"}"#), build(r#"{"name":"t","title":"x"}"#));
    }

    #[test]
    fn nothing_to_offer_is_an_empty_list() {
        assert_eq!(Routes::empty().list(), "[]");
    }

    #[test]
    fn an_unlisted_name_is_forwarded_only_where_it_can_mean_nothing_else() {
        let one = || server(1, "a", &[]);
        let away = || server(2, "b", &[]).inactive();
        let listing = || server(1, "a", &[r#"{"name":"secret"}"#]);
        for (case, naming, servers, expected) in [
            ("the only one", Naming::Never, vec![one()], Some(0)),
            ("the only active one", Naming::Never, vec![away(), one()], Some(1)),
            ("none", Naming::Never, vec![], None),
            ("none active", Naming::Never, vec![away()], None),
            ("two active", Naming::Never, vec![one(), server(3, "c", &[])], None),
            ("always prefixed", Naming::Always, vec![one()], None),
            ("sometimes prefixed", Naming::OnConflict, vec![one()], None),
            ("made inactive", Naming::Never, vec![one().without("secret")], None),
            ("made inactive elsewhere", Naming::Never, vec![one(), away().without("secret")], None),
            ("another made inactive", Naming::Never, vec![one().without("other")], Some(0)),
            ("taken from a tool", Naming::Never, vec![one().renamed("secret", "open")], None),
            ("given to a tool", Naming::Never, vec![one().renamed("open", "secret")], None),
            ("listed, and not shown", Naming::Never, vec![listing()], None),
        ] {
            let decided = curation(true, &servers);
            let found = forwardable(naming, "secret", &members(&servers), &decided);
            assert_eq!(found, expected, "{case}");
        }
        let new_tools_off = curation(false, &[]);
        assert_eq!(forwardable(Naming::Never, "secret", &members(&[one()]), &new_tools_off), None);
    }
}
