//! Calls while something else goes on: measured ones at an even pace, and ones that only weigh.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use evil_mcp::history::written;
use futures_util::future::try_join_all;
use http::Method;
use serde_json::{Value, json};

use super::{Client, Reply, client::request};
use crate::Outcome;

/// Calls `echo` by each client at this pace, and takes the time of every call; each has to be right.
pub async fn paced(
    clients: &mut [Client],
    tool: &str,
    every: Duration,
    lasts: Duration,
) -> Outcome<Vec<Duration>> {
    let began = Instant::now();
    let runs = clients.iter_mut().zip(0_u64..).map(async |(client, number)| {
        let mut times = Vec::new();
        for tick in 0_u32.. {
            let due = every * tick;
            if due > lasts {
                break;
            }
            tokio::time::sleep_until((began + due).into()).await;
            let nonce = written(number << 32 | u64::from(tick));
            let called = Instant::now();
            let reply = client.call(tool, &json!({"nonce": nonce})).await?;
            times.push(called.elapsed());
            if reply != Reply::Text(nonce) {
                return Err(format!("a wrong answer of a healthy server: {reply:?}").into());
            }
        }
        Outcome::Ok(times)
    });
    Ok(try_join_all(runs).await?.into_iter().flatten().collect())
}

/// Calls that nobody measures, by threads of their own, until this is dropped.
#[derive(Debug)]
pub struct Weight {
    over: Arc<AtomicBool>,
}

impl Weight {
    /// Has each client call a tool again as soon as it is answered, but not more often than `every`.
    pub fn begin(clients: Vec<Client>, tool: &str, arguments: &Value, every: Duration) -> Weight {
        let over = Arc::new(AtomicBool::new(false));
        let params = json!({"name": tool, "arguments": arguments});
        for mut client in clients {
            let (over, params) = (Arc::clone(&over), params.clone());
            // A connection belongs to the runtime that made it.
            client.connection.close();
            thread::spawn(move || -> Outcome<()> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(press(client, &params, every, &over))
            });
        }
        Weight { over }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

async fn press(
    mut client: Client,
    params: &Value,
    every: Duration,
    over: &AtomicBool,
) -> Outcome<()> {
    for id in 1_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let next = Instant::now() + every;
        let body = request(id, "tools/call", params);
        let (path, headers) = (client.path.clone(), client.headers.clone());
        // The answer is as may be.
        drop(client.connection.send(Method::POST, &path, &headers, body).await);
        tokio::time::sleep_until(next.into()).await;
    }
    Ok(())
}
