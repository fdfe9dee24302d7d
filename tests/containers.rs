//! Servers in containers, which are another daemon's children: played by a program that only writes down
//! what is asked of it, and runs the server.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{SOON, TestGateway, gateway::binary, processes, wait_until};

/// Containers are files that hold the words they were run with, and `--rm` removes them when they end.
const DOCKER: &str = r#"#!/bin/sh
folder=$(dirname "$0")
echo "$*" >> "$folder/log"
order=$1
case $order in
run)
    id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    printf '%s\n' "$@" > "$folder/containers/$id"
    while [ "$1" != -- ]; do shift; done
    shift
    "$@"
    rm -f "$folder/containers/$id" ;;
ps)
    for word in "$@"; do case $word in label=*) label=${word#label=} ;; esac; done
    for file in "$folder"/containers/*; do
        [ -e "$file" ] && grep -qxF -- "$label" "$file" && basename "$file"
    done
    true ;;
rm | kill)
    for word in "$@"; do rm -f "$folder/containers/$word"; done ;;
esac
"#;

struct Yard {
    folder: PathBuf,
}

impl Yard {
    fn new(scratch: &Path) -> Yard {
        let folder = scratch.join("yard");
        std::fs::create_dir_all(folder.join("containers")).expect("a folder");
        let docker = folder.join("docker");
        std::fs::write(&docker, DOCKER).expect("a script");
        std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755))
            .expect("its mode");
        Yard { folder }
    }

    fn command(&self) -> Vec<String> {
        let docker = self.folder.join("docker").display().to_string();
        let own = binary().get_program().to_string_lossy().into_owned();
        let words = ["run", "-i", "--rm", "image", "--", &own, "demo-upstream"];
        [docker].into_iter().chain(words.map(str::to_owned)).collect()
    }

    /// The ids of those that run.
    fn containers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.join("containers")).expect("the folder");
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// What a container was run with.
    fn words(&self, id: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("containers").join(id));
        text.expect("the container").lines().map(str::to_owned).collect()
    }

    async fn is_empty(&self) {
        wait_until("every container to end", SOON, async || {
            self.containers().is_empty().then_some(())
        })
        .await;
    }
}

async fn contained() -> (TestGateway, Yard) {
    let gateway = TestGateway::start().await;
    let yard = Yard::new(gateway.scratch());
    gateway.stdio("boxed", &yard.command()).await;
    gateway.ready("boxed").await;
    (gateway, yard)
}

#[tokio::test]
async fn a_container_ends_with_its_server_and_its_command_is_changed_by_labels_only() {
    let (gateway, yard) = contained().await;
    let [id] = &yard.containers()[..] else { panic!("one container: {:?}", yard.containers()) };
    let words = yard.words(id);
    let labels: Vec<&String> = words.iter().filter(|word| word.starts_with("metamcpd.")).collect();
    assert_eq!(labels.len(), 2, "{words:?}");
    let rest = words.iter().filter(|word| *word != "--label" && !labels.contains(word)).cloned();
    assert_eq!(rest.collect::<Vec<_>>(), yard.command()[1..]);

    gateway.change("mcp-servers/boxed", json!({"enabled": false})).await;
    yard.is_empty().await;
}

#[tokio::test]
async fn a_container_whose_client_was_killed_ends_before_the_next_one_begins() {
    let (gateway, yard) = contained().await;
    let first = yard.containers();
    let pid = gateway.server_pid("boxed").await;
    processes::signal(pid, Signal::KILL);
    gateway
        .server_until("boxed", "READY again", |server| {
            server["runtime"]["state"] == "READY" && server["runtime"]["pid"] != pid
        })
        .await;
    let now = yard.containers();
    assert_eq!(now.len(), 1, "{now:?}");
    assert_ne!(now, first);
}

#[tokio::test]
async fn a_container_does_not_survive_the_daemon_however_that_ends() {
    let (mut gateway, yard) = contained().await;
    gateway.kill9().await;
    yard.is_empty().await;
}

#[tokio::test]
async fn what_an_earlier_run_left_in_containers_is_ended_at_the_start_and_nothing_else() {
    let (mut gateway, yard) = contained().await;
    let words = yard.words(&yard.containers()[0]);
    let instance =
        words.iter().find(|word| word.starts_with("metamcpd.instance=")).expect("a label");
    let place = yard.folder.join("containers");
    let (ours, theirs) = ("a".repeat(32), "b".repeat(32));
    std::fs::write(place.join(&ours), format!("{instance}\nmetamcpd.start=old/1\n"))
        .expect("a file");
    std::fs::write(place.join(&theirs), "metamcpd.instance=another\n").expect("a file");

    gateway.restart().await;
    gateway.ready("boxed").await;
    let now = yard.containers();
    assert!(now.contains(&theirs) && !now.contains(&ours) && now.len() == 2, "{now:?}");
}
