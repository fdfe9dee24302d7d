//! The snapshot that calls read.

use std::{collections::HashMap, sync::Arc};

use uuid::Uuid;

use super::{links::Links, shapes::ShapedLists};
use crate::{
    catalogue::{
        item::URI_MAX,
        kind::{Kind, PerKind},
        naming::{Hidden, Holder},
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

    /// Where a call of the tool of this shown name goes.
    pub fn find(&self, shown_name: &str) -> Option<(Arc<Board>, Route)> {
        self.follow(self.routes.find(shown_name)?)
    }

    /// Where a request for the prompt of this shown name goes.
    pub fn find_prompt(&self, shown_name: &str) -> Option<(Arc<Board>, Route)> {
        self.follow(self.prompts.find(shown_name)?)
    }

    /// The upstream to ask for a resource: the one that lists it; or whose template says most about
    /// its URI; or that has spoken of it; or the only one here that has resources at all. What an
    /// operator has switched off is found in none of these ways.
    pub fn find_resource(&self, uri: &str) -> Option<Arc<Board>> {
        let found = self.resources.find(uri).or_else(|| {
            let learned = self.links.server_of(uri).and_then(|server| self.index_of(server));
            let unlisted = learned.or_else(|| self.sole_with_resources());
            unlisted.filter(|member| self.resources.lets_unlisted(*member, uri))
        });
        self.boards.get(found?).cloned()
    }

    /// The upstream that can complete what a client asks about: a template that it lists, or else
    /// the resource of that URI.
    pub fn find_reference(&self, uri: &str) -> Option<Arc<Board>> {
        match self.resources.find_template(uri) {
            Some(member) => self.boards.get(member).cloned(),
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
