//! Cuts a stream of chunks into lines of bounded length, as stdio framing asks for.

use bytes::Bytes;

use super::{gathered::Gathered, torn::Torn};

/// Collects chunks and gives lines back. A line over the limit is thrown away up to its end.
#[derive(Debug)]
pub struct Lines {
    line_max: usize,
    partial: Gathered,
    /// What is left of an over-long line that is being thrown away.
    discarded: Option<Torn>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line without its line end.
    Whole(Bytes),
    /// One that takes a while to be put together.
    Long(Long),
    /// A line over the limit has ended, and was thrown away.
    TooLong(Torn),
}

/// A line in pieces.
#[derive(Debug, PartialEq, Eq)]
pub struct Long(Gathered);

impl Long {
    /// The line without its line end.
    pub fn whole(mut self) -> Bytes {
        without_return(self.0.take())
    }
}

impl Lines {
    /// `line_max` in bytes, the line end not counted.
    pub fn new(line_max: usize) -> Self {
        Self { line_max, partial: Gathered::default(), discarded: None }
    }

    /// Every line that `chunk` completes, in order.
    pub fn push(&mut self, mut chunk: Bytes) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(end) = memchr::memchr(b'\n', &chunk) {
            let head = chunk.split_to(end + 1).slice(..end);
            lines.extend(self.complete(head));
        }
        self.keep(&chunk);
        lines
    }

    fn complete(&mut self, head: Bytes) -> Option<Line> {
        if let Some(mut discarded) = self.discarded.take() {
            discarded.extend(&head);
            return Some(Line::TooLong(discarded));
        }
        let length = self.partial.len() + head.len();
        if length > self.line_max {
            let mut torn = self.tear();
            torn.extend(&head);
            return Some(Line::TooLong(torn));
        }
        let line = if self.partial.is_empty() {
            head
        } else {
            self.partial.extend(&head);
            if self.partial.is_long() {
                return Some(Line::Long(Long(std::mem::take(&mut self.partial))));
            }
            self.partial.take()
        };
        let line = without_return(line);
        (!line.is_empty()).then_some(Line::Whole(line))
    }

    fn keep(&mut self, rest: &[u8]) {
        match &mut self.discarded {
            Some(discarded) => discarded.extend(rest),
            None if self.partial.len() + rest.len() > self.line_max => {
                let mut torn = self.tear();
                torn.extend(rest);
                self.discarded = Some(torn);
            }
            None => self.partial.extend(rest),
        }
    }

    /// Taken whole: the memory of one huge line must not stay with its upstream.
    fn tear(&mut self) -> Torn {
        let mut torn = Torn::default();
        std::mem::take(&mut self.partial).pieces().for_each(|piece| torn.extend(piece));
        torn
    }
}

fn without_return(line: Bytes) -> Bytes {
    line.strip_suffix(b"\r").map(|line_only| line.slice_ref(line_only)).unwrap_or(line)
}

/// A line without what terminals and editors put before a message: blanks, a byte order mark, and
/// escape sequences (ECMA-48, "CSI"). Words are left: what follows them may be a log of messages.
pub fn without_lead(line: &Bytes) -> Bytes {
    let mut rest: &[u8] = line;
    loop {
        let trimmed = rest.trim_ascii_start();
        let unmarked = trimmed.strip_prefix(b"\xef\xbb\xbf").unwrap_or(trimmed);
        let next = unmarked.strip_prefix(b"\x1b[").map_or(unmarked, |sequence| {
            let end = sequence.iter().position(|byte| (0x40..=0x7e).contains(byte));
            end.map_or(&[][..], |end| &sequence[end + 1..])
        });
        if next.len() == rest.len() {
            return line.slice_ref(rest);
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Line::{TooLong, Whole},
        *,
    };
    use crate::wire::gathered::BLOCK;

    fn feed(line_max: usize, chunks: &[&[u8]]) -> Vec<Line> {
        let mut lines = Lines::new(line_max);
        chunks.iter().flat_map(|chunk| lines.push(Bytes::copy_from_slice(chunk))).collect()
    }

    #[test]
    fn a_long_line_is_told_by_its_pieces_and_is_the_same() {
        let text = "x".repeat(3 * BLOCK);
        let mut lines = Lines::new(4 * BLOCK);
        assert!(lines.push(Bytes::from(text.clone())).is_empty());
        let mut lines = lines.push(Bytes::from_static(b"y\r\nz\n"));
        assert_eq!(lines[1], Whole("z".into()));
        let Line::Long(long) = lines.swap_remove(0) else { panic!("it is long") };
        assert_eq!(long.whole(), text + "y");
    }

    #[test]
    fn lines_are_cut_at_either_line_end_and_empty_ones_skipped() {
        let lines = feed(9, &[b"a\r\n\n\r\nb", b"c\nd"]);
        assert_eq!(lines, [Whole("a".into()), Whole("bc".into())]);
    }

    #[test]
    fn a_line_over_the_limit_is_reported_once_and_the_next_is_whole() {
        let torn = |text: &'static str| TooLong(Torn::from(&Bytes::from(text)));
        let just = || vec![Whole("abc".into())];
        assert_eq!((feed(3, &[b"abc\n"]), feed(3, &[b"abc", b"\n"])), (just(), just()));
        assert_eq!(feed(3, &[b"abcd\nok\n"]), [torn("abcd"), Whole("ok".into())]);
        assert_eq!(feed(3, &[b"ab", b"cd", b"ef\nok\n"]), [torn("abcdef"), Whole("ok".into())]);
    }

    #[test]
    fn what_terminals_put_before_a_message_is_taken_off_and_words_are_not() {
        for (line, expected) in [
            ("{}", "{}"),
            ("\u{feff}{}", "{}"),
            (" \t\u{feff} {}", "{}"),
            ("\x1b[2K\x1b[1;32m{}", "{}"),
            ("\x1b[3~{}", "{}"),
            ("\r{}", "{}"),
            ("\x1b[1;", ""),
            ("DEBUG {}", "DEBUG {}"),
            ("\x1b[1mDEBUG {}", "DEBUG {}"),
            ("", ""),
        ] {
            assert_eq!(without_lead(&Bytes::from(line)), expected, "{line:?}");
        }
    }

    #[test]
    fn a_stream_without_line_ends_takes_no_more_memory_than_the_limit() {
        let mut lines = Lines::new(1_000);
        for _ in 0..1_000 {
            assert!(lines.push(Bytes::from_static(&[b'x'; 512])).is_empty());
            assert!(lines.partial.len() <= 1_000);
        }
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_into_chunks_changes_nothing(
            text in "[ab\r\n]{0,60}", cuts in proptest::collection::vec(0_usize..60, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> =
                cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(feed(5, &pieces), feed(5, &[text.as_bytes()]));
        }

        #[test]
        fn a_flood_takes_no_more_memory_than_the_limit(
            chunks in proptest::collection::vec("([ab]{0,40}|\n|\r)", 0..80),
        ) {
            let mut lines = Lines::new(50);
            for chunk in chunks {
                for line in lines.push(Bytes::from(chunk)) {
                    if let Whole(line) = line {
                        prop_assert!(line.len() <= 50);
                    }
                }
                prop_assert!(lines.partial.len() <= 50);
            }
        }
    }
}
