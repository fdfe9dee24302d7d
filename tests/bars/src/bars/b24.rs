//! B24: a server that cannot live costs next to nothing, is shown as what it is, and is back soon after
//! it was mended.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use evil_mcp::{Character, Fault, fault::Condition};
use http::Method;
use serde_json::Value;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Admin, Daemon, Starts, host},
};

pub const BAR: Bar = Bar {
    name: "B24",
    about: "a crash loop costs little, is shown, and ends by itself once its cause is mended",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

const LIVES: Duration = Duration::from_millis(50);
const MINUTE: Duration = Duration::from_secs(60);

/// A server that dies soon after each start, while a file is there.
struct Doomed {
    name: &'static str,
    starts: Starts,
    switch: std::path::PathBuf,
}

impl Doomed {
    async fn make(
        plan: &Plan,
        daemon: &Daemon,
        admin: &mut Admin,
        name: &'static str,
    ) -> Outcome<Doomed> {
        let (switch, starts) = (daemon.scratch().join(name), Starts::new(daemon, name));
        std::fs::write(&switch, "")?;
        let character = Character::good()
            .with(Fault::ExitAfter(LIVES))
            .when(Condition::While(switch.clone()))
            .when(starts.condition());
        admin.stdio(plan, name, &character).await?;
        Ok(Doomed { name, starts, switch })
    }

    fn mend(&self) -> Outcome<()> {
        Ok(std::fs::remove_file(Path::new(&self.switch))?)
    }

    /// How long it takes until it is READY and stays so for longer than it lived before.
    async fn recovery(&self, admin: &mut Admin, patience: Duration) -> Outcome<Duration> {
        let began = Instant::now();
        admin.until(self.name, patience, |server| server["runtime"]["state"] == "READY").await?;
        let took = began.elapsed();
        tokio::time::sleep(LIVES * 4).await;
        admin.until(self.name, Duration::ZERO, is_ready).await?;
        Ok(took)
    }
}

fn is_ready(server: &Value) -> bool {
    server["runtime"]["state"] == "READY" && server["error_status"] == "NONE"
}

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let daemon = Daemon::start(plan, "").await?;
    let mut admin = daemon.admin().await?;
    let began = Instant::now();
    let cpu = host::cpu(daemon.pid())?;
    let doomed = Doomed::make(plan, &daemon, &mut admin, "doomed").await?;
    admin.until("doomed", MINUTE * 2, |server| server["error_status"] == "CRASHED").await?;
    report.time("shown as CRASHED after", began.elapsed(), MINUTE);

    tokio::time::sleep(MINUTE.saturating_sub(began.elapsed())).await;
    let starts = doomed.starts.pids().len();
    report.bound("starts in the first minute", starts as f64, 8.0, "");
    let spent = host::cpu(daemon.pid())?.saturating_sub(cpu);
    let share = spent.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    report.at_most("CPU of the daemon, of a core", share, 3.0, "%");

    if !plan.short {
        let other = Doomed::make(plan, &daemon, &mut admin, "mended").await?;
        tokio::time::sleep(MINUTE).await;
        other.mend()?;
        let took = other.recovery(&mut admin, MINUTE * 5).await?;
        report.time("READY after it was mended", took, Duration::from_secs(90));
        tokio::time::sleep((MINUTE * 15).saturating_sub(began.elapsed())).await;
        let starts = doomed.starts.pids().len();
        report.bound("starts in 15 minutes", starts as f64, 25.0, "");
    }
    doomed.mend()?;
    admin.ask(Method::POST, "mcp-servers/doomed/restart", None).await?;
    let took = doomed.recovery(&mut admin, MINUTE).await?;
    report.time("READY after an operator's restart", took, Duration::from_secs(2));
    Ok(())
}
