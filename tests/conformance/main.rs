//! The official conformance suite, in both of its versions, as the judge of both our faces: in front
//! of a server that offers everything the suite asks for, nothing may be lost that this server has
//! when it is asked directly; and what we send to servers must be right by every scenario there is
//! for clients, those of OAuth excepted.
//!
//! No failure is expected, so there is no list of them. Everything that the suite noted lies under
//! `target/tmp/conformance` afterwards.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on says so")]

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the vocabulary is the gateway chapters'; this needs a part of it"
)]
mod support;

mod client_face;
mod ledger;
mod node;
mod server_face;
mod suite;

use tokio::sync::{Mutex, MutexGuard};

/// Scenarios measure time, and two at once are one too many for a small machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Waits for this test's turn; nothing where the suite cannot run.
async fn turn() -> Option<MutexGuard<'static, ()>> {
    if node::is_missing() {
        return None;
    }
    Some(ONE_AT_A_TIME.lock().await)
}
