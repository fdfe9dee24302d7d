//! Tasks of the upstream inside the test, which are its own and not of any session: they outlive the
//! daemon in front of it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

const RELATED: &str = "io.modelcontextprotocol/related-task";

/// The tasks by their ids, and whether each is over.
#[derive(Debug, Default)]
pub struct RemoteTasks(Mutex<BTreeMap<String, bool>>);

impl RemoteTasks {
    /// All that are under way are over.
    pub fn finish(&self) {
        self.lock().values_mut().for_each(|is_over| *is_over = true);
    }

    /// None of them is known any more.
    pub fn lose(&self) {
        self.lock().clear();
    }

    /// Adds a tool that has to be called as a task to an answer that lists tools.
    pub fn join(&self, mut answer: Value) -> Value {
        if let Some(tools) = answer.pointer_mut("/result/tools").and_then(Value::as_array_mut) {
            tools.push(json!({
                "name": "must", "inputSchema": {"type": "object"},
                "execution": {"taskSupport": "required"},
            }));
        }
        answer
    }

    /// The answer to what has to do with tasks; `None` for what has not.
    pub async fn answer(&self, message: &Value) -> Option<Value> {
        let params = &message["params"];
        let id = params["taskId"].as_str().unwrap_or_default();
        let outcome = match message["method"].as_str().unwrap_or_default() {
            "tools/call" if params["task"].is_object() => {
                let mut tasks = self.lock();
                let id = format!("remote-{}", tasks.len() + 1);
                tasks.insert(id.clone(), false);
                drop(tasks);
                ("result", json!({"task": self.describe(&id)?}))
            }
            "tasks/get" | "tasks/result" if self.describe(id).is_none() => {
                ("error", json!({"code": -32602, "message": "no such task"}))
            }
            "tasks/get" => ("result", self.describe(id)?),
            "tasks/result" => {
                while self.lock().get(id) == Some(&false) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let content = json!([{"type": "text", "text": format!("the outcome of {id}")}]);
                let meta = json!({RELATED: {"taskId": id}});
                ("result", json!({"content": content, "_meta": meta}))
            }
            _ => return None,
        };
        Some(json!({"jsonrpc": "2.0", "id": message["id"], outcome.0: outcome.1}))
    }

    fn describe(&self, id: &str) -> Option<Value> {
        let status = if *self.lock().get(id)? { "completed" } else { "working" };
        let at = "2025-11-25T10:30:00Z";
        Some(json!({
            "taskId": id, "status": status, "ttl": null, "pollInterval": 50,
            "createdAt": at, "lastUpdatedAt": at,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
