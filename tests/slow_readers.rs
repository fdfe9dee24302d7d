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
    let before = gateway.memory();
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
    let held = gateway.memory().saturating_sub(before);
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

#[tokio::test]
async fn a_client_that_stops_reading_before_anything_is_full_is_closed_with_a_cause_too() {
    // What is sent fits into what the kernel holds, so that whoever sends it sees nothing of it.
    let settings = "[server]\nwrite_timeout = \"1s\"\n[sessions]\nheartbeat = \"50ms\"";
    let gateway = Start::new().settings(settings).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let key = client.headers[0].1.clone();
    let arguments = json!({"message": "x".repeat(100_000), "delay_ms": 200});
    let body = crate::support::client::call(json!(1), "demo__echo", arguments);
    let counted = async |wanted: f64| {
        let closed = wait_until("a client to be closed", SOON, async || {
            let closed = gateway.metric("metamcpd_slow_clients_closed_total").await;
            closed.filter(|closed| *closed >= wanted)
        });
        assert_eq!(closed.await, wanted);
    };

    let (sse, path) = stalled(&gateway, &key).await;
    let post = client.http.post(format!("{}{path}", gateway.base)).header("authorization", &key);
    let post = post.header("content-type", "application/json").body(body.clone());
    assert_eq!(post.send().await.expect("an answer").status(), 202);
    counted(1.0).await;

    let address = gateway.base.trim_start_matches("http://");
    let session = client.session.clone().expect("a session");
    let mut readers = Vec::new();
    // By a stream, and as a whole.
    for (number, accepts) in
        [(2.0, "application/json, text/event-stream"), (3.0, "application/json")]
    {
        let hello = format!(
            "POST /metamcp/all/mcp HTTP/1.1\r\nHost: {address}\r\nAuthorization: {key}\r\n\
             Content-Type: application/json\r\nAccept: {accepts}\r\n\
             Mcp-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len(),
        );
        readers.push(narrow(&gateway, &hello).await);
        counted(number).await;
    }
    assert_eq!(client.text_of("demo__echo", json!({"message": "still"})).await, "still");
    drop((sse, readers));
}

#[tokio::test]
async fn what_is_asked_behind_a_stream_that_is_not_read_is_nobodys_second_fault() {
    let settings = "[server]\nwrite_timeout = \"2s\"\n[sessions]\nstream_buffer = 4";
    let gateway = Start::new().settings(settings).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let key = client.headers[0].1.clone();
    let address = gateway.base.trim_start_matches("http://");
    let (mut reader, path) = stalled(&gateway, &key).await;
    // It waits for the end of the stream.
    let behind = format!("GET /health HTTP/1.1\r\nHost: {address}\r\n\r\n");
    reader.write_all(behind.as_bytes()).await.unwrap();

    let url = format!("{}{path}", gateway.base);
    let arguments = json!({"message": "x".repeat(20_000)});
    let mut said = 0;
    loop {
        let id = client.next_id().into();
        let body = crate::support::client::call(id, "demo__echo", arguments.clone());
        let post = client.http.post(&url).header("authorization", &key);
        let post = post.header("content-type", "application/json").body(body);
        match post.send().await.expect("an answer").status().as_u16() {
            202 => said += 20_000,
            404 => break,
            status => panic!("{status}"),
        }
        assert!(said < 100_000_000, "a reader that reads nothing was answered for ever");
    }
    // It reads so much that all of the stream has left us, and what waited behind it too; and no more.
    let mut some = vec![0; said / 2];
    reader.read_exact(&mut some).await.expect("what was said");
    // Its connection is cut some time after that.
    wait_until("its connection to be gone", SOON, async || {
        let mut chunk = [0; 64 * 1024];
        (!is_open(&gateway, &reader) && reader.try_read(&mut chunk).is_ok_and(|count| count > 0))
            .then_some(())
    })
    .await;
    let closed = gateway.metric("metamcpd_slow_clients_closed_total").await;
    assert_eq!(closed, Some(1.0), "{}", gateway.log());
    assert!(!gateway.log().contains("server.write_timeout"), "{}", gateway.log());
}

/// Whether the gateway still has its end of this connection.
fn is_open(gateway: &TestGateway, client: &TcpStream) -> bool {
    let port = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let ours = port(client.local_addr().expect("an address"));
    let theirs = port(gateway.base.trim_start_matches("http://").parse().expect("an address"));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) =
            (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        local.ends_with(&theirs) && remote.ends_with(&ours)
    })
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
