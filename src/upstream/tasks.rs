//! The tasks of one upstream that clients made through us (basic, "Tasks", 2025-11-25): whose each is,
//! what its owner knows it by, and who waits for it.
//!
//! It is what the upstream's words are translated by, and a help: the id that an owner has says all that
//! is needed to go on with a task that is not known here any more.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    attribution::Client,
    concern::{Concern, Known},
    exchange::SessionKey,
};
use crate::{
    access::Principal,
    wire::{
        Frame,
        object::splice,
        task::{self, Described},
    },
};

/// The limits of `calls.tasks` in the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskOptions {
    /// Tasks of one principal that are remembered of one upstream.
    pub per_principal_max: usize,
    /// How long a task is remembered that is kept for longer, or without a word of how long.
    #[serde(with = "humantime_serde")]
    pub remember: Duration,
    /// How long a request for a task's result may wait for it.
    #[serde(with = "humantime_serde")]
    pub result_wait: Duration,
    /// Requests of one upstream that may wait for results at once.
    pub results_max: usize,
    /// The fastest and the slowest pace of asking after a task that the gateway drives.
    #[serde(with = "humantime_serde")]
    pub poll_min: Duration,
    #[serde(with = "humantime_serde")]
    pub poll_max: Duration,
    /// Tasks on one page of a list.
    pub page: usize,
    /// How long a list waits for upstreams to say how its tasks are.
    #[serde(with = "humantime_serde")]
    pub list_wait: Duration,
}

/// Whose a task is, and where it was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub principal: Principal,
    pub endpoint: Uuid,
}

/// Makes what an owner knows a task by, of the upstream's id for it and of the life of the process that
/// it ends with. `None` for an id that is too long.
pub type Seal = Arc<dyn Fn(&str, Uuid) -> Option<Arc<str>> + Send + Sync>;

/// Where to go with what an upstream says of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub shown: Option<Arc<str>>,
    pub owner: Option<Owner>,
    /// Who made it, or waited for it last.
    pub client: Client,
    /// The call that hears of it.
    pub call: Option<u64>,
}

/// One task on a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Grows from each task to the next.
    pub number: Uuid,
    pub shown: Arc<str>,
}

pub struct Tasks {
    table: Mutex<Table>,
    next_order: AtomicU64,
    per_principal_max: usize,
    remember: Duration,
}

#[derive(Default)]
struct Table {
    /// What is to be made of the answers to calls, by their sessions and our ids for them.
    orders: HashMap<(SessionKey, u64), Order>,
    /// The calls that go on as tasks that the gateway drives.
    driven: HashSet<(SessionKey, u64)>,
    sessions: HashMap<SessionKey, HashMap<Box<str>, Entry>>,
    /// By what owners know them by.
    shown: HashMap<Arc<str>, (SessionKey, Box<str>)>,
}

struct Order {
    number: u64,
    client: Client,
    concern: Concern,
    /// The client's own token for progress.
    token: Option<Bytes>,
}

struct Entry {
    number: Uuid,
    shown: Option<Arc<str>>,
    owner: Option<Owner>,
    client: Client,
    call: Option<u64>,
    /// Our token for its progress, and the client's.
    progress: Option<(u64, Bytes)>,
    /// As it was last described, by the name that its owner knows.
    last: Bytes,
    is_over: bool,
    began: Instant,
    until: Instant,
}

impl Tasks {
    pub fn new(options: &TaskOptions) -> Self {
        Self {
            table: Mutex::default(),
            next_order: AtomicU64::new(1),
            per_principal_max: options.per_principal_max.max(1),
            remember: options.remember,
        }
    }

    /// Notes what a call has to do with tasks, before it is sent under this id of ours. The number of
    /// the note, by which it is taken back.
    pub(super) fn order(
        &self,
        key: &SessionKey,
        call: u64,
        client: &Client,
        concern: Concern,
        token: Option<Bytes>,
    ) -> u64 {
        let number = self.next_order.fetch_add(1, Ordering::Relaxed);
        let mut table = self.lock();
        if let Concern::Awaits(known) = &concern
            && let Some(entry) = table.entry(key, &known.theirs)
            && entry.shown.is_some()
        {
            entry.client = client.clone();
            entry.call = Some(call);
        }
        let order = Order { number, client: client.clone(), concern, token };
        table.orders.insert((key.clone(), call), order);
        number
    }

    /// The call has ended, and so has what was noted of it under this number.
    pub(super) fn end(&self, key: &SessionKey, call: u64, number: u64, concern: &Concern) {
        let mut table = self.lock();
        let place = (key.clone(), call);
        if table.orders.get(&place).is_some_and(|order| order.number == number) {
            table.orders.remove(&place);
        }
        match concern {
            Concern::Drives => {
                table.driven.remove(&place);
                table.remove_where(|entry| entry.shown.is_none() && entry.call == Some(call));
            }
            Concern::Awaits(known) => {
                if let Some(entry) = table.entry(key, &known.theirs)
                    && entry.shown.is_some()
                    && entry.call == Some(call)
                {
                    entry.call = None;
                }
            }
            Concern::Creates { .. } | Concern::Asks(_) => {}
        }
    }

    /// A call was answered; `life` is that of the process, where its tasks end with it. Where it has
    /// become a task, that is known from here on. Whether the call goes on to hear of it.
    pub fn answered(&self, key: &SessionKey, life: Uuid, call: u64, answer: &Frame) -> bool {
        let order = self.lock().take_order(key, call);
        let Some(Order { client, concern, token, .. }) = order else {
            // Over HTTP+SSE an answer is heard of twice: by the stream, and by the call.
            return self.lock().is_driven(key, call);
        };
        if matches!(concern, Concern::Asks(_) | Concern::Awaits(_)) {
            return false;
        }
        let Some(described) = task::created(answer) else { return false };
        let drives = matches!(concern, Concern::Drives);
        let (owner, shown) = match concern {
            Concern::Creates { owner, seal } => match seal(&described.id, life) {
                Some(shown) => (Some(owner), Some(shown)),
                None => return false,
            },
            Concern::Drives | Concern::Asks(_) | Concern::Awaits(_) => (None, None),
        };
        let now = Instant::now();
        let entry = Entry {
            number: Uuid::now_v7(),
            last: by_name(&described, shown.as_ref()),
            shown,
            owner,
            client,
            call: drives.then_some(call),
            progress: token.map(|token| (call, token)),
            is_over: described.status.is_some_and(task::Status::is_over),
            began: now,
            until: now + self.kept_for(&described),
        };
        self.insert(key, &described.id, entry, now);
        if drives {
            self.lock().driven.insert((key.clone(), call));
        }
        drives
    }

    /// Takes up a task that is not known here, at the word of its owner. Whether that is so: not where
    /// the upstream's id is that of another by now.
    pub fn adopt(&self, key: &SessionKey, known: &Known, owner: &Owner, client: &Client) -> bool {
        let now = Instant::now();
        let moved = {
            let mut table = self.lock();
            if let Some(entry) = table.entry(key, &known.theirs) {
                return entry.shown == known.shown;
            }
            // The session in which it was known has ended.
            known.shown.as_ref().and_then(|shown| table.take(shown))
        };
        if let Some(entry) = moved {
            self.insert(key, &known.theirs, entry, now);
            return true;
        }
        let entry = Entry {
            number: Uuid::now_v7(),
            shown: known.shown.clone(),
            owner: Some(owner.clone()),
            client: client.clone(),
            call: None,
            progress: None,
            last: Bytes::new(),
            is_over: false,
            began: now,
            until: now + self.remember,
        };
        self.insert(key, &known.theirs, entry, now);
        true
    }

    /// The session of the upstream in which a task was made, by what its owner knows it by.
    pub fn session_of(&self, shown: &str) -> Option<SessionKey> {
        self.lock().shown.get(shown).map(|(key, _)| key.clone())
    }

    /// Where to go with what the upstream says of a task in this session.
    pub fn place(&self, key: &SessionKey, theirs: &str) -> Option<Place> {
        let mut table = self.lock();
        let Entry { shown, owner, client, call, .. } = table.entry(key, theirs)?;
        Some(Place {
            shown: shown.clone(),
            owner: owner.clone(),
            client: client.clone(),
            call: *call,
        })
    }

    /// Where progress goes that is reported under the id of a call which has become a task, and the
    /// token that its client gave.
    pub fn progress_of(&self, key: &SessionKey, call: u64) -> Option<(Place, Bytes)> {
        let table = self.lock();
        let mut entries = table.sessions.get(key)?.values();
        entries.find_map(|entry| {
            let (_, token) = entry.progress.as_ref().filter(|(ours, _)| *ours == call)?;
            let Entry { shown, owner, client, call, .. } = entry;
            let (shown, owner, client) = (shown.clone(), owner.clone(), client.clone());
            Some((Place { shown, owner, client, call: *call }, token.clone()))
        })
    }

    /// The upstream has described a task.
    pub fn saw(&self, key: &SessionKey, described: &Described) {
        let (kept_for, now) = (self.kept_for(described), Instant::now());
        let mut table = self.lock();
        let Some(entry) = table.entry(key, &described.id) else { return };
        entry.last = by_name(described, entry.shown.as_ref());
        entry.is_over |= described.status.is_some_and(task::Status::is_over);
        entry.until = match described.ttl {
            Some(_) => entry.began + kept_for,
            None => now + kept_for,
        };
    }

    /// The outcome of a task has been given.
    pub(super) fn ended(&self, key: &SessionKey, theirs: &str) {
        if let Some(entry) = self.lock().entry(key, theirs) {
            entry.is_over = true;
        }
    }

    /// The upstream says that it does not know a task. Where that is one that has not ended, it is
    /// forgotten: to cancel one that has is refused by the same code.
    pub(super) fn is_unknown(&self, key: &SessionKey, theirs: &str) {
        let mut table = self.lock();
        if table.entry(key, theirs).is_some_and(|entry| !entry.is_over) {
            table.remove(key, theirs);
        }
    }

    /// What there is of an owner's, the oldest first.
    pub fn of(&self, owner: &Owner) -> Vec<Listed> {
        let mut table = self.lock();
        table.expire(Instant::now());
        let mut listed = Vec::new();
        for entry in table.sessions.values().flat_map(HashMap::values) {
            if let Some(shown) = entry.shown.clone().filter(|_| entry.owner.as_ref() == Some(owner))
            {
                listed.push(Listed { number: entry.number, shown });
            }
        }
        listed
    }

    /// A task as it was last described; nothing where it is not known (any more).
    pub fn last_of(&self, shown: &str) -> Option<Bytes> {
        let table = self.lock();
        let (key, theirs) = table.shown.get(shown)?;
        let last = &table.sessions.get(key)?.get(theirs)?.last;
        (!last.is_empty()).then(|| last.clone())
    }

    /// Whose tasks a session of the upstream is still at work on, as far as is known.
    pub fn at_work_for(&self, key: &SessionKey) -> Vec<Client> {
        let now = Instant::now();
        let table = self.lock();
        let entries = table.sessions.get(key).into_iter().flat_map(HashMap::values);
        // What is driven is a call that is under way, and counts as one.
        let at_work = entries.filter(|one| one.shown.is_some() && !one.is_over && one.until > now);
        let mut clients: Vec<Client> = at_work.map(|entry| entry.client.clone()).collect();
        clients.sort_unstable();
        clients.dedup();
        clients
    }

    /// Whether a session of the upstream is still at work on any, those that are driven included.
    pub fn has_work(&self, key: &SessionKey) -> bool {
        let (now, table) = (Instant::now(), self.lock());
        let mut entries = table.sessions.get(key).into_iter().flat_map(HashMap::values);
        entries.any(|entry| !entry.is_over && entry.until > now)
    }

    /// The process has ended that had this session, and its tasks with it.
    pub fn forget(&self, key: &SessionKey) {
        let mut table = self.lock();
        let Some(entries) = table.sessions.remove(key) else { return };
        let shown = entries.into_values().filter_map(|entry| entry.shown);
        shown.for_each(|shown| drop(table.shown.remove(&shown)));
    }

    fn insert(&self, key: &SessionKey, theirs: &str, entry: Entry, now: Instant) {
        let mut table = self.lock();
        table.expire(now);
        if let Some(owner) = &entry.owner {
            table.make_room(owner, self.per_principal_max);
        }
        table.remove(key, theirs);
        if let Some(shown) = &entry.shown {
            table.shown.insert(shown.clone(), (key.clone(), theirs.into()));
        }
        table.sessions.entry(key.clone()).or_default().insert(theirs.into(), entry);
    }

    fn kept_for(&self, described: &Described) -> Duration {
        described.ttl.unwrap_or(self.remember).min(self.remember)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is whole whenever the lock is free, even after a panic elsewhere.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn take_order(&mut self, key: &SessionKey, call: u64) -> Option<Order> {
        // Nearly always there is none, since few calls have to do with tasks.
        if self.orders.is_empty() { None } else { self.orders.remove(&(key.clone(), call)) }
    }

    fn is_driven(&self, key: &SessionKey, call: u64) -> bool {
        !self.driven.is_empty() && self.driven.contains(&(key.clone(), call))
    }

    fn entry(&mut self, key: &SessionKey, theirs: &str) -> Option<&mut Entry> {
        self.sessions.get_mut(key)?.get_mut(theirs)
    }

    fn remove(&mut self, key: &SessionKey, theirs: &str) {
        let Some(entries) = self.sessions.get_mut(key) else { return };
        let removed = entries.remove(theirs);
        if entries.is_empty() {
            self.sessions.remove(key);
        }
        if let Some(shown) = removed.and_then(|entry| entry.shown) {
            self.shown.remove(&shown);
        }
    }

    fn take(&mut self, shown: &str) -> Option<Entry> {
        let (key, theirs) = self.shown.remove(shown)?;
        let entries = self.sessions.get_mut(&key)?;
        let entry = entries.remove(&theirs);
        if entries.is_empty() {
            self.sessions.remove(&key);
        }
        entry
    }

    fn expire(&mut self, now: Instant) {
        self.remove_where(|entry| entry.shown.is_some() && entry.until <= now);
    }

    fn remove_where(&mut self, is_over: impl Fn(&Entry) -> bool) {
        let all = self.sessions.iter().flat_map(|(key, entries)| {
            entries.iter().map(move |(theirs, entry)| (key, theirs, entry))
        });
        let over = all.filter(|(_, _, entry)| is_over(entry));
        let over: Vec<_> = over.map(|(key, theirs, _)| (key.clone(), theirs.clone())).collect();
        over.iter().for_each(|(key, theirs)| self.remove(key, theirs));
    }

    /// The oldest that is over goes first, and then the oldest.
    fn make_room(&mut self, owner: &Owner, max: usize) {
        let of_owner = |entry: &&Entry| {
            entry.owner.as_ref().is_some_and(|one| one.principal == owner.principal)
        };
        let entries = || self.sessions.values().flat_map(HashMap::values).filter(of_owner);
        if entries().count() < max {
            return;
        }
        metrics::counter!("metamcpd_limit_hit_total", "limit" => "calls.tasks.per_principal_max")
            .increment(1);
        let first = entries().min_by_key(|entry| (!entry.is_over, entry.number));
        if let Some(number) = first.map(|entry| entry.number) {
            self.remove_where(|entry| entry.number == number);
        }
    }
}

fn by_name(described: &Described, shown: Option<&Arc<str>>) -> Bytes {
    let Some(shown) = shown else { return described.object.clone() };
    splice(&described.object, &mut [(described.id_within, &json(shown))])
}

/// A text as JSON.
pub fn json(text: &str) -> Bytes {
    serde_json::Value::from(text).to_string().into()
}

#[cfg(test)]
#[path = "tasks_tests.rs"]
mod tests;
