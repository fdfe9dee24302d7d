//! A group of upstreams as one offer: the actor that merges their tools and publishes the routes,
//! and routes what the published routes cannot.
//!
//! Calls read the published snapshot and never wait for this actor; only a first list that has to
//! wait, and a name that is not listed, come here. How tools are named and merged is decided in
//! `catalogue`.

pub mod published;

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::{sync::watch, time::timeout_at};
use uuid::Uuid;

use crate::{
    catalogue::{
        curation::Curation,
        naming::{Assignment, KnownNames, MemberTools, Naming, assign},
        routes::{Member, Route, Routes, forwardable},
        tool::Tool,
    },
    fleet::Roster,
    upstream::board::Board,
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
}

/// What the rest of the daemon holds of a namespace.
#[derive(Clone)]
pub struct NamespaceHandle {
    pub id: Uuid,
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

    fn handle(&mut self, Reconfigure(spec): Reconfigure, _: &mut Self::Context) {
        // The names given since the rows were read are known here first.
        let given = std::mem::take(&mut self.spec.known);
        let keeps = self.spec.naming == spec.naming;
        self.spec = spec;
        if keeps {
            let members = &self.spec.members;
            let stays = |server| members.iter().any(|member| member.server == server);
            // A server that has left gives its names back.
            for (server, tool, shown) in given.iter().filter(|(server, ..)| stays(*server)) {
                self.spec.known.insert(server, tool, shown);
            }
        }
        self.publish();
    }
}

impl Handler<UpstreamChanged> for Namespace {
    type Result = ();

    fn handle(&mut self, UpstreamChanged(server): UpstreamChanged, _: &mut Self::Context) {
        if self.spec.members.iter().any(|member| member.server == server) {
            self.publish();
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
        MessageResult(self.resolve(&name))
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
        let actor = Self { spec, options, roster, keeper, published: published.clone(), announce };
        NamespaceHandle { id, published, changes, actor: Actor::start(actor) }
    }

    fn active_boards(&self) -> Vec<Arc<Board>> {
        let roster = self.roster.load();
        let active = self.spec.members.iter().filter(|member| member.active);
        active.filter_map(|member| roster.get(&member.server).cloned()).collect()
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

    /// Makes a new snapshot, and announces it if what clients see has changed.
    fn publish_and(&mut self, names_hold: bool) {
        let roster = self.roster.load();
        let present: Vec<Present> = self
            .spec
            .members
            .iter()
            .filter_map(|member| Some(Present::new(member, roster.get(&member.server)?)))
            .collect();
        let tools: Vec<Vec<&str>> = present.iter().map(Present::tool_names).collect();
        let named: Vec<MemberTools<'_>> = present
            .iter()
            .zip(&tools)
            .filter(|(one, _)| one.active)
            .map(|(one, tools)| MemberTools { server: one.board.id, server_name: &one.name, tools })
            .collect();
        let NamespaceSpec { naming, known, curation, .. } = &self.spec;
        let assignment =
            assign(*naming, self.options.names_max, &named, known, &curation.renamings());

        let members: Vec<Member<'_>> = present.iter().map(Present::member).collect();
        let routes = Routes::build(&members, &assignment, curation);
        let is_settled = present.iter().filter(|one| one.active).all(|one| one.board.is_settled());

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
        let Assignment { hidden, refused, holders, .. } = assignment;
        let published = Published { routes, boards, hidden, refused, holders, is_settled };
        drop(present);
        self.published.store(Arc::new(published));
        if has_changed {
            self.announce.send_modify(|count| *count += 1);
        }
    }

    /// Decision 10: a name that is not listed goes on only where it can mean nothing else.
    fn resolve(&self, name: &str) -> Option<(Arc<Board>, Route)> {
        let published = self.published.load();
        if let Some(found) = published.find(name) {
            return Some(found);
        }
        let roster = self.roster.load();
        let present: Vec<Present> = self
            .spec
            .members
            .iter()
            .filter_map(|member| Some(Present::new(member, roster.get(&member.server)?)))
            .collect();
        let members: Vec<Member<'_>> = present.iter().map(Present::member).collect();
        let index = forwardable(self.spec.naming, name, &members, &self.spec.curation)?;
        let board = present[index].board.clone();
        let tool_json = serde_json::Value::from(name).to_string().into();
        let route = Route { member: index, server: board.id, tool: name.into(), tool_json };
        Some((board, route))
    }
}

/// A member whose upstream exists just now.
struct Present {
    board: Arc<Board>,
    name: String,
    active: bool,
    tools: Option<Arc<Vec<Tool>>>,
}

impl Present {
    fn new(member: &MemberSpec, board: &Arc<Board>) -> Self {
        let spec = board.spec();
        Self {
            board: board.clone(),
            name: spec.name.clone(),
            // What is switched off offers nothing.
            active: member.active && spec.enabled,
            tools: board.catalogue(),
        }
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
