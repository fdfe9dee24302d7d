//! The rules of naming as tables, and what must hold for any names at all.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{Naming::*, *};

const MAX: usize = 48;

fn server(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn member<'a>(number: u128, server_name: &'a str, tools: &'a [&'a str]) -> MemberTools<'a> {
    MemberTools { server: server(number), server_name, tools }
}

fn names(assignment: &Assignment) -> Vec<&str> {
    assignment.shown.iter().map(|shown| &*shown.shown_name).collect()
}

fn fresh(naming: Naming, members: &[MemberTools<'_>]) -> Assignment {
    assign(naming, MAX, members, &KnownNames::default(), &[])
}

/// What is assigned to the same members when the names of `before` are known.
fn after(naming: Naming, before: &Assignment, members: &[MemberTools<'_>]) -> Assignment {
    assign(naming, MAX, members, &before.shown.iter().collect(), &[])
}

#[test]
fn always_prefixes_every_name() {
    let members = [member(1, "time", &["now"]), member(2, "web", &["search", "a__b"])];
    assert_eq!(names(&fresh(Always, &members)), ["time__now", "web__search", "web__a__b"]);
}

#[test]
fn on_conflict_prefixes_the_later() {
    let members = [member(1, "one", &["search", "x"]), member(2, "two", &["search", "y.z/v"])];
    assert_eq!(names(&fresh(OnConflict, &members)), ["search", "x", "two__search", "y.z/v"]);
}

#[test]
fn never_hides_the_later_and_reports_who_has_the_name() {
    let members = [member(1, "one", &["search"]), member(2, "two", &["search", "y"])];
    let assignment = fresh(Never, &members);
    assert_eq!(names(&assignment), ["search", "y"]);
    let why = Why::NameTaken { taken_by: server(1) };
    assert_eq!(assignment.hidden, [Hidden { server: server(2), tool: "search".into(), why }]);
}

#[test]
fn two_pairs_that_meet_in_one_prefixed_name_are_told_apart() {
    let members = [member(1, "a_", &["b"]), member(2, "a", &["_b"])];
    let assignment = fresh(Always, &members);
    assert_eq!(names(&assignment)[0], "a___b");
    assert!(names(&assignment)[1].starts_with("a___b_"), "{assignment:?}");
}

#[test]
fn servers_of_two_owners_may_share_a_name() {
    let members = [member(1, "a", &["t"]), member(2, "a", &["t"]), member(3, "a", &["t"])];
    let assignment = fresh(Always, &members);
    assert_eq!(assignment.shown.len(), 3);
    assert_eq!(after(Always, &assignment, &members), assignment);
}

#[test]
fn a_long_name_is_cut_to_the_limit_and_keeps_both_parts_readable() {
    let tool = "retrieve_all_open_pull_requests_of_a_repository";
    let assignment = fresh(Always, &[member(1, "github", &[tool])]);
    let name = names(&assignment)[0];
    assert_eq!(name.len(), MAX);
    assert!(name.starts_with("github__retrieve_all_open_pull_"), "{name}");

    let long_server = "a-server-with-a-name-of-more-than-forty-characters";
    let assignment = fresh(Always, &[member(1, long_server, &[tool])]);
    let name = names(&assignment)[0];
    assert_eq!(name.len(), MAX);
    assert!(name.starts_with("a-server-with-a-name-__retrieve_all_ope_"), "{name}");
}

#[test]
fn a_cut_name_depends_on_the_two_names_alone() {
    // A change here renames tools at every client there is: it is a breaking change.
    let assignment = fresh(Always, &[member(7, "docs", &["files/read"])]);
    assert_eq!(names(&assignment), ["docs__files_read_vqfio4u4"]);
}

#[test]
fn an_unprefixed_name_stays_up_to_64_bytes() {
    let (fits, too_long) = ("x".repeat(64), "x".repeat(65));
    for naming in [OnConflict, Never] {
        let assignment = fresh(naming, &[member(1, "s", &[&fits, &too_long, "Größe"])]);
        let names = names(&assignment);
        assert_eq!(names[0], fits);
        assert!(names[1].starts_with("s__xxx") && names[1].len() == MAX, "{names:?}");
        assert!(names[2].starts_with("s__Gr__e_"), "{names:?}");
    }
}

#[test]
fn who_has_a_name_keeps_it_when_an_earlier_server_brings_the_same() {
    let late = member(2, "late", &["search"]);
    let early = member(1, "early", &["search"]);
    for (naming, expected) in
        [(OnConflict, vec![("early__search", 1), ("search", 2)]), (Never, vec![("search", 2)])]
    {
        let before = fresh(naming, &[late]);
        let assignment = after(naming, &before, &[early, late]);
        let found: Vec<_> =
            assignment.shown.iter().map(|shown| (&*shown.shown_name, shown.server)).collect();
        let expected: Vec<_> =
            expected.into_iter().map(|(name, number)| (name, server(number))).collect();
        assert_eq!(found, expected, "{naming:?}");
    }
}

#[test]
fn a_prefixed_name_stays_when_its_rival_has_gone() {
    let (one, two) = (member(1, "one", &["search"]), member(2, "two", &["search"]));
    let before = fresh(OnConflict, &[one, two]);
    assert_eq!(names(&after(OnConflict, &before, &[two])), ["two__search"]);
}

#[test]
fn a_name_is_reserved_while_its_server_is_away_except_under_never() {
    let (one, two) = (member(1, "one", &["search"]), member(2, "two", &["search"]));
    for (naming, expected) in [(OnConflict, "two__search"), (Never, "search")] {
        let before = fresh(naming, &[one]);
        assert_eq!(names(&after(naming, &before, &[two])), [expected]);
    }
}

#[test]
fn who_has_each_name_is_known_though_he_is_away() {
    let (one, two) = (member(1, "one", &["search"]), member(2, "two", &["x"]));
    for (naming, name) in [(Always, "one__search"), (OnConflict, "search"), (Never, "search")] {
        let before = fresh(naming, &[one, two]);
        let renaming = [Renaming { server: server(2), tool: "x", name: "chosen" }];
        let known = before.shown.iter().collect();
        let after = assign(naming, MAX, &[member(1, "one", &[]), two], &known, &renaming);
        let holder = |name: &str| {
            after.holders.get(name).map(|holder| (holder.server, holder.tool.to_string()))
        };
        assert_eq!(holder(name), Some((server(1), "search".to_owned())), "{naming:?}");
        assert_eq!(holder("chosen"), Some((server(2), "x".to_owned())), "{naming:?}");
        assert_eq!(holder("other"), None);
    }
}

#[test]
fn a_chosen_name_that_another_has_is_refused_and_reported() {
    let members = [member(1, "one", &["search", "find"])];
    let before = fresh(OnConflict, &members);
    let renaming = [Renaming { server: server(1), tool: "search", name: "find" }];
    let known = before.shown.iter().collect();
    let after = assign(OnConflict, MAX, &members, &known, &renaming);
    assert_eq!(after.shown, before.shown);
    assert_eq!(after.renamed, KnownNames::default());
    let why = Why::NameTaken { taken_by: server(1) };
    assert_eq!(after.refused, [Hidden { server: server(1), tool: "search".into(), why }]);
}

#[test]
fn a_renamed_server_gets_its_new_prefix_and_frees_the_old_one() {
    let before = fresh(Always, &[member(1, "old", &["t", "gone"])]);
    let renamed = [member(2, "old", &["t", "gone"]), member(1, "new", &["t"])];
    assert_eq!(names(&after(Always, &before, &renamed)), ["old__t", "old__gone", "new__t"]);
}

#[test]
fn a_cut_name_outlives_a_raised_limit_but_not_a_lowered_one() {
    let long = "t".repeat(60);
    let tools = [&*long];
    let members = [member(1, "s", &tools)];
    let before = fresh(Always, &members);
    let known: KnownNames = before.shown.iter().collect();
    assert_eq!(assign(Always, 60, &members, &known, &[]), before);
    assert_eq!(names(&assign(Always, 40, &members, &known, &[]))[0].len(), 40);
}

#[test]
fn a_name_that_this_mode_could_not_have_given_is_replaced() {
    let mut known = KnownNames::default();
    known.insert(server(1), "t", "anything");
    for (naming, expected) in [(Always, "s__t"), (OnConflict, "t"), (Never, "t")] {
        let assignment = assign(naming, MAX, &[member(1, "s", &["t"])], &known, &[]);
        assert_eq!(names(&assignment), [expected]);
    }
}

#[test]
fn one_known_name_for_two_tools_stays_with_the_first() {
    let mut known = KnownNames::default();
    known.insert(server(1), "t", "s__t");
    known.insert(server(2), "t", "s__t");
    let members = [member(1, "s", &["t"]), member(2, "s", &["t"])];
    let assignment = assign(Always, MAX, &members, &known, &[]);
    assert_eq!(names(&assignment)[0], "s__t");
    assert_ne!(names(&assignment)[1], "s__t");
}

#[test]
fn a_short_hashed_name_is_recognised_and_stays_with_its_tool() {
    let (first, second) = (member(1, "a", &["ä"]), member(2, "a", &["ä"]));
    let before = fresh(Always, &[first, second]);
    let turned = after(Always, &before, &[second, first]);
    let mut names_of_both = [names(&before), names(&turned)];
    names_of_both[1].reverse();
    assert_eq!(names_of_both[0], names_of_both[1]);
}

#[test]
fn a_tool_that_is_listed_twice_is_shown_once() {
    let assignment = fresh(Always, &[member(1, "s", &["t", "t"])]);
    assert_eq!(names(&assignment), ["s__t"]);
    assert_eq!(assignment.hidden[0].why, Why::Repeated);
}

/// Few letters and both sides of every limit, so that names meet often.
fn any_tool() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab_./é]{1,4}",
        1 => "[ab]{1,2}__[ab]{1,2}",
        1 => "[ab]{60,68}",
        1 => "(aaaa|bbbb){4,12}",
    ]
}

type Servers = Vec<(u128, String, Vec<String>)>;

fn any_servers() -> impl Strategy<Value = Servers> {
    let server_name = prop_oneof![4 => "[ab_]{1,3}", 1 => "[ab-]{30,50}"];
    prop::collection::vec((server_name, prop::collection::vec(any_tool(), 0..6)), 1..6).prop_map(
        |servers| {
            let numbered = servers.into_iter().enumerate();
            numbered.map(|(number, (name, tools))| (number as u128, name, tools)).collect()
        },
    )
}

fn any_naming() -> impl Strategy<Value = Naming> {
    prop_oneof![Just(Always), Just(OnConflict), Just(Never)]
}

fn play(naming: Naming, max: usize, servers: &Servers, known: &KnownNames) -> Assignment {
    let tools: Vec<Vec<&str>> =
        servers.iter().map(|(_, _, tools)| tools.iter().map(String::as_str).collect()).collect();
    let members: Vec<_> = servers
        .iter()
        .zip(&tools)
        .map(|((number, name, _), tools)| member(*number, name, tools))
        .collect();
    assign(naming, max, &members, known, &[])
}

fn name_of<'a>(assignment: &'a Assignment, of: &Shown) -> Option<&'a str> {
    assignment
        .shown
        .iter()
        .find(|shown| shown.server == of.server && shown.tool == of.tool)
        .map(|shown| &*shown.shown_name)
}

proptest! {
    // A failure shows its smallest case; a file beside the sources would only be forgotten.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_are_unique_legal_and_complete(
        naming in any_naming(),
        max in 16_usize..64,
        servers in any_servers(),
    ) {
        let assignment = play(naming, max, &servers, &KnownNames::default());
        let unique: HashSet<_> = assignment.shown.iter().map(|shown| &shown.shown_name).collect();
        prop_assert_eq!(unique.len(), assignment.shown.len());
        for shown in &assignment.shown {
            if naming == Always || shown.shown_name != shown.tool {
                prop_assert!(shown.shown_name.len() <= max.max(PREFIXED_MIN));
                prop_assert_eq!(cleaned(&shown.shown_name), &*shown.shown_name);
            } else {
                prop_assert!(is_showable(&shown.shown_name));
            }
        }
        let listed: usize = servers.iter().map(|(_, _, tools)| tools.len()).sum();
        prop_assert_eq!(assignment.shown.len() + assignment.hidden.len(), listed);
        if naming != Never {
            prop_assert!(assignment.hidden.iter().all(|hidden| hidden.why == Why::Repeated));
        }
    }

    #[test]
    fn names_once_given_survive_any_order_and_restart(
        naming in any_naming(),
        servers in any_servers(),
        rotation in 0_usize..6,
    ) {
        let before = play(naming, MAX, &servers, &KnownNames::default());
        let known = before.shown.iter().collect();
        prop_assert_eq!(&play(naming, MAX, &servers, &known), &before);

        let mut turned = servers.clone();
        let by = rotation % turned.len();
        turned.rotate_left(by);
        turned.reverse();
        let after = play(naming, MAX, &turned, &known);
        for shown in &before.shown {
            prop_assert_eq!(name_of(&after, shown), Some(&*shown.shown_name));
        }
    }

    #[test]
    fn a_server_added_at_the_end_renames_nothing(
        naming in any_naming(),
        servers in any_servers(),
        tools in prop::collection::vec(any_tool(), 0..6),
    ) {
        let before = play(naming, MAX, &servers, &KnownNames::default());
        let mut more = servers.clone();
        more.push((99, "b".to_owned(), tools));
        let after = play(naming, MAX, &more, &KnownNames::default());
        for shown in &before.shown {
            prop_assert_eq!(name_of(&after, shown), Some(&*shown.shown_name));
        }
    }

    #[test]
    fn a_name_is_never_handed_on_while_its_tool_may_return(
        naming in prop_oneof![Just(Always), Just(OnConflict)],
        servers in any_servers(),
        gone in 0_usize..6,
    ) {
        let before = play(naming, MAX, &servers, &KnownNames::default());
        let known = before.shown.iter().collect();
        let mut fewer = servers.clone();
        fewer.remove(gone % servers.len());
        let mut newcomer = servers[gone % servers.len()].clone();
        newcomer.0 = 99;
        fewer.insert(0, newcomer);
        let after = play(naming, MAX, &fewer, &known);
        for shown in after.shown.iter().filter(|shown| shown.server == server(99)) {
            prop_assert!(before.shown.iter().all(|old| old.shown_name != shown.shown_name));
        }
    }
}
