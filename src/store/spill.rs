//! What is to be remembered and found no room, kept in a file until the database takes it.
//!
//! A first line says how far it was written down already, and then there is one record a line, in the order
//! in which they came. A line that a crash has torn is the last, and is left out. When something goes here,
//! and when it is read again, is the journal's business.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::record::Record;

const FILE: &str = "journal.spill";

/// Where the file is made anew before it takes the place of the old one.
const NEXT: &str = "journal.spill.next";

/// What the first line begins with. Then comes the place of the first record that was not written down yet,
/// always as long, so that another takes its place.
const HEAD: &[u8] = b"done ";

/// Digits of that place.
const DIGITS: usize = 20;

/// Where the first record begins.
const FIRST: u64 = (HEAD.len() + DIGITS + 1) as u64;

/// Records in a file, those that were written down already left aside.
pub struct Spill {
    path: PathBuf,
    file: File,
    /// Bytes that may wait in it. With those that were written down already it may have twice as many.
    max: u64,
    /// Where the first record begins that was not written down yet.
    begin: u64,
    /// Where the last whole record ends.
    end: u64,
}

/// Records that were read, and where those after them begin.
pub struct Portion {
    pub records: Vec<Record>,
    /// Lines that are none of ours, or not there any more.
    pub unreadable: u64,
    next: u64,
}

impl Spill {
    /// Opens the file in the data directory, with what an earlier run has left in it.
    pub fn open(data_dir: &Path, max: u64) -> io::Result<Spill> {
        let path = data_dir.join(FILE);
        let file = open(&path, false)?;
        // Of one that was there before, too.
        file.set_permissions(Permissions::from_mode(0o600))?;
        let mut spill = Spill { path, file, max, begin: 0, end: 0 };
        spill.end = spill.whole_until()?;
        spill.file.set_len(spill.end)?;
        match spill.noted() {
            Some(begin) => spill.begin = begin,
            None if spill.end > 0 => spill.begin_to_note(),
            None => {}
        }
        spill.tell();
        Ok(spill)
    }

    /// Makes a file of a version that noted nothing one that does. All of it is kept, whatever the limit is
    /// now: what is youngest stands last.
    fn begin_to_note(&mut self) {
        let max = self.max;
        self.max = max.max(self.end + FIRST);
        match self.make_anew(&[]) {
            Ok(0) => {}
            Ok(lost) => {
                metrics::counter!("metamcpd_journal_dropped_total").increment(lost);
                tracing::warn!(
                    lost,
                    "the file of what waits for the database has lines that cannot be read"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "how far the file of what waits for the database is written down will not be noted");
            }
        }
        self.max = max;
    }

    /// Where the first record begins that was not written down, where that is noted. What cannot be true
    /// leaves nothing out.
    fn noted(&self) -> Option<u64> {
        let mut line = [0; FIRST as usize];
        self.file.read_exact_at(&mut line, 0).ok()?;
        let digits = line.strip_prefix(HEAD)?.strip_suffix(b"\n")?;
        let begin = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let is_true = |begin: &u64| {
            let mut before = [0];
            let is_read = (FIRST..=self.end).contains(begin)
                && self.file.read_exact_at(&mut before, begin - 1).is_ok();
            is_read && before == *b"\n"
        };
        Some(begin.filter(is_true).unwrap_or(FIRST))
    }

    /// Not synced, as the database's own commits are not: it is for a daemon that is killed. By a crash of the
    /// whole machine either may reach the disk without the other.
    fn note(&self) {
        if self.noted().is_none() {
            return;
        }
        if let Err(error) = self.file.write_all_at(&digits(self.begin), HEAD.len() as u64) {
            tracing::warn!(%error, "how far the file of what waits for the database is written down could not be noted");
        }
    }

    pub fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// Adds one record; false where there is no room for it.
    pub fn put(&mut self, record: &Record) -> io::Result<bool> {
        let Ok(mut line) = line_of(record) else { return Ok(false) };
        if self.end == 0 {
            line.splice(..0, head());
        }
        let end = self.end + line.len() as u64;
        if end - self.begin > self.max || end > self.max.saturating_mul(2) {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "journal.spill_max")
                .increment(1);
            return Ok(false);
        }
        let put = self.file.seek(SeekFrom::Start(self.end));
        match put.and_then(|_| self.file.write_all(&line)) {
            Ok(()) => {
                if self.end == 0 {
                    self.begin = FIRST;
                }
                self.end = end;
                self.tell();
                Ok(true)
            }
            Err(error) => {
                // Half a line would spoil the next one.
                drop(self.file.set_len(self.end));
                Err(error)
            }
        }
    }

    /// The next records, so many at most, and no more of them than reach so many bytes; none at the end.
    pub fn portion(&self, max: usize, bytes_max: u64) -> io::Result<Portion> {
        self.portion_from(self.begin, max, bytes_max)
    }

    fn portion_from(&self, begin: u64, max: usize, bytes_max: u64) -> io::Result<Portion> {
        let mut portion = Portion { records: Vec::new(), unreadable: 0, next: begin };
        let mut lines = BufReader::new(Onward { file: &self.file, begin }.take(self.end - begin));
        let mut line = Vec::new();
        while portion.records.len() < max.max(1)
            && (portion.records.is_empty() || portion.next - begin < bytes_max)
        {
            line.clear();
            let bytes = lines.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                // Somebody has cut it.
                portion.unreadable += u64::from(portion.next < self.end);
                portion.next = self.end;
                break;
            }
            portion.next += bytes as u64;
            match serde_json::from_slice(&line) {
                Ok(record) => portion.records.push(record),
                Err(_another_version) => portion.unreadable += 1,
            }
        }
        Ok(portion)
    }

    /// These are written down, or can never be.
    pub fn done(&mut self, portion: &Portion) {
        self.begin = portion.next.min(self.end);
        if !self.is_empty() {
            self.note();
        } else if let Err(error) = self.file.set_len(0) {
            tracing::warn!(%error, "the file of what waits for the database could not be emptied");
            self.note();
        } else {
            (self.begin, self.end) = (0, 0);
        }
        self.tell();
    }

    /// Puts records before all that is there, as the older ones; how many found no room. Where that
    /// fails, what is there stays as it is.
    pub fn put_first(&mut self, records: &[Record]) -> io::Result<u64> {
        if records.is_empty() {
            return Ok(0);
        }
        self.make_anew(records)
    }

    fn make_anew(&mut self, first: &[Record]) -> io::Result<u64> {
        let next = self.path.with_file_name(NEXT);
        let made = match self.made_anew(&next, first) {
            Ok((other, lost)) => {
                *self = other;
                Ok(lost)
            }
            Err(error) => {
                drop(std::fs::remove_file(&next));
                Err(error)
            }
        };
        self.tell();
        made
    }

    fn made_anew(&self, next: &Path, records: &[Record]) -> io::Result<(Spill, u64)> {
        let (path, file) = (self.path.clone(), open(next, true)?);
        let mut other = Spill { path, file, max: self.max, begin: 0, end: 0 };
        let mut put_all = |records: &[Record]| -> io::Result<u64> {
            let mut lost = 0;
            for record in records {
                lost += u64::from(!other.put(record)?);
            }
            Ok(lost)
        };
        let mut lost = put_all(records)?;
        let mut begin = self.begin;
        while begin < self.end {
            let portion = self.portion_from(begin, PORTION, PORTION_BYTES)?;
            lost += put_all(&portion.records)? + portion.unreadable;
            begin = portion.next;
        }
        other.file.sync_all()?;
        std::fs::rename(next, &self.path)?;
        Ok((other, lost))
    }

    fn whole_until(&mut self) -> io::Result<u64> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut lines = BufReader::new(&self.file);
        let (mut end, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let bytes = lines.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return Ok(end);
            }
            end += bytes as u64;
        }
    }

    /// Reads and writes by another file; the one before.
    #[cfg(test)]
    pub(super) fn by(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }

    fn tell(&self) {
        metrics::gauge!("metamcpd_journal_spill_bytes").set((self.end - self.begin) as f64);
    }
}

/// Records that are held at once when the file is made anew.
const PORTION: usize = 500;

/// The same in bytes.
const PORTION_BYTES: u64 = 1024 * 1024;

/// A file from some place on, read beside whoever writes it.
struct Onward<'a> {
    file: &'a File,
    begin: u64,
}

impl Read for Onward<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_at(into, self.begin)?;
        self.begin += bytes as u64;
        Ok(bytes)
    }
}

fn open(path: &Path, empty: bool) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).write(true).truncate(empty).mode(0o600).open(path)
}

/// The first line of a file of which nothing is written down.
fn head() -> Vec<u8> {
    [HEAD, &digits(FIRST), b"\n"].concat()
}

fn digits(place: u64) -> Vec<u8> {
    format!("{place:0DIGITS$}").into_bytes()
}

fn line_of(record: &Record) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{failure, no_one};

    const MANY: u64 = 1 << 20;

    fn put(spill: &mut Spill, number: u64) -> bool {
        spill.put(&failure(no_one(), number)).unwrap()
    }

    fn numbers(spill: &Spill, max: usize) -> Vec<u64> {
        let number = |record: &Record| match record {
            Record::Transition { restarts, .. } => *restarts,
            other => panic!("{other:?}"),
        };
        spill.portion(max, MANY).unwrap().records.iter().map(number).collect()
    }

    #[test]
    fn what_was_put_is_read_in_order_also_by_the_next_run() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(FILE), "").unwrap();
        let mut spill = Spill::open(place.path(), MANY).unwrap();
        assert!(spill.is_empty());
        assert!((0..5).all(|number| put(&mut spill, number)));
        let portion = spill.portion(2, MANY).unwrap();
        spill.done(&portion);
        assert_eq!(numbers(&spill, 2), [2, 3]);
        let mode = std::fs::metadata(place.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(spill);

        let mut spill = Spill::open(place.path(), MANY).unwrap();
        assert_eq!(numbers(&spill, 9), [2, 3, 4], "what was written down is not told again");
        spill.done(&spill.portion(9, MANY).unwrap());
        assert!(spill.is_empty());
        assert_eq!(std::fs::metadata(place.path().join(FILE)).unwrap().len(), 0);
        assert!(put(&mut spill, 7));
        assert_eq!(numbers(&spill, 9), [7]);
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_a_foreign_one_is_counted() {
        let place = tempfile::tempdir().unwrap();
        let mut spill = Spill::open(place.path(), MANY).unwrap();
        assert!(put(&mut spill, 1));
        drop(spill);
        let path = place.path().join(FILE);
        let mut text = std::fs::read_to_string(&path).unwrap();
        let whole = text.clone();
        text.push_str("{\"Unheard\":{}}\n");
        let record = &whole[FIRST as usize..];
        text.push_str(&record[..record.len() / 2]);
        std::fs::write(&path, text).unwrap();
        let mut spill = Spill::open(place.path(), MANY).unwrap();
        assert!(put(&mut spill, 2));
        let portion = spill.portion(9, MANY).unwrap();
        assert_eq!((numbers(&spill, 9), portion.unreadable), (vec![1, 2], 1));
        spill.done(&portion);
        assert!(spill.is_empty());
    }

    #[test]
    fn it_grows_no_further_than_it_may_and_older_records_can_be_put_first() {
        let place = tempfile::tempdir().unwrap();
        let line = line_of(&failure(no_one(), 1)).unwrap().len() as u64;
        let mut spill = Spill::open(place.path(), 3 * line + line / 4).unwrap();
        assert!((1..=3).all(|number| put(&mut spill, number)));
        assert!(!put(&mut spill, 4));
        spill.done(&spill.portion(1, MANY).unwrap());
        assert!(put(&mut spill, 4), "what is written down takes no room");
        (5..7).for_each(|number| {
            spill.done(&spill.portion(1, MANY).unwrap());
            assert!(put(&mut spill, number));
        });
        spill.done(&spill.portion(1, MANY).unwrap());
        assert!(!put(&mut spill, 7), "the file is twice as large");
        assert_eq!(numbers(&spill, 9), [5, 6]);
        let lost = spill.put_first(&[failure(no_one(), 8), failure(no_one(), 9)]).unwrap();
        assert_eq!(lost, 1, "the youngest finds no room");
        assert_eq!(numbers(&spill, 9), [8, 9, 5]);
        drop(spill);
        let spill = Spill::open(place.path(), MANY).unwrap();
        assert_eq!(numbers(&spill, 9), [8, 9, 5]);
    }

    #[test]
    fn what_is_there_outlives_a_disk_that_takes_no_older_records() {
        let place = tempfile::tempdir().unwrap();
        let mut spill = Spill::open(place.path(), MANY).unwrap();
        assert!((1..=3).all(|number| put(&mut spill, number)));
        spill.done(&spill.portion(1, MANY).unwrap());
        // A device that is always full.
        std::os::unix::fs::symlink("/dev/full", place.path().join(NEXT)).unwrap();
        assert!(spill.put_first(&[failure(no_one(), 8)]).is_err());
        assert_eq!(numbers(&spill, 9), [2, 3]);
        assert!(place.path().join(NEXT).symlink_metadata().is_err(), "nothing is left of it");
        assert!(put(&mut spill, 4));
        drop(spill);
        let spill = Spill::open(place.path(), MANY).unwrap();
        assert_eq!(numbers(&spill, 9), [2, 3, 4]);
    }

    #[test]
    fn a_file_without_a_note_or_with_a_false_one_is_told_from_its_beginning() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(FILE);
        let lines: Vec<Vec<u8>> =
            (1..=3).map(|number| line_of(&failure(no_one(), number)).unwrap()).collect();
        // Of an earlier version.
        std::fs::write(&path, lines.concat()).unwrap();
        let mut spill = Spill::open(place.path(), MANY).unwrap();
        assert_eq!(numbers(&spill, 9), [1, 2, 3]);
        spill.done(&spill.portion(1, MANY).unwrap());
        drop(spill);
        let spill = Spill::open(place.path(), MANY).unwrap();
        assert_eq!(numbers(&spill, 9), [2, 3], "from then on it is noted");
        drop(spill);
        // One that is longer than it may be now.
        std::fs::write(&path, lines.concat()).unwrap();
        let mut spill = Spill::open(place.path(), 1).unwrap();
        assert_eq!(numbers(&spill, 9), [1, 2, 3]);
        assert!(!put(&mut spill, 4), "the limit is for what comes");
        drop(spill);
        for false_one in [0, FIRST - 1, FIRST + 1, 1 << 40] {
            let head = [HEAD, &digits(false_one), b"\n"].concat();
            std::fs::write(&path, [head, lines.concat()].concat()).unwrap();
            let spill = Spill::open(place.path(), MANY).unwrap();
            assert_eq!(numbers(&spill, 9), [1, 2, 3], "{false_one}");
        }
        // A kill in the midst of the first line, and just behind it.
        for bytes in [FIRST - 1, FIRST] {
            std::fs::write(&path, &head()[..bytes as usize]).unwrap();
            let mut spill = Spill::open(place.path(), MANY).unwrap();
            assert!(spill.is_empty() && put(&mut spill, 7));
            drop(spill);
            let spill = Spill::open(place.path(), MANY).unwrap();
            assert_eq!(numbers(&spill, 9), [7], "{bytes}");
        }
    }

    #[test]
    fn a_portion_has_no_more_bytes_than_it_may_but_always_a_record() {
        let place = tempfile::tempdir().unwrap();
        let mut spill = Spill::open(place.path(), MANY).unwrap();
        let record = failure(no_one(), 1);
        assert!((1..=3).all(|_| spill.put(&record).unwrap()));
        let line = line_of(&record).unwrap().len() as u64;
        for (bytes_max, records) in [(0, 1), (line, 1), (line + 1, 2), (3 * line, 3)] {
            let portion = spill.portion(9, bytes_max).unwrap();
            assert_eq!(portion.records.len(), records, "{bytes_max}");
        }
    }

    #[test]
    fn what_somebody_has_cut_off_is_counted_and_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let cut_to = |bytes: u64| {
            let file = OpenOptions::new().write(true).open(place.path().join(FILE)).unwrap();
            file.set_len(bytes).unwrap();
        };
        for (lines, more, whole) in [(2, 0, vec![8, 1, 2]), (2, 9, vec![8, 1, 2]), (0, 0, vec![8])]
        {
            let mut spill = Spill::open(place.path(), MANY).unwrap();
            assert!((1..=4).all(|number| put(&mut spill, number)));
            let text = std::fs::read_to_string(place.path().join(FILE)).unwrap();
            let left: usize = text.split_inclusive('\n').take(1 + lines).map(str::len).sum();
            cut_to(left as u64 + more);
            let lost = spill.put_first(&[failure(no_one(), 8)]).unwrap();
            assert_eq!(lost, 1);
            assert_eq!(numbers(&spill, 9), whole);
            cut_to(9);
            let portion = spill.portion(9, MANY).unwrap();
            assert_eq!((portion.records.len(), portion.unreadable), (0, 1));
            spill.done(&portion);
            assert!(spill.is_empty());
        }
    }
}
