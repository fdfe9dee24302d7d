//! What the families of clients refuse, written down a second time, over parsed values.

use serde_json::{Map, Value};

use super::Profile;

const ROOT_UNIONS: &[&str] = &["allOf", "anyOf", "oneOf", "not", "if", "enum", "const"];

const GEMINI_WORDS: &[&str] = &[
    "type",
    "format",
    "title",
    "description",
    "nullable",
    "enum",
    "maxItems",
    "minItems",
    "properties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "anyOf",
    "propertyOrdering",
    "default",
    "items",
    "minimum",
    "maximum",
];

/// What clients of the profile would refuse about a schema of arguments.
pub fn objections(schema: &Value, profile: Profile) -> Vec<String> {
    let mut found = Vec::new();
    let Some(root) = schema.as_object() else { return vec!["the root is no object".to_owned()] };
    if root.get("type") != Some(&Value::from("object")) {
        found.push("the root is not of the type object".to_owned());
    }
    for union in ROOT_UNIONS.iter().filter(|union| root.contains_key(**union)) {
        found.push(format!("the root has {union}"));
    }
    walk(schema, "#", profile, &mut found);
    found
}

fn walk(schema: &Value, at: &str, profile: Profile, found: &mut Vec<String>) {
    let is_pickier = matches!(profile, Profile::StrictCommon | Profile::VsCode | Profile::Gemini);
    let mut object = |what: String| found.push(format!("{at}: {what}"));
    let members = match schema {
        Value::Bool(_) if !is_pickier => return,
        Value::Object(members) => members,
        other => return object(format!("{other} is no schema")),
    };
    if members.contains_key("$schema") {
        object("$schema".to_owned());
    }
    if is_pickier {
        for word in ["$ref", "$defs", "definitions", "$dynamicRef"] {
            if members.contains_key(word) {
                object(word.to_owned());
            }
        }
    }
    let types: Vec<&str> = match members.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let has_list = members.get("type").is_some_and(Value::is_array);
    if has_list && matches!(profile, Profile::StrictCommon | Profile::Gemini) {
        object("a list of types".to_owned());
    }
    if types.contains(&"array") && profile != Profile::Claude {
        match members.get("items") {
            None => object("an array without items".to_owned()),
            Some(items) if is_pickier && !says_something(items) => {
                object(format!("an array of {items}"));
            }
            Some(_) => {}
        }
    }
    if profile == Profile::Gemini {
        gemini(members, &mut object);
    }
    for (key, value) in members {
        let at = format!("{at}/{key}");
        match (key.as_str(), value) {
            (
                "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
                Value::Object(map),
            ) => {
                map.iter()
                    .for_each(|(name, one)| walk(one, &format!("{at}/{name}"), profile, found));
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(all)) => {
                all.iter().for_each(|one| walk(one, &at, profile, found));
            }
            ("items" | "not" | "if" | "then" | "else" | "contains" | "propertyNames", one) => {
                walk(one, &at, profile, found);
            }
            ("additionalProperties" | "unevaluatedProperties", one) if !one.is_boolean() => {
                walk(one, &at, profile, found);
            }
            _ => {}
        }
    }
}

fn says_something(schema: &Value) -> bool {
    ["type", "anyOf", "oneOf", "allOf", "enum", "const", "properties"]
        .iter()
        .any(|word| schema.get(word).is_some())
}

fn gemini(members: &Map<String, Value>, object: &mut impl FnMut(String)) {
    for word in members.keys().filter(|word| !GEMINI_WORDS.contains(&word.as_str())) {
        object(format!("the unknown word {word}"));
    }
    match (members.contains_key("anyOf"), members.contains_key("type")) {
        (false, false) => object("no type".to_owned()),
        (true, _) if members.len() > 1 => object("something beside anyOf".to_owned()),
        _ => {}
    }
    if let Some(values) = members.get("enum") {
        let all_text = values.as_array().is_some_and(|all| all.iter().all(Value::is_string));
        if !all_text || members.get("type") != Some(&Value::from("string")) {
            object(format!("the enumeration {values}"));
        }
    }
}

#[test]
fn the_checker_sees_what_is_wrong() {
    use serde_json::json;

    for (schema, profile) in [
        (json!({"type": "array"}), Profile::Claude),
        (json!({"type": "object", "anyOf": []}), Profile::Claude),
        (json!({"type": "object", "properties": {"a": {"$schema": "x"}}}), Profile::OpenAi),
        (json!({"type": "object", "properties": {"a": {"type": "array"}}}), Profile::OpenAi),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}}),
            Profile::VsCode,
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": ["string"]}}}),
            Profile::StrictCommon,
        ),
        (json!({"type": "object", "properties": {"a": {"$ref": "#"}}}), Profile::VsCode),
        (json!({"type": "object", "additionalProperties": false}), Profile::Gemini),
        (json!({"type": "object", "properties": {"a": {}}}), Profile::Gemini),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer", "enum": [1]}}}),
            Profile::Gemini,
        ),
    ] {
        assert_ne!(objections(&schema, profile), Vec::<String>::new(), "{schema}");
    }
    let fine = json!({"type": "object", "properties": {"$ref": {"type": "string"}}});
    for profile in super::changing() {
        assert_eq!(objections(&fine, profile), Vec::<String>::new());
    }
}
