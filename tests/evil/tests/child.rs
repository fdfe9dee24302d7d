//! The program itself: it serves well unless it is told not to, and then exactly as badly as told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by ending")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use evil_mcp::{
    Character, Fault,
    fault::Condition,
    value::{Bytes, Exit, Rate},
};
use serde_json::{Value, json};

/// Long enough for what has to happen at all.
const SOON: Duration = Duration::from_secs(20);

/// A running server. It ends when this is dropped.
struct Server {
    process: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Vec<u8>>,
}

impl Server {
    fn start(character: &Character) -> Server {
        let mut process = Command::new(env!("CARGO_BIN_EXE_evil-mcp"))
            .arg("stdio")
            .args(character.words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        let (sender, lines) = channel();
        let output: ChildStdout = process.stdout.take().unwrap();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Server { process, input, lines }
    }

    fn say(&mut self, message: &Value) {
        let input = self.input.as_mut().unwrap();
        // One that has ended cannot be spoken to, which the test sees by what it hears.
        input.write_all(format!("{message}\n").as_bytes()).ok();
    }

    fn ask(&mut self, id: u64, method: &str, params: Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
    }

    fn echo(&mut self, id: u64) {
        self.ask(id, "tools/call", json!({"name": "echo", "arguments": {"nonce": "n"}}));
    }

    /// The next line, with its end.
    fn line(&self) -> Vec<u8> {
        self.lines.recv_timeout(SOON).unwrap()
    }

    fn heard(&self) -> Value {
        serde_json::from_slice(&self.line()).unwrap()
    }

    fn is_silent(&self) -> bool {
        self.lines.recv_timeout(Duration::from_millis(150)).is_err()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn with(fault: Fault) -> Server {
    Server::start(&Character::good().with(fault))
}

#[test]
fn a_good_server_does_as_the_protocol_says() {
    let mut server = Server::start(&Character::good().when(Condition::Tools(3)));
    server.ask(1, "initialize", json!({"protocolVersion": "2025-06-18", "capabilities": {}}));
    assert_eq!(server.heard()["result"]["protocolVersion"], "2025-06-18");
    server.ask(2, "tools/list", json!({}));
    let tools = server.heard()["result"]["tools"].as_array().unwrap().len();
    assert_eq!(tools, 12);
    server.echo(3);
    let answer = server.heard();
    assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!(3), &json!("n")));

    drop(server.input.take());
    assert_eq!(server.process.wait().unwrap().code(), Some(0));
}

#[test]
fn one_of_the_modern_era_is_asked_what_it_speaks() {
    let mut server = Server::start(&Character::good().when(Condition::Modern));
    server.ask(1, "server/discover", json!({}));
    assert_eq!(server.heard()["result"]["supportedVersions"], json!(["2026-07-28"]));
    server.ask(2, "initialize", json!({}));
    assert_eq!(server.heard()["error"]["code"], -32601);
    server.echo(3);
    assert_eq!(server.heard()["result"]["resultType"], "complete");

    let mut server = Server::start(&Character::good());
    server.ask(1, "server/discover", json!({}));
    assert_eq!(server.heard()["error"]["code"], -32601);
}

#[test]
fn progress_and_cancellation_work() {
    let mut server = Server::start(&Character::good());
    let params =
        json!({"name": "progress", "arguments": {"steps": 2}, "_meta": {"progressToken": 9}});
    server.ask(1, "tools/call", params);
    assert_eq!(server.heard()["params"], json!({"progressToken": 9, "progress": 1}));
    assert_eq!(server.heard()["params"]["progress"], 2);
    assert_eq!(server.heard()["id"], 1);

    server.ask(2, "tools/call", json!({"name": "sleep", "arguments": {"ms": 60_000}}));
    server.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": 2}}));
    server.echo(3);
    assert_eq!(server.heard()["id"], 3, "what was cancelled is not answered");
}

#[test]
fn it_ends_as_it_is_told() {
    assert_eq!(with(Fault::ExitNow(Exit::Code(3))).process.wait().unwrap().code(), Some(3));
    let killed =
        with(Fault::ExitNow(Exit::Signal(rustix::process::Signal::KILL))).process.wait().unwrap();
    assert_eq!(killed.signal(), Some(9));

    let mut server = with(Fault::ExitEvery(2));
    server.echo(1);
    assert_eq!(server.heard()["id"], 1);
    server.echo(2);
    assert_eq!(server.process.wait().unwrap().signal(), Some(9));
}

#[test]
fn it_keeps_silent_where_it_is_told() {
    let mut server = with(Fault::HangInit);
    server.ask(1, "initialize", json!({}));
    assert!(server.is_silent());
    server.echo(2);
    assert_eq!(server.heard()["id"], 2, "only the handshake hangs");

    let mut server = with(Fault::Blackhole);
    server.echo(1);
    assert!(server.is_silent());
    server.ask(2, "ping", json!({}));
    assert_eq!(server.heard()["id"], 2, "only calls vanish");
}

#[test]
fn it_confuses_ids_and_bytes_as_it_is_told() {
    let mut server = with(Fault::DupReply);
    server.echo(1);
    assert_eq!(server.heard(), server.heard());

    let mut server = with(Fault::IdTypeChange);
    server.echo(1);
    assert_eq!(server.heard()["id"], "1");

    let mut server = with(Fault::Crlf);
    server.echo(1);
    assert!(server.line().ends_with(b"}\r\n"));

    let mut server = with(Fault::HugeLine(Bytes(3 << 20)));
    server.echo(1);
    assert!(server.line().len() > 3 << 20);

    let mut server = with(Fault::PartialLine);
    server.echo(1);
    assert!(serde_json::from_slice::<Value>(&server.line()).is_err());
    assert_eq!(server.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_caller_may_ask_for_a_fault_of_its_own() {
    let mut server = Server::start(&Character::good());
    let arguments = json!({"nonce": "n", "fault": "wrong-id"});
    server.ask(1, "tools/call", json!({"name": "echo", "arguments": arguments}));
    assert_ne!(server.heard()["id"], 1);
    server.echo(2);
    assert_eq!(server.heard()["id"], 2);
}

#[test]
fn it_floods_and_answers_all_the_same() {
    let mut server = with(Fault::FloodListChanged(Rate(10_000)));
    let flood = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    assert_eq!(server.heard(), flood);
    server.echo(1);
    assert!((0..100_000).any(|_| server.heard()["id"] == 1));
}

#[test]
fn one_that_closed_its_output_lives_on() {
    let mut server = with(Fault::CloseStdout);
    server.echo(1);
    assert!(server.lines.recv_timeout(SOON).is_err(), "its output has ended");
    assert!(server.process.try_wait().unwrap().is_none());
}

/// The processes that bear a mark on their command line.
fn marked(mark: &str) -> Vec<i32> {
    let mark = format!("mark={mark}");
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
    })
    .collect()
}

#[test]
fn a_tree_outlives_its_server_and_ignores_requests_to_end() {
    let mark = format!("tree-{}", std::process::id());
    let character = Character::good().with(Fault::ForkTree(10)).when(Condition::Name(mark.clone()));
    let mut server = Server::start(&character);
    server.echo(1);
    assert_eq!(server.heard()["id"], 1);
    let grown = (0..2_000).any(|_| {
        thread::sleep(Duration::from_millis(5));
        marked(&mark).len() >= 10
    });
    let tree = marked(&mark);
    assert!(grown, "{tree:?}");
    drop(server);
    let signal = |signal: &str| {
        let pids = tree.iter().map(i32::to_string);
        Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status().unwrap();
    };
    signal("-TERM");
    let left = marked(&mark).len();
    signal("-KILL");
    assert!(left >= 8, "{left} of {} are deaf", tree.len());
}

#[test]
fn one_that_ignores_requests_to_end_has_to_be_killed() {
    let mut server = with(Fault::IgnoreTerm);
    server.echo(1);
    assert_eq!(server.heard()["id"], 1);
    let pid = server.process.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    drop(server.input.take());
    thread::sleep(Duration::from_millis(100));
    assert!(server.process.try_wait().unwrap().is_none());
}

#[test]
fn a_nonce_is_noted_before_it_is_answered() {
    let directory = std::env::temp_dir().join(format!("evil-journal-{}", std::process::id()));
    let character = Character::good()
        .with(Fault::Blackhole)
        .when(Condition::Every(2))
        .when(Condition::Journal(directory.clone()));
    let mut server = Server::start(&character);
    server.echo(1);
    server.echo(2);
    server.echo(3);
    assert_eq!(server.heard()["id"], 1);
    assert_eq!(server.heard()["id"], 3);
    let mut noted = String::new();
    std::fs::File::open(&directory).unwrap().read_to_string(&mut noted).unwrap();
    std::fs::remove_file(&directory).unwrap();
    assert_eq!(noted, "n\nn\nn\n");
}
