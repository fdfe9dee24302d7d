//! The lists of a namespace for clients that cannot take every tool, made when somebody asks for them.
//!
//! A list belongs to one snapshot; what was found out about single tools outlives it. What becomes of a
//! tool is decided in `catalogue::profiles`.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use uuid::Uuid;

use super::{NamesKeeper, published::Published};
use crate::catalogue::{
    profiles::{Limits, Memory, Profile, Shaped, Unusable},
    routes::Route,
};

/// One of each profile, `raw` too, which is never used.
type PerProfile<T> = [T; Profile::ALL.len()];

/// What outlives a snapshot.
pub struct Shapes {
    namespace: Uuid,
    limits: Limits,
    keeper: Arc<dyn NamesKeeper>,
    known: PerProfile<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    memory: Memory,
    /// What was hidden from these clients when it was last looked at, and was reported then.
    hidden: Vec<(Uuid, Box<str>, Unusable)>,
}

/// A tool that the clients of one profile do not see.
#[derive(Clone, Copy, Debug)]
pub struct HiddenTool<'a> {
    pub namespace: Uuid,
    pub server: Uuid,
    /// The server's own name for it.
    pub tool: &'a str,
    pub profile: Profile,
    pub why: Unusable,
}

/// The lists of one snapshot, as far as they were made.
pub struct ShapedLists {
    shapes: Arc<Shapes>,
    lists: PerProfile<OnceLock<Arc<Shaped>>>,
}

impl Shapes {
    pub fn new(namespace: Uuid, limits: Limits, keeper: Arc<dyn NamesKeeper>) -> Arc<Self> {
        Arc::new(Self { namespace, limits, keeper, known: Default::default() })
    }

    fn build(&self, profile: Profile, published: &Published) -> Arc<Shaped> {
        let known = &self.known[profile as usize];
        // Whatever a panic left is at worst found out anew.
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let list = published.routes.list();
        let shaped = Shaped::build(list, profile, &self.limits, &mut known.memory);
        let hidden: Vec<(Uuid, Box<str>, Unusable)> = shaped
            .verdicts()
            .iter()
            .filter_map(|verdict| {
                let Route { server, key, .. } = published.routes.find(&verdict.shown_name)?;
                Some((*server, key.clone(), verdict.hidden()?))
            })
            .collect();
        for one in hidden.iter().filter(|one| !known.hidden.contains(one)) {
            let (server, tool, why) = one;
            let namespace = self.namespace;
            let hidden = HiddenTool { namespace, server: *server, tool, profile, why: *why };
            self.keeper.hid(hidden);
        }
        known.hidden = hidden;
        Arc::new(shaped)
    }
}

impl ShapedLists {
    pub fn new(shapes: Arc<Shapes>) -> Self {
        Self { shapes, lists: Default::default() }
    }
}

impl Published {
    /// The tools for the clients of a profile, as they were made before; `None` where they were not, and
    /// for `raw`.
    pub fn shaped_before(&self, profile: Profile) -> Option<&Arc<Shaped>> {
        self.shaped.lists[profile as usize].get()
    }

    /// The same, made now where they were not: a matter of microseconds for a tool that was not seen
    /// before. `None` for `raw`, which is the list itself.
    pub fn shaped(&self, profile: Profile) -> Option<&Arc<Shaped>> {
        let lists = &self.shaped;
        let make = || lists.shapes.build(profile, self);
        (profile != Profile::Raw).then(|| lists.lists[profile as usize].get_or_init(make))
    }
}
