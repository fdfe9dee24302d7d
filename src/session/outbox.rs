//! What waits for a client over SSE to read its stream: so many messages, and so many bytes of them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc::{
    self,
    error::{TryRecvError, TrySendError},
};

/// Where messages are put.
#[derive(Debug)]
pub struct Outbox {
    sender: mpsc::Sender<Bytes>,
    waiting: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Where they come out, in order.
#[derive(Debug)]
pub struct Outgoing {
    receiver: mpsc::Receiver<Bytes>,
    waiting: Arc<AtomicUsize>,
}

/// Why a message was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Unsent {
    /// Nobody will read it.
    Closed,
    /// Too much waits already.
    Full,
}

/// For so many messages with so many bytes in all; where nothing waits, one of any size is taken.
pub fn outbox(messages_max: usize, bytes_max: usize) -> (Outbox, Outgoing) {
    let (sender, receiver) = mpsc::channel(messages_max.max(1));
    let waiting = Arc::new(AtomicUsize::new(0));
    let outgoing = Outgoing { receiver, waiting: waiting.clone() };
    (Outbox { sender, waiting, bytes_max }, outgoing)
}

impl Outbox {
    pub fn send(&self, message: Bytes) -> Result<(), Unsent> {
        let length = message.len();
        let before = self.waiting.fetch_add(length, Ordering::Relaxed);
        let hit = |limit: &'static str| {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => limit).increment(1);
            Unsent::Full
        };
        let sent = match before > 0 && before + length > self.bytes_max {
            true => Err(hit("sessions.stream_bytes_max")),
            false => self.sender.try_send(message).map_err(|error| match error {
                TrySendError::Closed(_) => Unsent::Closed,
                TrySendError::Full(_) => hit("sessions.stream_buffer"),
            }),
        };
        if sent.is_err() {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
        }
        sent
    }

    pub fn has_room(&self) -> bool {
        self.sender.capacity() > 0 && self.waiting.load(Ordering::Relaxed) < self.bytes_max
    }
}

impl Outgoing {
    /// The next message; `None` when there will be no more. Safe to be dropped while it waits.
    pub async fn recv(&mut self) -> Option<Bytes> {
        let message = self.receiver.recv().await?;
        Some(self.out(message))
    }

    pub fn try_recv(&mut self) -> Result<Bytes, TryRecvError> {
        self.receiver.try_recv().map(|message| self.out(message))
    }

    fn out(&self, message: Bytes) -> Bytes {
        self.waiting.fetch_sub(message.len(), Ordering::Relaxed);
        message
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn what_waits_is_bounded_by_its_number_and_by_its_bytes() {
        let (outbox, mut outgoing) = outbox(3, 10);
        let send = |bytes: usize| outbox.send(vec![b'x'; bytes].into());
        assert_eq!(send(50), Ok(()), "where nothing waits, one of any size is taken");
        assert_eq!(send(1), Err(Unsent::Full));
        assert!(!outbox.has_room());
        assert_eq!(outgoing.recv().await.unwrap().len(), 50);
        for bytes in [4, 4, 1] {
            assert!(outbox.has_room());
            assert_eq!(send(bytes), Ok(()));
        }
        assert_eq!(send(1), Err(Unsent::Full), "they are as many as may be");
        assert_eq!(outgoing.try_recv().unwrap().len(), 4);
        assert_eq!(send(6), Err(Unsent::Full));
        assert_eq!(send(5), Ok(()));
        drop(outgoing);
        assert_eq!(outbox.send(Bytes::new()), Err(Unsent::Closed));
    }
}
