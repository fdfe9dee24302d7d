//! Bodies come at a pace, or are given up: the server itself waits for them for ever.
//!
//! What a body may hold is left to whoever reads it.

use std::{
    io::ErrorKind,
    pin::Pin,
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

use super::turn::Turn;
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
        let bought =
            Duration::from_millis(received.saturating_mul(1000) / u64::from(self.rate_min));
        self.grace.saturating_add(bought).min(self.total)
    }
}

/// Has the body of this request come at this pace.
pub fn pace(request: &mut ServiceRequest, pace: Pace, turn: &Turn) {
    let inner = request.take_payload();
    if matches!(inner, Payload::None) {
        return;
    }
    let body = Body {
        inner: Some(inner),
        pace,
        turn: turn.clone(),
        is_awaited: false,
        began: None,
        received: 0,
        given_up: None,
    };
    request.set_payload(Payload::Stream { payload: Box::pin(body) });
}

struct Body {
    /// `None` when it was read to its end.
    inner: Option<Payload>,
    pace: Pace,
    turn: Turn,
    /// Whether it was asked for and did not come at once.
    is_awaited: bool,
    /// When it was first waited for.
    began: Option<Instant>,
    received: u64,
    /// Made when there is something to wait for.
    given_up: Option<Pin<Box<Sleep>>>,
}

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        if let Poll::Ready(next) = Pin::new(inner).poll_next(context) {
            match &next {
                Some(Ok(chunk)) => self.received += chunk.len() as u64,
                Some(Err(_)) | None => self.inner = None,
            }
            return Poll::Ready(next);
        }
        if !self.is_awaited {
            // The server has it asked for before it looks whether it came together with its head, as nearly
            // all do. So a clock is made only for one that is asked for once more.
            self.is_awaited = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
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
    fn drop(&mut self) {
        let Some(mut unread) = self.inner.take() else { return };
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut unread).poll_next(&mut context) {
                Poll::Ready(Some(Ok(_))) => {}
                // It has come whole, and was of no interest.
                Poll::Ready(Some(Err(_)) | None) => return,
                Poll::Pending => return self.turn.leave(unread),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use futures_util::{StreamExt, stream};

    use super::*;

    const PACE: Pace =
        Pace { total: Duration::from_secs(15), rate_min: 1024, grace: Duration::from_secs(5) };

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

    /// When a body was given up that comes by so many bytes a second, and whether some of it was left.
    async fn comes_by(bytes: usize) -> (Option<Duration>, bool) {
        let drips = stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(Bytes::from(vec![b'x'; bytes])), ()))
        });
        let mut request = TestRequest::default().to_srv_request();
        request.set_payload(Payload::Stream { payload: Box::pin(drips.take(12)) });
        let turn = Turn::default();
        pace(&mut request, PACE, &turn);
        let began = Instant::now();
        let mut body = request.take_payload();
        let mut given_up = None;
        while let Some(chunk) = body.next().await {
            if chunk.is_err() {
                given_up = Some(began.elapsed());
                break;
            }
        }
        drop(body);
        (given_up, turn.is_left())
    }

    #[actix::test]
    async fn one_that_drips_is_given_up_and_one_that_is_slow_enough_is_not() {
        tokio::time::pause();
        let (given_up, is_left) = comes_by(2).await;
        assert!(is_left, "the server is to see that it was not read");
        assert!(given_up.is_some_and(|after| after < Duration::from_secs(6)), "{given_up:?}");
        assert_eq!(comes_by(1024).await, (None, false));
    }

    #[actix::test]
    async fn what_nobody_reads_is_left_until_the_next_head() {
        let turn = Turn::default();
        let leave = |rest: Payload| {
            let mut request = TestRequest::default().to_srv_request();
            request.set_payload(rest);
            pace(&mut request, PACE, &turn);
            assert!(!turn.is_left());
        };
        leave(Payload::Stream { payload: Box::pin(stream::pending()) });
        assert!(turn.is_left());
        turn.begin();
        assert!(!turn.is_left());
        let whole = stream::iter([Ok(Bytes::from_static(b"some"))]);
        leave(Payload::Stream { payload: Box::pin(whole) });
        assert!(!turn.is_left(), "all of it has come");
    }
}
