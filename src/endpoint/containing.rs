//! What a client hears of a request that ended through no doing of its upstream: our own code has failed at
//! it, or its session has ended.

use crate::wire::{
    Fault,
    fault::{Blame, Data},
};

/// The outcome of a request whose handling panicked.
pub fn panicked() -> Fault {
    let data = Data {
        reason: "panicked",
        fault: Blame::Gateway,
        server: None,
        retry: false,
        uri: None,
        scope: None,
    };
    Fault::internal("the gateway has failed at this; its log has the place", data)
}

/// The answer to what its client did not take back, but can no longer be heard of.
pub fn session_ended() -> Fault {
    let data = Data {
        reason: "session_ended",
        fault: Blame::Gateway,
        server: None,
        retry: false,
        uri: None,
        scope: None,
    };
    Fault::internal(
        "the session ended before the call did; send `initialize` to begin a new one",
        data,
    )
}
