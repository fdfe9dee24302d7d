//! Bodies come at a pace, or are given up: the server itself waits for them for ever.
//!
//! What a body may hold is left to whoever reads it.

use std::{
    cell::Cell,
    io::ErrorKind,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use actix_web::{
    HttpMessage,
    dev::{Payload, ServiceRequest},
    error::PayloadError,
};
use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::settings::ServerSettings;

/// How slowly a body may come.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    total: Duration,
    /// Bytes a second; 0: any.
    rate_min: u32,
    grace: Duration,
}

impl Pace {
    pub fn new(settings: &ServerSettings) -> Self {
        Self {
            total: settings.body_timeout,
            rate_min: settings.body_rate_min,
            grace: settings.body_grace,
        }
    }

    /// How long after it began a body is given up that has come so far: each byte buys time.
    fn until(&self, received: u64) -> Duration {
        if self.rate_min == 0 {
            return self.total;
        }
        let bought = Duration::from_millis(received.saturating_mul(1000) / u64::from(self.rate_min));
        self.grace.saturating_add(bought).min(self.total)
    }
}

/// Whether all of a request's body was read, once nobody reads it any more.
#[derive(Clone, Default)]
pub struct IsRead(Rc<Cell<bool>>);

impl IsRead {
    pub fn get(&self) -> bool {
        self.0.get()
    }
}

/// Has the body of this request come at this pace. `None` where it has none.
pub fn pace(request: &mut ServiceRequest, pace: Pace) -> Option<IsRead> {
    let inner = request.take_payload();
    if matches!(inner, Payload::None) {
        return None;
    }
    let is_read = IsRead::default();
    let body = Body { inner, pace, began: None, received: 0, given_up: None, is_read: is_read.clone() };
    request.set_payload(Payload::Stream { payload: Box::pin(body) });
    Some(is_read)
}

struct Body {
    inner: Payload,
    pace: Pace,
    /// When somebody first wanted to read it.
    began: Option<Instant>,
    received: u64,
    /// Made when there is something to wait for.
    given_up: Option<Pin<Box<Sleep>>>,
    is_read: IsRead,
}

impl Body {
    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        let next = ready!(Pin::new(&mut self.inner).poll_next(context));
        match &next {
            Some(Ok(chunk)) => self.received += chunk.len() as u64,
            Some(Err(_)) | None => self.is_read.0.set(true),
        }
        Poll::Ready(next)
    }
}

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.poll_inner(context);
        if polled.is_ready() {
            return polled;
        }
        let began = *self.began.get_or_insert_with(Instant::now);
        let until = began + self.pace.until(self.received);
        let given_up = self.given_up.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if given_up.deadline() != until {
            given_up.as_mut().reset(until);
        }
        ready!(given_up.as_mut().poll(context));
        Poll::Ready(Some(Err(PayloadError::Io(ErrorKind::TimedOut.into()))))
    }
}

impl Drop for Body {
    /// What has come and was of no interest counts as read.
    fn drop(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        while !self.is_read.get() && self.poll_inner(&mut context).is_ready() {}
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use futures_util::{StreamExt, stream};

    use super::*;

    const PACE: Pace = Pace {
        total: Duration::from_secs(15),
        rate_min: 1024,
        grace: Duration::from_secs(5),
    };

    #[test]
    fn a_body_has_as_long_as_its_bytes_have_bought() {
        for (received, milliseconds) in [
            (0, 5000),
            (10, 5009),
            (512, 5500),
            (1024, 6000),
            (10 * 1024, 15_000),
            (10 * 1024 + 1, 15_000),
            (u64::MAX, 15_000),
        ] {
            assert_eq!(PACE.until(received), Duration::from_millis(milliseconds), "{received}");
        }
        let any = Pace { rate_min: 0, ..PACE };
        assert_eq!(any.until(0), any.total);
        let short = Pace { total: Duration::from_secs(1), ..PACE };
        assert_eq!(short.until(0), short.total, "the grace is no longer than the whole");
    }

    /// When a body was given up that comes by so many bytes a second, and whether it was read.
    async fn comes_by(bytes: usize) -> (Option<Duration>, bool) {
        let drips = stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(Bytes::from(vec![b'x'; bytes])), ()))
        });
        let mut request = TestRequest::default().to_srv_request();
        request.set_payload(Payload::Stream { payload: Box::pin(drips.take(12)) });
        let is_read = pace(&mut request, PACE).unwrap();
        let began = Instant::now();
        let mut body = request.take_payload();
        while let Some(chunk) = body.next().await {
            if chunk.is_err() {
                drop(body);
                return (Some(began.elapsed()), is_read.get());
            }
        }
        (None, is_read.get())
    }

    #[actix::test]
    async fn one_that_drips_is_given_up_and_one_that_is_slow_enough_is_not() {
        tokio::time::pause();
        let (given_up, is_read) = comes_by(2).await;
        assert!(!is_read);
        assert!(given_up.is_some_and(|after| after < Duration::from_secs(6)), "{given_up:?}");
        assert_eq!(comes_by(1024).await, (None, true));
    }

    #[actix::test]
    async fn what_came_and_was_not_looked_at_counts_as_read() {
        let mut request = TestRequest::default().set_payload("some").to_srv_request();
        let is_read = pace(&mut request, PACE).unwrap();
        assert!(!is_read.get());
        drop(request);
        assert!(is_read.get());
    }
}
