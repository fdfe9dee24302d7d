//! B17: wherever the daemon's own code panics, it lives on, its servers are back at once, whoever waits is
//! answered, and the panic is counted.

mod triggers;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use evil_mcp::{
    Character,
    fault::Condition,
    proxy::{Schedule, Weather},
};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{
        Admin, Client, Daemon, SOON, host::is_alive, publish, remote::Remote, stream::Stream, until,
    },
};
use triggers::{TRIGGERS, Trigger};

pub const BAR: Bar = Bar {
    name: "B17",
    about: "a panic anywhere is contained: nobody waits in vain, and what panicked is back at once",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// How many calls are under way when it panics, and how long each takes.
const UNDER_WAY: usize = 4;
const TAKES_MS: u64 = 400;

/// A call whose outcome comes by a stream has to take longer than a heartbeat.
/// And what is to come due after a while is to do so soon.
const SETTINGS: &str = "[sessions]\nheartbeat = \"100ms\"\n[supervision]\nsteady_after = \"1s\"";

/// The failpoints that the daemon's source names.
fn failpoints(directory: &Path, found: &mut BTreeSet<String>) -> Outcome<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            failpoints(&path, found)?;
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let calls = text.split("failpoint::pass(\"").skip(1);
            found.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    Ok(())
}

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    if !plan.debug_daemon.is_file() {
        let missing = plan.debug_daemon.display();
        let words = format!("not run: {missing} is missing (cargo build, or --debug-daemon FILE)");
        report.note(words.clone());
        return if plan.short { Err(words.into()) } else { Ok(()) };
    }
    let mut points = BTreeSet::new();
    failpoints(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../src")), &mut points)?;
    let find = |point: &String| TRIGGERS.iter().find(|(name, _)| name == point);
    let unknown: Vec<&String> = points.iter().filter(|point| find(point).is_none()).collect();
    report.never("failpoints that this bar has no way to", unknown.len(), points.len());
    if !unknown.is_empty() {
        report.note(format!("no way to {unknown:?}"));
    }

    let rounds = plan.size(1, 10);
    let mut found = Found::default();
    for round in 0..rounds {
        let mut stage = Stage::begin(plan).await?;
        let in_service = points.iter().filter_map(find);
        for (point, trigger) in in_service.filter(|(_, how)| !matches!(how, Trigger::Stop)) {
            if let Err(problem) = stage.panic_at(point, *trigger, &mut found).await {
                found.failed += 1;
                report.note(format!("{point} (round {round}): {problem}"));
                stage = Stage::begin(plan).await?;
            }
        }
        found.unclean += usize::from(!stage.daemon.stop().await?.success());
        for point in points.iter().filter(|point| matches!(find(point), Some((_, Trigger::Stop)))) {
            let mut stage = Stage::begin(plan).await?;
            found.unclean += usize::from(!stage.panic_at_stop(point).await?);
        }
    }
    // That at a stop is counted by nobody any more.
    let panics = rounds * (points.len() - unknown.len() - 1);
    report.never("panics after which the daemon was not as before", found.failed, panics);
    report.never("calls under way without an answer", found.unanswered, found.calls);
    report.never("panics counted other than once", found.miscounted, panics);
    report.never("exit codes other than 0 afterwards", found.unclean, rounds);
    report.percentile("its server READY again", &found.recoveries, 1.0, Duration::from_secs(2));
    Ok(())
}

#[derive(Debug, Default)]
struct Found {
    failed: usize,
    calls: usize,
    unanswered: usize,
    miscounted: usize,
    unclean: usize,
    recoveries: Vec<Duration>,
}

/// A daemon that can be asked to panic, with a server, its operator and its clients.
struct Stage {
    daemon: Daemon,
    program: PathBuf,
    evil: PathBuf,
    admin: Admin,
    key: String,
    clients: Vec<Client>,
    points: PathBuf,
    journal: PathBuf,
    panics: f64,
    others: usize,
    /// A server over HTTP.
    far: Remote,
    /// Clients that are listening to their standing streams.
    listening: Vec<(Client, Stream)>,
}

impl Stage {
    async fn begin(plan: &Plan) -> Outcome<Stage> {
        let program = plan.debug_daemon.clone();
        let plan = Plan { daemon: program.clone(), ..plan.clone() };
        let mut daemon = Daemon::new(&plan, SETTINGS)?;
        let points = daemon.scratch().join("points");
        std::fs::create_dir(&points)?;
        let directory = points.display().to_string();
        daemon.environment.push(("METAMCPD_FAILPOINTS".to_owned(), directory));
        daemon.begin()?;
        daemon.ready().await?;
        let mut admin = daemon.admin().await?;
        let journal = daemon.scratch().join("executed");
        let character = Character::good().when(Condition::Journal(journal.clone()));
        admin.stdio(&plan, "evil", &character).await?;
        let alone = json!({"name": "alone", "type": "STDIO", "isolation": "SESSION",
            "command": plan.evil, "args": ["stdio"]});
        admin.create("mcp-servers", alone).await?;
        admin.until_ready("alone").await?;
        let far = Remote::start(&plan, Character::good(), Schedule::Always(Weather::Fair))?;
        admin.remote("far", &far.url()).await?;
        admin.stdio(&plan, "sleeper", &Character::good()).await?;
        let all = ["evil", "alone", "far", "sleeper"].map(str::to_owned);
        let key = publish(&mut admin, &all).await?;
        admin.change("mcp-servers/sleeper", json!({"idle_stop_ms": 300})).await?;
        let mut clients = Vec::new();
        for _ in 0..UNDER_WAY {
            clients.push(Client::connect(&daemon, "all", &key).await?);
        }
        let (panics, others) = (0.0, 0);
        let evil = plan.evil;
        Ok(Stage {
            daemon,
            program,
            evil,
            admin,
            key,
            clients,
            points,
            journal,
            panics,
            others,
            far,
            listening: Vec::new(),
        })
    }

    /// Has it panic at a point while calls are under way, and sees what becomes of them and of it.
    async fn panic_at(&mut self, point: &str, trigger: Trigger, found: &mut Found) -> Outcome<()> {
        // What came before is forgiven: three in a minute would make it CRASHED.
        self.admin.ask(Method::POST, "mcp-servers/evil/restart", None).await?;
        self.admin.until_ready("evil").await?;
        drop(std::fs::remove_file(&self.journal));
        let calls = self.clients.drain(..).map(|client| tokio::spawn(called(client)));
        let calls: Vec<_> = calls.collect();
        until("the calls to be under way", SOON, async || {
            let noted = std::fs::read_to_string(&self.journal).unwrap_or_default();
            Ok((noted.lines().count() >= UNDER_WAY).then_some(()))
        })
        .await?;

        let file = self.points.join(point);
        std::fs::write(&file, "")?;
        self.trigger(trigger).await?;
        until("the panic", SOON, async || Ok((!file.exists()).then_some(()))).await?;
        let began = Instant::now();
        let again = until("a call to be answered again", SOON, async || {
            self.admin.until_ready("evil").await?;
            let mut client = Client::connect(&self.daemon, "all", &self.key).await?;
            let answer = client.request("tools/call", &echo("again", 0)).await?;
            Ok((answer["result"]["content"][0]["text"] == "again").then_some(()))
        });
        again.await?;
        found.recoveries.push(began.elapsed());

        for ended in join_all(calls).await {
            let (client, answered) = ended?;
            found.calls += 1;
            found.unanswered += usize::from(!answered);
            self.clients.push(client);
        }
        // Sessions outlive any panic.
        for client in &mut self.clients {
            let answer = client.request("tools/call", &echo("after", 0)).await?;
            if answer["result"]["content"][0]["text"] != "after" {
                return Err(format!("a session is of no use any more: {answer}").into());
            }
        }
        let counted = until("the panic to be counted", SOON, async || {
            let counted = self.admin.metric("metamcpd_panics_total").await?;
            Ok((counted > self.panics).then_some(counted))
        })
        .await;
        let counted = counted.unwrap_or(self.panics);
        found.miscounted += usize::from(counted != self.panics + 1.0);
        self.panics = counted;
        Ok(())
    }

    /// Has it panic on its way out; whether it ended in order all the same, and nothing was left of it.
    async fn panic_at_stop(&mut self, point: &str) -> Outcome<bool> {
        let pid = self.admin.pid_of("evil").await?;
        let file = self.points.join(point);
        std::fs::write(&file, "")?;
        let is_clean = self.daemon.stop().await?.success() && !file.exists();
        until("its server to be gone", SOON, async || Ok((!is_alive(pid)).then_some(()))).await?;
        Ok(is_clean)
    }
}

fn echo(nonce: &str, ms: u64) -> Value {
    json!({"name": "evil__echo", "arguments": {"nonce": nonce, "ms": ms}})
}

/// One call; the client, and whether it was answered at all, by whatever.
async fn called(mut client: Client) -> (Client, bool) {
    let params = echo("under way", TAKES_MS);
    let asked = client.answers("tools/call", &params);
    let answered = matches!(tokio::time::timeout(SOON, asked).await, Ok(Ok(all)) if all.len() == 1);
    (client, answered)
}
