//! What the gateway does not carry yet, by scenario. A scenario that is lost and does not stand here
//! fails the tests, and so does one that stands here and is not lost: the lists can only shrink.

use std::collections::BTreeSet;

use crate::suite::{BOTH, Version};

/// Lost in front of every upstream that can be attached, in both versions of the suite.
const IN_FRONT_OF_ALL: &[&str] = &[];

/// Lost in one version of the suite, in front of every upstream that can be attached.
const IN_ONE_VERSION: &[(Version, &str)] = &[];

/// Client scenarios that fail in every version of the suite that has them.
const AS_A_CLIENT: &[&str] = &[];

/// What is lost through the gateway in front of any upstream.
pub fn through() -> BTreeSet<(Version, &'static str)> {
    in_both(IN_FRONT_OF_ALL).chain(IN_ONE_VERSION.iter().copied()).collect()
}

pub fn as_a_client() -> BTreeSet<(Version, &'static str)> {
    in_both(AS_A_CLIENT).collect()
}

fn in_both(scenarios: &[&'static str]) -> impl Iterator<Item = (Version, &'static str)> {
    scenarios.iter().flat_map(|scenario| BOTH.map(|version| (version, *scenario)))
}
