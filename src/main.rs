//! The beginning of every process of ours: a shim that guards a server, or a command of a person.

use std::process::ExitCode;

use metamcpd::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else: a shim stays small, reads no settings and starts no threads.
    if cli::shim::is_wanted(std::env::args_os()) {
        return cli::shim::run_shim();
    }
    cli::run()
}
