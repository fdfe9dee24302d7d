//! The writing end of a connection: answers, event streams, and ways to spoil them.

use std::{
    io::{self, ErrorKind, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use rustix::net::sockopt;

/// How often it is looked whether a client that waits has gone.
const GLANCE: Duration = Duration::from_millis(5);

/// A connection as an answer sees it.
#[derive(Debug)]
pub struct Line {
    socket: TcpStream,
    /// Bytes of a body that may still be sent before the connection is cut.
    left: Option<u64>,
    streaming: bool,
}

impl Line {
    pub fn new(socket: TcpStream) -> Line {
        Line { socket, left: None, streaming: false }
    }

    /// Cuts the connection after so many bytes of the body that follows.
    pub fn cut_after(&mut self, bytes: u64) {
        self.left = Some(bytes);
    }

    /// A whole answer.
    pub fn answer(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        self.head(status, headers, Some(body.len()))?;
        self.body(body)
    }

    /// The head of an answer; of one without a length the body comes in chunks.
    pub fn head(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        length: Option<usize>,
    ) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&match length {
            Some(length) => format!("content-length: {length}\r\n\r\n"),
            None => "transfer-encoding: chunked\r\n\r\n".to_owned(),
        });
        self.socket.write_all(head.as_bytes())
    }

    /// Begins an event stream, unless it has begun.
    pub fn stream(&mut self, headers: &[(&str, &str)]) -> io::Result<()> {
        if self.streaming {
            return Ok(());
        }
        self.streaming = true;
        let kind = [("content-type", "text/event-stream"), ("cache-control", "no-cache")];
        self.head(200, &[&kind, headers].concat(), None)
    }

    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// An event of the stream, with an id where it has one.
    pub fn event(&mut self, id: Option<&str>, data: &[u8]) -> io::Result<()> {
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        let event = [id.as_bytes(), b"data: ", data, b"\n\n"].concat();
        self.chunk(&event)
    }

    /// A piece of a body in chunks. Where the body is to be cut, so is the piece.
    pub fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let allowed = self.allowed(bytes.len());
        self.socket.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        self.socket.write_all(&bytes[..allowed])?;
        if allowed < bytes.len() {
            return self.cut();
        }
        self.socket.write_all(b"\r\n")
    }

    /// Ends a body in chunks.
    pub fn finish(&mut self) -> io::Result<()> {
        self.streaming = false;
        self.socket.write_all(b"0\r\n\r\n")
    }

    /// A body whose length was said in the head, or a part of it.
    pub fn body(&mut self, bytes: &[u8]) -> io::Result<()> {
        let allowed = self.allowed(bytes.len());
        self.socket.write_all(&bytes[..allowed])?;
        match allowed < bytes.len() {
            true => self.cut(),
            false => Ok(()),
        }
    }

    fn allowed(&mut self, wanted: usize) -> usize {
        let Some(left) = &mut self.left else { return wanted };
        let allowed = wanted.min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= allowed as u64;
        allowed
    }

    /// Closes the connection. What is being answered is over, so it is an error.
    pub fn cut(&mut self) -> io::Result<()> {
        drop(self.socket.shutdown(Shutdown::Both));
        Err(ErrorKind::ConnectionAborted.into())
    }

    /// Resets the connection: what is on its way is thrown away.
    pub fn reset(&mut self) -> io::Result<()> {
        sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO))?;
        // Reading ends without a word to the other side; the reset comes when the last handle is dropped.
        drop(self.socket.shutdown(Shutdown::Read));
        Err(ErrorKind::ConnectionReset.into())
    }

    /// Waits so long; whether the client is still there at the end, and for all that time.
    pub fn rest(&self, time: Duration) -> bool {
        let began = Instant::now();
        loop {
            if self.is_gone() {
                return false;
            }
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(GLANCE));
        }
    }

    fn is_gone(&self) -> bool {
        let mut byte = [0];
        let looked = self.socket.set_nonblocking(true).and_then(|()| self.socket.peek(&mut byte));
        // Where even that fails nothing more can be said by this socket.
        let gone = match looked {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        self.socket.set_nonblocking(false).is_err() || gone
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500..=599 => "Server Error",
        _ => "Something",
    }
}
