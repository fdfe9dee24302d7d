//! B10: a daemon that is told to stop answers everything that it has accepted, and nothing is half done.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use evil_mcp::{
    Character,
    dice::{Dice, mixed},
    fault::Condition,
    history::written,
};
use http::{HeaderMap, Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Client, Daemon, client::request, host, http::Connection, publish},
};

pub const BAR: Bar = Bar {
    name: "B10",
    about: "a stop under load answers every call that was accepted",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

const SESSIONS: usize = 8;

/// How long there is load before the stop, and after it.
const BEFORE: Duration = Duration::from_millis(1_500);
const AFTER: Duration = Duration::from_millis(500);

/// What is on its way when the signal is sent may reach the daemon after it.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

const SETTINGS: &str = r#"
calls = { in_flight_max = 10000, queue_max = 10000 }
sessions = { in_flight_max = 10000 }
"#;

/// The word by which a connection that came just before the port was closed is refused.
const STOPPING: &str = r#""reason":"stopping""#;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// There was no connection, or a word that it is stopping and when to come back.
    Refused,
    /// Another answer that is no result.
    Failed,
    /// The connection ended without an answer.
    Broken,
}

struct Ended {
    began: Instant,
    took: Duration,
    nonce: u64,
    fate: Fate,
    said: String,
}

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let runs = plan.size(5, 50);
    let per_second = plan.size(100, 500) as u32;
    let longest = Duration::from_secs(plan.size(2, 5) as u64);
    let mut dice = Dice::new(plan.seed);
    let (mut accepted, mut lost, mut late, mut unclean, mut refused) = (0, 0, 0, 0, 0);
    let mut times = Vec::new();
    for _ in 0..runs {
        let mut daemon = Daemon::start(plan, SETTINGS).await?;
        let mut admin = daemon.admin().await?;
        let journal = daemon.scratch().join("executed");
        let character = Character::good().when(Condition::Journal(journal.clone()));
        admin.stdio(plan, "evil", &character).await?;
        let key = publish(&mut admin, &["evil".to_owned()]).await?;
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            sessions.push(Client::connect(&daemon, "all", &key).await?);
        }
        let mut calls = JoinSet::new();
        let began = Instant::now();
        let mut told = None;
        for tick in 0_u32.. {
            let due = Duration::from_secs(1) / per_second * tick;
            if due > BEFORE + AFTER {
                break;
            }
            tokio::time::sleep_until((began + due).into()).await;
            if due > BEFORE && told.is_none() {
                told = Some(Instant::now());
                host::signal(daemon.pid(), Signal::TERM);
            }
            let session = &sessions[tick as usize % SESSIONS];
            let (path, headers) = (session.path.clone(), session.headers.clone());
            let takes = dice.below(longest.as_millis() as u64);
            let nonce = mixed(plan.seed ^ dice.throw());
            calls.spawn(call(daemon.port, path, headers, nonce, takes));
        }
        let told = told.ok_or("it was never told to stop")?;
        let ended = calls.join_all().await;
        let status = daemon.ended(longest * 4 + Duration::from_secs(30)).await?;
        times.push(told.elapsed());
        unclean += usize::from(!status.success());
        let executed: HashSet<u64> = std::fs::read_to_string(&journal)?
            .lines()
            .filter_map(|line| u64::from_str_radix(line, 16).ok())
            .collect();
        for call in ended {
            let in_time = call.began + ON_ITS_WAY < told;
            let answered = call.fate == Fate::Answered;
            accepted += usize::from(in_time || answered);
            refused += usize::from(!in_time && !answered);
            let is_lost = !answered && (in_time || executed.contains(&call.nonce));
            lost += usize::from(is_lost);
            let is_unsaid = !in_time && call.fate == Fate::Failed;
            late += usize::from(is_unsaid);
            if is_lost || is_unsaid {
                let after = call.began.saturating_duration_since(told);
                let took = call.took;
                report.note(format!(
                    "{:?} {after:.1?} after the signal, in {took:.1?}: {}",
                    call.fate, call.said
                ));
            }
        }
    }
    report.never("accepted calls without a result", lost, accepted);
    report.never("later calls neither refused nor told when to return", late, refused);
    report.never("exit codes other than 0", unclean, runs);
    report.percentile("the stop", &times, 1.0, longest + Duration::from_secs(2));
    Ok(())
}

/// One call on a connection of its own.
async fn call(port: u16, path: String, headers: HeaderMap, nonce: u64, takes: u64) -> Ended {
    let began = Instant::now();
    let mut connection = Connection::new(port);
    let ended = |fate, said: String| Ended { began, took: began.elapsed(), nonce, fate, said };
    if let Err(problem) = connection.connect().await {
        return ended(Fate::Refused, problem.to_string());
    }
    let arguments = json!({"nonce": written(nonce), "ms": takes});
    let body =
        request(nonce >> 12, "tools/call", &json!({"name": "evil__echo", "arguments": arguments}));
    match connection.send(Method::POST, &path, &headers, body).await {
        Ok(answer) => {
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            let told_when = answer.headers.contains_key("retry-after");
            let fate = match answer.status {
                StatusCode::OK if is_result(&said, nonce) => Fate::Answered,
                StatusCode::SERVICE_UNAVAILABLE if told_when => Fate::Refused,
                StatusCode::OK if said.contains(STOPPING) => Fate::Refused,
                _ => Fate::Failed,
            };
            ended(fate, format!("{} {said}", answer.status))
        }
        Err(problem) => ended(Fate::Broken, problem.to_string()),
    }
}

/// Whether an answer, or the last event of one, is the result of this call.
fn is_result(said: &str, nonce: u64) -> bool {
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let message = last.strip_prefix("data:").unwrap_or(last);
    let message: Value = serde_json::from_str(message).unwrap_or(Value::Null);
    message["result"]["content"][0]["text"] == written(nonce)
}
