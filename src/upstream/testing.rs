//! Upstreams and limits for the tests of this room and of those above it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    Isolation, Listener, Reason, UpstreamSpec,
    brakes::Brakes,
    breaker::BreakerOptions,
    conduct::StrikeOptions,
    dialogue::{Dialogue, Scope},
    lifecycle::Patience,
    pipe::Pipe,
    port::CallOptions,
    retries::RetryOptions,
    spec::{CallLimits, Transport, Upkeep},
    status::{CatalogueChange, Output, Transition},
    tasks::TaskOptions,
};
use crate::catalogue::{item::Item, kind::Kind};

const SECOND: Duration = Duration::from_secs(1);

/// Hears everything and minds nothing.
pub struct Deaf;

impl Listener for Deaf {
    fn moved(&self, _: &Transition) {}
    fn listed(&self, _: Uuid, _: Kind, _: &Arc<Vec<Item>>) {}
    fn instructed(&self, _: Uuid, _: Option<&str>) {}
    fn not_listed(&self, _: Uuid, _: &str, _: Kind, _: &str) {}
    fn changed(&self, _: &CatalogueChange) {}
    fn wrote(&self, _: Uuid, _: &str, _: Output, _: &dyn Fn() -> String) {}
    fn lost_process(&self, _: Uuid, _: &str, _: Reason, _: &str) {}
}

/// An upstream called `u{id}`. It is never started for real.
pub fn spec(id: u128) -> UpstreamSpec {
    UpstreamSpec {
        id: Uuid::from_u128(id),
        name: format!("u{id}"),
        enabled: true,
        transport: Transport::Stdio {
            command: "x".into(),
            args: Vec::new(),
            env: Default::default(),
        },
        isolation: Isolation::Shared,
        limits: CallLimits { inactivity: SECOND, total: SECOND, reset_on_progress: true },
        connect_timeout: SECOND,
        may_use_variables: true,
        upkeep: Upkeep::default(),
    }
}

pub fn calls() -> CallOptions {
    CallOptions {
        timeout: SECOND,
        total: SECOND,
        reset_on_progress: true,
        admin_url: "http://gateway.example".into(),
        in_flight_max: 8,
        waiting_max: 8,
        queue_wait: SECOND,
        ready_wait: SECOND,
        wake_wait: SECOND,
        breaker: breaker(),
        retries: retries(),
        strikes: strikes(),
        events_max: 8,
        queue_max: 8,
        doubt: SECOND,
        elicitations_max: 2,
        tasks: tasks(),
    }
}

pub fn tasks() -> TaskOptions {
    TaskOptions {
        per_principal_max: 3,
        remember: 60 * SECOND,
        result_wait: 60 * SECOND,
        results_max: 2,
        poll_min: SECOND / 10,
        poll_max: 5 * SECOND,
        page: 2,
        list_wait: SECOND,
    }
}

/// A breaker that a few failures open.
pub fn breaker() -> BreakerOptions {
    BreakerOptions {
        failures: 3,
        failures_percent: 50,
        window_calls: 20,
        window: SECOND,
        open: SECOND,
        open_max: SECOND,
        ejected_percent_max: 50,
        retry_after_max: SECOND,
        retry_wait: SECOND,
    }
}

/// A few.
pub fn retries() -> RetryOptions {
    RetryOptions {
        percent_max: 10,
        window: 10 * SECOND,
        window_min: 3,
        attempts_max: 3,
        backoff_min: SECOND / 20,
        backoff_max: SECOND,
    }
}

/// Brakes that nobody else has.
pub fn brakes() -> Brakes {
    Brakes::new(&calls())
}

/// Nothing counts.
pub fn strikes() -> StrikeOptions {
    let window = SECOND;
    StrikeOptions { window, timeouts: 0, noise: 0, noise_max: 0, oversized: 0, unasked: 0 }
}

/// Little of it: rests of half a second at most.
pub fn patience() -> Patience {
    Patience {
        backoff_min: SECOND / 2,
        backoff_max: SECOND / 2,
        failures_burst: 3,
        burst_window: 60 * SECOND,
        failures_slow: 20,
        panics_burst: 2,
        failures_flapping: 5,
        slow_window: 900 * SECOND,
        probe_every: 60 * SECOND,
        probe_every_max: 300 * SECOND,
        steady_after: 600 * SECOND,
    }
}

/// A pipe whose server may be behind by so many messages, and what it is given to read.
pub fn pipe(queue_max: usize) -> (Arc<Pipe>, mpsc::Receiver<Bytes>) {
    let dialogue = Dialogue::new(Scope::Everyone, calls().dialogue());
    Pipe::new("test".into(), queue_max, Arc::new(dialogue))
}
