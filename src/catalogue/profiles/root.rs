//! The root of a schema of arguments: an object, and nothing else that could be one.
//!
//! `allOf` is made one object where that says the same. Alternatives cannot be, without taking what no
//! alternative takes; so the whole schema becomes the one member of a new root, and what stands in that
//! member is unwrapped on its way to the server.

use super::{
    draft::{Draft, elements, quoted, string},
    outcome::{Repair, Repairs, Unusable},
    rules::{ROOT_UNIONS, Rules},
    typing::{has_type, types_of},
    unions::{Joined, conjoin},
    walk::Walker,
};

/// A schema of arguments as clients see it.
#[derive(Debug)]
pub struct Root {
    pub text: String,
    pub repairs: Repairs,
    /// The one member that arguments have, where they were wrapped.
    pub wrapped_in: Option<Box<str>>,
}

/// The schema of a tool's arguments in the words of one family.
pub fn arguments(schema: &str, rules: &'static Rules, schema_max: usize) -> Result<Root, Unusable> {
    let mut walker = Walker::new(schema, rules, schema_max);
    let mut draft = match schema {
        "true" => Draft::empty(),
        "false" => return Err(Unusable::RootNotObject),
        text => Draft::parse(text).ok_or(Unusable::Malformed)?,
    };
    walker.work(schema.len() + draft.len() * draft.len() / 8)?;
    // What is moved away from the root would not be found by references from the root any more.
    walker.inlines |= draft.has("$ref") || !unions_of(&draft, rules).is_empty();
    walker.inline(&mut draft, 0)?;
    be_an_object(&mut draft, &mut walker)?;

    let unions = unions_of(&draft, rules);
    if unions.is_empty() {
        return finished(walker, draft, schema);
    }
    if let Some(flat) = flattened(&draft, &unions, &mut walker)? {
        walker.repairs.insert(Repair::RootFlattened);
        return finished(walker, flat, schema);
    }
    wrapped(walker, draft, schema)
}

fn finished(mut walker: Walker<'_>, mut draft: Draft<'_>, schema: &str) -> Result<Root, Unusable> {
    walker.members(&mut draft, 0)?;
    let text = draft.text_or(schema).into_owned();
    Ok(Root { text, repairs: walker.repairs, wrapped_in: None })
}

/// What stands at the root and may not.
fn unions_of(draft: &Draft<'_>, rules: &Rules) -> Vec<&'static str> {
    // What such clients have no word for is left out, and is in nobody's way.
    let stays = |key: &str| {
        rules
            .vocabulary
            .is_none_or(|taken| taken.contains(&key) || matches!(key, "allOf" | "oneOf"))
    };
    ROOT_UNIONS.iter().copied().filter(|key| draft.has(key) && stays(key)).collect()
}

/// Arguments are always an object, so that to say so takes nothing away.
fn be_an_object(draft: &mut Draft<'_>, walker: &mut Walker<'_>) -> Result<(), Unusable> {
    if draft.get("type") == Some(r#""object""#) {
        return Ok(());
    }
    let is_said = draft.get("type").is_some_and(|text| text != r#""any""#);
    if is_said && types_of(draft).is_some() && !has_type(draft, "object") {
        return Err(Unusable::RootNotObject);
    }
    walker.repairs.insert(Repair::RootTyped);
    draft.set("type", r#""object""#);
    Ok(())
}

/// One object that takes what all parts of `allOf` take, or the only alternative; `None` where there is
/// none that says the same.
fn flattened(
    draft: &Draft<'_>,
    unions: &[&str],
    walker: &mut Walker<'_>,
) -> Result<Option<Draft<'static>>, Unusable> {
    let mut flat = draft.clone().into_owned();
    let mut parts: Vec<String> = Vec::new();
    for union in unions {
        let Some(found) = flat.remove(union) else { continue };
        let found = elements(&found).unwrap_or_default();
        let is_conjunction = *union == "allOf" || (union.ends_with("Of") && found.len() == 1);
        if !is_conjunction {
            return Ok(None);
        }
        parts.extend(found.into_iter().map(str::to_owned));
    }
    for part in parts {
        let repairs = walker.repairs.clone();
        let part = walker.part(&part, 1)?;
        if part == "true" {
            continue;
        }
        let Some(part) = Draft::parse(&part) else { return Ok(None) };
        if ROOT_UNIONS.iter().any(|union| part.has(union)) {
            walker.repairs = repairs;
            return Ok(None);
        }
        walker.work(flat.text().len())?;
        match conjoin(&flat, &part, walker.rules.vocabulary.is_none()) {
            Joined::Whole(both) => flat = both,
            Joined::Impossible => return Err(Unusable::RootNotObject),
            Joined::Partly(_) => {
                walker.repairs = repairs;
                return Ok(None);
            }
        }
    }
    Ok(Some(flat))
}

fn wrapped(mut walker: Walker<'_>, mut draft: Draft<'_>, schema: &str) -> Result<Root, Unusable> {
    for union in ["anyOf", "oneOf"] {
        let branches = draft.get(union).and_then(elements).unwrap_or_default();
        if !branches.is_empty() && branches.iter().all(|branch| is_no_object(branch)) {
            return Err(Unusable::RootNotObject);
        }
    }
    let name = name_for(schema);
    walker.members(&mut draft, 1)?;
    walker.repairs.insert(Repair::RootWrapped);
    let (inner, key) = (draft.text(), quoted(&name));
    // A family with a vocabulary of its own has no word for it, and needs none.
    let closed = match walker.rules.vocabulary {
        None => r#","additionalProperties":false"#,
        Some(_) => "",
    };
    let text =
        format!(r#"{{"type":"object","properties":{{{key}:{inner}}},"required":[{key}]{closed}}}"#);
    Ok(Root { text, repairs: walker.repairs, wrapped_in: Some(name.into()) })
}

fn is_no_object(branch: &str) -> bool {
    let said = Draft::parse(branch).and_then(|branch| string(branch.get("type")?));
    said.is_some_and(|said| said != "object")
}

/// A name that the schema itself speaks of nowhere, so that wrapped arguments can be told from others.
fn name_for(schema: &str) -> String {
    let mut name = "input".to_owned();
    while schema.contains(&quoted(&name)) {
        name.push('_');
    }
    name
}
