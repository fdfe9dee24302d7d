//! One tool as a family of clients sees it: its name judged, its two schemas mended or left out, and no
//! byte beside them touched.

use bytes::Bytes;

use super::{
    Limits, Profile,
    draft::Draft,
    outcome::{Outcome, Repair, Repairs, Unusable},
    refs::Refs,
    root,
    rules::{RESULTS, Rules},
    walk::Walker,
};
use crate::catalogue::overrides::Object;

/// The members of a tool that clients read, and what each of them begins with. One that is something
/// else, `null` even, makes the official SDKs reject the whole list.
const FIELDS: &[(&str, &str)] = &[
    ("title", "\""),
    ("description", "\""),
    ("annotations", "{"),
    ("icons", "["),
    ("execution", "{"),
    ("_meta", "{"),
];

/// What an `outputSchema` may have gone through and still judge results as before.
const HARMLESS: &[Repair] = &[Repair::DialectDropped, Repair::RootTyped, Repair::Reworded];

/// What the clients of a profile see of a tool of this name, which stands in `definition` as it would be
/// shown to others.
pub fn shape(definition: &str, name: &str, profile: Profile, limits: &Limits) -> Outcome {
    let Some(rules) = profile.rules() else { return Outcome::AsItCame };
    match shaped(definition, name, rules, limits) {
        Ok(outcome) => outcome,
        Err(unusable) => Outcome::Hidden(unusable),
    }
}

fn shaped(
    definition: &str,
    name: &str,
    rules: &'static Rules,
    limits: &Limits,
) -> Result<Outcome, Unusable> {
    if !(rules.name)(name) {
        return Err(Unusable::Name);
    }
    let tool = Object::parse(definition).ok_or(Unusable::Malformed)?;
    let mut repairs = Repairs::new();
    let mut changes: Vec<(&str, Option<String>)> = Vec::new();
    for (field, opening) in FIELDS {
        if tool.value(field).is_some_and(|value| !value.starts_with(opening)) {
            repairs.insert(Repair::FieldDropped);
            changes.push((*field, None));
        }
    }

    let given = tool.value("inputSchema").filter(|schema| *schema != "null");
    let schema = given.unwrap_or("{}");
    if schema.len() > limits.schema_max {
        return Err(Unusable::TooLarge);
    }
    let root = root::arguments(schema, rules, limits.schema_max)?;
    repairs.extend(root.repairs);
    if given.is_none() {
        repairs.remove(&Repair::RootTyped);
        repairs.insert(Repair::InputSchemaAdded);
    }
    if given != Some(&*root.text) {
        changes.push(("inputSchema", Some(root.text)));
    }

    if let Some(schema) = tool.value("outputSchema") {
        match results(schema, limits.schema_max) {
            Some((text, _)) if text == schema => {}
            Some((text, more)) => {
                repairs.extend(more);
                changes.push(("outputSchema", Some(text)));
            }
            None => {
                repairs.insert(Repair::OutputSchemaDropped);
                changes.push(("outputSchema", None));
            }
        }
    }
    if changes.is_empty() {
        return Ok(Outcome::AsItCame);
    }
    let definition = Bytes::from(tool.with(&changes));
    Ok(Outcome::Repaired { definition, repairs, wrapped_in: root.wrapped_in })
}

/// The schema of a tool's results, where clients can use it. Each of them judges results by it, and the
/// official SDKs compile those of a whole list at once; so it is left out when it is not an object's, when
/// it refers to what is not there, and when mending it would forbid what the server answers.
fn results(schema: &str, schema_max: usize) -> Option<(String, Repairs)> {
    if schema.len() > schema_max {
        return None;
    }
    let mut draft = Draft::parse(schema)?;
    let mut walker = Walker::new(schema, &RESULTS, schema_max);
    match draft.get("type") {
        Some(r#""object""#) => {}
        None if draft.has("properties") => {
            walker.repairs.insert(Repair::RootTyped);
            draft.set("type", r#""object""#);
        }
        _ => return None,
    }
    walker.members(&mut draft, 0).ok()?;
    let is_harmless = walker.repairs.iter().all(|repair| HARMLESS.contains(repair));
    let text = draft.text_or(schema).into_owned();
    (is_harmless && refers_within(schema)).then_some((text, walker.repairs))
}

/// Whether each `$ref` leads to something in the same schema. A text of that name among other values
/// counts as one too, which at worst leaves a schema out.
fn refers_within(schema: &str) -> bool {
    if !schema.contains("Ref\"") && !schema.contains("\"$ref\"") {
        return true;
    }
    let mut refs = Refs::new(schema);
    let Ok(value) = serde_json::from_str::<serde_json::Value>(schema) else { return false };
    let mut left = vec![&value];
    // Each look-up may read the whole.
    let mut left_to_read = READ_MAX;
    while let Some(value) = left.pop() {
        match value {
            serde_json::Value::Array(values) => left.extend(values),
            serde_json::Value::Object(members) => {
                for (key, value) in members {
                    let is_reference = matches!(&**key, "$ref" | "$dynamicRef" | "$recursiveRef");
                    if let Some(reference) = value.as_str().filter(|_| is_reference) {
                        let (target, read) = refs.resolve(reference);
                        let Some(left) =
                            left_to_read.checked_sub(read).filter(|_| target.is_some())
                        else {
                            return false;
                        };
                        left_to_read = left;
                    }
                    left.push(value);
                }
            }
            _ => {}
        }
    }
    true
}

/// Bytes that are read to follow all references of one `outputSchema`.
const READ_MAX: usize = 4_194_304;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const LIMITS: Limits = Limits { schema_max: 262_144 };

    fn strict(definition: &str) -> Outcome {
        shape(definition, "t", Profile::StrictCommon, &LIMITS)
    }

    fn repaired(definition: &str) -> (String, Vec<&'static str>) {
        match strict(definition) {
            Outcome::Repaired { definition, repairs, .. } => (
                String::from_utf8(definition.to_vec()).unwrap(),
                repairs.into_iter().map(Repair::as_str).collect(),
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_needs_nothing_is_not_touched() {
        for definition in [
            r#"{ "name":"t", "inputSchema" : {"type" : "object"} }"#,
            r#"{"name":"t","inputSchema":{"properties":{"a":{"type":"string","maxLength":12345678901234567890123}},"type":"object","additionalProperties":false},"x":1.50}"#,
        ] {
            assert_eq!(strict(definition), Outcome::AsItCame, "{definition}");
        }
        let odd = r#"{"name":"t","inputSchema":7}"#;
        assert_eq!(shape(odd, "t", Profile::Raw, &LIMITS), Outcome::AsItCame);
    }

    #[test]
    fn every_other_byte_stays() {
        let definition = r#"{ "z" : 1.50, "name":"t","inputSchema":{"$schema":"http://json-schema.org/draft-07/schema#", "type":"object", "properties": { "a" : {"type" : "string"} }} , "big":12345678901234567890123}"#;
        let expected = r#"{ "z" : 1.50, "name":"t","inputSchema":{"type":"object","properties":{ "a" : {"type" : "string"} }} , "big":12345678901234567890123}"#;
        assert_eq!(repaired(definition), (expected.to_owned(), vec!["dialect_dropped"]));
    }

    #[test]
    fn a_member_of_the_wrong_type_and_a_missing_schema_cost_no_list() {
        let (text, repairs) = repaired(r#"{"name":"t","title":null,"description":3,"icons":[]}"#);
        assert_eq!(text, r#"{"name":"t","icons":[],"inputSchema":{"type":"object"}}"#);
        assert_eq!(repairs, ["field_dropped", "input_schema_added"]);
    }

    #[test]
    fn a_schema_of_results_is_kept_only_where_clients_can_use_it() {
        let with = |schema: &str| {
            strict(&format!(
                r#"{{"name":"t","inputSchema":{{"type":"object"}},"outputSchema":{schema}}}"#
            ))
        };
        for kept in [
            r#"{"type":"object"}"#,
            r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"type":"array"}}}"##,
            r#"{"type":"object","oneOf":[{"required":["a"]},{"required":["b"]}]}"#,
        ] {
            assert_eq!(with(kept), Outcome::AsItCame, "{kept}");
        }
        for dropped in [
            "null",
            "true",
            "{}",
            r#"{"type":"array"}"#,
            r#"{"type":["object","null"]}"#,
            r#"{"anyOf":[{"type":"object"}]}"#,
            r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/none"}}}"##,
            r#"{"type":"object","properties":{"a":{"$ref":"https://x.example/a.json"}}}"#,
            r#"{"type":"object","required":true}"#,
            r#"{"type":"object","properties":{"a":{"type":"strin"}}}"#,
        ] {
            let Outcome::Repaired { definition, repairs, .. } = with(dropped) else {
                panic!("{dropped} is kept");
            };
            assert_eq!(definition, r#"{"name":"t","inputSchema":{"type":"object"}}"#);
            assert!(repairs.contains(&Repair::OutputSchemaDropped), "{dropped}");
        }
        let typed = with(r#"{"properties":{"a":{}}}"#);
        assert!(matches!(typed, Outcome::Repaired { .. }), "{typed:?}");
    }
}
