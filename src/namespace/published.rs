//! The snapshot that calls read.

use std::{collections::HashMap, sync::Arc};

use crate::{
    catalogue::{
        naming::{Hidden, Holder},
        routes::{Route, Routes},
    },
    upstream::board::Board,
};

/// A namespace at one moment. It never changes; a newer one takes its place.
pub struct Published {
    pub routes: Routes,
    /// The upstreams that routes point to by their index.
    pub boards: Vec<Arc<Board>>,
    /// Those of them that are switched on.
    pub active: Vec<Arc<Board>>,
    /// Tools that no client can see, for operators.
    pub hidden: Vec<Hidden>,
    /// Tools that do not have the name that was chosen for them, since another has it.
    pub refused: Vec<Hidden>,
    /// Which tool has each name that is given or reserved.
    pub holders: HashMap<Box<str>, Holder>,
    /// Whether a list made of it leaves out no upstream that may still come.
    pub is_settled: bool,
}

impl Published {
    pub fn empty() -> Self {
        Self {
            routes: Routes::empty(),
            boards: Vec::new(),
            active: Vec::new(),
            hidden: Vec::new(),
            refused: Vec::new(),
            holders: HashMap::new(),
            is_settled: false,
        }
    }

    /// Where a call of this shown name goes.
    pub fn find(&self, shown_name: &str) -> Option<(Arc<Board>, Route)> {
        let route = self.routes.find(shown_name)?;
        Some((self.boards.get(route.member)?.clone(), route.clone()))
    }
}
