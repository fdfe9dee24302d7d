//! A simpler reader of JSON: objects as lists of their members, each as it was written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Walk)
    }
}

/// The members of an object. `None` for what is none.
pub fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let Members(members) = serde_json::from_str(text).ok()?;
    Some(members.into_iter().map(|(key, value)| (key, value.get())).collect())
}

/// The same of an object in which nothing stands twice.
pub fn object(text: &str) -> Option<Vec<(String, &str)>> {
    let members = members(text)?;
    let is_first = |(place, (key, _)): (usize, &(String, &str))| {
        members[..place].iter().all(|(k, _)| k != key)
    };
    members.iter().enumerate().all(is_first).then_some(members)
}

pub fn member<'a>(members: &[(String, &'a str)], key: &str) -> Option<&'a str> {
    members.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
}

/// The values of an object, whatever its keys are: some are no text at all.
struct Values<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Values<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Values<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some((_, value)) = map.next_entry::<&RawValue, _>()? {
                    values.push(value);
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_map(Walk)
    }
}

/// How deep objects and arrays lie in each other.
pub fn depth(text: &str) -> Option<usize> {
    let children: Vec<&str> = match text.trim_start().bytes().next() {
        Some(b'{') => {
            let Values(values) = serde_json::from_str(text).ok()?;
            values.into_iter().map(RawValue::get).collect()
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            items.into_iter().map(RawValue::get).collect()
        }
        _ => return Some(0),
    };
    let mut deepest = 0;
    for child in children {
        deepest = deepest.max(depth(child)?);
    }
    Some(deepest + 1)
}

/// The text of a string, where it is one and any text can be.
pub fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}
