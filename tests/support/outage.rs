//! A database that is away for a while: another process holds SQLite's write lock, or PostgreSQL
//! lets nobody in.

use std::process::{Child, Command, Stdio};

use super::{SOON, TestGateway, wait_until};

/// Takes SQLite's write lock, says so by making a file, and waits for another file to appear.
const HOLD: &str = "import os, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute('begin immediate')
open(sys.argv[2], 'w').close()
while not os.path.exists(sys.argv[3]): time.sleep(0.02)";

/// The process that holds the lock. A test that fails meanwhile is not to leave it behind.
#[derive(Debug)]
pub struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.kill().and_then(|()| self.0.wait()));
    }
}

#[derive(Debug)]
pub enum Outage {
    Locked { holder: Holder, unlock: std::path::PathBuf },
    ShutOut { url: String },
}

impl Outage {
    /// Takes the gateway's database away.
    pub async fn begin(gateway: &TestGateway) -> Outage {
        if let Some(url) = gateway.database_url() {
            let name = database_name(url);
            psql(url, &format!("alter database {name} with allow_connections false"));
            psql(
                url,
                &format!(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
                ),
            );
            return Outage::ShutOut { url: url.to_owned() };
        }
        let (locked, unlock) = (gateway.scratch().join("locked"), gateway.scratch().join("unlock"));
        let holder = Command::new("python3")
            .args(["-c", HOLD])
            .arg(gateway.data_dir().join("metamcpd.db"))
            .args([&locked, &unlock])
            .spawn()
            .expect("python3");
        let holder = Holder(holder);
        wait_until("the lock", SOON * 2, async || locked.exists().then_some(())).await;
        Outage::Locked { holder, unlock }
    }

    /// Gives it back.
    pub async fn end(self) {
        match self {
            Outage::Locked { mut holder, unlock } => {
                std::fs::write(&unlock, "").expect("the file");
                wait_until("the lock to be gone", SOON, async || {
                    holder.0.try_wait().ok().flatten()
                })
                .await;
            }
            Outage::ShutOut { url } => {
                psql(
                    &url,
                    &format!("alter database {} with allow_connections true", database_name(&url)),
                );
            }
        }
    }
}

fn database_name(url: &str) -> String {
    url::Url::parse(url).expect("a URL").path().trim_start_matches('/').to_owned()
}

/// Says something to the cluster by way of the database that is always there.
fn psql(url: &str, statement: &str) {
    let mut neighbour = url::Url::parse(url).expect("a URL");
    neighbour.set_path("/postgres");
    let done = Command::new("psql")
        .args([neighbour.as_str(), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement])
        .stdout(Stdio::null())
        .status();
    assert!(done.is_ok_and(|status| status.success()), "psql: {statement}");
}
