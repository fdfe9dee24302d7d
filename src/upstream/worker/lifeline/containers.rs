//! Servers that run in containers.
//!
//! `docker run` is only a client: when it is killed, the container goes on, since it is another daemon's
//! child. So each gets labels that say whose it is, and when its client has ended, or an earlier run of
//! the daemon has left some, what carries the label is ended by the same client. Nothing else of the
//! command is changed.

use std::{
    collections::BTreeMap,
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::upstream::runners::container_run;

/// Carried by every container of a data directory.
const INSTANCE_LABEL: &str = "metamcpd.instance";

/// Carried by the container of one start.
const START_LABEL: &str = "metamcpd.start";

/// How long one question to the other daemon may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container whose client was killed may come into being a moment later.
const PAUSE: Duration = Duration::from_millis(200);
const LOOKS_MAX: usize = 5;

/// How the containers of a label are found and ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Container {
    /// The program that started it.
    pub client: String,
    /// What stands before the word `run`: to which daemon the client speaks.
    pub options: Vec<String>,
    /// `KEY=VALUE`.
    pub label: String,
    /// Whether it is removed when it ends (`--rm`), even where it never began.
    pub is_removed: bool,
}

/// The arguments of a command that runs a container, with our labels, and how it is ended. `None` for
/// any other command.
pub fn labelled(
    program: &str,
    args: &[String],
    instance: &str,
    start: &str,
) -> Option<(Vec<String>, Container)> {
    let run = container_run(program, args)?;
    let label = format!("{START_LABEL}={start}");
    let ours = ["--label", &format!("{INSTANCE_LABEL}={instance}"), "--label", &label];
    let mut labelled = args.to_vec();
    labelled.splice(run + 1..run + 1, ours.map(str::to_owned));
    Some((labelled, Container { label, ..container(program, args, run) }))
}

/// How whatever an earlier run of the daemon has left is ended, by the client of this command.
pub fn left_by(program: &str, args: &[String], instance: &str) -> Option<Container> {
    let run = container_run(program, args)?;
    let label = format!("{INSTANCE_LABEL}={instance}");
    Some(Container { label, ..container(program, args, run) })
}

fn container(program: &str, args: &[String], run: usize) -> Container {
    let options = args[..run].iter().filter(|arg| *arg != "container");
    Container {
        client: program.to_owned(),
        options: options.cloned().collect(),
        label: String::new(),
        is_removed: args.iter().any(|arg| arg == "--rm" || arg == "--rm=true"),
    }
}

/// Ends every container that carries the label, and returns how many there were. Blocks, as long as the
/// other daemon takes, within limits. `environment` is the client's; ours if `None`.
pub fn end(container: &Container, environment: Option<&BTreeMap<String, String>>) -> usize {
    let filter = format!("label={}", container.label);
    // One that was made and never begun is not running, and is still in the way.
    let all: &[&str] = if container.is_removed { &["--all"] } else { &[] };
    let ask = [&["ps", "--quiet", "--no-trunc", "--filter", &filter], all].concat();
    let order: &[&str] = if container.is_removed { &["rm", "--force"] } else { &["kill"] };
    let (mut ended, mut clean_looks) = (0, 0);
    for _ in 0..LOOKS_MAX {
        let Some(told) = run(container, &ask, environment) else { return ended };
        let ids: Vec<&str> = told.lines().map(str::trim).filter(|id| is_id(id)).collect();
        clean_looks = if ids.is_empty() { clean_looks + 1 } else { 0 };
        if clean_looks == 2 {
            break;
        }
        ended += ids.len();
        if !ids.is_empty() && run(container, &[order, &ids].concat(), environment).is_none() {
            return ended;
        }
        thread::sleep(PAUSE);
    }
    ended
}

fn is_id(text: &str) -> bool {
    text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What the client says. `None` where it cannot be asked, or takes too long.
fn run(
    container: &Container,
    args: &[&str],
    environment: Option<&BTreeMap<String, String>>,
) -> Option<String> {
    let mut command = Command::new(&container.client);
    command.args(&container.options).args(args);
    if let Some(environment) = environment {
        command.env_clear().envs(environment);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut client = command.spawn().ok()?;
    let began = Instant::now();
    while client.try_wait().ok()?.is_none() {
        if began.elapsed() > PATIENCE {
            // What cannot be ended is ended by the next start's sweep.
            let _ = client.kill();
            let _ = client.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let mut told = String::new();
    client.stdout.take()?.read_to_string(&mut told).ok()?;
    Some(told)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn args(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_container_gets_labels_behind_the_word_run_and_nothing_else_is_changed() {
        let line = args("--context far container run -i --rm image run");
        let (labelled, container) = labelled("/bin/docker", &line, "i", "u/1").unwrap();
        let expected = "--context far container run --label metamcpd.instance=i \
                        --label metamcpd.start=u/1 -i --rm image run";
        assert_eq!(labelled, args(expected));
        assert_eq!(container.options, args("--context far"));
        assert_eq!((&*container.client, &*container.label), ("/bin/docker", "metamcpd.start=u/1"));
        assert!(container.is_removed);
    }

    #[test]
    fn what_runs_no_container_is_left_alone() {
        for (program, line) in [("docker", "exec x y"), ("npx", "run"), ("docker", "")] {
            assert_eq!(super::labelled(program, &args(line), "i", "u/1"), None);
            assert_eq!(left_by(program, &args(line), "i"), None);
        }
    }
}
