//! A client of a STDIO server without anything between: the demo server, by its own pipes.

use std::{
    collections::HashMap,
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    Outcome,
    load::{self, MESSAGE, Plan, Taken},
    process,
};

/// A server that shook hands.
#[derive(Debug)]
pub struct Server {
    _process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    next_id: u64,
}

impl Server {
    pub async fn start() -> Outcome<Server> {
        let mut process = Command::new(process::program()?)
            .arg("demo-upstream")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = process.stdin.take().ok_or("no stdin")?;
        let stdout = process.stdout.take().ok_or("no stdout")?;
        let lines = BufReader::new(stdout).lines();
        let mut server = Server { _process: process, stdin, lines, next_id: 1 };
        let hello = serde_json::json!({
            "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
                "protocolVersion": "2025-11-25", "capabilities": {},
                "clientInfo": {"name": "bench", "version": "1"},
            },
        });
        server.write(&hello.to_string()).await?;
        server.lines.next_line().await?.ok_or("no answer")?;
        server.write(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await?;
        Ok(server)
    }

    /// Keeps `plan.connections` calls in flight.
    pub async fn run(&mut self, plan: &Plan) -> Outcome<Taken> {
        let began = Instant::now();
        let until = began + plan.lasts;
        let mut taken = Taken::default();
        let mut in_flight: HashMap<u64, Instant> = HashMap::new();
        for _ in 0..plan.connections {
            self.call(&mut in_flight).await?;
        }
        while !in_flight.is_empty() {
            let line = self.lines.next_line().await?.ok_or("the server ended")?;
            let message: serde_json::Value = serde_json::from_str(&line)?;
            let Some(sent) = message["id"].as_u64().and_then(|id| in_flight.remove(&id)) else {
                continue;
            };
            if !line.contains(MESSAGE) {
                return Err(format!("a wrong answer: {line}").into());
            }
            taken.times.push(sent.elapsed());
            if Instant::now() < until {
                self.call(&mut in_flight).await?;
            }
        }
        taken.lasted = began.elapsed().max(Duration::from_millis(1));
        Ok(taken)
    }

    async fn call(&mut self, in_flight: &mut HashMap<u64, Instant>) -> Outcome<()> {
        let id = self.next_id;
        self.next_id += 1;
        in_flight.insert(id, Instant::now());
        self.write(&load::call(id, "echo")).await
    }

    async fn write(&mut self, line: &str) -> Outcome<()> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.stdin.flush().await?)
    }
}
