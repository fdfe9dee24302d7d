//! `server` scenarios, directly against the full-featured upstream and through an endpoint in front
//! of it, however it is attached.

use serde_json::json;
use tokio::sync::OnceCell;

use crate::{
    ledger::{self, Loss},
    suite::{self, BOTH, Verdict, Verdicts, Version},
    support::{
        TestGateway,
        featured::{Attached, Featured},
        gateway::Start,
    },
    turn,
};

/// Answers become streams early, or the suite would see none: what answers at once is answered by
/// JSON, and everything in the suite does.
const SETTINGS: &str = "[sessions]\nheartbeat = \"100ms\"";

/// What each version says of the upstream itself, found out once.
async fn directly() -> &'static [(Version, Verdicts)] {
    static KNOWN: OnceCell<Vec<(Version, Verdicts)>> = OnceCell::const_new();
    KNOWN
        .get_or_init(|| async {
            let upstream = Featured::start("streamable-http");
            let mut known = Vec::new();
            for version in BOTH {
                let verdicts = suite::judge_server(version, &upstream.url, "directly").await;
                known.push((version, verdicts));
            }
            known
        })
        .await
}

/// Publishes the upstream as it is: by its own names, and without a key.
async fn publish(gateway: &TestGateway) {
    let namespace = json!({"name": "open", "naming": "NEVER", "servers": ["everything"]});
    gateway.create("namespaces", namespace).await;
    let endpoint = json!({"name": "open", "namespace": "open", "enable_api_key_auth": false});
    gateway.create("endpoints", endpoint).await;
    gateway.ready("everything").await;
}

async fn nothing_is_lost(attached: Attached) {
    let Some(_turn) = turn().await else { return };
    let gateway = Start::new().settings(SETTINGS).run().await;
    let (_upstream, row) = attached.upstream("everything");
    gateway.create("mcp-servers", row).await;
    publish(&gateway).await;

    let mut losses: Vec<Loss> = Vec::new();
    for (version, wanted) in directly().await {
        let url = gateway.endpoint_url("open");
        let got = suite::judge_server(*version, &url, &format!("{attached:?}")).await;
        losses.extend(ledger::lost(*version, wanted, &got));
    }
    ledger::settle(&format!("in front of {attached:?}"), &losses);
}

#[tokio::test]
async fn the_upstream_itself_passes_every_scenario() {
    let Some(_turn) = turn().await else { return };
    for (version, verdicts) in directly().await {
        // All that these versions have; fewer would be an upstream that was not asked everything.
        let (scenarios, checks) = match version {
            Version::First => (32, 44),
            Version::Second => (33, 84),
        };
        assert_eq!(verdicts.len(), scenarios, "{version}: {:?}", verdicts.keys());
        let all = verdicts.iter().flat_map(|(scenario, checks)| {
            checks.iter().map(move |(id, check)| (scenario, id, check))
        });
        for (scenario, id, check) in all.clone() {
            assert_ne!(check.verdict, Verdict::Failure, "{version} {scenario} {id}: {check:?}");
        }
        let passed = all.filter(|(_, _, check)| check.verdict == Verdict::Success).count();
        assert_eq!(passed, checks, "{version}: the checks that passed");
    }
}

#[tokio::test]
async fn nothing_is_lost_in_front_of_a_streamable_http_upstream() {
    nothing_is_lost(Attached::StreamableHttp).await;
}

#[tokio::test]
async fn nothing_is_lost_in_front_of_an_sse_upstream() {
    nothing_is_lost(Attached::Sse).await;
}

#[tokio::test]
async fn nothing_is_lost_in_front_of_a_stdio_upstream() {
    nothing_is_lost(Attached::Stdio).await;
}
