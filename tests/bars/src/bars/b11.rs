//! B11: after a restart all clients come back at once, and all of them are served soon.

use std::time::{Duration, Instant};

use evil_mcp::Character;
use futures_util::future::{join_all, try_join_all};
use http::{Method, StatusCode};
use serde_json::json;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{
        Client, Daemon, Starts,
        client::request,
        host,
        http::{Connection, headers},
        publish,
    },
};

pub const BAR: Bar = Bar {
    name: "B11",
    about: "clients that all come back at once after a restart are served soon, at the cost of one",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

const SERVERS: usize = 20;
const WITHIN: Duration = Duration::from_secs(10);

/// How long a client goes on trying.
const PATIENCE: Duration = Duration::from_secs(60);

/// Clients that connect at once where it is no herd.
const AT_ONCE: usize = 50;

/// All clients are one principal here, whose sessions would make room for each other.
const SETTINGS: &str = r#"
sessions = { per_principal_max = 20000 }
"#;

/// How one client came back.
#[derive(Debug, Default)]
struct Return {
    /// Since the daemon was ready; `None` where it never was.
    took: Option<Duration>,
    /// Answers that told it when to come again.
    told_later: usize,
    /// Other answers of 500 and more.
    failed: usize,
    /// Connections that did not come about, or broke.
    broken: usize,
    connection: Option<Connection>,
}

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let clients = plan.size(200, 2_000);
    let mut daemon = Daemon::start(plan, SETTINGS).await?;
    let mut admin = daemon.admin().await?;
    let names: Vec<String> = (0..SERVERS).map(|number| format!("server{number}")).collect();
    let starts: Vec<Starts> = names.iter().map(|name| Starts::new(&daemon, name)).collect();
    for (name, starts) in names.iter().zip(&starts) {
        admin.stdio(plan, name, &Character::good().when(starts.condition())).await?;
    }
    let key = publish(&mut admin, &names).await?;
    let mut there = Vec::with_capacity(clients);
    while there.len() < clients {
        let some = (there.len()..clients.min(there.len() + AT_ONCE))
            .map(|_| Client::connect(&daemon, "all", &key));
        there.extend(try_join_all(some).await?);
    }
    let steady = host::memory(daemon.pid(), "VmRSS")?;
    let started = |starts: &[Starts]| starts.iter().map(|one| one.pids().len()).sum::<usize>();
    let before = started(&starts);
    let status = daemon.stop().await?;
    drop(there);

    daemon.begin()?;
    daemon.ready().await?;
    let began = Instant::now();
    let herd = (0..clients).map(|_| come_back(daemon.port, &key, began));
    let returns = join_all(herd).await.into_iter().collect::<Outcome<Vec<Return>>>()?;
    let all = began.elapsed();
    let mut admin = daemon.admin().await?;
    for name in &names {
        admin.until_ready(name).await?;
    }
    let peak = host::memory(daemon.pid(), "VmHWM")?;
    let again = started(&starts) - before;

    let times: Vec<Duration> = returns.iter().filter_map(|one| one.took).collect();
    let sum = |of: fn(&Return) -> usize| returns.iter().map(of).sum::<usize>();
    report.never("exit codes other than 0", usize::from(!status.success()), 1);
    report.never("clients that never came back", clients - times.len(), clients);
    report.percentile("a client is back", &times, 1.0, WITHIN);
    let failed = sum(|one| one.failed);
    report.never("answers of 500 and more but 503 with Retry-After", failed, clients);
    report.bound("starts of the servers", again as f64, SERVERS as f64, "");
    let ratio = peak as f64 / steady as f64;
    report.at_most("memory at most, of that before the restart", ratio, 2.0, "x");
    report.note(format!(
        "{clients} clients in {all:.1?}; {} were told to come later, {} connections broke",
        sum(|one| one.told_later),
        sum(|one| one.broken),
    ));
    drop(returns);
    Ok(())
}

/// A client begins a session anew, as often as it takes, and keeps its connection.
async fn come_back(port: u16, key: &str, began: Instant) -> Outcome<Return> {
    let mut one = Return::default();
    let mut connection = Connection::new(port);
    let headers = headers(key)?;
    let hello = request(
        1,
        "initialize",
        &json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "herd", "version": "1"},
        }),
    );
    while began.elapsed() < PATIENCE {
        let asked = connection.send(Method::POST, "/metamcp/all/mcp", &headers, hello.clone());
        let Ok(answer) = asked.await else {
            one.broken += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let later = answer.headers.get("retry-after").and_then(|value| value.to_str().ok());
        let later = later.and_then(|text| text.parse().ok());
        match (answer.status, later) {
            (StatusCode::OK, _) if answer.headers.contains_key("mcp-session-id") => {
                one.took = Some(began.elapsed());
                break;
            }
            (StatusCode::SERVICE_UNAVAILABLE, Some(seconds)) => {
                one.told_later += 1;
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
            (status, _) if status.is_server_error() => {
                one.failed += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (status, _) => {
                let words = String::from_utf8_lossy(&answer.body).into_owned();
                return Err(format!("a client is refused: {status} {words}").into());
            }
        }
    }
    one.connection = Some(connection);
    Ok(one)
}
