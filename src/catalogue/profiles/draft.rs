//! One schema as its members in their order, to be worked on. A value nobody touches stays the text that
//! it came as, down to its spaces.

use std::borrow::Cow;

use serde_json::{Value, value::RawValue};

use crate::wire::members::{Members, Named};

#[derive(Clone, Debug)]
pub struct Draft<'a> {
    members: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    is_changed: bool,
}

impl<'a> Draft<'a> {
    /// `None` for what is no JSON object. Of members that came twice the last counts, as for most
    /// readers.
    pub fn parse(text: &'a str) -> Option<Self> {
        let Members(pairs): Named<'_> = serde_json::from_str(text).ok()?;
        let count = pairs.len();
        let mut members: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::with_capacity(count);
        // Few schemas have many members, but `properties` and `$defs` are read by this too.
        let mut seen = std::collections::HashSet::with_capacity(if count > 8 { count } else { 0 });
        for (key, value) in pairs.into_iter().rev() {
            let is_first = match count > 8 {
                true => seen.insert(key.clone()),
                false => !members.iter().any(|(known, _)| *known == key),
            };
            if is_first {
                members.push((key.into(), value.get().into()));
            }
        }
        members.reverse();
        let is_changed = members.len() != count;
        Some(Self { members, is_changed })
    }

    pub fn empty() -> Self {
        Self { members: Vec::new(), is_changed: true }
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.members.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|(key, value)| (&**key, &**value))
    }

    pub fn keys(&self) -> Vec<String> {
        self.members.iter().map(|(key, _)| key.to_string()).collect()
    }

    /// Puts a value where the old one stood, or at the end.
    pub fn set(&mut self, key: &str, value: impl Into<Cow<'a, str>>) {
        let value = value.into();
        match self.members.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) if *old == value => return,
            Some((_, old)) => *old = value,
            None => self.members.push((key.to_owned().into(), value)),
        }
        self.is_changed = true;
    }

    pub fn remove(&mut self, key: &str) -> Option<Cow<'a, str>> {
        let place = self.members.iter().position(|(name, _)| name == key)?;
        self.is_changed = true;
        Some(self.members.remove(place).1)
    }

    /// Gives a member another name, in its place. Nothing else may have that name.
    pub fn rename(&mut self, key: &str, to: &'static str) {
        if let Some((name, _)) = self.members.iter_mut().find(|(name, _)| name == key) {
            *name = to.into();
            self.is_changed = true;
        }
    }

    pub fn into_owned(self) -> Draft<'static> {
        let own = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        let members = self.members.into_iter().map(|(key, value)| (own(key), own(value)));
        Draft { members: members.collect(), is_changed: self.is_changed }
    }

    /// The text of the schema: that which it was read from, if it is still the same.
    pub fn text_or<'t>(&self, original: &'t str) -> Cow<'t, str> {
        if self.is_changed { Cow::Owned(self.text()) } else { Cow::Borrowed(original) }
    }

    pub fn text(&self) -> String {
        let size = self.members.iter().map(|(key, value)| key.len() + value.len() + 4);
        let mut text = String::with_capacity(size.sum::<usize>() + 2);
        text.push('{');
        for (place, (key, value)) in self.members.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            text.push_str(&quoted(key));
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        text
    }
}

/// A text as JSON.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The elements of a JSON array, each as its text; `None` for what is none.
pub fn elements(text: &str) -> Option<Vec<&str>> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

/// A JSON array of these texts.
pub fn array<T: AsRef<str>>(elements: &[T]) -> String {
    let elements: Vec<&str> = elements.iter().map(AsRef::as_ref).collect();
    format!("[{}]", elements.join(","))
}

/// What a JSON string says; `None` for what is none.
pub fn string(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

/// What a JSON array of strings says; `None` for what is none.
pub fn strings(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}
