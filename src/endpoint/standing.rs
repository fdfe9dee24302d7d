//! The standing stream of a session: what belongs to no call, announcements, and comments that keep it
//! open.

use std::time::Duration;

use actix_web::HttpResponse;
use bytes::Bytes;
use tokio::{sync::watch, time::Instant};

use super::answers::{self, stream_of};
use crate::{
    session::Reader,
    wire::{ListCounts, sse},
};

pub struct Standing {
    reader: Reader,
    changes: watch::Receiver<ListCounts>,
    heartbeat: Duration,
    debounce: Duration,
    /// When the changes that the client has not been told of are to be announced.
    announce_at: Option<Instant>,
    first: Option<Bytes>,
}

impl Standing {
    /// `changes` counts the changes of the lists; `debounce` is how long they are gathered.
    pub fn new(
        reader: Reader,
        changes: watch::Receiver<ListCounts>,
        heartbeat: Duration,
        debounce: Duration,
    ) -> Self {
        let first = Some(reader.primer().unwrap_or(sse::HEARTBEAT));
        Self { reader, changes, heartbeat, debounce, announce_at: None, first }
    }

    pub fn serve(self) -> HttpResponse {
        answers::events().streaming(stream_of(self, async |standing| standing.next().await))
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let session = self.reader.session().clone();
        let until = Instant::now() + self.heartbeat;
        loop {
            let counts = *self.changes.borrow_and_update();
            let is_behind = session.unseen(&counts).next().is_some();
            // Counted from the first change, whatever is said meanwhile.
            self.announce_at = is_behind
                .then(|| self.announce_at.unwrap_or_else(|| Instant::now() + self.debounce));
            let announce_at = self.announce_at.unwrap_or(until);
            tokio::select! {
                biased;
                // What was said before the session ended is still sent; and a newer stream ends this.
                said = self.reader.next() => return said,
                () = session.ended.cancelled() => return None,
                () = tokio::time::sleep_until(announce_at), if is_behind => {
                    self.announce_at = None;
                    answers::announce(&session, &self.changes.borrow_and_update());
                }
                changed = self.changes.changed(), if !is_behind => {
                    // The namespace is gone, and with it the endpoint.
                    changed.ok()?;
                }
                () = tokio::time::sleep_until(until) => return Some(sse::HEARTBEAT),
            }
        }
    }
}
