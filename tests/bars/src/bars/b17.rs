//! B17: wherever the daemon's own code panics, it lives on, its servers are back at once, whoever waits is
//! answered, and the panic is counted.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use evil_mcp::{Character, fault::Condition};
use futures_util::future::join_all;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{
        Admin, Client, Daemon, SOON,
        client::request,
        http::{Connection, headers},
        publish, until,
    },
};

pub const BAR: Bar = Bar {
    name: "B17",
    about: "a panic anywhere is contained: nobody waits in vain, and what panicked is back at once",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// How many calls are under way when it panics, and how long each takes.
const UNDER_WAY: usize = 4;
const TAKES_MS: u64 = 400;

/// A call whose outcome comes by a stream has to take longer than a heartbeat.
const SETTINGS: &str = "[sessions]\nheartbeat = \"100ms\"";

/// What has the daemon come by a failpoint.
#[derive(Clone, Copy, Debug)]
enum Trigger {
    /// Time alone: it is in a loop.
    Time,
    /// Any request.
    Request,
    /// An operator's restart of the server.
    Restart,
    /// Another server.
    Creation,
    /// A call that is answered by a stream.
    StreamedCall,
    /// A call over the older transport.
    OlderCall,
    /// The first call of a client that has a process to itself.
    OwnProcess,
    /// An order by the operator's socket.
    Order,
}

/// Every failpoint that there is, with what has the daemon come by.
const TRIGGERS: &[(&str, Trigger)] = &[
    ("answer", Trigger::OlderCall),
    ("collect", Trigger::StreamedCall),
    ("configuration", Trigger::Time),
    ("fleet", Trigger::Creation),
    ("journal", Trigger::Restart),
    ("log", Trigger::Time),
    ("namespace", Trigger::Creation),
    ("operator", Trigger::Order),
    ("process", Trigger::OwnProcess),
    ("request", Trigger::Request),
    ("sessions", Trigger::Time),
    ("strays", Trigger::Time),
    ("upstream", Trigger::Restart),
    ("worker", Trigger::Restart),
];

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
        for (point, trigger) in points.iter().filter_map(find) {
            if let Err(problem) = stage.panic_at(point, *trigger, &mut found).await {
                found.failed += 1;
                report.note(format!("{point} (round {round}): {problem}"));
                stage = Stage::begin(plan).await?;
            }
        }
        found.unclean += usize::from(!stage.daemon.stop().await?.success());
    }
    let panics = rounds * (points.len() - unknown.len());
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
        let key = publish(&mut admin, &["evil".to_owned(), "alone".to_owned()]).await?;
        let mut clients = Vec::new();
        for _ in 0..UNDER_WAY {
            clients.push(Client::connect(&daemon, "all", &key).await?);
        }
        let (panics, others) = (0.0, 0);
        let evil = plan.evil;
        Ok(Stage { daemon, program, evil, admin, key, clients, points, journal, panics, others })
    }

    /// Has it panic at a point while calls are under way, and sees what becomes of them and of it.
    async fn panic_at(&mut self, point: &str, trigger: Trigger, found: &mut Found) -> Outcome<()> {
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

    async fn trigger(&mut self, trigger: Trigger) -> Outcome<()> {
        match trigger {
            Trigger::Time => {}
            Trigger::Request => {
                let refused = self.admin.get("mcp-servers").await;
                let said = refused.err().map(|problem| problem.to_string()).unwrap_or_default();
                if !said.contains("500") || !said.contains("internal") {
                    return Err(format!("a request that panics was answered by {said:?}").into());
                }
            }
            Trigger::Restart => {
                self.admin.ask(Method::POST, "mcp-servers/evil/restart", None).await?;
            }
            Trigger::Creation => {
                self.others += 1;
                let row = json!({"name": format!("other{}", self.others), "type": "STDIO",
                    "command": self.evil, "args": ["stdio"]});
                // Whether it is taken, the next look at it tells.
                drop(self.admin.create("mcp-servers", row).await);
            }
            Trigger::StreamedCall => {
                let mut client = Client::connect(&self.daemon, "all", &self.key).await?;
                // It meets the panic unless one that is under way already has.
                client.request("tools/call", &echo("streamed", TAKES_MS)).await?;
            }
            Trigger::OlderCall => self.older_call().await?,
            Trigger::OwnProcess => {
                let mut client = Client::connect(&self.daemon, "all", &self.key).await?;
                let params = json!({"name": "alone__echo", "arguments": {"nonce": "alone"}});
                let answer = client.request("tools/call", &params).await?;
                if !answer["error"].is_object() {
                    return Err(format!("a process that panicked has answered: {answer}").into());
                }
            }
            Trigger::Order => {
                let mut command = Command::new(&self.program);
                command.args(["admin", "create-key", "--data-dir"]);
                command.arg(self.daemon.scratch().join("data"));
                let hung_up = command.output()?;
                if hung_up.status.success() {
                    return Err("an order was taken where there was a panic".into());
                }
                until("the operator's socket", SOON, async || {
                    Ok(command.output()?.status.success().then_some(()))
                })
                .await?;
            }
        }
        Ok(())
    }

    /// A call over HTTP with SSE, whose answer has to be an error that tells of the panic.
    async fn older_call(&self) -> Outcome<()> {
        let headers = headers(&self.key)?;
        let mut stream = Connection::new(self.daemon.port);
        let opened = stream.open(Method::GET, "/metamcp/all/sse", &headers, Bytes::new()).await?;
        let (mut body, mut said) = (opened.into_body(), String::new());
        let mut next = async |said: &mut String, sought: &str| -> Outcome<String> {
            loop {
                let found = said.lines().rev().find_map(|line| line.strip_prefix("data:"));
                if let Some(found) = found.filter(|found| found.contains(sought)) {
                    return Ok(found.trim().to_owned());
                }
                let frame = tokio::time::timeout(SOON, body.frame()).await?;
                let frame = frame.ok_or("the stream ended")??;
                said.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap_or(&Bytes::new())));
            }
        };
        let address = next(&mut said, "message").await?;
        let path = match address.split_once("/metamcp/") {
            Some((_, rest)) => format!("/metamcp/{rest}"),
            None => return Err(format!("no address: {address}").into()),
        };
        // The point is armed already: the first that is answered over this transport meets it.
        let mut posts = Connection::new(self.daemon.port);
        let body = request(77, "ping", &json!({}));
        posts.send(Method::POST, &path, &headers, body).await?;
        let answer: Value = serde_json::from_str(&next(&mut said, "77").await?)?;
        is_told(&answer)
    }
}

fn echo(nonce: &str, ms: u64) -> Value {
    json!({"name": "evil__echo", "arguments": {"nonce": nonce, "ms": ms}})
}

/// Whether whoever asked was told what had happened.
fn is_told(answer: &Value) -> Outcome<()> {
    match answer["error"]["data"]["reason"] == "panicked" {
        true => Ok(()),
        false => Err(format!("an answer where there was a panic: {answer}").into()),
    }
}

/// One call; the client, and whether it was answered at all, by whatever.
async fn called(mut client: Client) -> (Client, bool) {
    let params = echo("under way", TAKES_MS);
    let asked = client.answers("tools/call", &params);
    let answered = matches!(tokio::time::timeout(SOON, asked).await, Ok(Ok(all)) if all.len() == 1);
    (client, answered)
}
