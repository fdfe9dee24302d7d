//! Tells of every panic once, where it happens: whoever catches it knows only that there was one.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
    thread,
};

/// Logs and counts every panic of this process from now on. Nothing is written to stderr beside the log.
pub fn watch() {
    panic::set_hook(Box::new(tell));
}

fn tell(panic: &PanicHookInfo<'_>) {
    metrics::counter!("metamcpd_panics_total").increment(1);
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    // A text that was put together may hold what nobody should read in a log; a literal cannot.
    let words = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown)");
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => {
            tracing::error!(%place, words, thread, %backtrace, "a part of the daemon panicked");
        }
        _ => tracing::error!(%place, words, thread, "a part of the daemon panicked"),
    }
}
