//! The server of `tests/conformance`, which has every feature of the stateful protocol, as an upstream
//! of whichever type.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use super::node;

/// How it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    StreamableHttp,
    Sse,
    Stdio,
}

/// The server as a process that listens; it ends with this.
#[derive(Debug)]
pub struct Featured {
    process: Child,
    pub url: String,
}

impl Featured {
    pub fn start(transport: &str) -> Featured {
        let mut command = Command::new(node::node().expect("a Node"));
        command.arg(node::conformance().join("upstream.mjs")).arg(transport);
        // The program ends when its stdin does, whatever becomes of this one.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the upstream starts");
        let mut said = String::new();
        let stdout = process.stdout.take().expect("its stdout");
        BufReader::new(stdout).read_line(&mut said).expect("a line");
        let url = said.strip_prefix("listening ").expect("where it listens").trim().to_owned();
        Featured { process, url }
    }
}

impl Drop for Featured {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait().map(drop)) {
            eprintln!("could not end the upstream: {error}");
        }
    }
}

impl Attached {
    pub const ALL: [Attached; 3] = [Attached::StreamableHttp, Attached::Sse, Attached::Stdio];

    /// Starts the server where it is to be attached by a URL; its row under this name.
    pub fn upstream(self, name: &str) -> (Option<Featured>, Value) {
        let listening = |transport: &str, kind: &str| {
            let upstream = Featured::start(transport);
            let row = json!({"name": name, "type": kind, "url": upstream.url});
            (Some(upstream), row)
        };
        match self {
            Attached::StreamableHttp => listening("streamable-http", "STREAMABLE_HTTP"),
            Attached::Sse => listening("sse", "SSE"),
            Attached::Stdio => {
                let script = node::conformance().join("upstream.mjs").display().to_string();
                let args = [script, "stdio".to_owned()];
                let command = node::node().expect("a Node");
                (None, json!({"name": name, "type": "STDIO", "command": command, "args": args}))
            }
        }
    }
}
