//! The rules one by one, as what goes in and what comes out.

use super::*;

/// The schema, and the words for what was done.
fn told(schema: &str, profile: Profile) -> (String, Vec<&'static str>) {
    let (text, repairs, _) = exposed(schema, profile).unwrap();
    (text, repairs.into_iter().map(Repair::as_str).collect())
}

fn within(schema: &str) -> String {
    format!(r#"{{"type":"object","properties":{{"a":{schema}}}}}"#)
}

#[test]
fn schemas_are_said_in_the_words_of_each_family() {
    use Profile::{Claude, Gemini, OpenAi, StrictCommon, VsCode};

    const ANY: &str =
        r#"{"anyOf":[{"type":"string"},{"type":"number"},{"type":"boolean"},{"type":"object"}]}"#;
    for (profile, schema, expected, repairs) in [
        (Claude, r#"{"type":["string", "null"]}"#, r#"{"type":["string", "null"]}"#, &[][..]),
        (
            Gemini,
            r#"{"type":["string","null"]}"#,
            r#"{"type":"string","nullable":true}"#,
            &["types_split"],
        ),
        (
            StrictCommon,
            r#"{"type":["string","null"],"minLength":1,"title":"T"}"#,
            r#"{"title":"T","anyOf":[{"type":"string","minLength":1},{"type":"null"}]}"#,
            &["types_split"],
        ),
        (OpenAi, r#"{"type":"array"}"#, r#"{"type":"array","items":{}}"#, &["items_added"]),
        (Claude, r#"{"type":"array"}"#, r#"{"type":"array"}"#, &[]),
        (
            VsCode,
            r#"{"type":"array"}"#,
            &format!(r#"{{"type":"array","items":{ANY}}}"#),
            &["items_added"],
        ),
        (
            VsCode,
            r#"{"type":"array","items":[{"type":"number"}]}"#,
            r#"{"type":"array","prefixItems":[{"type":"number"}],"items":{"type":"number"}}"#,
            &["items_added", "reworded"],
        ),
        (
            Claude,
            r#"{"minimum":0,"exclusiveMinimum":true}"#,
            r#"{"exclusiveMinimum":0}"#,
            &["reworded"],
        ),
        (Gemini, r#"{"const":"x"}"#, r#"{"enum":["x"],"type":"string"}"#, &["reworded"]),
        (
            Gemini,
            r#"{"type":"integer","enum":[1,2]}"#,
            r#"{"type":"integer"}"#,
            &["keyword_dropped"],
        ),
        (Gemini, r#"{"type":"string","format":"uri"}"#, r#"{"type":"string"}"#, &["note_dropped"]),
        (
            Gemini,
            r#"{"anyOf":[{"type":"string"},{"type":"null"}],"description":"D","default":null}"#,
            r#"{"description":"D","default":null,"type":"string","nullable":true}"#,
            &[],
        ),
        (
            Gemini,
            r#"{"type":"object","properties":{"x":{"type":"string"}},"anyOf":[{"required":["x"]},{"minProperties":2}]}"#,
            r#"{"anyOf":[{"type":"object","properties":{"x":{"type":"string"}},"required":["x"]},{"type":"object","properties":{"x":{"type":"string"}},"minProperties":2}]}"#,
            &["types_split", "reworded"],
        ),
        (
            Gemini,
            r#"{"oneOf":[{"type":"string"},{"type":"number"}]}"#,
            r#"{"anyOf":[{"type":"string"},{"type":"number"}]}"#,
            &["reworded"],
        ),
        (
            Gemini,
            r#"{"type":"object","additionalProperties":false}"#,
            r#"{"type":"object"}"#,
            &["note_dropped"],
        ),
        (
            Gemini,
            r#"{"type":"object","additionalProperties":{"type":"string"}}"#,
            r#"{"type":"object"}"#,
            &["keyword_dropped"],
        ),
        (Gemini, "{}", ANY, &["types_split"]),
    ] {
        let (text, done) = told(&within(schema), profile);
        assert_eq!((text, &*done), (within(expected), repairs), "{profile:?} {schema}");
    }
}

#[test]
fn references_are_followed_as_far_as_they_lead() {
    let with = |of: &str| {
        format!(
            r##"{{"type":"object","properties":{{"a":{of}}},"$defs":{{"T":{{"type":"string"}},"N":{{"type":"object","properties":{{"n":{{"$ref":"#/$defs/N"}}}}}}}}}}"##
        )
    };
    for (of, expected, repairs) in [
        (r##"{"$ref":"#/$defs/T"}"##, r#"{"type":"string"}"#, &["ref_inlined"][..]),
        (
            r##"{"description":"D","$ref":"#/$defs/T"}"##,
            r#"{"description":"D","type":"string"}"#,
            &["ref_inlined"],
        ),
        (
            r##"{"maxLength":3,"$ref":"#/$defs/T"}"##,
            r#"{"maxLength":3,"allOf":[{"type":"string"}]}"#,
            &["ref_inlined"],
        ),
        (
            r##"{"$ref":"#/$defs/N"}"##,
            r#"{"type":"object","properties":{"n":{"type":"object"}}}"#,
            &["ref_inlined", "ref_cut"],
        ),
        (r#"{"$ref":"x.json"}"#, "{}", &["ref_cut"]),
    ] {
        let (text, done) = told(&with(of), Profile::VsCode);
        assert_eq!((text, &*done), (within(expected), repairs), "{of}");
        // Who follows references himself gets them as they came.
        assert_eq!(told(&with(of), Profile::Claude), (with(of), vec![]));
    }
}

#[test]
fn a_root_is_flattened_where_that_says_the_same_and_wrapped_where_not() {
    for (schema, expected, wrapped_in) in [
        (
            r#"{"allOf":[{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]},{"properties":{"b":{}},"required":["b","a"]}],"description":"D"}"#,
            r#"{"description":"D","type":"object","properties":{"a":{"type":"string"},"b":{}},"required":["a","b"]}"#,
            None,
        ),
        (
            r#"{"anyOf":[{"required":["a"]},{"required":["b"]}]}"#,
            r#"{"type":"object","properties":{"input":{"anyOf":[{"required":["a"]},{"required":["b"]}],"type":"object"}},"required":["input"],"additionalProperties":false}"#,
            Some("input"),
        ),
        (
            r#"{"type":"object","properties":{"input":{}},"not":{"required":["b"]}}"#,
            r#"{"type":"object","properties":{"input_":{"type":"object","properties":{"input":{}},"not":{"required":["b"]}}},"required":["input_"],"additionalProperties":false}"#,
            Some("input_"),
        ),
        // Not the same: what the one forbids the other speaks of.
        (
            r#"{"type":"object","allOf":[{"properties":{"a":{}},"additionalProperties":false},{"properties":{"b":{}}}]}"#,
            r#"{"type":"object","properties":{"input":{"type":"object","allOf":[{"properties":{"a":{}},"additionalProperties":false},{"properties":{"b":{}}}]}},"required":["input"],"additionalProperties":false}"#,
            Some("input"),
        ),
    ] {
        let (text, _, found) = exposed(schema, Profile::Claude).unwrap();
        assert_eq!((&*text, found.as_deref()), (expected, wrapped_in), "{schema}");
    }
}

#[test]
fn references_of_a_wrapped_root_are_followed_for_everybody() {
    let schema = r##"{"oneOf":[{"$ref":"#/$defs/A"},{"type":"object"}],"$defs":{"A":{"type":"object","properties":{"x":{"type":"null"}}}}}"##;
    let (text, done) = told(schema, Profile::Claude);
    assert!(!text.contains("$ref") && !text.contains("$defs"), "{text}");
    assert_eq!(done, ["ref_inlined", "root_typed", "root_wrapped"]);
}

#[test]
fn a_name_that_a_family_refuses_hides_its_tool_alone() {
    let long = "x".repeat(65);
    for (name, refused_by) in [
        ("plain_name-1", &[][..]),
        ("1st", &["strict-common", "gemini"]),
        ("a.b:c", &["strict-common", "claude", "openai", "vscode"]),
        ("a/b", &["strict-common", "claude", "openai", "gemini", "vscode"]),
        ("é", &["strict-common", "claude", "openai", "gemini", "vscode"]),
        (&long, &["strict-common", "claude", "openai", "gemini", "vscode"]),
    ] {
        let list = format!(
            r#"[{{"name":"{name}","inputSchema":{{"type":"object"}}}},{{"name":"other","inputSchema":{{"type":"object"}}}}]"#
        );
        let list = bytes::Bytes::from(list);
        for profile in changing() {
            let shaped = Shaped::build(&list, profile, &LIMITS, &mut Memory::default());
            let is_hidden = shaped.find(name).unwrap().hidden() == Some(Unusable::Name);
            assert_eq!(is_hidden, refused_by.contains(&profile.as_str()), "{name} {profile:?}");
            let rest = r#"[{"name":"other","inputSchema":{"type":"object"}}]"#;
            let expected = if is_hidden { rest.as_bytes() } else { &list };
            assert_eq!(shaped.list(), expected);
        }
    }
}

#[test]
fn a_list_is_made_anew_only_of_what_is_new() {
    let tool = |name: &str, schema: &str| format!(r#"{{"name":"{name}","inputSchema":{schema}}}"#);
    let good = tool("good", r#"{"type":"object"}"#);
    let bad = tool("bad", r#"{"type":"array"}"#);
    let mut memory = Memory::default();
    let mut build = |tools: &[&str]| {
        let list = bytes::Bytes::from(format!("[{}]", tools.join(", ")));
        let shaped = Shaped::build(&list, Profile::Claude, &LIMITS, &mut memory);
        (String::from_utf8(shaped.list().to_vec()).unwrap(), shaped.verdicts().len())
    };
    assert_eq!(build(&[&good, &bad]), (format!("[{good}]"), 2));
    assert_eq!(build(&[&bad]), ("[]".to_owned(), 1));
    assert_eq!(build(&[&bad, &good, &bad]), (format!("[{good}]"), 3));
    assert_eq!(build(&[&good, &good]), (format!("[{good}, {good}]"), 2), "as it came");
    assert_eq!(names_in(b"[{\"name\":\"a\"}, {\"x\":1,\"name\":\"b\"}]"), ["a", "b"]);
}
