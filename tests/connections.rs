//! Who connects and gives nothing back, or connects too often, costs a bounded while and nobody else.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::support::{ADMIN_KEY, Client, SOON, TestGateway, gateway::Start, raw::Raw, wait_until};

/// As fast as a slow client gets.
const PACE: Duration = Duration::from_millis(100);

async fn impatient() -> (TestGateway, Client) {
    let settings = "[server]\nbody_timeout = \"1s\"\nheader_timeout = \"1s\"\nkeep_alive = \"1s\"";
    let gateway = Start::new().settings(settings).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    (gateway, client)
}

fn post(path: &str, address: &str, credential: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {credential}\r\n\
         Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    )
}

#[tokio::test]
async fn who_is_refused_while_it_still_sends_has_the_answer_to_read() {
    let (gateway, client) = impatient().await;
    let large = vec![b' '; 16 << 20];
    for (key, expected) in [(client.headers[0].1.as_str(), 413), ("sk_mt_of_nobody", 401)] {
        for _ in 0..5 {
            let post = client.http.post(gateway.endpoint_url("all")).header("authorization", key);
            let post = post.header("content-type", "application/json").body(large.clone());
            let answer = post.send().await.expect("an answer, and not the end of the connection");
            assert_eq!(answer.status(), expected);
        }
    }
}

#[tokio::test]
async fn who_asks_on_without_reading_what_is_answered_is_not_answered_on() {
    let (gateway, _) = impatient().await;
    let mut raw = Raw::connect(&gateway).await;
    // As a browser asks, without any credential. The answer has no body, which is where it is bounded
    // otherwise.
    let ask = format!(
        "OPTIONS /metamcp/all/mcp HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\n\
         Access-Control-Request-Method: POST\r\n\r\n",
        raw.address
    );
    let (asks, before) = (ask.repeat(100), gateway.memory());
    let patience = Duration::from_secs(2);
    while tokio::time::timeout(patience, raw.send(&asks)).await.is_ok_and(|is_taken| is_taken) {
        let held = gateway.memory().saturating_sub(before);
        assert!(held < 30_000, "{held} KB for one who reads nothing");
    }
    let held = gateway.memory().saturating_sub(before);
    assert!(held < 30_000, "{held} KB for one who reads nothing");
    let answer = raw.head().await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

#[tokio::test]
async fn who_sends_empty_lines_and_asks_nothing_is_let_go_like_others() {
    let settings = "[server]\nkeep_alive = \"3s\"\n[sessions]\nheartbeat = \"200ms\"";
    let gateway = Start::new().settings(settings).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    for behind in ["\r\n", "\n", "\r\n\r\n\r\n"] {
        // With the request, and by itself.
        for is_late in [false, true] {
            let mut raw = Raw::connect(&gateway).await;
            let ask = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", raw.address);
            raw.send(&(ask + if is_late { "" } else { behind })).await;
            raw.head().await;
            if is_late {
                raw.send(behind).await;
            }
            raw.rest().await;
        }
    }
    // A stream is not let go for that: its client has nothing to ask.
    let mut stream = Raw::connect(&gateway).await;
    let listen = format!(
        "GET /metamcp/all/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n\
         Accept: text/event-stream\r\nMcp-Session-Id: {}\r\n\r\n\r\n",
        stream.address,
        client.headers[0].1,
        client.session.as_deref().expect("a session"),
    );
    stream.send(&listen).await;
    stream.head().await;
    stream.send("\r\n").await;
    let beats = stream.until(|heard| heard.matches(": keep-alive").count() >= 20).await;
    assert!(beats, "it went on for longer than anybody may be idle");
}

#[tokio::test]
async fn who_sends_a_head_or_a_body_slowly_or_never_is_told_so_and_disconnected() {
    let (gateway, client) = impatient().await;
    let key = client.headers[0].1.clone();
    let admin = format!("Bearer {ADMIN_KEY}");
    let bodies = async {
        let mut attacks = Vec::new();
        for (path, credential) in
            [("/metamcp/all/mcp", &key), ("/api/v1/namespaces", &admin), ("/api/v1/import", &admin)]
        {
            for drips in [true, false] {
                let mut raw = Raw::connect(&gateway).await;
                let head = post(path, &raw.address, credential);
                attacks.push(async move {
                    raw.send(&head).await;
                    let heard = if drips { raw.drip(" ", PACE).await } else { raw.rest().await };
                    assert!(heard.starts_with("HTTP/1.1 408"), "{path}, drips {drips}: {heard}");
                });
            }
        }
        futures_util::future::join_all(attacks).await;
    };
    let heads = async {
        let [mut silent, mut slow] = [Raw::connect(&gateway).await, Raw::connect(&gateway).await];
        slow.send("GET /health HTTP/1.1\r\nX-Slow: ").await;
        let (silent, slow) = tokio::join!(silent.rest(), slow.drip("x", PACE));
        assert!(silent.is_empty() || silent.starts_with("HTTP/1.1 408"), "{silent}");
        assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");
    };
    let idle = async {
        let mut raw = Raw::connect(&gateway).await;
        let hello = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", raw.address);
        raw.send(&hello).await;
        assert!(raw.head().await.starts_with("HTTP/1.1 200"));
        raw.rest().await;
    };
    let honest = async {
        for number in 0..20 {
            let text = format!("{number}");
            assert_eq!(client.text_of("demo__echo", json!({"message": text})).await, text);
        }
    };
    tokio::join!(bodies, heads, idle, honest);
}

#[tokio::test]
async fn what_a_client_does_not_send_to_its_end_is_not_waited_for_once_it_is_answered() {
    let (gateway, client) = impatient().await;
    let key = client.headers[0].1.clone();
    let mut attacks = Vec::new();
    for (credential, status) in [("Bearer nobody", 401), (&key, 408)] {
        for drips in [true, false] {
            let mut raw = Raw::connect(&gateway).await;
            let head = post("/metamcp/all/mcp", &raw.address, credential);
            let head = head.replace("Content-Length: 1000", "Transfer-Encoding: chunked");
            attacks.push(async move {
                raw.send(&head).await;
                let heard =
                    if drips { raw.drip("1\r\nx\r\n", PACE).await } else { raw.rest().await };
                let (line, _) = heard.split_once("\r\n").expect("an answer");
                assert!(line.contains(&status.to_string()), "drips {drips}: {heard}");
                assert!(heard.to_lowercase().contains("connection: close"), "{heard}");
            });
        }
    }
    let second_heads = async {
        // The first was answered, and the second never comes to its end.
        let mut raw = greeted(&gateway).await;
        raw.send("GET /health HTTP/1.1\r\nX-Slow: ").await;
        let heard = raw.drip("x", PACE).await;
        assert!(!heard.contains("HTTP/1.1 200"), "{heard}");
    };
    tokio::join!(futures_util::future::join_all(attacks), second_heads);
}

#[tokio::test]
async fn a_body_that_drips_is_given_up_long_before_its_time_and_one_that_is_only_slow_is_not() {
    let settings = "[server]\nbody_timeout = \"10m\"\nbody_grace = \"1s\"";
    let gateway = Start::new().settings(settings).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let key = client.headers[0].1.clone();
    let drips = async {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(&post("/metamcp/all/mcp", &raw.address.clone(), &key)).await;
        let heard = raw.drip(" ", PACE).await;
        assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
        assert!(heard.contains("server.body_rate_min"), "{heard}");
    };
    let slow = async {
        let mut raw = Raw::connect(&gateway).await;
        let value = "x".repeat(30_000);
        let body = crate::support::client::call(json!(1), "demo__echo", json!({"message": value}));
        let head = post("/metamcp/all/mcp", &raw.address, &key);
        let session = client.session.as_deref().expect("a session");
        let length = format!("Mcp-Session-Id: {session}\r\nContent-Length: {}", body.len());
        raw.send(&head.replace("Content-Length: 1000", &length)).await;
        for piece in body.as_bytes().chunks(1000) {
            raw.send(std::str::from_utf8(piece).unwrap()).await;
            tokio::time::sleep(PACE).await;
        }
        let heard = raw.head().await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    };
    tokio::join!(drips, slow);
}

#[tokio::test]
async fn one_address_has_so_many_connections_unless_it_is_a_proxys() {
    let settings = "[server]\nconnections_per_address_max = 5\nheader_timeout = \"1m\"\n";
    let counted = Start::new().settings(&format!("{settings}proxies = []")).run().await;
    let mut held = Vec::new();
    for _ in 0..5 {
        // Whoever was answered has been counted: connections are not taken in the order of connecting.
        held.push(greeted(&counted).await);
    }
    let mut one_more = Raw::connect(&counted).await;
    let hello = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", one_more.address);
    one_more.send(&hello).await;
    let heard = one_more.rest().await;
    assert!(heard.starts_with("HTTP/1.1 429"), "{heard}");
    assert!(heard.to_lowercase().contains("retry-after"), "{heard}");
    drop(held);
    wait_until("the seats to be free again", SOON, async || {
        let mut raw = Raw::connect(&counted).await;
        raw.send(&hello).await;
        raw.head().await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;

    let proxied = Start::new().settings(settings).run().await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(greeted(&proxied).await);
    }
}

/// A connection that a request was answered on.
async fn greeted(gateway: &TestGateway) -> Raw {
    let mut raw = Raw::connect(gateway).await;
    raw.send(&format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", raw.address.clone())).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200"));
    raw
}

#[tokio::test]
async fn a_flood_of_connections_leaves_the_files_that_the_daemon_needs_itself() {
    allow_many_files();
    let settings = "[server]\nheader_timeout = \"1m\"";
    let start = Start::new().settings(settings).prepared_by("ulimit -n 256");
    let gateway = start.run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    assert_eq!(gateway.metric("metamcpd_fds_max").await, Some(256.0));

    let mut flood = Vec::new();
    for _ in 0..500 {
        flood.push(Raw::connect(&gateway).await);
    }
    wait_until("the flood to be told of", SOON, async || {
        gateway.log().contains("connections are refused").then_some(())
    })
    .await;
    // By a connection that was there before.
    assert_eq!(client.text_of("demo__echo", json!({"message": "inside"})).await, "inside");
    // What the daemon itself opens, it opens still: a server takes five files and more.
    let restarted = gateway.server_pid("demo").await;
    crate::support::processes::signal(restarted, rustix::process::Signal::KILL);
    gateway
        .server_until("demo", "started again", |server| {
            server["runtime"]["state"] == "READY" && server["runtime"]["pid"] != restarted
        })
        .await;
    drop(flood);
    wait_until("the files to be free again", SOON, async || {
        let key = client.headers[0].1.trim_start_matches("Bearer ");
        let open = Client::new(&client.url, Some(key)).try_open("{}").await.ok()?;
        // Until then it is cut, or refused with a word.
        assert!(matches!(open.status.as_u16(), 400 | 503), "{}", open.status);
        (open.status == 400).then_some(())
    })
    .await;
    assert!(gateway.metric("metamcpd_limit_hit_total").await.is_some_and(|hits| hits > 100.0));
}

#[tokio::test]
async fn the_daemon_takes_all_files_that_it_may_and_its_servers_get_what_it_was_given() {
    let gateway = Start::new().prepared_by("ulimit -Sn 200").run().await;
    gateway.demo("demo").await;
    let server = gateway.server_pid("demo").await;
    let limits = |pid: u32| {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
        let line = limits.lines().find(|line| line.starts_with("Max open files"));
        let words: Vec<_> = line.unwrap().split_whitespace().map(str::to_owned).collect();
        (words[3].clone(), words[4].clone())
    };
    let (soft, hard) = limits(gateway.pid());
    assert_eq!(soft, hard);
    assert_eq!(limits(server), ("200".to_owned(), hard));
}

#[tokio::test]
async fn one_key_has_so_many_streams_and_another_key_has_its_own() {
    let gateway = Start::new().settings("[sessions]\nstreams_per_principal_max = 2").run().await;
    gateway.publish("all", &[]).await;
    let (first, second) = (gateway.key("first").await, gateway.key("second").await);
    let mut clients = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..3 {
        clients.push(gateway.client("all", &first).await);
    }
    for client in &clients {
        streams.push(client.listen().await);
    }
    let statuses: Vec<_> = streams.iter().map(|stream| stream.status.as_u16()).collect();
    assert_eq!(statuses, [200, 200, 429]);
    assert!(streams[2].headers.contains_key("retry-after"));
    assert_eq!(gateway.client("all", &second).await.listen().await.status, 200);
    // One that has a stream may open a newer one.
    assert_eq!(clients[0].listen().await.status, 200);
    drop(streams);
    wait_until("the streams to be given back", SOON, async || {
        (clients[2].listen().await.status == 200).then_some(())
    })
    .await;
}

/// The suite's own files: a flood has two ends.
fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("more files");
}
