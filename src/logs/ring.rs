//! The entries that are kept, and which of them make room for new ones.
//!
//! What a server writes, what becomes of calls to it, and what becomes of itself are three sources,
//! each with its own share: whichever floods pushes out its own oldest entries only, and when the
//! whole is full the largest source makes room. What comes too fast is refused and counted.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Limit, LogOptions,
    entry::{About, Kind, Level, LogEntry, Said},
};

/// The entries of a running daemon.
pub struct Ring {
    options: LogOptions,
    entries: BTreeMap<i64, Arc<LogEntry>>,
    sources: HashMap<SourceKey, Source>,
    bytes: usize,
    last_id: i64,
}

/// What has become of something that was said.
#[derive(Debug, Default)]
pub struct Taken {
    /// `None` when it came too fast.
    pub entry: Option<Arc<LogEntry>>,
    /// What made room for it.
    pub gone: Vec<(i64, Limit)>,
}

/// Which entries; everything that is given has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub server: Option<Uuid>,
    /// This one and worse.
    pub level: Option<Level>,
    /// Empty: every kind.
    pub kinds: Vec<Kind>,
    pub since: Option<Since>,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With what happened at this time.
    Time(OffsetDateTime),
    /// Behind the entry with this id.
    Entry(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SourceKey {
    server: Option<Uuid>,
    sort: Sort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sort {
    /// What a server writes: it decides how much.
    Output,
    /// Calls that failed: clients decide how many.
    Calls,
    /// Everything else: supervision bounds how often it happens.
    Life,
}

struct Source {
    /// Oldest first.
    ids: VecDeque<i64>,
    bytes: usize,
    bucket: Bucket,
    /// Refused since the last entry that was taken.
    dropped: u64,
    /// The last one that was refused tells whose they were.
    refused: Option<(Kind, Option<String>)>,
}

/// How many entries may come just now.
struct Bucket {
    tokens: f64,
    filled_at: OffsetDateTime,
}

impl Ring {
    pub fn new(options: LogOptions) -> Self {
        Self { options, entries: BTreeMap::new(), sources: HashMap::new(), bytes: 0, last_id: 0 }
    }

    /// Takes what was said, unless too much of its kind has been.
    pub fn take(&mut self, at: OffsetDateTime, said: Said) -> Taken {
        let about = said.mcp_server_uuid.zip(said.server.as_deref());
        let about = about.map(|(uuid, name)| About { uuid, name });
        match self.admits(at, said.kind, about) {
            true => self.take_admitted(at, said),
            false => Taken::default(),
        }
    }

    /// Whether an entry of this kind does not come too fast. What is not taken then is counted for the
    /// next one that is.
    pub fn admits(&mut self, at: OffsetDateTime, kind: Kind, about: Option<About<'_>>) -> bool {
        let key = SourceKey::new(kind, about.map(|about| about.uuid));
        let options = &self.options;
        let source = self.sources.entry(key).or_insert_with(|| Source::new(options, at));
        let is_admitted = key.sort == Sort::Life || source.bucket.take(options, at);
        if !is_admitted {
            source.dropped += 1;
            source.refused = Some((kind, about.map(|about| about.name.to_owned())));
        }
        is_admitted
    }

    /// Takes what has been admitted.
    pub fn take_admitted(&mut self, at: OffsetDateTime, mut said: Said) -> Taken {
        let key = SourceKey::of(&said);
        let options = &self.options;
        let source = self.sources.entry(key).or_insert_with(|| Source::new(options, at));
        said.dropped += std::mem::take(&mut source.dropped);
        source.refused = None;
        truncate(&mut said.message, options.message_max);
        self.keep(key, at, said)
    }

    /// Says of every source that is quiet again how much of it was left out at the end.
    pub fn settle(&mut self, at: OffsetDateTime) -> Vec<Taken> {
        let mut notices = Vec::new();
        for (key, source) in &mut self.sources {
            if source.dropped > 0 && source.bucket.take(&self.options, at) {
                let Some((kind, name)) = source.refused.take() else { continue };
                notices.push((*key, kind, name, std::mem::take(&mut source.dropped)));
            }
        }
        let notices = notices.into_iter().map(|(key, kind, name, dropped)| {
            let what =
                format!("{dropped} more came than `{}` allows and were left out", Limit::Rate);
            let about = key.server.zip(name.as_deref());
            let about = about.map(|(uuid, name)| About { uuid, name });
            let said = Said { dropped, ..Said::new(Level::Warn, kind, about, what) };
            self.keep(key, at, said)
        });
        notices.collect()
    }

    /// Takes up what was kept by an earlier run, oldest first, and answers what is too much.
    pub fn restore(&mut self, entries: Vec<LogEntry>) -> Vec<(i64, Limit)> {
        let mut gone = Vec::new();
        for entry in entries {
            let key = SourceKey::of(&entry.said);
            self.insert(key, Arc::new(entry));
            self.make_room(key, &mut gone);
        }
        gone
    }

    /// Forgets everything, or everything about one server, and answers what that was.
    pub fn clear(&mut self, server: Option<Uuid>) -> Vec<i64> {
        let is_meant = |entry: &LogEntry| server.is_none_or(|asked| entry.is_about(asked));
        let meant = self.entries.values().filter(|entry| is_meant(entry));
        let ids: Vec<i64> = meant.map(|entry| entry.id).collect();
        for id in &ids {
            self.remove(*id);
        }
        for (key, source) in &mut self.sources {
            if server.is_none_or(|asked| key.server == Some(asked)) {
                source.dropped = 0;
                source.refused = None;
            }
        }
        ids
    }

    /// The newest `limit` entries before the entry `before`, newest first, and whether older ones
    /// follow.
    pub fn page(
        &self,
        filter: &Filter,
        before: Option<i64>,
        limit: usize,
    ) -> (Vec<Arc<LogEntry>>, bool) {
        let older = self.entries.range(..before.unwrap_or(i64::MAX)).rev();
        let found = older.map(|(_, entry)| entry).filter(|entry| filter.matches(entry));
        let mut page: Vec<_> = found.take(limit.saturating_add(1)).cloned().collect();
        let more = page.len() > limit;
        page.truncate(limit);
        (page, more)
    }

    /// Everything that matches, oldest first.
    pub fn all(&self, filter: &Filter) -> VecDeque<Arc<LogEntry>> {
        self.entries.values().filter(|entry| filter.matches(entry)).cloned().collect()
    }

    /// The server that an entry has this name or uuid of, the newest one first: it may be gone.
    pub fn server(&self, id: &str) -> Option<Uuid> {
        let asked = Uuid::try_parse(id).ok();
        let is_it = |entry: &LogEntry| match asked {
            Some(uuid) => entry.is_about(uuid),
            None => entry.said.server.as_deref() == Some(id),
        };
        let found = self.entries.values().rev().find(|entry| is_it(entry))?;
        found.said.mcp_server_uuid
    }

    /// The id of the newest entry there was.
    pub fn last_id(&self) -> i64 {
        self.last_id
    }

    fn keep(&mut self, key: SourceKey, at: OffsetDateTime, said: Said) -> Taken {
        // Microseconds of the epoch, so that ids grow over restarts too.
        let micros = i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
        let id = micros.max(self.last_id.saturating_add(1));
        let entry = Arc::new(LogEntry { id, at, said });
        self.insert(key, entry.clone());
        let mut gone = Vec::new();
        self.make_room(key, &mut gone);
        Taken { entry: Some(entry), gone }
    }

    fn insert(&mut self, key: SourceKey, entry: Arc<LogEntry>) {
        let bytes = entry.said.bytes();
        let options = &self.options;
        let source = self.sources.entry(key).or_insert_with(|| Source::new(options, entry.at));
        source.ids.push_back(entry.id);
        source.bytes += bytes;
        self.bytes += bytes;
        self.last_id = self.last_id.max(entry.id);
        self.entries.insert(entry.id, entry);
    }

    fn make_room(&mut self, newest: SourceKey, gone: &mut Vec<(i64, Limit)>) {
        while self
            .sources
            .get(&newest)
            .is_some_and(|one| one.ids.len() > self.options.per_source_max)
        {
            gone.extend(self.remove_oldest(newest).map(|id| (id, Limit::PerSource)));
        }
        while self.entries.len() > self.options.entries_max {
            let Some(largest) = self.largest(|source| source.ids.len()) else { return };
            gone.extend(self.remove_oldest(largest).map(|id| (id, Limit::Entries)));
        }
        while self.bytes > self.options.bytes_max {
            let Some(largest) = self.largest(|source| source.bytes) else { return };
            gone.extend(self.remove_oldest(largest).map(|id| (id, Limit::Bytes)));
        }
    }

    fn largest(&self, size: impl Fn(&Source) -> usize) -> Option<SourceKey> {
        let filled = self.sources.iter().filter(|(_, source)| !source.ids.is_empty());
        filled.max_by_key(|(_, source)| size(source)).map(|(key, _)| *key)
    }

    fn remove_oldest(&mut self, key: SourceKey) -> Option<i64> {
        let id = *self.sources.get(&key)?.ids.front()?;
        self.remove(id);
        Some(id)
    }

    fn remove(&mut self, id: i64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        let (key, bytes) = (SourceKey::of(&entry.said), entry.said.bytes());
        self.bytes = self.bytes.saturating_sub(bytes);
        let Some(source) = self.sources.get_mut(&key) else { return };
        source.bytes = source.bytes.saturating_sub(bytes);
        if let Ok(place) = source.ids.binary_search(&id) {
            source.ids.remove(place);
        }
        // A source that has nothing to tell is not kept for ever; there may be many over the years.
        if source.ids.is_empty() && source.dropped == 0 {
            self.sources.remove(&key);
        }
    }
}

impl Filter {
    pub fn matches(&self, entry: &LogEntry) -> bool {
        self.server.is_none_or(|asked| entry.is_about(asked))
            && self.level.is_none_or(|level| entry.said.level >= level)
            && (self.kinds.is_empty() || self.kinds.contains(&entry.said.kind))
            && match self.since {
                None => true,
                Some(Since::Time(time)) => entry.at >= time,
                Some(Since::Entry(id)) => entry.id > id,
            }
    }
}

impl LogEntry {
    fn is_about(&self, server: Uuid) -> bool {
        self.said.mcp_server_uuid == Some(server)
    }
}

impl SourceKey {
    fn of(said: &Said) -> Self {
        Self::new(said.kind, said.mcp_server_uuid)
    }

    fn new(kind: Kind, server: Option<Uuid>) -> Self {
        let sort = match kind {
            Kind::Stderr | Kind::Stdout => Sort::Output,
            Kind::Call => Sort::Calls,
            Kind::Transition | Kind::Process | Kind::List | Kind::Catalogue | Kind::Gateway => {
                Sort::Life
            }
        };
        Self { server, sort }
    }
}

impl Source {
    fn new(options: &LogOptions, at: OffsetDateTime) -> Self {
        let bucket = Bucket { tokens: f64::from(options.burst), filled_at: at };
        Self { ids: VecDeque::new(), bytes: 0, bucket, dropped: 0, refused: None }
    }
}

impl Bucket {
    fn take(&mut self, options: &LogOptions, at: OffsetDateTime) -> bool {
        // A clock that was set back fills nothing.
        let elapsed = (at - self.filled_at).as_seconds_f64().max(0.0);
        self.filled_at = at;
        let filled = self.tokens + elapsed * f64::from(options.rate);
        self.tokens = filled.min(f64::from(options.burst));
        let is_there = self.tokens >= 1.0;
        if is_there {
            self.tokens -= 1.0;
        }
        is_there
    }
}

fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
