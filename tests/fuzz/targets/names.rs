//! Names lead back to what they were given to, each to one thing only; a list that is read is what came;
//! and what an operator overrides changes nothing beside it.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use metamcpd::catalogue::{
    curation::Curation,
    item::Item,
    kind::Kind,
    listing::page_of,
    naming::{KnownNames, MemberTools, Naming, PREFIXED_MIN, UNPREFIXED_MAX, assign},
    overrides::{Overrides, append_shown},
    routes::{Member, Routes},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::json::{member, members, object, string};

/// The first two bytes are the mode and the limit; then come servers, a line each, of which the first
/// word is the name and every other a tool.
pub fn names(bytes: &[u8]) {
    let [mode, limit, rest @ ..] = bytes else { return };
    let naming = [Naming::Always, Naming::OnConflict, Naming::Never][usize::from(mode % 3)];
    let names_max = usize::from(*limit);
    let text = String::from_utf8_lossy(rest);
    let servers: Vec<(Uuid, &str, Vec<Item>)> = text
        .split('\n')
        .take(6)
        .zip(1_u128..)
        .map(|(line, number)| {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let item = |tool: &str| {
                Item::parse(Kind::Tool, Bytes::from(json!({"name": tool}).to_string())).ok()
            };
            (Uuid::from_u128(number), name, words.take(12).filter_map(item).collect())
        })
        .collect();
    let tools: Vec<Vec<&str>> =
        servers.iter().map(|(_, _, tools)| tools.iter().map(|tool| &*tool.key).collect()).collect();
    let named: Vec<MemberTools<'_>> = servers
        .iter()
        .zip(&tools)
        .map(|((server, server_name, _), tools)| MemberTools {
            server: *server,
            server_name,
            tools,
        })
        .collect();
    let assignment = assign(naming, names_max, &named, &KnownNames::default(), &[]);

    let mut given: HashMap<&str, (Uuid, &str)> = HashMap::new();
    for shown in &assignment.shown {
        let before = given.insert(&shown.shown_name, (shown.server, &shown.tool));
        assert_eq!(before, None, "{} is given twice", shown.shown_name);
        let max = match naming {
            Naming::Always => names_max.max(PREFIXED_MIN),
            Naming::OnConflict | Naming::Never => names_max.max(UNPREFIXED_MAX),
        };
        assert!(shown.shown_name.len() <= max || shown.shown_name == shown.tool, "{shown:?}");
    }
    let listed: HashSet<(Uuid, &str)> = named
        .iter()
        .flat_map(|member| member.tools.iter().map(|tool| (member.server, *tool)))
        .collect();
    assert!(given.values().all(|one| listed.contains(one)));

    let route_members: Vec<Member<'_>> = servers
        .iter()
        .map(|(server, _, items)| Member { server: *server, active: true, items })
        .collect();
    let routes = Routes::build(&route_members, &assignment, &Curation::default());
    assert_eq!(routes.iter().count(), given.len());
    for (shown_name, (server, tool)) in &given {
        let route = routes.find(shown_name).expect("a way");
        assert_eq!((route.server, &*route.key), (*server, *tool));
        assert_eq!(route_members[route.member].server, *server);
        assert_eq!(string(&String::from_utf8_lossy(&route.key_json)).as_deref(), Some(*tool));
    }
    let list: Vec<Value> = serde_json::from_slice(routes.list()).expect("a list");
    let shown: HashSet<&str> = list.iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert_eq!(shown, given.keys().copied().collect());

    // What was given once is given again.
    let known: KnownNames = assignment.shown.iter().collect();
    assert_eq!(assign(naming, names_max, &named, &known, &[]), assignment);
}

/// The bytes are the result of a request that lists.
pub fn listing(bytes: &[u8]) {
    for kind in [Kind::Tool, Kind::Prompt, Kind::Resource, Kind::Template] {
        let Ok(page) = page_of(kind, bytes) else { continue };
        let text = std::str::from_utf8(bytes).expect("JSON is text");
        let fields = members(text).expect("an object");
        let list = member(&fields, kind.list_field()).expect("a list");
        let came: Vec<&serde_json::value::RawValue> = serde_json::from_str(list).expect("an array");
        assert_eq!(page.items.len() + page.dropped.len(), came.len());
        let mut kept: BTreeMap<&str, &Item> = BTreeMap::new();
        for item in &page.items {
            assert!(kept.insert(&item.key, item).is_none(), "{} is kept twice", item.key);
            let definition = std::str::from_utf8(&item.definition).expect("text");
            assert!(came.iter().any(|one| one.get().replace(['\n', '\r'], " ") == definition));
            let own = member(&members(definition).expect("an object"), kind.key_field());
            assert_eq!(own, Some(&definition[item.key_span.clone()]));
            assert_eq!(string(&definition[item.key_span.clone()]).as_deref(), Some(&*item.key));
        }
        // Nothing falls out of a list in which all is in order.
        let in_order = |one: &&serde_json::value::RawValue| {
            let fields = object(one.get())?;
            string(member(&fields, kind.key_field())?).filter(|key| {
                !key.is_empty() && key.len() < 100 && !key.chars().any(char::is_control)
            })
        };
        let keys: Option<HashSet<String>> = came.iter().map(in_order).collect();
        if keys.is_some_and(|keys| keys.len() == came.len()) {
            assert_eq!(page.dropped.len(), 0, "{text}");
        }
    }
}

/// The bytes are a tool, annotations, a title and a description, a line each; `-` overrides nothing.
pub fn overrides(bytes: &[u8]) {
    const TOUCHED: [&str; 4] = ["name", "title", "description", "annotations"];
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(4, '\n');
    let mut next = || lines.next().unwrap_or("-");
    let Ok(tool) = Item::parse(Kind::Tool, Bytes::from(next().to_owned())) else { return };
    let annotations: BTreeMap<String, Value> = serde_json::from_str(next()).unwrap_or_default();
    let mut words = || Some(next()).filter(|words| *words != "-").map(str::to_owned);
    let with = Overrides { title: words(), description: words(), annotations };
    let mut list = BytesMut::new();
    append_shown(&mut list, &tool, "s__\"n", &with);

    let own = std::str::from_utf8(&tool.definition).expect("text");
    let own = members(own).expect("an object");
    let shown = std::str::from_utf8(&list).expect("text");
    let shown = members(shown).unwrap_or_else(|| panic!("no object any more: {shown}"));
    let is_kept = |(key, _): &&(String, &str)| !TOUCHED.contains(&key.as_str());
    let kept = |members: &[(String, &str)]| {
        members
            .iter()
            .filter(is_kept)
            .map(|(key, raw)| (key.clone(), (*raw).to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&shown), kept(&own));
    let all = |members: &[(String, &str)], key: &str| {
        members
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, raw)| (*raw).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(all(&shown, "name"), [json!("s__\"n").to_string()]);
    for (key, words) in [("title", &with.title), ("description", &with.description)] {
        let (own, shown) = (all(&own, key), all(&shown, key));
        match words {
            Some(words) => assert_eq!(shown, vec![json!(words).to_string(); own.len().max(1)]),
            None => assert_eq!(shown, own),
        }
    }
    let (own, shown) = (all(&own, "annotations"), all(&shown, "annotations"));
    let merged = own.last().and_then(|raw| members(raw));
    let mut wanted = with.annotations.clone();
    if let (Some(merged), Some(title)) = (&merged, &with.title)
        && member(merged, "title").is_some()
    {
        wanted.entry("title".to_owned()).or_insert_with(|| json!(title));
    }
    let is_nothing = merged.is_none() && wanted.values().all(Value::is_null);
    if wanted.is_empty() || is_nothing {
        assert_eq!(shown, own);
        return;
    }
    let result = members(shown.last().expect("annotations")).expect("an object");
    for (key, value) in &wanted {
        let expected = Some(value).filter(|value| !value.is_null()).map(Value::to_string);
        assert!(all(&result, key).iter().all(|raw| Some(raw) == expected.as_ref()), "{key}");
        assert_eq!(all(&result, key).is_empty(), expected.is_none(), "{key}");
    }
    let others = |members: &[(String, &str)]| {
        let others = members.iter().filter(|(key, _)| !wanted.contains_key(key));
        others.map(|(key, raw)| (key.clone(), (*raw).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(others(&result), others(&merged.unwrap_or_default()));
}
