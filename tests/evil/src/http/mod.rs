//! A server over Streamable HTTP, of both eras: `/mcp` on a port of its own, a thread a connection.

mod call;
mod legacy;
mod line;
mod modern;
mod packed;
mod request;

use std::{
    collections::HashMap,
    io::{BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::{
    Outcome,
    character::Character,
    dice,
    fault::Fault,
    offer::{self, Answer},
    process,
};
use legacy::Session;
use line::Line;
pub use packed::bomb;
use request::Request;

/// What all connections of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    character: Character,
    address: SocketAddr,
    /// Whether it is a process of its own, which dies where it is told to.
    is_alone: bool,
    sessions: Mutex<HashMap<String, Session>>,
    open: Mutex<HashMap<u64, TcpStream>>,
    calls: AtomicU64,
    lists: AtomicU64,
    hellos: AtomicU64,
    streams: AtomicU64,
    ended: AtomicBool,
}

/// A running server. It ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Where clients are to go.
    pub url: String,
}

impl Server {
    /// Starts one in this process, on a port of its own.
    pub fn start(character: Character) -> Outcome<Server> {
        Server::listen("127.0.0.1:0", character, false)
    }

    fn listen(address: &str, character: Character, is_alone: bool) -> Outcome<Server> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            character,
            address,
            is_alone,
            sessions: Mutex::default(),
            open: Mutex::default(),
            calls: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            hellos: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Ok(Server { shared, url: format!("http://{address}/mcp") })
    }

    /// How many calls of tools it had.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    /// How often it was asked to begin a session.
    pub fn hellos(&self) -> u64 {
        self.shared.hellos.load(Ordering::Relaxed)
    }

    /// Whether it was told by a call to end.
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// Serves as a process of its own, and prints its URL.
pub fn run(address: &str, character: Character) -> Outcome<ExitCode> {
    for fault in character.now() {
        match fault {
            Fault::SlowStart(takes) => thread::sleep(*takes),
            Fault::EatMem(bytes) => process::eat_memory(bytes.0),
            Fault::EatCpu(threads) => process::eat_time(*threads),
            Fault::ExitNow(how) => process::end(*how),
            _ => {}
        }
    }
    let after = character.now().iter().find_map(|fault| match fault {
        Fault::ExitAfter(after) => Some(*after),
        _ => None,
    });
    character.note_start()?;
    let server = Server::listen(address, character, true)?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", server.url)?;
    output.flush()?;
    match after {
        Some(after) => {
            thread::sleep(after);
            process::end(crate::value::Exit::Code(1))
        }
        None => loop {
            thread::sleep(Duration::from_secs(3_600));
        },
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for number in 0_u64.. {
        let Ok((socket, _)) = listener.accept() else { return };
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // A connection that breaks is what half of all this is for.
            drop(converse(&shared, number, socket));
            shared.open().remove(&number);
        });
    }
}

fn converse(shared: &Shared, number: u64, socket: TcpStream) -> Outcome<()> {
    socket.set_nodelay(true)?;
    shared.open().insert(number, socket.try_clone()?);
    let slow = shared.character.now().iter().find_map(|fault| match fault {
        Fault::SlowAccept(takes) => Some(*takes),
        _ => None,
    });
    thread::sleep(slow.unwrap_or_default());
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut line = Line::new(socket);
    while let Some(request) = Request::read(&mut reader)? {
        serve(shared, &request, &mut line)?;
    }
    Ok(())
}

fn serve(shared: &Shared, request: &Request, line: &mut Line) -> std::io::Result<()> {
    if request.path.split('?').next() != Some("/mcp") {
        return line.answer(404, &[], b"");
    }
    let closed = shared.character.now().iter().find_map(|fault| match fault {
        Fault::Closed(code) => Some(*code),
        _ => None,
    });
    if let Some(code) = closed {
        return call::status(code, shared.character.now(), line);
    }
    let message: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    match modern::is_meant(request, &message) {
        true => modern::serve(shared, request, &message, line),
        false => legacy::serve(shared, request, line),
    }
}

impl Shared {
    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, method: &str, params: &Value) -> Answer {
        let lists = self.lists.fetch_add(u64::from(method == "tools/list"), Ordering::Relaxed) + 1;
        offer::answer(&self.character, method, params, lists)
    }

    /// Counts a call and notes its nonce; its number.
    fn count(&self, nonce: Option<&str>) -> u64 {
        // A journal that cannot be written is seen by whoever reads it.
        drop(nonce.map(|nonce| self.character.note_call(nonce)));
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes that the client of a call went before it was answered.
    fn note_gone(&self, nonce: Option<&str>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let line = format!("cancelled {} {now}", nonce.unwrap_or("nobody"));
        drop(self.character.note_call(&line));
    }

    /// An id that nobody has had.
    fn fresh(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        format!("evil-{:016x}", dice::mixed(now as u64 ^ u64::from(std::process::id()) << 40))
    }

    /// Ends the server and all its connections.
    fn end(&self) {
        if self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        // So that the one who accepts wakes and sees it.
        drop(TcpStream::connect(self.address));
        self.open().values().for_each(legacy::close);
    }
}
