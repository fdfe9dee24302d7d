//! The members of a JSON object by their places in a text, to be exchanged, added or cut out without a
//! change to any other byte.
//!
//! It is read when it is asked for, since few messages are looked into so deeply.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use super::{frame::Span, members::Members};

/// One object within a text. All places are those of the whole text.
pub struct Object<'a> {
    whole: &'a str,
    opens: usize,
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    key: String,
    raw_key: &'a RawValue,
    value: &'a RawValue,
}

impl<'a> Object<'a> {
    /// The object that the whole text is. `None` for anything else.
    pub fn of(whole: &'a [u8]) -> Option<Self> {
        let whole = std::str::from_utf8(whole).ok()?;
        Self::within(whole, whole.trim_start())
    }

    /// The object that is the value of `key`.
    pub fn object(&self, key: &str) -> Option<Object<'a>> {
        Self::within(self.whole, self.raw(key)?)
    }

    /// The value of `key` as it was written. `None` also where it stands twice, which no two readers
    /// would take alike.
    pub fn raw(&self, key: &str) -> Option<&'a str> {
        self.only(key).map(|member| member.value.get())
    }

    /// Where that is.
    pub fn value(&self, key: &str) -> Option<Span> {
        let raw = self.raw(key)?;
        Some(self.span(raw))
    }

    /// The value of `key`, decoded, where it is a string.
    pub fn text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.raw(key)?).ok()
    }

    /// The value of `key`, where it is a number.
    pub fn number(&self, key: &str) -> Option<f64> {
        serde_json::from_str(self.raw(key)?).ok()
    }

    /// What to take out so that `key` is gone: the member, with the comma that it needs no more.
    pub fn cut(&self, key: &str) -> Option<Span> {
        let place = self.place(key)?;
        let member = &self.members[place];
        let (start, end) =
            (self.span(member.raw_key.get()).start, self.span(member.value.get()).end);
        if let Some(before) = place.checked_sub(1) {
            return Some(Span { start: self.span(self.members[before].value.get()).end, end });
        }
        let next = self.members.get(1).map(|next| self.span(next.raw_key.get()).start);
        Some(Span { start, end: next.unwrap_or(end) })
    }

    /// Where to put a member, and what: at the beginning, before all others.
    pub fn with(&self, member: &str) -> (Span, Bytes) {
        let inside = self.opens as u32 + 1;
        let comma = if self.members.is_empty() { "" } else { "," };
        (Span { start: inside, end: inside }, format!("{member}{comma}").into())
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn within(whole: &'a str, text: &'a str) -> Option<Self> {
        let Members(members): Members<'_> = serde_json::from_str(text).ok()?;
        let decoded = members.into_iter().map(|(raw_key, value)| {
            Some(Member { key: serde_json::from_str(raw_key.get()).ok()?, raw_key, value })
        });
        let members = decoded.collect::<Option<_>>()?;
        let opens = text.as_ptr().addr() - whole.as_ptr().addr();
        Some(Self { whole, opens, members })
    }

    fn only(&self, key: &str) -> Option<&Member<'a>> {
        self.place(key).map(|place| &self.members[place])
    }

    fn place(&self, key: &str) -> Option<usize> {
        let named = self.members.iter().enumerate().filter(|(_, member)| member.key == key);
        let mut named = named.map(|(place, _)| place);
        let first = named.next()?;
        named.next().is_none().then_some(first)
    }

    /// A part borrows from the text, so the distance of their addresses is its place.
    fn span(&self, part: &str) -> Span {
        let start = (part.as_ptr().addr() - self.whole.as_ptr().addr()) as u32;
        Span { start, end: start + part.len() as u32 }
    }
}

/// A text with other bytes in the place of some spans, and every other byte kept.
pub fn splice(text: &[u8], edits: &mut [(Span, &[u8])]) -> Bytes {
    edits.sort_by_key(|(span, _)| span.start);
    let growth: usize = edits.iter().map(|(_, new)| new.len()).sum();
    let mut spliced = BytesMut::with_capacity(text.len() + growth);
    let mut copied = 0;
    for (span, new) in edits {
        spliced.put_slice(&text[copied..span.start as usize]);
        spliced.put_slice(new);
        copied = span.end as usize;
    }
    spliced.put_slice(&text[copied..]);
    spliced.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn cut(text: &str, path: &[&str]) -> String {
        let (last, parents) = path.split_last().unwrap();
        let mut object = Object::of(text.as_bytes()).unwrap();
        for parent in parents {
            object = object.object(parent).unwrap();
        }
        let cut = object.cut(last).unwrap();
        String::from_utf8(splice(text.as_bytes(), &mut [(cut, b"")]).to_vec()).unwrap()
    }

    #[test]
    fn a_member_is_cut_out_with_the_comma_that_it_needs_no_more() {
        for (text, path, expected) in [
            (r#"{"a":1}"#, &["a"][..], "{}"),
            (r#" { "a" : 1 , "b":2.50}"#, &["a"], r#" { "b":2.50}"#),
            (r#"{"a":1 , "b" : [ 2 ] }"#, &["b"], r#"{"a":1 }"#),
            (r#"{"a":1,"b":2,"c":3}"#, &["b"], r#"{"a":1,"c":3}"#),
            (r#"{"o":{"x":"}","\u0061":{}},"z":1}"#, &["o", "a"], r#"{"o":{"x":"}"},"z":1}"#),
        ] {
            assert_eq!(cut(text, path), expected, "{text}");
        }
    }

    #[test]
    fn a_member_is_put_before_all_others() {
        for (text, expected) in [("{}", r#"{"n":0}"#), (r#"{ "a":1}"#, r#"{"n":0, "a":1}"#)] {
            let (place, member) = Object::of(text.as_bytes()).unwrap().with(r#""n":0"#);
            assert_eq!(splice(text.as_bytes(), &mut [(place, &member)]), expected);
        }
    }

    #[test]
    fn what_stands_twice_or_is_something_else_is_not_found() {
        let object = Object::of(br#"{"a":1,"\u0061":2,"b":"x","c":[],"d":1.5}"#).unwrap();
        assert!(object.raw("a").is_none() && object.cut("a").is_none());
        assert!(object.object("c").is_none() && object.text("c").is_none());
        assert_eq!((object.text("b").as_deref(), object.number("d")), (Some("x"), Some(1.5)));
        assert_eq!(object.len(), 5);
        for text in ["[]", "1", "", "{"] {
            assert!(Object::of(text.as_bytes()).is_none(), "{text}");
        }
    }
}
