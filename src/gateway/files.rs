//! The open files of this process: how many there may be, and how many there are.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the operating system allows.
#[derive(Clone, Debug)]
pub struct Files {
    /// How many files may be open at once.
    pub max: usize,
    /// What was allowed before we took all that we may. It is what servers are given: a program that
    /// looks at every number it could have would else look at a million of them.
    pub before: Rlimit,
}

impl Files {
    /// Takes as many as this process may have.
    pub fn take_all() -> Self {
        let before = getrlimit(Resource::Nofile);
        let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
        let current = match setrlimit(Resource::Nofile, wanted) {
            Ok(()) => before.maximum,
            Err(error) => {
                tracing::warn!(%error, "no more files may be opened than at the start");
                before.current
            }
        };
        // None: as many as one likes.
        let max = current.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        metrics::gauge!("metamcpd_fds_max").set(max as f64);
        Self { max, before }
    }
}

/// Counts the open files, for the metrics. It reads a directory as long as there are files.
pub fn count() {
    match open() {
        Ok(open) => metrics::gauge!("metamcpd_fds_open").set(open as f64),
        // Where there is no file left, there is none to count them by either.
        Err(error) => tracing::debug!(%error, "the open files could not be counted"),
    }
}

fn open() -> io::Result<usize> {
    // The directory that is read is one of them.
    Ok(std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}
