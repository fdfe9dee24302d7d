//! `metamcpd connect` where something stands in the way, or changes its mind: proxies, keys, endpoints,
//! and clients that are in a hurry.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use crate::support::{
    ADMIN_KEY, SOON, StdioClient, TestGateway,
    remote::{Knobs, Remote, Seen},
    wait_until, within,
};

/// A proxy before one server: it carries bytes, or it finds nobody behind it and says 502.
struct Proxy {
    url: String,
    sick: Arc<AtomicBool>,
    carried: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// In front of whoever listens at `base`, which is `http://HOST:PORT`.
    fn before(base: &str) -> Proxy {
        let behind = base.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let (sick, carried) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let proxy = Proxy { url, sick: Arc::clone(&sick), carried: Arc::clone(&carried) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                match sick.load(Ordering::SeqCst) {
                    true => drop(thread::spawn(move || refuse(client))),
                    false => carry(client, &behind, &carried),
                }
            }
        });
        proxy
    }

    /// Cuts what it carries, too.
    fn falls_sick(&self) {
        self.sick.store(true, Ordering::SeqCst);
        for stream in self.carried.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }

    fn recovers(&self) {
        self.sick.store(false, Ordering::SeqCst);
    }
}

fn refuse(mut client: TcpStream) {
    // What it asks does not matter, but it is to be heard before it is answered.
    let mut heard = [0; 64 * 1024];
    if client.read(&mut heard).is_ok() {
        let answer = b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<html>nobody is there</html>";
        drop(client.write_all(answer));
    }
}

fn carry(client: TcpStream, behind: &str, carried: &Mutex<Vec<TcpStream>>) {
    let Ok(server) = TcpStream::connect(behind) else { return };
    let both = [client, server];
    let twins = || both.iter().map(|stream| stream.try_clone().expect("a handle"));
    carried.lock().unwrap_or_else(PoisonError::into_inner).extend(twins());
    for (mut from, mut to) in twins().zip(twins().rev()) {
        thread::spawn(move || {
            drop(std::io::copy(&mut from, &mut to));
            drop(to.shutdown(std::net::Shutdown::Both));
        });
    }
}

/// An endpoint `all` over the server `demo`; a key with its row.
async fn with_demo() -> (TestGateway, Value) {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    gateway.publish("all", &["demo"]).await;
    gateway.ready("demo").await;
    let key = gateway.create("api-keys", json!({"name": "suite"})).await;
    (gateway, key)
}

fn secret(key: &Value) -> &str {
    key["key"].as_str().expect("its value")
}

fn echo(message: &str) -> Value {
    json!({"name": "demo__echo", "arguments": {"message": message}})
}

/// Calls until a call succeeds. What it says before is told by the caller's own assertions.
async fn succeeds(client: &mut StdioClient) {
    let begun = tokio::time::Instant::now();
    loop {
        let answer = client.request("tools/call", echo("again")).await;
        if answer["result"].is_object() {
            return;
        }
        assert!(begun.elapsed() < SOON, "{answer}\n{}", client.stderr());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_find_the_daemon_for_a_while_is_outlived() {
    let (gateway, key) = with_demo().await;
    let proxy = Proxy::before(&gateway.base);
    for path in ["mcp", "sse"] {
        let url = format!("{}/metamcp/all/{path}", proxy.url);
        let mut client = StdioClient::connect(&url, secret(&key)).await;
        assert!(client.text_of("demo__echo", json!({"message": "one"})).await.contains("one"));

        proxy.falls_sick();
        let answer = client.request("tools/call", echo("two")).await;
        let reason = answer["error"]["data"]["reason"].as_str().unwrap_or_default();
        // Whether the proxy had handed it on nobody can know, so it is the client who asks again.
        assert!(["connect_http_status", "connect_broken"].contains(&reason), "{path}: {answer}");

        // A client that begins meanwhile waits for its handshake.
        let mut late = StdioClient::start(&[&url], Some(secret(&key)));
        let hello = late.ask("initialize", json!({"protocolVersion": "2025-06-18"})).await;
        proxy.recovers();
        assert!(late.answer_to(hello).await["result"].is_object(), "{path}: {}", late.stderr());
        succeeds(&mut client).await;
        client.close();
        assert_eq!(client.ended().await, Some(0), "{path}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_deleted_is_told_and_one_of_its_name_is_used_again() {
    let (gateway, key) = with_demo().await;
    for url in [gateway.endpoint_url("all"), gateway.sse_url("all")] {
        let mut client = StdioClient::connect(&url, secret(&key)).await;
        gateway.remove("endpoints/all").await;
        let told = async |client: &mut StdioClient| {
            let answer = client.request("tools/call", echo("nobody")).await;
            answer["error"]["data"]["reason"].as_str().unwrap_or_default().to_owned()
        };
        wait_until("the word", SOON, async || {
            let told = told(&mut client).await;
            (told == "connect_no_endpoint").then_some(())
        })
        .await;
        gateway.create("endpoints", json!({"name": "all", "namespace": "all"})).await;
        succeeds(&mut client).await;
    }
}

#[tokio::test]
async fn a_key_that_is_switched_off_is_told_and_one_that_is_switched_on_again_is_used() {
    let (gateway, key) = with_demo().await;
    let row = format!("api-keys/{}", key["uuid"].as_str().expect("a uuid"));
    let mut client = StdioClient::connect(&gateway.endpoint_url("all"), secret(&key)).await;
    gateway.change(&row, json!({"is_active": false})).await;
    wait_until("the word", SOON, async || {
        let answer = client.request("tools/call", echo("nobody")).await;
        (answer["error"]["data"]["reason"] == "connect_unauthorized").then_some(())
    })
    .await;
    gateway.change(&row, json!({"is_active": true})).await;
    succeeds(&mut client).await;
}

#[tokio::test]
async fn a_standing_stream_that_was_refused_is_opened_once_the_key_is_good_again() {
    let remote = Remote::start(Knobs { bearer: Some("good".to_owned()), ..Knobs::default() });
    let mut client = StdioClient::start(&[&remote.url], Some("good"));
    client.shake().await;
    let opened = || remote.count("GET");
    wait_until("the stream", SOON, async || (opened() > 0).then_some(())).await;
    remote.turn(|knobs| knobs.bearer = Some("another".to_owned()));
    remote.cut_streams();
    let before = opened();
    wait_until("a stream that is refused", SOON, async || (opened() > before).then_some(())).await;
    remote.turn(|knobs| knobs.bearer = Some("good".to_owned()));
    wait_until("a stream that takes it", SOON, async || {
        (remote.push("notifications/tools/list_changed") > 0).then_some(())
    })
    .await;
    client.heard("it", |said| said["method"] == "notifications/tools/list_changed").await;
}

#[tokio::test]
async fn a_call_that_is_cancelled_while_the_daemon_is_away_is_never_sent() {
    let remote = Remote::start(Knobs::default());
    let port: u16 = url::Url::parse(&remote.url).expect("a URL").port().expect("a port");
    let mut client = StdioClient::start(&[&remote.url], None);
    client.shake().await;
    drop(remote);
    wait_until("nobody to be there", SOON, async || {
        TcpStream::connect(("127.0.0.1", port)).is_err().then_some(())
    })
    .await;
    let call = json!({"name": "echo", "arguments": {"value": "taken back"}});
    let taken_back = client.ask("tools/call", call).await;
    let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": taken_back}});
    client.send(&cancelled.to_string()).await;
    // Lines are heard in turn, and this one is answered by the bridge itself.
    client.send("no JSON").await;
    client.heard("a refusal", |said| said["error"]["code"] == -32700).await;
    let remote = Remote::start_on(port, Knobs::default());
    assert_eq!(client.text_of("echo", json!({"value": "next"})).await, "next");
    // It would have been sent as soon as the next one was.
    client.request("ping", json!({})).await;
    let calls = remote.seen_of("tools/call");
    let value = |call: &Seen| call.body["params"]["arguments"]["value"].clone();
    assert!(!calls.is_empty() && calls.iter().all(|call| value(call) == "next"), "{calls:?}");
}

#[tokio::test]
async fn a_client_that_shakes_hands_again_leaves_no_session_behind() {
    let remote = Remote::start(Knobs::default());
    let mut client = StdioClient::start(&[&remote.url], None);
    for _ in 0..3 {
        client.shake().await;
    }
    wait_until("one session", SOON, async || (remote.sessions() == 1).then_some(())).await;
    assert_eq!(client.text_of("echo", json!({"value": "last"})).await, "last");
}

#[tokio::test]
async fn two_clients_in_a_hurry_each_get_their_own_answers() {
    const REQUESTS: i64 = 100;
    let (gateway, key) = with_demo().await;
    for url in [gateway.endpoint_url("all"), gateway.sse_url("all")] {
        let mut clients = [
            StdioClient::connect(&url, secret(&key)).await,
            StdioClient::connect(&url, secret(&key)).await,
        ];
        for number in 0..REQUESTS {
            for (whose, client) in clients.iter_mut().enumerate() {
                client.ask("tools/call", echo(&format!("{whose} {number}"))).await;
            }
        }
        for (whose, client) in clients.iter_mut().enumerate() {
            for _ in 0..REQUESTS {
                let answer = client.heard("an answer", |said| said["id"].is_i64()).await;
                // The first request of a client is its handshake.
                let number = answer["id"].as_i64().expect("a number") - 2;
                let expected = format!("{whose} {number}");
                assert_eq!(answer["result"]["content"][0]["text"], expected, "{url}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_in_flight_when_the_input_ends_has_its_time_and_no_more() {
    let (gateway, key) = with_demo().await;
    let url = gateway.endpoint_url("all");
    let long = |seconds: u64| json!({"name": "demo__long_task", "arguments": {"seconds": seconds, "steps": seconds * 2}});
    let mut client = StdioClient::connect(&url, secret(&key)).await;
    let call = client.ask("tools/call", long(1)).await;
    client.close();
    assert!(client.answer_to(call).await["result"].is_object());
    assert_eq!(client.ended().await, Some(0));

    let mut client = StdioClient::start(&[&url, "--linger", "1"], Some(secret(&key)));
    client.shake().await;
    client.ask("tools/call", long(60)).await;
    client.close();
    assert_eq!(within("its end", SOON, client.ended()).await, Some(0));
    // The daemon does not go on for nobody.
    wait_until("no session", SOON, async || {
        let metrics = gateway.http.get(format!("{}/metrics", gateway.base)).bearer_auth(ADMIN_KEY);
        let text = metrics.send().await.expect("an answer").text().await.expect("text");
        text.lines().any(|line| line == "metamcpd_sessions 0").then_some(())
    })
    .await;
}
