//! The last lines that a server wrote, and the secrets that nobody is to read in what it writes.
//!
//! A line is kept as it came and made readable when it is read: of a flood hardly any line is.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{UpstreamSpec, status::Output};
use crate::logs::hiding::Secrets;

/// What tells lines of stdout apart, in a tail that has both.
const STDOUT: &str = "[stdout] ";

/// The last lines of one server, which are read with the configured secrets hidden.
pub struct StderrTail {
    inner: Mutex<Tail>,
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<Line>,
    /// Whether the present process has written any of them.
    is_fresh: bool,
    secrets: Secrets,
}

struct Line {
    output: Output,
    text: String,
    is_readable: bool,
}

impl StderrTail {
    const LINES_MAX: usize = 20;

    pub fn new(spec: &UpstreamSpec) -> Self {
        let tail = Self { inner: Mutex::default() };
        tail.hide(spec);
        tail
    }

    /// Hides what this row holds as secrets, from now on.
    pub fn hide(&self, spec: &UpstreamSpec) {
        let mut tail = self.lock();
        // By the secrets that they were written under.
        tail.make_readable();
        tail.secrets.configure(spec.secrets());
    }

    /// Hides one more value: one that a `${VAR}` stood for.
    pub fn hide_value(&self, value: &str) {
        self.lock().secrets.resolve(value);
    }

    /// Hides tokens that were renewed.
    pub fn hide_renewed<'a>(&self, values: impl Iterator<Item = &'a str>) {
        self.lock().secrets.renew(values);
    }

    /// A text about this server as it may be read.
    pub fn hidden(&self, text: &str) -> String {
        self.lock().secrets.hide(text)
    }

    /// A line of this server as it may be read.
    pub fn readable(&self, output: Output, line: &str) -> String {
        readable(&self.lock().secrets, output, line)
    }

    /// Keeps a line.
    pub fn push(&self, output: Output, line: &str) {
        let mut tail = self.lock();
        if tail.lines.len() == Self::LINES_MAX {
            tail.lines.pop_front();
        }
        tail.lines.push_back(Line { output, text: line.to_owned(), is_readable: false });
        tail.is_fresh = true;
    }

    /// A new process begins. What the one before wrote stays to be read.
    pub fn begin(&self) {
        let mut tail = self.lock();
        tail.make_readable();
        tail.is_fresh = false;
        tail.secrets.begin();
    }

    /// The last line of the present process.
    pub fn last_words(&self) -> Option<String> {
        let mut tail = self.lock();
        tail.make_readable();
        tail.lines.back().filter(|_| tail.is_fresh).map(Line::marked)
    }

    pub fn lines(&self) -> Vec<String> {
        let mut tail = self.lock();
        tail.make_readable();
        tail.lines.iter().map(Line::marked).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Tail> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    fn make_readable(&mut self) {
        /// Of a line that is kept; the log has a limit of its own.
        const LENGTH_MAX: usize = 2_000;
        for line in self.lines.iter_mut().filter(|line| !line.is_readable) {
            line.text = readable(&self.secrets, line.output, &line.text);
            line.text.truncate(line.text.floor_char_boundary(LENGTH_MAX));
            line.is_readable = true;
        }
    }
}

impl Line {
    fn marked(&self) -> String {
        match self.output {
            Output::Stderr => self.text.clone(),
            Output::Stdout => format!("{STDOUT}{}", self.text),
        }
    }
}

/// Without secrets, and cut only then: a part of a secret would not be found.
fn readable(secrets: &Secrets, output: Output, line: &str) -> String {
    /// Of what does not belong on stdout, enough to recognise it.
    const STDOUT_MAX: usize = 300;
    let mut text = secrets.hide(line);
    if output == Output::Stdout {
        text.truncate(text.floor_char_boundary(STDOUT_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::spec;

    #[test]
    fn a_line_is_read_without_the_secrets_that_it_was_written_under() {
        let tail = StderrTail::new(&spec(1));
        tail.hide_value("first-secret");
        tail.push(Output::Stderr, "with first-secret");
        tail.push(Output::Stdout, &format!("{} first-secret", "x".repeat(290)));
        // What it was is forgotten after two more starts.
        (0..3).for_each(|_| tail.begin());
        tail.hide_value("another-secret");
        assert_eq!(tail.hidden("first-secret"), "first-secret");
        let lines = tail.lines();
        assert_eq!(lines[0], "with ***");
        assert_eq!(lines[1], format!("[stdout] {} ***", "x".repeat(290)));
        assert_eq!(tail.last_words(), None, "of the present process there is none");
        tail.push(Output::Stderr, "token=0123456789");
        assert_eq!(tail.last_words().as_deref(), Some("token=***"));
    }
}
