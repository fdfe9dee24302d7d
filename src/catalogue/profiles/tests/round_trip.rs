//! What a client may send by an exposed schema is what the tool's own schema takes.
//!
//! Schemas are made by chance from all words that a family can express, values by walking the exposed
//! schema as a model would; whether they are right is judged by a validator that nobody here wrote.

use jsonschema::draft202012;
use serde_json::{Map, Value, json};

use super::{checker::objections, *};

/// Numbers by chance, the same in each run (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap() % count.max(1)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

const NAMES: [&str; 4] = ["a", "b", "input", "type"];

fn scalar(chance: &mut Chance) -> Value {
    match chance.below(9) {
        0 => json!({"type": "string", "maxLength": 3}),
        1 => json!({"type": "integer", "minimum": 1, "maximum": 9}),
        2 => json!({"type": "number"}),
        3 => json!({"type": "boolean", "description": "Whether."}),
        4 => json!({"enum": ["x", "y"]}),
        5 => json!({"const": "x"}),
        6 => json!({"type": ["string", "null"], "minLength": 1}),
        7 => json!({"type": ["integer", "string", "boolean"], "maximum": 5, "maxLength": 2}),
        _ => json!({"$ref": "#/$defs/T"}),
    }
}

fn object(chance: &mut Chance, depth: usize) -> Value {
    let mut properties = Map::new();
    for name in NAMES {
        if !chance.one_in(3) {
            properties.insert(name.to_owned(), any(chance, depth + 1));
        }
    }
    let required: Vec<String> = properties.keys().filter(|_| chance.one_in(2)).cloned().collect();
    let mut object = json!({"type": "object", "properties": properties, "required": required});
    if chance.one_in(3) {
        object["additionalProperties"] = json!(false);
    }
    object
}

fn any(chance: &mut Chance, depth: usize) -> Value {
    if depth > 3 {
        return scalar(chance);
    }
    match chance.below(12) {
        0 | 1 => object(chance, depth),
        2 => json!({"type": "array", "items": any(chance, depth + 1), "maxItems": 2}),
        3 => json!({"type": "array", "maxItems": 2}),
        4 => json!({"anyOf": [any(chance, depth + 1), {"type": "null"}], "title": "T"}),
        5 => json!({"anyOf": [any(chance, depth + 1), any(chance, depth + 1)]}),
        6 => json!({"allOf": [object(chance, depth + 1)]}),
        7 => json!({"$ref": "#/$defs/O", "description": "An O."}),
        8 => json!({}),
        _ => scalar(chance),
    }
}

fn schema(chance: &mut Chance) -> Value {
    let mut root = object(chance, 0);
    match chance.below(6) {
        0 => root = json!({"anyOf": [object(chance, 0), object(chance, 0)]}),
        1 => root["oneOf"] = json!([{"required": ["a"]}, {"required": ["b"]}]),
        2 => root = json!({"allOf": [root, {"properties": {"c": scalar(chance)}}]}),
        3 => root = json!({"$ref": "#/$defs/O"}),
        4 => drop(root.as_object_mut().unwrap().remove("type")),
        _ => {}
    }
    root["$defs"] = json!({
        "T": {"type": "string", "maxLength": 4},
        "O": {"type": "object", "properties": {"t": {"$ref": "#/$defs/T"}, "n": {"type": "integer"}}},
    });
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root
}

/// A value that a schema allows, as a model fills it in: the members that are declared, and no others.
/// `None` where chance led nowhere.
fn value(schema: &Value, chance: &mut Chance, depth: usize) -> Option<Value> {
    if depth > 12 {
        return None;
    }
    if schema["nullable"] == json!(true) && chance.one_in(3) {
        return Some(Value::Null);
    }
    for union in ["anyOf", "oneOf"] {
        if let Some(branches) = schema[union].as_array() {
            // What stands beside an alternative holds too.
            let mut both = schema.clone();
            both.as_object_mut()?.remove(union);
            let branch = branches[chance.below(branches.len())].as_object()?;
            for (key, one) in branch {
                merge(&mut both, key, one);
            }
            return value(&both, chance, depth + 1);
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let mut both = schema.clone();
        both.as_object_mut()?.remove("allOf");
        for (key, one) in parts.iter().filter_map(Value::as_object).flatten() {
            merge(&mut both, key, one);
        }
        return value(&both, chance, depth + 1);
    }
    if let Some(values) = schema["enum"].as_array() {
        return Some(values[chance.below(values.len())].clone());
    }
    if let Some(only) = schema.get("const") {
        return Some(only.clone());
    }
    let kind = match &schema["type"] {
        Value::Array(types) => types[chance.below(types.len())].clone(),
        Value::Null if schema.get("properties").is_some() => json!("object"),
        Value::Null => json!(["string", "number", "boolean"][chance.below(3)]),
        one => one.clone(),
    };
    Some(match kind.as_str()? {
        "null" => Value::Null,
        "boolean" => json!(chance.one_in(2)),
        "string" => json!("xyzw"[..chance.below(3)]),
        "integer" => json!(chance.below(9)),
        "number" => json!(chance.below(90) as f64 / 8.0),
        "array" => {
            let count = chance.below(3);
            let items = |_| value(&schema["items"], chance, depth + 1);
            Value::Array((0..count).map(items).collect::<Option<_>>()?)
        }
        "object" => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let mut members = Map::new();
            for (name, one) in schema["properties"].as_object().into_iter().flatten() {
                if required.contains(&json!(name)) || chance.one_in(2) {
                    members.insert(name.clone(), value(one, chance, depth + 1)?);
                }
            }
            Value::Object(members)
        }
        _ => return None,
    })
}

fn merge(into: &mut Value, key: &str, one: &Value) {
    match (key, &mut into[key]) {
        ("required", Value::Array(all)) => all.extend(one.as_array().cloned().unwrap_or_default()),
        ("properties", Value::Object(all)) => {
            all.extend(one.as_object().cloned().unwrap_or_default());
        }
        (_, slot) => *slot = one.clone(),
    }
}

#[test]
fn arguments_by_the_exposed_schema_are_arguments_of_the_tool() {
    let (mut tried, mut wrapped, mut lossy) = (0, 0, 0);
    for seed in 0..400 {
        let mut chance = Chance(seed);
        let original = schema(&mut chance);
        let judge = draft202012::new(&original).unwrap();
        for profile in changing() {
            let (text, repairs, wrapped_in) = exposed(&original.to_string(), profile).unwrap();
            let shown: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(objections(&shown, profile), Vec::<String>::new(), "{original} {text}");
            assert!(draft202012::meta::is_valid(&shown), "{original} {text}");
            // A rule that had to be left out is reported, and left to the server.
            if repairs.contains(&Repair::KeywordDropped) || repairs.contains(&Repair::RefCut) {
                lossy += 1;
                continue;
            }
            let shown_judge = draft202012::new(&shown).unwrap();
            for _ in 0..6 {
                let Some(arguments) = value(&shown, &mut chance, 0) else { continue };
                // Gemini's own word for `null` is none of the validator's.
                if profile != Profile::Gemini && !shown_judge.is_valid(&arguments) {
                    continue;
                }
                if profile == Profile::Gemini && !as_gemini_reads(&shown, &arguments) {
                    continue;
                }
                let sent = arguments.to_string();
                let range = wrapped_in.as_deref().and_then(|name| unwrap(&sent, name));
                wrapped += usize::from(range.is_some());
                assert_eq!(range.is_some(), wrapped_in.is_some(), "{sent} of {text}");
                let arrives = range.map_or(&*sent, |range| &sent[range]);
                let arrives: Value = serde_json::from_str(arrives).unwrap();
                assert!(
                    judge.is_valid(&arrives),
                    "{profile:?}: {arrives} is not of {original}, and came by {text}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 4_000 && wrapped > 500 && lossy < 900, "{tried} {wrapped} {lossy}");
}

/// Whether Gemini would take a value for one of its schema.
fn as_gemini_reads(schema: &Value, value: &Value) -> bool {
    fn said_plainly(schema: &Value) -> Value {
        match schema {
            Value::Array(all) => all.iter().map(said_plainly).collect(),
            Value::Object(members) => {
                let mut plain: Map<String, Value> =
                    members.iter().map(|(key, one)| (key.clone(), said_plainly(one))).collect();
                match plain.remove("nullable") {
                    Some(Value::Bool(true)) => json!({"anyOf": [plain, {"type": "null"}]}),
                    Some(other) if !other.is_boolean() => {
                        plain.insert("nullable".to_owned(), other);
                        Value::Object(plain)
                    }
                    _ => Value::Object(plain),
                }
            }
            other => other.clone(),
        }
    }
    draft202012::new(&said_plainly(schema)).unwrap().is_valid(value)
}
