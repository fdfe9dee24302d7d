//! What has the daemon come by each of its failpoints.

use std::process::Command;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Stage, TAKES_MS, echo};
use crate::{
    Outcome,
    rig::{
        Client, SOON,
        client::request,
        daemon::ADMIN_KEY,
        http::{Connection, headers},
        stream::Stream,
        until,
    },
};

/// What has the daemon come by a failpoint.
#[derive(Clone, Copy, Debug)]
pub enum Trigger {
    /// Time alone: it is in a loop.
    Time,
    /// Any request.
    Request,
    /// A request to a path of the daemon's, which is answered by 500.
    Way(&'static str, &'static str),
    /// A connection.
    Connection,
    /// A stream to a path of the daemon's, which is cut.
    Cut(&'static str),
    /// A change that is written, and whose maker hears of the panic.
    Change,
    /// An operator's restart of the server.
    Restart,
    /// An operator's restart of the server, of which nobody hears.
    LostRestart,
    /// Other words about the server and the namespace.
    Edit,
    /// Another server.
    Creation,
    /// The end of another server.
    Deletion,
    /// A server that nobody calls any more.
    Rest,
    /// A call of a server that rests.
    Waking,
    /// A call.
    Call,
    /// A server that writes on stderr.
    Complaint,
    /// Another namespace.
    Group,
    /// A namespace with a server that comes later than it.
    Member,
    /// A list that has to wait for a server.
    FirstList,
    /// A call of a tool that there is not.
    UnknownTool,
    /// A call that is answered by a stream.
    StreamedCall,
    /// A call over the older transport.
    OlderCall,
    /// The first call of a client that has a process to itself.
    OwnProcess,
    /// A call to a remote server by a client that listens.
    Listening,
    /// A remote server whose access token has to be renewed.
    Token,
    /// An order by the operator's socket.
    Order,
    /// Something that the log warns of.
    Warning,
    /// SIGHUP.
    Hangup,
    /// The end of the daemon.
    Stop,
}

/// Every failpoint that there is, with what has the daemon come by.
pub const TRIGGERS: &[(&str, Trigger)] = &[
    ("answer", Trigger::OlderCall),
    ("change", Trigger::Change),
    ("collect", Trigger::StreamedCall),
    ("configuration", Trigger::Time),
    ("delete", Trigger::Way("DELETE", "/metamcp/all/mcp")),
    ("door", Trigger::Connection),
    ("edge", Trigger::Way("GET", "/health")),
    ("fleet", Trigger::Creation),
    ("fleet-drain", Trigger::Stop),
    ("fleet-look", Trigger::Time),
    ("fleet-restart", Trigger::LostRestart),
    ("get", Trigger::Way("GET", "/metamcp/all/mcp")),
    ("health", Trigger::Way("GET", "/health")),
    ("journal", Trigger::Restart),
    ("log", Trigger::Time),
    ("metrics", Trigger::Way("GET", "/metrics")),
    ("metrics-upkeep", Trigger::Time),
    ("namespace", Trigger::Creation),
    ("namespace-begins", Trigger::Group),
    ("namespace-change", Trigger::Edit),
    ("namespace-first", Trigger::FirstList),
    ("namespace-publish", Trigger::Member),
    ("namespace-resolve", Trigger::UnknownTool),
    ("older-get", Trigger::Way("GET", "/metamcp/all/sse")),
    ("older-post", Trigger::Way("POST", "/metamcp/all/message?sessionId=none")),
    ("operator", Trigger::Order),
    ("order", Trigger::Order),
    ("post", Trigger::Way("POST", "/metamcp/all/mcp")),
    ("process", Trigger::OwnProcess),
    ("ready", Trigger::Way("GET", "/ready")),
    ("request", Trigger::Request),
    ("sessions", Trigger::Time),
    ("signals", Trigger::Hangup),
    ("sink", Trigger::Warning),
    ("standing", Trigger::Listening),
    ("stderr", Trigger::Complaint),
    ("stdin", Trigger::Call),
    ("stdout", Trigger::Call),
    ("strays", Trigger::Time),
    ("stream", Trigger::Cut("/metamcp/all/sse")),
    ("token-issued", Trigger::Token),
    ("upstream", Trigger::Restart),
    ("upstream-begins", Trigger::Creation),
    ("upstream-change", Trigger::Edit),
    ("upstream-end", Trigger::Restart),
    ("upstream-news", Trigger::Restart),
    ("upstream-rest", Trigger::Rest),
    ("upstream-restart", Trigger::Restart),
    ("upstream-start", Trigger::Creation),
    ("upstream-stop", Trigger::Deletion),
    ("upstream-time", Trigger::Restart),
    ("upstream-wanted", Trigger::Waking),
    ("watch", Trigger::Cut("/api/v1/events")),
    ("worker", Trigger::Restart),
];

impl Stage {
    pub async fn trigger(&mut self, trigger: Trigger) -> Outcome<()> {
        match trigger {
            Trigger::Time | Trigger::Stop => {}
            Trigger::Request => {
                let refused = self.admin.get("mcp-servers").await;
                let said = refused.err().map(|problem| problem.to_string()).unwrap_or_default();
                if !said.contains("500") || !said.contains("internal") {
                    return Err(format!("a request that panics was answered by {said:?}").into());
                }
            }
            Trigger::Way(method, path) => {
                let key = if path == "/metrics" { ADMIN_KEY } else { &self.key };
                let mut way = Connection::new(self.daemon.port);
                let method = Method::from_bytes(method.as_bytes())?;
                let answer = way.send(method, path, &headers(key)?, Bytes::new()).await?;
                if answer.status != StatusCode::INTERNAL_SERVER_ERROR {
                    return Err(format!("a panic was answered by {}", answer.status).into());
                }
            }
            Trigger::Connection => {
                let mut fresh = Connection::new(self.daemon.port);
                let named = headers(&self.key)?;
                fresh.send(Method::GET, "/health", &named, Bytes::new()).await?;
            }
            Trigger::Cut(path) => self.cut(path).await?,
            Trigger::Change => {
                let name = format!("group{}", self.number());
                let changed = self.admin.create("namespaces", json!({"name": name})).await;
                if changed.is_ok() {
                    return Err("a change whose maker panicked was confirmed".into());
                }
                self.admin.get(&format!("namespaces/{name}")).await?;
            }
            Trigger::Restart => {
                self.admin.ask(Method::POST, "mcp-servers/evil/restart", None).await?;
            }
            Trigger::LostRestart => {
                let lost = self.admin.ask(Method::POST, "mcp-servers/evil/restart", None).await;
                if lost.is_ok() {
                    return Err("a restart that was lost was confirmed".into());
                }
            }
            Trigger::Edit => {
                // Something that its supervisor is told.
                let rests = json!({"idle_stop_ms": 3_600_000 + self.number()});
                self.admin.change("mcp-servers/evil", rests).await?;
                let described = json!({"description": "another"});
                self.admin.change("namespaces/all", described).await?;
            }
            Trigger::Creation => self.another("stdio").await.map(drop)?,
            Trigger::Token => self.renewed_token().await?,
            Trigger::Deletion => {
                let name = self.another("stdio").await?;
                let path = format!("mcp-servers/{name}");
                self.admin.ask(Method::DELETE, &path, None).await?;
            }
            Trigger::Rest | Trigger::Waking => {
                self.admin
                    .until("sleeper", SOON, |one| one["runtime"]["reason"] == "idle")
                    .await
                    .map(drop)?;
                self.call("all", "sleeper__echo").await?;
            }
            Trigger::Call => self.call("all", "evil__echo").await?,
            Trigger::Complaint => self.another("complains").await.map(drop)?,
            Trigger::Member => {
                let server = self.another("comes later").await?;
                let group = json!({"name": format!("of-{server}"), "servers": [server]});
                self.admin.create("namespaces", group).await?;
            }
            Trigger::Group => {
                let name = format!("group{}", self.number());
                self.admin.create("namespaces", json!({"name": name})).await?;
            }
            Trigger::FirstList => {
                let name = format!("late{}", self.number());
                let row =
                    json!({"name": name, "type": "STDIO", "command": "sleep", "args": ["1000"]});
                self.admin.create("mcp-servers", row).await?;
                self.admin.publish(&name, &[&name]).await?;
                let mut client = Client::connect(&self.daemon, &name, &self.key).await?;
                let listed = client.request("tools/list", &json!({})).await?;
                if !listed["result"]["tools"].is_array() {
                    return Err(format!("a list that had to wait was answered by {listed}").into());
                }
                let path = format!("mcp-servers/{name}");
                self.admin.ask(Method::DELETE, &path, None).await?;
            }
            Trigger::UnknownTool => self.call("all", "evil__none").await?,
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
            Trigger::Listening => {
                let mut client = Client::connect(&self.daemon, "all", &self.key).await?;
                let stream = Stream::open(&client, self.daemon.port, None).await?;
                let params = json!({"name": "far__echo", "arguments": {"nonce": "far"}});
                client.request("tools/call", &params).await?;
                self.listening.push((client, stream));
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
            Trigger::Warning => {
                let name = format!("open{}", self.number());
                let open = json!({"name": name, "namespace": "all", "enable_api_key_auth": false});
                self.admin.create("endpoints", open).await?;
            }
            Trigger::Hangup => {
                crate::rig::host::signal(self.daemon.pid(), rustix::process::Signal::HUP);
            }
        }
        Ok(())
    }

    fn number(&mut self) -> usize {
        self.others += 1;
        self.others
    }

    /// Makes another server; its name.
    async fn another(&mut self, kind: &str) -> Outcome<String> {
        let name = format!("other{}", self.number());
        let evil = self.evil.display();
        let script = match kind {
            "comes later" => format!("sleep 1; exec '{evil}' stdio"),
            "complains" => format!("echo alas >&2; exec '{evil}' stdio"),
            _ => format!("exec '{evil}' stdio"),
        };
        let row = json!({"name": name, "type": "STDIO", "command": "sh", "args": ["-c", script]});
        // Whether it is taken, the next look at it tells.
        drop(self.admin.create("mcp-servers", row).await);
        Ok(name)
    }

    /// A call that has to be answered, by whatever.
    async fn call(&mut self, endpoint: &str, tool: &str) -> Outcome<()> {
        let mut client = Client::connect(&self.daemon, endpoint, &self.key).await?;
        let params = json!({"name": tool, "arguments": {"nonce": "called"}});
        let answer = client.request("tools/call", &params).await?;
        match answer["result"].is_object() || answer["error"].is_object() {
            true => Ok(()),
            false => Err(format!("no answer to a call: {answer}").into()),
        }
    }

    /// A server with an OAuth session that has no access token yet.
    async fn renewed_token(&mut self) -> Outcome<()> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}/token", listener.local_addr()?);
        tokio::spawn(issue_tokens(listener));
        let name = format!("tokens{}", self.number());
        let row = json!({"name": name, "type": "STREAMABLE_HTTP", "url": self.far.url(), "enabled": false});
        self.admin.create("mcp-servers", row).await?;
        let session =
            json!({"token_endpoint": endpoint, "client_id": "bars", "refresh_token": "first"});
        let path = format!("mcp-servers/{name}/oauth-session");
        self.admin.ask(Method::PUT, &path, Some(session)).await?;
        self.admin.change(&format!("mcp-servers/{name}"), json!({"enabled": true})).await.map(drop)
    }

    /// A stream that is cut at once, and is there the next time.
    async fn cut(&self, path: &str) -> Outcome<()> {
        let key = if path.starts_with("/api") { ADMIN_KEY } else { &self.key };
        let named = headers(key)?;
        let mut connection = Connection::new(self.daemon.port);
        let cut = async {
            let opened = connection.open(Method::GET, path, &named, Bytes::new()).await;
            match opened {
                Ok(opened) => opened.into_body().collect().await.is_err(),
                Err(_before_it_began) => true,
            }
        };
        if !tokio::time::timeout(SOON, cut).await? {
            return Err("a stream that panicked has ended as if all were said".into());
        }
        let mut again = Connection::new(self.daemon.port);
        let opened = again.open(Method::GET, path, &named, Bytes::new()).await?;
        match tokio::time::timeout(SOON, opened.into_body().frame()).await? {
            Some(Ok(_)) => Ok(()),
            other => Err(format!("no stream after a panic: {other:?}").into()),
        }
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

/// Whether whoever asked was told what had happened.
fn is_told(answer: &Value) -> Outcome<()> {
    match answer["error"]["data"]["reason"] == "panicked" {
        true => Ok(()),
        false => Err(format!("an answer where there was a panic: {answer}").into()),
    }
}

/// Answers every connection with a token.
async fn issue_tokens(listener: tokio::net::TcpListener) {
    const TOKEN: &str = r#"{"access_token":"a","token_type":"Bearer"}"#;
    while let Ok((mut stream, _)) = listener.accept().await {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            TOKEN.len()
        );
        let mut asked = [0; 4096];
        if stream.read(&mut asked).await.is_ok() {
            drop(stream.write_all(format!("{head}{TOKEN}").as_bytes()).await);
        }
    }
}
