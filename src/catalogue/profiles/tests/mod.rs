//! What each family of clients gets: of a corpus of nasty schemas, of schemas made by chance, and of those
//! that are meant to do harm. What a family takes is judged by a checker that shares nothing with the
//! rules.

#![allow(clippy::unwrap_used)]

mod checker;
mod corpus;
mod hostile;
mod round_trip;
mod table;

use super::*;

const LIMITS: Limits = Limits { schema_max: 262_144 };

/// Those that change something.
fn changing() -> impl Iterator<Item = Profile> {
    Profile::ALL.into_iter().filter(|profile| *profile != Profile::Raw)
}

/// What becomes of a schema of arguments: its text, and what was done.
fn exposed(
    schema: &str,
    profile: Profile,
) -> Result<(String, Repairs, Option<Box<str>>), Unusable> {
    let definition = format!(r#"{{"name":"t","inputSchema":{schema}}}"#);
    match shape(&definition, "t", profile, &LIMITS) {
        Outcome::AsItCame => Ok((schema.to_owned(), Repairs::new(), None)),
        Outcome::Hidden(why) => Err(why),
        Outcome::Repaired { definition, repairs, wrapped_in } => {
            let tool: std::collections::HashMap<String, Box<serde_json::value::RawValue>> =
                serde_json::from_slice(&definition).unwrap();
            Ok((tool["inputSchema"].get().to_owned(), repairs, wrapped_in))
        }
    }
}

#[test]
fn every_profile_is_known_by_its_word() {
    for profile in Profile::ALL {
        assert_eq!(Profile::parse(profile.as_str()), Some(profile));
    }
    assert_eq!(Profile::parse("auto"), None);
    assert_eq!(Choice::Auto.for_client(Profile::Gemini), Profile::Gemini);
    assert_eq!(Choice::Fixed(Profile::Raw).for_client(Profile::Gemini), Profile::Raw);
}
