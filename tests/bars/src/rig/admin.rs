//! What an operator does by the admin API, in the words of the bars.

use std::time::Duration;

use evil_mcp::Character;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{
    SOON,
    daemon::ADMIN_KEY,
    http::{Connection, headers},
    until,
};
use crate::{Outcome, Plan};

/// The operator of a daemon.
#[derive(Debug)]
pub struct Admin {
    connection: Connection,
    headers: HeaderMap,
}

impl Admin {
    pub fn new(port: u16) -> Outcome<Admin> {
        Ok(Admin { connection: Connection::new(port), headers: headers(ADMIN_KEY)? })
    }

    /// One request; anything but success is an error.
    pub async fn ask(&mut self, method: Method, path: &str, body: Option<Value>) -> Outcome<Value> {
        let (url, asked) = (format!("/api/v1/{path}"), method.clone());
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let answer = self.connection.send(method, &url, &self.headers, body.into()).await?;
        let text = String::from_utf8_lossy(&answer.body);
        if !answer.status.is_success() {
            return Err(format!("{asked} {path}: {} {text}", answer.status).into());
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn get(&mut self, path: &str) -> Outcome<Value> {
        self.ask(Method::GET, path, None).await
    }

    pub async fn create(&mut self, path: &str, body: Value) -> Outcome<Value> {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub async fn change(&mut self, path: &str, body: Value) -> Outcome<Value> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    /// Makes a STDIO server of this character.
    pub async fn stdio(&mut self, plan: &Plan, name: &str, character: &Character) -> Outcome<()> {
        let mut args = vec!["stdio".to_owned()];
        args.extend(character.words());
        let row = json!({"name": name, "type": "STDIO", "command": plan.evil, "args": args});
        self.create("mcp-servers", row).await.map(drop)
    }

    /// Makes a Streamable HTTP server.
    pub async fn remote(&mut self, name: &str, url: &str) -> Outcome<()> {
        let row = json!({"name": name, "type": "STREAMABLE_HTTP", "url": url});
        self.create("mcp-servers", row).await.map(drop)
    }

    /// Makes a namespace with these servers, and an endpoint of the same name.
    pub async fn publish(&mut self, name: &str, servers: &[&str]) -> Outcome<()> {
        self.create("namespaces", json!({"name": name, "servers": servers})).await?;
        self.create("endpoints", json!({"name": name, "namespace": name})).await?;
        Ok(())
    }

    /// Makes a key for clients; its value.
    pub async fn key(&mut self, name: &str) -> Outcome<String> {
        let row = self.create("api-keys", json!({"name": name})).await?;
        Ok(row["key"].as_str().ok_or("no key")?.to_owned())
    }

    /// A server as the operator sees it.
    pub async fn server(&mut self, name: &str) -> Outcome<Value> {
        self.get(&format!("mcp-servers/{name}")).await
    }

    /// Waits until a server is as wanted.
    pub async fn until(
        &mut self,
        name: &str,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Outcome<Value> {
        let mut last = Value::Null;
        let asked = until("a state", patience, async || {
            last = self.server(name).await?;
            Ok(wanted(&last).then(|| last.clone()))
        })
        .await;
        asked.map_err(|problem| format!("{name}: {problem}; it is {}", last["runtime"]).into())
    }

    pub async fn until_ready(&mut self, name: &str) -> Outcome<Value> {
        self.until(name, SOON, |server| server["runtime"]["state"] == "READY").await
    }

    /// The process id of a server that is READY.
    pub async fn pid_of(&mut self, name: &str) -> Outcome<u32> {
        let server = self.until_ready(name).await?;
        let pid = server["runtime"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.ok_or_else(|| format!("{name} has no process").into())
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&mut self, name: &str) -> Outcome<f64> {
        let answer = self
            .connection
            .send(Method::GET, "/metrics", &self.headers, Default::default())
            .await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        let of_it = lines.filter(|rest| rest.starts_with([' ', '{']));
        Ok(of_it.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}
