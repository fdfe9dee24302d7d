//! What differs between two lists of one kind of one upstream.

use std::collections::HashMap;

use super::item::Item;

/// What came, went and became another, by the upstream's own names or URIs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<Box<str>>,
    pub removed: Vec<Box<str>>,
    /// Still there, but not the same byte for byte.
    pub changed: Vec<Box<str>>,
}

impl Changes {
    /// From `before` to `after`, each in the order of the list that it stands in.
    pub fn between(before: &[Item], after: &[Item]) -> Self {
        let mut left: HashMap<&str, &Item> = before.iter().map(|item| (&*item.key, item)).collect();
        let mut changes = Self::default();
        for tool in after {
            match left.remove(&*tool.key) {
                None => changes.added.push(tool.key.clone()),
                Some(earlier) if earlier.definition != tool.definition => {
                    changes.changed.push(tool.key.clone());
                }
                Some(_same) => {}
            }
        }
        let gone = before.iter().filter(|tool| left.contains_key(&*tool.key));
        changes.removed = gone.map(|tool| tool.key.clone()).collect();
        changes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{super::kind::Kind, *};

    fn tools(definitions: &[&'static str]) -> Vec<Item> {
        definitions.iter().map(|text| Item::parse(Kind::Tool, (*text).into()).unwrap()).collect()
    }

    #[test]
    fn what_came_went_and_changed_is_told_apart() {
        const A: &str = r#"{"name":"a"}"#;
        const B: &str = r#"{"name":"b"}"#;
        const OTHER_A: &str = r#"{"name":"a","title":"A"}"#;
        for (case, before, after, added, removed, changed) in [
            ("nothing", &[A, B][..], &[A, B][..], &[][..], &[][..], &[][..]),
            ("another order", &[A, B], &[B, A], &[], &[], &[]),
            ("the first list", &[], &[B, A], &["b", "a"], &[], &[]),
            ("all went", &[A, B], &[], &[], &["a", "b"], &[]),
            ("one came, one went", &[A], &[B], &["b"], &["a"], &[]),
            ("another definition", &[A, B], &[OTHER_A, B], &[], &[], &["a"]),
        ] {
            let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
            let expected =
                Changes { added: names(added), removed: names(removed), changed: names(changed) };
            assert_eq!(Changes::between(&tools(before), &tools(after)), expected, "{case}");
        }
    }
}
