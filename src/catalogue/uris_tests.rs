//! Prefixes that are read as they were written, and collisions that are decided once and for all.

#![allow(clippy::unwrap_used)]

use proptest::{collection::vec, prelude::*};

use super::{
    super::{curation::Decision, item::Item, kind::Kind, overrides::Overrides},
    *,
};

fn server(number: usize) -> Uuid {
    Uuid::from_u128(number as u128)
}

/// One member: whether it is active, and what it lists.
type Listing<'a> = (usize, bool, &'a [&'a str]);

struct Scene {
    known: KnownNames,
    shown: HashMap<String, Uuid>,
    off: Curation,
}

impl Scene {
    fn new() -> Scene {
        Scene { known: KnownNames::default(), shown: HashMap::new(), off: Curation::new(true) }
    }

    /// What each member shows, in its order; and remembers it for the next time.
    fn shows(&mut self, listings: &[Listing<'_>]) -> Vec<Vec<String>> {
        let items: Vec<Vec<Item>> = listings
            .iter()
            .map(|(_, _, uris)| {
                let definition = |uri: &&str| format!(r#"{{"uri":{}}}"#, serde_json::json!(uri));
                let item = |uri| Item::parse(Kind::Resource, definition(uri).into()).unwrap();
                uris.iter().map(item).collect()
            })
            .collect();
        let members: Vec<Member<'_>> = listings
            .iter()
            .zip(&items)
            .map(|((number, active, _), items)| Member {
                server: server(*number),
                active: *active,
                items,
            })
            .collect();
        let names: Vec<String> =
            listings.iter().map(|(number, _, _)| format!("s{number}")).collect();
        let named = members.iter().zip(&names).map(|(member, name)| (member.server, &**name));
        let prefixes = Prefixes::new(named);
        let earlier = |uri: &str| self.shown.get(uri).copied();
        let outcome = collisions(&members, &self.off, &prefixes, &self.known, earlier);
        let mut shown = Vec::new();
        self.shown.clear();
        for (index, member) in members.iter().enumerate() {
            let of_it = member
                .items
                .iter()
                .filter(|item| member.active && self.off.is_active(member.server, &item.key));
            let uris: Vec<String> = of_it
                .map(|item| match outcome.rewritten[index].contains(&item.key) {
                    true => format!("{}{}", prefixes.of(index), item.key),
                    false => {
                        self.shown.insert(item.key.to_string(), member.server);
                        item.key.to_string()
                    }
                })
                .collect();
            shown.push(uris);
        }
        self.known = outcome.known;
        shown
    }

    /// As after a start: what is remembered is all there is.
    fn restart(&mut self) {
        self.shown.clear();
    }
}

#[test]
fn the_first_keeps_its_uri_and_for_the_others_it_is_rewritten() {
    let mut scene = Scene::new();
    let shown = scene.shows(&[(1, true, &["u://a", "u://b"]), (2, true, &["u://b", "u://c"])]);
    assert_eq!(shown, [vec!["u://a", "u://b"], vec!["mcp+s2+u://b", "u://c"]]);
    let known: HashSet<_> = scene.known.iter().collect();
    let expected = [(server(1), "u://b", "u://b"), (server(2), "u://b", "mcp+s2+u://b")];
    assert_eq!(known, expected.into(), "and nothing of what was never contested");
}

#[test]
fn the_earlier_keeps_it_for_ever_and_the_rewritten_stays_rewritten() {
    let mut scene = Scene::new();
    assert_eq!(scene.shows(&[(1, true, &["u://a"]), (2, true, &[])])[0], ["u://a"]);
    // The later of two is not who comes later in the order.
    let both = [(2, true, &["u://a"][..]), (1, true, &["u://a"])];
    assert_eq!(scene.shows(&both), [["mcp+s2+u://a"], ["u://a"]]);
    scene.restart();
    assert_eq!(scene.shows(&both), [["mcp+s2+u://a"], ["u://a"]]);
    for (case, listings) in [
        ("it was switched off", [(1, false, &["u://a"][..]), (2, true, &["u://a"])]),
        ("it lists it no more", [(1, true, &[][..]), (2, true, &["u://a"])]),
    ] {
        scene.restart();
        assert_eq!(scene.shows(&listings)[1], ["mcp+s2+u://a"], "{case}");
    }
    assert_eq!(scene.shows(&both)[1], ["u://a"], "it has it back");
}

#[test]
fn what_nobody_lists_any_more_is_forgotten() {
    let mut scene = Scene::new();
    scene.shows(&[(1, true, &["u://a"]), (2, true, &["u://a"])]);
    scene.shows(&[(1, true, &[]), (2, true, &[])]);
    assert!(scene.known.is_empty());
    assert_eq!(scene.shows(&[(1, true, &[]), (2, true, &["u://a"])])[1], ["u://a"]);
}

#[test]
fn what_was_switched_off_makes_way_unless_it_was_there_first() {
    let decision = Decision { is_active: false, name: None, overrides: Overrides::default() };
    let both = [(1, true, &["u://a"][..]), (2, true, &["u://a"])];
    let mut scene = Scene::new();
    scene.off.decide(server(1), "u://a", decision.clone());
    assert_eq!(scene.shows(&both), [&[][..], &["u://a".to_owned()]]);
    let mut scene = Scene::new();
    scene.shows(&both);
    scene.off.decide(server(1), "u://a", decision);
    assert_eq!(scene.shows(&both), [&[][..], &["mcp+s2+u://a".to_owned()]]);
}

#[test]
fn what_would_be_read_as_anothers_is_rewritten() {
    let mut scene = Scene::new();
    let shown =
        scene.shows(&[(1, true, &["mcp+s2+u://a", "mcp+s9+u://a", "mcp+"]), (2, true, &["u://a"])]);
    assert_eq!(shown[0], ["mcp+s1+mcp+s2+u://a", "mcp+s9+u://a", "mcp+"]);
    assert_eq!(shown[1], ["u://a"]);
}

#[test]
fn a_prefix_is_a_part_of_a_scheme_whatever_the_name_and_no_two_are_alike() {
    for (name, prefix) in [
        ("files", "mcp+files+"),
        ("My_Files-2", "mcp+.my...files-2+"),
        ("_x", "mcp+..x+"),
        ("X", "mcp+.x+"),
    ] {
        assert_eq!(Prefixes::new([(server(1), name)]).of(0), prefix);
    }
    let alike = Prefixes::new([(server(1), "a"), (server(2), "a"), (server(3), "b")]);
    let other_way = Prefixes::new([(server(2), "a"), (server(1), "a")]);
    assert_eq!((alike.of(0), alike.of(1)), (other_way.of(1), other_way.of(0)));
    assert_ne!(alike.of(0), alike.of(1));
    assert_eq!(alike.of(2), "mcp+b+");
}

#[test]
fn a_prefix_goes_within_the_quotes_and_changes_no_other_byte() {
    assert_eq!(prefixed(br#""u:\/\/\u0061""#, "mcp+a+"), br#""mcp+a+u:\/\/\u0061""#);
}

/// A template, and what it expands to for some values: by RFC 6570, with these variables.
fn expanded(template: &str, values: &[(&str, &str)]) -> String {
    let pct = |value: &str, keeps: &str| -> String {
        let each = value.bytes().map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte if keeps.contains(char::from(byte)) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        });
        each.collect()
    };
    let (mut out, mut rest) = (String::new(), template);
    while let Some((literal, after)) = rest.split_once('{') {
        let (expression, after) = after.split_once('}').unwrap();
        out.push_str(literal);
        let (operator, name) = match expression.chars().next() {
            Some(operator @ ('+' | '#' | '/' | '?')) => (Some(operator), &expression[1..]),
            _ => (None, expression),
        };
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
            let reserved = ":/?#[]@!$&'()*+,;=";
            out.push_str(&match operator {
                Some('+') => pct(value, reserved),
                Some('#') => format!("#{}", pct(value, reserved)),
                Some('/') => format!("/{}", pct(value, "")),
                Some(_) => format!("?{name}={}", pct(value, "")),
                None => pct(value, ""),
            });
        }
        rest = after;
    }
    out + rest
}

proptest! {
    #[test]
    fn every_uri_comes_back_as_it_was_from_the_member_it_is_of(
        names in vec("[A-Za-z0-9][A-Za-z0-9_-]{0,12}", 1..5),
        uri in prop_oneof![".{1,60}", "[a-z]{1,5}://[a-z+.]{0,9}", "mcp\\+[a-z+]{0,9}"],
        member in any::<prop::sample::Index>(),
    ) {
        let named = names.iter().enumerate().map(|(index, name)| (server(index), &**name));
        let prefixes = Prefixes::new(named);
        let member = member.index(names.len());
        let shown = format!("{}{uri}", prefixes.of(member));
        prop_assert_eq!(prefixes.origin(&shown), Some((member, &*uri)));
        // Twice behind each other, too: one gateway in front of another.
        let twice = format!("{}{shown}", prefixes.of(0));
        prop_assert_eq!(prefixes.origin(&twice), Some((0, &*shown)));
    }

    #[test]
    fn what_was_valid_stays_valid_and_has_a_scheme_of_ours(
        name in "[A-Za-z0-9][A-Za-z0-9_-]{0,12}",
        uri in "(https|file|x-y\\.z)://(\\[::1\\]|[a-z]{1,6})(:[0-9]{1,4})?(/[a-z%20:@]{0,5}){0,3}(\\?[a-z=/?]{0,5})?",
    ) {
        prop_assume!(url::Url::parse(&uri).is_ok());
        let prefixes = Prefixes::new([(server(1), &*name)]);
        let shown = format!("{}{uri}", prefixes.of(0));
        let (scheme, rest) = shown.split_once(':').unwrap();
        // RFC 3986: scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )
        prop_assert!(scheme.starts_with("mcp+"));
        prop_assert!(scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b)));
        prop_assert_eq!(rest, uri.split_once(':').unwrap().1, "all else stands where it stood");
        let parsed = url::Url::parse(&shown).unwrap();
        prop_assert_eq!(parsed.scheme(), scheme);
    }

    #[test]
    fn a_rewritten_template_expands_to_the_rewritten_uri(
        parts in vec(prop_oneof![
            "[a-z:/%+]{1,4}", Just("{v}".to_owned()), Just("{+v}".to_owned()), Just("{/w}".to_owned()),
            Just("{?v}".to_owned()), Just("{#w}".to_owned()), Just("{gone}".to_owned()),
        ], 0..6),
        v in ".{0,9}", w in ".{0,9}",
    ) {
        let template = parts.concat();
        let prefixes = Prefixes::new([(server(1), "A_b"), (server(2), "two")]);
        let values = [("v", &*v), ("w", &*w)];
        let shown = expanded(&format!("{}{template}", prefixes.of(1)), &values);
        let own = expanded(&template, &values);
        let expected = (!own.is_empty()).then_some((1, &*own));
        prop_assert_eq!(prefixes.origin(&shown), expected);
    }

    /// Whatever comes, goes and changes places: no two members show one URI, who showed one as it came
    /// is the only one to do so while it is there, and what was rewritten stays so.
    #[test]
    fn no_two_show_one_uri_and_nothing_that_stays_is_ever_renamed(
        moments in vec(
            vec((1..4_usize, any::<bool>(), vec("[ab]", 0..3)), 1..4).prop_shuffle(), 1..6,
        ),
    ) {
        let mut scene = Scene::new();
        let mut before: HashMap<(usize, String), String> = HashMap::new();
        for moment in moments {
            let mut seen = HashSet::new();
            let moment: Vec<_> = moment
                .into_iter()
                .filter(|(number, _, _)| seen.insert(*number))
                .map(|(number, active, mut uris)| {
                    uris.sort();
                    uris.dedup();
                    (number, active, uris)
                })
                .collect();
            let texts: Vec<Vec<&str>> =
                moment.iter().map(|(_, _, uris)| uris.iter().map(|uri| &**uri).collect()).collect();
            let listings: Vec<Listing<'_>> = moment
                .iter()
                .zip(&texts)
                .map(|((number, active, _), uris)| (*number, *active, &**uris))
                .collect();
            let shown = scene.shows(&listings);
            let all: Vec<&String> = shown.iter().flatten().collect();
            prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "{:?}", shown);
            let mut now = HashMap::new();
            for ((number, active, uris), shown) in listings.iter().zip(&shown) {
                if *active {
                    for (uri, shown) in uris.iter().zip(shown) {
                        now.insert((*number, (*uri).to_owned()), shown.clone());
                    }
                }
            }
            for (item, shown) in &now {
                if let Some(before) = before.get(item) {
                    prop_assert_eq!(before, shown, "{:?}", item);
                }
            }
            before = now;
        }
    }
}
