//! Which URIs a namespace rewrites, by what is remembered of it and by what clients have seen.

use std::sync::Arc;

use super::{Namespace, present::Present, published::Published};
use crate::catalogue::{
    apps::with_shown_app,
    item::Item,
    kind::{Kind, PerKind},
    naming::Naming,
    resources::Resources,
    routes::Member,
    uris::{Collisions, Prefixes, Uris, collisions},
};

/// The tools of those members of which any names a resource that clients know by another URI.
pub(super) fn shown_apps(present: &[Present], resources: &Resources) -> Vec<Option<Vec<Item>>> {
    if resources.uri_naming() == Naming::Never {
        return Vec::new();
    }
    let tools_of = |(member, one): (usize, &Present)| {
        let prefix = |uri: &str| match resources.is_rewritten(member, uri) {
            Some(true) => resources.prefix(member),
            Some(false) | None => "",
        };
        let own = one.member(Kind::Tool).items;
        let shown: Vec<Option<Item>> =
            own.iter().map(|tool| with_shown_app(tool, prefix)).collect();
        let pairs = || shown.iter().zip(own);
        let is_any = shown.iter().any(Option::is_some);
        is_any.then(|| pairs().map(|(shown, own)| shown.as_ref().unwrap_or(own).clone()).collect())
    };
    present.iter().enumerate().map(tools_of).collect()
}

/// What is known by URIs.
const KINDS: [Kind; 2] = [Kind::Resource, Kind::Template];

impl Namespace {
    /// Decides how the URIs are shown that are present, and remembers what is to hold.
    pub(super) fn write_uris(&mut self, present: &[Present], hold: PerKind<bool>) -> Uris {
        let naming = self.spec.uri_naming;
        let mut uris = Uris { naming, ..Uris::default() };
        if naming != Naming::Never {
            let named = present.iter().map(|one| (one.board.id, one.spec.name.as_str()));
            uris.prefixes = Prefixes::new(named);
        }
        for kind in KINDS {
            self.names_hold[kind] = hold[kind] || naming != Naming::OnConflict;
            if naming != Naming::OnConflict {
                continue;
            }
            let members: Vec<Member<'_>> = present.iter().map(|one| one.member(kind)).collect();
            let known = &self.spec.known[kind];
            // Only what was shown once all had come or failed was shown for good.
            let firm =
                self.firm[kind].as_ref().filter(|firm| firm.resources.uri_naming() == naming);
            let earlier = |uri: &str| {
                let firm = firm?;
                let member = firm.resources.holder(kind, uri)?;
                firm.boards.get(member).map(|board| board.id)
            };
            let curation = &self.spec.curations[kind];
            let Collisions { rewritten, known: to_know } =
                collisions(&members, curation, &uris.prefixes, known, earlier);
            uris.rewritten[kind] = rewritten;
            if hold[kind] && to_know != *known {
                self.keeper.named(self.spec.id, kind, naming, &to_know);
                self.spec.known[kind] = to_know;
            }
        }
        uris
    }

    /// Notes what clients have been shown for good.
    pub(super) fn note_firm(&mut self, published: &Arc<Published>, hold: PerKind<bool>) {
        let rewrites = self.spec.uri_naming == Naming::OnConflict;
        for kind in KINDS.into_iter().filter(|kind| hold[*kind]) {
            self.firm[kind] = rewrites.then(|| published.clone());
        }
    }
}
