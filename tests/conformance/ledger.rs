//! What was lost, scenario by scenario and check by check, and whether anybody expected it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::suite::{Check, Verdict, Verdicts, Version};

/// Scenarios about what we say ourselves, and not about what we pass on.
const OUR_OWN: &[&str] = &[
    "dns-rebinding-protection",
    "server-initialize",
    "server-session-lifecycle",
    "server-sse-multiple-streams",
    "server-sse-polling",
];

/// A check that came out worse than it has to.
#[derive(Clone, Debug)]
pub struct Loss {
    version: Version,
    scenario: String,
    check: String,
    wanted: Verdict,
    got: Verdict,
    message: String,
}

impl Loss {
    fn of(
        version: Version,
        scenario: &str,
        check: &str,
        wanted: Verdict,
        got: Option<&Check>,
    ) -> Loss {
        Loss {
            version,
            scenario: scenario.to_owned(),
            check: check.to_owned(),
            wanted,
            got: verdict(got),
            message: got
                .map_or_else(|| "the check was not made".to_owned(), |got| got.message.clone()),
        }
    }

    fn of_content(
        version: Version,
        scenario: &str,
        check: &str,
        wanted: &Check,
        got: &Check,
    ) -> Loss {
        let message = format!("{} instead of {}", got.details, wanted.details);
        Loss { message, ..Loss::of(version, scenario, check, wanted.verdict, Some(got)) }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loss { version, scenario, check, wanted, got, message } = self;
        if got == wanted {
            return write!(f, "{version} {scenario}: {check}: other content: {message}");
        }
        write!(f, "{version} {scenario}: {check}: {got:?} instead of {wanted:?}: {message}")
    }
}

fn verdict(check: Option<&Check>) -> Verdict {
    check.map_or(Verdict::Nothing, |check| check.verdict)
}

/// The checks that came out worse through the gateway than directly.
pub fn lost(version: Version, directly: &Verdicts, through: &Verdicts) -> Vec<Loss> {
    let mut losses = Vec::new();
    for (scenario, wanted) in directly {
        let Some(got) = through.get(scenario) else {
            losses.push(Loss::of(version, scenario, "all", Verdict::Success, None));
            continue;
        };
        let ids: BTreeSet<&String> = wanted.keys().chain(got.keys()).collect();
        for id in ids {
            let (wanted, got) = (wanted.get(id), got.get(id));
            if verdict(got) < verdict(wanted) && !is_as_good(id, got) {
                losses.push(Loss::of(version, scenario, id, verdict(wanted), got));
            } else if let Some((wanted, got)) = wanted.zip(got)
                && says_else(scenario, id, wanted, got)
            {
                losses.push(Loss::of_content(version, scenario, id, wanted, got));
            }
        }
    }
    losses
}

/// The checks of a client scenario that are no successes, though they judge.
pub fn failed(version: Version, scenario: &str, checks: &BTreeMap<String, Check>) -> Vec<Loss> {
    checks
        .iter()
        .filter(|(id, check)| check.verdict < Verdict::Nothing && !is_forgiven(id, check))
        .map(|(id, check)| Loss::of(version, scenario, id, Verdict::Success, Some(check)))
        .collect()
}

/// Whether two successes are about different content, which the suite does not mind: an empty list of
/// prompts is a list.
fn says_else(scenario: &str, check: &str, wanted: &Check, got: &Check) -> bool {
    let passed_on = !OUR_OWN.contains(&scenario) && check != "wire-schema-valid";
    passed_on && wanted.verdict == Verdict::Success && wanted.details != got.details
}

/// What the suite notes without praise though the client lacks nothing.
fn is_as_good(check: &str, got: Option<&Check>) -> bool {
    let Some(got) = got.filter(|got| got.verdict == Verdict::Nothing) else { return false };
    match check {
        // A server that closes the stream of a call before it answers has its client come back for
        // the answer. We do that for our clients: their stream stays open and brings the answer.
        "server-sse-disconnect-resume" => got.details["receivedToolResponse"] == true,
        // Answers that are there at once are JSON, which any client takes, and no streams.
        "server-sse-streams-functional" => got.details["numSseStreams"] == 0,
        _ => false,
    }
}

/// A machine with too much to do is late by a fifth of a second; that is no fault. Being early, or
/// late by half a second, is a failure and not a warning.
fn is_forgiven(check: &str, got: &Check) -> bool {
    check == "client-sse-retry-timing" && got.verdict == Verdict::Warning
}

/// Fails the test if anything is lost.
pub fn settle(what: &str, losses: &[Loss]) {
    let lines: Vec<String> = losses.iter().map(Loss::to_string).collect();
    assert!(lines.is_empty(), "{what}, lost:\n{}", lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::suite::Verdict::*;

    const VERSION: Version = Version::First;

    fn check(verdict: Verdict, details: Value) -> Check {
        Check { verdict, message: String::new(), details }
    }

    fn noted(checks: &[(&str, Verdict)]) -> Verdicts {
        let checks =
            checks.iter().map(|(id, verdict)| (id.to_string(), check(*verdict, json!({}))));
        BTreeMap::from([("ping".to_owned(), checks.collect())])
    }

    fn names(losses: &[Loss]) -> Vec<&str> {
        losses.iter().map(|loss| loss.check.as_str()).collect()
    }

    #[test]
    fn what_came_out_worse_is_lost_and_what_came_out_better_is_not() {
        let directly = noted(&[("a", Success), ("b", Success), ("c", Success), ("d", Warning)]);
        let through = noted(&[("a", Success), ("b", Nothing), ("d", Success), ("e", Failure)]);
        assert_eq!(names(&lost(VERSION, &directly, &through)), ["b", "c", "e"]);
    }

    #[test]
    fn a_success_with_other_content_is_a_loss_but_for_what_we_say_ourselves() {
        let of = |scenario: &str, id: &str, prompts: u64| {
            let noted =
                BTreeMap::from([(id.to_owned(), check(Success, json!({"prompts": prompts})))]);
            Verdicts::from([(scenario.to_owned(), noted)])
        };
        let losses = |scenario, id| lost(VERSION, &of(scenario, id, 4), &of(scenario, id, 0)).len();
        assert_eq!(losses("prompts-list", "prompts-list"), 1);
        assert_eq!(losses("prompts-list", "wire-schema-valid"), 0);
        assert_eq!(losses("server-initialize", "server-initialize"), 0);
    }

    #[test]
    fn a_scenario_that_was_not_run_is_lost() {
        let directly = noted(&[("a", Warning)]);
        assert_eq!(names(&lost(VERSION, &directly, &Verdicts::new())), ["all"]);
    }

    #[test]
    fn an_answer_that_had_not_to_be_fetched_is_as_good_and_none_at_all_is_not() {
        let id = "server-sse-disconnect-resume";
        let came = |came: bool| check(Nothing, json!({"receivedToolResponse": came}));
        assert!(is_as_good(id, Some(&came(true))));
        assert!(!is_as_good(id, Some(&came(false))));
        assert!(!is_as_good(id, None));
        assert!(!is_as_good("another", Some(&came(true))));
    }

    #[test]
    #[should_panic(expected = "lost")]
    fn whatever_is_lost_fails_the_test() {
        settle("here", &lost(VERSION, &noted(&[("a", Success)]), &noted(&[("a", Failure)])));
    }

    #[test]
    fn nothing_lost_is_nothing_to_complain_of() {
        settle("here", &[]);
    }
}
