//! Clients that stop reading lose their stream, with a cause that is counted, and cost nobody else anything.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::support::{Client, SOON, TestGateway, gateway::Start, wait_until, within};

/// A client over SSE that reads where messages go, and nothing after that.
async fn stalled(gateway: &TestGateway, key: &str) -> (TcpStream, String) {
    let address = gateway.base.trim_start_matches("http://").to_owned();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.expect("a connection");
    let hello = format!(
        "GET /metamcp/all/sse HTTP/1.1\r\nHost: {address}\r\nAuthorization: {key}\r\n\
         Accept: text/event-stream\r\n\r\n"
    );
    stream.write_all(hello.as_bytes()).await.unwrap();
    let mut heard = String::new();
    while !(heard.contains("sessionId=") && heard.ends_with('\n')) {
        let mut chunk = [0; 512];
        let count = stream.read(&mut chunk).await.expect("the head");
        assert!(count > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    let path = heard.split("data: ").nth(1).and_then(|rest| rest.lines().next()).expect("a path");
    (stream, path.to_owned())
}

/// Kilobytes of memory that the daemon has.
fn memory(gateway: &TestGateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn readers_that_stop_reading_are_closed_with_a_cause_and_the_others_miss_nothing() {
    const STALLED: usize = 20;
    let settings = "[sessions]\nstream_buffer = 32\n[calls]\nin_flight_max = 10000";
    let gateway = Start::new().settings(settings).run().await;
    gateway.demo("demo").await;
    // One that is busy with what nobody reads is full, and another is not.
    gateway.demo("calm").await;
    let client = gateway.client_of(&["demo", "calm"]).await;
    let key = client.headers[0].1.clone();
    let mut readers = Vec::new();
    for _ in 0..STALLED {
        readers.push(stalled(&gateway, &key).await);
    }
    let before = memory(&gateway);
    // Each of them is answered more than its buffers hold, and reads none of it.
    let value = "x".repeat(100_000);
    let flood = futures_util::future::join_all(readers.iter().map(async |(_, path)| {
        let url = format!("{}{path}", gateway.base);
        for number in 0..250 {
            let body = crate::support::client::call(
                json!(number),
                "demo__echo",
                json!({"message": value}),
            );
            let post = client.http.post(&url).header("authorization", &key);
            let post = post.header("content-type", "application/json").body(body).send();
            if within("the message to be taken", SOON, post).await.expect("an answer").status()
                != 202
            {
                return;
            }
        }
        panic!("a reader that reads nothing was answered for ever");
    }));
    let honest = async {
        for number in 0..50 {
            let text = format!("{number}");
            assert_eq!(client.text_of("calm__echo", json!({"message": text})).await, text);
        }
    };
    let listening = listening(&gateway, &client);
    tokio::join!(flood, honest, listening);
    let closed = gateway.metric("metamcpd_slow_clients_closed_total").await;
    assert!(closed.is_some_and(|closed| closed >= STALLED as f64), "{closed:?}");
    wait_until("their sessions to be gone", SOON, async || {
        let sessions = gateway.items("sessions?limit=100").await;
        sessions.iter().all(|session| session["transport"] != "SSE").then_some(())
    })
    .await;
    // What each may hold back: its buffer of messages, and what stands in its socket.
    let held = memory(&gateway).saturating_sub(before);
    assert!(held < 200_000, "{held} KB for {STALLED} readers");
    drop(readers);
}

/// Somebody who reads, while others do not, hears all.
async fn listening(gateway: &TestGateway, client: &Client) {
    let key = client.headers[0].1.trim_start_matches("Bearer ").to_owned();
    let reader = gateway.sse_client("all", &key).await;
    for number in 0..20 {
        let answer = reader.call(json!(number), "calm__echo", json!({"message": "heard"})).await;
        assert_eq!(answer["result"]["content"][0]["text"], "heard", "{answer}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
