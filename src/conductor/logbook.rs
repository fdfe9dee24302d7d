//! The log of the running daemon: takes what is said, keeps it, tells it to whoever watches, and has
//! it written behind.
//!
//! What is kept is decided by the ring. Nobody who says something ever waits.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{
    failpoint,
    logs::{
        Limit, LogOptions,
        entry::{About, Kind, Level, LogEntry, Said},
        hiding::{harmless, hide_shapes},
        ring::{Filter, Ring, Taken},
    },
    store::{Journal, Record},
    upstream::{
        CallError,
        board::Board,
        status::{CatalogueChange, NameList, Output, StateWord, Transition},
    },
    wire::{Fault, fault::Blame},
};

/// How often it is looked whether a flood is over, so that what it cost is told.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// Bytes of a tool's name: it is the client's word, and no tool of ours has a longer one.
const TOOL_MAX: usize = 128;

/// Names in an entry about a list, of those that came, of those that went, and of those that changed. Who
/// needs every name asks for the list.
const NAMES_MAX: usize = 20;

pub struct Logbook {
    ring: Mutex<Ring>,
    /// Entries as they come. Who reads too slowly is told how many were missed.
    told: broadcast::Sender<Arc<LogEntry>>,
    /// `None` when nothing is to be kept over a restart.
    journal: Option<Journal>,
}

/// What a watcher begins with: what is kept already, and what comes after exactly that.
pub struct Watch {
    pub kept: VecDeque<Arc<LogEntry>>,
    pub coming: broadcast::Receiver<Arc<LogEntry>>,
}

impl Logbook {
    /// `kept`: what earlier runs have left, oldest first.
    pub fn new(options: LogOptions, journal: Journal, kept: Vec<LogEntry>) -> Arc<Self> {
        let (told, _) = broadcast::channel(options.buffer.max(1));
        let journal = options.persist.then_some(journal);
        let mut ring = Ring::new(options);
        let gone = ring.restore(kept);
        let logbook = Self { ring: Mutex::new(ring), told, journal };
        logbook.forget(gone.into_iter().map(|(id, _)| id).collect());
        Arc::new(logbook)
    }

    /// Tells what floods have cost when they are over. Runs as long as the daemon.
    pub async fn keep_up(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SETTLE_EVERY).await;
            failpoint::pass("log");
            let mut ring = self.lock();
            for taken in ring.settle(OffsetDateTime::now_utc()) {
                self.tell(taken);
            }
        }
    }

    pub fn say(&self, said: Said) {
        // Held to the end, so that watchers and the table hear of entries in the order of their ids.
        let mut ring = self.lock();
        let taken = ring.take(OffsetDateTime::now_utc(), said);
        if taken.entry.is_none() {
            count(Limit::Rate, 1);
        }
        self.tell(taken);
    }

    /// The newest entries before `before`, newest first, and whether older ones follow.
    pub fn page(
        &self,
        filter: &Filter,
        before: Option<i64>,
        limit: usize,
    ) -> (Vec<Arc<LogEntry>>, bool) {
        self.lock().page(filter, before, limit)
    }

    /// Begins to watch: with what is kept, if the filter says since when, and without a gap after it.
    pub fn watch(&self, filter: &Filter) -> Watch {
        let ring = self.lock();
        let kept = if filter.since.is_some() { ring.all(filter) } else { VecDeque::new() };
        Watch { kept, coming: self.told.subscribe() }
    }

    /// A server of which there are entries, by its uuid or by a name that it had.
    pub fn server(&self, id: &str) -> Option<Uuid> {
        self.lock().server(id)
    }

    /// Forgets everything, or everything about one server.
    pub fn clear(&self, server: Option<Uuid>) {
        let mut ring = self.lock();
        let ids = ring.clear(server);
        self.forget(ids);
    }

    fn tell(&self, Taken { entry, gone }: Taken) {
        for (_, limit) in &gone {
            count(*limit, 1);
        }
        let Some(entry) = entry else { return };
        if let Some(journal) = &self.journal {
            let gone = gone.into_iter().map(|(id, _)| id).collect();
            journal.record_minor(Record::Log { entry: entry.clone(), gone });
        }
        // An error only means that nobody watches.
        drop(self.told.send(entry));
    }

    fn forget(&self, ids: Vec<i64>) {
        if let Some(journal) = self.journal.as_ref().filter(|_| !ids.is_empty()) {
            journal.record(Record::LogsGone { ids });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What others say here, in the words of an entry.
impl Logbook {
    pub fn moved(&self, transition: &Transition) {
        let Transition { state, message, .. } = transition;
        let level = match (state, message) {
            (StateWord::Crashed | StateWord::NeedsAuth, Some(_)) => Level::Error,
            (_, Some(_)) => Level::Warn,
            (_, None) => Level::Info,
        };
        let text = match message {
            Some(message) => format!("{}: {message}", state.as_str()),
            None => format!("{} ({})", state.as_str(), transition.reason.as_str()),
        };
        let about = About { uuid: transition.mcp_server_uuid, name: &transition.name };
        self.say(Said {
            state: Some(state.as_str().to_owned()),
            reason: Some(transition.reason.as_str().to_owned()),
            ..Said::new(level, Kind::Transition, Some(about), text)
        });
    }

    /// `readable` makes the line as it may be read, and is called only if the line does not come too
    /// fast.
    pub fn wrote(&self, about: About<'_>, output: Output, readable: impl FnOnce() -> String) {
        let kind = match output {
            Output::Stderr => Kind::Stderr,
            Output::Stdout => Kind::Stdout,
        };
        if !self.lock().admits(OffsetDateTime::now_utc(), kind, Some(about)) {
            return count(Limit::Rate, 1);
        }
        let line = readable();
        let level = match output {
            Output::Stderr => Level::of_line(&line),
            // It may be harmless, but it does not belong there.
            Output::Stdout => Level::Warn,
        };
        let said = Said::new(level, kind, Some(about), line);
        let mut ring = self.lock();
        let taken = ring.take_admitted(OffsetDateTime::now_utc(), said);
        self.tell(taken);
    }

    pub fn not_listed(&self, about: About<'_>, noun: &str, why: &str) {
        let text = format!("its {noun}s could not be listed: {why}");
        self.say(Said::new(Level::Warn, Kind::List, Some(about), text));
    }

    /// Clients of a schema profile cannot take a tool and do not see it.
    pub fn hidden_from(
        &self,
        about: About<'_>,
        tool: &str,
        profile: &str,
        reason: &str,
        why: &str,
    ) {
        let tool = tool_name(tool);
        let text =
            format!("its tool `{tool}` is hidden from clients of the profile `{profile}`: {why}");
        self.say(Said {
            reason: Some(reason.to_owned()),
            tool: Some(tool),
            ..Said::new(Level::Warn, Kind::List, Some(about), text)
        });
    }

    /// The server goes on; only the client whose process it was has lost something.
    pub fn lost_process(&self, about: About<'_>, reason: &str, what: &str) {
        let said = Said::new(Level::Warn, Kind::Process, Some(about), what.to_owned());
        self.say(Said { reason: Some(reason.to_owned()), ..said });
    }

    pub fn changed(&self, change: &CatalogueChange) {
        let CatalogueChange { added, removed, changed, .. } = change;
        let text = format!(
            "its {}s have changed: {}, {}, {}, {} in all",
            change.kind,
            listed(added, "added"),
            listed(removed, "removed"),
            listed(changed, "changed"),
            change.count,
        );
        // What is not what it was may not be what was approved either.
        let level = if changed.count == 0 { Level::Info } else { Level::Warn };
        let about = About { uuid: change.mcp_server_uuid, name: &change.name };
        self.say(Said::new(level, Kind::Catalogue, Some(about), text));
    }

    /// A call of a tool of this server, or a request for a prompt or a resource, had no result.
    pub fn call_failed(
        &self,
        board: &Board,
        tool: &str,
        endpoint: Option<&str>,
        error: &CallError,
    ) {
        let Fault { message, data, .. } = error.fault();
        let (reason, level) = match &data {
            None => ("other", Level::Error),
            Some(data) => (
                data.reason,
                match (data.fault, data.retry) {
                    (Blame::Client, _) => Level::Info,
                    (Blame::Upstream | Blame::Gateway, true) => Level::Warn,
                    (Blame::Upstream | Blame::Gateway, false) => Level::Error,
                },
            ),
        };
        let spec = board.spec();
        let about = About { uuid: board.id, name: &spec.name };
        let text = board.stderr.hidden(&message);
        self.say(Said {
            reason: Some(reason.to_owned()),
            tool: Some(tool_name(tool)),
            endpoint: endpoint.map(str::to_owned),
            ..Said::new(level, Kind::Call, Some(about), text)
        });
    }

    /// A client called what is not there.
    pub fn unknown_tool(&self, tool: &str, endpoint: &str) {
        let tool = tool_name(tool);
        let text = format!("a client called the tool `{tool}`, which there is not");
        self.say(Said {
            reason: Some("unknown_tool".to_owned()),
            tool: Some(tool),
            endpoint: Some(endpoint.to_owned()),
            ..Said::new(Level::Warn, Kind::Call, None, text)
        });
    }

    /// Something about the daemon itself.
    pub fn gateway(&self, text: String) {
        self.say(Said::new(Level::Info, Kind::Gateway, None, text));
    }
}

/// How many, and which of them: ``2 added (`a`, `b`)``.
fn listed(names: &NameList, what: &str) -> String {
    if names.count == 0 {
        return format!("0 {what}");
    }
    let shown = names.names.iter().take(NAMES_MAX).map(|name| format!("`{}`", tool_name(name)));
    let shown: Vec<String> = shown.collect();
    let more = match names.count - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{} {what} ({}{more})", names.count, shown.join(", "))
}

fn tool_name(tool: &str) -> String {
    let mut name = hide_shapes(&harmless(tool));
    name.truncate(name.floor_char_boundary(TOOL_MAX));
    name
}

fn count(limit: Limit, entries: u64) {
    metrics::counter!("metamcpd_logs_dropped_total", "limit" => limit.as_str()).increment(entries);
}
