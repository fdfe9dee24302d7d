//! A file as a tree: objects keep their order, and what stands in them twice.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// One value of a file.
#[derive(Clone, PartialEq)]
pub(super) enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Leaf(Value),
}

impl Node {
    /// The value in the usual form. Where a member stands twice the first counts, and `twice` is
    /// given its path.
    pub fn into_value(self, path: &str, twice: &mut Vec<String>) -> Value {
        match self {
            Self::Leaf(value) => value,
            Self::Array(items) => {
                let items = items.into_iter().enumerate();
                items.map(|(at, item)| item.into_value(&format!("{path}[{at}]"), twice)).collect()
            }
            Self::Object(members) => {
                let mut object = Map::new();
                for (name, node) in members {
                    let inner =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    match object.contains_key(&name) {
                        true => twice.push(inner),
                        false => {
                            let value = node.into_value(&inner, twice);
                            object.insert(name, value);
                        }
                    }
                }
                Value::Object(object)
            }
        }
    }
}

/// Levels of a file. The ones that clients write have fewer than ten.
pub(super) const DEPTH_MAX: usize = 100;

/// What a parser says of a file that has more.
pub(super) const TOO_DEEP: &str = "nested too deep";

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Levels(DEPTH_MAX).deserialize(deserializer)
    }
}

/// Reads a node of so many levels at most: parsers follow every level by recursion, and the stack ends.
#[derive(Clone, Copy)]
struct Levels(usize);

impl Levels {
    /// One level further down.
    fn below<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom(TOO_DEEP))
    }
}

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let below = self.below()?;
        let mut members = Vec::new();
        while let Some(name) = map.next_key()? {
            members.push((name, map.next_value_seed(below)?));
        }
        Ok(Node::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let below = self.below()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(below)? {
            items.push(item);
        }
        Ok(Node::Array(items))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Leaf(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.deserialize(deserializer)
    }
}
