//! Reads the answers to requests that list: one page, and all pages of one refresh.
//!
//! What is malformed falls out alone and is reported; only an answer that is no list at all is an
//! error. Asking for the next page, and how long to wait for it, is left to the upstream's room.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    item::{BadItem, Item},
    kind::Kind,
    pairs::Pairs,
};

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
}

/// Reads the `result` object of one answer to a request that lists this kind.
pub fn page_of(kind: Kind, result: &[u8]) -> Result<Page, BadList> {
    let field = kind.list_field();
    let fields: Pairs<'_> = serde_json::from_slice(result).map_err(|_| BadList::NotAnObject)?;
    let list = fields.only(field).map_err(|_| BadList::FieldTwice { field })?;
    let next_cursor =
        fields.only("nextCursor").map_err(|_| BadList::FieldTwice { field: "nextCursor" })?;
    let items: Vec<&RawValue> = list
        .and_then(|list| serde_json::from_str(list.get()).ok())
        .ok_or(BadList::NoList { field })?;

    let mut listing = Listing::new(kind, 1);
    for item in items {
        listing.admit(Item::parse(kind, Bytes::copy_from_slice(item.get().as_bytes())));
    }
    Ok(Page {
        items: listing.items,
        dropped: listing.dropped,
        next_cursor: next_cursor.map(RawValue::get).filter(|token| *token != "null").map(one_line),
    })
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
    pages_max: usize,
}

impl Listing {
    /// An upstream that never comes to an end is stopped after `pages_max` pages.
    pub fn new(kind: Kind, pages_max: usize) -> Self {
        let (items, dropped, keys, cursors) = Default::default();
        Self { kind, items, dropped, keys, cursors, pages: 0, pages_max }
    }

    /// Takes in one `result`, and answers the cursor to ask for next, or `None` at the end.
    pub fn add(&mut self, result: &[u8]) -> Result<Option<Box<str>>, BadList> {
        let page = page_of(self.kind, result)?;
        self.pages += 1;
        self.dropped.extend(page.dropped);
        for item in page.items {
            self.admit(Ok(item));
        }
        let Some(cursor) = page.next_cursor else { return Ok(None) };
        if !self.cursors.insert(cursor.clone()) {
            return Err(BadList::CursorLoop);
        }
        if self.pages >= self.pages_max {
            return Err(BadList::TooManyPages { pages_max: self.pages_max });
        }
        Ok(Some(cursor))
    }

    /// What all pages hold, each key once, and what was dropped on the way.
    pub fn finish(self) -> (Vec<Item>, Vec<BadItem>) {
        (self.items, self.dropped)
    }

    fn admit(&mut self, read: Result<Item, BadItem>) {
        match read {
            Ok(item) if self.keys.insert(item.key.clone()) => self.items.push(item),
            Ok(item) => self.dropped.push(BadItem::Repeated { key: item.key }),
            Err(why) => self.dropped.push(why),
        }
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
        let mut listing = Listing::new(Kind::Tool, 10);
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
        let mut circle = Listing::new(Kind::Tool, 10);
        assert!(circle.add(page(1).as_bytes()).is_ok());
        assert_eq!(circle.add(page(1).as_bytes()), Err(BadList::CursorLoop));

        let mut endless = Listing::new(Kind::Tool, 3);
        let last = (0..3).map(|number| endless.add(page(number).as_bytes())).last().unwrap();
        assert_eq!(last, Err(BadList::TooManyPages { pages_max: 3 }));
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
