//! How the gateway bears three hundred upstreams with twenty tools each: starts, lists, admin pages,
//! changes and calls, with the real binary and real sockets. `cargo bench --bench scale`.
//!
//! It prints figures and judges nothing but that all of it works; what they should be is for people.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures are for stdout, and what the harness complains of for stderr"
)]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the suite's harness, of which this needs a part")]
mod support;

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::Method, rt, web};
use reqwest::Method as Verb;
use serde_json::{Value, json};
use support::{Client, TestGateway, gateway::Start, wait_until};

/// Upstreams behind Streamable HTTP, all of them in this process.
const REMOTE: usize = 290;
/// Upstreams that are processes.
const PROCESSES: usize = 10;
/// Tools of each remote upstream.
const TOOLS: usize = 20;

/// How long a start of everything may take before this gives up.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port = upstreams();
    let files = tempfile::tempdir().expect("a temporary directory");
    let file = files.path().join("mcp.json");
    let remote = (0..REMOTE).map(|number| {
        (format!("remote{number}"), json!({"url": format!("http://127.0.0.1:{port}/{number}/mcp")}))
    });
    let demo = json!({"command": "metamcpd", "args": ["demo-upstream"]});
    let processes = (0..PROCESSES).map(|number| (format!("process{number}"), demo.clone()));
    let servers: serde_json::Map<String, Value> = remote.chain(processes).collect();
    std::fs::write(&file, json!({"mcpServers": servers}).to_string()).expect("the file");

    let began = Instant::now();
    let start = Start::new().settings("[log]\nlevel = \"warn\"").import(&file);
    let mut gateway = start.run().await;
    say("cold: start to `ready`", millis(began.elapsed()));
    let key = gateway.fact("api key").expect("the first start makes a key");
    let (client, _) = first_list(&gateway, &key, "cold").await;
    all_ready(&gateway, began, "cold").await;
    say("cold: CPU until all are READY", format!("{} ms", cpu_ms(gateway.pid())));
    let tools = wait_until("every tool", PATIENCE, async || {
        let tools = client.tools().await;
        (tools.len() >= REMOTE * TOOLS).then_some(tools)
    })
    .await;
    say("tools listed", tools.len());
    say("resident memory", format!("{} MiB", rss_mib(gateway.pid())));

    lists(&client).await;
    admin(&gateway).await;
    calls(&gateway, &client).await;
    say("resident memory at the end", format!("{} MiB", rss_mib(gateway.pid())));

    gateway.stop().await;
    let began = Instant::now();
    gateway.restart().await;
    say("warm: start to `ready`", millis(began.elapsed()));
    let (_, listed) = first_list(&gateway, &key, "warm").await;
    assert_eq!(listed, tools.len(), "a warm start knows every tool");
    all_ready(&gateway, began, "warm").await;
    say("warm: CPU until all are READY", format!("{} ms", cpu_ms(gateway.pid())));
}

async fn first_list(gateway: &TestGateway, key: &str, when: &str) -> (Client, usize) {
    let began = Instant::now();
    let client = gateway.client("default", key).await;
    say(&format!("{when}: initialize"), millis(began.elapsed()));
    let began = Instant::now();
    let listed = client.tools().await.len();
    say(&format!("{when}: first list, {listed} tools"), millis(began.elapsed()));
    (client, listed)
}

async fn all_ready(gateway: &TestGateway, began: Instant, when: &str) {
    wait_until("all to be READY", PATIENCE, async || {
        let servers = gateway.items("mcp-servers?limit=500").await;
        let ready = |server: &&Value| server["runtime"]["state"] == "READY";
        (servers.iter().filter(ready).count() == REMOTE + PROCESSES).then_some(())
    })
    .await;
    say(&format!("{when}: start to all READY"), millis(began.elapsed()));
}

async fn lists(client: &Client) {
    let (mut times, mut bytes) = (Vec::new(), 0);
    for id in 0..100 {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"}).to_string();
        let began = Instant::now();
        let reply = client.post(&request).await;
        times.push(began.elapsed());
        bytes = reply.messages.iter().map(String::len).sum();
    }
    say(&format!("tools/list, {} KiB", bytes / 1024), spread(times));
}

async fn admin(gateway: &TestGateway) {
    for path in
        ["mcp-servers", "mcp-servers?limit=500", "namespaces", "namespaces/default/tools?limit=100"]
    {
        let mut times = Vec::new();
        for _ in 0..20 {
            let began = Instant::now();
            gateway.get(path).await;
            times.push(began.elapsed());
        }
        say(&format!("GET {path}"), spread(times));
    }
    let page = gateway.items("namespaces/default/tools?limit=20").await;
    let mut times = Vec::new();
    for tool in &page {
        let path = format!("namespaces/default/tools/{}", tool["uuid"].as_str().unwrap());
        for status in ["INACTIVE", "ACTIVE"] {
            let began = Instant::now();
            gateway.change(&path, json!({"status": status})).await;
            times.push(began.elapsed());
        }
    }
    say("PATCH of a tool", spread(times));
    let mut times = Vec::new();
    for number in 0..20 {
        let began = Instant::now();
        gateway.change("mcp-servers/remote1", json!({"description": number.to_string()})).await;
        times.push(began.elapsed());
    }
    say("PATCH of a server", spread(times));
    let began = Instant::now();
    let (_, answer) = gateway.admin(Verb::POST, "namespaces/default/refresh", None).await;
    let items = answer["items"].as_array().unwrap();
    let listed = items.iter().filter(|item| item["outcome"] == "listed").count();
    say(&format!("refresh of all, {listed} listed"), millis(began.elapsed()));
}

async fn calls(gateway: &TestGateway, client: &Client) {
    say("calls one by one", call_times(client, 1000).await);
    let changes = async {
        let page = gateway.items("namespaces/default/tools?limit=40").await;
        let mut began = Vec::new();
        for (tool, status) in page.iter().flat_map(|tool| [(tool, "INACTIVE"), (tool, "ACTIVE")]) {
            let path = format!("namespaces/default/tools/{}", tool["uuid"].as_str().unwrap());
            let start = Instant::now();
            gateway.change(&path, json!({"status": status})).await;
            began.push(start.elapsed());
        }
        spread(began)
    };
    let (during, changes) = tokio::join!(call_times(client, 1000), changes);
    say("calls one by one while tools are PATCHed", during);
    say("PATCH of a tool while there are calls", changes);
}

async fn call_times(client: &Client, count: usize) -> String {
    let mut times = Vec::new();
    for number in 0..count {
        let tool = format!("remote{}__tool{}", 250 + number % 40, number % TOOLS);
        let began = Instant::now();
        let text = client.text_of(&tool, json!({"number": number})).await;
        times.push(began.elapsed());
        assert_eq!(text, format!("tool{}", number % TOOLS));
    }
    spread(times)
}

/// The upstreams, in a thread of their own; their port.
fn upstreams() -> u16 {
    let (told, tell) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        rt::System::new().block_on(async move {
            let app = || App::new().route("/{number}/mcp", web::to(serve));
            let server = HttpServer::new(app).workers(1).disable_signals().backlog(4096);
            let server = server.bind(("127.0.0.1", 0)).expect("a free port");
            told.send(server.addrs()[0].port()).expect("somebody waits");
            server.run().await.expect("the upstreams serve");
        });
    });
    tell.recv().expect("the upstreams start")
}

async fn serve(request: HttpRequest, body: web::Bytes, number: web::Path<usize>) -> HttpResponse {
    let message: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if *request.method() == Method::DELETE {
        return HttpResponse::NoContent().finish();
    }
    if *request.method() != Method::POST {
        return HttpResponse::MethodNotAllowed().finish();
    }
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {"listChanged": true}},
            "serverInfo": {"name": "scale", "version": "1"},
        }),
        "tools/list" => {
            json!({"tools": (0..TOOLS).map(|tool| describe(*number, tool)).collect::<Vec<_>>()})
        }
        "tools/call" => json!({"content": [{"type": "text", "text": message["params"]["name"]}]}),
        "ping" => json!({}),
        _ => return HttpResponse::Accepted().finish(),
    };
    let id = &message["id"];
    HttpResponse::Ok()
        .insert_header(("mcp-session-id", "one"))
        .json(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

/// A tool of about the size that tools have.
fn describe(server: usize, tool: usize) -> Value {
    json!({
        "name": format!("tool{tool}"),
        "description": format!(
            "Tool {tool} of server {server}. It reads what it is given, thinks about it for a while, \
             and answers with its own name, which is all that a measurement asks of it."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "number": {"type": "integer", "description": "Which of many calls this is."},
                "path": {"type": "string", "description": "Where to look, relative to the root."},
                "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
            },
            "required": ["number"],
        },
    })
}

fn say(what: &str, figure: impl Display) {
    println!("{what:<46} {figure}");
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    format!("median {}, p99 {}, max {}", millis(at(0.5)), millis(at(0.99)), millis(at(1.0)))
}

fn rss_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// Processor time of the daemon itself. The kernel counts in hundredths of a second.
fn cpu_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after_name = stat.rsplit_once(") ").expect("its name").1;
    let fields = after_name.split(' ').skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10
}
