//! A group of upstreams as one offer: the actor that merges their tools and publishes the routes,
//! and routes what the published routes cannot.
//!
//! Calls read the published snapshot and never wait for this actor; only a first list that has to
//! wait, and a name that is not listed, come here. How tools are named and merged is decided in
//! `catalogue`.

pub mod published;

use std::{collections::HashSet, sync::Arc, time::Duration};

use actix::prelude::*;
use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::{
    catalogue::{
        curation::Curation,
        naming::{Assignment, KnownNames, MemberTools, Naming, assign},
        routes::{Member, Route, Routes, forwardable},
        tool::Tool,
    },
    fleet::Roster,
    upstream::{UpstreamSpec, board::Board},
};
use published::Published;

/// A namespace as the operator wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceSpec {
    pub id: Uuid,
    pub naming: Naming,
    /// In the order in which their tools are listed.
    pub members: Vec<MemberSpec>,
    /// Names that were given before, under this naming.
    pub known: KnownNames,
    /// What was decided about the tools of the members.
    pub curation: Curation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    pub server: Uuid,
    pub active: bool,
}

/// What every namespace is told.
#[derive(Clone, Debug)]
pub struct NamespaceOptions {
    /// Bytes that a prefixed name may have (`names.max`).
    pub names_max: usize,
    /// How long a first list waits, counted from an upstream's start (`lists.first_wait`).
    pub first_wait: Duration,
    /// How long changes are gathered before a list is made of them (`lists.debounce`).
    pub debounce: Duration,
    /// How often calls of unknown tools may have upstreams listed anew (`lists.unknown_rest`).
    pub unknown_rest: Duration,
}

/// Who remembers the names that were given, those of vanished tools among them. Never waits.
pub trait NamesKeeper: Send + Sync {
    fn named(&self, namespace: Uuid, naming: Naming, names: &KnownNames);
}

pub struct Namespace {
    spec: NamespaceSpec,
    options: NamespaceOptions,
    roster: Roster,
    keeper: Arc<dyn NamesKeeper>,
    published: Arc<ArcSwap<Published>>,
    /// Counts the lists that differed from the one before.
    announce: watch::Sender<u64>,
    /// What the published snapshot was made of, so that one like it is not made again.
    made_of: Vec<Present>,
    /// Whether the rows have changed since.
    is_outdated: bool,
    /// Whether its names were given for good.
    names_hold: bool,
    /// Whether a new one is about to be made.
    is_due: bool,
    last_took: Duration,
    /// When upstreams were last listed anew for a call of an unknown tool.
    looked: Option<Instant>,
}

/// What the rest of the daemon holds of a namespace.
#[derive(Clone)]
pub struct NamespaceHandle {
    pub id: Uuid,
    /// As it was told last.
    pub naming: Naming,
    pub published: Arc<ArcSwap<Published>>,
    pub changes: watch::Receiver<u64>,
    pub actor: Addr<Namespace>,
}

// === Messages ===

/// The rows have changed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reconfigure(pub NamespaceSpec);

/// Something about one upstream has changed: its tools, its name, or that it exists.
#[derive(Message)]
#[rtype(result = "()")]
pub struct UpstreamChanged(pub Uuid);

/// Waits until every upstream that no list is known of is ready, has failed, or has had its time.
#[derive(Message)]
#[rtype(result = "Arc<Published>")]
pub struct AwaitFirst;

/// Asks where a name that is not listed may go: by a newer snapshot, or past the list.
#[derive(Message)]
#[rtype(result = "Option<(Arc<Board>, Route)>")]
pub struct Resolve {
    pub name: String,
}

// === The actor ===

impl Actor for Namespace {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.publish();
    }
}

impl Handler<Reconfigure> for Namespace {
    type Result = ();

    fn handle(&mut self, Reconfigure(mut spec): Reconfigure, _: &mut Self::Context) {
        // The names given since the rows were read are known here first.
        let given = std::mem::take(&mut self.spec.known);
        let read = std::mem::take(&mut spec.known);
        self.is_outdated |= self.spec != spec || !read.is_empty();
        let keeps = self.spec.naming == spec.naming;
        self.spec = spec;
        self.spec.known = read;
        if keeps {
            let members: HashSet<Uuid> =
                self.spec.members.iter().map(|member| member.server).collect();
            // A server that has left gives its names back.
            self.spec.known.take_over(given, |server| members.contains(&server));
        }
        self.publish();
    }
}

impl Handler<UpstreamChanged> for Namespace {
    type Result = ();

    fn handle(&mut self, UpstreamChanged(server): UpstreamChanged, ctx: &mut Self::Context) {
        if self.spec.members.iter().any(|member| member.server == server) {
            self.publish_soon(ctx);
        }
    }
}

impl Handler<AwaitFirst> for Namespace {
    type Result = ResponseActFuture<Self, Arc<Published>>;

    fn handle(&mut self, _: AwaitFirst, _: &mut Self::Context) -> Self::Result {
        let first_wait = self.options.first_wait;
        let unsettled = self.active_boards().into_iter().filter(|board| !board.is_settled());
        let waits = join_all(unsettled.map(|board| async move {
            // Whether it came or not, the list is made of what there is then.
            drop(timeout_at(board.born + first_wait, board.settled()).await);
        }));
        Box::pin(waits.into_actor(self).map(|_, namespace, _| {
            namespace.publish_for_good();
            namespace.published.load_full()
        }))
    }
}

impl Handler<Resolve> for Namespace {
    type Result = MessageResult<Resolve>;

    fn handle(&mut self, Resolve { name }: Resolve, _: &mut Self::Context) -> Self::Result {
        self.publish_for_good();
        let found = self.resolve(&name);
        if found.is_none() {
            self.look_again();
        }
        MessageResult(found)
    }
}

// === What the handlers share ===

impl Namespace {
    /// `count` is where the count of changes goes on, after an actor that panicked.
    pub fn start(
        spec: NamespaceSpec,
        options: NamespaceOptions,
        roster: Roster,
        keeper: Arc<dyn NamesKeeper>,
        count: u64,
    ) -> NamespaceHandle {
        let published = Arc::new(ArcSwap::from_pointee(Published::empty()));
        let (announce, changes) = watch::channel(count);
        let id = spec.id;
        let naming = spec.naming;
        let actor = Self {
            spec,
            options,
            roster,
            keeper,
            published: published.clone(),
            announce,
            made_of: Vec::new(),
            is_outdated: true,
            names_hold: false,
            is_due: false,
            last_took: Duration::ZERO,
            looked: None,
        };
        NamespaceHandle { id, naming, published, changes, actor: Actor::start(actor) }
    }

    fn active_boards(&self) -> Vec<Arc<Board>> {
        let roster = self.roster.load();
        let active = self.spec.members.iter().filter(|member| member.active);
        active.filter_map(|member| roster.get(&member.server).cloned()).collect()
    }

    /// Makes a new snapshot when those changes that come close to this one have come too: three
    /// hundred upstreams that start are not three hundred lists of all their tools. Whoever waits for
    /// a list has it made at once, and so has an operator who changes a row.
    fn publish_soon(&mut self, ctx: &mut Context<Self>) {
        if self.is_due {
            return;
        }
        self.is_due = true;
        // A namespace that takes long to be made leaves most of its thread to others.
        let rest = self.options.debounce.max(self.last_took * 4);
        ctx.run_later(rest, |namespace, _| {
            namespace.is_due = false;
            namespace.publish();
        });
    }

    /// Makes a new snapshot. Names are given for good once every member has come or failed: which
    /// of two is the earlier is decided by their order, and not by which of them starts faster.
    fn publish(&mut self) {
        let settled = self.active_boards().iter().all(|board| board.is_settled());
        self.publish_and(settled);
    }

    /// Makes a new snapshot that a client is about to go by, so its names hold whoever still comes.
    fn publish_for_good(&mut self) {
        self.publish_and(true);
    }

    /// Makes a new snapshot if anything it is made of has changed, and announces it if what clients
    /// see has.
    fn publish_and(&mut self, names_hold: bool) {
        let present = self.present();
        let is_same = self.made_of.len() == present.len()
            && self.made_of.iter().zip(&present).all(|(before, now)| before.is_same(now));
        if is_same && !self.is_outdated && (self.names_hold || !names_hold) {
            return;
        }
        let began = Instant::now();
        let tools: Vec<Vec<&str>> = present.iter().map(Present::tool_names).collect();
        let named: Vec<MemberTools<'_>> = present
            .iter()
            .zip(&tools)
            .filter(|(one, _)| one.active)
            .map(|(one, tools)| MemberTools {
                server: one.board.id,
                server_name: &one.spec.name,
                tools,
            })
            .collect();
        let NamespaceSpec { naming, known, curation, .. } = &self.spec;
        let assignment =
            assign(*naming, self.options.names_max, &named, known, &curation.renamings());

        let members: Vec<Member<'_>> = present.iter().map(Present::member).collect();
        let routes = Routes::build(&members, &assignment, curation);
        let is_settled = present.iter().filter(|one| one.active).all(|one| one.is_settled);

        let is_new = assignment.shown.iter().any(|shown| {
            self.spec.known.get(shown.server, &shown.tool) != Some(&*shown.shown_name)
        });
        if is_new && names_hold {
            for shown in &assignment.shown {
                self.spec.known.insert(shown.server, &shown.tool, &shown.shown_name);
            }
            self.keeper.named(self.spec.id, self.spec.naming, &self.spec.known);
        }
        let has_changed = self.published.load().routes.digest() != routes.digest();
        let boards = present.iter().map(|one| one.board.clone()).collect();
        let active = present.iter().filter(|one| one.active).map(|one| one.board.clone()).collect();
        let Assignment { hidden, refused, holders, .. } = assignment;
        let published = Published { routes, boards, active, hidden, refused, holders, is_settled };
        self.published.store(Arc::new(published));
        if has_changed {
            self.announce.send_modify(|count| *count += 1);
        }
        drop(named);
        drop(members);
        self.made_of = present;
        self.is_outdated = false;
        self.names_hold = names_hold || !is_new;
        self.last_took = began.elapsed();
    }

    /// The members whose upstreams exist just now.
    fn present(&self) -> Vec<Present> {
        let roster = self.roster.load();
        let members = self.spec.members.iter();
        members
            .filter_map(|member| Some(Present::new(member, roster.get(&member.server)?)))
            .collect()
    }

    /// A client knows a tool that we do not: it may be new. The upstreams are asked behind, and not
    /// more often than the settings say, whatever clients call.
    fn look_again(&mut self) {
        let rest = self.options.unknown_rest;
        let is_early = self.looked.is_some_and(|looked| looked.elapsed() < rest);
        if rest.is_zero() || is_early {
            return;
        }
        self.looked = Some(Instant::now());
        for board in self.active_boards().iter().filter(|board| board.is_ready()) {
            board.refresh.ask();
        }
    }

    /// Decision 10: a name that is not listed goes on only where it can mean nothing else.
    fn resolve(&self, name: &str) -> Option<(Arc<Board>, Route)> {
        let published = self.published.load();
        if let Some(found) = published.find(name) {
            return Some(found);
        }
        let present = self.present();
        let members: Vec<Member<'_>> = present.iter().map(Present::member).collect();
        let index = forwardable(self.spec.naming, name, &members, &self.spec.curation)?;
        let board = present[index].board.clone();
        let tool_json = serde_json::Value::from(name).to_string().into();
        let route = Route { member: index, server: board.id, tool: name.into(), tool_json };
        Some((board, route))
    }
}

/// A member whose upstream exists just now, as a snapshot is made of it.
struct Present {
    board: Arc<Board>,
    spec: Arc<UpstreamSpec>,
    active: bool,
    tools: Option<Arc<Vec<Tool>>>,
    is_settled: bool,
}

impl Present {
    fn new(member: &MemberSpec, board: &Arc<Board>) -> Self {
        let spec = board.spec();
        Self {
            board: board.clone(),
            // What is switched off offers nothing.
            active: member.active && spec.enabled,
            tools: board.catalogue(),
            is_settled: board.is_settled(),
            spec,
        }
    }

    /// Whether a snapshot made of the one is that made of the other. Each change of a list or a row
    /// brings a new value, so that it is enough to ask whether these are the very same.
    fn is_same(&self, other: &Self) -> bool {
        let same_tools = match (&self.tools, &other.tools) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same_tools
            && Arc::ptr_eq(&self.board, &other.board)
            && Arc::ptr_eq(&self.spec, &other.spec)
            && (self.active, self.is_settled) == (other.active, other.is_settled)
    }

    fn tools(&self) -> &[Tool] {
        self.tools.as_ref().map_or(&[], |tools| tools)
    }

    fn tool_names(&self) -> Vec<&str> {
        self.tools().iter().map(|tool| &*tool.name).collect()
    }

    fn member(&self) -> Member<'_> {
        Member { server: self.board.id, active: self.active, tools: self.tools() }
    }
}

#[cfg(test)]
mod tests;
