//! The schemas of `tests/fixtures/schemas.json`, each for every family.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{checker::objections, *};

#[derive(Deserialize)]
struct Case {
    about: String,
    schema: Option<Box<RawValue>>,
    hidden: Option<String>,
}

fn corpus() -> Vec<Case> {
    serde_json::from_str(include_str!("../../../../tests/fixtures/schemas.json")).unwrap()
}

#[test]
fn every_family_gets_what_it_takes_and_what_is_valid() {
    let corpus = corpus();
    assert!(corpus.len() >= 30, "{}", corpus.len());
    let mut wrong = Vec::new();
    for Case { about, schema, hidden } in &corpus {
        let schema = schema.as_ref().map_or("null", |schema| schema.get());
        for profile in changing() {
            let mut object =
                |what: String| wrong.push(format!("{about}, {}: {what}", profile.as_str()));
            let outcome = exposed(schema, profile);
            match (&outcome, hidden) {
                (Err(why), Some(expected)) if why.as_str() == expected => {}
                (Err(why), _) => object(format!("is hidden: {}", why.as_str())),
                (Ok(_), Some(_)) => object("is not hidden".to_owned()),
                (Ok((text, ..)), None) => {
                    let value: Value = serde_json::from_str(text).unwrap();
                    let refused = objections(&value, profile);
                    if !refused.is_empty() {
                        object(format!("{refused:?} in {text}"));
                    }
                    if let Err(error) = jsonschema::draft202012::meta::validate(&value) {
                        object(format!("{error} in {text}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_was_made_fit_stays_as_it_is() {
    for Case { about, schema, .. } in corpus() {
        let Some(schema) = schema else { continue };
        for profile in changing() {
            let Ok((once, ..)) = exposed(schema.get(), profile) else { continue };
            let (twice, repairs, _) = exposed(&once, profile).unwrap();
            // Spaces apart.
            let [once, twice] =
                [once, twice].map(|text| serde_json::from_str::<Value>(&text).unwrap());
            assert_eq!(once, twice, "{about} {profile:?}: {repairs:?}");
        }
    }
}

#[test]
fn raw_is_what_came() {
    for Case { schema, .. } in corpus() {
        let schema = schema.as_ref().map_or("null", |schema| schema.get());
        assert_eq!(exposed(schema, Profile::Raw).unwrap().0, schema);
    }
}
