//! Lists of resources, and ways from their URIs, over servers that the test makes up.

#![allow(clippy::unwrap_used)]

use super::{
    super::{curation::Decision, item::Item, overrides::Overrides, uris::Prefixes},
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
    rewriting(servers, off, Uris::default())
}

fn rewriting(
    servers: &[Server],
    off: &[(Kind, usize, &str)],
    uris: Uris,
) -> (Resources, PerKind<Vec<Hidden>>) {
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
    Resources::build(&resources, &templates, &curations, uris)
}

/// Who has a URI where none is rewritten.
fn find(resources: &Resources, uri: &str) -> Option<usize> {
    let (member, own) = resources.find(uri)?;
    assert_eq!(own, uri);
    Some(member)
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
        assert_eq!(find(&resources, uri), member, "{uri}");
    }
    assert_eq!(resources.find_template("u://b/{other}"), Some((2, "u://b/{other}")));
    assert_eq!(resources.find_template("u://b/2"), None);
    assert!(hidden.iter().all(|(_, hidden)| hidden.is_empty()));
}

#[test]
fn the_first_keeps_a_uri_and_the_others_are_reported() {
    let mut servers = [server(&["u://a"], &["u://{x}"]), server(&["u://a"], &["u://{x}"])];
    let (resources, hidden) = build(&servers, &[]);
    assert_eq!((find(&resources, "u://a"), find(&resources, "u://z")), (Some(0), Some(0)));
    for (kind, key) in [(Kind::Resource, "u://a"), (Kind::Template, "u://{x}")] {
        let why = Why::NameTaken { taken_by: Uuid::from_u128(0) };
        let (server, tool) = (Uuid::from_u128(1), key.into());
        assert_eq!(hidden[kind], [Hidden { server, tool, why }]);
        assert_eq!(resources.list(kind).windows(4).filter(|bytes| bytes == b"u://").count(), 1);
    }
    servers[0].active = false;
    assert_eq!(find(&build(&servers, &[]).0, "u://a"), Some(1));
}

#[test]
fn what_is_switched_off_is_reached_by_no_way() {
    let servers = [server(&["u://a"], &["u://{x}", "u://{x}/deep"]), server(&["u://a"], &[])];
    let (resources, hidden) = build(&servers, &[(Kind::Resource, 0, "u://a")]);
    assert_eq!(find(&resources, "u://a"), Some(1), "the next in line has it");
    assert!(hidden[Kind::Resource].is_empty());
    assert!(!resources.lets_unlisted(0, "u://a"));
    assert!(resources.lets_unlisted(0, "u://b") && resources.lets_unlisted(1, "u://b"));

    let off = [(Kind::Resource, 0, "u://gone"), (Kind::Template, 0, "u://{x}/deep")];
    let (resources, _) = build(&servers, &off);
    assert_eq!(find(&resources, "u://gone"), None, "though a template would have it");
    assert_eq!(find(&resources, "u://1/deep"), None);
    assert!(!resources.lets_unlisted(0, "u://1/deep") && !resources.lets_unlisted(0, "u://gone"));
    assert!(resources.lets_unlisted(1, "u://1/deep"));
    assert!(resources.is_template_off("u://{x}/deep") && !resources.is_template_off("u://{x}"));
}

#[test]
fn what_is_rewritten_is_listed_and_found_behind_its_prefix_alone() {
    let mut servers = [server(&["u://a"], &["t://{x}"]), server(&["u://a"], &["t://{x}"])];
    let uris = || {
        let prefixes = Prefixes::new([(Uuid::from_u128(0), "a"), (Uuid::from_u128(1), "B")]);
        let of = |key: &str| vec![HashSet::new(), HashSet::from([key.into()])];
        let mut rewritten = PerKind::default();
        rewritten[Kind::Resource] = of("u://a");
        rewritten[Kind::Template] = of("t://{x}");
        Uris { naming: Naming::OnConflict, prefixes, rewritten }
    };
    let (resources, hidden) = rewriting(&servers, &[], uris());
    assert_eq!(
        resources.list(Kind::Resource),
        r#"[{ "uri" : "u://a","x":1.0},{ "uri" : "mcp+.b+u://a","x":1.0}]"#
    );
    assert!(hidden.iter().all(|(_, hidden)| hidden.is_empty()));
    for (uri, found) in [
        ("u://a", Some((0, "u://a"))),
        ("mcp+.b+u://a", Some((1, "u://a"))),
        ("mcp+a+u://a", Some((0, "u://a"))),
        ("t://1", Some((0, "t://1"))),
        ("mcp+.b+t://1", Some((1, "t://1"))),
        ("mcp+.b+w://unlisted", Some((1, "w://unlisted"))),
        ("mcp+c+t://1", None),
        ("mcp+.b+", None),
    ] {
        assert_eq!(resources.find(uri), found, "{uri}");
    }
    assert_eq!(resources.find_template("mcp+.b+t://{x}"), Some((1, "t://{x}")));
    let told = |member, uri| resources.is_rewritten(member, uri);
    assert_eq!((told(0, "t://1"), told(1, "t://1")), (Some(false), Some(true)));
    assert_eq!((told(0, "mcp+.b+x"), told(0, "w://x")), (Some(true), None));
    assert_eq!(resources.holder(Kind::Resource, "u://a"), Some(0));
    assert_eq!(resources.holder(Kind::Resource, "mcp+.b+u://a"), None);

    let off = [(Kind::Resource, 1, "u://a"), (Kind::Template, 1, "t://{x}")];
    let (resources, _) = rewriting(&servers, &off, uris());
    assert_eq!(resources.find("mcp+.b+u://a"), None);
    assert_eq!(resources.find("mcp+.b+t://1"), None);
    assert!(resources.is_template_off("mcp+.b+t://{x}"));
    assert!(!resources.is_template_off("t://{x}"));

    servers[0].active = false;
    let (resources, _) = rewriting(&servers, &[], uris());
    assert_eq!(resources.find("mcp+a+u://a"), None, "its server is switched off");
    assert_eq!(resources.is_rewritten(1, "t://1"), Some(true), "though nobody has the other");
}
