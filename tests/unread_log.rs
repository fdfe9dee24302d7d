//! Nobody who reads what the daemon says, or has stopped, holds it up; and nothing that it says of others
//! begins a line of its own.

use std::{
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Stdio},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    SOON, TestGateway,
    client::http,
    gateway::{Start, binary},
    processes, wait_until, within,
};

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nobody() {
    let start = Start::new().settings("[log]\nlevel = \"trace\"\nbuffer = 64").with_an_unread_log();
    let mut gateway = start.run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    // More than a pipe and the buffer hold.
    let calls = async {
        while gateway.metric("metamcpd_log_lines_dropped_total").await.is_none() {
            let value = json!({"message": "x".repeat(1000)});
            assert!(client.text_of("demo__echo", value).await.contains('x'));
        }
    };
    within("the log to be full", SOON * 2, calls).await;
    assert_eq!(client.text_of("demo__echo", json!({"message": "still"})).await, "still");
    assert_eq!(gateway.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_stdout_that_nobody_reads_or_that_is_closed_holds_up_nobody() {
    for is_open in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (reader, mut writer) = std::io::pipe().unwrap();
        // As full as it can be.
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while writer.write(&[b'\n'; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        let reader = is_open.then_some(reader);
        let mut daemon = binary()
            .args(["serve", "--import", "config/examples/mcp.json", "--data-dir"])
            .arg(directory.path().join("data"))
            .env("METAMCPD__SERVER__BIND", format!("127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(writer))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let http = http();
        wait_until("the daemon to serve", SOON, async || {
            let ready = http.get(format!("http://127.0.0.1:{port}/ready")).send().await;
            ready.ok().filter(|answer| answer.status() == 200)
        })
        .await;
        processes::signal(daemon.id(), Signal::TERM);
        assert_eq!(code_of(&mut daemon).await, Some(0), "stdout is open: {is_open}");
        drop(reader);
    }
}

async fn code_of(daemon: &mut Child) -> Option<i32> {
    wait_until("its end", SOON, async || daemon.try_wait().unwrap()).await.code()
}

#[tokio::test]
async fn a_log_in_json_is_one_object_a_line_whatever_others_write() {
    let settings = "[log]\nformat = \"json\"\nline_max = 1024";
    let gateway = Start::new().settings(settings).run().await;
    let hostile = format!("x\n{{\"level\":\"INFO\"}}\u{1b}[2J\u{9b}\u{202e}{}", "y".repeat(5000));
    let row = format!("insert into config (id, value) values ('MCP_TIMEOUT', '{hostile}')");
    gateway.write_behind_its_back(&row).await;
    gateway.signal(Signal::HUP);
    wait_until("the row to be told of", SOON, async || {
        gateway.log().contains("MCP_TIMEOUT").then_some(())
    })
    .await;
    let mut log = String::new();
    let mut file = std::fs::File::open(gateway.scratch().join("daemon.log")).unwrap();
    file.read_to_string(&mut log).unwrap();
    for line in log.lines() {
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no object: {line}"));
        assert!(object["timestamp"].is_string(), "{line}");
        assert!(!line.contains(|char: char| char.is_control() || char == '\u{202e}'), "{line}");
    }
    assert!(log.lines().any(|line| line.contains("MCP_TIMEOUT") && line.len() < 1200), "{log}");
}

#[tokio::test]
async fn the_last_lines_of_a_log_are_written() {
    let mut gateway = TestGateway::start().await;
    gateway.stop().await;
    let last = gateway.log().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("stopped"), "{last}");
}
