//! What an operator does by the admin API, in the words of the chapters.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN_KEY, Client, SOON, SseClient, TestGateway, events::EventStream, wait_until};

impl TestGateway {
    /// One request of the admin API as the operator; an empty or foreign body reads as `Null`.
    pub async fn admin(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        self.admin_as(Some(ADMIN_KEY), method, path, body).await
    }

    /// One request of the admin API with another key, or with none.
    pub async fn admin_as(
        &self,
        key: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = self.http.request(method, format!("{}/api/v1/{path}", self.base));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.expect("the gateway answers");
        let status = response.status();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.admin(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "GET {path}: {body}");
        body
    }

    /// The sum of a metric over its labels; nothing while it was never counted.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let request = self.http.get(format!("{}/metrics", self.base)).bearer_auth(ADMIN_KEY);
        let text = request.send().await.expect("an answer").text().await.expect("a body");
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        // `name` may have its labels with it.
        let of_it = lines.filter(|rest| rest.starts_with([' ', '{']));
        let values = of_it.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
        values.reduce(|sum, value| sum + value)
    }

    /// The items of a list.
    pub async fn items(&self, path: &str) -> Vec<Value> {
        let body = self.get(path).await;
        body["items"].as_array().unwrap_or_else(|| panic!("no items in {path}: {body}")).clone()
    }

    pub async fn create(&self, path: &str, body: Value) -> Value {
        let (status, row) = self.admin(Method::POST, path, Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "POST {path}: {row}");
        row
    }

    pub async fn change(&self, path: &str, body: Value) -> Value {
        let (status, row) = self.admin(Method::PATCH, path, Some(body)).await;
        assert_eq!(status, StatusCode::OK, "PATCH {path}: {row}");
        row
    }

    pub async fn replace(&self, path: &str, body: Value) -> Value {
        let (status, row) = self.admin(Method::PUT, path, Some(body)).await;
        assert_eq!(status, StatusCode::OK, "PUT {path}: {row}");
        row
    }

    pub async fn remove(&self, path: &str) {
        let (status, body) = self.admin(Method::DELETE, path, None).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "DELETE {path}: {body}");
    }

    /// Makes a STDIO upstream.
    pub async fn stdio(&self, name: &str, command: &[String]) -> Value {
        let (program, args) = command.split_first().expect("a program");
        self.create(
            "mcp-servers",
            json!({"name": name, "type": "STDIO", "command": program, "args": args}),
        )
        .await
    }

    /// Makes the upstream that the binary itself brings along.
    pub async fn demo(&self, name: &str) -> Value {
        self.stdio(name, &["metamcpd".to_owned(), "demo-upstream".to_owned()]).await
    }

    /// Makes a Streamable HTTP upstream.
    pub async fn remote(&self, name: &str, url: &str) -> Value {
        self.create("mcp-servers", json!({"name": name, "type": "STREAMABLE_HTTP", "url": url}))
            .await
    }

    /// Makes a namespace with these upstreams, and an endpoint of the same name.
    pub async fn publish(&self, name: &str, servers: &[&str]) {
        self.create("namespaces", json!({"name": name, "servers": servers})).await;
        self.create("endpoints", json!({"name": name, "namespace": name})).await;
    }

    /// Makes a public API key; its value.
    pub async fn key(&self, name: &str) -> String {
        let row = self.create("api-keys", json!({"name": name})).await;
        row["key"].as_str().unwrap_or_else(|| panic!("no key: {row}")).to_owned()
    }

    /// An upstream as the operator sees it.
    pub async fn server(&self, name: &str) -> Value {
        self.get(&format!("mcp-servers/{name}")).await
    }

    /// Waits until an upstream looks as wanted.
    pub async fn server_until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        self.server_within(SOON, name, what, wanted).await
    }

    pub async fn server_within(
        &self,
        patience: Duration,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let what = format!("{name} to be {what}");
        wait_until(&what, patience, async || Some(self.server(name).await).filter(&wanted)).await
    }

    /// Waits until an upstream is READY.
    pub async fn ready(&self, name: &str) -> Value {
        self.server_until(name, "READY", |server| server["runtime"]["state"] == "READY").await
    }

    /// The process id of an upstream that is READY.
    pub async fn server_pid(&self, name: &str) -> u32 {
        let server = self.ready(name).await;
        let pid = server["runtime"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.unwrap_or_else(|| panic!("no pid: {server}"))
    }

    /// Every transition of an upstream, oldest first.
    pub async fn history(&self, name: &str) -> Vec<Value> {
        let mut items = self.items(&format!("mcp-servers/{name}/history?limit=200")).await;
        items.reverse();
        items
    }

    /// The stream of transitions as they happen.
    pub async fn events(&self) -> EventStream {
        let request = self.http.get(format!("{}/api/v1/events", self.base)).bearer_auth(ADMIN_KEY);
        let response = request.send().await.expect("the gateway answers");
        assert_eq!(response.status(), StatusCode::OK);
        EventStream::of(response)
    }

    /// A client with a session on an endpoint.
    pub async fn client(&self, endpoint: &str, key: &str) -> Client {
        Client::connect(&self.endpoint_url(endpoint), Some(key)).await
    }

    pub async fn sse_client(&self, endpoint: &str, key: &str) -> SseClient {
        SseClient::connect(&self.sse_url(endpoint), Some(key)).await
    }

    /// Upstreams, an endpoint named `all` over them, a key, and a client with a session, once every
    /// upstream is READY.
    pub async fn client_of(&self, servers: &[&str]) -> Client {
        self.publish("all", servers).await;
        for server in servers {
            self.ready(server).await;
        }
        let key = self.key("suite").await;
        self.client("all", &key).await
    }
}
