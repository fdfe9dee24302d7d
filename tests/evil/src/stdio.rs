//! A server as a child process: a message a line on stdin and stdout, and all that can go wrong there.

use std::{
    collections::HashMap,
    io::{BufRead, Write, stderr, stdin, stdout},
    process::ExitCode,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    Outcome,
    character::Character,
    fault::{Condition, Fault},
    offer::{self, Answer},
    process,
    script::{Step, announcement, encoded, script},
    value::Rate,
};

/// Bytes of a piece of what is written without an end.
const PIECE: usize = 64 << 10;

/// Announcements in a second.
const ANNOUNCEMENTS: f64 = 100.0;

/// What the threads of a server share.
struct Server {
    character: Character,
    calls: AtomicU64,
    lists: AtomicU64,
    /// Calls that take their time, by their id, with the nonce of each; one that was cancelled is gone.
    running: Mutex<HashMap<String, String>>,
    cancelled: Condvar,
}

/// Serves until its stdin ends, or until it is told to end otherwise.
pub fn run(character: Character) -> Outcome<ExitCode> {
    if character.now().contains(&Fault::IgnoreTerm) {
        process::deafen()?;
    }
    character.note_start()?;
    begin(&character)?;
    let server = Arc::new(Server {
        character,
        calls: AtomicU64::new(0),
        lists: AtomicU64::new(0),
        running: Mutex::default(),
        cancelled: Condvar::new(),
    });
    let mut line = Vec::new();
    let mut input = stdin().lock();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if let Ok(message) = serde_json::from_slice::<Value>(&line) {
            server.heard(&message)?;
        }
    }
    match server.character.now().contains(&Fault::IgnoreTerm) {
        true => process::linger(),
        false => Ok(ExitCode::SUCCESS),
    }
}

/// What it does to its host, from its start on.
fn begin(character: &Character) -> Outcome<()> {
    let mark = character.name();
    for fault in character.now() {
        match fault {
            Fault::DumpEnv(file) => std::fs::write(file, process::environment().join("\n"))?,
            Fault::DumpFds(file) => std::fs::write(file, process::descriptors().join("\n"))?,
            Fault::ForkTree(count) => process::tree(*count, mark)?,
            Fault::ForkStorm(count) => process::storm(*count, mark)?,
            Fault::EatMem(bytes) => process::eat_memory(bytes.0),
            Fault::EatCpu(threads) => process::eat_time(*threads),
            Fault::StderrFlood(rate) => flood(*rate, noise, |bytes| stderr().write_all(bytes)),
            Fault::StdoutFlood(rate) => flood(*rate, noise, say_bytes),
            Fault::FloodListChanged(rate) => {
                messages(*rate, json!({"method": "notifications/tools/list_changed"}));
            }
            Fault::FloodLog(rate) => {
                let params = json!({"level": "error", "data": "again"});
                messages(*rate, json!({"method": "notifications/message", "params": params}));
            }
            Fault::FloodUpdated(rate) => {
                let params = json!({"uri": format!("evil://{mark}/state")});
                messages(
                    *rate,
                    json!({"method": "notifications/resources/updated", "params": params}),
                );
            }
            Fault::ExitAfter(after) => {
                let after = *after;
                thread::spawn(move || {
                    thread::sleep(after);
                    process::end(crate::value::Exit::Code(1))
                });
            }
            _ => {}
        }
    }
    // Last, so that all else has begun.
    for fault in character.now() {
        match fault {
            Fault::SlowStart(takes) => thread::sleep(*takes),
            Fault::ExitNow(how) => process::end(*how),
            _ => {}
        }
    }
    Ok(())
}

/// Lines of nothing, as many as fill a piece.
fn noise() -> Vec<u8> {
    b"WARN nothing to be seen here, and there will be more of it in a moment\n".repeat(900)
}

/// Writes the same piece over and over, at a pace in bytes, by a thread of its own, until it cannot.
fn flood(rate: Rate, piece: fn() -> Vec<u8>, write: fn(&[u8]) -> std::io::Result<()>) {
    thread::spawn(move || {
        let piece = piece();
        paced(rate.0 as f64 / piece.len() as f64, || write(&piece).is_ok());
    });
}

/// Says the same message over and over, so often in a second.
fn messages(rate: Rate, mut message: Value) {
    message["jsonrpc"] = json!("2.0");
    thread::spawn(move || {
        let line = [encoded(&message), b"\n".to_vec()].concat();
        // Not one by one: a thread cannot wake as often as that.
        let at_once = usize::try_from(rate.0 / 200).unwrap_or(1).max(1);
        let piece = line.repeat(at_once);
        paced(rate.0 as f64 / at_once as f64, || say_bytes(&piece).is_ok());
    });
}

/// Does something so often in a second, as long as it succeeds.
pub(crate) fn paced(per_second: f64, mut act: impl FnMut() -> bool) {
    let began = Instant::now();
    for done in 0_u64.. {
        let due = Duration::from_secs_f64((done as f64 / per_second.max(0.001)).min(1e6));
        thread::sleep(due.saturating_sub(began.elapsed()));
        if !act() {
            return;
        }
    }
}

fn say_bytes(bytes: &[u8]) -> std::io::Result<()> {
    let mut output = stdout().lock();
    output.write_all(bytes)?;
    output.flush()
}

impl Server {
    fn heard(self: &Arc<Self>, message: &Value) -> Outcome<()> {
        let Some(method) = message["method"].as_str() else { return Ok(()) };
        let (params, id) = (&message["params"], &message["id"]);
        if id.is_null() {
            if method == "notifications/cancelled" {
                self.cancel(&params["requestId"])?;
            }
            return Ok(());
        }
        if method == "tools/call" {
            return self.call(id, params);
        }
        let faults = self.character.now();
        let hangs = |fault: &Fault| match method {
            "initialize" | "server/discover" => *fault == Fault::HangInit,
            _ => *fault == Fault::HangList && method.ends_with("/list"),
        };
        if faults.iter().any(hangs) {
            return Ok(());
        }
        let lists = self.lists.fetch_add(u64::from(method == "tools/list"), Ordering::Relaxed) + 1;
        let mut answer = offer::answer(&self.character, method, params, lists);
        // To the hello of the other era it answers as to any method that it does not know.
        match (self.is_modern(), method) {
            (true, "initialize") | (false, "server/discover") => {
                let words = format!("there is no {method}; supported: {}", self.versions());
                answer.said = Err((-32601, words));
            }
            _ => {}
        }
        let answer = self.dated(method, answer).message(id);
        let end: &[u8] = if faults.contains(&Fault::Crlf) { b"\r\n" } else { b"\n" };
        say_bytes(&[&encoded(&answer), end].concat())?;
        if method == "tools/list" && faults.contains(&Fault::NoRead) {
            process::linger();
        }
        Ok(())
    }

    fn call(self: &Arc<Self>, id: &Value, params: &Value) -> Outcome<()> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let nonce = offer::nonce(params).unwrap_or_default().to_owned();
        if !nonce.is_empty() {
            self.character.note_call(&nonce)?;
        }
        let mut faults = self.character.towards(number).to_vec();
        // A caller may ask for a fault of its own.
        let asked = params["arguments"]["fault"].as_str().and_then(Fault::read);
        faults.extend(asked.and_then(Result::ok));
        let answer = self.dated("tools/call", offer::call(params));
        let steps = script(&faults, number, id, &answer.message(id));
        let takes_time = answer.takes > Duration::ZERO
            || answer.steps > 0
            || steps.iter().any(|step| !matches!(step, Step::Say(_) | Step::Blurt(_)));
        if !takes_time {
            return steps.iter().try_for_each(play);
        }
        let (server, id) = (Arc::clone(self), id.to_string());
        let token = params["_meta"]["progressToken"].clone();
        self.running().insert(id.clone(), nonce);
        thread::spawn(move || {
            let stays = server.wait(&id, &answer, &token);
            if stays && server.running().remove(&id).is_some() {
                // What cannot be said is said to nobody: the gateway has gone.
                drop(steps.iter().try_for_each(play));
            }
        });
        Ok(())
    }

    /// Lets a call take its time, with its progress; whether it was not cancelled meanwhile.
    fn wait(&self, id: &str, answer: &Answer, token: &Value) -> bool {
        let began = Instant::now();
        for step in 1..=answer.steps.max(1) {
            let due = answer.takes.mul_f64(step as f64 / answer.steps.max(1) as f64);
            let mut running = self.running();
            while running.contains_key(id) && began.elapsed() < due {
                let left = due.saturating_sub(began.elapsed());
                let waited = self.cancelled.wait_timeout(running, left);
                running = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if !running.contains_key(id) {
                return false;
            }
            drop(running);
            if answer.steps > 0 && !token.is_null() {
                let params = json!({"progressToken": token, "progress": step});
                let said = json!({"jsonrpc": "2.0", "method": "notifications/progress",
                    "params": params});
                drop(play(&Step::Say(encoded(&said))));
            }
        }
        true
    }

    /// Ends a call that takes its time, and notes when that was asked for.
    fn cancel(&self, id: &Value) -> Outcome<()> {
        let nonce = self.running().remove(&id.to_string());
        self.cancelled.notify_all();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        let whose = nonce.unwrap_or_else(|| "nobody".to_owned());
        self.character.note_call(&format!("cancelled {whose} {now}"))
    }

    fn is_modern(&self) -> bool {
        self.character.conditions.contains(&Condition::Modern)
    }

    fn versions(&self) -> String {
        match self.is_modern() {
            true => offer::MODERN.to_owned(),
            false => offer::LEGACY.join(", "),
        }
    }

    /// An answer as its era has it.
    fn dated(&self, method: &str, mut answer: Answer) -> Answer {
        if self.is_modern() {
            let modern = |result| offer::modern(&self.character, method, result);
            answer.said = answer.said.map(modern);
        }
        answer
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says so many announcements, the first of them when the answer before is well through.
fn announce(count: u64) {
    thread::sleep(Duration::from_millis(100));
    let mut number = 0;
    paced(ANNOUNCEMENTS, || {
        number += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = [announcement(number, now.as_micros()), b"\n".to_vec()].concat();
        say_bytes(&line).is_ok() && number < count
    });
}

fn play(step: &Step) -> Outcome<()> {
    match step {
        Step::Say(bytes) => say_bytes(&[bytes, &b"\n"[..]].concat())?,
        Step::Blurt(bytes) => say_bytes(bytes)?,
        Step::Dribble(bytes, rate) => {
            let mut rest = bytes.iter().chain(b"\n");
            paced(rate.0 as f64, || rest.next().is_some_and(|byte| say_bytes(&[*byte]).is_ok()));
        }
        Step::Babble(bytes) => {
            let piece = vec![b'x'; PIECE];
            let mut left = *bytes;
            while left > 0 {
                let size = left.min(PIECE as u64);
                say_bytes(&piece[..usize::try_from(size)?])?;
                left -= size;
            }
        }
        Step::Announce(count) => announce(*count),
        Step::Rest(time) => thread::sleep(*time),
        Step::CloseOutput => process::fall_silent(false, true)?,
        Step::CloseInput => process::fall_silent(true, false)?,
        Step::End(how) => process::end(*how),
    }
    Ok(())
}
