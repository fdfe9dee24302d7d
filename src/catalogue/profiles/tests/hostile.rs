//! Schemas that are meant to take time, memory or the stack. Work is bounded by bytes that are read, so
//! that no clock is needed to see that there is an end; that it is a near one is measured by hand.

use proptest::prelude::*;

use super::*;

/// Each of them once for every family. What comes of it matters less than that it comes.
fn survives(schema: &str) -> Vec<&'static str> {
    changing()
        .map(|profile| match exposed(schema, profile) {
            Ok((text, ..)) => {
                let bound = 8 * LIMITS.schema_max + 8 * schema.len();
                assert!(text.len() <= bound, "{} bytes of {}", text.len(), schema.len());
                "shown"
            }
            Err(why) => why.as_str(),
        })
        .collect()
}

fn nested(opening: &str, closing: &str, depth: usize) -> String {
    format!("{}{{}}{}", opening.repeat(depth), closing.repeat(depth))
}

#[test]
fn laughter_of_references_comes_to_an_end() {
    let mut defs: Vec<String> = (0..60)
        .map(|number| {
            let next = format!(r##"{{"$ref":"#/$defs/d{}"}}"##, number + 1);
            let members: Vec<String> =
                (0..10).map(|member| format!(r#""p{member}":{next}"#)).collect();
            format!(r#""d{number}":{{"type":"object","properties":{{{}}}}}"#, members.join(","))
        })
        .collect();
    defs.push(r#""d60":{"type":"string"}"#.to_owned());
    let schema = format!(
        r##"{{"type":"object","properties":{{"a":{{"$ref":"#/$defs/d0"}}}},"$defs":{{{}}}}}"##,
        defs.join(",")
    );
    survives(&schema);
}

#[test]
fn nesting_is_no_danger_to_the_stack() {
    for depth in [10, 31, 33, 120, 5_000] {
        for (opening, closing) in [
            (r#"{"type":"object","properties":{"a":"#, "}}"),
            (r#"{"items":"#, "}"),
            (r#"{"anyOf":["#, "]}"),
            (r#"{"type":"object","allOf":["#, "]}"),
            (r#"{"not":"#, "}"),
        ] {
            let outcomes = survives(&nested(opening, closing, depth));
            // Who has no word for it does not look into it.
            if depth == 5_000 && !opening.contains("not") {
                assert!(!outcomes.contains(&"shown"), "{opening}: {outcomes:?}");
            }
        }
    }
}

#[test]
fn very_many_of_anything_are_refused_or_done() {
    let members = |count: usize, value: &str| -> String {
        let members: Vec<String> =
            (0..count).map(|number| format!(r#""k{number}":{value}"#)).collect();
        members.join(",")
    };
    let list = |count: usize, value: &str| vec![value; count].join(",");
    for schema in [
        format!(
            r#"{{"type":"object","properties":{{{}}}}}"#,
            members(8_000, r#"{"type":"string"}"#)
        ),
        format!(r#"{{"type":"object",{}}}"#, members(20_000, "0")),
        format!(r#"{{"anyOf":[{}]}}"#, list(9_000, r#"{"type":"object"}"#)),
        format!(r#"{{"allOf":[{}]}}"#, list(9_000, r#"{"type":"object"}"#)),
        format!(
            r#"{{"type":"object","properties":{{{}}},"anyOf":[{}]}}"#,
            members(4_000, r#"{"type":"string"}"#),
            list(4_000, r#"{"required":["k1"]}"#)
        ),
        format!(r#"{{"type":"object","required":[{}]}}"#, list(20_000, r#""a""#)),
        format!(r#"{{"type":"object","description":"{}"}}"#, "x".repeat(250_000)),
        format!(
            r##"{{"type":"object","properties":{{{}}},"$defs":{{"a/b":{{"type":"string"}}}}}}"##,
            members(4_000, r##"{"$ref":"#/$defs/a~1b"}"##)
        ),
        format!(r#"{{"type":"object","x":"{}"}}"#, "x".repeat(300_000)),
    ] {
        assert_eq!(survives(&schema).len(), 5);
    }
    let large = format!(r#"{{"type":"object","x":"{}"}}"#, "x".repeat(LIMITS.schema_max));
    assert_eq!(survives(&large), ["schema_too_large"; 5]);
}

proptest! {
    #[test]
    fn no_text_at_all_is_a_panic(text in "[\\[\\]{}\":,a-z$#/0-9 ]{0,60}") {
        for profile in changing() {
            drop(shape(&text, "t", profile, &LIMITS));
            drop(exposed(&text, profile));
        }
    }
}
