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
            over: None,
        }
    }

    /// Winds the clock for what is read after this piece.
    fn wind(&mut self, piece: &[u8]) {
        match self.turn.whose() {
            Whose::Newcomers | Whose::Ours => {
                self.over = None;
                self.head = HeadEnd::default();
            }
            Whose::Clients if piece.is_empty() => {}
            Whose::Clients if self.turn.is_left() || self.head.ends(piece) => self.over = None,
            Whose::Clients => {
                let header_timeout = self.header_timeout;
                self.over.get_or_insert_with(|| Box::pin(sleep(header_timeout)));
            }
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
