//! Lists as clients ask for them: whole, or page by page with cursors that say nothing to them.
//!
//! A cursor is sealed and holds all there is to know about where its page goes on, so that nothing is
//! kept for those who never come back and a restart of the daemon changes nothing. It is good for one
//! list of one endpoint. Lists are the same for every principal of an endpoint, so it names none.

use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    catalogue::{
        kind::Kind,
        pages::{Page, Place},
    },
    identity::sealer::Sealer,
    namespace::published::Published,
    wire::{Fault, Frame, message},
};

/// What the cursors are sealed for.
pub const PURPOSE: &str = "list cursors";

/// The first byte, so that a later form can be told from this one.
const FORM: u8 = 1;

/// The member of a list's `_meta` that names the servers whose part is not known.
const MISSING: &str = "metamcpd/missing";

/// How lists are cut.
pub struct Paging {
    sealer: Sealer,
    /// Items of a page (`lists.page_size`); 0 is all of them.
    size: usize,
}

impl Paging {
    pub fn new(sealer: Sealer, size: usize) -> Self {
        Self { sealer, size }
    }

    /// Where a request goes on: after this place, or from the beginning.
    ///
    /// # Errors
    /// Its cursor was not given here for this list. To begin again instead would lead its client round
    /// in circles.
    pub fn place(
        &self,
        endpoint: Uuid,
        kind: Kind,
        request: &Frame,
    ) -> Result<Option<Place>, Fault> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(default)]
            params: Option<Params>,
        }
        #[derive(Deserialize)]
        struct Params {
            #[serde(default)]
            cursor: Option<String>,
        }

        let request: Request = serde_json::from_slice(request.bytes()).map_err(|error| {
            let what = "the parameters of a list are an object, and its `cursor` is a string";
            Fault::invalid_params(format!("{what}: {error}"))
        })?;
        let Some(cursor) = request.params.and_then(|params| params.cursor) else { return Ok(None) };
        self.open(endpoint, kind, &cursor).map(Some).ok_or_else(|| {
            Fault::invalid_params(format!(
                "this cursor was not given by this endpoint for `{}`; begin again without `cursor`",
                kind.list_method()
            ))
        })
    }

    /// `list`, which is that of the snapshot or the same in another form; or the part of it that comes
    /// after a place.
    pub fn answer(
        &self,
        endpoint: Uuid,
        published: &Published,
        kind: Kind,
        list: &Bytes,
        after: Option<&Place>,
        id: &[u8],
    ) -> Bytes {
        let field = kind.list_field().as_bytes();
        let note = note_of(&published.missing[kind]);
        let whole = || message::reply_of(id, &[b"{\"", field, b"\":", list, &note, b"}"]);
        if after.is_none() && self.size == 0 {
            return whole();
        }
        let cut;
        let pages = match list == published.list(kind) {
            true => published.pages(kind),
            false => {
                cut = published.cut(kind, list);
                &cut
            }
        };
        if after.is_none() && pages.len() <= self.size {
            return whole();
        }
        let mut page = pages.after(after, self.size);
        let cursor = page.next.and_then(|next| self.seal(endpoint, kind, next));
        if cursor.is_none() && page.next.is_some() {
            // Rather a page that is too long than a list without its end.
            page = pages.after(after, 0);
        }
        written(id, field, &page, cursor.as_deref(), &note)
    }

    fn seal(&self, endpoint: Uuid, kind: Kind, place: &Place) -> Option<String> {
        let about = [&[FORM, kind as u8], &endpoint.as_bytes()[..], &place.to_bytes()].concat();
        let token = self.sealer.seal(&about).inspect_err(|error| {
            tracing::error!(%error, "a cursor could not be sealed");
        });
        token.ok().map(|token| token.text)
    }

    fn open(&self, endpoint: Uuid, kind: Kind, cursor: &str) -> Option<Place> {
        let about = self.sealer.open(cursor)?.plain;
        let (&[form, its_kind], rest) = about.split_first_chunk::<2>()?;
        let (its_endpoint, place) = rest.split_first_chunk::<16>()?;
        let is_ours = form == FORM && its_kind == kind as u8 && its_endpoint == endpoint.as_bytes();
        is_ours.then(|| Place::from_bytes(place))?
    }
}

/// What a list says besides, where it leaves somebody out; to be put behind its last member.
fn note_of(missing: &[Box<str>]) -> Vec<u8> {
    match missing {
        [] => Vec::new(),
        missing => format!(r#","_meta":{}"#, serde_json::json!({ MISSING: missing })).into_bytes(),
    }
}

fn written(id: &[u8], field: &[u8], page: &Page<'_>, cursor: Option<&str>, note: &[u8]) -> Bytes {
    let mut parts: Vec<&[u8]> = vec![b"{\"", field, b"\":["];
    for (number, (_, item)) in page.items.iter().enumerate() {
        if number > 0 {
            parts.push(b",");
        }
        parts.push(item);
    }
    parts.push(b"]");
    if let Some(cursor) = cursor {
        parts.extend([&b",\"nextCursor\":\""[..], cursor.as_bytes(), b"\""]);
    }
    parts.extend([note, b"}"]);
    message::reply_of(id, &parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::identity::vault::Vault;

    const HERE: Uuid = Uuid::from_u128(1);

    fn paging() -> Paging {
        let dir = tempfile::tempdir().unwrap();
        Paging::new(Vault::open(dir.path()).unwrap().sealer(PURPOSE).unwrap(), 2)
    }

    fn place() -> Place {
        Place::of(Uuid::from_u128(7), "file:///a")
    }

    fn asked(params: &str) -> Frame {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{params}}}"#);
        Frame::parse(text.into(), 16).unwrap()
    }

    #[test]
    fn a_cursor_is_good_for_the_list_it_was_given_for_and_for_no_other() {
        let paging = paging();
        let cursor = paging.seal(HERE, Kind::Tool, &place()).unwrap();
        assert_eq!(paging.open(HERE, Kind::Tool, &cursor), Some(place()));
        assert_eq!(paging.open(Uuid::from_u128(2), Kind::Tool, &cursor), None);
        for kind in [Kind::Prompt, Kind::Resource, Kind::Template] {
            assert_eq!(paging.open(HERE, kind, &cursor), None);
        }
        let elsewhere = self::paging();
        assert_eq!(elsewhere.open(HERE, Kind::Tool, &cursor), None, "another key");
    }

    #[test]
    fn the_longest_key_makes_a_cursor_that_opens() {
        let (paging, key) = (paging(), "x".repeat(5_000));
        let long = Place::of(Uuid::max(), &key);
        let cursor = paging.seal(Uuid::max(), Kind::Template, &long).unwrap();
        assert_eq!(paging.open(Uuid::max(), Kind::Template, &cursor), Some(long));
    }

    #[test]
    fn what_is_no_cursor_of_ours_is_refused_in_words() {
        let paging = paging();
        for params in ["{}", r#"{"cursor":null}"#, "null", r#"{"_meta":{}}"#] {
            assert_eq!(paging.place(HERE, Kind::Tool, &asked(params)).unwrap(), None, "{params}");
        }
        let huge = format!(r#"{{"cursor":"{}"}}"#, "A".repeat(100_000));
        for params in [r#"{"cursor":""}"#, r#"{"cursor":"2"}"#, r#"{"cursor":"é\u0000"}"#, &huge] {
            let fault = paging.place(HERE, Kind::Tool, &asked(params)).unwrap_err();
            assert!(fault.message.contains("`tools/list`"), "{}", fault.message);
            assert_eq!(fault.code, -32602);
        }
        for params in [r#"{"cursor":7}"#, r#"{"cursor":{}}"#] {
            let fault = paging.place(HERE, Kind::Tool, &asked(params)).unwrap_err();
            assert!(fault.message.contains("is a string"), "{}", fault.message);
        }
    }

    proptest! {
        #[test]
        fn a_cursor_that_was_changed_anywhere_is_never_taken(
            place_of in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(),
        ) {
            let paging = paging();
            let cursor = paging.seal(HERE, Kind::Resource, &place()).unwrap();
            let mut other = cursor.clone().into_bytes();
            let spot = place_of.index(other.len());
            other[spot] = byte;
            // What is no UTF-8 never comes so far; what it would be read as does.
            let other = String::from_utf8_lossy(&other).into_owned();
            let opened = paging.open(HERE, Kind::Resource, &other);
            prop_assert_eq!(opened.is_some(), other == cursor);
            let shorter = &cursor[..cut.index(cursor.len())];
            prop_assert_eq!(paging.open(HERE, Kind::Resource, shorter), None);
            prop_assert_eq!(paging.open(HERE, Kind::Resource, &format!("{cursor}A")), None);
        }

        #[test]
        fn no_text_at_all_is_a_cursor(text in ".{0,700}") {
            prop_assert_eq!(paging().open(HERE, Kind::Tool, &text), None);
        }
    }
}
