//! Reads a JSON object as its keys and the untouched text of their values, in order.
//!
//! It judges nothing: which keys must be there, and whether one may come twice, is for the caller.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of one object, in the order and as often as they came.
pub(super) struct Pairs<'a>(pub Vec<(String, &'a RawValue)>);

impl<'a> Pairs<'a> {
    /// The value of `key`: `Err` when the key came more than once, which no two readers take alike.
    pub fn only(&self, key: &str) -> Result<Option<&'a RawValue>, Repeated> {
        let mut values = self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| *value);
        let first = values.next();
        if values.next().is_some() { Err(Repeated) } else { Ok(first) }
    }
}

/// A key that came more than once.
pub(super) struct Repeated;

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}
