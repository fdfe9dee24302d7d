//! What bars have in common: a daemon of their own, its operator, its clients, its servers, the host.

pub mod admin;
pub mod beside;
pub mod client;
pub mod daemon;
pub mod host;
pub mod http;
pub mod load;
pub mod remote;
pub mod stats;
pub mod stream;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use evil_mcp::{Character, fault::Condition};

use crate::{Outcome, Plan};
pub use admin::Admin;
pub use client::{Client, Reply};
pub use daemon::Daemon;

/// Long enough for anything that has to happen at all.
pub const SOON: Duration = Duration::from_secs(30);

/// A namespace and an endpoint over these servers, and a key for it, once all of them are READY.
pub async fn publish(admin: &mut Admin, servers: &[String]) -> Outcome<String> {
    for server in servers {
        admin.until_ready(server).await?;
    }
    let names: Vec<&str> = servers.iter().map(String::as_str).collect();
    admin.publish("all", &names).await?;
    admin.key("bars").await
}

/// A daemon with one STDIO server of this character, named `evil`, published; and a client of it.
pub async fn with_one(
    plan: &Plan,
    settings: &str,
    character: &Character,
) -> Outcome<(Daemon, Admin, Client)> {
    let daemon = Daemon::start(plan, settings).await?;
    let mut admin = daemon.admin().await?;
    admin.stdio(plan, "evil", character).await?;
    let key = publish(&mut admin, &["evil".to_owned()]).await?;
    let client = Client::connect(&daemon, "all", &key).await?;
    Ok((daemon, admin, client))
}

/// A file in which a server notes its starts, and the condition by which it does.
#[derive(Clone, Debug)]
pub struct Starts(PathBuf);

impl Starts {
    pub fn new(daemon: &Daemon, name: &str) -> Starts {
        Starts(daemon.scratch().join(format!("{name}.starts")))
    }

    pub fn condition(&self) -> Condition {
        Condition::Starts(self.0.clone())
    }

    /// The process ids of all that were started, oldest first.
    pub fn pids(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// Asks again and again until there is an answer, but not for ever.
pub async fn until<T>(
    what: &str,
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Outcome<Option<T>>,
) -> Outcome<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if began.elapsed() > patience {
            return Err(format!("waited {patience:?} in vain for {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
