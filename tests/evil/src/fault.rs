//! Everything that a server can be told to do wrong: each a variant for tests in Rust, a word for
//! command lines, and a sentence for people.

use std::{fmt, path::PathBuf, time::Duration};

use crate::value::{Bytes, Exit, Rate, Value};

macro_rules! words {
    (
        $(#[$about:meta])* $kind:ident {
            $( $(#[doc = $doc:literal])+ $variant:ident $(($value:ty))? = $name:literal, )+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $kind {
            $( $(#[doc = $doc])+ $variant $(($value))?, )+
        }

        impl $kind {
            /// Every word with what it means.
            pub const MANUAL: &[(&str, &str)] = &[$( ($name, concat!($($doc),+)), )+];

            pub fn word(&self) -> &'static str {
                match self {
                    $( Self::$variant { .. } => $name, )+
                }
            }

            /// Reads `word` or `word=value`; `None` where the word is not one of these.
            pub fn read(text: &str) -> Option<Result<Self, String>> {
                let (word, value) = match text.split_once('=') {
                    Some((word, value)) => (word, Some(value)),
                    None => (text, None),
                };
                let read = match word {
                    $( $name => words!(@read $kind $variant $($value)?; value), )+
                    _ => return None,
                };
                Some(read.map_err(|problem| format!("{word}: {problem}")))
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $( words!(@pattern $kind $variant $($value)?; value) =>
                        words!(@write f $name $($value)?; value), )+
                }
            }
        }
    };
    (@read $kind:ident $variant:ident; $given:ident) => {
        match $given {
            None => Ok($kind::$variant),
            Some(value) => Err(format!("it takes no value, and got {value}")),
        }
    };
    (@read $kind:ident $variant:ident $value:ty; $given:ident) => {
        match $given {
            Some(value) => <$value as Value>::read(value).map($kind::$variant),
            None => Err("it needs a value".to_owned()),
        }
    };
    (@pattern $kind:ident $variant:ident; $name:ident) => { $kind::$variant };
    (@pattern $kind:ident $variant:ident $value:ty; $name:ident) => { $kind::$variant($name) };
    (@write $f:ident $name:literal; $bound:ident) => { $f.write_str($name) };
    (@write $f:ident $name:literal $value:ty; $bound:ident) => {
        write!($f, "{}={}", $name, Value::write($bound))
    };
}

words! {
    /// Something that a server does wrong.
    Fault {
        // === Its life ===

        /// Ends at once, with a code or by a signal.
        ExitNow(Exit) = "exit-now",
        /// Ends so long after its start.
        ExitAfter(Duration) = "exit-after",
        /// Is killed by each call whose number this divides, before it answers.
        ExitEvery(u64) = "exit-every",
        /// Takes so long before it reads, or listens.
        SlowStart(Duration) = "slow-start",
        /// Ignores SIGTERM, SIGINT and SIGHUP, and the end of its stdin.
        IgnoreTerm = "ignore-term",
        /// Leaves so many processes: in sessions of their own, orphaned, deaf to signals.
        ForkTree(u64) = "fork-tree",
        /// Starts a process that starts a process, each in a session of its own, so many.
        ForkStorm(u64) = "fork-storm",
        /// Fills so much memory.
        EatMem(Bytes) = "eat-mem",
        /// Keeps so many threads busy.
        EatCpu(u64) = "eat-cpu",
        /// Writes its environment to a file, name by name.
        DumpEnv(PathBuf) = "dump-env",
        /// Writes to a file which descriptors it was given, and what they are.
        DumpFds(PathBuf) = "dump-fds",

        // === The pipes of a child ===

        /// Reads nothing any more once it was asked for its tools.
        NoRead = "no-read",
        /// Closes stdout when it is called, and lives on.
        CloseStdout = "close-stdout",
        /// Closes stdin when it is called, and lives on.
        CloseStdin = "close-stdin",
        /// Writes so much to stderr.
        StderrFlood(Rate) = "stderr-flood",
        /// Writes so much that is no message to stdout.
        StdoutFlood(Rate) = "stdout-flood",
        /// Begins an answer with so many bytes of a line that does not end.
        NoNewline(Bytes) = "no-newline",
        /// Writes half of an answer and ends.
        PartialLine = "partial-line-at-eof",
        /// Ends its lines as Windows does.
        Crlf = "crlf",

        // === Handshake and lists ===

        /// Does not answer `initialize` or `server/discover`.
        HangInit = "hang-init",
        /// Does not answer lists.
        HangList = "hang-list",
        /// Agrees on a revision of the protocol that does not exist.
        WrongVersion(String) = "wrong-version",
        /// Lists so many tools.
        ListBomb(u64) = "list-bomb",
        /// Lists pages that lead back to themselves.
        CursorLoop = "cursor-loop",
        /// Describes its tools otherwise each time.
        Rugpull = "rugpull",

        // === Answers ===

        /// Does not answer calls.
        Blackhole = "blackhole",
        /// Answers twice.
        DupReply = "dup-reply",
        /// Answers a request that nobody made, and this one not.
        WrongId = "wrong-id",
        /// Answers so much later.
        LateReply(Duration) = "late-reply",
        /// Answers with the id as text where it was a number, and the other way round.
        IdTypeChange = "id-type-change",
        /// Answers with an error that has no id.
        ErrorWithoutId = "error-without-id",
        /// Answers with neither a result nor an error.
        NoResult = "no-result",
        /// Says so many lines that are no messages before each answer.
        Garbage(u64) = "garbage",
        /// Answers with so much text.
        HugeLine(Bytes) = "huge-line",
        /// Answers with arrays in arrays, so many.
        Deep(u64) = "deep",
        /// Answers with bytes that are no text.
        InvalidUtf8 = "invalid-utf8",
        /// Puts a byte order mark before each answer.
        Bom = "bom",
        /// Sends its answer so slowly.
        Drip(Rate) = "drip",

        // === What it says unasked ===

        /// Says so often that its tools have changed.
        FloodListChanged(Rate) = "flood-list-changed",
        /// Sends so many messages for the log.
        FloodLog(Rate) = "flood-log",
        /// Says so often that a resource has changed.
        FloodUpdated(Rate) = "flood-updated",
        /// Says so many messages for the log, each with its number and its time, once it has answered (a child).
        Announce(u64) = "announce",
        /// Reports progress of so many tokens that it was not given, before each answer.
        ProgressSpoof(u64) = "progress-spoof",
        /// Asks the client so many questions (sampling) before each answer.
        Ask(u64) = "ask",

        // === HTTP ===

        /// Answers calls with this status and no message.
        Status(u64) = "status",
        /// Answers lists with this status and no message.
        ListStatus(u64) = "list-status",
        /// Answers everything with this status, the handshake too.
        Closed(u64) = "closed",
        /// Says `Retry-After`, in seconds, with the status.
        RetryAfter(u64) = "retry-after",
        /// Sends clients elsewhere (307).
        Redirect(String) = "redirect",
        /// Answers calls under this content type.
        ContentType(String) = "content-type",
        /// Answers calls with a page for people.
        Html = "html",
        /// Answers calls with 200 and nothing.
        Empty = "empty",
        /// Answers calls as if they were notifications (202).
        Accepted = "accepted",
        /// Answers calls with half of the JSON.
        Truncated = "truncated",
        /// Answers calls with so many bytes, packed.
        GzipBomb(Bytes) = "gzip-bomb",
        /// Closes the connection after so many bytes of the answer's body.
        Cut(Bytes) = "cut",
        /// Resets the connection instead of answering.
        Reset = "reset",
        /// Sends the headers of an answer and no more.
        Stall = "stall",
        /// Takes so long before it reads a new connection.
        SlowAccept(Duration) = "slow-accept",
        /// Forgets a session after so many calls.
        Expire(u64) = "expire",
        /// Gives no session.
        NoSession = "no-session",
        /// Repeats, after a resumption, what it had sent before it.
        DuplicateEvents = "duplicate-events",
        /// Refuses the legacy era, as if it had never existed.
        ModernOnly = "modern-only",
        /// Refuses the modern era, as if it were not invented.
        LegacyOnly = "legacy-only",
    }
}

words! {
    /// What a server is told besides: no fault, but who it is and when it misbehaves.
    Condition {
        /// Its name.
        Name(String) = "name",
        /// How many tools it has besides the usual ones.
        Tools(u64) = "tools",
        /// Answers calls by event streams (HTTP).
        Stream = "stream",
        /// Ends each stream before its answer, which is to be fetched by `Last-Event-ID` (HTTP).
        Resumable = "resumable",
        /// Speaks the modern era, and no other (a child; over HTTP both are spoken).
        Modern = "modern",
        /// Misbehaves only while this file exists.
        While(PathBuf) = "while",
        /// Misbehaves only towards each call whose number this divides.
        Every(u64) = "every",
        /// Misbehaves only after so many calls.
        After(u64) = "after",
        /// Notes in this file each nonce that it was called with, before it does anything else.
        Journal(PathBuf) = "journal",
        /// Notes in this file each start: its process id, on a line.
        Starts(PathBuf) = "starts",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_as_it_is_written() {
        for text in ["exit-after=50ms", "stderr-flood=200000000/s", "blackhole", "exit-now=SIGKILL"]
        {
            let fault = Fault::read(text).unwrap().unwrap();
            assert_eq!(fault.to_string(), text);
        }
        assert_eq!(Fault::read("huge-line=16MiB"), Some(Ok(Fault::HugeLine(Bytes(16 << 20)))),);
    }

    #[test]
    fn a_value_that_is_missing_or_too_much_is_refused() {
        assert!(Fault::read("exit-after").unwrap().is_err());
        assert!(Fault::read("blackhole=3").unwrap().is_err());
        assert!(Fault::read("good-will").is_none());
    }

    #[test]
    fn every_word_is_its_own() {
        let mut words: Vec<&str> =
            Fault::MANUAL.iter().chain(Condition::MANUAL).map(|(word, _)| *word).collect();
        let all = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all);
        assert!(all > 50, "{all}");
    }
}
