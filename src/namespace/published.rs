//! The snapshot that calls read.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use uuid::Uuid;

use super::{links::Links, shapes::ShapedLists};
use crate::{
    catalogue::{
        item::URI_MAX,
        kind::{Kind, PerKind},
        naming::{Hidden, Holder, Naming},
        pages::Pages,
        resources::Resources,
        routes::{Route, Routes},
    },
    upstream::board::Board,
};

/// A namespace at one moment. It never changes; a newer one takes its place.
pub struct Published {
    /// Of the tools.
    pub routes: Routes,
    pub prompts: Routes,
    pub resources: Resources,
    /// The upstreams that routes point to by their index.
    pub boards: Vec<Arc<Board>>,
    /// Whether each of them is switched on.
    pub is_active: Vec<bool>,
    /// Those of them that are switched on.
    pub active: Vec<Arc<Board>>,
    /// What no client can see, for operators.
    pub hidden: PerKind<Vec<Hidden>>,
    /// Tools that do not have the name that was chosen for them, since another has it.
    pub refused: Vec<Hidden>,
    /// Which tool has each name that is given or reserved.
    pub holders: HashMap<Box<str>, Holder>,
    /// What the upstreams say of their use, as one text.
    pub instructions: Option<Arc<str>>,
    /// Resources that no list has. The same in every snapshot of a namespace.
    pub links: Arc<Links>,
    /// The tools for clients that cannot take every one, as far as somebody asked.
    pub(super) shaped: ShapedLists,
    /// Whether a list made of it leaves out no upstream that may still come.
    pub is_settled: PerKind<bool>,
    /// The names of upstreams that are switched on and were never seen to list this kind, so that the
    /// list says nothing of them.
    pub missing: PerKind<Vec<Box<str>>>,
    /// The lists cut up, once they were asked for so.
    pub pages: PerKind<OnceLock<Pages>>,
}

impl Published {
    pub fn empty(links: Arc<Links>, shaped: ShapedLists) -> Self {
        Self {
            routes: Routes::empty(),
            prompts: Routes::empty(),
            resources: Resources::empty(),
            boards: Vec::new(),
            active: Vec::new(),
            is_active: Vec::new(),
            hidden: PerKind::default(),
            refused: Vec::new(),
            holders: HashMap::new(),
            instructions: None,
            links,
            shaped,
            is_settled: PerKind::default(),
            missing: PerKind::default(),
            pages: PerKind::default(),
        }
    }

    /// The JSON array of what clients see of one kind, ready to be put into an answer.
    pub fn list(&self, kind: Kind) -> &bytes::Bytes {
        match kind {
            Kind::Tool => self.routes.list(),
            Kind::Prompt => self.prompts.list(),
            Kind::Resource | Kind::Template => self.resources.list(kind),
        }
    }

    /// The same list, to be given page by page.
    pub fn pages(&self, kind: Kind) -> &Pages {
        self.pages[kind].get_or_init(|| self.cut(kind, self.list(kind)))
    }

    /// A list of these things, in whatever form they are shown, to be given page by page.
    pub fn cut(&self, kind: Kind, list: &bytes::Bytes) -> Pages {
        let by_name = |routes: &Routes| {
            Pages::of(kind, list, |shown| {
                let route = routes.find(shown)?;
                Some((route.server, &*route.key))
            })
        };
        match kind {
            Kind::Tool => by_name(&self.routes),
            Kind::Prompt => by_name(&self.prompts),
            Kind::Resource | Kind::Template => Pages::of(kind, list, |shown| {
                let (key, member) = self.resources.listed(kind, shown)?;
                Some((self.boards.get(member)?.id, key))
            }),
        }
    }

    /// Where a call of the tool of this shown name goes.
    pub fn find(&self, shown_name: &str) -> Option<(Arc<Board>, Route)> {
        self.follow(self.routes.find(shown_name)?)
    }

    /// Where a request for the prompt of this shown name goes.
    pub fn find_prompt(&self, shown_name: &str) -> Option<(Arc<Board>, Route)> {
        self.follow(self.prompts.find(shown_name)?)
    }

    /// The upstream to ask for a resource, and what the URI is to that: the one whose prefix it has;
    /// or that lists it; or whose template says most about it; or that has spoken of it; or the only
    /// one here that has resources at all. What an operator has switched off is found in none of
    /// these ways.
    pub fn find_resource<'a>(&self, uri: &'a str) -> Option<(Arc<Board>, &'a str)> {
        let found = self.resources.find(uri).or_else(|| {
            if self.resources.origin(uri).is_some() {
                return None;
            }
            let learned = self.learned(uri);
            let unlisted = learned.or_else(|| self.sole_with_resources());
            let may_reach = |member: &usize| {
                self.resources.lets_unlisted(*member, uri)
                    // What clients know behind a prefix is not meant without.
                    && self.resources.is_rewritten(*member, uri) != Some(true)
            };
            Some((unlisted.filter(may_reach)?, uri))
        });
        self.lead(found?)
    }

    /// The upstream that can complete what a client asks about, and what that is to it: a template
    /// that it lists, or else the resource of that URI.
    pub fn find_reference<'a>(&self, uri: &'a str) -> Option<(Arc<Board>, &'a str)> {
        match self.resources.find_template(uri) {
            Some(found) => self.lead(found),
            None if self.resources.is_template_off(uri) => None,
            None => self.find_resource(uri),
        }
    }

    /// Takes note that an upstream has spoken of a resource, where that is the only way to find it.
    pub fn learn(&self, uri: &str, server: Uuid) {
        if uri.len() <= URI_MAX && self.resources.find(uri).is_none() {
            self.links.learn(uri, server);
        }
    }

    /// Whether any URI may be shown as another.
    pub fn rewrites(&self) -> bool {
        self.resources.uri_naming() != Naming::Never
    }

    /// What stands before a URI that an upstream speaks of, where clients see it: its prefix, if by
    /// itself the URI would lead to another.
    pub fn prefix_of(&self, server: Uuid, uri: &str) -> &str {
        let Some(member) = self.boards.iter().position(|board| board.id == server) else {
            return "";
        };
        let is_anothers = || self.learned(uri).is_some_and(|learned| learned != member);
        match self.resources.is_rewritten(member, uri).unwrap_or_else(is_anothers) {
            true => self.resources.prefix(member),
            false => "",
        }
    }

    /// Whether clients know what an upstream calls so behind its prefix, while another is known by it
    /// as it stands.
    pub fn is_known_by_prefix(&self, server: Uuid, uri: &str) -> bool {
        self.resources.uri_naming() == Naming::OnConflict && !self.prefix_of(server, uri).is_empty()
    }

    /// The prefix of an upstream.
    pub fn own_prefix(&self, server: Uuid) -> &str {
        let member = self.boards.iter().position(|board| board.id == server);
        member.map_or("", |member| self.resources.prefix(member))
    }

    /// The upstream that is meant by the prefix of a URI, and what stands behind that.
    pub fn origin<'a>(&self, uri: &'a str) -> Option<(Arc<Board>, &'a str)> {
        self.lead(self.resources.origin(uri)?)
    }

    fn lead<'a>(&self, (member, own): (usize, &'a str)) -> Option<(Arc<Board>, &'a str)> {
        Some((self.boards.get(member)?.clone(), own))
    }

    fn learned(&self, uri: &str) -> Option<usize> {
        self.links.server_of(uri).and_then(|server| self.index_of(server))
    }

    fn follow(&self, route: &Route) -> Option<(Arc<Board>, Route)> {
        Some((self.boards.get(route.member)?.clone(), route.clone()))
    }

    fn index_of(&self, server: Uuid) -> Option<usize> {
        let index = self.boards.iter().position(|board| board.id == server)?;
        self.is_active.get(index).is_some_and(|active| *active).then_some(index)
    }

    fn sole_with_resources(&self) -> Option<usize> {
        let active = self.boards.iter().zip(&self.is_active).enumerate();
        let mut with = active.filter(|(_, (board, active))| **active && board.has_resources());
        let (only, _) = with.next()?;
        with.next().is_none().then_some(only)
    }
}
