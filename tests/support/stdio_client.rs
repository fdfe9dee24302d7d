//! A client that only starts processes: `metamcpd connect` as its server, spoken to by lines.

use std::{
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin},
    sync::mpsc,
};

use super::{SOON, gateway::binary, within};

pub struct StdioClient {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
    stderr: Arc<Mutex<String>>,
    ids: i64,
}

impl StdioClient {
    /// Starts the bridge with these arguments, and with the key in its environment.
    pub fn start(args: &[&str], key: Option<&str>) -> StdioClient {
        let mut command = tokio::process::Command::from(binary());
        command.arg("connect").args(args).env_remove("METAMCP_API_KEY").kill_on_drop(true);
        if let Some(key) = key {
            command.env("METAMCP_API_KEY", key);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the bridge starts");
        let stdout = process.stdout.take().expect("its stdout");
        let mut errors = process.stderr.take().expect("its stderr");
        let (told, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut reader = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr: Arc<Mutex<String>> = Arc::default();
        let kept = stderr.clone();
        tokio::spawn(async move {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = errors.read(&mut chunk).await {
                let text = String::from_utf8_lossy(&chunk[..length]).into_owned();
                kept.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        let stdin = process.stdin.take();
        StdioClient { process, stdin, lines, stderr, ids: 0 }
    }

    /// Starts the bridge and shakes hands.
    pub async fn connect(url: &str, key: &str) -> StdioClient {
        let mut client = StdioClient::start(&[url], Some(key));
        client.shake().await;
        client
    }

    pub async fn shake(&mut self) -> Value {
        let hello = json!({
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "suite", "version": "1"},
        });
        let answer = self.request("initialize", hello).await;
        assert!(answer["result"].is_object(), "{answer}\n{}", self.stderr());
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string())
            .await;
        answer
    }

    /// Writes one line.
    pub async fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("the input is open");
        stdin.write_all(format!("{line}\n").as_bytes()).await.expect("the bridge reads");
        stdin.flush().await.expect("the bridge reads");
    }

    /// Sends a request with a fresh id, and waits for its answer.
    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params).await;
        self.answer_to(id).await
    }

    /// Sends a request with a fresh id, and does not wait.
    pub async fn ask(&mut self, method: &str, params: Value) -> i64 {
        self.ids += 1;
        let request = json!({"jsonrpc": "2.0", "id": self.ids, "method": method, "params": params});
        self.send(&request.to_string()).await;
        self.ids
    }

    pub async fn answer_to(&mut self, id: i64) -> Value {
        self.heard("an answer", |message| message["id"] == id && message["method"].is_null()).await
    }

    /// The text of a tool's first part.
    pub async fn text_of(&mut self, tool: &str, arguments: Value) -> String {
        let params = json!({"name": tool, "arguments": arguments});
        let answer = self.request("tools/call", params).await;
        let text = answer["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("{tool} gave no text: {answer}\n{}", self.stderr()))
            .to_owned()
    }

    /// The next message that satisfies `wanted`; the ones before it are passed over.
    pub async fn heard(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        within(what, SOON * 2, async {
            loop {
                let message: Value = self.json().await;
                if wanted(&message) {
                    return message;
                }
            }
        })
        .await
    }

    /// The next line as it came.
    pub async fn line(&mut self) -> String {
        match within("a line", SOON * 2, self.lines.recv()).await {
            Some(line) => line,
            None => panic!("the bridge says no more\n{}", self.stderr()),
        }
    }

    /// The lines that were not looked at, up to the end of a bridge that has ended.
    pub async fn rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(line) = within("the last line", SOON, self.lines.recv()).await {
            rest.push(line);
        }
        rest
    }

    async fn json(&mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Closes its input.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end; the exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        within("the bridge's end", SOON * 2, self.process.wait()).await.expect("a status").code()
    }

    pub fn pid(&self) -> u32 {
        self.process.id().expect("the bridge runs")
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
