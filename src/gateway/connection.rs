//! A connection of a client, as the server reads and writes it.
//!
//! It sees why it ends, which the server keeps to itself, and ends where the server would wait for ever.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::rt::net::TcpStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::turn::{HeadEnd, Turn, Whose};
use crate::endpoint::Teller;

pub struct Connection {
    pub stream: TcpStream,
    pub teller: Teller,
    pub turn: Turn,
    header_timeout: Duration,
    head: HeadEnd,
    /// Whether a head has come to its end that the server has not seen yet.
    is_whole: bool,
    /// How many heads the server had seen when something was last read.
    heads: u64,
    /// When nothing more is read: a head that has begun did not come.
    over: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// `header_timeout`: how long the head of a request may take to arrive.
    pub fn new(stream: TcpStream, header_timeout: Duration) -> Self {
        Self {
            stream,
            teller: Teller::default(),
            turn: Turn::default(),
            header_timeout,
            head: HeadEnd::default(),
            is_whole: false,
            heads: 0,
            over: None,
        }
    }

    /// Winds the clock for what is read after this piece.
    fn wind(&mut self, piece: &[u8]) {
        let is_anew = self.turn.heads() != self.heads;
        if is_anew || self.turn.whose() != Whose::Clients {
            self.heads = self.turn.heads();
            (self.over, self.head, self.is_whole) = (None, HeadEnd::default(), false);
        }
        if self.turn.whose() != Whose::Clients || piece.is_empty() || self.is_whole {
            return;
        }
        if self.turn.is_left() {
            self.over = None;
            return;
        }
        self.is_whole = self.head.ends(piece);
        if self.is_whole {
            // What follows is its body, until the server has seen the head.
            self.over = None;
        } else if self.head.has_begun() {
            let header_timeout = self.header_timeout;
            self.over.get_or_insert_with(|| Box::pin(sleep(header_timeout)));
        }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.stream)
    }

    /// The kernel gives the cause to whoever asks first, by reading or by writing, and to nobody else.
    fn look<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && error.kind() == ErrorKind::TimedOut
        {
            self.teller.cut();
        }
        polled
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = self.stream().poll_read(context, into);
        self.wind(&into.filled()[before..]);
        if let Some(over) = &mut self.over
            && over.as_mut().poll(context).is_ready()
        {
            into.set_filled(before);
            return Poll::Ready(Ok(()));
        }
        self.look(polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream().poll_write(context, bytes);
        self.look(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream().poll_write_vectored(context, slices);
        self.look(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream().poll_flush(context);
        self.look(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream().poll_shutdown(context);
        self.look(polled)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::net::TcpListener;

    use super::*;

    async fn connection() -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        Connection::new(stream, Duration::from_secs(5))
    }

    impl Connection {
        /// Whether somebody is waited for by the clock after these pieces were read.
        fn waits_after(&mut self, pieces: &[&str]) -> bool {
            pieces.iter().for_each(|piece| self.wind(piece.as_bytes()));
            self.over.is_some()
        }

        fn answers(&self) {
            self.turn.begin();
            self.turn.end();
        }
    }

    #[tokio::test]
    async fn a_head_that_has_begun_is_waited_for_and_nothing_else_is() {
        let mut connection = connection().await;
        assert!(
            !connection.waits_after(&["GET / HT"]),
            "the server has a clock for the first head"
        );
        connection.answers();
        assert!(!connection.waits_after(&[""]), "nothing is asked");
        assert!(!connection.waits_after(&["\r\n"]), "some clients end a body by an empty line");
        assert!(connection.waits_after(&["POST / HTTP/1.1\r\n"]));
        assert!(connection.waits_after(&["", "X: y\r\n"]));
        assert!(!connection.waits_after(&["\r\n"]), "it has come");
        assert!(!connection.waits_after(&["{\"a\":", "1}"]), "its body has a pace of its own");
        connection.answers();
        assert!(!connection.waits_after(&[""]));
        assert!(connection.waits_after(&["G"]));
        connection.turn.begin();
        assert!(!connection.waits_after(&["{"]), "it is answered");
    }
}
