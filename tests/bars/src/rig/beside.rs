//! A server that runs beside the daemon and not behind it: what it costs the machine is what the daemon is
//! not to blame for.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use evil_mcp::Character;
use serde_json::{Value, json};

use super::client::request;
use crate::{Outcome, Plan};

/// What a server is asked by whoever needs no daemon for it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub tool: &'static str,
    pub arguments: Value,
    /// Requests at once.
    pub together: usize,
    /// How often.
    pub every: Duration,
    /// Whether it answers, so that each answer is waited for.
    pub answers: bool,
}

/// A server and its only client, until this is dropped.
#[derive(Debug)]
pub struct Beside {
    over: Arc<AtomicBool>,
    running: Option<JoinHandle<Outcome<()>>>,
}

/// How often it is looked whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Beside {
    /// Starts the server, as often as `every` where it ends by itself.
    pub fn begin(
        plan: &Plan,
        character: &Character,
        asked: Option<Asked>,
        every: Duration,
    ) -> Beside {
        let over = Arc::new(AtomicBool::new(false));
        let (evil, words, seen) = (plan.evil.clone(), character.words(), Arc::clone(&over));
        let running = thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                let next = Instant::now() + every;
                live(&evil, &words, asked.as_ref(), &seen)?;
                while !seen.load(Ordering::Relaxed) && Instant::now() < next {
                    thread::sleep(LOOK_EVERY.min(next - Instant::now()));
                }
            }
            Ok(())
        });
        Beside { over, running: Some(running) }
    }

    /// Ends it; whether all was as it should be.
    pub fn end(mut self) -> Outcome<()> {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.running.take().map(JoinHandle::join);
        ended.unwrap_or(Ok(Ok(()))).map_err(|_panic| "what ran beside has panicked")?
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// One life of the server.
fn live(evil: &PathBuf, words: &[String], asked: Option<&Asked>, over: &AtomicBool) -> Outcome<()> {
    let mut server = Command::new(evil)
        .arg("stdio")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let lived = talk(&mut server, asked, over);
    drop(server.kill());
    server.wait()?;
    lived
}

fn talk(server: &mut Child, asked: Option<&Asked>, over: &AtomicBool) -> Outcome<()> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (server.stdin.take(), server.stdout.take(), server.stderr.take())
    else {
        return Err("a server without streams".into());
    };
    drain(stderr);
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "bars", "version": "1"}});
    let mut stdout = BufReader::new(stdout);
    // One that dies may be dead before it is spoken to.
    let is_there = say(&mut stdin, 1, "initialize", &hello).is_ok();
    match asked.filter(|_| is_there) {
        Some(asked) if asked.answers => ask(&mut stdin, &mut stdout, asked, over),
        asked => {
            drain(stdout);
            while !over.load(Ordering::Relaxed) && server.try_wait()?.is_none() {
                let next = Instant::now() + asked.map_or(LOOK_EVERY, |asked| asked.every);
                for id in 0..asked.map_or(0, |asked| asked.together as u64) {
                    call(&mut stdin, id + 2, asked)?;
                }
                while !over.load(Ordering::Relaxed) && Instant::now() < next {
                    thread::sleep(LOOK_EVERY);
                }
            }
            Ok(())
        }
    }
}

/// Reads each answer to its end before the next is asked for.
fn ask(
    stdin: &mut ChildStdin,
    stdout: &mut impl BufRead,
    asked: &Asked,
    over: &AtomicBool,
) -> Outcome<()> {
    let mut line = Vec::new();
    stdout.read_until(b'\n', &mut line)?;
    for id in 2.. {
        let next = Instant::now() + asked.every;
        call(stdin, id, Some(asked))?;
        line.clear();
        stdout.read_until(b'\n', &mut line)?;
        while Instant::now() < next {
            if over.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::sleep(LOOK_EVERY);
        }
    }
    Ok(())
}

fn call(stdin: &mut ChildStdin, id: u64, asked: Option<&Asked>) -> Outcome<()> {
    let Some(asked) = asked else { return Ok(()) };
    say(stdin, id, "tools/call", &json!({"name": asked.tool, "arguments": asked.arguments}))
}

fn say(stdin: &mut ChildStdin, id: u64, method: &str, params: &Value) -> Outcome<()> {
    let line = [&request(id, method, params)[..], b"\n"].concat();
    Ok(stdin.write_all(&line)?)
}

/// Reads all that comes, and does nothing with it.
fn drain(mut from: impl Read + Send + 'static) {
    thread::spawn(move || {
        let mut piece = vec![0; 64 << 10];
        while from.read(&mut piece).is_ok_and(|count| count > 0) {}
    });
}
