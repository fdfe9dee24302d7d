//! Lists that change while they are read page by page.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;

/// What is listed at one moment, in its order: server, own key, and the name it is shown by.
type Moment = Vec<(u128, String, String)>;

fn pages(moment: &Moment) -> Pages {
    let items: Vec<String> =
        moment.iter().map(|(_, _, shown)| format!(r#"{{ "name" : "{shown}","x":1.0}}"#)).collect();
    let list = Bytes::from(format!("[{}]", items.join(",")));
    let owners: BTreeMap<&str, (Uuid, &str)> = moment
        .iter()
        .map(|(server, key, shown)| (&**shown, (Uuid::from_u128(*server), &**key)))
        .collect();
    Pages::of(Kind::Tool, &list, |shown| owners.get(shown).copied())
}

/// Reads all pages, the first at the first moment and so on; the last moment stays. What was seen is
/// told by server and own key, whatever it was called.
fn read(moments: &[Moment], size: usize) -> Vec<(u128, String)> {
    let (mut seen, mut after, mut number) = (Vec::new(), None::<Place>, 0);
    loop {
        let moment = &moments[number.min(moments.len() - 1)];
        let pages = pages(moment);
        let page = pages.after(after.as_ref(), size);
        assert!(page.items.len() <= size);
        for (_, bytes) in page.items {
            let shown = key_of(Kind::Tool, std::str::from_utf8(bytes).unwrap()).unwrap();
            let (server, key, _) = moment.iter().find(|(_, _, each)| *each == shown).unwrap();
            seen.push((*server, key.clone()));
        }
        // As a client brings it back.
        let Some(next) = page.next else { return seen };
        after = Some(Place::from_bytes(&next.to_bytes()).unwrap());
        number += 1;
        assert!(number < 100, "the pages come to an end");
    }
}

/// Any order of any part of few servers' few keys, some of them long and alike at their beginning,
/// each shown by a name that may be another the next time.
fn moment() -> impl Strategy<Value = Moment> {
    let key = prop_oneof!["[ab]{1,2}", "[ab]{1,2}".prop_map(|end| "long".repeat(40) + &end)];
    vec((0..3_u128, key, any::<u16>()), 0..12).prop_map(|items| {
        let mut known = BTreeSet::new();
        let items =
            items.into_iter().filter(|(server, key, _)| known.insert((*server, key.clone())));
        let shown = |server: u128, key: &str, salt: u16| format!("{salt}_{server}_{key}");
        items.map(|(server, key, salt)| (server, key.clone(), shown(server, &key, salt))).collect()
    })
}

proptest! {
    #[test]
    fn what_stays_is_on_one_page_once_whatever_happens_between_them(
        moments in vec(moment(), 1..6), size in 1..5_usize,
    ) {
        let seen = read(&moments, size);
        let once: BTreeSet<_> = seen.iter().cloned().collect();
        prop_assert_eq!(once.len(), seen.len(), "nothing is repeated: {:?}", seen);
        let is_in = |moment: &Moment, item: &(u128, String)| {
            moment.iter().any(|(server, key, _)| (*server, key) == (item.0, &item.1))
        };
        let first = moments[0].iter().map(|(server, key, _)| (*server, key.clone()));
        for item in first.filter(|item| moments.iter().all(|moment| is_in(moment, item))) {
            prop_assert!(once.contains(&item), "{:?} was skipped: {:?}", item, seen);
        }
    }

    #[test]
    fn a_place_is_read_as_it_was_written_and_keeps_its_order(
        one in (any::<u128>(), ".{0,200}"), other in (any::<u128>(), ".{0,200}"),
    ) {
        let place = |(server, key): &(u128, String)| Place::of(Uuid::from_u128(*server), key);
        let (one, other) = (place(&one), place(&other));
        let again = |place: &Place| Place::from_bytes(&place.to_bytes()).unwrap();
        prop_assert_eq!(again(&one), one.clone());
        prop_assert_eq!(again(&one).cmp(&again(&other)), one.cmp(&other));
        prop_assert!(one.to_bytes().len() <= 160);
    }

    #[test]
    fn no_bytes_at_all_are_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        Place::from_bytes(&bytes);
    }
}

#[test]
fn a_page_holds_the_bytes_of_the_list_by_server_and_key() {
    let moment: Moment = [(2, "a"), (1, "b"), (1, "a")]
        .into_iter()
        .map(|(server, key)| (server, key.to_owned(), format!("{server}__{key}")))
        .collect();
    let pages = pages(&moment);
    let texts = |page: &Page<'_>| -> Vec<Bytes> {
        page.items.iter().map(|(_, bytes)| bytes.clone()).collect()
    };
    let first = pages.after(None, 2);
    assert_eq!(texts(&first), [r#"{ "name" : "1__a","x":1.0}"#, r#"{ "name" : "1__b","x":1.0}"#]);
    let second = pages.after(first.next, 2);
    assert_eq!(texts(&second), [r#"{ "name" : "2__a","x":1.0}"#]);
    assert!(second.next.is_none());
    assert_eq!(pages.after(first.next, 0).items.len(), 1, "0 is no limit");
    assert_eq!((pages.len(), pages.after(None, 3).next), (3, None), "nothing follows a full page");
    assert!(Pages::default().is_empty());
}
