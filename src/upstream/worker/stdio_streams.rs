//! The three streams of a child: what it says, what it is told, and what it complains of.

use std::{cell::RefCell, collections::VecDeque, os::fd::OwnedFd, sync::Arc, time::Duration};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::ChildStdin,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_process_stream::{Item, ProcessChunkStream};
use tokio_stream::StreamExt;

use super::{Assignment, carry_out, listing::Announcements, own_process::Scribe};
use crate::{
    aside::{Aside, aside},
    failpoint,
    upstream::{
        Exit,
        conduct::{Conduct, Offence},
        pipe::Pipe,
        status::Output,
    },
    wire::{
        Bad, Fault, Frame,
        lines::{Line, Lines, without_lead},
        torn::Torn,
    },
};

/// How often it is looked whether stdout was closed, and which calls nobody waits for any more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was read of a server's stdout, and not yet heard.
pub struct Unheard {
    lines: Lines,
    ready: VecDeque<Line>,
    /// A line so long that it is looked at elsewhere. What follows it waits for it.
    looked_at: Option<Aside<(Bytes, Result<Frame, Bad>)>>,
}

impl Unheard {
    pub fn new(line_max: usize) -> Self {
        Self { lines: Lines::new(line_max), ready: VecDeque::new(), looked_at: None }
    }

    /// Has all of it heard, or what comes before a server has done too much of what it must not; how many
    /// lines. Safe to be dropped while it waits.
    pub async fn hear_out(&mut self, hearer: &Hearer<'_>) -> usize {
        let mut heard = 0;
        while hearer.struck.borrow().is_none() {
            if let Some(looked_at) = &mut self.looked_at {
                let (line, frame) = looked_at.await;
                self.looked_at = None;
                hearer.take(&line, frame);
                heard += 1;
                continue;
            }
            let depth_max = hearer.assignment.workshop.frames.depth_max;
            match self.ready.pop_front() {
                Some(Line::Long(long)) => {
                    self.looked_at = Some(aside(move || {
                        let line = long.whole();
                        let frame = frame_of(&line, depth_max);
                        (line, frame)
                    }));
                    continue;
                }
                Some(Line::Whole(line)) => hearer.take(&line, frame_of(&line, depth_max)),
                Some(Line::TooLong(torn)) => hearer.refuse(&torn),
                None => break,
            }
            heard += 1;
        }
        heard
    }
}

/// Reads until the server has closed its stdout or ended, or has done too much of what it must not.
pub async fn read_stdout(
    child: &mut ProcessChunkStream,
    unheard: &mut Unheard,
    stdout_end: Option<&OwnedFd>,
    hearer: &Hearer<'_>,
) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let heard = unheard.hear_out(hearer).await;
        if hearer.struck.borrow().is_some() {
            return;
        }
        give_way(heard).await;
        tokio::select! {
            item = child.next() => match item {
                Some(Item::Stdout(chunk)) => {
                    failpoint::pass("stdout");
                    unheard.ready.extend(unheard.lines.push(chunk));
                }
                Some(Item::Stderr(_)) => {}
                Some(Item::Done(_)) | None => return,
            },
            _ = look.tick() => {
                hearer.pipe.expire(Instant::now());
                if stdout_end.is_some_and(is_closed) {
                    return;
                }
            }
        }
    }
}

/// Gives others their turn after many lines. A server that never stops would have more than a hundred
/// pieces read before that: so much may a task read at once, however long each piece takes.
async fn give_way(lines: usize) {
    /// What comes of calls by the dozen is worth no detour.
    const AT_ONCE_MAX: usize = 16;
    if lines > AT_ONCE_MAX {
        tokio::task::yield_now().await;
    }
}

/// Whether everyone who could write into the pipe has gone and everything was read.
fn is_closed(stdout: &OwnedFd) -> bool {
    let state = state_of(stdout);
    state.contains(PollFlags::HUP) && !state.contains(PollFlags::IN)
}

/// Whether something was written into the pipe that was not read.
pub fn has_more(stdout: &OwnedFd) -> bool {
    state_of(stdout).contains(PollFlags::IN)
}

fn state_of(stdout: &OwnedFd) -> PollFlags {
    let mut fds = [PollFd::new(stdout, PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => fds[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

/// What the lines of a server's stdout are taken to.
pub struct Hearer<'a> {
    pub assignment: &'a Assignment,
    pub pipe: &'a Arc<Pipe>,
    /// How it behaves, by itself.
    pub conduct: &'a Conduct,
    pub changed: &'a Announcements,
    /// Why the server has to be started anew, once that is so.
    pub struck: &'a RefCell<Option<Exit>>,
    pub scribe: &'a Scribe,
}

impl Hearer<'_> {
    fn noise(&self, what: &str) {
        metrics::counter!("metamcpd_upstream_noise_total").increment(1);
        self.scribe.wrote(Output::Stdout, what);
        self.strike(Offence::Noise);
    }

    fn refuse(&self, torn: &Torn) {
        let (bytes, max) = (torn.bytes, self.assignment.workshop.frames.message_max);
        let why =
            format!("a line of {bytes} bytes is over the limit of {max} (`wire.message_max`)");
        if let Some(id) = torn.id() {
            self.pipe.refuse(id, &why);
        }
        self.strike(Offence::Oversized);
        self.noise(&why);
    }

    fn take(&self, line: &Bytes, frame: Result<Frame, Bad>) {
        let Assignment { board, workshop, .. } = self.assignment;
        let frame = match frame {
            Ok(frame) => frame,
            Err(no_message) => {
                match (&no_message, spoilt_answer(line)) {
                    // Or it would wait for its answer, and whatever it asks for with it.
                    (Bad::Unanswerable, _) => {
                        self.pipe.say(Fault::from(&no_message).to_bytes(None));
                    }
                    // Whoever waits for this answer would wait for one that never comes.
                    (_, Some(id)) => self.pipe.refuse(id, &no_message.to_string()),
                    (_, None) => {}
                }
                return self.noise(&beginning(line));
            }
        };
        let unasked = self.pipe.unasked();
        let aside = self.pipe.hear(frame);
        if self.pipe.unasked() > unasked {
            self.strike(Offence::Unasked);
        }
        let say = |answer| self.pipe.say(answer);
        carry_out(&*workshop.clients, board.id, aside, self.changed, say);
    }

    fn strike(&self, offence: Offence) {
        if let Some(exit) = self.conduct.offends(offence) {
            self.struck.borrow_mut().get_or_insert(exit);
        }
    }
}

/// The message that a line is.
fn frame_of(line: &Bytes, depth_max: usize) -> Result<Frame, Bad> {
    Frame::parse(line.clone(), depth_max).or_else(|_| Frame::parse(without_lead(line), depth_max))
}

/// The id of ours that a line would be the answer to, were it a message: too deep, or no JSON.
fn spoilt_answer(line: &Bytes) -> Option<u64> {
    let line = without_lead(line);
    // Words before it make it what a program tells of its messages.
    line.starts_with(b"{").then(|| Torn::from(&line).id()).flatten()
}

/// More than enough of a line to recognise it. It is cut further when what is secret in it has been
/// hidden: a part of a secret would not be found.
fn beginning(line: &[u8]) -> String {
    const BYTES_MAX: usize = 4 * 1024;
    String::from_utf8_lossy(&line[..line.len().min(BYTES_MAX)]).into_owned()
}

/// Why nothing more is written.
pub enum WriteEnd {
    Finished,
    /// The server reads nothing.
    Stalled,
    /// The server has closed its stdin.
    Closed,
}

/// Writes what is queued, as many messages at once as are there.
pub async fn write_stdin(
    mut stdin: ChildStdin,
    mut queue: mpsc::Receiver<Bytes>,
    patience: Duration,
) -> WriteEnd {
    /// Enough to fill a pipe's buffer with one write.
    const BATCH_MAX: usize = 64 * 1024;
    let mut batch = Vec::new();
    while let Some(mut line) = queue.recv().await {
        failpoint::pass("stdin");
        loop {
            batch.extend_from_slice(&line);
            batch.push(b'\n');
            if batch.len() >= BATCH_MAX {
                break;
            }
            match queue.try_recv() {
                Ok(next) => line = next,
                Err(_none_waiting) => break,
            }
        }
        match timeout(patience, stdin.write_all(&batch)).await {
            Ok(Ok(())) => {}
            Ok(Err(_closed)) => return WriteEnd::Closed,
            Err(_elapsed) => return WriteEnd::Stalled,
        }
        batch.clear();
        batch.shrink_to(BATCH_MAX);
    }
    WriteEnd::Finished
}

/// Always drained, so that a server which floods it is never held up by us.
pub async fn read_stderr(mut stderr: impl AsyncRead + Unpin, scribe: Scribe) {
    const LINE_MAX: usize = 8 * 1024;
    let mut lines = Lines::new(LINE_MAX);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        failpoint::pass("stderr");
        let mut read = 0;
        for line in lines.push(Bytes::copy_from_slice(&buffer[..count])) {
            read += 1;
            match line {
                Line::Whole(line) => scribe.wrote(Output::Stderr, &String::from_utf8_lossy(&line)),
                Line::Long(long) => {
                    scribe.wrote(Output::Stderr, &String::from_utf8_lossy(&long.whole()));
                }
                Line::TooLong(torn) => {
                    scribe.wrote(Output::Stderr, &format!("[a line of {} bytes]", torn.bytes));
                }
            }
        }
        give_way(read).await;
    }
}

#[cfg(test)]
#[path = "stdio_streams_tests.rs"]
mod tests;
