//! Lists of types, and elements of arrays that nothing is said about.

use super::{
    draft::{Draft, array, elements, quoted, string, strings},
    outcome::Repair,
    rules::{ANY_VALUE, Items, Types, type_of},
    walk::Walker,
};

const TYPES: &[&str] = &["object", "array", "string", "number", "integer", "boolean", "null"];

/// The types that `type` names; `None` where it says nothing that has a meaning.
pub fn types_of(draft: &Draft<'_>) -> Option<Vec<String>> {
    let text = draft.get("type")?;
    let named = match string(text) {
        Some(one) => vec![one],
        None => strings(text)?,
    };
    let mut types: Vec<String> = Vec::new();
    for named in named {
        if TYPES.contains(&&*named) && !types.contains(&named) {
            types.push(named);
        }
    }
    (!types.is_empty()).then_some(types)
}

pub fn has_type(draft: &Draft<'_>, wanted: &str) -> bool {
    types_of(draft).is_some_and(|types| types.iter().any(|one| one == wanted))
}

/// Leaves in `type` what has a meaning. `any`, of the oldest drafts, and types of no draft rule nothing.
pub fn mend(draft: &mut Draft<'_>) -> Option<Repair> {
    let text = draft.get("type")?;
    let named: Vec<String> = string(text).map(|one| vec![one]).or_else(|| strings(text))?;
    let is_list = text.starts_with('[');
    let types = types_of(draft).unwrap_or_default();
    let says_any = named.iter().any(|one| one == "any");
    if types.is_empty() || says_any {
        draft.remove("type");
        let is_harmless = says_any || named.is_empty();
        return Some(if is_harmless { Repair::Reworded } else { Repair::KeywordDropped });
    }
    if is_list && types.len() == 1 {
        draft.set("type", quoted(&types[0]));
        return Some(Repair::Reworded);
    }
    if types.len() < named.len() {
        draft.set("type", array(&types.iter().map(|one| quoted(one)).collect::<Vec<_>>()));
        return Some(Repair::Reworded);
    }
    None
}

impl Walker<'_> {
    /// Says of an array what it is of, where that has to be said.
    pub(super) fn say_items(&mut self, draft: &mut Draft<'_>) {
        if self.rules.items == Items::Keep || !has_type(draft, "array") {
            return;
        }
        let items = draft.get("items").map(str::to_owned);
        let told = match (&items, self.rules.items) {
            (Some(items), Items::Concrete) => is_concrete(items),
            (Some(_), _) => true,
            (None, _) => false,
        };
        if told {
            return;
        }
        self.repairs.insert(Repair::ItemsAdded);
        if self.rules.items == Items::Present {
            return draft.set("items", "{}");
        }
        // Of the kinds that stand at the beginning, or of any.
        let first = draft.get("prefixItems").and_then(elements).unwrap_or_default();
        let mut kinds: Vec<&str> = Vec::new();
        for kind in first.into_iter().filter(|kind| is_concrete(kind)) {
            if !kinds.contains(&kind) && kinds.len() < 16 {
                kinds.push(kind);
            }
        }
        let added = match &*kinds {
            [] => any_value(items.as_deref().and_then(Draft::parse)),
            [only] => (*only).to_owned(),
            several => format!(r#"{{"anyOf":{}}}"#, array(several)),
        };
        draft.set("items", added);
    }

    /// One type each, where a list of them is not taken.
    pub(super) fn split_types(&mut self, draft: &mut Draft<'_>) {
        let Some(mut types) = types_of(draft).filter(|types| types.len() > 1) else { return };
        if self.rules.types == Types::Keep {
            return;
        }
        self.repairs.insert(Repair::TypesSplit);
        if self.rules.types == Types::Nullable {
            let count = types.len();
            types.retain(|one| one != "null");
            if types.len() < count {
                draft.set("nullable", "true");
            }
            if let [only] = &*types {
                return draft.set("type", quoted(only));
            }
        }
        let branches: Vec<String> = types.iter().map(|one| branch(draft, one).text()).collect();
        for key in draft.keys() {
            if type_of(&key).is_some() {
                draft.remove(&key);
            }
        }
        draft.remove("type");
        let branches = array(&branches);
        match draft.get("anyOf") {
            None => draft.set("anyOf", branches),
            Some(_) => {
                let more = format!(r#"{{"anyOf":{branches}}}"#);
                let mut all = draft.get("allOf").and_then(elements).unwrap_or_default();
                all.push(&more);
                let all = array(&all);
                draft.set("allOf", all);
            }
        }
    }
}

/// What a schema says of values of one type.
fn branch(draft: &Draft<'_>, of: &str) -> Draft<'static> {
    let mut branch = Draft::empty();
    branch.set("type", quoted(of));
    let of = if of == "integer" { "number" } else { of };
    for (key, value) in draft.iter().filter(|(key, _)| type_of(key) == Some(of)) {
        branch.set(key, value.to_owned());
    }
    branch
}

fn is_concrete(schema: &str) -> bool {
    const SAY: &[&str] =
        &["type", "anyOf", "oneOf", "allOf", "enum", "const", "$ref", "properties", "items"];
    Draft::parse(schema).is_some_and(|schema| SAY.iter().any(|key| schema.has(key)))
}

/// A schema that takes what is commonly meant by anything, with what was said of it besides.
fn any_value(said: Option<Draft<'_>>) -> String {
    let mut any = said.unwrap_or_else(Draft::empty);
    any.set("anyOf", any_types());
    any.text()
}

pub fn any_types() -> String {
    let types = ANY_VALUE.iter().map(|one| format!(r#"{{"type":"{one}"}}"#));
    array(&types.collect::<Vec<_>>())
}
