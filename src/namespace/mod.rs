//! A group of upstreams as one offer: the actor that merges what they list and publishes the routes,
//! and routes what the published routes cannot.
//!
//! Calls read the published snapshot and never wait for this actor; only a first list that has to
//! wait, and a name that is not listed, come here. How tools are named and merged is decided in
//! `catalogue`.

pub mod links;
mod present;
pub mod published;
pub mod shapes;
mod uris;

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
        item::Item,
        kind::{Kind, PerKind},
        naming::{Assignment, KnownNames, MemberTools, Naming, assign},
        profiles::Limits,
        resources::Resources,
        routes::{Member, Route, Routes, forwardable},
    },
    failpoint,
    fleet::Roster,
    upstream::board::Board,
    wire::{ListCounts, Topic},
};
use links::Links;
use present::{Present, merged};
use published::Published;
use shapes::{HiddenTool, ShapedLists, Shapes};
use uris::shown_apps;

/// A namespace as the operator wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceSpec {
    pub id: Uuid,
    pub naming: Naming,
    /// When the URIs of resources and templates are rewritten.
    pub uri_naming: Naming,
    /// In the order in which their lists are put together.
    pub members: Vec<MemberSpec>,
    /// Names that were given before, under this naming.
    pub known: PerKind<KnownNames>,
    /// What was decided about the offers of the members.
    pub curations: PerKind<Curation>,
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
    /// Bytes of the merged instructions (`lists.instructions_max`).
    pub instructions_max: usize,
    /// Linked resources that are remembered (`lists.links_max`).
    pub links_max: usize,
    /// Bytes of one schema that a profile works on (`lists.schema_max`).
    pub schema_max: usize,
}

/// Who remembers the names that were given, those of vanished tools among them, and hears of tools that
/// some clients do not see. Never waits.
pub trait NamesKeeper: Send + Sync {
    fn named(&self, namespace: Uuid, kind: Kind, naming: Naming, names: &KnownNames);

    /// Clients of some profile do not see a tool that they saw before, or that is new.
    fn hid(&self, hidden: HiddenTool<'_>);
}

pub struct Namespace {
    spec: NamespaceSpec,
    options: NamespaceOptions,
    roster: Roster,
    keeper: Arc<dyn NamesKeeper>,
    published: Arc<ArcSwap<Published>>,
    links: Arc<Links>,
    shapes: Arc<Shapes>,
    /// Counts the lists that differed from the one before.
    announce: watch::Sender<ListCounts>,
    /// What the published snapshot was made of, so that one like it is not made again.
    made_of: Vec<Present>,
    /// Whether the rows have changed since.
    is_outdated: bool,
    /// Whether its names were given for good.
    names_hold: PerKind<bool>,
    /// The last snapshot whose URIs were, where any are rewritten.
    firm: PerKind<Option<Arc<Published>>>,
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
    pub uri_naming: Naming,
    pub published: Arc<ArcSwap<Published>>,
    pub changes: watch::Receiver<ListCounts>,
    pub actor: Addr<Namespace>,
}

// === Messages ===

/// The rows have changed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reconfigure(pub NamespaceSpec);

/// Something about one upstream has changed: its lists, its name, or that it exists.
#[derive(Message)]
#[rtype(result = "()")]
pub struct UpstreamChanged(pub Uuid);

/// Waits until every upstream that no list of this kind is known of has listed it, has failed, or has
/// had its time.
#[derive(Message)]
#[rtype(result = "Arc<Published>")]
pub struct AwaitFirst(pub Kind);

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
        failpoint::pass("namespace-begins");
        self.publish();
    }
}

impl Handler<Reconfigure> for Namespace {
    type Result = ();

    fn handle(&mut self, Reconfigure(mut spec): Reconfigure, _: &mut Self::Context) {
        failpoint::pass("namespace-change");
        // The names given since the rows were read are known here first.
        let given = std::mem::take(&mut self.spec.known);
        let read = std::mem::take(&mut spec.known);
        self.is_outdated |= self.spec != spec || read.iter().any(|(_, names)| !names.is_empty());
        let namings = |spec: &NamespaceSpec| {
            PerKind::of(|kind| match kind {
                Kind::Tool | Kind::Prompt => spec.naming,
                Kind::Resource | Kind::Template => spec.uri_naming,
            })
        };
        let (before, now) = (namings(&self.spec), namings(&spec));
        self.spec = spec;
        self.spec.known = read;
        let members: HashSet<Uuid> = self.spec.members.iter().map(|member| member.server).collect();
        // A server that has left gives its names back.
        for (kind, given) in given.into_iter().filter(|(kind, _)| before[*kind] == now[*kind]) {
            self.spec.known[kind].take_over(given, |server| members.contains(&server));
        }
        self.publish();
    }
}

impl Handler<UpstreamChanged> for Namespace {
    type Result = ();

    fn handle(&mut self, UpstreamChanged(server): UpstreamChanged, ctx: &mut Self::Context) {
        failpoint::pass("namespace");
        if self.spec.members.iter().any(|member| member.server == server) {
            self.publish_soon(ctx);
        }
    }
}

impl Handler<AwaitFirst> for Namespace {
    type Result = ResponseActFuture<Self, Arc<Published>>;

    fn handle(&mut self, AwaitFirst(kind): AwaitFirst, _: &mut Self::Context) -> Self::Result {
        failpoint::pass("namespace-first");
        let first_wait = self.options.first_wait;
        let unsettled = self.active_boards().into_iter().filter(|board| !board.is_settled(kind));
        let waits = join_all(unsettled.map(|board| async move {
            // Whether it came or not, the list is made of what there is then.
            drop(timeout_at(board.born + first_wait, board.settled(kind)).await);
        }));
        Box::pin(waits.into_actor(self).map(move |_, namespace, _| {
            namespace.publish_for_good(kind);
            namespace.published.load_full()
        }))
    }
}

impl Handler<Resolve> for Namespace {
    type Result = MessageResult<Resolve>;

    fn handle(&mut self, Resolve { name }: Resolve, _: &mut Self::Context) -> Self::Result {
        failpoint::pass("namespace-resolve");
        self.publish_for_good(Kind::Tool);
        let found = self.resolve(&name);
        if found.is_none() {
            self.look_again();
        }
        MessageResult(found)
    }
}

// === What the handlers share ===

impl Namespace {
    /// `before` is the one whose place it takes, after a panic: its lists are served until there are new
    /// ones, and its counts of changes go on.
    pub fn start(
        spec: NamespaceSpec,
        options: NamespaceOptions,
        roster: Roster,
        keeper: Arc<dyn NamesKeeper>,
        before: Option<&NamespaceHandle>,
    ) -> NamespaceHandle {
        let links = Arc::new(Links::new(options.links_max));
        let limits = Limits { schema_max: options.schema_max };
        let shapes = Shapes::new(spec.id, limits, keeper.clone());
        let published = match before {
            Some(before) => before.published.load_full(),
            None => Arc::new(Published::empty(links.clone(), ShapedLists::new(shapes.clone()))),
        };
        let published = Arc::new(ArcSwap::new(published));
        // Sessions that knew an actor which panicked must not take its successor's list for old.
        let counts = before.map(|before| before.changes.borrow().all_counted());
        let counts = counts.unwrap_or_default();
        let (announce, changes) = watch::channel(counts);
        let id = spec.id;
        let (naming, uri_naming) = (spec.naming, spec.uri_naming);
        let actor = Self {
            spec,
            options,
            roster,
            keeper,
            published: published.clone(),
            links,
            shapes,
            announce,
            made_of: Vec::new(),
            is_outdated: true,
            names_hold: PerKind::default(),
            firm: PerKind::default(),
            is_due: false,
            last_took: Duration::ZERO,
            looked: None,
        };
        NamespaceHandle { id, naming, uri_naming, published, changes, actor: Actor::start(actor) }
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
            failpoint::pass("namespace-publish");
            namespace.is_due = false;
            namespace.publish();
        });
    }

    /// Makes a new snapshot. Names are given for good once every member has come or failed: which
    /// of two is the earlier is decided by their order, and not by which of them starts faster.
    fn publish(&mut self) {
        self.publish_and(self.settled());
    }

    /// Makes a new snapshot whose list of this kind a client is about to go by, so its names hold
    /// whoever still comes.
    fn publish_for_good(&mut self, kind: Kind) {
        let mut hold = self.settled();
        hold[kind] = true;
        self.publish_and(hold);
    }

    fn settled(&self) -> PerKind<bool> {
        let boards = self.active_boards();
        PerKind::of(|kind| boards.iter().all(|board| board.is_settled(kind)))
    }

    /// Makes a new snapshot if anything it is made of has changed, and announces it if what clients
    /// see has.
    fn publish_and(&mut self, hold: PerKind<bool>) {
        let present = self.present();
        let is_same = self.made_of.len() == present.len()
            && self.made_of.iter().zip(&present).all(|(before, now)| before.is_same(now));
        let holds = |kind: Kind| self.names_hold[kind] || !hold[kind];
        if is_same && !self.is_outdated && Kind::ALL.into_iter().all(holds) {
            return;
        }
        let began = Instant::now();
        let uris = self.write_uris(&present, hold);
        let members =
            |kind| -> Vec<Member<'_>> { present.iter().map(|one| one.member(kind)).collect() };
        let (resources, mut hidden) = Resources::build(
            &members(Kind::Resource),
            &members(Kind::Template),
            &self.spec.curations,
            uris,
        );
        let apps = shown_apps(&present, &resources);
        let (tools, tool_names) =
            self.name_and_route(&present, Kind::Tool, &apps, hold[Kind::Tool]);
        let (prompts, prompt_names) =
            self.name_and_route(&present, Kind::Prompt, &[], hold[Kind::Prompt]);
        let Assignment { hidden: hidden_tools, refused, holders, .. } = tool_names;
        hidden[Kind::Tool] = hidden_tools;
        hidden[Kind::Prompt] = prompt_names.hidden;

        let active = || present.iter().filter(|one| one.active);
        let published = Published {
            routes: tools,
            prompts,
            resources,
            boards: present.iter().map(|one| one.board.clone()).collect(),
            is_active: present.iter().map(|one| one.active).collect(),
            active: active().map(|one| one.board.clone()).collect(),
            hidden,
            refused,
            holders,
            instructions: merged(active(), self.options.instructions_max),
            links: self.links.clone(),
            shaped: ShapedLists::new(self.shapes.clone()),
            is_settled: PerKind::of(|kind| active().all(|one| one.is_settled[kind])),
            missing: PerKind::of(|kind| {
                let missing = present.iter().filter(|one| one.is_missing(kind));
                missing.map(|one| one.spec.name.as_str().into()).collect()
            }),
            pages: PerKind::default(),
        };
        let published = Arc::new(published);
        self.note_firm(&published, hold);
        let before = self.published.swap(published);
        self.announce_changes(&before);
        self.made_of = present;
        self.is_outdated = false;
        self.last_took = began.elapsed();
    }

    /// Gives what is known by names its names, and remembers those that are to hold. `edited` has the
    /// items of those members whose own are not to be shown as they came.
    fn name_and_route(
        &mut self,
        present: &[Present],
        kind: Kind,
        edited: &[Option<Vec<Item>>],
        names_hold: bool,
    ) -> (Routes, Assignment) {
        let names: Vec<Vec<&str>> = present.iter().map(|one| one.keys(kind)).collect();
        let named: Vec<MemberTools<'_>> = present
            .iter()
            .zip(&names)
            .filter(|(one, _)| one.active)
            .map(|(one, names)| MemberTools {
                server: one.board.id,
                server_name: &one.spec.name,
                tools: names,
            })
            .collect();
        let NamespaceSpec { id, naming, known, curations, .. } = &mut self.spec;
        let (known, curation) = (&mut known[kind], &curations[kind]);
        let assignment =
            assign(*naming, self.options.names_max, &named, known, &curation.renamings());
        let members = present.iter().enumerate().map(|(index, one)| {
            let edited = edited.get(index).and_then(Option::as_deref);
            let own = one.member(kind);
            Member { items: edited.unwrap_or(own.items), ..own }
        });
        let members: Vec<Member<'_>> = members.collect();
        let routes = Routes::build(&members, &assignment, curation);

        let is_new = assignment
            .shown
            .iter()
            .any(|shown| known.get(shown.server, &shown.tool) != Some(&*shown.shown_name));
        if is_new && names_hold {
            for shown in &assignment.shown {
                known.insert(shown.server, &shown.tool, &shown.shown_name);
            }
            self.keeper.named(*id, kind, *naming, known);
        }
        self.names_hold[kind] = names_hold || !is_new;
        (routes, assignment)
    }

    fn announce_changes(&self, before: &Published) {
        let now = self.published.load();
        let has_changed = |topic: &Topic| match topic {
            Topic::Tools => before.routes.digest() != now.routes.digest(),
            Topic::Prompts => before.prompts.digest() != now.prompts.digest(),
            Topic::Resources => before.resources.digest() != now.resources.digest(),
        };
        let changed: Vec<Topic> = Topic::ALL.into_iter().filter(has_changed).collect();
        if !changed.is_empty() {
            self.announce.send_modify(|counts| {
                changed.into_iter().for_each(|topic| counts.count(topic));
            });
        }
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
            board.refresh[Kind::Tool].ask();
        }
    }

    /// Decision 10: a name that is not listed goes on only where it can mean nothing else.
    fn resolve(&self, name: &str) -> Option<(Arc<Board>, Route)> {
        let published = self.published.load();
        if let Some(found) = published.find(name) {
            return Some(found);
        }
        let present = self.present();
        let members: Vec<Member<'_>> = present.iter().map(|one| one.member(Kind::Tool)).collect();
        let curation = &self.spec.curations[Kind::Tool];
        let index = forwardable(self.spec.naming, name, &members, curation)?;
        let board = present[index].board.clone();
        let key_json = serde_json::Value::from(name).to_string().into();
        let (server, key) = (board.id, name.into());
        let route = Route { member: index, server, key, key_json, tasks: None };
        Some((board, route))
    }
}

#[cfg(test)]
mod tests;
