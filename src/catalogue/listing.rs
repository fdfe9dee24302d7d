//! Reads the answers to requests that list: one page, and all pages of one refresh.
//!
//! What is malformed falls out alone and is reported; only an answer that is no list at all is an
//! error. Asking for the next page, and how long to wait for it, is left to the upstream's room.

use std::{collections::HashSet, fmt};

use bytes::Bytes;
use serde::de::{Deserializer as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    item::{BadItem, Item},
    kind::Kind,
};
use crate::wire::members::Named;

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// In the upstream's own order.
    pub items: Vec<Item>,
    /// What was dropped from the page, and why.
    pub dropped: Vec<BadItem>,
    /// The cursor of the next page as the JSON that came, ready to be sent back.
    pub next_cursor: Option<Box<str>>,
}

/// Why an answer is no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    #[error("the result is not a JSON object")]
    NotAnObject,
    #[error("the result has no array called {field}")]
    NoList { field: &'static str },
    #[error("the result has two fields called {field}")]
    FieldTwice { field: &'static str },
    #[error("the list leads back to a page that was read before")]
    CursorLoop,
    #[error("the list has more than {pages_max} pages")]
    TooManyPages { pages_max: usize },
    #[error("the list has more than {items_max} items")]
    TooMany { items_max: usize },
    #[error("the list has more than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
}

impl BadList {
    /// Whether it is a list for all that, which is only cut there.
    pub fn is_cut(&self) -> bool {
        match self {
            Self::CursorLoop
            | Self::TooManyPages { .. }
            | Self::TooMany { .. }
            | Self::TooLarge { .. } => true,
            Self::NotAnObject | Self::NoList { .. } | Self::FieldTwice { .. } => false,
        }
    }
}

/// How much of one list is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListMax {
    pub pages: usize,
    /// Items, and as many that are malformed.
    pub items: usize,
    /// Bytes of all that is kept of it.
    pub bytes: usize,
}

/// Reads the `result` object of one answer to a request that lists this kind.
pub fn page_of(kind: Kind, result: &[u8]) -> Result<Page, BadList> {
    let max = ListMax { pages: 1, items: usize::MAX, bytes: usize::MAX };
    let mut listing = Listing::new(kind, max);
    let next_cursor = listing.read(result)?;
    Ok(Page { items: listing.items, dropped: listing.dropped, next_cursor })
}

/// All pages of one list, as they come in.
#[derive(Debug)]
pub struct Listing {
    kind: Kind,
    items: Vec<Item>,
    dropped: Vec<BadItem>,
    keys: HashSet<Box<str>>,
    cursors: HashSet<Box<str>>,
    pages: usize,
    bytes: usize,
    max: ListMax,
    /// Why no more is taken.
    full: Option<BadList>,
}

impl Listing {
    /// An upstream that never comes to an end is stopped at `max`.
    pub fn new(kind: Kind, max: ListMax) -> Self {
        let (items, dropped, keys, cursors) = Default::default();
        Self { kind, items, dropped, keys, cursors, pages: 0, bytes: 0, max, full: None }
    }

    /// Takes in one `result`, and answers the cursor to ask for next, or `None` at the end.
    ///
    /// # Errors
    /// It is no list, or the rest of it is left out (see [`BadList::is_cut`]). No more is to be added.
    pub fn add(&mut self, result: &[u8]) -> Result<Option<Box<str>>, BadList> {
        let next_cursor = self.read(result)?;
        self.pages += 1;
        if let Some(full) = self.full.take() {
            return Err(full);
        }
        let Some(cursor) = next_cursor else { return Ok(None) };
        self.bytes += cursor.len();
        if !self.cursors.insert(cursor.clone()) {
            return Err(BadList::CursorLoop);
        }
        if self.pages >= self.max.pages {
            return Err(BadList::TooManyPages { pages_max: self.max.pages });
        }
        match self.fullness(0) {
            Some(full) => Err(full),
            None => Ok(Some(cursor)),
        }
    }

    /// What all pages hold, each key once, and what was dropped on the way.
    pub fn finish(self) -> (Vec<Item>, Vec<BadItem>) {
        (self.items, self.dropped)
    }

    /// Takes in what a page lists, and answers its cursor as the JSON that came.
    fn read(&mut self, result: &[u8]) -> Result<Option<Box<str>>, BadList> {
        let field = self.kind.list_field();
        let fields: Named<'_> = serde_json::from_slice(result).map_err(|_| BadList::NotAnObject)?;
        let list = fields.only(field).map_err(|_| BadList::FieldTwice { field })?;
        let next_cursor =
            fields.only("nextCursor").map_err(|_| BadList::FieldTwice { field: "nextCursor" })?;
        let list = list.filter(|list| list.get().starts_with('['));
        let list = list.ok_or(BadList::NoList { field })?;
        let mut elements = serde_json::Deserializer::from_str(list.get());
        elements.deserialize_seq(Taking(self)).map_err(|_| BadList::NoList { field })?;
        Ok(next_cursor.map(RawValue::get).filter(|token| *token != "null").map(one_line))
    }

    /// Takes what is listed next, unless there is no room for it.
    fn take(&mut self, text: &str) {
        self.full = self.fullness(text.len());
        if self.full.is_some() {
            return;
        }
        match Item::parse(self.kind, Bytes::copy_from_slice(text.as_bytes())) {
            Ok(item) if self.keys.insert(item.key.clone()) => {
                self.bytes += text.len();
                self.items.push(item);
            }
            Ok(item) => self.drop_one(BadItem::Repeated { key: item.key }),
            Err(why) => self.drop_one(why),
        }
    }

    fn drop_one(&mut self, why: BadItem) {
        if let BadItem::Repeated { key } = &why {
            self.bytes += key.len();
        }
        self.dropped.push(why);
    }

    /// Why an item of so many bytes has no place.
    fn fullness(&self, bytes: usize) -> Option<BadList> {
        let ListMax { items: items_max, bytes: bytes_max, .. } = self.max;
        if self.items.len().max(self.dropped.len()) >= items_max {
            return Some(BadList::TooMany { items_max });
        }
        (self.bytes.saturating_add(bytes) > bytes_max).then_some(BadList::TooLarge { bytes_max })
    }
}

/// Takes one element after the other, so that a page of millions is never held as such.
struct Taking<'a>(&'a mut Listing);

impl<'de> Visitor<'de> for Taking<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut elements: S) -> Result<(), S::Error> {
        while self.0.full.is_none() {
            let Some(element) = elements.next_element::<&RawValue>()? else { return Ok(()) };
            self.0.take(element.get());
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// As within items: in valid JSON a line break is white space.
fn one_line(token: &str) -> Box<str> {
    token.replace(['\n', '\r'], " ").into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn max(pages: usize) -> ListMax {
        ListMax { pages, items: 100, bytes: 10_000 }
    }

    fn names(tools: &[Item]) -> Vec<&str> {
        tools.iter().map(|tool| &*tool.key).collect()
    }

    #[test]
    fn a_page_is_read_in_its_order_with_its_cursor_untouched() {
        let page = page_of(
            Kind::Tool,
            br#"{"nextCursor":"a\u0062","tools":[{"name":"z"},{"name":"a"}],"_meta":{}}"#,
        )
        .unwrap();
        assert_eq!(names(&page.items), ["z", "a"]);
        assert_eq!(page.next_cursor.as_deref(), Some(r#""a\u0062""#));
        assert!(page.dropped.is_empty());
    }

    #[test]
    fn a_malformed_tool_falls_out_alone() {
        let page = page_of(
            Kind::Tool,
            br#"{"tools":[{"name":"a"},null,{"title":"x"},{"name":"a","v":2},{"name":"b"}]}"#,
        )
        .unwrap();
        assert_eq!(names(&page.items), ["a", "b"]);
        let repeated = BadItem::Repeated { key: "a".into() };
        assert_eq!(
            page.dropped,
            [BadItem::NotAnObject, BadItem::Missing { field: "name" }, repeated]
        );
    }

    #[test]
    fn a_null_cursor_is_the_end_and_an_empty_one_is_not() {
        let next = |result: &str| page_of(Kind::Tool, result.as_bytes()).unwrap().next_cursor;
        assert_eq!(next(r#"{"tools":[],"nextCursor":null}"#), None);
        assert_eq!(next(r#"{"tools":[]}"#), None);
        assert_eq!(next(r#"{"tools":[],"nextCursor":""}"#).as_deref(), Some(r#""""#));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (result, why) in [
            ("[]", BadList::NotAnObject),
            ("{}", BadList::NoList { field: "tools" }),
            (r#"{"tools":{}}"#, BadList::NoList { field: "tools" }),
            (r#"{"tools":[],"tools":[]}"#, BadList::FieldTwice { field: "tools" }),
            (
                r#"{"tools":[],"nextCursor":"a","nextCursor":"b"}"#,
                BadList::FieldTwice { field: "nextCursor" },
            ),
        ] {
            assert_eq!(page_of(Kind::Tool, result.as_bytes()).map(|_| ()), Err(why), "{result}");
        }
    }

    #[test]
    fn pages_are_gathered_and_a_name_counts_once_over_all_of_them() {
        let mut listing = Listing::new(Kind::Tool, max(10));
        let next = listing.add(br#"{"tools":[{"name":"a"}],"nextCursor":"2"}"#).unwrap();
        assert_eq!(next.as_deref(), Some(r#""2""#));
        assert_eq!(listing.add(br#"{"tools":[{"name":"b"},{"name":"a"}]}"#), Ok(None));

        let (tools, dropped) = listing.finish();
        assert_eq!(names(&tools), ["a", "b"]);
        assert_eq!(dropped, [BadItem::Repeated { key: "a".into() }]);
    }

    #[test]
    fn a_list_without_an_end_is_given_up() {
        let page = |cursor: usize| format!(r#"{{"tools":[],"nextCursor":"{cursor}"}}"#);
        let mut circle = Listing::new(Kind::Tool, max(10));
        assert!(circle.add(page(1).as_bytes()).is_ok());
        assert_eq!(circle.add(page(1).as_bytes()), Err(BadList::CursorLoop));

        let mut endless = Listing::new(Kind::Tool, max(3));
        let last = (0..3).map(|number| endless.add(page(number).as_bytes())).last().unwrap();
        assert_eq!(last, Err(BadList::TooManyPages { pages_max: 3 }));
    }

    #[test]
    fn no_more_is_kept_of_a_list_than_its_limits_allow_and_no_more_is_asked_for() {
        let page = |from: usize, cursor: &str| {
            let tools: Vec<_> =
                (from..from + 10).map(|number| format!(r#"{{"name":"t{number:04}"}}"#)).collect();
            format!(r#"{{"tools":[{}]{cursor}}}"#, tools.join(","))
        };
        let tool = r#"{"name":"t0000"}"#.len();
        let more = r#","nextCursor":"x""#;
        for (items, bytes, kept, why) in [
            (10, 10_000, 10, BadList::TooMany { items_max: 10 }),
            (7, 10_000, 7, BadList::TooMany { items_max: 7 }),
            (100, 5 * tool + 3, 5, BadList::TooLarge { bytes_max: 5 * tool + 3 }),
        ] {
            let mut listing = Listing::new(Kind::Tool, ListMax { pages: 9, items, bytes });
            assert_eq!(listing.add(page(0, more).as_bytes()), Err(why.clone()));
            assert!(why.is_cut());
            let (tools, dropped) = listing.finish();
            assert_eq!((tools.len(), dropped.len()), (kept, 0));
        }
        let mut whole = Listing::new(Kind::Tool, ListMax { pages: 9, items: 10, bytes: 10_000 });
        assert_eq!(whole.add(page(0, "").as_bytes()), Ok(None), "ten are not more than ten");

        let mut bomb = Listing::new(Kind::Tool, max(9));
        let nulls = format!(r#"{{"tools":[{}null]}}"#, "null,".repeat(100_000));
        assert_eq!(bomb.add(nulls.as_bytes()), Err(BadList::TooMany { items_max: 100 }));
        assert_eq!(bomb.finish().1.len(), 100);

        let mut cursors = Listing::new(Kind::Tool, max(9));
        let long = format!(r#"{{"tools":[],"nextCursor":"{}"}}"#, "x".repeat(10_000));
        let too_large = Err(BadList::TooLarge { bytes_max: 10_000 });
        assert_eq!(cursors.add(long.as_bytes()), too_large);
    }

    #[test]
    fn each_kind_has_its_own_list() {
        let result =
            br#"{"tools":[],"prompts":[{"name":"p"}],"resources":[{"uri":"u://a"},{"name":"x"}],
            "resourceTemplates":[{"uriTemplate":"u://{x}"}]}"#;
        for (kind, keys, dropped) in [
            (Kind::Tool, &[][..], 0),
            (Kind::Prompt, &["p"], 0),
            (Kind::Resource, &["u://a"], 1),
            (Kind::Template, &["u://{x}"], 0),
        ] {
            let page = page_of(kind, result).unwrap();
            assert_eq!((names(&page.items), page.dropped.len()), (keys.to_vec(), dropped));
        }
    }
}
