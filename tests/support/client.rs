//! A raw MCP client over Streamable HTTP. It shows bytes as they came, and can misbehave where a
//! test wants it to; the official SDKs have their own chapter.

use std::sync::atomic::{AtomicI64, Ordering};

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

use super::{SOON, events::EventStream};

/// The revision that a client asks for unless a test says otherwise.
pub const LATEST: &str = "2025-11-25";

/// One client, and its session once it has one.
#[derive(Debug)]
pub struct Client {
    pub http: reqwest::Client,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub session: Option<String>,
    /// What it declares in `initialize`.
    pub capabilities: Value,
    version: Option<String>,
    ids: AtomicI64,
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub struct Exchange {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub events: EventStream,
}

/// An answer that was read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The messages of the body in order, as text: one for JSON, any number for a stream.
    pub messages: Vec<String>,
}

impl Client {
    /// A client that has not said anything yet.
    pub fn new(url: &str, key: Option<&str>) -> Client {
        let headers = key.map(|key| ("authorization".to_owned(), format!("Bearer {key}")));
        Client {
            http: http(),
            url: url.to_owned(),
            headers: headers.into_iter().collect(),
            session: None,
            capabilities: json!({}),
            version: None,
            ids: AtomicI64::new(1),
        }
    }

    /// A client with a session.
    pub async fn connect(url: &str, key: Option<&str>) -> Client {
        let mut client = Client::new(url, key);
        let reply = client.initialize(LATEST).await;
        assert_eq!(reply.status, StatusCode::OK, "initialize: {reply:?}");
        client
    }

    /// A client with a session, that can be asked for these.
    pub async fn that_can(url: &str, key: &str, capabilities: Value) -> Client {
        let mut client = Client::new(url, Some(key));
        client.capabilities = capabilities;
        let reply = client.initialize(LATEST).await;
        assert_eq!(reply.status, StatusCode::OK, "initialize: {reply:?}");
        client
    }

    /// Shakes hands, and keeps the session id and the negotiated revision.
    pub async fn initialize(&mut self, version: &str) -> Reply {
        let hello = json!({"jsonrpc": "2.0", "id": self.next_id(), "method": "initialize", "params": {
            "protocolVersion": version, "capabilities": self.capabilities, "clientInfo": {"name": "suite", "version": "1"},
        }});
        let reply = self.post(&hello.to_string()).await;
        if reply.status.is_success() && reply.json()["result"].is_object() {
            self.session = reply.header("mcp-session-id");
            self.version = reply.json()["result"]["protocolVersion"].as_str().map(str::to_owned);
            let noted = self.notify("notifications/initialized", json!({})).await;
            assert_eq!(noted.status, StatusCode::ACCEPTED, "initialized: {noted:?}");
        }
        reply
    }

    /// Posts exactly these bytes and waits for the end of the answer.
    pub async fn post(&self, body: &str) -> Reply {
        let mut exchange = self.open(body).await;
        let events = exchange.events.rest().await;
        let messages = events.into_iter().map(|event| event.data).collect();
        Reply { status: exchange.status, headers: exchange.headers, messages }
    }

    /// Posts exactly these bytes and leaves the answer to be read.
    pub async fn open(&self, body: &str) -> Exchange {
        self.try_open(body).await.expect("the gateway answers")
    }

    /// The same where the gateway may hang up instead of answering.
    pub async fn try_open(&self, body: &str) -> Result<Exchange, reqwest::Error> {
        let request = self
            .request_to(Method::POST)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(body.to_owned());
        Ok(Exchange::of(request.send().await?))
    }

    /// Sends a request with a fresh id, and returns the response message that carries it.
    pub async fn request(&self, method: &str, params: Value) -> Value {
        let id = self.next_id();
        let reply = self.post(&request(json!(id), method, params)).await;
        reply.answer_to(&json!(id))
    }

    pub async fn notify(&self, method: &str, params: Value) -> Reply {
        self.post(&json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()).await
    }

    /// Calls a tool; the whole response message.
    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// Calls a tool that must succeed; the text of its first part.
    pub async fn text_of(&self, tool: &str, arguments: Value) -> String {
        let message = self.call(tool, arguments).await;
        let text = message["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("{tool} gave no text: {message}")).to_owned()
    }

    /// Calls a tool, and answers what it is asked meanwhile with what `answer` makes of the question:
    /// a whole `result` or `error` member. Its last word, and everything that came before it.
    pub async fn call_answering(
        &self,
        tool: &str,
        arguments: Value,
        answer: impl Fn(&Value) -> Value,
    ) -> (Value, Vec<Value>) {
        let id = json!(self.next_id());
        let mut exchange = self.open(&call(id.clone(), tool, arguments)).await;
        let mut heard = Vec::new();
        loop {
            let message = exchange.events.expect("the answer", SOON).await.json();
            if message.get("method").is_none() && message["id"] == id {
                return (message, heard);
            }
            if message.get("method").is_some() && message.get("id").is_some() {
                let mut response = answer(&message);
                response["jsonrpc"] = json!("2.0");
                response["id"] = message["id"].clone();
                let taken = self.post(&response.to_string()).await;
                assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
            }
            heard.push(message);
        }
    }

    /// The names of all tools, every page of them, in the order they were listed.
    pub async fn tools(&self) -> Vec<String> {
        let (mut names, mut cursor) = (Vec::new(), None);
        loop {
            let params = match &cursor {
                Some(cursor) => json!({"cursor": cursor}),
                None => json!({}),
            };
            let page = self.request("tools/list", params).await;
            let tools =
                page["result"]["tools"].as_array().unwrap_or_else(|| panic!("no tools: {page}"));
            names.extend(tools.iter().filter_map(|tool| tool["name"].as_str()).map(str::to_owned));
            match page["result"]["nextCursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return names,
            }
        }
    }

    /// Opens the session's standing stream.
    pub async fn listen(&self) -> Exchange {
        let request = self.request_to(Method::GET).header("accept", "text/event-stream");
        Exchange::of(request.send().await.expect("the gateway answers"))
    }

    /// Asks for what came after an event, on the stream of that event.
    pub async fn listen_after(&self, event: &str) -> Exchange {
        let request = self.request_to(Method::GET).header("accept", "text/event-stream");
        let request = request.header("last-event-id", event);
        Exchange::of(request.send().await.expect("the gateway answers"))
    }

    /// The same client, in the same session, elsewhere.
    pub fn at(&self, url: &str) -> Client {
        let mut moved = Client::new(url, None);
        moved.headers = self.headers.clone();
        moved.session = self.session.clone();
        moved
    }

    /// The same client before it has said anything.
    pub fn again(&self) -> Client {
        let mut again = Client::new(&self.url, None);
        again.headers = self.headers.clone();
        again
    }

    /// Ends the session.
    pub async fn end(&self) -> StatusCode {
        self.request_to(Method::DELETE).send().await.expect("the gateway answers").status()
    }

    pub fn next_id(&self) -> i64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn request_to(&self, method: Method) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, &self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        if let Some(version) = &self.version {
            request = request.header("mcp-protocol-version", version);
        }
        request
    }
}

impl Exchange {
    fn of(response: reqwest::Response) -> Exchange {
        Exchange {
            status: response.status(),
            headers: response.headers().clone(),
            events: EventStream::of(response),
        }
    }
}

impl Reply {
    /// The only message of the body.
    pub fn json(&self) -> Value {
        let text = self.messages.first().map_or("null", String::as_str);
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The response to the request with this id, wherever in the body it stands.
    pub fn answer_to(&self, id: &Value) -> Value {
        self.messages
            .iter()
            .filter_map(|text| serde_json::from_str::<Value>(text).ok())
            .find(|message| message.get("method").is_none() && message.get("id") == Some(id))
            .unwrap_or_else(|| panic!("no response with id {id}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    /// Status and body, for comparing two answers that nobody may tell apart.
    pub fn face(&self) -> (StatusCode, Vec<String>) {
        (self.status, self.messages.clone())
    }
}

/// A request as text.
pub fn request(id: Value, method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

/// A `tools/call` as text.
pub fn call(id: Value, tool: &str, arguments: Value) -> String {
    request(id, "tools/call", json!({"name": tool, "arguments": arguments}))
}

/// An HTTP client that goes straight to loopback, whatever the environment says about proxies.
pub fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("an HTTP client")
}
