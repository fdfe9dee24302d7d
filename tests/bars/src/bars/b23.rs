//! B23: while the database is locked, stopped or full no call of anybody who is known fails, changes are
//! refused in bounded time, and nothing is damaged; nor is it by a kill in the midst of a start's changes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use evil_mcp::{Character, dice::Dice, history::written};
use http::{Method, StatusCode};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::json;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{
        Client, Daemon, Reply, SOON,
        client::request,
        daemon::ADMIN_KEY,
        host,
        http::{Connection, headers},
        publish, until,
    },
};

/// The suite's PostgreSQL, which knows nothing of the daemon either.
#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "it is the suite's, and a bar needs one part of it"
)]
#[path = "../../../support/postgres.rs"]
mod postgres;

pub const BAR: Bar = Bar {
    name: "B23",
    about: "a database that is locked, stopped, full or cut off in its changes fails no call, and is whole",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// A known principal calls so often.
const PACE: Duration = Duration::from_millis(20);

/// Within this a change is refused (`database.answer_timeout`, and a little for the way).
const REFUSED_WITHIN: Duration = Duration::from_secs(6);

/// After this it is known that the database is away.
const NOTICED_WITHIN: Duration = Duration::from_secs(6);

/// Takes SQLite's write lock, says so by making a file, and waits for another file to appear.
const HOLD: &str = "import os, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute('begin immediate')
open(sys.argv[2], 'w').close()
while not os.path.exists(sys.argv[3]): time.sleep(0.02)";

/// Says whether a database is whole, and how many changes it has behind it.
const INSPECT: &str = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
print(db.execute('pragma integrity_check').fetchone()[0])
try: print(db.execute('select count(*) from seaql_migrations').fetchone()[0])
except sqlite3.OperationalError: print(0)";

#[derive(Debug, Default)]
struct Found {
    calls: usize,
    failed: usize,
    said: Vec<String>,
    refusals: Vec<Duration>,
    taken: usize,
    unclean: usize,
    strangers: usize,
    /// Who has a key that nobody here knows, and heard that there is no such key.
    denied: usize,
}

/// A daemon with a server, and someone who is known to it.
struct Scene {
    daemon: Daemon,
    client: Client,
}

impl Scene {
    async fn begin(plan: &Plan, url: Option<String>) -> Outcome<Scene> {
        let mut daemon = Daemon::new(plan, "")?;
        let url = url.map(|url| ("METAMCPD__DATABASE__URL".to_owned(), url));
        daemon.environment.extend(url);
        daemon.begin()?;
        daemon.ready().await?;
        let mut admin = daemon.admin().await?;
        admin.stdio(plan, "evil", &Character::good()).await?;
        let key = publish(&mut admin, &["evil".to_owned()]).await?;
        let client = Client::connect(&daemon, "all", &key).await?;
        Ok(Scene { daemon, client })
    }

    /// Calls for so long, while an operator tries to change something; both are looked at.
    async fn outlast(&mut self, lasts: Duration, found: &mut Found) -> Outcome<()> {
        let ends = Instant::now() + lasts;
        let changes = async {
            let mut all = Vec::new();
            while Instant::now() < ends {
                all.push(change(self.daemon.port, &format!("late{}", all.len())).await?);
            }
            Outcome::Ok(all)
        };
        let calls = async {
            let (mut count, mut wrong) = (0_usize, Vec::new());
            while Instant::now() < ends {
                let nonce = written(count as u64);
                count += 1;
                let reply = self.client.call("evil__echo", &json!({"nonce": nonce})).await;
                match reply {
                    Ok(Reply::Text(text)) if text == nonce => {}
                    other => wrong.push(format!("{other:?}")),
                }
                tokio::time::sleep(PACE).await;
            }
            Outcome::Ok((count, wrong))
        };
        let strangers = async {
            tokio::time::sleep(NOTICED_WITHIN).await;
            let mut all = Vec::new();
            while Instant::now() < ends {
                all.push(stranger(self.daemon.port).await?);
                tokio::time::sleep(PACE * 10).await;
            }
            Outcome::Ok(all)
        };
        let (changes, (count, wrong), strangers) =
            futures_util::try_join!(changes, calls, strangers)?;
        found.strangers += strangers.len();
        found.denied += strangers.iter().filter(|one| **one == StatusCode::UNAUTHORIZED).count();
        found.calls += count;
        found.failed += wrong.len();
        found.said.extend(wrong.into_iter().take(3));
        for (status, took) in changes {
            found.refusals.push(took);
            found.taken += usize::from(status.is_success());
            found.unclean += usize::from(status != StatusCode::SERVICE_UNAVAILABLE);
        }
        Ok(())
    }

    /// Waits until changes are taken again.
    async fn recovered(&self) -> Outcome<()> {
        until("changes to be taken again", SOON, async || {
            let (status, _) = change(self.daemon.port, "recovered").await?;
            Ok((status.is_success() || status == StatusCode::CONFLICT).then_some(()))
        })
        .await
    }
}

/// What somebody hears whose key may have been made by now, as far as anybody here knows.
async fn stranger(port: u16) -> Outcome<StatusCode> {
    let named = headers("sk_mt_0000000000000000000000000000000000000000000")?;
    let (mut connection, path) = (Connection::new(port), "/metamcp/all/mcp");
    let asked = connection.send(Method::POST, path, &named, request(1, "ping", &json!({})));
    Ok(tokio::time::timeout(SOON, asked).await??.status)
}

/// Tries to make a namespace; how that ended, and how long it took.
async fn change(port: u16, name: &str) -> Outcome<(StatusCode, Duration)> {
    let (began, mut connection) = (Instant::now(), Connection::new(port));
    let body = json!({"name": name}).to_string();
    let named = headers(ADMIN_KEY)?;
    let asked = connection.send(Method::POST, "/api/v1/namespaces", &named, body.into());
    let answer = tokio::time::timeout(SOON, asked).await??;
    Ok((answer.status, began.elapsed()))
}

/// Whether a file is a whole database, and how many changes it has behind it.
fn inspected(file: &Path) -> Outcome<(bool, usize)> {
    let said = Command::new("python3").args(["-c", INSPECT]).arg(file).output()?;
    let said = String::from_utf8(said.stdout)?;
    let mut lines = said.lines();
    let is_whole = lines.next() == Some("ok");
    Ok((is_whole, lines.next().unwrap_or("0").parse()?))
}

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let away = Duration::from_secs(plan.size(8, 30) as u64);
    let (mut damaged, mut looked) = (0, 0);
    let mut look = |file: &Path| -> Outcome<()> {
        looked += 1;
        damaged += usize::from(!inspected(file)?.0);
        Ok(())
    };

    let mut scene = Scene::begin(plan, None).await?;
    let found = locked(&mut scene, away).await?;
    judge(report, "locked", &found);
    scene.daemon.stop().await?;
    look(&file_of(&scene.daemon))?;

    let mut scene = full(plan).await?;
    let found = filled(&mut scene, away / 2).await?;
    judge(report, "full", &found);
    scene.daemon.kill9()?;
    scene.daemon.begin()?;
    scene.daemon.ready().await?;
    scene.daemon.admin().await?.get("namespaces/recovered").await?;
    scene.daemon.stop().await?;
    look(&file_of(&scene.daemon))?;

    match postgres::cluster_of_its_own() {
        Some(cluster) => {
            let mut scene = Scene::begin(plan, Some(cluster.fresh_database())).await?;
            let found = stopped(&mut scene, &cluster, away).await?;
            judge(report, "stopped", &found);
            let n = found.strangers;
            report.never("unknown keys denied while it was stopped", found.denied, n);
            scene.daemon.stop().await?;
        }
        None => report.note("a PostgreSQL that stops was not tried: no initdb found"),
    }
    report.never("databases damaged", damaged, looked);
    killed_in_changes(plan, report).await
}

fn judge(report: &mut Report, how: &str, found: &Found) {
    report.never(format!("calls failed while it was {how}"), found.failed, found.calls);
    let n = found.refusals.len();
    report.never(format!("changes not refused by 503 while it was {how}"), found.unclean, n);
    let worst = found.refusals.iter().max().copied().unwrap_or(Duration::MAX);
    report.time(format!("a change refused while it was {how} (n={n})"), worst, REFUSED_WITHIN);
    found.said.iter().for_each(|said| report.note(format!("{how}: {said}")));
    if found.taken > 0 {
        report.note(format!("{how}: {} changes were taken nonetheless", found.taken));
    }
}

async fn locked(scene: &mut Scene, away: Duration) -> Outcome<Found> {
    let [locked, unlock] = ["locked", "unlock"].map(|name| scene.daemon.scratch().join(name));
    let mut holder = Command::new("python3")
        .args(["-c", HOLD])
        .arg(file_of(&scene.daemon))
        .args([&locked, &unlock])
        .stdin(Stdio::null())
        .spawn()?;
    let mut found = Found::default();
    let held = until("the lock", SOON, async || Ok(locked.exists().then_some(()))).await;
    let outlasted = match held {
        Ok(()) => scene.outlast(away, &mut found).await,
        Err(problem) => Err(problem),
    };
    std::fs::write(&unlock, "")?;
    holder.wait()?;
    outlasted?;
    scene.recovered().await?;
    Ok(found)
}

/// A daemon that lives on where its files may not grow.
async fn full(plan: &Plan) -> Outcome<Scene> {
    // Otherwise the kernel would kill whoever writes beyond the limit.
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("metamcpd");
    let program = plan.daemon.display();
    std::fs::write(&script, format!("#!/bin/sh\ntrap '' XFSZ\nexec '{program}' \"$@\"\n"))?;
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let daemon = directory.keep().join("metamcpd");
    Scene::begin(&Plan { daemon, ..plan.clone() }, None).await
}

async fn filled(scene: &mut Scene, away: Duration) -> Outcome<Found> {
    let pid = i32::try_from(scene.daemon.pid()).ok().and_then(Pid::from_raw);
    let nothing = Rlimit { current: Some(0), maximum: None };
    let before = prlimit(pid, Resource::Fsize, nothing)?;
    let mut found = Found::default();
    let outlasted = scene.outlast(away, &mut found).await;
    prlimit(pid, Resource::Fsize, before)?;
    outlasted?;
    scene.recovered().await?;
    Ok(found)
}

async fn stopped(scene: &mut Scene, cluster: &postgres::Cluster, away: Duration) -> Outcome<Found> {
    let everybody = |signal| {
        for process in cluster.processes() {
            host::signal(process, signal);
        }
    };
    let mut found = Found::default();
    everybody(Signal::STOP);
    let outlasted = scene.outlast(away, &mut found).await;
    everybody(Signal::CONT);
    outlasted?;
    scene.recovered().await?;
    Ok(found)
}

/// Starts that are killed while they make their changes, at points that are aimed at by how far the
/// kills before them came.
async fn killed_in_changes(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let began = Instant::now();
    let mut daemon = Daemon::new(plan, "")?;
    daemon.begin()?;
    daemon.ready().await?;
    // A kill falls so long after the file has appeared, at most.
    let mut within = began.elapsed() / 2;
    daemon.stop().await?;
    let (_, changes) = inspected(&file_of(&daemon))?;
    let points = plan.size(15, 50 * changes.max(1));

    let mut dice = Dice::new(plan.seed);
    let (mut damaged, mut refused, mut unfinished) = (0, 0, 0);
    let mut midway = vec![0_usize; changes + 1];
    for _ in 0..points {
        let mut daemon = Daemon::new(plan, "")?;
        let file = file_of(&daemon);
        daemon.begin()?;
        let began = Instant::now();
        while !file.is_file() && began.elapsed() < SOON {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(dice.between(Duration::ZERO, within));
        daemon.kill9()?;
        let (is_whole, done) = look_at_copy(&daemon)?;
        damaged += usize::from(!is_whole);
        midway[done.min(changes)] += 1;
        within = if done < changes { within * 21 / 20 } else { within * 4 / 5 };
        daemon.begin()?;
        if let Err(problem) = daemon.ready().await {
            refused += 1;
            report.note(format!("killed after {done} changes: {problem}"));
            continue;
        }
        daemon.stop().await?;
        let (is_whole, done) = inspected(&file)?;
        damaged += usize::from(!is_whole);
        unfinished += usize::from(done != changes);
    }
    report.never("databases damaged by a kill in their changes", damaged, points);
    report.never("starts refused after that", refused, points);
    report.never("databases without all changes after that", unfinished, points);
    let cut: usize = midway[..changes].iter().sum();
    report.note(format!("{points} kills, {cut} before the last of {changes} changes"));
    report.note(format!("by how many changes were done: {midway:?}"));
    Ok(())
}

fn file_of(daemon: &Daemon) -> PathBuf {
    daemon.scratch().join("data/metamcpd.db")
}

/// As [`inspected`], but at a copy: a look at what was cut off would mend it.
fn look_at_copy(daemon: &Daemon) -> Outcome<(bool, usize)> {
    let copy = daemon.scratch().join("copy");
    std::fs::create_dir(&copy)?;
    for entry in std::fs::read_dir(daemon.scratch().join("data"))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("metamcpd.db") {
            std::fs::copy(entry.path(), copy.join(entry.file_name()))?;
        }
    }
    inspected(&copy.join("metamcpd.db"))
}
