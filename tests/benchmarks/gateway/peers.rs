//! The upstream that all ways over HTTP lead to: a Streamable HTTP server that does next to nothing,
//! in a process of its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
};

use actix_web::{App, HttpResponse, HttpServer, rt, web};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Outcome;

/// The upstream's process. It ends when this is dropped.
#[derive(Debug)]
pub struct Upstream {
    process: Child,
    pub port: u16,
}

/// Executes this program again as the upstream.
pub fn start() -> Outcome<Upstream> {
    let mut process = Command::new(std::env::current_exe()?)
        .arg("--upstream")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = process.stdout.take().ok_or("the upstream has no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let port = line.trim().parse()?;
    Ok(Upstream { process, port })
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Serves until its stdin is closed, so that it never outlives who started it.
pub fn serve() -> Outcome<()> {
    rt::System::new().block_on(async {
        let server = HttpServer::new(|| App::new().route("/mcp", web::to(answer)))
            .workers(1)
            .disable_signals()
            .bind(("127.0.0.1", 0))?;
        let port = server.addrs().first().ok_or("no address")?.port();
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{port}")?;
        stdout.flush()?;
        let server = server.run();
        let handle = server.handle();
        let (over, is_over) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            drop(std::io::stdin().read_to_end(&mut Vec::new()));
            drop(over);
        });
        rt::spawn(async move {
            // Nothing is ever sent: the other end is dropped.
            drop(is_over.await);
            handle.stop(false).await;
        });
        server.await?;
        Ok(())
    })
}

async fn answer(body: Bytes) -> HttpResponse {
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return HttpResponse::MethodNotAllowed().finish();
    };
    if message.get("id").is_none() {
        return HttpResponse::Accepted().finish();
    }
    let mut response = HttpResponse::Ok();
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => {
            response.insert_header(("mcp-session-id", "the-only-one"));
            json!({
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "bench", "version": "1"},
            })
        }
        "tools/list" => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
        "tools/call" => {
            let arguments = &message["params"]["arguments"];
            let said = arguments["message"].as_str().unwrap_or_default();
            let times = arguments["repeat"].as_u64().unwrap_or(1);
            let text = said.repeat(usize::try_from(times).unwrap_or(1));
            json!({"content": [{"type": "text", "text": text}]})
        }
        _ => json!({}),
    };
    response.json(json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
}
