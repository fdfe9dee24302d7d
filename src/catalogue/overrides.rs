//! Puts an operator's words into a tool's definition, and leaves every other byte as it came.
//!
//! Values are exchanged where they stand and members are added or cut out by their places in the
//! text; nothing is read into a type of ours and written again. Which name is shown is decided in
//! `naming`.

use std::{collections::BTreeMap, ops::Range};

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::item::Item;
use crate::wire::members::Members;

/// What stands in the place of an upstream's own words; `None` leaves them. An empty text is a
/// text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// For people. It also takes the place of `annotations.title` where the upstream has one, since
    /// older clients show that.
    pub title: Option<String>,
    /// For models.
    pub description: Option<String>,
    /// Merged member by member over the upstream's `annotations`; `null` removes a member.
    pub annotations: BTreeMap<String, Value>,
}

impl Overrides {
    pub fn is_empty(&self) -> bool {
        self.title.is_none() && self.description.is_none() && self.annotations.is_empty()
    }
}

/// Appends the definition of `tool` to `list`, under its shown name and with the overrides.
pub fn append_shown(list: &mut BytesMut, tool: &Item, shown_name: &str, with: &Overrides) {
    let name = Value::from(shown_name).to_string();
    let Some(edited) = (!with.is_empty()).then(|| edited(&tool.definition, &name, with)).flatten()
    else {
        list.extend_from_slice(&tool.definition[..tool.key_span.start]);
        list.extend_from_slice(name.as_bytes());
        list.extend_from_slice(&tool.definition[tool.key_span.end..]);
        return;
    };
    list.extend_from_slice(edited.as_bytes());
}

/// `None` for what is no JSON object, which no [`Item`] is.
fn edited(definition: &Bytes, name: &str, with: &Overrides) -> Option<String> {
    let definition = std::str::from_utf8(definition).ok()?;
    let tool = Object::parse(definition)?;
    let text = |text: &Option<String>| text.as_deref().map(|text| Value::from(text).to_string());
    let mut changes = vec![("name", Some(name.to_owned()))];
    changes.extend(text(&with.title).map(|title| ("title", Some(title))));
    changes.extend(text(&with.description).map(|text| ("description", Some(text))));
    changes.extend(annotations(tool.value("annotations"), with).map(|new| ("annotations", new)));
    Some(tool.with(&changes))
}

/// The annotations as they are to be shown: `None` where nothing about them changes, and
/// `Some(None)` where nothing is left of something that was no object.
fn annotations(own: Option<&str>, with: &Overrides) -> Option<Option<String>> {
    let own_object = own.and_then(Object::parse);
    let has_title = own_object.as_ref().is_some_and(|own| own.value("title").is_some());
    let mut wanted = with.annotations.clone();
    if let Some(title) = with.title.as_deref().filter(|_| has_title) {
        wanted.entry("title".to_owned()).or_insert_with(|| title.into());
    }
    if wanted.is_empty() {
        return None;
    }
    let written = |value: &Value| (!value.is_null()).then(|| value.to_string());
    let changes: Vec<(&str, Option<String>)> =
        wanted.iter().map(|(key, value)| (&**key, written(value))).collect();
    match own_object {
        Some(own) => Some(Some(own.with(&changes))),
        // Absent, null or no object: there is nothing to merge over.
        None if changes.iter().all(|(_, value)| value.is_none()) => None,
        None => Object::parse("{}").map(|empty| Some(empty.with(&changes))),
    }
}

/// A JSON object as text, and where its members stand in it.
pub(super) struct Object<'a> {
    text: &'a str,
    members: Vec<Place>,
}

/// One member: its key, decoded, and the places of key and value in the text.
struct Place {
    key: String,
    start: usize,
    value: Range<usize>,
}

impl<'a> Object<'a> {
    pub fn parse(text: &'a str) -> Option<Self> {
        let Members(members): Members<'_> = serde_json::from_str(text).ok()?;
        // Key and value borrow from the text, so the distance of their addresses is their place.
        let place = |part: &str| part.as_ptr().addr() - text.as_ptr().addr();
        let members = members.into_iter().map(|(key, value)| {
            let (start, value_start) = (place(key.get()), place(value.get()));
            let value = value_start..value_start + value.get().len();
            Some(Place { key: serde_json::from_str(key.get()).ok()?, start, value })
        });
        Some(Self { text, members: members.collect::<Option<_>>()? })
    }

    /// The last value of `key`, as most readers would have it.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        let member = self.members.iter().rev().find(|member| member.key == key)?;
        self.text.get(member.value.clone())
    }

    /// The text with each key of `changes` at its new value, or without it where that is `None`. A
    /// key that came twice is changed twice, so that no two readers see different things; one that
    /// did not come is added at the end.
    pub fn with(&self, changes: &[(&str, Option<String>)]) -> String {
        let change = |member: &Place| changes.iter().find(|(key, _)| *key == member.key);
        let mut edits: Vec<(Range<usize>, &str)> = Vec::new();
        let mut kept_end = None;
        for (index, member) in self.members.iter().enumerate() {
            match change(member) {
                Some((_, None)) => {
                    // With the comma after it where nothing stands before it, or else before it.
                    let next = self.members.get(index + 1).map(|next| next.start);
                    let cut = match kept_end {
                        None => member.start..next.unwrap_or(member.value.end),
                        Some(end) => end..member.value.end,
                    };
                    kept_end = kept_end.map(|_| member.value.end);
                    edits.push((cut, ""));
                }
                Some((_, Some(value))) => {
                    edits.push((member.value.clone(), value));
                    kept_end = Some(member.value.end);
                }
                None => kept_end = Some(member.value.end),
            }
        }
        let is_here = |key: &str| self.members.iter().any(|member| member.key == key);
        let mut added = String::new();
        for (key, value) in changes.iter().filter(|(key, _)| !is_here(key)) {
            let Some(value) = value else { continue };
            if kept_end.is_some() || !added.is_empty() {
                added.push(',');
            }
            added.push_str(&format!("{}:{value}", Value::from(*key)));
        }
        let last = self.members.last().map_or(1, |member| member.value.end);
        edits.push((last..last, &added));

        let mut written = String::with_capacity(self.text.len() + added.len());
        let mut done = 0;
        for (range, replacement) in edits {
            written.push_str(self.text.get(done..range.start).unwrap_or_default());
            written.push_str(replacement);
            done = range.end;
        }
        written.push_str(self.text.get(done..).unwrap_or_default());
        written
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{super::kind::Kind, *};

    fn shown(definition: &'static str, with: &Overrides) -> String {
        let tool = Item::parse(Kind::Tool, Bytes::from_static(definition.as_bytes())).unwrap();
        let mut list = BytesMut::new();
        append_shown(&mut list, &tool, "s__n", with);
        String::from_utf8(list.to_vec()).unwrap()
    }

    fn annotated(annotations: &str) -> Overrides {
        let annotations = serde_json::from_str(annotations).unwrap();
        Overrides { annotations, ..Overrides::default() }
    }

    #[test]
    fn without_overrides_only_the_name_is_another() {
        let definition = r#"{ "x":1.50,"title":"T", "name" : "n","annotations":{"title":"A"} }"#;
        let expected = r#"{ "x":1.50,"title":"T", "name" : "s__n","annotations":{"title":"A"} }"#;
        assert_eq!(shown(definition, &Overrides::default()), expected);
    }

    #[test]
    fn texts_are_exchanged_where_they_stand_or_added_at_the_end() {
        let both = Overrides {
            title: Some("New \"t\"".to_owned()),
            description: Some(String::new()),
            annotations: BTreeMap::new(),
        };
        for (definition, expected) in [
            (
                r#"{"description" : "old","big":12345678901234567890123, "name":"n", "title":null}"#,
                r#"{"description" : "","big":12345678901234567890123, "name":"s__n", "title":"New \"t\""}"#,
            ),
            (r#"{"name":"n" }"#, r#"{"name":"s__n","title":"New \"t\"","description":"" }"#),
            (
                r#"{"name":"n","inputSchema":{"title":"in","description":"in"},"t\u0069tle":"x"}"#,
                r#"{"name":"s__n","inputSchema":{"title":"in","description":"in"},"t\u0069tle":"New \"t\"","description":""}"#,
            ),
            (
                r#"{"title":"a","name":"n","title":"b","description":"c"}"#,
                r#"{"title":"New \"t\"","name":"s__n","title":"New \"t\"","description":""}"#,
            ),
        ] {
            assert_eq!(shown(definition, &both), expected);
        }
    }

    #[test]
    fn annotations_are_merged_member_by_member() {
        for (own, with, expected) in [
            // Exchanged, kept, added in the order of the keys.
            (
                r#"{ "a" : 1.0, "b":{"c": 2} }"#,
                r#"{"d":[1],"a":true,"c":"x"}"#,
                r#"{ "a" : true, "b":{"c": 2},"c":"x","d":[1] }"#,
            ),
            // An override's object replaces; it is not merged any deeper.
            (r#"{"b":{"c":2,"d":3}}"#, r#"{"b":{"c":1}}"#, r#"{"b":{"c":1}}"#),
            // Removed: the first, one between, the last, all, and what is not there.
            (r#"{"a":1, "b":2, "c":3}"#, r#"{"a":null}"#, r#"{"b":2, "c":3}"#),
            (r#"{"a":1, "b":2, "c":3}"#, r#"{"b":null}"#, r#"{"a":1, "c":3}"#),
            (r#"{"a":1, "b":2, "c":3 }"#, r#"{"c":null}"#, r#"{"a":1, "b":2 }"#),
            (r#"{"a":1, "b":2, "c":3}"#, r#"{"a":null,"b":null}"#, r#"{"c":3}"#),
            (r#"{"a":1, "b":2, "c":3}"#, r#"{"b":null,"c":null}"#, r#"{"a":1}"#),
            (r#"{ "a":1, "b":2 }"#, r#"{"a":null,"b":null}"#, r"{  }"),
            (r#"{"a":1}"#, r#"{"z":null}"#, r#"{"a":1}"#),
            // Removed and added at once.
            (r#"{"a":1, "b":2}"#, r#"{"a":null,"b":null,"c":3}"#, r#"{"c":3}"#),
            (r#"{"a":1, "b":2}"#, r#"{"b":null,"c":3}"#, r#"{"a":1,"c":3}"#),
            // Nothing that could be merged over.
            ("null", r#"{"a":1,"b":null}"#, r#"{"a":1}"#),
            ("[1]", r#"{"a":1}"#, r#"{"a":1}"#),
            ("[1]", r#"{"a":null}"#, "[1]"),
            ("{ }", r#"{"a":1}"#, r#"{"a":1 }"#),
        ] {
            let definition = format!(r#"{{"name":"n", "annotations" : {own} ,"z":0}}"#);
            let expected = format!(r#"{{"name":"s__n", "annotations" : {expected} ,"z":0}}"#);
            assert_eq!(shown(definition.leak(), &annotated(with)), expected, "{own} with {with}");
        }
        let added = shown(r#"{"name":"n"}"#, &annotated(r#"{"a":1,"b":null}"#));
        assert_eq!(added, r#"{"name":"s__n","annotations":{"a":1}}"#);
        let nothing = shown(r#"{"name":"n"}"#, &annotated(r#"{"b":null}"#));
        assert_eq!(nothing, r#"{"name":"s__n"}"#);
    }

    #[test]
    fn a_title_reaches_the_clients_that_read_the_older_place_too() {
        let titled = Overrides { title: Some("N".to_owned()), ..Overrides::default() };
        let own = r#"{"name":"n","annotations":{"title":"A","x":1}}"#;
        assert_eq!(
            shown(own, &titled),
            r#"{"name":"s__n","annotations":{"title":"N","x":1},"title":"N"}"#
        );
        // Who names it in the annotations has his way; where it is not, it is not added.
        let both = Overrides { title: titled.title.clone(), ..annotated(r#"{"title":"B"}"#) };
        assert_eq!(
            shown(own, &both),
            r#"{"name":"s__n","annotations":{"title":"B","x":1},"title":"N"}"#
        );
        let none = r#"{"name":"n","annotations":{"x":1}}"#;
        assert_eq!(shown(none, &titled), r#"{"name":"s__n","annotations":{"x":1},"title":"N"}"#);
    }
}
