//! A raw MCP client over the two-endpoint transport: one stream that carries every message from the
//! gateway, and a message endpoint that takes what the client says.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::{SOON, client, events::EventStream};

#[derive(Debug)]
pub struct SseClient {
    http: reqwest::Client,
    key: Option<String>,
    /// Where messages go, as the gateway announced it, made absolute.
    pub message_url: String,
    stream: Mutex<EventStream>,
}

impl SseClient {
    /// Opens the stream, reads where messages go, and shakes hands.
    pub async fn connect(url: &str, key: Option<&str>) -> SseClient {
        SseClient::introduced(url, key, json!({})).await
    }

    /// The same, and it can be asked for these.
    pub async fn that_can(url: &str, key: &str, capabilities: Value) -> SseClient {
        SseClient::introduced(url, Some(key), capabilities).await
    }

    async fn introduced(url: &str, key: Option<&str>, capabilities: Value) -> SseClient {
        let client = SseClient::open(url, key).await;
        let answer = client
            .request(
                json!(0),
                "initialize",
                json!({
                    "protocolVersion": "2024-11-05", "capabilities": capabilities,
                    "clientInfo": {"name": "suite", "version": "1"},
                }),
            )
            .await;
        assert_eq!(answer["result"]["protocolVersion"], "2024-11-05", "{answer}");
        let noted = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(client.post(&noted.to_string()).await, StatusCode::ACCEPTED);
        client
    }

    /// Opens the stream only.
    pub async fn open(url: &str, key: Option<&str>) -> SseClient {
        let http = client::http();
        let mut request = http.get(url).header("accept", "text/event-stream");
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.expect("the gateway answers");
        assert_eq!(response.status(), StatusCode::OK);
        let mut stream = EventStream::of(response);
        let first = stream.expect("the endpoint event", SOON).await;
        assert_eq!(first.event.as_deref(), Some("endpoint"), "{first:?}");
        let base = url::Url::parse(url).expect("a URL");
        let message_url = base.join(&first.data).expect("a relative URL").to_string();
        SseClient { http, key: key.map(str::to_owned), message_url, stream: Mutex::new(stream) }
    }

    /// Posts exactly these bytes; the answer comes on the stream.
    pub async fn post(&self, body: &str) -> StatusCode {
        let mut request =
            self.http.post(&self.message_url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        request.body(body.to_owned()).send().await.expect("the gateway answers").status()
    }

    /// Sends a request and waits on the stream for its response.
    pub async fn request(&self, id: Value, method: &str, params: Value) -> Value {
        let status = self.post(&client::request(id.clone(), method, params)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{method}");
        self.heard("the response", |message| message.get("method").is_none() && message["id"] == id)
            .await
    }

    /// The first message on the stream that satisfies `wanted`; the ones before it are passed over.
    pub async fn heard(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.stream.lock().await.find(what, SOON, wanted).await
    }

    /// The stream, for who wants to see what comes piece by piece.
    pub async fn stream(&self) -> MutexGuard<'_, EventStream> {
        self.stream.lock().await
    }

    pub async fn tools(&self) -> Vec<String> {
        let page = self.request(json!("list"), "tools/list", json!({})).await;
        let tools =
            page["result"]["tools"].as_array().unwrap_or_else(|| panic!("no tools: {page}"));
        tools.iter().filter_map(|tool| tool["name"].as_str()).map(str::to_owned).collect()
    }

    pub async fn call(&self, id: Value, tool: &str, arguments: Value) -> Value {
        self.request(id, "tools/call", json!({"name": tool, "arguments": arguments})).await
    }
}
