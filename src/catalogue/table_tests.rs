//! The three modes of naming against everything that can come between a tool and its name. Each
//! row is a history; after each of its steps the shown names are unique, legal, independent of the
//! order of the servers and the same after a restart, and each leads to its own tool.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    curation::{Curation, Decision},
    item::Item,
    kind::Kind,
    naming::{Assignment, KnownNames, MemberTools, Naming, Naming::*, assign},
    overrides::Overrides,
    routes::{Member, Routes},
};

const MODES: [Naming; 3] = [Always, OnConflict, Never];

/// A server at one step: its number, its present name, its tools, and chosen names for some.
#[derive(Clone, Copy)]
struct Server<'a> {
    number: u128,
    name: &'a str,
    tools: &'a [&'a str],
    chosen: &'a [(&'a str, &'a str)],
}

fn server<'a>(number: u128, name: &'a str, tools: &'a [&'a str]) -> Server<'a> {
    Server { number, name, tools, chosen: &[] }
}

impl<'a> Server<'a> {
    fn chosen(self, chosen: &'a [(&'a str, &'a str)]) -> Self {
        Self { chosen, ..self }
    }
}

/// Shown name to the number of the server and the tool that a call of it reaches.
type Reached = BTreeMap<String, (u128, String)>;

fn publish(naming: Naming, servers: &[Server<'_>], known: &KnownNames) -> (Reached, Assignment) {
    let id = |server: &Server<'_>| Uuid::from_u128(server.number);
    let tools: Vec<Vec<Item>> = servers
        .iter()
        .map(|server| {
            let definition = |tool: &&str| format!(r#"{{"name":{}}}"#, serde_json::json!(tool));
            let parse = |tool| Item::parse(Kind::Tool, Bytes::from(definition(tool))).unwrap();
            server.tools.iter().map(parse).collect()
        })
        .collect();
    let mut curation = Curation::default();
    let mut by_number = servers.to_vec();
    by_number.sort_by_key(|server| server.number);
    for server in &by_number {
        for (tool, name) in server.chosen {
            let (name, overrides) = (Some((*name).into()), Overrides::default());
            curation.decide(id(server), tool, Decision { is_active: true, name, overrides });
        }
    }
    let named: Vec<_> = servers
        .iter()
        .map(|one| MemberTools { server: id(one), server_name: one.name, tools: one.tools })
        .collect();
    let members: Vec<_> = servers
        .iter()
        .zip(&tools)
        .map(|(one, tools)| Member { server: id(one), active: true, items: tools })
        .collect();
    let assignment = assign(naming, 48, &named, known, &curation.renamings());
    let routes = Routes::build(&members, &assignment, &curation);
    let reached = routes.iter().map(|(shown, route)| {
        let own: String = serde_json::from_slice(&route.key_json).unwrap();
        assert_eq!(own, *route.key, "the name that is forwarded");
        (shown.to_owned(), (route.server.as_u128(), own))
    });
    (reached.collect(), assignment)
}

/// Plays a history, and answers what is reached at its end.
fn play(case: &str, naming: Naming, steps: &[Vec<Server<'_>>]) -> Reached {
    let mut known = KnownNames::default();
    let mut reached = Reached::new();
    for (number, servers) in steps.iter().enumerate() {
        let at = format!("{case}, step {number}, {naming:?}");
        let (seen, assignment) = publish(naming, servers, &known);
        for shown in &assignment.shown {
            known.insert(shown.server, &shown.tool, &shown.shown_name);
        }

        let tools: HashSet<(u128, String)> = seen.values().cloned().collect();
        assert_eq!(tools.len(), seen.len(), "{at}: a tool has one name: {seen:?}");
        let listed: usize = servers.iter().map(|server| server.tools.len()).sum();
        let is_hidden = |tool: &&(u128, String)| {
            let mut hidden = assignment.hidden.iter();
            hidden.any(|one| one.server.as_u128() == tool.0 && *one.tool == *tool.1)
        };
        assert!(!tools.iter().any(|tool| is_hidden(&tool)), "{at}");
        assert_eq!(tools.len() + assignment.hidden.len(), listed, "{at}: shown or reported");
        assert!(naming == Never || assignment.hidden.is_empty(), "{at}: only NEVER hides");
        for (shown, (_, own)) in &seen {
            let is_ours = shown != own;
            let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            assert!((1..=64).contains(&shown.len()), "{at}: {shown}");
            assert!(!is_ours || shown.bytes().all(is_legal), "{at}: {shown}");
        }
        let mut turned = servers.clone();
        for _ in 0..servers.len() {
            turned.rotate_left(1);
            assert_eq!(publish(naming, &turned, &known).0, seen, "{at}: in another order");
        }
        turned.reverse();
        assert_eq!(publish(naming, &turned, &known).0, seen, "{at}: turned round");
        reached = seen;
    }
    reached
}

fn reached(expected: &[(&str, u128, &str)]) -> Reached {
    expected
        .iter()
        .map(|(name, number, tool)| ((*name).into(), (*number, (*tool).into())))
        .collect()
}

#[test]
fn every_name_leads_to_its_own_tool_in_every_mode() {
    let (long, longer, longest) = ("l".repeat(60), "l".repeat(64), "l".repeat(65));
    let long_tools = [&*long, &*longer, &*longest];
    let look = [("search", "look")];
    let find = [("search", "find")];
    let prefixed = [("search", "a__find")];

    let same = vec![server(1, "a", &["search"]), server(2, "b", &["search"])];
    let long_names = vec![server(1, "a", &long_tools), server(2, "b", &long_tools)];
    let unicode = vec![server(1, "a", &["größe", "gr__e", "数据"]), server(2, "b", &["größe"])];
    let renamed = [vec![server(1, "a", &["x"])], vec![server(1, "z", &["x"])]];
    let later = [vec![server(2, "b", &["search"])], same.clone()];
    let last = [vec![same[0]], same.clone()];
    let later_renamed = [same.clone(), vec![same[0], server(2, "z", &["search"])]];
    let of_another = [
        vec![server(1, "a", &["search"]), server(2, "b", &["find"])],
        vec![server(1, "a", &["search"]).chosen(&find), server(2, "b", &["find"])],
    ];
    let colliding = |chosen| {
        let tools = &["search", "find"];
        [vec![server(1, "a", tools)], vec![server(1, "a", tools).chosen(chosen)]]
    };
    let chosen_first = [
        vec![server(1, "a", &["search"]).chosen(&find)],
        vec![server(2, "b", &["find"]), server(1, "a", &["search", "find"]).chosen(&find)],
    ];
    let chosen_and_cleared = [
        vec![server(1, "a", &["search"])],
        vec![server(1, "a", &["search"]).chosen(&look)],
        vec![server(2, "b", &["search"]), server(1, "a", &["search"]).chosen(&look)],
        vec![server(2, "b", &["search"]), server(1, "a", &["search"])],
    ];
    let unhidden = [same.clone(), vec![same[0], same[1].chosen(&look)]];
    let twice_chosen = [vec![same[0].chosen(&look), same[1].chosen(&look)]];

    let expected = |case: &str, steps: &[Vec<Server<'_>>], expected: [&[(&str, u128, &str)]; 3]| {
        for (naming, expected) in MODES.into_iter().zip(expected) {
            assert_eq!(play(case, naming, steps), reached(expected), "{case}, {naming:?}");
        }
    };
    expected(
        "the same tool",
        std::slice::from_ref(&same),
        [
            &[("a__search", 1, "search"), ("b__search", 2, "search")],
            &[("search", 1, "search"), ("b__search", 2, "search")],
            &[("search", 1, "search")],
        ],
    );
    expected(
        "a renamed server",
        &renamed,
        [&[("z__x", 1, "x")], &[("x", 1, "x")], &[("x", 1, "x")]],
    );
    expected(
        "a server that was added later, at the front",
        &later,
        [
            &[("a__search", 1, "search"), ("b__search", 2, "search")],
            &[("a__search", 1, "search"), ("search", 2, "search")],
            &[("search", 2, "search")],
        ],
    );
    expected(
        "a server that was added later, at the end",
        &last,
        [
            &[("a__search", 1, "search"), ("b__search", 2, "search")],
            &[("search", 1, "search"), ("b__search", 2, "search")],
            &[("search", 1, "search")],
        ],
    );
    expected(
        "the later of two with the same tool is renamed",
        &later_renamed,
        [
            &[("a__search", 1, "search"), ("z__search", 2, "search")],
            &[("search", 1, "search"), ("z__search", 2, "search")],
            &[("search", 1, "search")],
        ],
    );
    expected(
        "a chosen name that a tool of another server has",
        &of_another,
        [
            &[("find", 1, "search"), ("b__find", 2, "find")],
            &[("search", 1, "search"), ("find", 2, "find")],
            &[("search", 1, "search"), ("find", 2, "find")],
        ],
    );
    expected(
        "a chosen name that a tool has of itself",
        &colliding(&find),
        [
            &[("find", 1, "search"), ("a__find", 1, "find")],
            &[("search", 1, "search"), ("find", 1, "find")],
            &[("search", 1, "search"), ("find", 1, "find")],
        ],
    );
    expected(
        "a chosen name that looks prefixed",
        &colliding(&prefixed),
        [
            &[("a__search", 1, "search"), ("a__find", 1, "find")],
            &[("a__find", 1, "search"), ("find", 1, "find")],
            &[("a__find", 1, "search"), ("find", 1, "find")],
        ],
    );
    expected(
        "tools that come with a name that was chosen",
        &chosen_first,
        [
            &[("find", 1, "search"), ("a__find", 1, "find"), ("b__find", 2, "find")],
            &[("find", 1, "search"), ("a__find", 1, "find"), ("b__find", 2, "find")],
            &[("find", 1, "search")],
        ],
    );
    expected(
        "a name that was chosen and cleared",
        &chosen_and_cleared,
        [
            &[("a__search", 1, "search"), ("b__search", 2, "search")],
            &[("search", 1, "search"), ("b__search", 2, "search")],
            &[("search", 1, "search")],
        ],
    );
    expected(
        "a hidden tool that is given a name",
        &unhidden,
        [
            &[("a__search", 1, "search"), ("look", 2, "search")],
            &[("search", 1, "search"), ("look", 2, "search")],
            &[("search", 1, "search"), ("look", 2, "search")],
        ],
    );
    expected(
        "one name chosen twice",
        &twice_chosen,
        [
            &[("look", 1, "search"), ("b__search", 2, "search")],
            &[("look", 1, "search"), ("b__search", 2, "search")],
            &[("look", 1, "search")],
        ],
    );
    for naming in MODES {
        let shown = |servers| play("names", naming, std::slice::from_ref(servers)).len();
        // Under NEVER the later of two that are shown as they are is hidden, and the rest prefixed.
        let (of_long, of_unicode) = if naming == Never { (4, 4) } else { (6, 4) };
        assert_eq!(shown(&long_names), of_long, "{naming:?}");
        assert_eq!(shown(&unicode), of_unicode, "{naming:?}");
    }
}

#[test]
fn a_tool_of_the_own_server_makes_way_for_a_chosen_name() {
    let chosen = [("search", "a__find")];
    let steps = [
        vec![server(1, "a", &["search"]).chosen(&chosen)],
        vec![server(1, "a", &["search", "find"]).chosen(&chosen)],
    ];
    let seen = play("its own prefix", Always, &steps);
    assert_eq!(seen["a__find"], (1, "search".to_owned()));
    let (other, _) = seen.iter().find(|(_, (_, tool))| tool == "find").unwrap();
    assert!(other.starts_with("a__find_"), "{other}");
}
