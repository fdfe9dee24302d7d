//! A connection of a client, as the server reads and writes it.
//!
//! It sees why it ends, which the server keeps to itself, and ends where the server would wait for ever.
//! And it asks nothing more of the server while its client takes nothing of what was answered: the server
//! itself would go on, and keep all that it says.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix_web::rt::net::TcpStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::turn::{HeadEnd, Turn, Whose};
use crate::endpoint::Teller;

pub struct Connection {
    pub stream: TcpStream,
    pub teller: Teller,
    pub turn: Turn,
    header_timeout: Duration,
    idle_max: Duration,
    head: HeadEnd,
    /// Whether a head has come to its end that the server has not seen yet.
    is_whole: bool,
    /// How many heads the server had seen when something was last read.
    heads: u64,
    /// When nothing more is read: a head that has begun did not come.
    over: Option<Pin<Box<Sleep>>>,
    /// The same where nothing has been asked or said since then. The server's own clock for that is stopped by
    /// an empty line.
    idle: Option<Pin<Box<Sleep>>>,
    /// Whether what is written has to wait for the client.
    is_full: bool,
    /// Who would read on when it has not.
    reader: Option<Waker>,
}

impl Connection {
    /// `header_timeout`: how long the head of a request may take to arrive. `idle_max`: how long nothing may
    /// be asked after an answer, or said on a stream.
    pub fn new(stream: TcpStream, header_timeout: Duration, idle_max: Duration) -> Self {
        Self {
            stream,
            teller: Teller::default(),
            turn: Turn::default(),
            header_timeout,
            idle_max,
            head: HeadEnd::default(),
            is_whole: false,
            heads: 0,
            over: None,
            idle: None,
            is_full: false,
            reader: None,
        }
    }

    /// Notes what became of a write; one that goes through has what waits read.
    fn wrote(
        &mut self,
        polled: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &polled {
            self.teller.took(*bytes);
        }
        self.is_full = polled.is_pending();
        if !self.is_full {
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
            let until = Instant::now() + self.idle_max;
            let idle = self.idle.get_or_insert_with(|| Box::pin(sleep_until(until)));
            idle.as_mut().reset(until);
            // So that whoever reads is woken by it.
            let _is_over = idle.as_mut().poll(context);
        }
        self.look(polled)
    }

    /// Whether nothing more is read, since nothing has come for too long.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let is_over = |clock: &mut Option<Pin<Box<Sleep>>>, context: &mut Context<'_>| match clock {
            Some(clock) => clock.as_mut().poll(context).is_ready(),
            None => false,
        };
        let is_idle = self.turn.whose() == Whose::Clients && !self.head.has_begun();
        is_over(&mut self.over, context) || is_idle && is_over(&mut self.idle, context)
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
        if self.is_full {
            // The kernel tells whoever writes of the client's end as well.
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let before = into.filled().len();
        let polled = self.stream().poll_read(context, into);
        self.wind(&into.filled()[before..]);
        if self.is_over(context) {
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
        self.wrote(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream().poll_write_vectored(context, slices);
        self.wrote(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The server asks for it when it has written all that it had.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.teller.flushed();
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

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn connection() -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        Connection::new(stream, Duration::from_secs(5), Duration::from_secs(75))
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

    #[tokio::test]
    async fn who_asks_nothing_more_is_let_go_also_after_an_empty_line() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, minute) = (listener.accept().await.unwrap().0, Duration::from_secs(60));
        tokio::time::pause();
        let mut ours = Connection::new(stream, minute, minute);
        let mut pinned = Pin::new(&mut ours);
        let mut context = Context::from_waker(Waker::noop());
        let is_closed = |connection: Pin<&mut Connection>| {
            let mut space = [0; 16];
            let mut into = ReadBuf::new(&mut space);
            let read = connection.poll_read(&mut Context::from_waker(Waker::noop()), &mut into);
            read.is_ready() && into.filled().is_empty()
        };
        pinned.turn.begin();
        tokio::time::advance(minute * 10).await;
        assert!(!is_closed(pinned.as_mut()), "an answer may be long in coming");
        pinned.turn.end();
        for _ in 0..3 {
            assert!(pinned.as_mut().poll_write(&mut context, b"x").is_ready());
            tokio::time::advance(minute / 2).await;
            assert!(!is_closed(pinned.as_mut()), "something is said");
        }
        client.write_all(b"\r\n").await.unwrap();
        pinned.stream.readable().await.unwrap();
        assert!(!is_closed(pinned.as_mut()));
        tokio::time::advance(minute).await;
        assert!(is_closed(pinned.as_mut()));
    }

    #[tokio::test]
    async fn nothing_more_is_read_of_who_takes_nothing_of_what_was_answered() {
        use std::{
            sync::{
                Arc,
                atomic::{AtomicUsize, Ordering::SeqCst},
            },
            task::Wake,
        };

        #[derive(Default)]
        struct Woken(AtomicUsize);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, SeqCst);
            }
        }

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, minute) = (listener.accept().await.unwrap().0, Duration::from_secs(60));
        let mut ours = Connection::new(stream, minute, minute);
        let mut pinned = Pin::new(&mut ours);
        client.write_all(b"GET ").await.unwrap();
        pinned.stream.readable().await.unwrap();

        let woken = Arc::new(Woken::default());
        let waker = woken.clone().into();
        let mut context = Context::from_waker(&waker);
        let mut written = 0;
        while let Poll::Ready(count) = pinned.as_mut().poll_write(&mut context, &[b'x'; 65536]) {
            written += count.unwrap();
        }
        let mut space = [0; 16];
        let mut read = |connection: Pin<&mut Connection>, context: &mut Context<'_>| {
            let mut into = ReadBuf::new(&mut space);
            connection.poll_read(context, &mut into).map(|_| into.filled().to_vec())
        };
        assert_eq!(read(pinned.as_mut(), &mut context), Poll::Pending, "though there is something");

        client.read_exact(&mut vec![0; written]).await.unwrap();
        pinned.stream.writable().await.unwrap();
        let before = woken.0.load(SeqCst);
        assert!(pinned.as_mut().poll_write(&mut context, b"x").is_ready());
        assert!(woken.0.load(SeqCst) > before, "it is to be read on");
        assert_eq!(read(pinned.as_mut(), &mut context), Poll::Ready(b"GET ".to_vec()));
    }
}
