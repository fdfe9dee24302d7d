//! What every event stream of the API has in common: its headers, its heartbeat, and the word for what a
//! watcher that reads too slowly has missed.

use std::{convert::Infallible, time::Duration};

use actix_web::{HttpResponse, http::header, web::Bytes};
use futures_util::{Stream, StreamExt};
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::{failpoint, wire::sse};

/// The answer whose body is this stream.
pub fn answer(events: impl Stream<Item = Result<Bytes, Infallible>> + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-cache, no-transform"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(events.inspect(|_| failpoint::pass("watch")))
}

/// The pace of comments while there is nothing to say.
pub fn heartbeat(period: Duration) -> Interval {
    let period = period.max(Duration::from_millis(1));
    let mut heartbeat = interval_at(Instant::now() + period, period);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat
}

/// So many events were not read in time.
pub fn missed(count: u64) -> Bytes {
    metrics::counter!("metamcpd_events_missed_total").increment(count);
    let data = json!({ "count": count }).to_string();
    sse::named("missed", data.as_bytes())
}
