//! A host that runs out of processes or of memory: what cannot be had fails alone, with its cause, and the
//! daemon goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use evil_mcp::{Character, Fault, fault::Condition, value::Bytes};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Client, SOON, TestGateway,
    client::LATEST,
    database::Database,
    evil,
    gateway::Start,
    processes,
    raw::Raw,
    remote::{Knobs, Remote},
    skipped, wait_until,
};

/// How many processes and threads the daemon's user may have.
const PROCESSES: usize = 150;

/// Root is exempt from that limit, so the daemon is somebody else, with a copy of its program.
fn as_somebody(user: u32) -> String {
    format!(
        "D=$(dirname \"$3\") && cp \"$0\" \"$D/metamcpd\" && chown -R {user}:{user} \"$D\" && \
         exec prlimit --nproc={PROCESSES}:{PROCESSES} setpriv --reuid={user} --regid={user} \
         --clear-groups \"$D/metamcpd\" \"$@\""
    )
}

/// Processes that take all that a user may have.
struct Crowd(Vec<Child>);

impl Crowd {
    fn of(user: u32) -> Crowd {
        let one = |_| {
            let mut one = Command::new("setpriv");
            one.arg(format!("--reuid={user}")).args(["--clear-groups", "sleep", "600"]);
            one.spawn().expect("one of a crowd")
        };
        Crowd((0..PROCESSES).map(one).collect())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for one in &mut self.0 {
            drop(one.kill().and_then(|()| one.wait()));
        }
    }
}

#[tokio::test]
async fn where_no_process_can_be_had_a_server_fails_with_that_cause_and_is_tried_again() {
    let is_root = rustix::process::geteuid().is_root();
    let has = |program| Command::new(program).arg("--version").output().is_ok();
    if !is_root || !has("setpriv") || !has("prlimit") {
        skipped("root", "a host without processes, which takes root, `setpriv` and `prlimit`");
        return;
    }
    // Nobody else's, and no other run's of this suite.
    let user = 50_000 + std::process::id() % 10_000;
    let settings = "[supervision]\nbackoff_max = \"1s\"\nprobe_every = \"1s\"";
    // Somebody else may not come to a database of ours.
    let start = Start::new().on(Database::Sqlite).settings(settings);
    let gateway = start.prepared_by(&as_somebody(user)).run().await;
    gateway.demo("poor").await;
    // The other one is no process of that user's, who may start no thread either.
    let calm = Remote::start(Knobs::default());
    gateway.remote("calm", &calm.url).await;
    let client = gateway.client_of(&["poor", "calm"]).await;
    let before = gateway.server_pid("poor").await;

    let crowd = Crowd::of(user);
    processes::signal(before, Signal::KILL);
    let server = gateway
        .server_until("poor", "not started", |server| server["runtime"]["reason"] == "spawn_failed")
        .await;
    let why = server["runtime"]["last_error"].as_str().unwrap_or_default();
    assert!(!why.is_empty(), "{server}");
    let answer = client.call("poor__echo", json!({"message": "x"})).await;
    assert!(answer["error"]["data"]["reason"].is_string(), "{answer}");
    for number in 0..20 {
        let text = format!("{number}");
        assert_eq!(client.text_of("calm__echo", json!({"value": text})).await, text);
    }
    // What would be read by a thread of its own is read all the same.
    let long = "x".repeat(600_000);
    assert_eq!(client.text_of("calm__echo", json!({"value": long})).await, long);
    let in_place = gateway.metric("metamcpd_work_in_place_total").await;
    assert!(in_place.is_some_and(|count| count > 0.0), "{in_place:?}");
    let mut another = client.again();
    assert_eq!(another.initialize(LATEST).await.status, 200);

    drop(crowd);
    gateway
        .server_until("poor", "started again", |server| {
            server["runtime"]["state"] == "READY" && server["runtime"]["pid"] != before
        })
        .await;
    assert_eq!(client.text_of("poor__echo", json!({"message": "again"})).await, "again");
    assert_eq!(gateway.metric("metamcpd_panics_total").await.unwrap_or_default(), 0.0);
}

/// A group of processes that may have so much memory. `None` where no such group can be made here.
struct Group(PathBuf);

impl Group {
    fn of(bytes: u64) -> Option<Group> {
        let name = format!("metamcpd-test-{}", std::process::id());
        // The kernel's older interface, and its newer one.
        let places = [("memory", "memory.limit_in_bytes"), ("", "memory.max")];
        places.into_iter().find_map(|(controller, limit)| {
            let group = Group(Path::new("/sys/fs/cgroup").join(controller).join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(limit), bytes.to_string()).ok().map(|()| group)
        })
    }

    /// The same command, in the group.
    fn holding(&self, command: &[String]) -> Vec<String> {
        let join = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let head = ["sh", "-c", join, &self.0.display().to_string()].map(str::to_owned);
        [&head[..], command].concat()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

#[tokio::test]
async fn a_server_that_takes_more_memory_than_there_is_is_said_to_have_been_killed_for_that() {
    let Some(group) = Group::of(64 << 20) else {
        skipped("cgroups", "a server without memory, which takes a control group of our own");
        return;
    };
    let gateway = TestGateway::start().await;
    let hunger = gateway.scratch().join("hungry");
    fs::write(&hunger, "").expect("the file");
    let greedy = Character::good().with(Fault::EatMem(Bytes(1 << 30)));
    let greedy = greedy.when(Condition::While(hunger.clone()));
    gateway.stdio("greedy", &group.holding(&evil(&greedy))).await;
    gateway.demo("calm").await;
    gateway.publish("all", &["greedy", "calm"]).await;
    gateway.ready("calm").await;
    let key = gateway.key("suite").await;
    let client = gateway.client("all", &key).await;
    let died = async || {
        let history = gateway.history("greedy").await;
        history.into_iter().find(|change| change["reason"] == "killed")
    };
    let died = wait_until("its death", SOON, died).await;
    let message = died["message"].as_str().unwrap_or_default();
    assert!(message.contains("for want of memory"), "{died}");
    assert_eq!(client.text_of("calm__echo", json!({"message": "x"})).await, "x");
    fs::remove_file(&hunger).expect("it is there");
    gateway.ready("greedy").await;

    // One that is killed by somebody else is not said to have wanted memory. The first that are may have
    // begun to eat before.
    let wait = "a death of another kind";
    wait_until(wait, SOON, async || {
        let pid = gateway.server("greedy").await["runtime"]["pid"].as_u64();
        if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) {
            processes::signal_if_there(pid, Signal::KILL);
        }
        let history = gateway.history("greedy").await;
        let deaths = history.iter().filter(|change| change["reason"] == "killed");
        let mut other = deaths.filter(|death| !death["message"].to_string().contains("memory"));
        other.next().map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn while_memory_is_short_nobody_new_is_let_in_and_those_who_are_in_go_on() {
    let usual = TestGateway::start().await;
    // Far more than it needs for itself, and what its allocator keeps; and less than what comes.
    let max = usual.memory() * 1024 + 150_000_000;
    drop(usual);
    let settings = format!("[server]\nmemory_soft_max = {max}\nbody_timeout = \"10m\"");
    let gateway = Start::new().settings(&settings).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let key = client.headers[0].1.clone();
    assert_eq!(gateway.metric("metamcpd_overload").await, Some(0.0));

    // Bodies that lack their last byte, which are kept until they are whole.
    let mut bodies = Vec::new();
    let piece = "x".repeat(4_000_000);
    for _ in 0..60 {
        let mut raw = Raw::connect(&gateway).await;
        let head = format!(
            "POST /metamcp/all/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            raw.address,
            piece.len() + 1,
        );
        raw.send(&head).await;
        assert!(raw.send(&piece).await);
        bodies.push(raw);
    }
    let is_short = async |wanted: f64| {
        wait_until("memory to be short, or not", SOON, async || {
            (gateway.metric("metamcpd_overload").await == Some(wanted)).then_some(())
        })
        .await;
    };
    is_short(1.0).await;
    let refused = client.again().initialize(LATEST).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    let sse = client.http.get(gateway.sse_url("all")).header("authorization", &key);
    assert_eq!(sse.send().await.expect("an answer").status(), 503);
    assert_eq!(client.text_of("demo__echo", json!({"message": "still"})).await, "still");
    assert!(gateway.log().contains("server.memory_soft_max"), "{}", gateway.log());

    drop(bodies);
    is_short(0.0).await;
    let key = key.trim_start_matches("Bearer ");
    assert_eq!(Client::new(&client.url, Some(key)).initialize(LATEST).await.status, 200);
}
