//! What a client hears when our own code has failed at its request.

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
