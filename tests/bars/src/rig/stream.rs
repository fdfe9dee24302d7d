//! A connection as the kernel has it: the standing stream of a session, for clients that read it, and for
//! clients that do not.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
};

use super::Client;
use crate::Outcome;

/// Bytes of a receive buffer that is as small as the kernel makes one.
pub const TINY: u32 = 2_048;

/// Bytes that are read ahead of a line.
const AHEAD: usize = 16 << 10;

/// A stream of server-sent events, its head read.
#[derive(Debug)]
pub struct Stream {
    socket: BufReader<TcpStream>,
    line: Vec<u8>,
}

/// A connection that takes so many bytes before it has to read them; as many as usual without a number.
pub async fn connect(port: u16, buffer: Option<u32>) -> Outcome<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = buffer {
        // Before it connects: the window is agreed on then.
        socket.set_recv_buffer_size(bytes)?;
    }
    let socket = socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// The head of a request by this client, without the empty line at its end.
pub fn head(client: &Client, method: &str, port: u16) -> Outcome<String> {
    let mut head = format!("{method} {} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n", client.path);
    for (name, value) in &client.headers {
        head.push_str(&format!("{name}: {}\r\n", value.to_str()?));
    }
    Ok(head)
}

impl Stream {
    /// Opens the standing stream of a client's session, on a connection of its own.
    pub async fn open(client: &Client, port: u16, buffer: Option<u32>) -> Outcome<Stream> {
        let mut socket = connect(port, buffer).await?;
        let request = head(client, "GET", port)? + "\r\n";
        socket.write_all(request.as_bytes()).await?;
        let ahead = buffer.map_or(AHEAD, |bytes| bytes as usize);
        let mut stream = Stream { socket: BufReader::with_capacity(ahead, socket), line: vec![] };
        let status = String::from_utf8_lossy(stream.line().await?).into_owned();
        if !status.contains(" 200 ") {
            return Err(format!("no stream: {}", status.trim()).into());
        }
        while stream.line().await? != b"\r\n" {}
        Ok(stream)
    }

    /// The next line, of an event or of the frame around it.
    pub async fn line(&mut self) -> Outcome<&[u8]> {
        self.line.clear();
        match self.socket.read_until(b'\n', &mut self.line).await? {
            0 => Err("the stream has ended".into()),
            _ => Ok(&self.line),
        }
    }

    /// Whether it has ended by now. Reads what there is.
    pub fn has_ended(&mut self) -> bool {
        let mut piece = [0; 4_096];
        loop {
            match self.socket.get_ref().try_read(&mut piece) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}
