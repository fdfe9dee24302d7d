//! A server over HTTP that can be killed: a process, behind a network that fails.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use evil_mcp::{
    Character,
    proxy::{Proxy, Schedule},
};

use crate::{Outcome, Plan};

/// A server and the network before it. Both end when this is dropped.
#[derive(Debug)]
pub struct Remote {
    evil: PathBuf,
    character: Character,
    process: Child,
    pub network: Proxy,
}

impl Remote {
    pub fn start(plan: &Plan, character: Character, schedule: Schedule) -> Outcome<Remote> {
        let (process, address) = begin(&plan.evil, &character)?;
        let network = Proxy::start(address, schedule)?;
        Ok(Remote { evil: plan.evil.clone(), character, process, network })
    }

    /// Where the daemon is to find it.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.network.address())
    }

    /// Kills it, and starts another in its place.
    pub fn kill9(&mut self) -> Outcome<()> {
        self.end()?;
        let (process, address) = begin(&self.evil, &self.character)?;
        self.process = process;
        self.network.aim(address);
        Ok(())
    }

    fn end(&mut self) -> Outcome<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

fn begin(evil: &PathBuf, character: &Character) -> Outcome<(Child, SocketAddr)> {
    let mut process = Command::new(evil)
        .arg("http")
        .args(character.words())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = process.stdout.take().ok_or("the server has no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let address = line.trim().strip_prefix("http://").and_then(|url| url.strip_suffix("/mcp"));
    Ok((process, address.ok_or("the server did not start")?.parse()?))
}

impl Drop for Remote {
    fn drop(&mut self) {
        drop(self.end());
    }
}
