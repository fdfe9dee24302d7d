//! B13: a call that its client takes back is taken back from its server, at once, and no other is.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use evil_mcp::{Character, dice::mixed, fault::Condition, history::written};
use http::Method;
use serde_json::json;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{Client, Daemon, SOON, client::request, http::Connection, publish, until},
};

pub const BAR: Bar = Bar {
    name: "B13",
    about: "a cancelled call is cancelled at its server, and nothing else is",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// How long a call would take that is cancelled.
const LONG_MS: u64 = 60_000;

/// How long one takes that is left alone while its client goes.
const SHORT_MS: u64 = 200;

/// What the server noted: the calls it began, and which it was told to end, and when.
fn noted(journal: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(journal).unwrap_or_default();
    text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// Waits until the server has begun a call.
async fn begun(journal: &Path, nonce: &str) -> Outcome<()> {
    let is_there = async || Ok(noted(journal).iter().any(|line| line[0] == nonce).then_some(()));
    until("the call to begin", SOON, is_there).await
}

/// When the server was told to end a call, in µs of the clock of the wall.
fn cancelled(journal: &Path, nonce: &str) -> Option<u64> {
    let lines = noted(journal);
    let line = lines.iter().find(|line| line[0] == "cancelled" && line[1] == nonce)?;
    line.get(2)?.parse().ok()
}

/// Sends a call and does not wait for its answer. It lives until the connection is dropped.
fn send(
    port: u16,
    client: &Client,
    id: u64,
    nonce: &str,
    takes: u64,
) -> tokio::task::JoinHandle<()> {
    let (path, headers) = (client.path.clone(), client.headers.clone());
    let arguments = json!({"nonce": nonce, "ms": takes});
    let body = request(id, "tools/call", &json!({"name": "evil__sleep", "arguments": arguments}));
    tokio::spawn(async move {
        let mut connection = Connection::new(port);
        // What comes back does not matter; what the server notes does.
        drop(connection.send(Method::POST, &path, &headers, body).await);
    })
}

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let cancels = plan.size(100, 1_000);
    let drops = plan.size(20, 200);
    let daemon = Daemon::start(plan, "").await?;
    let mut admin = daemon.admin().await?;
    let journal = daemon.scratch().join("noted");
    let character = Character::good().when(Condition::Journal(journal.clone()));
    admin.stdio(plan, "evil", &character).await?;
    let key = publish(&mut admin, &["evil".to_owned()]).await?;
    let mut client = Client::connect(&daemon, "all", &key).await?;
    let other = Client::connect(&daemon, "all", &key).await?;

    let (mut times, mut missed, mut foreign) = (Vec::new(), 0, 0);
    for number in 0..cancels as u64 {
        let id = 1_000_000 + number;
        let mine = written(mixed(plan.seed ^ number << 1));
        let theirs = written(mixed(plan.seed ^ (number << 1 | 1)));
        // Another client's call with the same id is under way too.
        let calls = [
            send(daemon.port, &client, id, &mine, LONG_MS),
            send(daemon.port, &other, id, &theirs, SHORT_MS),
        ];
        begun(&journal, &mine).await?;
        begun(&journal, &theirs).await?;
        let told = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64;
        let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": id}});
        client.post(cancel.to_string().into()).await?;
        let seen = until("the cancellation", Duration::from_secs(2), async || {
            Ok(cancelled(&journal, &mine))
        });
        match seen.await {
            Ok(at) => times.push(Duration::from_micros(at.saturating_sub(told))),
            Err(_) => missed += 1,
        }
        foreign += usize::from(cancelled(&journal, &theirs).is_some());
        calls.iter().for_each(tokio::task::JoinHandle::abort);
    }
    report.never("cancellations that the server was not told of", missed, cancels);
    report.never("calls of others that were cancelled", foreign, cancels);
    report.percentile("from the client to the server", &times, 0.99, Duration::from_millis(100));

    // In the legacy era whoever loses its connection has cancelled nothing.
    let mut nonces = Vec::new();
    for number in 0..drops as u64 {
        let nonce = written(mixed(!plan.seed ^ number));
        let call = send(daemon.port, &client, 2_000_000 + number, &nonce, SHORT_MS);
        begun(&journal, &nonce).await?;
        call.abort();
        nonces.push(nonce);
    }
    tokio::time::sleep(Duration::from_millis(SHORT_MS * 3)).await;
    let ended = nonces.iter().filter(|nonce| cancelled(&journal, nonce).is_some()).count();
    report.never("calls cancelled by a lost connection (legacy era)", ended, drops);
    let lines = noted(&journal);
    let nobodys =
        lines.iter().filter(|line| line.get(1).is_some_and(|one| one == "nobody")).count();
    report.never("cancellations of calls that are not under way", nobodys, cancels);
    report.note("the modern era, where to disconnect is to cancel, is not measured yet");
    Ok(())
}
