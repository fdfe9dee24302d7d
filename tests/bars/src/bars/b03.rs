//! B3: a server that does not want to end is ended in time, alone and with nineteen like it.

use std::time::{Duration, Instant};

use evil_mcp::{Character, Fault};
use serde_json::json;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Daemon, SOON, host, until},
};

pub const BAR: Bar = Bar {
    name: "B3",
    about: "servers that ignore SIGTERM are ended in time, and the daemon with twenty of them",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

const SERVERS: usize = 20;

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let runs = plan.size(2, 20);
    let (mut alone, mut together, mut left, mut unclean) = (Vec::new(), Vec::new(), 0, 0);
    for _ in 0..runs {
        let mut daemon = Daemon::start(plan, "").await?;
        let mut admin = daemon.admin().await?;
        let names: Vec<String> = (0..=SERVERS).map(|number| format!("deaf{number}")).collect();
        for name in &names {
            admin.stdio(plan, name, &Character::good().with(Fault::IgnoreTerm)).await?;
        }
        for name in &names {
            admin.until_ready(name).await?;
        }
        let child = admin.pid_of("deaf0").await?;
        let began = Instant::now();
        admin.change("mcp-servers/deaf0", json!({"enabled": false})).await?;
        until("its end", SOON, async || Ok((!host::is_alive(child)).then_some(()))).await?;
        alone.push(began.elapsed());

        let instance = daemon.instance();
        let began = Instant::now();
        let status = daemon.stop().await?;
        together.push(began.elapsed());
        unclean += usize::from(!status.success());
        left += host::belonging(&instance, "").len();
    }
    report.percentile("the end of one", &alone, 1.0, Duration::from_millis(5_500));
    report.percentile("the end of the daemon with 20", &together, 1.0, Duration::from_secs(7));
    report.never("processes left", left, runs * SERVERS);
    report.never("exit codes other than 0", unclean, runs);
    Ok(())
}
