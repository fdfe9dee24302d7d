//! What all upstreams share that keeps troubles from growing, made once for the daemon.

use std::sync::Arc;

use super::{call_options::CallOptions, ejections::Ejections, retries::Retries};

/// Clones are the same brakes.
#[derive(Clone)]
pub struct Brakes {
    pub ejections: Arc<Ejections>,
    pub retries: Arc<Retries>,
}

impl Brakes {
    pub fn new(options: &CallOptions) -> Self {
        Self {
            ejections: Arc::new(Ejections::new(options.breaker.ejected_percent_max)),
            retries: Arc::new(Retries::new(options.retries)),
        }
    }
}
