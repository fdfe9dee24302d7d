//! The published picture of a namespace: the prepared list, and the way from each shown name to the
//! upstream that answers to it.
//!
//! A `Routes` never changes; a newer one takes its place. The names are decided in `naming`, who may
//! use them in `access`, and whether the upstream is alive when it is called, by the upstream.

use std::collections::{HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    naming::{Assignment, Naming, Shown},
    tool::Tool,
};

/// One server of the namespace, as far as its routes depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    pub server: Uuid,
    /// Whether the membership is `ACTIVE`.
    pub active: bool,
    /// In the upstream's own order.
    pub tools: &'a [Tool],
    /// The upstream's own names of the tools that are `INACTIVE` in this namespace, whether it
    /// lists them at present or not.
    pub inactive_tools: &'a HashSet<Box<str>>,
}

/// Where a call of one shown name goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The index into the members that the routes were built from.
    pub member: usize,
    pub server: Uuid,
    /// The upstream's own name, by which policies and logs know the tool.
    pub tool: Box<str>,
    /// The same as the JSON string that came, to be put into the forwarded call.
    pub tool_json: Bytes,
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
    /// `ACTIVE` member, in the order of the members and of their own lists.
    pub fn build(members: &[Member<'_>], assignment: &Assignment) -> Routes {
        let shown_names: HashMap<(Uuid, &str), &str> = assignment
            .shown
            .iter()
            .map(|Shown { server, tool, shown_name }| ((*server, &**tool), &**shown_name))
            .collect();

        let mut by_name = HashMap::with_capacity(shown_names.len());
        let mut list = BytesMut::from(&b"["[..]);
        for (index, member) in members.iter().enumerate().filter(|(_, member)| member.active) {
            for tool in member.tools {
                let Some(shown_name) = shown_names.get(&(member.server, &*tool.name)) else {
                    continue;
                };
                if member.inactive_tools.contains(&tool.name) || by_name.contains_key(*shown_name) {
                    continue;
                }
                if !by_name.is_empty() {
                    list.extend_from_slice(b",");
                }
                append_renamed(&mut list, tool, shown_name);
                let route = Route {
                    member: index,
                    server: member.server,
                    tool: tool.name.clone(),
                    tool_json: tool.name_json(),
                };
                by_name.insert((*shown_name).into(), route);
            }
        }
        list.extend_from_slice(b"]");
        let list = list.freeze();
        let digest = Sha256::digest(&list).into();
        Routes { by_name, list, digest }
    }

    /// The routes of a namespace that offers nothing.
    pub fn empty() -> Routes {
        Self::build(&[], &Assignment::default())
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
/// nothing else: names are never changed, one single member is `ACTIVE`, and no tool of that name
/// was made `INACTIVE` anywhere in the namespace. The caller has made sure that its principal is
/// not confined to certain tools.
pub fn forwardable(naming: Naming, name: &str, members: &[Member<'_>]) -> Option<usize> {
    if naming != Naming::Never || members.iter().any(|member| member.inactive_tools.contains(name))
    {
        return None;
    }
    let mut active = (0..members.len()).filter(|index| members[*index].active);
    let only = active.next()?;
    active.next().is_none().then_some(only)
}

/// Everything verbatim but the token of the name. What an operator overrides has its place here.
fn append_renamed(list: &mut BytesMut, tool: &Tool, shown_name: &str) {
    list.extend_from_slice(&tool.definition[..tool.name_span.start]);
    list.extend_from_slice(serde_json::Value::from(shown_name).to_string().as_bytes());
    list.extend_from_slice(&tool.definition[tool.name_span.end..]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{
        super::naming::{KnownNames, MemberTools, assign},
        *,
    };

    struct Server {
        number: u128,
        name: &'static str,
        active: bool,
        tools: Vec<Tool>,
        inactive: HashSet<Box<str>>,
    }

    fn server(number: u128, name: &'static str, definitions: &[&'static str]) -> Server {
        let tools =
            definitions.iter().map(|text| Tool::parse(Bytes::from(*text)).unwrap()).collect();
        Server { number, name, active: true, tools, inactive: HashSet::new() }
    }

    impl Server {
        fn inactive(mut self) -> Self {
            self.active = false;
            self
        }

        fn without(mut self, tool: &str) -> Self {
            self.inactive.insert(tool.into());
            self
        }
    }

    fn members(servers: &[Server]) -> Vec<Member<'_>> {
        servers
            .iter()
            .map(|server| Member {
                server: Uuid::from_u128(server.number),
                active: server.active,
                tools: &server.tools,
                inactive_tools: &server.inactive,
            })
            .collect()
    }

    fn routes(naming: Naming, servers: &[Server]) -> Routes {
        let tools: Vec<Vec<&str>> = servers
            .iter()
            .map(|server| server.tools.iter().map(|tool| &*tool.name).collect())
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
        Routes::build(&members, &assign(naming, 48, &named, &KnownNames::default()))
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
        assert_eq!((route.member, route.server, &*route.tool), (1, Uuid::from_u128(2), "t"));
        assert_eq!(route.tool_json, r#""\u0074""#);
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
        ] {
            assert_eq!(forwardable(naming, "secret", &members(&servers)), expected, "{case}");
        }
    }
}
