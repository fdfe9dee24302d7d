//! A Streamable HTTP upstream whose answers to calls are bytes that the test wrote, head and all. In
//! everything else it is a plain server with one tool, `t`. Each connection carries one request.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

/// A call, or what asks for the rest of its stream.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The id of a call.
    pub id: String,
    /// Its arguments.
    pub arguments: Value,
    /// Of who asks for the rest.
    pub last_event: Option<String>,
}

/// What is said to it.
#[derive(Clone, Debug)]
pub struct Said {
    pub bytes: Vec<u8>,
    pub then: Then,
}

/// What becomes of the connection after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Close,
    /// It stays as it is, and nothing more is said.
    Hang,
    /// The last so many bytes come one by one, at this pace.
    Drip(usize, Duration),
}

#[derive(Debug)]
pub struct Scripted {
    pub url: String,
    calls: Arc<AtomicUsize>,
    address: std::net::SocketAddr,
}

impl Said {
    pub fn whole(bytes: impl Into<Vec<u8>>) -> Said {
        Said { bytes: bytes.into(), then: Then::Close }
    }
}

/// An answer with its length.
pub fn answer(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\n{kind}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

type Script = dyn Fn(&Asked) -> Said + Send + Sync;

impl Scripted {
    pub fn start(script: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (script, calls): (Arc<Script>, Arc<AtomicUsize>) = (Arc::new(script), Arc::default());
        let counted = calls.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Nobody calls any more when the test has ended.
                if Arc::strong_count(&counted) == 1 {
                    return;
                }
                let (script, calls) = (script.clone(), counted.clone());
                std::thread::spawn(move || serve(stream, &*script, &calls));
            }
        });
        Scripted { url: format!("http://{address}/mcp"), calls, address }
    }

    /// How many calls came in.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.calls = Arc::default();
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: TcpStream, script: &Script, calls: &AtomicUsize) {
    let Some((http, headers, body)) = read(&stream) else { return };
    let last_event = headers.iter().find(|(name, _)| name == "last-event-id");
    let last_event = last_event.map(|(_, value)| value.clone());
    let id = body["id"].to_string();
    let said = match body["method"].as_str().unwrap_or_default() {
        "tools/call" => {
            calls.fetch_add(1, Ordering::SeqCst);
            let arguments = body["params"]["arguments"].clone();
            script(&Asked { id, arguments, last_event })
        }
        _ if http == "GET" && last_event.is_some() => {
            script(&Asked { id, arguments: Value::Null, last_event })
        }
        _ if http == "GET" => Said::whole(answer("405 Not Allowed", "", b"")),
        _ if http == "DELETE" => Said::whole(answer("204 Gone", "", b"")),
        method => Said::whole(plain(method, &body)),
    };
    let dripping = match said.then {
        Then::Drip(bytes, _) => bytes,
        Then::Close | Then::Hang => 0,
    };
    let (at_once, slowly) = said.bytes.split_at(said.bytes.len() - dripping);
    // Whoever hangs up has heard enough.
    let mut is_there = stream.write_all(at_once).is_ok();
    if let Then::Drip(_, pace) = said.then {
        for byte in slowly {
            std::thread::sleep(pace);
            is_there = is_there && stream.write_all(&[*byte]).is_ok();
        }
    }
    if said.then == Then::Hang {
        drop(stream.read(&mut [0]));
    }
    drop(stream.shutdown(Shutdown::Both));
}

/// What a server says that knows nothing of the script.
fn plain(method: &str, body: &Value) -> Vec<u8> {
    let result = match method {
        "initialize" => json!({
            "protocolVersion": body["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "scripted", "version": "1"},
        }),
        "tools/list" => json!({"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}),
        _ if body.get("id").is_none() => return answer("202 Accepted", "", b""),
        _ => json!({}),
    };
    let message = json!({"jsonrpc": "2.0", "id": body["id"], "result": result}).to_string();
    let whole = answer("200 OK", "application/json", message.as_bytes());
    let session = b"HTTP/1.1 200 OK\r\nMcp-Session-Id: scripted\r\n".to_vec();
    [session, whole["HTTP/1.1 200 OK\r\n".len()..].to_vec()].concat()
}

type Request = (String, Vec<(String, String)>, Value);

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    };
    let http = line()?.split(' ').next()?.to_owned();
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((http, headers, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}
