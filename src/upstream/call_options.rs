//! How calls are bounded.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use super::{
    breaker::BreakerOptions, conduct::StrikeOptions, dialogue::DialogueOptions,
    retries::RetryOptions, tasks::TaskOptions,
};

/// The limits of `calls` in the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallOptions {
    /// Longest time without a sign of life, unless the server's row says otherwise.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Longest time in all, unless the server's row says otherwise.
    #[serde(with = "humantime_serde")]
    pub total: Duration,
    /// Whether progress begins `timeout` anew.
    pub reset_on_progress: bool,
    /// What the URLs of the admin API begin with, for errors that only an operator can mend.
    #[serde(skip)]
    pub admin_url: Arc<str>,
    /// Calls that one upstream may have in flight.
    pub in_flight_max: usize,
    /// Calls that wait for their turn at one upstream when that many are.
    pub waiting_max: usize,
    /// How long a call waits for its turn.
    #[serde(with = "humantime_serde")]
    pub queue_wait: Duration,
    /// How long a call waits for an upstream that is starting.
    #[serde(with = "humantime_serde")]
    pub ready_wait: Duration,
    /// How long a call waits for an upstream that it woke, or that is being fetched.
    #[serde(with = "humantime_serde")]
    pub wake_wait: Duration,
    /// When a remote upstream is given a rest from calls.
    pub breaker: BreakerOptions,
    /// How many calls are sent again, of those that are certain not to have been carried out.
    pub retries: RetryOptions,
    /// What an upstream may do now and then, but not often.
    pub strikes: StrikeOptions,
    /// Notifications and questions of one call that wait for a slow client before some are dropped.
    pub events_max: usize,
    /// Messages that wait for an upstream to read them.
    pub queue_max: usize,
    /// How long an upstream may still be at work on a call that was taken back.
    #[serde(with = "humantime_serde")]
    pub doubt: Duration,
    /// Elicitations by URL of one upstream session whose completion may still be announced.
    pub elicitations_max: usize,
    /// Of calls that are made as tasks.
    pub tasks: TaskOptions,
}

impl CallOptions {
    /// The limits of what passes beside calls.
    pub fn dialogue(&self) -> DialogueOptions {
        let Self { doubt, events_max, elicitations_max, .. } = *self;
        DialogueOptions { doubt, events_max, elicitations_max }
    }
}
