//! `client` scenarios: the suite is the server, and judges what the gateway sent it. A driver attaches
//! it by the admin API and asks through an endpoint of its own.

use crate::{
    ledger, node,
    suite::{self, Verdict, Version},
    support::{ADMIN_KEY, gateway::Start},
    turn,
};

/// The suite's server does not end while a connection to it is open that nothing was ever sent on,
/// and such a one is kept for as long as this.
const SETTINGS: &str = "[egress]\npool_idle_timeout = \"100ms\"";

/// What each version has for clients of the stateful protocol, without OAuth.
const SCENARIOS: [(Version, &[&str]); 2] = [
    (
        Version::First,
        &["initialize", "tools_call", "elicitation-sep1034-client-defaults", "sse-retry"],
    ),
    (
        Version::Second,
        &[
            "initialize",
            "tools_call",
            "elicitation-sep1034-client-defaults",
            "sse-retry",
            "json-schema-2020-12-preservation",
        ],
    ),
];

#[tokio::test]
async fn what_we_send_to_servers_is_right_by_every_scenario() {
    let Some(_turn) = turn().await else { return };
    let gateway = Start::new().settings(SETTINGS).run().await;
    let node = node::node().expect("a Node");
    let command = format!("{} {}", node.display(), node::directory().join("driver.mjs").display());
    let environment = [("METAMCPD_BASE", gateway.base.as_str()), ("METAMCPD_ADMIN_KEY", ADMIN_KEY)];

    let mut losses = Vec::new();
    for (version, scenarios) in SCENARIOS {
        for scenario in scenarios {
            let checks = suite::judge_client(version, scenario, &command, &environment).await;
            let judged = checks.values().any(|check| check.verdict != Verdict::Nothing);
            assert!(judged, "{version} {scenario} judged nothing: {checks:?}");
            losses.extend(ledger::failed(version, scenario, &checks));
        }
    }
    ledger::settle("as a client", &losses);
}
