//! `metamcpd demo-upstream`: a small real MCP server on stdio, so that a first run needs nothing
//! else installed.
//!
//! It is a peer of the gateway and shares none of its protocol code, so that a fault there cannot
//! hide behind the same fault here. It speaks the revisions that have a handshake. What its tools
//! do is in `demo_tools`; this file holds the conversation.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::{AbortHandle, Abortable, Aborted, BoxFuture},
    stream::FuturesUnordered,
};
use memchr::memchr;
use serde_json::{Value, json};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::demo_tools::{self, Progress, Step};

/// Newest last: it is the answer to a client that asks for one we do not know.
const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// A longer line ends the server: no honest request to these tools comes near it.
const LINE_MAX: usize = 16 * 1024 * 1024;
/// Steps of calls that wait to be written before their calls have to wait too.
const STEPS_WAITING: usize = 64;
/// How long calls that are already running may take once the input has ended.
const LAST_CALLS: Duration = Duration::from_millis(500);

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// Serves the client that started this process, until it closes our input or is gone.
pub fn serve_stdio() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let stdin = file_of(io::stdin().as_fd())?;
    let stdout = file_of(io::stdout().as_fd())?;
    let ended = runtime.block_on(run(stdin, stdout));
    // A read of our input cannot be called off, and must not keep the process alive.
    runtime.shutdown_background();
    match ended {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended,
    }
}

/// Serves one client until its input ends.
pub async fn run<R, W>(stdin: R, stdout: W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (progress, steps) = mpsc::channel(STEPS_WAITING);
    let mut lines = Lines { input: BufReader::new(stdin), begun: Vec::new() };
    let (calls, running) = (FuturesUnordered::new(), HashMap::new());
    let mut server = Server { stdout, progress, steps, calls, running };

    loop {
        tokio::select! {
            Some(step) = server.steps.recv() => server.tell(step).await?,
            Some(ended) = server.calls.next() => server.finish(ended).await?,
            line = lines.next() => match line? {
                Some(line) => server.receive(&line).await?,
                None => break,
            },
        }
    }

    // Whoever pipes in a few requests and closes wants to read the answers.
    let deadline = Instant::now() + LAST_CALLS;
    while !server.calls.is_empty() {
        tokio::select! {
            Some(step) = server.steps.recv() => server.tell(step).await?,
            Some(ended) = server.calls.next() => server.finish(ended).await?,
            () = sleep_until(deadline) => break,
        }
    }
    Ok(())
}

/// The JSON of a request's id: what tells `1` from `"1"`.
type CallKey = String;

/// A call that has come to its end: its key, its id, and its outcome unless it was cancelled.
type Ended = (CallKey, Value, Result<Value, Aborted>);

struct Server<W> {
    stdout: W,
    progress: mpsc::Sender<Step>,
    steps: mpsc::Receiver<Step>,
    calls: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// The calls that may still be answered. A cancelled one is not among them.
    running: HashMap<CallKey, AbortHandle>,
}

impl<W: AsyncWrite + Unpin> Server<W> {
    async fn receive(&mut self, line: &[u8]) -> io::Result<()> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let Ok(message) = serde_json::from_slice::<Value>(line) else {
            return self.refuse(Value::Null, PARSE_ERROR, "the line is not JSON").await;
        };
        let Some(method) = message.get("method").and_then(Value::as_str) else {
            // This server asks nothing, so an answer has no meaning for it.
            let is_answer = message.get("result").is_some() || message.get("error").is_some();
            return match is_answer {
                true => Ok(()),
                false => self.refuse(Value::Null, INVALID_REQUEST, "not a request").await,
            };
        };
        let params = message.get("params").unwrap_or(&Value::Null);
        match message.get("id") {
            None => {
                if method == "notifications/cancelled" {
                    self.cancel(params);
                }
                Ok(())
            }
            Some(id @ (Value::String(_) | Value::Number(_))) => {
                self.answer(id.clone(), method, params).await
            }
            Some(_) => {
                self.refuse(Value::Null, INVALID_REQUEST, "an id is a string or a number").await
            }
        }
    }

    async fn answer(&mut self, id: Value, method: &str, params: &Value) -> io::Result<()> {
        match method {
            "initialize" => {
                let result = initialize(params);
                self.reply(id, result).await
            }
            "ping" => self.reply(id, json!({})).await,
            "tools/list" if params.get("cursor").is_some_and(|cursor| !cursor.is_null()) => {
                self.refuse(id, INVALID_PARAMS, "no such page: the list has only one").await
            }
            "tools/list" => self.reply(id, json!({ "tools": demo_tools::descriptions() })).await,
            "tools/call" => self.call(id, params).await,
            unknown => {
                let text = format!("no method is called {unknown}");
                self.refuse(id, METHOD_NOT_FOUND, &text).await
            }
        }
    }

    async fn call(&mut self, id: Value, params: &Value) -> io::Result<()> {
        let Some(name) = params.get("name").and_then(Value::as_str) else {
            return self.refuse(id, INVALID_PARAMS, "a call needs the name of a tool").await;
        };
        let key = id.to_string();
        if self.running.contains_key(&key) {
            return self.refuse(id, INVALID_REQUEST, "a request with this id is running").await;
        }
        let token = params.pointer("/_meta/progressToken").cloned();
        let progress = Progress::new(key.clone(), token, self.progress.clone());
        let arguments = params.get("arguments").cloned().unwrap_or_else(|| json!({}));
        let Some(work) = demo_tools::call(name, arguments, progress) else {
            let text = format!("no tool is called {name}");
            return self.refuse(id, INVALID_PARAMS, &text).await;
        };

        let (handle, registration) = AbortHandle::new_pair();
        self.running.insert(key.clone(), handle);
        let work = Abortable::new(work, registration);
        self.calls.push(Box::pin(async move { (key, id, work.await) }));
        Ok(())
    }

    /// Ends a call for good: nothing more is said about it, not even what was ready to be sent.
    fn cancel(&mut self, params: &Value) {
        let Some(id) = params.get("requestId") else { return };
        if let Some(handle) = self.running.remove(&id.to_string()) {
            handle.abort();
        }
    }

    async fn tell(&mut self, step: Step) -> io::Result<()> {
        if !self.running.contains_key(&step.call) {
            return Ok(());
        }
        let method = "notifications/progress";
        self.write(json!({ "jsonrpc": "2.0", "method": method, "params": step.params })).await
    }

    async fn finish(&mut self, (key, id, outcome): Ended) -> io::Result<()> {
        let Ok(result) = outcome else { return Ok(()) };
        // Its last steps may still be waiting here, and a result is the last word on a call.
        while let Ok(step) = self.steps.try_recv() {
            self.tell(step).await?;
        }
        // A cancellation may have come after the end of the work and before this moment.
        match self.running.remove(&key) {
            Some(_) => self.reply(id, result).await,
            None => Ok(()),
        }
    }

    async fn reply(&mut self, id: Value, result: Value) -> io::Result<()> {
        self.write(json!({ "jsonrpc": "2.0", "id": id, "result": result })).await
    }

    async fn refuse(&mut self, id: Value, code: i32, message: &str) -> io::Result<()> {
        let error = json!({ "code": code, "message": message });
        self.write(json!({ "jsonrpc": "2.0", "id": id, "error": error })).await
    }

    async fn write(&mut self, message: Value) -> io::Result<()> {
        let mut line = message.to_string();
        line.push('\n');
        self.stdout.write_all(line.as_bytes()).await?;
        self.stdout.flush().await
    }
}

/// The descriptor as a file: read and written without the buffers and locks of the standard
/// streams, which this process does not share with anybody.
pub(super) fn file_of(descriptor: BorrowedFd<'_>) -> io::Result<File> {
    Ok(File::from_std(descriptor.try_clone_to_owned()?.into()))
}

fn initialize(params: &Value) -> Value {
    let [.., newest] = REVISIONS;
    let asked = params.get("protocolVersion").and_then(Value::as_str);
    let revision = asked.filter(|asked| REVISIONS.contains(asked)).unwrap_or(newest);
    json!({
        "protocolVersion": revision,
        "capabilities": { "tools": {} },
        "serverInfo": {
            "name": "metamcpd-demo",
            "title": "metamcpd demo server",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "instructions": "Harmless tools for a first try: the time, an echo that reports progress, \
            a long task that can be cancelled, and a sum with structured output.",
    })
}

/// Splits the input into lines. A line that was begun is kept when the wait for its end is given
/// up, so `next` may be raced against other events.
struct Lines<R> {
    input: BufReader<R>,
    begun: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The next line without its end; `None` at the end of the input.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let chunk = self.input.fill_buf().await?;
            if chunk.is_empty() {
                let rest = std::mem::take(&mut self.begun);
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
            let end = memchr(b'\n', chunk);
            let taken = end.unwrap_or(chunk.len());
            self.begun.extend_from_slice(&chunk[..taken]);
            self.input.consume(end.map_or(taken, |end| end + 1));
            if self.begun.len() > LINE_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut self.begun)));
            }
        }
    }
}

#[cfg(test)]
#[path = "demo_upstream_tests.rs"]
mod tests;
