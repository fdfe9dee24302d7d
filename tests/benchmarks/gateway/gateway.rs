//! The daemon under load: the release binary, with one upstream over HTTP and one over STDIO behind
//! one endpoint.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use http::{HeaderName, HeaderValue, header};
use serde_json::json;
use tempfile::TempDir;

use super::{
    Outcome,
    load::{self, MESSAGE, Target},
    process,
};

/// A running daemon. It ends when this is dropped.
#[derive(Debug)]
pub struct Gateway {
    process: Child,
    url: reqwest::Url,
    key: String,
    client: reqwest::Client,
    _directory: TempDir,
}

/// Starts the daemon in front of the upstream on this port, and waits until both have their tools.
pub async fn start(upstream: u16) -> Outcome<Gateway> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("mcp.json");
    let servers = json!({"mcpServers": {
        "http": {"type": "http", "url": format!("http://127.0.0.1:{upstream}/mcp")},
        "stdio": {"command": "metamcpd", "args": ["demo-upstream"]},
    }});
    std::fs::write(&file, servers.to_string())?;
    let mut process = Command::new(process::program()?)
        .arg("serve")
        .arg("--import")
        .arg(&file)
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .env("METAMCPD__SERVER__BIND", "127.0.0.1:0")
        .env("METAMCPD__LOG__LEVEL", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = process.stdout.take().ok_or("the gateway has no stdout")?;
    let (mut url, mut key) = (None, None);
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some(rest) = line.strip_prefix("endpoint ") {
            url = Some(rest.parse()?);
        } else if let Some(rest) = line.strip_prefix("api key ") {
            key = Some(rest.to_owned());
        } else if line == "ready" {
            break;
        }
    }
    let (url, key) = url.zip(key).ok_or("the gateway did not start")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let gateway = Gateway { process, url, key, client, _directory: directory };
    gateway.await_tools().await?;
    Ok(gateway)
}

impl Gateway {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A target with a session of its own: calls of this tool, or lists where it is empty.
    pub async fn target(&self, tool: &str) -> Outcome<Target> {
        let session = self.session().await?;
        let authorization = HeaderValue::from_str(&format!("Bearer {}", self.key))?;
        let (body, wanted) = match tool {
            "" => (r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#.to_owned(), "http__echo"),
            tool => (load::call(7, tool), MESSAGE),
        };
        Ok(Target {
            port: self.url.port().ok_or("no port")?,
            path: self.url.path().to_owned(),
            headers: vec![
                (header::AUTHORIZATION, authorization),
                (HeaderName::from_static("mcp-session-id"), session),
                (
                    HeaderName::from_static("mcp-protocol-version"),
                    HeaderValue::from_static("2025-11-25"),
                ),
            ],
            body: body.into(),
            wanted,
        })
    }

    async fn session(&self) -> Outcome<HeaderValue> {
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "bench", "version": "1"},
        }});
        let response = self.post(hello.to_string(), None).await?;
        let session = response.headers().get("mcp-session-id").cloned();
        let session = session.ok_or("no session")?;
        let noted = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned();
        self.post(noted, Some(&session)).await?;
        Ok(session)
    }

    async fn await_tools(&self) -> Outcome<()> {
        let session = self.session().await?;
        for _ in 0..200 {
            let list = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#.to_owned();
            let text = self.post(list, Some(&session)).await?.text().await?;
            if text.contains("http__echo") && text.contains("stdio__echo") {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Err("the upstreams did not come up".into())
    }

    async fn post(
        &self,
        body: String,
        session: Option<&HeaderValue>,
    ) -> Outcome<reqwest::Response> {
        let mut request = self
            .client
            .post(self.url.clone())
            .bearer_auth(&self.key)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .body(body);
        if let Some(session) = session {
            request = request.header("mcp-session-id", session);
        }
        Ok(request.send().await?.error_for_status()?)
    }

    /// Ends the daemon as an operator would, and sees that it ends well.
    pub fn stop(mut self) -> Outcome<()> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.process.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the gateway ended with {status}").into())
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            drop(self.process.kill());
            drop(self.process.wait());
        }
    }
}
