//! Reads the answers to `tools/list`: one page, and all pages of one refresh.
//!
//! A malformed tool falls out alone and is reported; only an answer that is no list at all is an
//! error. Asking for the next page, and how long to wait for it, is left to the upstream's room.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    pairs::Pairs,
    tool::{BadTool, Tool},
};

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// In the upstream's own order.
    pub tools: Vec<Tool>,
    /// What was dropped from the page, and why.
    pub dropped: Vec<BadTool>,
    /// The cursor of the next page as the JSON that came, ready to be sent back.
    pub next_cursor: Option<Box<str>>,
}

/// Why an answer is no list of tools.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    #[error("the result is not a JSON object")]
    NotAnObject,
    #[error("the result has no array called tools")]
    NoTools,
    #[error("the result has two fields called {field}")]
    FieldTwice { field: &'static str },
    #[error("the list leads back to a page that was read before")]
    CursorLoop,
    #[error("the list has more than {pages_max} pages")]
    TooManyPages { pages_max: usize },
}

/// Reads the `result` object of one answer to `tools/list`.
pub fn tools_of(result: &[u8]) -> Result<Page, BadList> {
    let fields: Pairs<'_> = serde_json::from_slice(result).map_err(|_| BadList::NotAnObject)?;
    let tools = fields.only("tools").map_err(|_| BadList::FieldTwice { field: "tools" })?;
    let next_cursor =
        fields.only("nextCursor").map_err(|_| BadList::FieldTwice { field: "nextCursor" })?;
    let items: Vec<&RawValue> =
        tools.and_then(|tools| serde_json::from_str(tools.get()).ok()).ok_or(BadList::NoTools)?;

    let mut listing = Listing::new(1);
    for item in items {
        listing.admit(Tool::parse(Bytes::copy_from_slice(item.get().as_bytes())));
    }
    Ok(Page {
        tools: listing.tools,
        dropped: listing.dropped,
        next_cursor: next_cursor.map(RawValue::get).filter(|token| *token != "null").map(one_line),
    })
}

/// All pages of one list, as they come in.
#[derive(Debug)]
pub struct Listing {
    tools: Vec<Tool>,
    dropped: Vec<BadTool>,
    names: HashSet<Box<str>>,
    cursors: HashSet<Box<str>>,
    pages: usize,
    pages_max: usize,
}

impl Listing {
    /// An upstream that never comes to an end is stopped after `pages_max` pages.
    pub fn new(pages_max: usize) -> Self {
        let (tools, dropped, names, cursors) = Default::default();
        Self { tools, dropped, names, cursors, pages: 0, pages_max }
    }

    /// Takes in one `result`, and answers the cursor to ask for next, or `None` at the end.
    pub fn add(&mut self, result: &[u8]) -> Result<Option<Box<str>>, BadList> {
        let page = tools_of(result)?;
        self.pages += 1;
        self.dropped.extend(page.dropped);
        for tool in page.tools {
            self.admit(Ok(tool));
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

    /// The tools of all pages, each name once, and what was dropped on the way.
    pub fn finish(self) -> (Vec<Tool>, Vec<BadTool>) {
        (self.tools, self.dropped)
    }

    fn admit(&mut self, read: Result<Tool, BadTool>) {
        match read {
            Ok(tool) if self.names.insert(tool.name.clone()) => self.tools.push(tool),
            Ok(tool) => self.dropped.push(BadTool::Repeated { name: tool.name }),
            Err(why) => self.dropped.push(why),
        }
    }
}

/// As with tools: in valid JSON a line break is white space.
fn one_line(token: &str) -> Box<str> {
    token.replace(['\n', '\r'], " ").into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(tools: &[Tool]) -> Vec<&str> {
        tools.iter().map(|tool| &*tool.name).collect()
    }

    #[test]
    fn a_page_is_read_in_its_order_with_its_cursor_untouched() {
        let page =
            tools_of(br#"{"nextCursor":"a\u0062","tools":[{"name":"z"},{"name":"a"}],"_meta":{}}"#)
                .unwrap();
        assert_eq!(names(&page.tools), ["z", "a"]);
        assert_eq!(page.next_cursor.as_deref(), Some(r#""a\u0062""#));
        assert!(page.dropped.is_empty());
    }

    #[test]
    fn a_malformed_tool_falls_out_alone() {
        let page = tools_of(
            br#"{"tools":[{"name":"a"},null,{"title":"x"},{"name":"a","v":2},{"name":"b"}]}"#,
        )
        .unwrap();
        assert_eq!(names(&page.tools), ["a", "b"]);
        let repeated = BadTool::Repeated { name: "a".into() };
        assert_eq!(page.dropped, [BadTool::NotAnObject, BadTool::NameMissing, repeated]);
    }

    #[test]
    fn a_null_cursor_is_the_end_and_an_empty_one_is_not() {
        let next = |result: &str| tools_of(result.as_bytes()).unwrap().next_cursor;
        assert_eq!(next(r#"{"tools":[],"nextCursor":null}"#), None);
        assert_eq!(next(r#"{"tools":[]}"#), None);
        assert_eq!(next(r#"{"tools":[],"nextCursor":""}"#).as_deref(), Some(r#""""#));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (result, why) in [
            ("[]", BadList::NotAnObject),
            ("{}", BadList::NoTools),
            (r#"{"tools":{}}"#, BadList::NoTools),
            (r#"{"tools":[],"tools":[]}"#, BadList::FieldTwice { field: "tools" }),
            (
                r#"{"tools":[],"nextCursor":"a","nextCursor":"b"}"#,
                BadList::FieldTwice { field: "nextCursor" },
            ),
        ] {
            assert_eq!(tools_of(result.as_bytes()).map(|_| ()), Err(why), "{result}");
        }
    }

    #[test]
    fn pages_are_gathered_and_a_name_counts_once_over_all_of_them() {
        let mut listing = Listing::new(10);
        let next = listing.add(br#"{"tools":[{"name":"a"}],"nextCursor":"2"}"#).unwrap();
        assert_eq!(next.as_deref(), Some(r#""2""#));
        assert_eq!(listing.add(br#"{"tools":[{"name":"b"},{"name":"a"}]}"#), Ok(None));

        let (tools, dropped) = listing.finish();
        assert_eq!(names(&tools), ["a", "b"]);
        assert_eq!(dropped, [BadTool::Repeated { name: "a".into() }]);
    }

    #[test]
    fn a_list_without_an_end_is_given_up() {
        let page = |cursor: usize| format!(r#"{{"tools":[],"nextCursor":"{cursor}"}}"#);
        let mut circle = Listing::new(10);
        assert!(circle.add(page(1).as_bytes()).is_ok());
        assert_eq!(circle.add(page(1).as_bytes()), Err(BadList::CursorLoop));

        let mut endless = Listing::new(3);
        let last = (0..3).map(|number| endless.add(page(number).as_bytes())).last().unwrap();
        assert_eq!(last, Err(BadList::TooManyPages { pages_max: 3 }));
    }
}
