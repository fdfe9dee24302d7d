//! What a snapshot is made of: the members as they are at one moment.

use std::sync::Arc;

use super::MemberSpec;
use crate::{
    catalogue::{
        instructions,
        item::Item,
        kind::{Kind, PerKind},
        routes::Member,
    },
    upstream::{UpstreamSpec, board::Board},
};

/// A member whose upstream exists just now, as a snapshot is made of it.
pub struct Present {
    pub board: Arc<Board>,
    pub spec: Arc<UpstreamSpec>,
    pub active: bool,
    lists: PerKind<Option<Arc<Vec<Item>>>>,
    instructions: Option<Arc<String>>,
    pub is_settled: PerKind<bool>,
}

impl Present {
    pub fn new(member: &MemberSpec, board: &Arc<Board>) -> Self {
        let spec = board.spec();
        Self {
            board: board.clone(),
            // What is switched off offers nothing.
            active: member.active && spec.enabled,
            lists: PerKind::of(|kind| board.list(kind)),
            instructions: board.instructions(),
            is_settled: PerKind::of(|kind| board.is_settled(kind)),
            spec,
        }
    }

    /// Whether a snapshot made of the one is that made of the other. Each change of a list or a row
    /// brings a new value, so that it is enough to ask whether these are the very same.
    pub fn is_same(&self, other: &Self) -> bool {
        Kind::ALL.into_iter().all(|kind| is_same(&self.lists[kind], &other.lists[kind]))
            && is_same(&self.instructions, &other.instructions)
            && Arc::ptr_eq(&self.board, &other.board)
            && Arc::ptr_eq(&self.spec, &other.spec)
            && (self.active, self.is_settled) == (other.active, other.is_settled)
    }

    fn items(&self, kind: Kind) -> &[Item] {
        self.lists[kind].as_ref().map_or(&[], |items| items)
    }

    /// Whether it should have a part in a list, and nobody knows which.
    pub fn is_missing(&self, kind: Kind) -> bool {
        self.active && self.lists[kind].is_none()
    }

    pub fn keys(&self, kind: Kind) -> Vec<&str> {
        self.items(kind).iter().map(|item| &*item.key).collect()
    }

    pub fn member(&self, kind: Kind) -> Member<'_> {
        Member { server: self.board.id, active: self.active, items: self.items(kind) }
    }
}

fn is_same<T>(one: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// What these members say of their use, as one text of at most `max` bytes.
pub fn merged<'a>(members: impl Iterator<Item = &'a Present>, max: usize) -> Option<Arc<str>> {
    let texts: Vec<(&str, &str)> = members
        .filter_map(|one| Some((one.spec.name.as_str(), one.instructions.as_ref()?.as_str())))
        .collect();
    instructions::merge(&texts, max).map(Arc::from)
}
