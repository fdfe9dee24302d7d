//! B21: what is too big or too deep is refused within a bounded memory, and others' calls go on.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use evil_mcp::{
    Character, Fault,
    fault::Condition,
    http::{Server, bomb},
    value::Bytes,
};
use http::{HeaderValue, Method, header};
use serde_json::json;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Client, Daemon, Reply, host, load::paced, publish, stats::percentile},
};

pub const BAR: Bar = Bar {
    name: "B21",
    about: "what is too big or too deep is refused in bounded memory",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// `wire.message_max` and `server.body_max` of the settings.
const MESSAGE_MAX: u64 = 16 << 20;
const BODY_MAX: u64 = 4 << 20;

/// Every attack has to reach the daemon: no call may be held back, and no server started anew, for what
/// the attacks before it did.
const SETTINGS: &str = r#"
calls = { timeout = "6s", total = "20s", breaker = { failures = 0 }, strikes = { timeouts = 0, oversized = 0 } }
supervision = { backoff_min = "10ms", backoff_max = "50ms", failures_burst = 1000000, failures_slow = 1000000 }
"#;

const EVERY: Duration = Duration::from_millis(10);

/// How often all of them are made. An attack is short, so that one stall of the machine beside it is a good
/// part of a round; the round in the middle counts.
const ROUNDS: usize = 3;

/// The most memory that the daemon had since this was begun, more than it had then.
struct Peak {
    pid: u32,
    before: u64,
}

impl Peak {
    fn begin(pid: u32) -> Outcome<Peak> {
        // Forgets the highest mark (proc(5)).
        std::fs::write(PathBuf::from(format!("/proc/{pid}/clear_refs")), "5")?;
        Ok(Peak { pid, before: host::memory(pid, "VmRSS")? })
    }

    fn grown(&self) -> Outcome<u64> {
        Ok(host::memory(self.pid, "VmHWM")?.saturating_sub(self.before))
    }
}

/// Holds a growth to three times the limit that was in its way.
fn judge(report: &mut Report, what: &str, grown: u64, limit: u64) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    report.at_most(format!("memory for {what}"), mib(grown), mib(limit) * 3.0, "MiB");
}

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let daemon = Daemon::start(plan, SETTINGS).await?;
    let mut admin = daemon.admin().await?;
    let server = Server::start(Character::good())?;
    admin.stdio(plan, "well", &Character::good()).await?;
    admin.stdio(plan, "child", &Character::good()).await?;
    admin.remote("remote", &server.url).await?;
    let streaming = Server::start(Character::good().when(Condition::Stream))?;
    admin.remote("streaming", &streaming.url).await?;
    // By itself, since whatever else it is asked waits behind a line that goes on and on.
    admin.stdio(plan, "endless", &Character::good()).await?;
    let names = ["well", "child", "endless", "remote", "streaming"].map(str::to_owned);
    let key = publish(&mut admin, &names).await?;
    let mut client = Client::connect(&daemon, "all", &key).await?;
    let mut healthy = [Client::connect(&daemon, "all", &key).await?];
    paced(&mut healthy, "well__echo", EVERY, Duration::from_millis(500)).await?;
    let alone = paced(&mut healthy, "well__echo", EVERY, Duration::from_secs(2)).await?;

    let endless = plan.size(256 << 20, 4 << 30) as u64;
    let attacks = [
        ("a line of 16 MiB and a byte", "child", Fault::HugeLine(Bytes(MESSAGE_MAX + 1))),
        ("a line without an end", "endless", Fault::NoNewline(Bytes(endless))),
        ("arrays in a million arrays", "child", Fault::Deep(1_000_000)),
        ("a body of 16 MiB and a byte", "remote", Fault::HugeLine(Bytes(MESSAGE_MAX + 1))),
        ("an event of 16 MiB and a byte", "streaming", Fault::HugeLine(Bytes(MESSAGE_MAX + 1))),
        ("200 MB in a gzip", "remote", Fault::GzipBomb(Bytes(200_000_000))),
        ("arrays in a million arrays, over HTTP", "remote", Fault::Deep(1_000_000)),
    ];
    let (mut accepted, mut misjudged) = (0, 0);
    let (mut grown, mut ratios) = (vec![0; attacks.len()], Vec::new());
    for round in 1..=ROUNDS {
        let mut beside = Vec::new();
        for ((what, server, fault), grown) in attacks.iter().zip(&mut grown) {
            let peak = Peak::begin(daemon.pid())?;
            let arguments = json!({"nonce": "n", "fault": fault.to_string()});
            let tool = format!("{server}__echo");
            let began = Instant::now();
            let mut attack = Box::pin(client.call(&tool, &arguments));
            // The calls of others meanwhile, for as long as it takes.
            let reply = loop {
                let lasts = Duration::from_millis(200);
                tokio::select! {
                    reply = &mut attack => break reply?,
                    times = paced(&mut healthy, "well__echo", EVERY, lasts) => beside.extend(times?),
                }
            };
            drop(attack);
            *grown = peak.grown()?.max(*grown);
            accepted += usize::from(matches!(reply, Reply::Text(_)));
            // Whose answer a line is that never ends cannot be told.
            let cause = if *server == "endless" { "call_timeout" } else { "upstream_bad_answer" };
            misjudged += usize::from(!matches!(&reply, Reply::Error(code) if code == cause));
            if round == ROUNDS {
                report.note(format!("{what}: {reply:?} in {:.1?}", began.elapsed()));
            }
            // A request that was given up with its connection leaves this client without one.
            healthy[0].connection.close();
            admin.until_ready(server).await?;
        }
        let (alone, beside) = (percentile(&alone, 0.99), percentile(&beside, 0.99));
        ratios.push(beside.as_secs_f64() / alone.as_secs_f64());
    }
    for ((what, ..), grown) in attacks.iter().zip(grown) {
        judge(report, what, grown, MESSAGE_MAX);
    }
    report.never("answers over a limit that were passed on", accepted, ROUNDS * attacks.len());
    report.never("refusals with another cause than theirs", misjudged, ROUNDS * attacks.len());

    let tools = plan.size(100_000, 1_000_000) as u64;
    let peak = Peak::begin(daemon.pid())?;
    admin.stdio(plan, "bomb", &Character::good().with(Fault::ListBomb(tools))).await?;
    let done = |state: &str| matches!(state, "READY" | "BACKOFF" | "CRASHED");
    let seen = admin
        .until("bomb", Duration::from_secs(60), |server| {
            server["runtime"]["state"].as_str().is_some_and(done)
        })
        .await?;
    judge(report, "a list of too many tools", peak.grown()?, MESSAGE_MAX);
    report.note(format!("a list of {tools} tools: {}", seen["runtime"]["reason"]));

    // The same from the other side.
    let peak = Peak::begin(daemon.pid())?;
    let mut headers = client.headers.clone();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let packed = bomb(200_000_000, br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let path = client.path.clone();
    // One that is refused at its head may find the connection closed before its body is through.
    let answer = client.connection.send(Method::POST, &path, &headers, packed.into()).await;
    let status = answer.as_ref().ok().map(|answer| answer.status);
    judge(report, "200 MB in a gzip from a client", peak.grown()?, BODY_MAX);
    let let_in = status.is_some_and(|status| !status.is_client_error());
    report.never("packed requests that were let in", usize::from(let_in), 1);
    report.note(format!("a gzip from a client: {status:?}"));

    ratios.sort_unstable_by(f64::total_cmp);
    let middle = ratios.get(ratios.len() / 2).copied().unwrap_or(f64::INFINITY);
    report.at_most("p99 of others meanwhile, of that alone", middle, 2.0, "x");
    report.note(format!("p99 of others in each of the rounds, of that alone: {ratios:.2?}"));
    Ok(())
}
