//! Clients that stop reading lose their stream, with a cause that is counted, and cost nobody else anything.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::support::{Client, SOON, TestGateway, gateway::Start, wait_until};

/// A connection whose client's end holds hardly anything, and what was said on it.
async fn narrow(gateway: &TestGateway, said: &str) -> TcpStream {
    let address = gateway.base.trim_start_matches("http://");
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.expect("a connection");
    stream.write_all(said.as_bytes()).await.unwrap();
    stream
}

/// A client over SSE that reads where messages go, and nothing after that.
async fn stalled(gateway: &TestGateway, key: &str) -> (TcpStream, String) {
    let address = gateway.base.trim_start_matches("http://");
    let hello = format!(
        "GET /metamcp/all/sse HTTP/1.1\r\nHost: {address}\r\nAuthorization: {key}\r\n\
         Accept: text/event-stream\r\n\r\n"
    );
    let mut stream = narrow(gateway, &hello).await;
    let heard =
        read_until(&mut stream, |heard| heard.contains("sessionId=") && heard.ends_with('\n'));
    let heard = heard.await;
    let path = heard.split("data: ").nth(1).and_then(|rest| rest.lines().next()).expect("a path");
    (stream, path.to_owned())
}

async fn read_until(stream: &mut TcpStream, is_enough: impl Fn(&str) -> bool) -> String {
    let mut heard = String::new();
    while !is_enough(&heard) {
        let mut chunk = [0; 512];
        let count = stream.read(&mut chunk).await.expect("the head");
        assert!(count > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    heard
}

/// Kilobytes of memory that the daemon has.
fn memory(gateway: &TestGateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn readers_that_stop_reading_are_closed_with_a_cause_and_the_others_miss_nothing() {
    const STALLED: usize = 4;
    // So few of them are under way at once that what these hold is little beside what it would be to keep
    // everything for who reads nothing.
    let settings = "[sessions]\nstream_buffer = 4\nin_flight_max = 16";
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
            let arguments = json!({"message": value});
            let body = crate::support::client::call(json!(number), "demo__echo", arguments);
            let is_taken =
                wait_until("the message to be taken or refused for good", SOON, async || {
                    let post = client.http.post(&url).header("authorization", &key);
                    let post = post.header("content-type", "application/json").body(body.clone());
                    match post.send().await.expect("an answer").status().as_u16() {
                        202 => Some(true),
                        404 => Some(false),
                        429 => None,
                        status => panic!("{status}"),
                    }
                });
            if !is_taken.await {
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
    assert!(held < 40_000, "{held} KB for {STALLED} readers");
    drop(readers);
}

#[tokio::test]
async fn a_call_whose_stream_is_not_read_is_closed_with_a_cause_and_the_others_miss_nothing() {
    const STALLED: usize = 2;
    // The answer is to come by a stream, and more than any buffer on its way holds: of what is echoed
    // each byte is written as six.
    let settings = "[server]\nwrite_timeout = \"1s\"\n[sessions]\nheartbeat = \"50ms\"";
    let gateway = Start::new().settings(settings).run().await;
    gateway.demo("demo").await;
    gateway.demo("calm").await;
    let client = gateway.client_of(&["demo", "calm"]).await;
    let key = client.headers[0].1.clone();
    let address = gateway.base.trim_start_matches("http://");
    let arguments = json!({"message": "\u{1}".repeat(300_000), "repeat": 4, "delay_ms": 50});
    let body = crate::support::client::call(json!(1), "demo__echo", arguments);
    let session = client.session.clone().expect("a session");
    let mut readers = Vec::new();
    for _ in 0..STALLED {
        let hello = format!(
            "POST /metamcp/all/mcp HTTP/1.1\r\nHost: {address}\r\nAuthorization: {key}\r\n\
             Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
             Mcp-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len(),
        );
        let mut reader = narrow(&gateway, &hello).await;
        let head = read_until(&mut reader, |heard| heard.contains("\r\n\r\n")).await;
        assert!(head.contains("text/event-stream"), "{head}");
        readers.push(reader);
    }
    let honest = async {
        for number in 0..20 {
            let text = format!("{number}");
            assert_eq!(client.text_of("calm__echo", json!({"message": text})).await, text);
        }
    };
    let closed = wait_until("the streams to be closed", SOON, async || {
        let closed = gateway.metric("metamcpd_slow_clients_closed_total").await;
        closed.filter(|closed| *closed >= STALLED as f64)
    });
    let (closed, ()) = tokio::join!(closed, honest);
    assert_eq!(closed, STALLED as f64);
    assert!(gateway.log().contains("server.write_timeout"), "{}", gateway.log());
    // The session is as good as before.
    assert_eq!(client.text_of("demo__echo", json!({"message": "still"})).await, "still");
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
