//! B5: a server that is killed in good health answers again before a person notices.

use std::time::{Duration, Instant};

use evil_mcp::{Character, Fault};
use rustix::process::Signal;
use serde_json::json;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{host, until, with_one},
};

pub const BAR: Bar = Bar {
    name: "B5",
    about: "a server that is killed answers again at once",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// What the server itself needs to start.
const START: Duration = Duration::from_millis(20);

/// Each kill has to be the first in a healthy time, which is short here and a minute by default.
const HEALTHY: Duration = Duration::from_millis(100);
const SETTINGS: &str = r#"
supervision = { steady_after = "100ms", failures_burst = 1000000, failures_slow = 1000000 }
"#;

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let kills = plan.size(60, 500);
    let character = Character::good().with(Fault::SlowStart(START));
    let (_daemon, mut admin, mut client) = with_one(plan, SETTINGS, &character).await?;
    let mut times = Vec::with_capacity(kills);
    for _ in 0..kills {
        let child = admin.pid_of("evil").await?;
        tokio::time::sleep(HEALTHY * 3 / 2).await;
        let killed = Instant::now();
        host::signal(child, Signal::KILL);
        let took = until("an answer", Duration::from_secs(10), async || {
            let reply = client.call("evil__pid", &json!({})).await?;
            let is_another = reply.is_text_other_than(&child.to_string());
            Ok(is_another.then(|| killed.elapsed()))
        })
        .await?;
        times.push(took);
    }
    report.percentile("from kill -9 to the next answer", &times, 0.5, Duration::from_millis(150));
    report.percentile("from kill -9 to the next answer", &times, 0.99, Duration::from_secs(1));
    Ok(())
}
