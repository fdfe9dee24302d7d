//! In what ways an upstream that runs is not as it should be.

use serde::Serialize;
use utoipa::ToSchema;

/// One of them. The words are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Degradation {
    /// It asked to be left alone for a while (429, or 503 with `Retry-After`), and is.
    Throttled,
    /// Call after call has failed; calls are held back, and one at a time finds out whether it is well.
    CircuitOpen,
    /// It fails again and again, though each time it comes back.
    Flapping,
    /// Several calls had no answer in time.
    Slow,
    /// It writes much on stdout that is no message.
    StdoutNoise,
}
