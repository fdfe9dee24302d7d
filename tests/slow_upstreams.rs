//! Ten upstreams of which five are sick, each in its own way: no client waits for them longer than the
//! settings say, and none of the healthy ones' tools is missing for their sake.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    gateway::Start,
    remote::{Knobs, Remote},
    wait_until, within,
};

/// Upstreams that answer do so at once.
const GOOD: [&str; 5] = ["one", "two", "three", "four", "five"];

/// What a first list may wait, here: long enough to tell a list that waits from one that does not.
const FIRST_WAIT: Duration = Duration::from_secs(6);

/// Below `FIRST_WAIT`, and far above what anything here takes on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

/// What the slow one takes to answer. Longer than any wait that is allowed here.
const SLOW: Duration = Duration::from_secs(20);

/// The ten. What is held here lives as long as the upstreams do.
struct Ten {
    good: Vec<Remote>,
    mute_list: Remote,
    slow: Remote,
    _hangs: Hanging,
}

/// A port whose queue of connections is full: who connects hears nothing at all.
struct Hanging {
    address: SocketAddr,
    _listener: OwnedFd,
    _queue: Vec<TcpStream>,
}

impl Hanging {
    fn new() -> Hanging {
        use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        listen(&listener, 0).expect("it listens");
        let address = getsockname(&listener).expect("its address");
        let address = SocketAddr::try_from(address).expect("an address of the internet");
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            queue.push(stream);
            assert!(queue.len() < 64, "the queue is never full");
        }
        Hanging { address, _listener: listener, _queue: queue }
    }
}

/// A port where nobody is.
fn refusing() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address")
}

/// A server that answers whatever comes with what is not HTTP.
fn garbage() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            // Whoever hangs up has heard enough.
            drop(stream.write_all(b"\xff\xfe{\"jsonrpc\": \x00 not HTTP at all\r\n\r\n"));
        }
    });
    address
}

impl Ten {
    async fn behind(gateway: &TestGateway) -> Ten {
        let with = |knobs: Knobs| Remote::start(Knobs { streams: false, ..knobs });
        let ten = Ten {
            good: GOOD.iter().map(|_| with(Knobs::default())).collect(),
            mute_list: with(Knobs { list_delay: SLOW * 100, ..Knobs::default() }),
            slow: with(Knobs { hello_delay: SLOW, ..Knobs::default() }),
            _hangs: Hanging::new(),
        };
        for (name, remote) in GOOD.iter().zip(&ten.good) {
            gateway.remote(name, &remote.url).await;
        }
        let at = |address: SocketAddr| format!("http://{address}/mcp");
        gateway.remote("refuses", &at(refusing())).await;
        gateway.remote("hangs", &at(ten._hangs.address)).await;
        gateway.remote("mute", &ten.mute_list.url).await;
        gateway.remote("slow", &ten.slow.url).await;
        gateway.remote("garbage", &at(garbage())).await;
        ten
    }
}

/// A client that says hello at once, and its list, which takes no longer than `patience`.
async fn first_list(gateway: &TestGateway, key: &str, patience: Duration) -> (Client, Vec<String>) {
    let began = Instant::now();
    let client = within("initialize", AT_ONCE, gateway.client("all", key)).await;
    let hello = began.elapsed();
    let began = Instant::now();
    let tools = within("the list", patience, client.tools()).await;
    eprintln!("initialize {hello:?}, list {:?}, {} tools", began.elapsed(), tools.len());
    (client, tools)
}

fn tools_of(servers: &[&str]) -> Vec<String> {
    let tools = |server: &&str| ["echo", "steps"].map(|tool| format!("{server}__{tool}"));
    servers.iter().flat_map(tools).collect()
}

#[tokio::test]
async fn five_sick_upstreams_of_ten_hold_nobody_up() {
    let settings = format!(
        "[lists]\nfirst_wait = \"{}s\"\n[supervision]\nbackoff_max = \"1s\"\nprobe_every = \"1s\"",
        FIRST_WAIT.as_secs()
    );
    let mut gateway = Start::new().settings(&settings).run().await;
    let key = gateway.key("suite").await;
    let ten = Ten::behind(&gateway).await;
    let all: Vec<&str> =
        GOOD.into_iter().chain(["refuses", "hangs", "mute", "slow", "garbage"]).collect();

    // Cold: nothing is known of any of them.
    gateway.publish("all", &all).await;
    for name in GOOD {
        gateway.ready(name).await;
    }
    let (client, tools) = first_list(&gateway, &key, FIRST_WAIT + AT_ONCE).await;
    assert_eq!(tools, tools_of(&GOOD));
    // The first wait is over now, for this client and for every other.
    let (_, tools) = first_list(&gateway, &key, AT_ONCE).await;
    assert_eq!(tools, tools_of(&GOOD));
    let answer = within("a call", AT_ONCE, client.text_of("three__echo", json!({"value": "x"})));
    assert_eq!(answer.await, "x");

    for (name, status) in [("refuses", "CRASHED"), ("hangs", "ERROR"), ("garbage", "CRASHED")] {
        let sick = |server: &Value| {
            server["error_status"] == status || server["error_status"] == "CRASHED"
        };
        gateway.server_until(name, "shown as sick", sick).await;
    }
    // What answers in the end is there in the end.
    let late = gateway.server_within(SLOW + SOON, "slow", "READY", |server| {
        server["runtime"]["state"] == "READY"
    });
    late.await;
    wait_until("its tools", SOON, async || {
        let tools = client.tools().await;
        (tools == [tools_of(&GOOD), tools_of(&["slow"])].concat()).then_some(())
    })
    .await;

    // Warm: everything that was ever seen is listed, though now nothing answers any more.
    ten.slow.turn(|knobs| knobs.hello_delay = SLOW * 100);
    ten.good[0].turn(|knobs| knobs.list_delay = SLOW * 100);
    ten.good[1].turn(|knobs| knobs.hello_delay = SLOW * 100);
    gateway.restart().await;
    let (_, tools) = first_list(&gateway, &key, AT_ONCE).await;
    assert_eq!(tools, [tools_of(&GOOD), tools_of(&["slow"])].concat());
    // A list that is not answered does not keep calls from a server that is known.
    let client = gateway.client("all", &key).await;
    gateway.ready("one").await;
    assert_eq!(client.text_of("one__echo", json!({"value": "y"})).await, "y");
}

#[tokio::test]
async fn a_server_that_is_added_later_is_waited_for_though_others_are_known() {
    let settings = format!("[lists]\nfirst_wait = \"{}s\"", FIRST_WAIT.as_secs());
    let mut gateway = Start::new().settings(&settings).run().await;
    let key = gateway.key("suite").await;
    let known = Remote::start(Knobs::default());
    gateway.remote("known", &known.url).await;
    gateway.publish("all", &["known"]).await;
    gateway.ready("known").await;
    gateway.restart().await;
    let hello_delay = Duration::from_millis(700);
    let added = Remote::start(Knobs { hello_delay, ..Knobs::default() });
    gateway.remote("added", &added.url).await;
    let members = json!([{"server": "known"}, {"server": "added"}]);
    gateway.replace("namespaces/all/servers", members).await;
    let (_, tools) = first_list(&gateway, &key, FIRST_WAIT + AT_ONCE).await;
    assert_eq!(tools, tools_of(&["known", "added"]));
}
