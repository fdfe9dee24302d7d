//! The fields of one entry while it is read: each is taken out in the type it is needed in, and
//! what is left at the end was not known.
//!
//! `null` and blank text count as absent: exports are full of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Refusal, Warning, references};

/// From here on a floating-point number leaves out whole ones: 2^53.
const WHOLE_BELOW: f64 = 9_007_199_254_740_992.0;

/// The fields of one entry that nobody has asked for yet.
pub(super) struct Fields {
    left: Map<String, Value>,
    pub warnings: Vec<Warning>,
}

impl Fields {
    pub fn new(mut fields: Map<String, Value>) -> Self {
        fields.retain(|_, value| match value {
            Value::Null => false,
            Value::String(text) => !text.trim().is_empty(),
            _ => true,
        });
        Self { left: fields, warnings: Vec::new() }
    }

    pub fn warn(&mut self, field: &str, text: impl Into<String>) {
        self.warnings.push(Warning::new(field, text));
    }

    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.left.remove(field)
    }

    pub fn has(&self, field: &str) -> bool {
        self.left.contains_key(field)
    }

    pub fn put(&mut self, field: &str, value: Value) {
        self.left.insert(field.to_owned(), value);
    }

    /// Adds members to a field that is an object, or is not there yet. Those that it has stay.
    pub fn put_within(&mut self, field: &str, members: Map<String, Value>) {
        let mut object = match self.take(field) {
            None => Map::new(),
            Some(Value::Object(object)) => object,
            Some(other) => return self.put(field, other),
        };
        for (name, value) in members {
            object.entry(name).or_insert(value);
        }
        self.put(field, Value::Object(object));
    }

    /// The text of a field that has several names, and the name it has here. Two that disagree are
    /// refused.
    pub fn text(
        &mut self,
        names: &[&'static str],
    ) -> Result<Option<(&'static str, String)>, Refusal> {
        let mut found: Option<(&'static str, String)> = None;
        for name in names {
            let text = match self.take(name) {
                None => continue,
                Some(Value::String(text)) => text.trim().to_owned(),
                Some(_) => return Err(Refusal::new(*name, "is not a text", "a text")),
            };
            match &found {
                Some((first, other)) if *other != text => {
                    let reason = format!("says something else than {first}");
                    return Err(Refusal::new(*name, reason, "one of the two"));
                }
                Some(_) => {}
                None => found = Some((name, text)),
            }
        }
        Ok(found)
    }

    pub fn flag(&mut self, field: &str) -> Result<Option<bool>, Refusal> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            // Taken for absent, a server would start that was meant to stay off.
            Some(_) => Err(Refusal::new(field, "is neither true nor false", "true or false")),
        }
    }

    /// A list of texts; a text alone is a list of one.
    pub fn texts(&mut self, field: &str) -> Result<Vec<String>, Refusal> {
        let items = match self.take(field) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(text @ Value::String(_)) => {
                self.warn(field, "is a text instead of a list, and is taken as a single argument");
                vec![text]
            }
            Some(_) => return Err(Refusal::new(field, "is not a list", "a list of texts")),
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let place = format!("{field}[{index}]");
            let text = self.as_text(&place, item)?;
            // What an editor would fill in, nobody does here: argv is readable by everyone.
            if references::mend(&place, &text, &mut self.warnings)? != text {
                let reason = "refers to a variable, and none is resolved in arguments";
                return Err(Refusal::new(&place, reason, "the value itself, or a field `env`"));
            }
            texts.push(text);
        }
        Ok(texts)
    }

    /// Texts by name: an object, or the list of `{"name":…,"value":…}` that some clients write.
    pub fn named_texts(&mut self, field: &str) -> Result<BTreeMap<String, String>, Refusal> {
        let pairs: Vec<(String, Value)> = match self.take(field) {
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(object)) => object.into_iter().collect(),
            Some(Value::Array(items)) => {
                let pairs: Option<_> = items.into_iter().map(named_value).collect();
                pairs.ok_or_else(|| {
                    Refusal::new(field, "has an item without name and value", "an object of texts")
                })?
            }
            Some(_) => return Err(Refusal::new(field, "is not an object", "an object of texts")),
        };
        let mut texts = BTreeMap::new();
        for (name, value) in pairs {
            let place = format!("{field}.{name}");
            if value.is_null() {
                self.warn(&place, "is null and is left out");
                continue;
            }
            let text = self.as_text(&place, value)?;
            let text = references::mend_value(&place, &text, &mut self.warnings)?;
            if texts.insert(name, text).is_some() {
                return Err(Refusal::new(place, "is given twice", "one value for each name"));
            }
        }
        Ok(texts)
    }

    /// Says of each of these fields, where it is filled, why it is not used.
    pub fn set_aside(&mut self, names: &[&str], why: &str) {
        for name in names {
            let is_filled = match self.take(name) {
                None => false,
                Some(Value::Object(object)) => !object.is_empty(),
                Some(Value::Array(items)) => !items.is_empty(),
                Some(_) => true,
            };
            if is_filled {
                self.warn(name, why);
            }
        }
    }

    /// Ends the reading: whatever was not asked for is reported.
    pub fn finish(mut self) -> Vec<Warning> {
        for field in std::mem::take(&mut self.left).keys() {
            self.warn(field, "is not known and is left out");
        }
        self.warnings
    }

    /// Numbers and truth values are written without quotes by many hands. How a number was written is
    /// not known any more, so one that may have lost digits is none: it may be an account or a token.
    fn as_text(&mut self, place: &str, value: Value) -> Result<String, Refusal> {
        match value {
            Value::String(text) => return Ok(text),
            Value::Bool(_) => self.warn(place, "is not a text, and is taken as one"),
            Value::Number(_) => {
                if value.as_f64().is_some_and(|number| number.abs() >= WHOLE_BELOW)
                    && !(value.is_i64() || value.is_u64())
                {
                    return Err(Refusal::new(place, "has too many digits for a number", "a text"));
                }
                self.warn(place, "is a number, and is taken as one writes it plainly");
            }
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(Refusal::new(place, "is not a text", "a text"));
            }
        }
        Ok(value.to_string())
    }
}

fn named_value(item: Value) -> Option<(String, Value)> {
    let Value::Object(mut item) = item else { return None };
    let name = item.remove("name").or_else(|| item.remove("key"))?;
    Some((name.as_str()?.to_owned(), item.remove("value")?))
}
