//! Clients that call as fast as they are answered, and look at every answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Outcome;

/// How hard and how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub lasts: Duration,
    pub connections: usize,
}

/// Where calls go, and what has to come back.
#[derive(Clone, Debug)]
pub struct Target {
    pub port: u16,
    pub path: String,
    pub headers: Vec<(header::HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// Every answer has to contain this.
    pub wanted: &'static str,
}

/// What was measured of one way in one round.
#[derive(Debug, Default)]
pub struct Taken {
    pub lasted: Duration,
    /// Each call's time.
    pub times: Vec<Duration>,
}

/// The text that the `echo` of every upstream is asked to say.
pub const MESSAGE: &str = concat!(
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
);

/// How often it says it, so that an answer has about 1 KB.
pub const REPEAT: usize = 8;

/// A call of a tool that echoes.
pub fn call(id: u64, tool: &str) -> String {
    serde_json::json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": tool, "arguments": {"message": MESSAGE, "repeat": REPEAT}},
    })
    .to_string()
}

impl Target {
    /// The upstream itself, or whatever passes everything on to it.
    pub fn direct(port: u16) -> Target {
        Target {
            port,
            path: "/mcp".to_owned(),
            headers: Vec::new(),
            body: call(7, "echo").into(),
            wanted: MESSAGE,
        }
    }

    fn request(&self) -> Outcome<Request<Full<Bytes>>> {
        let mut request = Request::post(&self.path)
            .header(header::HOST, format!("127.0.0.1:{}", self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(self.body.clone()))?)
    }
}

/// Loads one target by `plan.connections` clients at once.
pub async fn run(target: &Target, plan: &Plan) -> Outcome<Taken> {
    let mut clients = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        let socket = TcpStream::connect(("127.0.0.1", target.port)).await?;
        socket.set_nodelay(true)?;
        let (client, connection) = http1::handshake(TokioIo::new(socket)).await?;
        // Its end is seen by the client that sends next.
        tokio::spawn(async move { drop(connection.await) });
        clients.push(client);
    }
    let began = Instant::now();
    let until = began + plan.lasts;
    let runs = clients.into_iter().map(|client| call_until(client, target, until));
    let times = try_join_all(runs).await?.into_iter().flatten().collect();
    Ok(Taken { lasted: began.elapsed(), times })
}

async fn call_until(
    mut client: SendRequest<Full<Bytes>>,
    target: &Target,
    until: Instant,
) -> Outcome<Vec<Duration>> {
    let mut times = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        client.ready().await?;
        let response = client.send_request(target.request()?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        times.push(began.elapsed());
        let found = memchr::memmem::find(&body, target.wanted.as_bytes());
        if status != StatusCode::OK || found.is_none() {
            return Err(
                format!("a wrong answer: {status} {}", String::from_utf8_lossy(&body)).into()
            );
        }
    }
    Ok(times)
}
