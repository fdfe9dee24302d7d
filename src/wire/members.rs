//! Reads a JSON object as its members, each value as it was written, in the order and as often as they came.
//!
//! It judges nothing: which keys must be there, and whether one may come twice, is for the caller.

use std::{fmt, marker::PhantomData};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of one object: of each its key, as it was written unless it is to be decoded, and its value.
pub struct Members<'a, K = &'a RawValue>(pub Vec<(K, &'a RawValue)>);

/// The members of one object by their decoded keys.
pub type Named<'a> = Members<'a, String>;

/// A key that came more than once, which no two readers take alike.
pub struct Repeated;

impl<'a> Named<'a> {
    /// The value of `key`, if it is there.
    ///
    /// # Errors
    /// The key came more than once.
    pub fn only(&self, key: &str) -> Result<Option<&'a RawValue>, Repeated> {
        let mut values = self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| *value);
        let first = values.next();
        if values.next().is_some() { Err(Repeated) } else { Ok(first) }
    }
}

impl<'de, K: Deserialize<'de>> Deserialize<'de> for Members<'de, K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

struct MembersVisitor<K>(PhantomData<K>);

impl<'de, K: Deserialize<'de>> Visitor<'de> for MembersVisitor<K> {
    type Value = Members<'de, K>;

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
