//! A client of an endpoint: one session of the legacy era, one request at a time.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::{
    Daemon,
    http::{Connection, headers},
};
use crate::Outcome;

const VERSION: &str = "2025-11-25";

/// A client with a session.
#[derive(Debug)]
pub struct Client {
    pub connection: Connection,
    pub headers: HeaderMap,
    pub path: String,
    next: u64,
}

/// What became of a call, as its client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A result with this text.
    Text(String),
    /// An error: the word for its reason, or else its code and message.
    Error(String),
}

impl Client {
    /// Begins a session on an endpoint.
    pub async fn connect(daemon: &Daemon, endpoint: &str, key: &str) -> Outcome<Client> {
        let mut client = Client {
            connection: Connection::new(daemon.port),
            headers: headers(key)?,
            path: format!("/metamcp/{endpoint}/mcp"),
            next: 1,
        };
        client.initialize().await?;
        Ok(client)
    }

    async fn initialize(&mut self) -> Outcome<()> {
        let hello = request(
            1,
            "initialize",
            &json!({
                "protocolVersion": VERSION, "capabilities": {},
                "clientInfo": {"name": "bars", "version": "1"},
            }),
        );
        let answer = self.connection.send(Method::POST, &self.path, &self.headers, hello).await?;
        let session = answer.headers.get("mcp-session-id").cloned();
        let session = session.ok_or_else(|| format!("no session: {}", answer.status))?;
        self.headers.insert(HeaderName::from_static("mcp-session-id"), session);
        let version = HeaderValue::from_static(VERSION);
        self.headers.insert(HeaderName::from_static("mcp-protocol-version"), version);
        let noted = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.post(noted.to_string().into()).await.map(drop)
    }

    /// Posts a message; the messages of the answer.
    pub async fn post(&mut self, body: Bytes) -> Outcome<Vec<Value>> {
        let answer = self.connection.send(Method::POST, &self.path, &self.headers, body).await?;
        let text = String::from_utf8_lossy(&answer.body);
        if !answer.status.is_success() {
            // An error of the protocol may come with a status of its own.
            return match serde_json::from_str::<Value>(&text) {
                Ok(message) if !message["error"].is_null() => Ok(vec![message]),
                _ => Err(format!("{} {text}", answer.status).into()),
            };
        }
        let kind = answer.headers.get("content-type").map(|kind| kind.as_bytes().to_vec());
        let is_stream = kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
        let messages = match is_stream {
            true => text.lines().filter_map(|line| line.strip_prefix("data:")).collect(),
            false => vec![text.as_ref()],
        };
        let said = messages.into_iter().filter(|message| !message.trim().is_empty());
        Ok(said.map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?)
    }

    /// Sends a request; every message that answers it, of which there should be one.
    pub async fn answers(&mut self, method: &str, params: &Value) -> Outcome<Vec<Value>> {
        let id = self.next;
        self.next += 1;
        let mut messages = self.post(request(id, method, params)).await?;
        messages.retain(|message| message["id"] == id && message.get("method").is_none());
        Ok(messages)
    }

    /// Sends a request; the message that answers it.
    pub async fn request(&mut self, method: &str, params: &Value) -> Outcome<Value> {
        let mut answers = self.answers(method, params).await?;
        match answers.len() {
            1 => Ok(answers.remove(0)),
            count => Err(format!("{count} answers to {method}").into()),
        }
    }

    /// Calls a tool; every reply to it.
    pub async fn calls(&mut self, tool: &str, arguments: &Value) -> Outcome<Vec<Reply>> {
        let params = json!({"name": tool, "arguments": arguments});
        let answers = self.answers("tools/call", &params).await?;
        Ok(answers.iter().map(Reply::of).collect())
    }

    /// Calls a tool; the only reply to it.
    pub async fn call(&mut self, tool: &str, arguments: &Value) -> Outcome<Reply> {
        let mut replies = self.calls(tool, arguments).await?;
        match replies.len() {
            1 => Ok(replies.remove(0)),
            count => Err(format!("{count} answers to a call of {tool}").into()),
        }
    }
}

impl Reply {
    pub fn of(message: &Value) -> Reply {
        let error = &message["error"];
        if error.is_null() {
            let text = message["result"]["content"][0]["text"].as_str();
            return Reply::Text(text.unwrap_or_default().to_owned());
        }
        let reason = error["data"]["reason"].as_str().map(str::to_owned);
        Reply::Error(reason.unwrap_or_else(|| format!("{} {}", error["code"], error["message"])))
    }

    /// Whether it is a result, and not this one.
    pub fn is_text_other_than(&self, other: &str) -> bool {
        matches!(self, Reply::Text(text) if text != other)
    }
}

pub fn request(id: u64, method: &str, params: &Value) -> Bytes {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string().into()
}
